"""From an `Instruction` to NASM's syntax, canonical and one line each.

The text is what one would write: NASM assembles it to the same bytes wherever these are NASM's own
choice, and otherwise to a shorter encoding of the same instruction (``81 /0`` with a small constant
comes back as ``83 /0``). Nothing is forced with ``strict``, so repeated prefixes and the longer of
two encodings are lost; the bytes stand beside the text in a listing. `isa/decoder.py` makes
instructions from bytes; `isa/assembler/` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from isa.decoder import Instruction, decode
from isa.errors import DecodeError
from isa.operands import (
    GENERAL,
    SEGMENT_NAMES,
    FarPointer,
    Immediate,
    Memory,
    Operand,
    Relative,
)
from isa.row import Row
from isa.table import ALIASES, ROWS

#: Finds a name for a target, an offset in CS; None where it has none.
SymbolLookup = Callable[[int], str | None]

SIZE_KEYWORDS: Final = {8: "byte", 16: "word", 32: "dword", 64: "qword"}

#: A mnemonic whose size stands in no operand -> its spelling for 16 bits (``popf`` -> ``popfw``).
_SIZED_NAMES: Final = {name: alias for alias, (name, size) in ALIASES.items() if size == 16}
#: Mnemonics that jump by a displacement of operand size: only these can be said to be short.
_LONG_JUMPS: Final = frozenset(row.mnemonic for row in ROWS if row.operands == ("Jz",))
#: Spellings of ours that NASM does not take, and what jecxz is called when it tests CX.
_SPELLINGS: Final = {"xlat": "xlatb"}
_ADDRESS_16_NAMES: Final = {"jecxz": "jcxz"}
_REPEAT_NAMES: Final = {
    "": {0xF2: "repne", 0xF3: "rep"},
    "rep": {0xF2: "repne", 0xF3: "rep"},
    "repz": {0xF2: "repne", 0xF3: "repe"},
}


def format_number(value: int) -> str:
    """Decimal up to 9, else hexadecimal."""
    return str(value) if value < 10 else f"{value:#x}"


def _format_signed(value: int, bits: int) -> str:
    if value >> (bits - 1) & 1:
        return "-" + format_number((1 << bits) - value)
    return format_number(value)


def format_memory(operand: Memory) -> str:
    """The bracketed place, without a size keyword: ``[es:eax+ecx*4-0x8]``."""
    names = GENERAL[operand.address_size]
    parts = []
    if operand.base is not None:
        parts.append(names[operand.base].name)
    if operand.index is not None:
        scale = f"*{operand.scale}" if operand.scale > 1 or operand.base is None else ""
        parts.append(names[operand.index].name + scale)
    text = "+".join(parts)
    displacement, bits = operand.displacement, operand.address_size
    keyword = _address_keyword(operand)
    if not parts:
        text = format_number(displacement)
    elif displacement >> (bits - 1) & 1:
        text += "-" + format_number((1 << bits) - displacement)
    elif displacement or (keyword and operand.base is not None):
        text += "+" + format_number(displacement)
    segment = "" if operand.segment is None else SEGMENT_NAMES[operand.segment] + ":"
    return f"[{keyword}{segment}{text}]"


def _address_keyword(operand: Memory) -> str:
    """What forces NASM to the displacement size or the split of registers that was decoded."""
    if operand.base is None and operand.index is None:
        return "word " if operand.address_size == 16 else ""
    keyword = ""
    if operand.base is None:
        keyword = "nosplit " if operand.scale <= 2 else ""
    elif operand.displacement_size not in (None, _shortest_displacement(operand)):
        keyword = SIZE_KEYWORDS[operand.displacement_size or 8] + " "
    return keyword


def _shortest_displacement(operand: Memory) -> int:
    """The bits of displacement that suffice for a place with a base (EBP or BP needs some)."""
    bits = operand.address_size
    signed = operand.displacement - (operand.displacement >> (bits - 1) << bits)
    if signed == 0 and not (operand.base == 5 and (bits == 32 or operand.index is None)):
        return 0
    return 8 if -0x80 <= signed <= 0x7F else bits


def _format_operand(
    operand: Operand, code: str, instruction: Instruction, symbol: SymbolLookup | None
) -> str:
    row = instruction.row
    if isinstance(operand, Immediate):
        signed = code == "Ibs"
        text = (
            _format_signed(operand.value, operand.size) if signed else format_number(operand.value)
        )
        if len(row.operands) == 1 and code in ("Iz", "Ibs"):
            keyword = "byte" if signed else SIZE_KEYWORDS[operand.size]
            return f"{keyword} {text}"
        return text
    if isinstance(operand, Memory):
        keyword = SIZE_KEYWORDS[operand.size] + " " if _needs_size(row, operand, code) else ""
        if code == "Mp" and not _register_codes(row):
            keyword = "far "
        return keyword + format_memory(operand)
    if isinstance(operand, Relative):
        name = symbol(operand.target) if symbol else None
        return _reach(instruction, code) + (name or f"{operand.target:#x}")
    if isinstance(operand, FarPointer):
        keyword = "word " if operand.size == 16 else ""
        return f"{keyword}{format_number(operand.selector)}:{format_number(operand.offset)}"
    return operand.name


def _reach(instruction: Instruction, code: str) -> str:
    """``short`` or ``near`` where a mnemonic has both forms; NASM wants the size after it."""
    row = instruction.row
    if code == "Jb":
        return "short " if row.mnemonic in _LONG_JUMPS else ""
    near = "near " if row.parsed.low == "cc" else ""
    return near + ("word " if instruction.operand_size == 16 else "")


def _register_codes(row: Row) -> list[str]:
    return [code for code in row.operands if code[0] == "G" or code in ("AL", "eAX")]


def _needs_size(row: Row, operand: Memory, code: str) -> bool:
    """No register beside a memory operand gives its size away."""
    if not operand.size:
        return False
    width = code[1:]
    return not any(
        width == register[1:] or (register == "AL" and width == "b") or register == "eAX"
        for register in _register_codes(row)
    )


def _operands_shown(row: Row) -> bool:
    """String instructions stand without the operands that their names imply."""
    return not any(code[0] in "XY" for code in row.operands)


def _shows_operand_size(instruction: Instruction) -> bool:
    """Some operand, or the mnemonic, already says that the operand size is 16 bits."""
    row = instruction.row
    if row.parsed.operand_size == 16 or row.mnemonic in _SIZED_NAMES:
        return True
    if not _operands_shown(row):
        return False
    return any(
        _operand_shows_size(operand, code, row)
        for operand, code in zip(instruction.operands, row.operands, strict=True)
    )


def _operand_shows_size(operand: Operand, code: str, row: Row) -> bool:
    if isinstance(operand, FarPointer) or code in ("eAX", "Jz"):
        return True
    if isinstance(operand, Memory):
        return code[1:] == "v"
    if code[0] in "EGZ":
        return code[1:] in ("v", "vw")
    return code == "Iz" and len(row.operands) == 1


def _prefix_words(instruction: Instruction) -> Iterator[str]:
    row, prefixes = instruction.row, instruction.prefixes
    places = _operands_shown(row) and any(isinstance(o, Memory) for o in instruction.operands)
    if prefixes.lock:
        yield "lock"
    if prefixes.repeat is not None and not row.parsed.repeat:
        yield _REPEAT_NAMES[row.rep][prefixes.repeat]
    if prefixes.segment is not None and not places:
        yield SEGMENT_NAMES[prefixes.segment]
    if prefixes.operand_size and not _shows_operand_size(instruction):
        yield "o16"
    if prefixes.address_size and not places and row.mnemonic not in _ADDRESS_16_NAMES:
        yield "a16"


def _mnemonic(instruction: Instruction) -> str:
    name = instruction.mnemonic
    if instruction.prefixes.operand_size:
        name = _SIZED_NAMES.get(name, name)
    if instruction.prefixes.address_size:
        name = _ADDRESS_16_NAMES.get(name, name)
    return _SPELLINGS.get(name, name)


def format_instruction(instruction: Instruction, symbol: SymbolLookup | None = None) -> str:
    """The instruction in NASM's syntax; `symbol` may name jump targets."""
    words = [*_prefix_words(instruction), _mnemonic(instruction)]
    row = instruction.row
    if row.operands and _operands_shown(row):
        texts = [
            _format_operand(operand, code, instruction, symbol)
            for operand, code in zip(instruction.operands, row.operands, strict=True)
        ]
        two_registers = not any(isinstance(o, Memory) for o in instruction.operands)
        if row.order == "reversed" and row.parsed.modrm and two_registers:
            texts.reverse()  # what NASM would encode so
        words.append(", ".join(texts))
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of disassembly; `instruction` is None where the byte is none."""

    address: int
    bytes: bytes
    text: str
    instruction: Instruction | None

    def __str__(self) -> str:
        return f"{self.address:08x}  {self.bytes.hex():<20}  {self.text}"


def disassemble(
    data: bytes, address: int = 0, symbol: SymbolLookup | None = None
) -> Iterator[Line]:
    """Lines for all of `data`, which stands at `address`; ``db`` for bytes that are no code.

    Never raises: after a byte that starts no instruction, decoding resumes at the next.
    """
    offset = 0
    while offset < len(data):
        at = address + offset
        try:
            found = decode(data, at, offset)
        except DecodeError:
            yield Line(at, data[offset : offset + 1], f"db {data[offset]:#04x}", None)
            offset += 1
        else:
            yield Line(at, found.bytes, format_instruction(found, symbol), found)
            offset += found.length


assert set(_SPELLINGS) <= {row.mnemonic for row in ROWS}
