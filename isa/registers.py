"""The registers' names, numbers and sizes, once for assembler and disassembler.

A register is its SDM encoding number (volume 2, table 2-2) in a class; the class decides which
field of an instruction may hold it. Read `encoder.py` or `disassembler.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Register:
    """A general register of 8, 16 or 32 bits."""

    name: str
    number: int
    size: int  #: bits

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SegmentRegister:
    """A segment register; 16 bits of selector."""

    name: str
    number: int
    prefix: int  #: the segment override byte

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ControlRegister:
    """CR0 to CR7; which exist is the core's business."""

    name: str
    number: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class DebugRegister:
    """DR0 to DR7."""

    name: str
    number: int

    def __str__(self) -> str:
        return self.name


AnyRegister = Register | SegmentRegister | ControlRegister | DebugRegister

#: General registers by size in bits, index is the number.
GENERAL: Final[dict[int, tuple[Register, ...]]] = {
    size: tuple(Register(name, number, size) for number, name in enumerate(names.split()))
    for size, names in (
        (8, "al cl dl bl ah ch dh bh"),
        (16, "ax cx dx bx sp bp si di"),
        (32, "eax ecx edx ebx esp ebp esi edi"),
    )
}
SEGMENTS: Final[tuple[SegmentRegister, ...]] = tuple(
    SegmentRegister(name, number, prefix)
    for number, (name, prefix) in enumerate(
        zip("es cs ss ds fs gs".split(), (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65), strict=True)
    )
)
CONTROLS: Final[tuple[ControlRegister, ...]] = tuple(
    ControlRegister(f"cr{number}", number) for number in range(8)
)
DEBUGS: Final[tuple[DebugRegister, ...]] = tuple(
    DebugRegister(f"dr{number}", number) for number in range(8)
)

#: Every register by its lower-case name.
BY_NAME: Final[dict[str, AnyRegister]] = {
    register.name: register
    for group in (*GENERAL.values(), SEGMENTS, CONTROLS, DEBUGS)
    for register in group
}
