; hello - the smallest guest that does anything.
;
; No operating system is below us: "print_line" waits for the serial port and hands it one byte at a
; time (lib/text.inc shows how), and "exit" writes the exit status to a port of the machine.

%include "guest.inc"

start:
    print_line "Hello from ring 0."
    exit 0
