"""A stub for gdb: `seventeen run --gdb PORT` and, in gdb, `target remote :PORT`.

    packets.py    bytes of a connection <-> packets: checksums, acknowledgements, escapes
    registers.py  the registers that gdb knows, and the description that tells it of more
    target.py     what a machine must offer
    protocol.py   what each packet asks of it
    monitor.py    gdb's `monitor` commands
    machine.py    the machines of this laboratory as targets, bare and virtual
    server.py     the connection, and the guest that runs in between

What gdb sees is the guest's: its registers as it would read them, and its memory as it wrote it,
by linear address, whatever a technique has made of its code. What gdb does leaves no trace in the
guest: breakpoints and watchpoints are the core's (csrc/api.h), and runs stop between two of the
guest's instructions. Source: "Debugging with GDB", appendix E, the remote protocol.
"""
