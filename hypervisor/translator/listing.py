"""Units as text: guest code, and under it what each instruction has become.

After QEMU's `-d in_asm,out_asm`, so that who can read that can read this. A comment says what the
bytes do not: which word of the vCPU area is read, where a link leads, what the hypervisor is asked.
hypervisor/trace.py prints units when they are made; tests keep some of them (tests/hypervisor/
listings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from hypervisor.translator import layout
from hypervisor.translator.stores import PAGE_PART, SELECTOR_PART, SHADOW_PART, WINDOW_PART
from hypervisor.translator.writer import CALL_OUT, DISPLACEMENT
from isa.decoder import Instruction, decode
from isa.disassembler import Line, disassemble
from isa.operands import GS, Memory
from isa.paravirt import FIELDS, VCPU_PAGE

if TYPE_CHECKING:
    from hypervisor.translator.unit import Place, Unit

RULE: Final = "-" * 16
COMMENT_COLUMN: Final = 36  #: of an instruction's text, where its comment begins
_WORDS: Final = {field.address - VCPU_PAGE: field.name for field in (*FIELDS, *layout.OWN_FIELDS)}
#: Read in its own size a field may be another: if_flag is a byte of if_word.
_SIZED: Final = {
    (field.address - VCPU_PAGE, field.size * 8): field.name
    for field in (*FIELDS, *layout.OWN_FIELDS)
}

#: Of stores that find out for themselves whether they need the hypervisor.
_ALIAS_PARTS: Final = {
    PAGE_PART: "page",
    WINDOW_PART: "window",
    SHADOW_PART: "shadow",
    SELECTOR_PART: "selector",
}

Name = Callable[[int], str]  #: linear address of the guest's -> symbol, or nothing


def _no_name(address: int) -> str:
    del address
    return ""


def place_of(eip: int, base: int, name: Name) -> str:
    """``0x00100003 start+0x3``."""
    return f"{eip:#010x} {name((base + eip) & 0xFFFF_FFFF)}".rstrip()


def line_text(line: Line, comment: str = "") -> str:
    """An instruction with its bytes, as -d in_asm shows it."""
    text = f"{line.text:{COMMENT_COLUMN}} ; {comment}" if comment else line.text
    return f"0x{line.address:08x}:  {line.bytes.hex(' '):24s} {text}"


def _base(unit: Unit) -> int:
    return 0 if unit.space is None else unit.space.context.base


def guest_lines(unit: Unit, name: Name = _no_name) -> list[str]:
    """IN: the guest's code."""
    if unit.is_gate:
        return ["IN: (a pass-through gate, of no code of the guest's)"]
    head = f"IN: {name((_base(unit) + unit.eip) & 0xFFFF_FFFF)}".rstrip()
    return [head, *map(line_text, disassemble(unit.source, unit.eip))]


def code_lines(unit: Unit, name: Name = _no_name) -> list[str]:
    """OUT: the cache's, each piece under what it stands for."""
    lines = [f"OUT: [size={len(unit.code)}]"]
    for row in code_rows(unit, name):
        if row.head:
            lines.append(f"  -- {row.head}")
        lines.append(line_text(row.line, row.comment))
    return lines


class CodeRow(NamedTuple):
    """An instruction of the cache."""

    head: str  #: what begins here, if something does
    eip: int | None  #: of the guest's instruction that it is part of, if it is of one
    line: Line
    comment: str


def code_rows(unit: Unit, name: Name = _no_name) -> Iterator[CodeRow]:
    """A unit's code, an instruction at a time."""
    heads = dict(_heads(unit))
    begins = {offset: eip for eip, offset in unit.inside.items()}
    stubs = min((link.stub for link in unit.links), default=len(unit.code))
    eip: int | None = None
    for line in disassemble(unit.code, unit.start):
        offset = line.address - unit.start
        eip = begins.get(offset, eip) if offset < stubs else None
        yield CodeRow(heads.get(offset, ""), eip, line, _comment(unit, offset, name))


def _heads(unit: Unit) -> Iterator[tuple[int, str]]:
    """By offset: what the code from there on is."""
    if unit.is_gate:
        return
    if unit.body:
        yield 0, "looked up: is it this one?"
    if unit.checked:
        yield unit.body, "has the guest's code changed?"
    texts = {line.address: line.text for line in disassemble(unit.source, unit.eip)}
    for eip, offset in unit.inside.items():
        yield offset, f"{eip:#010x} {texts[eip]}"
    if unit.links:
        yield min(link.stub for link in unit.links), "links not yet followed"


def _comment(unit: Unit, offset: int, name: Name) -> str:
    """What an instruction's bytes do not say."""
    instruction = decode(unit.code, 0, offset)
    place, base = unit.places.get(offset), _base(unit)
    for link in unit.links:
        if link.displacement + DISPLACEMENT == offset + instruction.length:
            return f"link to {place_of(link.eip, base, name)}"
    if instruction.bytes == CALL_OUT and place is not None:
        return _request(place, base, name)
    return _words(instruction)


def _request(place: Place, base: int, name: Name) -> str:
    """What `int OWN_VECTOR` asks for."""
    if place.link is not None:
        return f"-> {place_of(place.link.eip, base, name)}"
    if place.target:
        return "another: look it up"
    if place.check:
        return "it has"
    if place.revert:
        return "no alias, many times: as it was"
    if place.gate:
        return "exchange GS"
    return "callout"


def _words(instruction: Instruction) -> str:
    """What of the translator's own an operand is."""
    for operand in instruction.operands:
        if type(operand) is Memory and operand.segment == GS:
            return _word(operand)
    return ""


def _word(operand: Memory) -> str:
    """What is in reach of the translator's GS: a word, or an entry of a table."""
    at = operand.displacement
    if operand.base is None:
        if operand.index is not None:
            return "targets"
        return _SIZED.get((at, operand.size or 0)) or _WORDS.get(at, "")
    if operand.index is not None:
        return "the entry's shadow"
    part = _ALIAS_PARTS.get(at - (layout.ALIASES - layout.AREA))
    return f"alias's {part}" if part else "through the window"


def text_of(unit: Unit, name: Name = _no_name, *, guest: bool = True, code: bool = True) -> str:
    """A unit between rules, as a trace has it."""
    lines = [RULE]
    if guest:
        lines += [*guest_lines(unit, name), ""]
    if code:
        lines += [*code_lines(unit, name), ""]
    return "".join(f"{line}\n" for line in lines)
