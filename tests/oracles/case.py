"""A test case and its outcome: what every executor of user-mode code is given and gives back.

The executors are silicon (tests/silicon/oracle.py), Unicorn (tests/oracles/unicorn.py) and our own
core. All of them see the same address space (linear addresses):

    LOW   0x00008000  8 KiB  the data pages once more, within reach of 16-bit addressing
    CODE  0x00400000  8 KiB  readable and executable, filled with INT3 but for the case's code
    DATA  0x00600000  8 KiB  readable, writable and executable
    ZONE  0xB0000000  8 MiB  silicon's own; a case that touches it proves nothing

and nothing else, so the neighbours of each area are guard pages. Segments are Linux's flat ones or
come from the case's LDT. What silicon cannot be asked is in tests/oracles/deviations.py.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

PAGE = 0x1000
LOW = 0x00008000
CODE = 0x00400000
DATA = 0x00600000
AREA = 2 * PAGE
ZONE = 0xB0000000
ZONE_END = 0xB0800000
CODE_MAX = 896
"""Longest code of one case, in bytes."""

INT3 = 0xCC
LDT_SIZE = 32
"""Entries of the LDT: its limit is always LDT_SIZE * 8 - 1, unused entries are zero."""

USER_CS = 0x23
USER_DS = 0x2B
FLAT = (USER_DS, USER_CS, USER_DS, USER_DS, 0, 0)
"""Linux's selectors for a new 32-bit process, in Sreg encoding order: ES CS SS DS FS GS."""

ES, CS, SS, DS, FS, GS = range(6)
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)

CF, PF, AF, ZF, SF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7
TF, IF, DF, OF = 1 << 8, 1 << 9, 1 << 10, 1 << 11
NT, RF, AC, ID = 1 << 14, 1 << 16, 1 << 18, 1 << 21
FLAGS_AT_START = IF | 2
"""EFLAGS of a user program before it does anything; IF is set and cannot be cleared."""

BLANK = bytes(AREA)


class Kind(enum.IntEnum):
    """Bits 3 and 2 of a code or data descriptor's type (SDM 3A, 3.4.5.1)."""

    DATA = 0
    EXPAND_DOWN = 1
    CODE = 2
    CONFORMING = 3


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An LDT entry of the kinds Linux's modify_ldt installs: S=1, DPL=3, accessed."""

    base: int = 0
    limit: int = 0xFFFFF
    """The 20-bit limit field, in bytes or in 4 KiB pages as `pages` says."""
    kind: Kind = Kind.DATA
    accessible: bool = True
    """Type bit 1: writable for data, readable for code."""
    big: bool = True
    """D/B: the size of ESP, and the upper bound of an expand-down segment."""
    pages: bool = True
    present: bool = True

    def encode(self) -> bytes:
        """The descriptor as the processor reads it."""
        access = 0x61 | self.accessible << 1 | self.kind << 2 | 0x10 | self.present << 7
        low = (self.limit & 0xFFFF) | (self.base & 0xFFFF) << 16
        high = (
            (self.base >> 16 & 0xFF)
            | access << 8
            | (self.limit & 0xF0000)
            | self.big << 22
            | self.pages << 23
            | (self.base & 0xFF000000)
        )
        return struct.pack("<II", low, high)

    def offsets(self) -> tuple[int, int]:
        """The first and last offset within the limit."""
        last = self.limit << 12 | 0xFFF if self.pages else self.limit
        if self.kind is Kind.EXPAND_DOWN:
            return last + 1, 0xFFFFFFFF if self.big else 0xFFFF
        return 0, last


def ldt_selector(index: int) -> int:
    """The selector of LDT entry `index` with RPL 3."""
    return index << 3 | 7


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception: its vector, and the error code and CR2 where the vector has them."""

    vector: int
    error: int = 0
    address: int | None = None
    """CR2 of a page fault (linear)."""


@dataclass(frozen=True, slots=True)
class Case:
    """A user-mode state and how many instructions to run in it."""

    code: bytes
    registers: tuple[int, ...] = (0,) * 8
    """EAX ECX EDX EBX ESP EBP ESI EDI."""
    eflags: int = FLAGS_AT_START
    memory: bytes = BLANK
    """Contents of the data pages: AREA bytes."""
    selectors: tuple[int, ...] = FLAT
    ldt: tuple[Descriptor | None, ...] = ()
    address: int = CODE + 0x800
    """Linear address of the code; the case starts there."""
    steps: int = 1
    """Instructions to run with TF set; 0 runs freely until an exception (INT3 follows the code)."""

    @property
    def eip(self) -> int:
        """The offset in CS at which the case starts."""
        return (self.address - self.linear(CS, 0)) & 0xFFFFFFFF

    def linear(self, segment: int, offset: int) -> int:
        """The linear address of an offset in a segment register, limits unchecked."""
        selector = self.selectors[segment]
        descriptor = self.ldt[selector >> 3] if selector & 4 else None
        return (offset + (descriptor.base if descriptor else 0)) & 0xFFFFFFFF

    @property
    def stack_offset(self) -> int | None:
        """Where in `memory` the stack pointer points; None if elsewhere."""
        selector = self.selectors[SS]
        descriptor = self.ldt[selector >> 3] if selector & 4 else None
        mask = 0xFFFF if descriptor and not descriptor.big else 0xFFFFFFFF
        linear = self.linear(SS, self.registers[ESP] & mask)
        for area in (LOW, DATA):
            if area <= linear <= area + AREA:
                return linear - area
        return None

    def check(self) -> None:
        """Raise ValueError if an executor could not enter this state as it stands."""
        offset = self.address - CODE
        length = len(self.code)
        if not 0 <= offset <= AREA - length or length > CODE_MAX:
            raise ValueError(f"{length} code bytes at {self.address:#x} leave the code area")
        if len(self.memory) != AREA or len(self.registers) != 8 or len(self.ldt) > LDT_SIZE:
            raise ValueError(f"memory must be {AREA} bytes, registers 8, the LDT <= {LDT_SIZE}")
        if self.selectors == FLAT:
            return
        for index, selector in enumerate(self.selectors):
            if not self._loadable(index, selector):
                raise ValueError(f"segment register {index} cannot hold {selector:#x} at the start")

    def _loadable(self, index: int, selector: int) -> bool:
        if selector < 4:  # a return to user mode turns the other null selectors into 0
            return selector == 0 and index not in (CS, SS)
        if selector in (USER_CS, USER_DS):
            return selector == (USER_CS if index == CS else USER_DS) or index in (ES, DS, FS, GS)
        entry = selector >> 3
        descriptor = self.ldt[entry] if selector & 7 == 7 and entry < len(self.ldt) else None
        if descriptor is None or not descriptor.present:
            return False
        is_code = descriptor.kind >= Kind.CODE
        if index == CS:
            return is_code
        if index == SS:
            return not is_code and descriptor.accessible
        return not is_code or descriptor.accessible


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state after a case, and the exception that ended it (None: all steps were run)."""

    registers: tuple[int, ...]
    eip: int
    eflags: int
    selectors: tuple[int, ...]
    memory: bytes
    fault: Fault | None
    taken: int
    """Single-step traps taken, the last one included."""
