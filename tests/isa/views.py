"""One instruction as our decoder, capstone, objdump and ndisasm see it, in one common form.

A `View` is a mnemonic, operands and a length. Each oracle has a function here that turns its answer
into a view. Then `settle` undoes what is only notation, by the rules stated there and the spelling
tables of `deviations.py`; what is left is a real difference. An operand is a tuple:
``("reg", "eax")``, ``("imm", 5)``, ``("far", 8, 0x1234)`` or
``("mem", segment override, base, index, scale, displacement, bits)``.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import capstone
from capstone import x86_const

from isa.decoder import Instruction
from isa.operands import GENERAL, SEGMENT_NAMES, FarPointer, Immediate, Memory, Operand, Relative
from isa.table import ALIASES, CONDITION_NAMES
from tests.isa.deviations import OURS, SPELLINGS, STRING_MNEMONICS

#: Bytes between two cases in a file given to objdump and ndisasm: nop resynchronises them.
SLOT = 32


#: How the prefixes are written that change what an instruction does.
REPEAT_WORDS = {
    "lock": "lock", "rep": "rep", "repe": "rep", "repz": "rep", "repne": "repne", "repnz": "repne",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    mnemonic: str
    operands: tuple[tuple[object, ...], ...]
    length: int
    prefixes: frozenset[str] = frozenset()  #: of the values of REPEAT_WORDS


def _prefixes(words: list[str]) -> frozenset[str]:
    return frozenset(REPEAT_WORDS[word] for word in words if word in REPEAT_WORDS)


def _mask(value: int, bits: int) -> int:
    return value & ((1 << bits) - 1)


# -- Ours --------------------------------------------------------------------------------------


def _our_operand(operand: Operand) -> tuple[object, ...]:
    if isinstance(operand, Immediate):
        return ("imm", operand.value)
    if isinstance(operand, Relative):
        return ("imm", operand.target)
    if isinstance(operand, FarPointer):
        return ("far", operand.selector, operand.offset)
    if isinstance(operand, Memory):
        names = GENERAL[operand.address_size]
        base = "" if operand.base is None else names[operand.base].name
        index = "" if operand.index is None else names[operand.index].name
        segment = "" if operand.segment is None else SEGMENT_NAMES[operand.segment]
        return (
            "mem", segment, base, index, operand.scale, operand.displacement, operand.size,
        )  # fmt: skip
    return ("reg", operand.name)


def ours(instruction: Instruction) -> View:
    """The decoder's view."""
    operands = tuple(map(_our_operand, instruction.operands))
    prefixes = instruction.prefixes
    words = ["lock"] * prefixes.lock
    if instruction.row.rep and prefixes.repeat is not None:
        words.append("rep" if prefixes.repeat == 0xF3 else "repne")
    mnemonic = OURS.get(instruction.mnemonic, instruction.mnemonic)
    return View(mnemonic, operands, instruction.length, _prefixes(words))


# -- Settling notation -------------------------------------------------------------------------


def _canonical_mnemonic(word: str) -> str:
    """Ours for any spelling: aliases, conditions (``jge`` is ``jnl``) and foreign suffixes."""
    word = SPELLINGS.get(word, word)
    word = ALIASES.get(word, (word, None))[0]
    for head in ("cmov", "set", "j"):
        for names in CONDITION_NAMES:
            if word.startswith(head) and word[len(head) :] in names:
                return head + names[0]
    return word


def _settle_operand(
    found: tuple[object, ...], mine: tuple[object, ...], operand: Operand
) -> tuple[object, ...]:
    if found[0] != mine[0]:
        return found
    if isinstance(operand, Immediate) and isinstance(found[1], int):
        return ("imm", _mask(found[1], operand.size))
    if isinstance(operand, Memory):
        _, segment, base, index, scale, displacement, size = found
        assert isinstance(displacement, int)
        if segment == SEGMENT_NAMES[operand.default_segment] and operand.segment is None:
            segment = ""
        if index in ("eiz", "riz"):
            index, scale = "", 1
        if not operand.size or not size:
            size = operand.size
        displacement = _mask(displacement, operand.address_size)
        return ("mem", segment, base, index, scale, displacement, size)
    return found


def settle(view: View, instruction: Instruction) -> View:
    """The view with our notation, where the difference is notation only.

    * mnemonics by `_canonical_mnemonic`;
    * immediates unsigned and cut to our operand's size;
    * displacements unsigned and cut to the address size; an absent index (``eiz``) left out;
    * a segment that applies anyway is not an override;
    * no size where the instruction gives its operand none (lea), or the oracle prints none;
    * the operands a name implies (AL of stosb, all of xlat) left out, as the row leaves them out;
    * xchg is symmetric: operands in either order.
    """
    mine = ours(instruction)
    mnemonic = _canonical_mnemonic(view.mnemonic)
    operands = view.operands
    if any(code[0] in "XY" for code in instruction.row.operands):
        operands = tuple(o for o in operands if o[0] == "mem")
        if mnemonic in STRING_MNEMONICS and operands:
            mnemonic += {"8": "b", "16": "w", "32": "d"}[str(operands[0][6])]
    elif not mine.operands:
        operands = ()
    elif isinstance(instruction.operands[0], FarPointer) and len(operands) == 2:
        operands = (("far", operands[0][1], operands[1][1]),)
    if mnemonic == "xchg" and len(operands) == 2 and operands[0][0] != mine.operands[0][0]:
        operands = operands[::-1]
    if mnemonic == "xchg" and operands == mine.operands[::-1]:
        operands = operands[::-1]
    if len(operands) == len(mine.operands):
        operands = tuple(map(_settle_operand, operands, mine.operands, instruction.operands))
    return View(mnemonic, operands, view.length, view.prefixes)


# -- capstone ----------------------------------------------------------------------------------


def _capstone_operand(
    insn: capstone.CsInsn, operand: capstone.x86.X86Op, address_size: int
) -> tuple[object, ...]:
    if operand.type == x86_const.X86_OP_REG:
        return ("reg", insn.reg_name(operand.reg))
    if operand.type == x86_const.X86_OP_IMM:
        return ("imm", operand.imm)
    place = operand.mem
    names = [insn.reg_name(r) if r else "" for r in (place.segment, place.base, place.index)]
    scale = place.scale if names[2] and address_size == 32 else 1
    displacement = _mask(place.disp, address_size)
    return ("mem", *names, scale, displacement, 8 * operand.size)


def capstone_views(cases: list[tuple[bytes, int]]) -> list[View | None]:
    """capstone's view of each (bytes, address); None where it finds no instruction."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    engine.detail = True
    views: list[View | None] = []
    for code, address in cases:
        insn = next(engine.disasm(code, address, 1), None)
        if insn is None:
            views.append(None)
            continue
        words = insn.mnemonic.split()
        size = 16 if 0x67 in code[: insn.size - 1] and insn.addr_size == 2 else 32
        operands = tuple(_capstone_operand(insn, o, size) for o in insn.operands)
        views.append(View(words[-1], operands, insn.size, _prefixes(words[:-1])))
    return views


# -- objdump -----------------------------------------------------------------------------------

_OBJDUMP_SIZES = {"BYTE": 8, "WORD": 16, "DWORD": 32, "QWORD": 64, "FWORD": 48}
#: Words before a mnemonic that say nothing here: redundant prefixes, and later meanings of them.
_PREFIX_WORDS = frozenset(
    {"data16", "addr16", "es", "cs", "ss", "ds", "fs", "gs", "bnd", "notrack", "xacquire"}
    | {"xrelease"}
    | REPEAT_WORDS.keys()
)
_MEMORY = re.compile(r"(?:(\w+) PTR )?(?:(\w\w):)?(?:\[(.*)\]|(0x[0-9a-f]+))$")


def _slots(cases: list[tuple[bytes, int]], file: Path) -> None:
    file.write_bytes(b"".join(code.ljust(SLOT, b"\x90") for code, _ in cases))


def _objdump_operand(text: str) -> tuple[object, ...]:
    if re.fullmatch(r"[a-z]\w+", text):
        return ("reg", text)
    if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", text):
        return ("imm", int(text, 0))
    if far := re.fullmatch(r"0x([0-9a-f]+):0x([0-9a-f]+)", text):
        return ("far", int(far[1], 16), int(far[2], 16))
    match = _MEMORY.match(text)
    assert match, f"objdump: no operand {text!r}"
    size, segment, inside, absolute = match.groups()
    base = index = ""
    scale, displacement = 1, 0
    if absolute:
        displacement = int(absolute, 16)
    for sign, term in re.findall(r"([+-]?)([^+-]+)", inside or ""):
        if "*" in term:
            index, _, factor = term.partition("*")
            scale = int(factor)
        elif term[0].isdigit():
            displacement = int(sign + term, 0)
        elif base:
            index = term
        else:
            base = term
    return ("mem", segment or "", base, index, scale, displacement, _OBJDUMP_SIZES.get(size, 0))


def _objdump_view(text: str, length: int) -> View | None:
    words = text.split()
    before = []
    while words and words[0] in _PREFIX_WORDS and len(words) > 1:
        before.append(words.pop(0))
    if not words or words[0] == "(bad)":
        return None
    mnemonic = words[0].split(",")[0]  # a branch hint is written jne,pn
    rest = re.sub(r"\s*(<.*>|#.*)$", "", " ".join(words[1:]))
    operands = tuple(_objdump_operand(part.strip()) for part in rest.split(",") if part.strip())
    return View(mnemonic, operands, length, _prefixes(before))


def objdump_views(cases: list[tuple[bytes, int]], folder: Path) -> list[View | None]:
    """objdump's view of each case, all of them in one run; case n must stand at `SLOT` * n."""
    file = folder / "cases.bin"
    _slots(cases, file)
    listing = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", "i386", "-M", "intel", "-w", "-z", str(file)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found: dict[int, tuple[int, str]] = {}
    for line in listing.splitlines():
        parts = line.split("\t")
        if len(parts) >= 2 and re.fullmatch(r"\s*[0-9a-f]+:", parts[0]):
            text = parts[2] if len(parts) > 2 else ""
            found[int(parts[0].strip(" :"), 16)] = (len(parts[1].split()), text)
    views: list[View | None] = []
    for number in range(len(cases)):
        length, text = found.get(number * SLOT, (0, "(bad)"))
        views.append(_objdump_view(text, length))
    return views


# -- ndisasm -----------------------------------------------------------------------------------


def ndisasm_lengths(cases: list[tuple[bytes, int]], folder: Path) -> list[int]:
    """The length ndisasm gives each case; 0 where it was not at its first byte."""
    file = folder / "cases.bin"
    _slots(cases, file)
    listing = subprocess.run(
        ["ndisasm", "-u", str(file)], check=True, capture_output=True, text=True
    ).stdout
    lengths: dict[int, int] = {}
    address = None
    for line in listing.splitlines():
        if line.startswith(" "):  # "-" and the bytes that did not fit the line before
            assert address is not None
            lengths[address] += len(line.split("-")[1].strip()) // 2
            continue
        where, code, text = (*line.split(None, 2), "")[:3]
        address = int(where, 16)
        lengths[address] = 0 if text.startswith("db ") else len(code) // 2
    return [lengths.get(number * SLOT, 0) for number in range(len(cases))]
