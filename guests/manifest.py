"""The guests: one row each, with what it must print.

The problem: every technique of the hypervisor is judged by whether guests still do what they do on
the bare machine, so there must be one list of guests and one record of what that is. A guest's
text is in `prints/NAME.txt`, byte for byte as it leaves COM1; what is typed to it, if anything, in
`input/NAME.txt`. `guests/__init__.py` is the way in; the sources begin with `hello.asm`, their
library with `lib/guest.inc`.

To add a guest: write its source, add a row here and its prints file. tests/guests holds the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent
#: The include directory of the guest library (``%include "guest.inc"``).
LIB: Final = FOLDER / "lib"

#: Enough guest ticks for any guest that does not wait for time: three times what the longest takes.
TICKS: Final = 5_000_000


@dataclass(frozen=True)
class Guest:
    """One guest program."""

    name: str
    path: str  #: of its source, relative to this folder
    about: str  #: one line
    ticks: int = TICKS  #: a run that takes more has gone wrong (guest ticks)
    status: int = 0  #: exit status, 0 to 63
    tour: bool = False  #: made only of instructions on the newcomer's card
    rings: tuple[int, ...] = (0,)
    paging: bool = False
    interrupts: bool = False  #: whether it lets devices interrupt it
    ram: str = "16M"  #: the least memory it is meant for
    machine: str = "pc"  #: the machine it is meant for (emulator.machine.MACHINES)
    qemu: str = ""  #: why qemu-system-i386 prints something else; "" if it prints the same

    @property
    def source(self) -> Path:
        return FOLDER / self.path

    @property
    def includes(self) -> tuple[Path, ...]:
        """Where its %include files are looked for, in order."""
        return (self.source.parent, LIB)

    @property
    def prints(self) -> bytes:
        """What it must write to COM1."""
        return (FOLDER / "prints" / f"{self.name}.txt").read_bytes()

    @property
    def input(self) -> bytes:
        """What is typed to it on COM1, all of it waiting from the start."""
        file = FOLDER / "input" / f"{self.name}.txt"
        return file.read_bytes() if file.exists() else b""

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for the machine that it is meant for, bare or virtual."""
        return {"ram": self.ram, "machine": self.machine, "console_in": self.input}


def probe(name: str, about: str, qemu: str = "") -> Guest:
    """A row for the probe of one unsafe instruction."""
    return Guest(
        f"probe_{name}", f"probes/probe_{name}.asm", f"probe: {about}", rings=(0, 3), qemu=qemu
    )


def kernel_probe(name: str, about: str, qemu: str = "") -> Guest:
    """A row for the probe of one unsafe instruction in a kernel."""
    return Guest(
        f"kprobe_{name}", f"kprobes/kprobe_{name}.asm", f"in the kernel: {about}", qemu=qemu
    )


def nano(name: str, about: str, rings: tuple[int, ...] = (0,), paging: bool = False) -> Guest:
    """A row for a nanobenchmark: one operation, many times."""
    return Guest(
        f"nano_{name}", f"nano/nano_{name}.asm", f"nano: {about}", rings=rings, paging=paging
    )


#: Newcomers read them in this order.
GUESTS: Final[tuple[Guest, ...]] = (
    Guest("hello", "hello.asm", "the smallest guest that does anything", tour=True),
    Guest("fibonacci", "fibonacci.asm", "Fibonacci numbers by plain recursion", tour=True),
    Guest("sieve", "sieve.asm", "the primes below 1000 by Eratosthenes' sieve", tour=True),
    Guest("quicksort", "quicksort.asm", "sorts 1000 pseudo-random numbers in place", tour=True),
    Guest("matrix", "matrix.asm", "the product of two integer matrices", tour=True),
    Guest("crc32", "crc32.asm", "the checksum of Ethernet, gzip and PNG", tour=True),
    Guest("bytecode", "bytecode.asm", "an interpreter for a small stack machine", tour=True),
    Guest("life", "life.asm", "Conway's game of life: a glider", tour=True),
    Guest("echo", "echo.asm", "answers in capitals; Ctrl-D ends it", tour=True),
    Guest("selfmod", "selfmod.asm", "a program that rewrites itself while it runs", tour=True),
    Guest("sha256", "sha256.asm", "the hash function of FIPS 180-4"),
    Guest("strings", "strings.asm", "the string instructions"),
    Guest("paging", "paging.asm", "a tour of the memory management unit", paging=True),
    Guest("alias", "alias.asm", "code changed through another mapping", paging=True),
    Guest("rings", "rings.asm", "a program in ring 3, its system calls and faults", rings=(0, 3)),
    Guest("clock", "clock.asm", "time, told by interrupts", ticks=60_000_000, interrupts=True),
    Guest("hypercalls", "hypercalls.asm", "asks its hypervisor by name, if it has one"),
    Guest("disk", "disk.asm", "counts its starts on a disk, if it has one"),
    Guest("screen", "screen.asm", "a line typed on the keyboard, in colours"),
    Guest(
        "os",
        "os/os.asm",
        "a small operating system with a shell",
        ticks=50_000_000,
        status=5,
        rings=(0, 3),
        paging=True,
        interrupts=True,
    ),
    Guest(
        "os_apic",
        "os/os_apic.asm",
        "the same, for a machine with APICs",
        ticks=50_000_000,
        status=5,
        rings=(0, 3),
        paging=True,
        interrupts=True,
        machine="apic",
    ),
    nano("syscall", "a system call that does nothing", rings=(0, 3)),
    nano("in", "a byte read from a port"),
    nano("cr8wr", "a control register written without effect"),
    nano("callret", "a call and its return"),
    nano("pgfault", "a page fault of the guest's own", paging=True),
    nano("divzero", "a division by zero"),
    nano("ptemod", "a page table entry changed", paging=True),
    nano("collatz", "arithmetic and branches"),
    nano("recursion", "calls and returns that nest"),
    nano("touch", "pages that appear when touched", paging=True),
    probe("sgdt", "SGDT leaks where the GDT lies"),
    probe("sidt", "SIDT leaks where the IDT lies"),
    probe("sldt", "SLDT leaks the LDT's selector"),
    probe("smsw", "SMSW leaks the low half of CR0"),
    probe("str", "STR leaks the task register"),
    probe("pushf", "PUSHF leaks IF and IOPL"),
    probe("popf", "POPF silently drops IF and IOPL"),
    probe("lar", "LAR leaks access rights"),
    probe("lsl", "LSL leaks a limit"),
    probe("verr", "VERR leaks whether a segment may be read"),
    probe("verw", "VERW leaks whether a segment may be written"),
    probe("push_segment", "PUSH of a segment register leaks the ring"),
    probe("pop_segment", "POP of a segment register loads a descriptor unseen"),
    probe("mov_from_segment", "MOV from a segment register leaks the ring"),
    probe(
        "mov_to_segment",
        "MOV to a segment register loads a descriptor unseen",
        qemu="QEMU's TCG lets ring 3 read memory through a null selector",
    ),
    probe("far_call", "far CALL enters ring 0 through a call gate unseen"),
    probe("far_jump", "far JMP loads CS unseen"),
    probe("far_return", "far RET changes the ring unseen"),
    probe("int_n", "INT n goes through the real IDT"),
    probe("iret", "IRET silently drops IF and IOPL"),
    kernel_probe("sgdt", "SGDT finds the GDT that was loaded"),
    kernel_probe("sidt", "SIDT finds the IDT that was loaded"),
    kernel_probe("sldt", "SLDT finds the LDT that was loaded"),
    kernel_probe("smsw", "SMSW finds CR0 as it is"),
    kernel_probe("str", "STR finds the task register that was loaded"),
    kernel_probe("pushf", "PUSHF finds IF as CLI left it"),
    kernel_probe("popf", "POPF changes IF and IOPL"),
    kernel_probe("lar", "LAR finds DPL 0"),
    kernel_probe("lsl", "LSL finds segments of 4 GiB"),
    kernel_probe("verr", "VERR says no to RPL 1"),
    kernel_probe("verw", "VERW says no to RPL 1"),
    kernel_probe("push_segment", "PUSH CS shows ring 0"),
    kernel_probe("pop_segment", "POP ES refuses RPL 1"),
    kernel_probe("mov_from_segment", "MOV from CS shows ring 0"),
    kernel_probe("mov_to_segment", "MOV to ES refuses RPL 1"),
    kernel_probe("far_call", "far CALL pushes ring 0"),
    kernel_probe("far_jump", "far JMP refuses RPL 1"),
    kernel_probe("far_return", "far RET refuses RPL 1"),
    kernel_probe("int_n", "INT n pushes ring 0"),
    kernel_probe("iret", "IRET loads IF and IOPL"),
)
