"""The operands of one instruction, typed: what the decoder yields and the encoder takes.

Values are unsigned and cut to their size; an address is guest-virtual, an offset in its segment.
A memory operand says how it was written (address size, displacement size), because the same place
has several encodings and the disassembler must be able to name each. `isa/decoder.py` makes
operands from bytes, `isa/encoder.py` bytes from operands; read the decoder next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: General registers by number (SDM vol. 2, 3.1.1.1), for each size in bits.
GENERAL_NAMES: Final[dict[int, tuple[str, ...]]] = {
    8: ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"),
    16: ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di"),
    32: ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
}
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")
SEGMENT_PREFIXES: Final = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)
ES, CS, SS, DS, FS, GS = range(6)

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)


@dataclass(frozen=True, slots=True)
class Register:
    """A general register: number 0-7 and size in bits (8, 16 or 32)."""

    number: int
    size: int

    @property
    def name(self) -> str:
        return GENERAL_NAMES[self.size][self.number]


@dataclass(frozen=True, slots=True)
class SegmentRegister:
    """A segment register: 0-5 for ES CS SS DS FS GS."""

    number: int

    @property
    def name(self) -> str:
        return SEGMENT_NAMES[self.number]

    @property
    def prefix(self) -> int:
        """The override prefix byte."""
        return SEGMENT_PREFIXES[self.number]


@dataclass(frozen=True, slots=True)
class ControlRegister:
    """CR0, CR2, CR3 or CR4."""

    number: int

    @property
    def name(self) -> str:
        return f"cr{self.number}"


@dataclass(frozen=True, slots=True)
class DebugRegister:
    """DR0-DR7, as encoded: 4 and 5 are aliases of 6 and 7 while CR4.DE is clear."""

    number: int

    @property
    def name(self) -> str:
        return f"dr{self.number}"


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant. `size` is the operand's, in bits; a sign-extended byte is already extended.

    The assembler also says 0: no size was written, the other operands decide.
    """

    value: int
    size: int
    full: bool = False  #: the encoder must not shorten it: `strict`, or relocated by the assembler


@dataclass(frozen=True, slots=True)
class Memory:
    """A place in memory: ``segment:[base + index * scale + displacement]``.

    `base` and `index` are register numbers, of 16-bit registers where `address_size` is 16. The
    size of the operand is in bits; 0 where the instruction gives none (lea, invlpg, a far
    pointer's and a pseudo-descriptor's size follow from the row).
    """

    base: int | None
    index: int | None
    scale: int  #: 1, 2, 4 or 8
    displacement: int  #: unsigned, cut to the address size
    size: int = 0
    segment: int | None = None  #: an override that was written; None: the default applies
    address_size: int = 32
    displacement_size: int | None = None  #: bits encoded: 0, 8, 16, 32; None: the shortest

    @property
    def default_segment(self) -> int:
        """SS where the base is EBP or ESP (BP with 16-bit addressing), else DS."""
        return SS if self.base in (ESP, EBP) else DS

    @property
    def effective_segment(self) -> int:
        """The segment the access goes through."""
        return self.default_segment if self.segment is None else self.segment


@dataclass(frozen=True, slots=True)
class Relative:
    """A jump target: the offset in CS it leads to (already cut to the operand size)."""

    target: int
    size: int  #: bits of the encoded displacement: 8, 16 or 32; 0: the encoder chooses


@dataclass(frozen=True, slots=True)
class FarPointer:
    """A selector and an offset of 16 or 32 bits."""

    selector: int
    offset: int
    size: int  #: bits of the offset


Operand = (
    Register
    | SegmentRegister
    | ControlRegister
    | DebugRegister
    | Immediate
    | Memory
    | Relative
    | FarPointer
)

#: Every register there is to name, index is the number; general registers by size in bits.
GENERAL: Final = {size: tuple(Register(n, size) for n in range(8)) for size in (8, 16, 32)}
SEGMENTS: Final = tuple(SegmentRegister(number) for number in range(6))
CONTROLS: Final = tuple(ControlRegister(number) for number in range(8))
DEBUGS: Final = tuple(DebugRegister(number) for number in range(8))
