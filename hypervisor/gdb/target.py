"""What a machine must offer to be debugged; protocol.py asks for it, machine.py has it."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple, Protocol


class Signal(IntEnum):
    """Why a guest stands still, in the numbers that gdb has for it."""

    INTERRUPTED = 2  #: SIGINT: Ctrl-C
    ILLEGAL = 4  #: SIGILL: it has left the slice of IA-32 that there is
    TRAP = 5  #: SIGTRAP: a breakpoint, a watchpoint, the end of a step, gdb's arrival
    FAULT = 11  #: SIGSEGV: a triple fault


class Stopped(NamedTuple):
    """The guest stands still and can be looked at."""

    signal: Signal = Signal.TRAP
    reason: str = ""  #: as a stop reply has it: `hwbreak:;`, `watch:1000;`


class Exited(NamedTuple):
    """The guest is at its end."""

    status: int


class Point(Enum):
    """Kinds of breakpoints and watchpoints, by the digit behind Z and z; and their stop reasons."""

    SOFTWARE = "0", "swbreak"
    HARDWARE = "1", "hwbreak"
    WRITE = "2", "watch"
    READ = "3", "rwatch"
    ACCESS = "4", "awatch"

    def __init__(self, digit: str, reason: str) -> None:
        self.digit = digit
        self.reason = reason

    @property
    def is_breakpoint(self) -> bool:
        """Is it for execution, not for data?"""
        return self in (Point.SOFTWARE, Point.HARDWARE)


class Target(Protocol):
    """A machine that stands still. Addresses are the guest's linear ones."""

    def read_register(self, number: int) -> bytes:
        """By number in `registers.REGISTERS`."""

    def write_register(self, number: int, data: bytes) -> None:
        """HypervisorError if the register cannot have that."""

    def read_memory(self, address: int, size: int) -> bytes:
        """Fewer bytes where the guest has mapped nothing."""

    def write_memory(self, address: int, data: bytes) -> bool:
        """Whether all of it could be written."""

    def insert(self, point: Point, address: int, size: int) -> bool:
        """Whether there was room; the same one twice is one."""

    def remove(self, point: Point, address: int, size: int) -> None:
        """One that is not there is none."""

    def monitor(self, command: str) -> str:
        """What a `monitor` command prints."""
