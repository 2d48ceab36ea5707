"""From bytes to one typed `Instruction`, by the table alone.

The decoder answers what the processor's would (SDM vol. 2, chapter 2): which row the bytes are,
with which operands, or which exception they raise. It knows no mnemonic; all that is particular to
an instruction is in its row's opcode and operand codes (`isa/row.py`). The C core decodes from the
same rows with code of its own; a test holds one against the other. `isa/disassembler.py` makes
text of what is decoded here; read it next.

Two states of the processor can still turn a decoded instruction into #UD, and are left to who runs
it: DR4 and DR5 while CR4.DE is set, and a knob such as ``--virtualizable``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isa.errors import DecodeError
from isa.operands import (
    CONTROLS,
    CS,
    DEBUGS,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ES,
    ESI,
    ESP,
    GENERAL,
    SEGMENTS,
    FarPointer,
    Immediate,
    Memory,
    Operand,
    Relative,
)
from isa.row import Row
from isa.table import CONDITION_NAMES, ROWS

INVALID_OPCODE: Final = 6
GENERAL_PROTECTION: Final = 13
MAXIMUM_LENGTH: Final = 15

#: Prefix byte -> its group: only the last of a group counts (but LOCK stands apart from REP).
SEGMENT_PREFIXES: Final = {register.prefix: register.number for register in SEGMENTS}
OPERAND_SIZE_PREFIX: Final = 0x66
ADDRESS_SIZE_PREFIX: Final = 0x67
LOCK_PREFIX: Final = 0xF0
REPEAT_PREFIXES: Final = frozenset({0xF2, 0xF3})
PREFIX_BYTES: Final = frozenset({*SEGMENT_PREFIXES, *REPEAT_PREFIXES, 0x66, 0x67, 0xF0})

#: CR1 and CR5-CR7 do not exist (SDM vol. 2, MOV - Move to/from Control Registers).
CONTROL_REGISTERS: Final = frozenset({0, 2, 3, 4})

#: The registers 16-bit addressing adds, by ModRM.rm (SDM vol. 2, table 2-1).
PAIRS_16: Final = (
    (EBX, ESI), (EBX, EDI), (EBP, ESI), (EBP, EDI),
    (ESI, None), (EDI, None), (EBP, None), (EBX, None),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What the prefixes of an instruction come to, and how many bytes they took."""

    operand_size: bool = False  #: 66
    address_size: bool = False  #: 67
    segment: int | None = None  #: the last override
    repeat: int | None = None  #: the last of F2 and F3
    lock: bool = False
    count: int = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction. `address` is its offset in CS, `bytes` all it was decoded from."""

    row: Row
    operands: tuple[Operand, ...]
    prefixes: Prefixes
    condition: int | None  #: of a jcc, setcc, cmovcc
    bytes: bytes
    address: int

    @property
    def length(self) -> int:
        return len(self.bytes)

    @property
    def operand_size(self) -> int:
        """16 or 32: the prefix's, which a row of byte operands ignores."""
        return 16 if self.prefixes.operand_size else 32

    @property
    def address_size(self) -> int:
        return 16 if self.prefixes.address_size else 32

    @property
    def mnemonic(self) -> str:
        """The row's mnemonic with the condition filled in: ``jz`` for a ``jcc``."""
        if self.condition is None:
            return self.row.mnemonic
        return self.row.mnemonic[:-2] + CONDITION_NAMES[self.condition][0]


#: (operand size 32, last repeat prefix F3, ModRM.reg) -> row: 32 entries for each opcode byte.
_Slot = list[Row | None]


def _index(size: int, repeat: bool, digit: int) -> int:
    return (16 if size == 32 else 0) + (8 if repeat else 0) + digit


def _opcode_maps() -> tuple[tuple[_Slot | None, ...], tuple[_Slot | None, ...]]:
    """The one-byte and the two-byte map. Rows of one byte stand over those of a ``+r`` range."""
    maps: tuple[list[_Slot | None], list[_Slot | None]] = ([None] * 256, [None] * 256)
    exact_last = sorted(ROWS, key=lambda row: (row.parsed.low == "", row.parsed.repeat))
    for row in exact_last:
        parsed = row.parsed
        sizes = (16, 32) if parsed.operand_size is None else (parsed.operand_size,)
        digits = range(8) if parsed.digit is None else (parsed.digit,)
        for byte in parsed.bytes_covered:
            slot = maps[parsed.two_byte][byte] = maps[parsed.two_byte][byte] or [None] * 32
            for size in sizes:
                for repeat in (True,) if parsed.repeat else (False, True):
                    for digit in digits:
                        slot[_index(size, repeat, digit)] = row
    return tuple(maps[0]), tuple(maps[1])


_MAPS: Final = _opcode_maps()
_HAS_MODRM: Final = tuple(
    tuple(slot is not None and any(row and row.parsed.modrm for row in slot) for slot in opcode_map)
    for opcode_map in _MAPS
)

_FIXED: Final[dict[str, Operand]] = {
    "AL": GENERAL[8][EAX],
    "CL": GENERAL[8][ECX],
    "DX": GENERAL[16][EDX],
    "1": Immediate(1, 8),
    "3": Immediate(3, 8),
    **{register.name.upper(): register for register in SEGMENTS},
}


class _Cursor:
    """The bytes of one instruction while they are read, and what was read so far."""

    __slots__ = (
        "address", "address_size", "data", "end", "memory", "mod", "opcode", "operand_size",
        "position", "reg", "rm", "row", "segment", "start",
    )  # fmt: skip

    data: bytes
    opcode: int
    row: Row
    #: The memory operand ModRM names, without its size; None where mod is 3.
    memory: tuple[int | None, int | None, int, int, int] | None

    def __init__(self, data: bytes, start: int, address: int) -> None:
        self.data = data
        self.start = self.position = start
        self.end = len(data)
        self.address = address
        self.operand_size = self.address_size = 32
        self.segment: int | None = None
        self.mod = self.reg = self.rm = 0
        self.memory = None

    def unsigned(self, bits: int) -> int:
        """The next `bits` of the instruction, little-endian; `DecodeError` where they end."""
        position = self.position
        after = position + bits // 8
        if after - self.start > MAXIMUM_LENGTH:
            raise DecodeError("more than 15 bytes in one instruction", GENERAL_PROTECTION)
        if after > self.end:
            found = self.data[self.start :].hex(" ") or "nothing"
            raise DecodeError(f"the bytes end inside an instruction: {found}", None)
        self.position = after
        return int.from_bytes(self.data[position:after], "little")

    def signed(self, bits: int, to: int) -> int:
        """The next `bits`, sign-extended to `to` bits and given unsigned."""
        value = self.unsigned(bits)
        sign = 1 << (bits - 1)
        return ((value ^ sign) - sign) & ((1 << to) - 1)

    def sized(self, width: str) -> int:
        """The bits of a width code; 0 where the instruction gives its memory operand none."""
        return self.operand_size if width in ("v", "z") else _WIDTHS[width]


_WIDTHS: Final = {"b": 8, "w": 16, "d": 32, "q": 64, "vw": 16, "p": 0, "s": 0, "a": 0, "": 0}


def _read_prefixes(cursor: _Cursor) -> Prefixes:
    operand_size = address_size = lock = False
    segment = repeat = None
    data, end = cursor.data, cursor.end
    while cursor.position < end and (byte := data[cursor.position]) in PREFIX_BYTES:
        cursor.unsigned(8)
        if byte == OPERAND_SIZE_PREFIX:
            operand_size = True
        elif byte == ADDRESS_SIZE_PREFIX:
            address_size = True
        elif byte == LOCK_PREFIX:
            lock = True
        elif byte in REPEAT_PREFIXES:
            repeat = byte
        else:
            segment = SEGMENT_PREFIXES[byte]
    cursor.operand_size = 16 if operand_size else 32
    cursor.address_size = 16 if address_size else 32
    cursor.segment = segment
    count = cursor.position - cursor.start
    return Prefixes(operand_size, address_size, segment, repeat, lock, count)


_NO_PREFIXES: Final = Prefixes()


def _find_row(cursor: _Cursor, prefixes: Prefixes) -> Row:
    """Read opcode and ModRM bytes; the row they select, or `DecodeError`."""
    two_byte = 0
    opcode = cursor.unsigned(8)
    if opcode == 0x0F:
        two_byte, opcode = 1, cursor.unsigned(8)
    cursor.opcode = opcode
    slot = _MAPS[two_byte][opcode]
    name = f"opcode {'0F ' * two_byte}{opcode:02X}"
    if slot is None:
        raise DecodeError(f"{name} is no instruction of the slice", INVALID_OPCODE)
    digit = 0
    if _HAS_MODRM[two_byte][opcode]:
        modrm = cursor.unsigned(8)
        cursor.mod, cursor.reg, cursor.rm = modrm >> 6, modrm >> 3 & 7, modrm & 7
        digit = cursor.reg
    row = slot[_index(cursor.operand_size, prefixes.repeat == 0xF3, digit)]
    if row is None:
        raise DecodeError(f"{name} /{digit} is no instruction of the slice", INVALID_OPCODE)
    cursor.row = row
    return row


def _read_memory(cursor: _Cursor) -> tuple[int | None, int | None, int, int, int]:
    """SIB and displacement: base, index, scale, displacement, bits of displacement."""
    if cursor.address_size == 16:
        return _read_memory_16(cursor)
    base: int | None = cursor.rm
    index: int | None = None
    scale = 1
    if base == ESP:
        sib = cursor.unsigned(8)
        base = sib & 7
        if sib >> 3 & 7 != ESP:
            index, scale = sib >> 3 & 7, 1 << (sib >> 6)
    if cursor.mod == 0:
        if base == EBP:
            return None, index, scale, cursor.unsigned(32), 32
        return base, index, scale, 0, 0
    bits = 8 if cursor.mod == 1 else 32
    return base, index, scale, cursor.signed(bits, 32), bits


def _read_memory_16(cursor: _Cursor) -> tuple[int | None, int | None, int, int, int]:
    base, index = PAIRS_16[cursor.rm]
    if cursor.mod == 0:
        if cursor.rm == 6:
            return None, None, 1, cursor.unsigned(16), 16
        return base, index, 1, 0, 0
    bits = 8 if cursor.mod == 1 else 16
    return base, index, 1, cursor.signed(bits, 16), bits


def _memory_operand(cursor: _Cursor, bits: int) -> Memory:
    assert cursor.memory is not None
    base, index, scale, displacement, displacement_size = cursor.memory
    return Memory(
        base, index, scale, displacement, bits, cursor.segment, cursor.address_size,
        displacement_size,
    )  # fmt: skip


# One reader for each operand kind: the cursor and the width code to an operand.


def _read_register_or_memory(cursor: _Cursor, width: str) -> Operand:
    if cursor.memory is not None:
        return _memory_operand(cursor, cursor.sized(width))
    bits = cursor.operand_size if width == "vw" else cursor.sized(width)
    return GENERAL[bits][cursor.rm]


def _read_memory_only(cursor: _Cursor, width: str) -> Operand:
    if cursor.memory is None:
        raise DecodeError(f"{cursor.row}: a register where memory is expected", INVALID_OPCODE)
    return _memory_operand(cursor, cursor.sized(width))


def _read_rm_register(cursor: _Cursor, width: str) -> Operand:
    return GENERAL[cursor.sized(width)][cursor.rm]


def _read_reg_register(cursor: _Cursor, width: str) -> Operand:
    return GENERAL[cursor.sized(width)][cursor.reg]


def _read_opcode_register(cursor: _Cursor, width: str) -> Operand:
    return GENERAL[cursor.sized(width)][cursor.opcode & 7]


def _read_segment(cursor: _Cursor, _width: str) -> Operand:
    number = cursor.reg
    if number >= len(SEGMENTS):
        raise DecodeError(f"{cursor.row}: no segment register {number}", INVALID_OPCODE)
    if number == CS and cursor.row.operands[0] == "Sw":
        raise DecodeError(f"{cursor.row}: CS is loaded by far transfers only", INVALID_OPCODE)
    return SEGMENTS[number]


def _read_control(cursor: _Cursor, _width: str) -> Operand:
    if cursor.reg not in CONTROL_REGISTERS:
        raise DecodeError(f"{cursor.row}: no control register {cursor.reg}", INVALID_OPCODE)
    return CONTROLS[cursor.reg]


def _read_debug(cursor: _Cursor, _width: str) -> Operand:
    return DEBUGS[cursor.reg]


def _read_immediate(cursor: _Cursor, width: str) -> Operand:
    if width == "bs":
        return Immediate(cursor.signed(8, cursor.operand_size), cursor.operand_size)
    bits = cursor.sized(width)
    return Immediate(cursor.unsigned(bits), bits)


def _read_relative(cursor: _Cursor, width: str) -> Operand:
    bits = cursor.sized(width)
    displacement = cursor.signed(bits, 32)
    after = cursor.address + cursor.position - cursor.start
    return Relative((after + displacement) & ((1 << cursor.operand_size) - 1), bits)


def _read_far_pointer(cursor: _Cursor, _width: str) -> Operand:
    offset = cursor.unsigned(cursor.operand_size)
    return FarPointer(cursor.unsigned(16), offset, cursor.operand_size)


def _read_offset(cursor: _Cursor, width: str) -> Operand:
    bits = cursor.address_size
    offset = cursor.unsigned(bits)
    return Memory(None, None, 1, offset, cursor.sized(width), cursor.segment, bits, bits)


def _read_string_source(cursor: _Cursor, width: str) -> Operand:
    size = cursor.sized(width)
    return Memory(ESI, None, 1, 0, size, cursor.segment, cursor.address_size, 0)


def _read_string_destination(cursor: _Cursor, width: str) -> Operand:
    return Memory(EDI, None, 1, 0, cursor.sized(width), ES, cursor.address_size, 0)


_READERS: Final[dict[str, Callable[[_Cursor, str], Operand]]] = {
    "E": _read_register_or_memory,
    "M": _read_memory_only,
    "R": _read_rm_register,
    "G": _read_reg_register,
    "Z": _read_opcode_register,
    "S": _read_segment,
    "C": _read_control,
    "D": _read_debug,
    "I": _read_immediate,
    "J": _read_relative,
    "A": _read_far_pointer,
    "O": _read_offset,
    "X": _read_string_source,
    "Y": _read_string_destination,
}


def _reader(code: str) -> tuple[Callable[[_Cursor, str], Operand], str]:
    if code == "eAX":
        return lambda cursor, _: GENERAL[cursor.operand_size][EAX], ""
    if code in _FIXED:
        operand = _FIXED[code]
        return lambda _cursor, _: operand, ""
    return _READERS[code[0]], code[1:]


#: By row id: the readers of its operands.
_OPERAND_READERS: Final = tuple(tuple(_reader(code) for code in row.operands) for row in ROWS)
#: By row id: ModRM names a register or memory (not so where the row takes a register only).
_ADDRESSES: Final = tuple(
    row.parsed.modrm and any(code[0] in "EM" for code in row.operands) for row in ROWS
)


def decode(data: bytes, address: int = 0, offset: int = 0) -> Instruction:
    """Decode the instruction at `data[offset:]`, which stands at `address` in CS.

    Raises `DecodeError` whose `vector` is the exception the processor would raise: 6 for no
    instruction, 13 for more than 15 bytes, None if `data` ends too early to tell.
    """
    cursor = _Cursor(data, offset, address)
    prefixes = _NO_PREFIXES
    if offset < cursor.end and data[offset] in PREFIX_BYTES:
        prefixes = _read_prefixes(cursor)
    row = _find_row(cursor, prefixes)
    if _ADDRESSES[row.id] and cursor.mod != 3:
        cursor.memory = _read_memory(cursor)
    operands = tuple([reader(cursor, width) for reader, width in _OPERAND_READERS[row.id]])
    if prefixes.lock and not (row.lock and type(operands[0]) is Memory):
        raise DecodeError(f"{row}: LOCK is not allowed here", INVALID_OPCODE)
    condition = cursor.opcode & 15 if row.parsed.low == "cc" else None
    text = data[offset : cursor.position]
    return Instruction(row, operands, prefixes, condition, bytes(text), address)
