"""From a mnemonic and typed operands to bytes, by the table alone: the form `nasm -Ox` chooses.

Each row of the table is tried at each operand size it exists in; its operand codes say which
operands it takes (`isa/row.py`). Of the rows that fit, the shortest wins; of equals, the one with
the sign-extended byte, then the first in the table: measured against NASM over every row, that is
its choice. Where a size was left open and rows differ in it, nothing is guessed but the size of a
branch. `isa/decoder.py` is the way back; `isa/assembler/` makes the operands from text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from isa.errors import EncodeError
from isa.modrm import modrm_bytes
from isa.operands import (
    ECX,
    SEGMENT_NAMES,
    SEGMENT_PREFIXES,
    ControlRegister,
    DebugRegister,
    FarPointer,
    Immediate,
    Memory,
    Operand,
    Register,
    Relative,
    SegmentRegister,
)
from isa.row import FIXED_OPERANDS, Row
from isa.table import (
    ADDRESS_SIZE_ALIASES,
    ALIASES,
    condition_number,
    rows_of,
)

OPERAND_SIZE_PREFIX: Final = 0x66
ADDRESS_SIZE_PREFIX: Final = 0x67
#: Bits of the widths that do not depend on the operand size.
FIXED_WIDTHS: Final = {"b": 8, "w": 16, "d": 32, "q": 64}
FIXED_REGISTERS: Final[dict[str, tuple[int, int]]] = {"AL": (0, 8), "CL": (1, 8), "DX": (2, 16)}
SEGMENT_NUMBERS: Final = {name.upper(): number for number, name in enumerate(SEGMENT_NAMES)}


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What was written before the mnemonic. Sizes are in bits, 0 where nothing was written."""

    repeat: int | None = None  #: 0xF2 or 0xF3
    lock: bool = False
    segment: int | None = None  #: a segment register's number
    operand_size: int = 0
    address_size: int = 0


NO_PREFIXES: Final = Prefixes()


@dataclass(frozen=True, slots=True)
class Encoding:
    """The bytes of one instruction, the row they are of, and what a reader should be warned of."""

    row: Row
    data: bytes
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """A row at one operand size, as a mnemonic's spelling selects it."""

    row: Row
    size: int  #: 16 or 32
    condition: int  #: added to the opcode byte
    neutral: bool = False  #: an operand-size prefix changes nothing
    codes: tuple[str, ...] = field(init=False)  #: of the operands written: a string's are implied
    opcode: bytes = field(init=False)
    has_byte_immediate: bool = field(init=False)  #: sign-extended: NASM's first choice

    def __post_init__(self) -> None:
        parsed = self.row.parsed
        escape = b"\x0f" if parsed.two_byte else b""
        opcode = escape + bytes([parsed.byte + self.condition])
        codes = tuple(code for code in self.row.operands if code[0] not in "XY")
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "opcode", opcode)
        object.__setattr__(self, "has_byte_immediate", "Ibs" in self.row.operands)

    @property
    def needs_prefix(self) -> bool:
        return self.size == 16


def _depends_on_size(row: Row) -> bool:
    """Whether an operand-size prefix changes what the row does."""
    if row.parsed.operand_size is not None:
        return True
    if not row.operands:
        return any(mnemonic == row.mnemonic for mnemonic, size in ALIASES.values() if size)
    sized = {"v", "vw", "z", "bs", "p", "a"}
    codes = [code for code in row.operands if code not in FIXED_OPERANDS]
    return "eAX" in row.operands or any(code[1:] in sized for code in codes)


@cache
def forms_of(mnemonic: str) -> tuple[Form, ...]:
    """Every form a spelling can mean; empty where the table has no such mnemonic."""
    name, forced = ALIASES.get(mnemonic, (mnemonic, None))
    forms = []
    for row in rows_of(mnemonic):
        condition = 0
        if row.parsed.low == "cc":
            condition = condition_number(name[len(row.mnemonic) - 2 :]) or 0
        neutral = not _depends_on_size(row)
        sizes: tuple[int, ...] = (32,) if neutral else (32, 16)
        if row.parsed.operand_size is not None:
            sizes = (row.parsed.operand_size,)
        if forced is not None:
            sizes = (forced,)
        forms += [Form(row, size, condition, neutral) for size in sizes]
    return tuple(forms)


def width(code: str, size: int, *, memory: bool = False) -> int:
    """Bits of an operand code at an operand size; 0 where the code has none (``M``)."""
    letters = code[1:]
    if letters in FIXED_WIDTHS:
        return FIXED_WIDTHS[letters]
    if letters == "vw":
        return 16 if memory else size
    if letters == "p":
        return size + 16
    return size if letters in ("v", "z", "bs") else 0


def _memory_fits(code: str, operand: Memory, size: int) -> bool:
    if code[1:] == "p":  # NASM calls a far pointer by the size of its offset
        return operand.size in (0, size, size + 16)
    bits = width(code, size, memory=True)
    return operand.size in (0, bits) or (bits == 0 and code == "M")


def _plain_displacement(operand: Memory) -> bool:
    return (
        operand.base is None
        and operand.index is None
        and operand.displacement_size in (None, operand.address_size)
    )


def _immediate_fits(code: str, operand: Immediate, size: int) -> bool:
    if code == "Ibs":
        if operand.size == 8:
            return True
        if operand.size not in (0, size) or operand.full:
            return False
        return (operand.value + 128) & ((1 << size) - 1) <= 255
    return operand.size in (0, width(code, size))


def _fixed_fits(code: str, operand: Operand, size: int) -> bool:
    if code in SEGMENT_NUMBERS:
        return isinstance(operand, SegmentRegister) and operand.number == SEGMENT_NUMBERS[code]
    if code in ("1", "3"):
        return isinstance(operand, Immediate) and operand.value == int(code) and operand.size == 0
    number, bits = FIXED_REGISTERS.get(code, (0, size))
    return isinstance(operand, Register) and (operand.number, operand.size) == (number, bits)


def fits(code: str, operand: Operand, size: int) -> bool:
    """Whether an operand code takes this operand at this operand size."""
    if code in FIXED_OPERANDS:
        return _fixed_fits(code, operand, size)
    kind = code[0]
    if isinstance(operand, Memory):
        if kind == "O":
            return _plain_displacement(operand) and _memory_fits(code, operand, size)
        return kind in "EM" and _memory_fits(code, operand, size)
    if isinstance(operand, Register):
        return kind in "EGZR" and operand.size == width(code, size)
    if isinstance(operand, Immediate):
        return kind == "I" and _immediate_fits(code, operand, size)
    if isinstance(operand, Relative):
        return kind == "J" and operand.size in (0, 8 if code == "Jb" else size)
    if isinstance(operand, FarPointer):
        return kind == "A" and operand.size in (0, size)
    wanted = {"S": SegmentRegister, "C": ControlRegister, "D": DebugRegister}.get(kind)
    return wanted is not None and isinstance(operand, wanted)


def _arrange(form: Form, operands: tuple[Operand, ...]) -> tuple[Operand, ...] | None:
    """The operands in the row's own order and number, or None if it does not take them."""
    row, codes, size = form.row, form.codes, form.size
    if len(operands) < len(codes):
        if row.omitted is not None and not operands:
            operands = (Immediate(row.omitted, 0),)
        elif len(codes) == 3 and codes[0][0] + codes[1][0] + codes[2][0] == "GEI":
            operands = (*operands[:1], *operands)  # imul eax, 5 is imul eax, eax, 5
    if len(operands) != len(codes):
        return None
    orders = [operands]
    if row.order and len(operands) == 2:
        orders.append((operands[1], operands[0]))
        if row.order == "reversed":
            orders.reverse()
    for order in orders:
        if all(map(fits, codes, order, (size,) * len(codes))):
            return order
    # A selector is taken from the low half of a 32-bit register just as well (mov, lar, lsl).
    if codes[1:] == ("Ew",) and row.access == "cc" and fits(codes[0], operands[0], size):
        source = operands[1]
        if isinstance(source, Register) and source.size == 32:
            return (operands[0], Register(source.number, 16))
    return None


def _immediate(value: int, size: int, *, signed: bool, warnings: list[str]) -> bytes:
    low, high = -(1 << size - 1), (1 << size - 1 if signed else 1 << size) - 1
    if not low <= value <= high:
        warnings.append(f"value {value} does not fit in {size} bits; its low bits are used")
    return (value & ((1 << size) - 1)).to_bytes(size // 8, "little")


def _tail(form: Form, operands: Sequence[Operand], warnings: list[str]) -> bytes:
    """The immediates, far pointer or memory offset that follow opcode and ModRM."""
    data = b""
    for code, operand in zip(form.codes, operands, strict=True):
        if isinstance(operand, Immediate) and code not in FIXED_OPERANDS:
            bits = 8 if code == "Ibs" else width(code, form.size)
            signed = code == "Ibs" and operand.size == 8
            # Without "byte" a sign-extended byte is a value of operand size.
            size = form.size if code == "Ibs" and not signed else bits
            value = _immediate(operand.value, size, signed=signed, warnings=warnings)
            data += value[: bits // 8]
        elif isinstance(operand, FarPointer):
            data += _immediate(operand.offset, form.size, signed=False, warnings=warnings)
            data += _immediate(operand.selector, 16, signed=False, warnings=warnings)
        elif isinstance(operand, Memory) and code[0] == "O":
            bits = operand.address_size
            data += (operand.displacement & ((1 << bits) - 1)).to_bytes(bits // 8, "little")
    return data


def _prefix_bytes(form: Form, operands: Sequence[Operand], prefixes: Prefixes) -> bytes:
    """The prefixes, in NASM's order."""
    data = bytearray()
    if prefixes.repeat is not None:
        data.append(prefixes.repeat)
    if prefixes.lock:
        data.append(0xF0)
    memory = next((o for o in operands if isinstance(o, Memory)), None)
    segment = prefixes.segment
    if memory is not None and memory.segment is not None:
        if segment is not None and segment != memory.segment:
            raise EncodeError("two segment overrides contradict each other")
        segment = memory.segment
    if segment is not None:
        data.append(SEGMENT_PREFIXES[segment])
    if form.needs_prefix and prefixes.operand_size == 32:
        raise EncodeError("o32 contradicts an operand of 16 bits")
    if form.needs_prefix or prefixes.operand_size == 16:
        data.append(OPERAND_SIZE_PREFIX)
    if prefixes.address_size == 16 or (memory is not None and memory.address_size == 16):
        data.append(ADDRESS_SIZE_PREFIX)
    if form.row.parsed.repeat:
        data.append(0xF3)
    return bytes(data)


def _head(form: Form, operands: Sequence[Operand]) -> bytes:
    """Opcode and ModRM with its displacement."""
    parsed = form.row.parsed
    reg, rm = parsed.digit or 0, None
    opcode = form.opcode
    for code, operand in zip(form.codes, operands, strict=True):
        if code in FIXED_OPERANDS:
            continue
        kind = code[0]
        if kind == "Z":
            assert isinstance(operand, Register)
            opcode = opcode[:-1] + bytes([opcode[-1] + operand.number])
        elif kind in "GSCD":
            assert not isinstance(operand, Immediate | Memory | Relative | FarPointer)
            reg = operand.number
        elif kind in "EMR":
            rm = operand
    if not parsed.modrm:
        return opcode
    assert rm is not None
    return opcode + modrm_bytes(rm, reg)


def _relative(form: Form, head: bytes, operand: Relative, address: int) -> bytes | None:
    """The displacement to a target, or None where this form is not for it."""
    bits = 8 if form.codes[0] == "Jb" else form.size
    distance = operand.target - (address + len(head) + bits // 8)
    if bits == 8 and operand.size != 8 and not -128 <= distance <= 127:
        return None
    return (distance & ((1 << bits) - 1)).to_bytes(bits // 8, "little")


def _emit(
    form: Form, operands: Sequence[Operand], prefixes: Prefixes, address: int
) -> Encoding | None:
    warnings: list[str] = []
    data = _prefix_bytes(form, operands, prefixes) + _head(form, operands)
    if operands and isinstance(operands[0], Relative):
        displacement = _relative(form, data, operands[0], address)
        if displacement is None:
            return None
        data += displacement
    else:
        data += _tail(form, operands, warnings)
    if prefixes.lock and not (form.row.lock and any(isinstance(o, Memory) for o in operands)):
        warnings.append("this instruction cannot be locked: it will raise #UD")
    return Encoding(form.row, data, tuple(warnings))


def _memory_sizes(matches: Sequence[tuple[Form, tuple[Operand, ...]]]) -> set[int]:
    """The sizes the candidate forms would give a memory operand of unknown size."""
    sizes = set()
    for form, operands in matches:
        for code, operand in zip(form.codes, operands, strict=True):
            if isinstance(operand, Memory) and operand.size == 0:
                sizes.add(width(code, form.size, memory=True))
    return sizes


def _complete(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """Give an unsized memory operand the size written on an immediate beside it."""
    sizes = {o.size for o in operands if isinstance(o, Immediate) and o.size}
    if len(operands) != 2 or not sizes or any(isinstance(o, Register) for o in operands):
        return operands
    bits = sizes.pop()
    return tuple(
        Memory(o.base, o.index, o.scale, o.displacement, bits, o.segment, o.address_size,
               o.displacement_size)
        if isinstance(o, Memory) and o.size == 0
        else o
        for o in operands
    )  # fmt: skip


#: What operand kinds take an operand of each class; fixed operands are looked at one by one.
_TAKEN_BY: Final[dict[type, str]] = {
    Register: "EGZR", Memory: "EMO", Immediate: "I", Relative: "J", FarPointer: "A",
    SegmentRegister: "S", ControlRegister: "C", DebugRegister: "D",
}  # fmt: skip


@cache
def _candidates(mnemonic: str, kinds: tuple[type, ...], far: bool) -> tuple[Form, ...]:
    """The forms of a mnemonic worth a closer look for operands of these classes."""

    def possible(form: Form) -> bool:
        codes = form.codes
        if far and not any(code in ("Mp", "Ap") for code in codes):
            return False
        if len(codes) != len(kinds) or form.row.order:
            return True
        return all(
            code in FIXED_OPERANDS or code[0] in _TAKEN_BY[kind]
            for code, kind in zip(codes, kinds, strict=True)
        )

    return tuple(form for form in forms_of(mnemonic) if possible(form))


def _matches(
    mnemonic: str, operands: tuple[Operand, ...], far: bool
) -> list[tuple[Form, tuple[Operand, ...]]]:
    matches = []
    for form in _candidates(mnemonic, tuple(map(type, operands)), far):
        arranged = _arrange(form, operands)
        if arranged is not None:
            matches.append((form, arranged))
    if not far and any("Mp" not in form.row.operands for form, _ in matches):
        matches = [match for match in matches if "Mp" not in match[0].row.operands]
    return matches


def _select(
    mnemonic: str, operands: tuple[Operand, ...], far: bool, operand_size: int
) -> list[tuple[Form, tuple[Operand, ...]]]:
    """The forms that fit, of one operand size."""
    matches = _matches(mnemonic, operands, far) or _matches(mnemonic, _complete(operands), far)
    if not matches:
        raise EncodeError(explain(mnemonic, operands))
    if len(_memory_sizes(matches)) > 1:
        # A source as wide as its destination extends nothing: movzx ax, [x] takes a byte.
        matches = [m for m in matches if m[0].size != 16 or m[0].codes != ("Gv", "Ew")] or matches
    if len(_memory_sizes(matches)) > 1:
        completed = _matches(mnemonic, _complete(operands), far)
        if completed and len(_memory_sizes(completed)) <= 1:
            matches = completed
        elif not all(form.row.ends for form, _ in matches):
            raise EncodeError("operation size not specified: expected byte, word or dword")
    for size in (16, 32) if operand_size == 16 else (32, 16):
        chosen = [m for m in matches if m[0].size == size or m[0].neutral]
        if not all(form.neutral for form, _ in chosen):
            return chosen
    return matches


def encode(
    mnemonic: str,
    operands: Sequence[Operand] = (),
    *,
    prefixes: Prefixes = NO_PREFIXES,
    far: bool = False,
    address: int = 0,
) -> Encoding:
    """Encode one instruction that will lie at `address` (an offset in CS, for relative targets).

    `far` says that a memory operand of jmp or call holds a far pointer. A relative target of size
    8 is encoded as a short jump even where it does not reach; whoever asks for one checks. Raises
    `EncodeError` if no row takes these operands.
    """
    given = tuple(operands)
    address_size = ADDRESS_SIZE_ALIASES.get(mnemonic, 0)
    if len(given) == 2 and isinstance(given[0], Relative) and isinstance(given[1], Register):
        counter = given[1]  # loop target, cx
        if counter.number == ECX and counter.size in (16, 32):
            address_size, given = counter.size, given[:1]
    if address_size == 16 and not prefixes.address_size:
        prefixes = Prefixes(
            prefixes.repeat, prefixes.lock, prefixes.segment, prefixes.operand_size, 16
        )
    best: tuple[tuple[int, bool, int], Encoding] | None = None
    for form, arranged in _select(mnemonic, given, far, prefixes.operand_size):
        encoding = _emit(form, arranged, prefixes, address)
        if encoding is None:
            continue
        rank = (len(encoding.data), not form.has_byte_immediate, form.row.id)
        if best is None or rank < best[0]:
            best = (rank, encoding)
    if best is None:
        raise EncodeError("short jump is out of range")
    return best[1]


def explain(mnemonic: str, operands: Sequence[Operand]) -> str:
    """Why no row of a mnemonic takes these operands."""
    rows = rows_of(mnemonic)
    if not rows:
        return f"unknown instruction {mnemonic!r}"
    counts = sorted({len(form.codes) for form in forms_of(mnemonic)})
    if len(operands) not in counts:
        wanted = " or ".join(map(str, counts))
        plural = "" if counts == [1] else "s"
        return f"{mnemonic} takes {wanted} operand{plural}, found {len(operands)}"
    sizes = [o.size for o in operands if isinstance(o, Register | Memory | Immediate) and o.size]
    if len(set(sizes)) > 1:
        found = " and ".join(str(size) for size in sizes)
        return f"{mnemonic}: operand sizes do not go together: found {found} bits"
    return f"{mnemonic} does not take these operands"
