"""What a kernel's instruction needs, if it is to run in place in ring 1.

Most need nothing: what is safe does the same there, what is privileged traps by itself. The unsafe
ones are sites. Of these some have a *form*: code on the vCPU area that does what they do in ring 0
without an exit. The others can only ask the hypervisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypervisor.translator import forms, transfers
from hypervisor.translator.writer import UnitWriter
from isa.operands import CS, SS, Memory, SegmentRegister
from isa.paravirt import Field
from isa.site_forms import FORM_BY_NAME, Writer, form_of
from isa.table import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from isa.decoder import Instruction

#: They leave ring 1 by a gate. (So does INT n, but a pass-through gate would show the ring.)
_BY_GATE: Final = frozenset({"int3", "into"})
#: What shows a selector; those of DS, ES, FS and GS are the guest's own even in ring 1.
_SHOWS: Final = frozenset({"mov_from_sreg", "push_sreg"})
#: Their targets are known when they are executed; under --strict they are looked at.
INDIRECT: Final = frozenset({"ret", "jmp_indirect", "call_indirect"})
#: Their targets are known when they are scanned. (A call pushes where the original returns to.)
_BRANCHES: Final = frozenset({"call", "jmp", "jcc", "loop", "loopz", "loopnz", "jecxz"})
_LOADS: Final = frozenset({"mov_to_sreg", "pop_sreg"})
_LOAD: Final = FORM_BY_NAME["load"]


class PatchWriter(UnitWriter):
    """Code in patch memory: it reaches the vCPU area through SS, for GS is the guest's."""

    before_iret: bytes = b""
    has_targets: bool = False

    def area(self, field: Field, size: int | None = None) -> Memory:
        operand = Writer.field(self, field)
        return operand if size is None else Memory(None, None, 1, field.address, size, SS)


def _is_site(row_id: int) -> bool:
    row = ROWS[row_id]
    if row.translation == "identical" or row.body in _BY_GATE:
        return False
    if f"translate_{row.body}" in vars(transfers):
        return False
    return row.translation == "code" or row.unsafe


SITES: Final = tuple(map(_is_site, range(len(ROWS))))


def is_site(instruction: Instruction) -> bool:
    """Must it not run in place, or had it better not?"""
    if not SITES[instruction.row.id]:
        return False
    if instruction.row.body not in _SHOWS:
        return True
    numbers = [o.number for o in instruction.operands if isinstance(o, SegmentRegister)]
    return CS in numbers or SS in numbers


def branch_form(instruction: Instruction) -> Callable[[PatchWriter], None] | None:
    """What writes a direct jump or call, so that it leads where it led; None if it is none."""
    body = instruction.row.body
    if body not in _BRANCHES or instruction.prefixes.operand_size:
        return None
    return lambda w: forms.FORMS[instruction.row.id](w, instruction)


def form_for(instruction: Instruction) -> Callable[[PatchWriter], None] | None:
    """What writes the code that stands for a site; None if only the hypervisor can do it."""
    row, original = instruction.row, instruction.bytes
    if row.translation != "code" or row.body in INDIRECT:
        return None
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.effective_segment == CS:
            return None
    if row.body in _LOADS:
        if form_of(original) is not _LOAD or instruction.operand_size != 32:
            return None
        return lambda w: _LOAD.write(w, original)
    form = FORM_BY_NAME.get(row.body)
    if form is not None and form.opcode != original:
        return None
    if row.body == "push_sreg" and instruction.operand_size != 32:
        return None
    return lambda w: forms.FORMS[row.id](w, instruction)
