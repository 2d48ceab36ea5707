"""A patch as text: the code in patch memory, under each guest instruction what it has become.

In the form of the translator's listings (hypervisor/translator/listing.py), so that who can read
those can read these; only the vCPU area is reached through SS here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hypervisor.translator import layout
from hypervisor.translator.listing import CodeRow, Name, line_text, place_of
from hypervisor.translator.writer import CALL_OUT
from isa.decoder import Instruction, decode
from isa.disassembler import disassemble
from isa.operands import SS, Memory
from isa.paravirt import FIELDS

if TYPE_CHECKING:
    from hypervisor.patcher.patches import Patch
    from hypervisor.translator.unit import Place

_WORDS: Final = {field.address: field.name for field in (*FIELDS, *layout.OWN_FIELDS)}
#: Read in its own size a word may be another: if_flag is a byte of if_word.
_SIZED: Final = {
    (field.address, field.size * 8): field.name for field in (*FIELDS, *layout.OWN_FIELDS)
}


def code_rows(patch: Patch, start: int, code: bytes, name: Name) -> Iterator[CodeRow]:
    """Code in patch memory as it stands at `start`; the patch may have been removed since."""
    begins = {offset: eip for eip, offset in patch.inside.items()}
    eip: int | None = None
    for line in disassemble(code, start):
        offset = line.address - start
        place, head = patch.places.get(offset), ""
        if offset in begins:
            eip = begins[offset]
            (original,) = disassemble(patch.sites[eip].original, eip)
            head = f"{eip:#010x} {original.text}"
        yield CodeRow(head, eip, line, _comment(decode(code, 0, offset), place, name))


def code_lines(patch: Patch, start: int, code: bytes, name: Name) -> Iterator[str]:
    """The same as lines."""
    for row in code_rows(patch, start, code, name):
        if row.head:
            yield f"  -- {row.head}"
        yield line_text(row.line, row.comment)


def _comment(instruction: Instruction, place: Place | None, name: Name) -> str:
    """What an instruction's bytes do not say."""
    if instruction.bytes == CALL_OUT:
        return "callout"
    if instruction.row.body == "jmp" and place is not None and place.site is None:
        return f"back to {place_of(place.eip, 0, name)}"
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.segment == SS and operand.base is None:
            at = operand.displacement
            return _SIZED.get((at, operand.size or 0)) or _WORDS.get(at, "")
    return ""
