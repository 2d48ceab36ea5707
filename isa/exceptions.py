"""The exceptions: vectors 0-31 as a table, and how two in a row combine.

Each row says what delivery needs to know: whether the saved EIP points at the instruction or after
it, whether an error code is pushed, and the class by which a second exception during delivery of
the first makes a double fault (SDM vol. 3, 6.15 and tables 6-1, 6-4, 6-5). Vectors 32-255 belong to
interrupts and have no rows. The C core's table is generated from this one; `isa/REFERENCE.md`
prints it. Read `isa/cost.py` next for what a delivery costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """When an exception is reported relative to the instruction that caused it."""

    FAULT = "fault"  #: before it: the saved EIP is the instruction's, which can be restarted
    TRAP = "trap"  #: after it: the saved EIP is the next instruction's
    FAULT_OR_TRAP = "fault or trap"  #: #DB: code breakpoints are faults, all else traps
    ABORT = "abort"  #: the saved EIP says nothing
    INTERRUPT = "interrupt"  #: between two instructions, caused by none
    RESERVED = "reserved"  #: never raised by this processor


class Contribution(Enum):
    """What the exception does to another that is being delivered."""

    BENIGN = "benign"
    CONTRIBUTORY = "contributory"
    PAGE_FAULT = "page fault"
    DOUBLE_FAULT = "double fault"


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    """One vector. `mnemonic` is the SDM's (``#GP``); empty for NMI and reserved vectors."""

    vector: int
    mnemonic: str
    name: str
    kind: Kind
    error_code: bool = False
    contribution: Contribution = Contribution.BENIGN

    def __str__(self) -> str:
        return self.mnemonic or self.name


_B, _C, _P = Contribution.BENIGN, Contribution.CONTRIBUTORY, Contribution.PAGE_FAULT

_NAMED: Final = (
    ExceptionRow(0, "#DE", "divide error", Kind.FAULT, False, _C),
    ExceptionRow(1, "#DB", "debug", Kind.FAULT_OR_TRAP),
    ExceptionRow(2, "", "non-maskable interrupt", Kind.INTERRUPT),
    ExceptionRow(3, "#BP", "breakpoint", Kind.TRAP),
    ExceptionRow(4, "#OF", "overflow", Kind.TRAP),
    ExceptionRow(5, "#BR", "bound range exceeded", Kind.FAULT),
    ExceptionRow(6, "#UD", "invalid opcode", Kind.FAULT),
    ExceptionRow(7, "#NM", "device not available", Kind.FAULT),
    ExceptionRow(8, "#DF", "double fault", Kind.ABORT, True, Contribution.DOUBLE_FAULT),
    ExceptionRow(9, "", "coprocessor segment overrun (80386 only)", Kind.RESERVED),
    ExceptionRow(10, "#TS", "invalid TSS", Kind.FAULT, True, _C),
    ExceptionRow(11, "#NP", "segment not present", Kind.FAULT, True, _C),
    ExceptionRow(12, "#SS", "stack-segment fault", Kind.FAULT, True, _C),
    ExceptionRow(13, "#GP", "general protection", Kind.FAULT, True, _C),
    ExceptionRow(14, "#PF", "page fault", Kind.FAULT, True, _P),
    ExceptionRow(15, "", "reserved", Kind.RESERVED),
    ExceptionRow(16, "#MF", "x87 floating-point error", Kind.FAULT),
    ExceptionRow(17, "#AC", "alignment check", Kind.FAULT, True),
    ExceptionRow(18, "#MC", "machine check", Kind.ABORT),
    ExceptionRow(19, "#XM", "SIMD floating-point exception", Kind.FAULT),
)

#: The table. Index is the vector.
EXCEPTIONS: Final = _NAMED + tuple(
    ExceptionRow(vector, "", "reserved", Kind.RESERVED) for vector in range(len(_NAMED), 32)
)

#: Vector by mnemonic without its sign: ``VECTORS["GP"]`` is 13.
VECTORS: Final = {row.mnemonic[1:]: row.vector for row in EXCEPTIONS if row.mnemonic}


def combine(first: int, second: int) -> int | None:
    """The vector to deliver when `second` is raised while `first` is delivered.

    None is a triple fault: the processor shuts down (SDM vol. 3, table 6-5). An interrupt in
    delivery (vectors 32 and up) counts as benign.
    """
    before = EXCEPTIONS[first].contribution if first < len(EXCEPTIONS) else _B
    after = EXCEPTIONS[second].contribution
    if before is Contribution.DOUBLE_FAULT:
        return second if after is _B else None
    if (before is _C and after is _C) or (before is _P and after in (_C, _P)):
        return VECTORS["DF"]
    return second
