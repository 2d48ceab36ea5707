"""What a guest kernel's instruction becomes: itself, code on the vCPU area, or a callout.

The row's `translation` column says which. A function named for the row's body writes the code:
`translate_popf`. Some only can for the usual operands and prefixes, and call out for the rest, as
does every instruction that would reach memory through CS or GS, which are the translator's.
`transfers.py` has jumps, calls and returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hypervisor.translator import layout, transfers
from hypervisor.translator.layout import R_EAX, R_ECX, WANTED
from hypervisor.translator.writer import UnitWriter, encoded
from hypervisor.world import USER
from isa.operands import (
    CS,
    EAX,
    ECX,
    ESP,
    GENERAL,
    GS,
    SEGMENTS,
    SS,
    Immediate,
    Memory,
    Operand,
    Register,
    Relative,
    SegmentRegister,
)
from isa.paravirt import IF_FLAG, SAVE_EAX, SAVE_ECX, Field
from isa.row import FLAG_BITS
from isa.site_forms import FORM_BY_NAME, Lost, flag_mask, write_iret_to_ring_3
from isa.table import ROWS

if TYPE_CHECKING:
    from hypervisor.translator.unit import Context
    from isa.decoder import Instruction

Form = Callable[[UnitWriter, "Instruction"], None]
_SHORT_JECXZ: Final = 2
_OWN: Final = layout.AREA_SELECTOR
FLAT_LIMIT: Final = 0xFFFF_FFFF
_RPL: Final = 30  #: where a selector's RPL is moved to: bits 30 and 31
_STACK_TOP: Final = Memory(ESP, None, 1, 0, 16)


def call_out(w: UnitWriter, instruction: Instruction) -> None:
    """The hypervisor executes it."""
    w.hypercall(instruction.bytes)


def identical(w: UnitWriter, instruction: Instruction) -> None:
    """The same bytes mean the same."""
    w.identical(instruction.bytes)


def _shared(name: str) -> Form:
    """A form that paravirtual sites have as well: for the bare opcode, not for its prefixed kin."""
    form = FORM_BY_NAME[name]

    def translate(w: UnitWriter, instruction: Instruction) -> None:
        if instruction.bytes == form.opcode:
            form.write(w, instruction.bytes)
        else:
            call_out(w, instruction)

    return translate


translate_cli, translate_sti = _shared("cli"), _shared("sti")
translate_pushf, translate_popf = _shared("pushf"), _shared("popf")


def translate_iret(w: UnitWriter, instruction: Instruction) -> None:
    """To ring 3 as a paravirtual kernel does it; within the kernel, to the CS that is there with
    nothing unusual, by taking the flags as POPF does. Then the guest is behind it, at WANTED.
    """
    if instruction.bytes != FORM_BY_NAME["iret"].opcode:
        call_out(w, instruction)
        return
    write_iret_to_ring_3(w, instruction.bytes)
    if w.has_targets and w.context.limit == FLAT_LIMIT:
        _iret_within_kernel(w, instruction.bytes)
    else:
        w.hypercall(instruction.bytes, {Lost.FLAGS})


def _iret_within_kernel(w: UnitWriter, original: bytes) -> None:
    lost, flags, to_slow = {Lost.FLAGS, Lost.ECX}, Memory(ESP, None, 1, 8, 32), []
    w.do("mov", w.field(SAVE_ECX), R_ECX, lost={Lost.FLAGS})
    w.do("movzx", R_ECX, Memory(ESP, None, 1, 4, 16), lost={Lost.FLAGS})
    for condition in (
        encoded("cmp", R_ECX, w.area(layout.SAME_CS)),
        encoded("test", flags, Immediate(flag_mask("tlnrv"), 0)),
    ):
        w.step(condition, lost)
        w.step(encoded("jnz", Relative(0, 8)), lost)
        to_slow.append(len(w.data) - 1)
    w.do("bt", flags, Immediate(FLAG_BITS["i"], 0), lost=lost)
    w.do("mov", R_ECX, Memory(ESP, None, 1, 0, 32), lost=lost)
    w.do("mov", w.field(WANTED), R_ECX, lost=lost)
    w.do("setc", w.field(IF_FLAG), lost=lost)
    lost.add(Lost.IF)
    w.do("lea", GENERAL[32][ESP], Memory(ESP, None, 1, flags.displacement), lost=lost)
    w.do("popf", lost=lost, weight=1, released=flags.displacement)
    transfers.look_up_behind(w)
    for place in to_slow:
        w.data[place] = len(w.data) - place - 1
    w.hypercall(original, {Lost.FLAGS, Lost.ECX})


# -- Selectors and control registers, shown --------------------------------------------------------


def _show(w: UnitWriter, operands: tuple[Operand, ...], field: Field) -> None:
    """Move a word of the area where an instruction would put what it stands for."""
    to = operands[0]
    if isinstance(to, Register):
        w.do("mov", to, w.area(field, to.size), weight=1)
        return
    assert isinstance(to, Memory)
    number, save = (ECX, SAVE_ECX) if EAX in (to.base, to.index) else (EAX, SAVE_EAX)
    lost = Lost.ECX if number == ECX else Lost.EAX
    whole = GENERAL[32][number]
    w.do("mov", w.field(save), whole)
    w.do("mov", whole, w.area(field), lost={lost})
    w.do("mov", replace(to, size=16), GENERAL[16][number], lost={lost})
    w.do("mov", whole, w.field(save), lost={lost}, weight=1)


def translate_smsw(w: UnitWriter, instruction: Instruction) -> None:
    _show(w, instruction.operands, layout.CONTROL[0])


def translate_sldt(w: UnitWriter, instruction: Instruction) -> None:
    _show(w, instruction.operands, layout.LDTR_SELECTOR)


def translate_str(w: UnitWriter, instruction: Instruction) -> None:
    _show(w, instruction.operands, layout.TR_SELECTOR)


def translate_mov_from_cr(w: UnitWriter, instruction: Instruction) -> None:
    to, control = instruction.operands
    field = layout.CONTROL[control.number]  # type: ignore[union-attr]
    w.do("mov", to, w.area(field), weight=1)


_SHOWN: Final = {GS: layout.GS_SELECTOR, SS: layout.SS_SELECTOR}


def translate_mov_from_sreg(w: UnitWriter, instruction: Instruction) -> None:
    """DS, ES and FS have the guest's selectors even in ring 1."""
    to, source = instruction.operands
    assert isinstance(source, SegmentRegister)
    if source.number == CS:
        if isinstance(to, Memory):
            to = replace(to, size=16)
        w.do("mov", to, Immediate(w.context.selector, 0), weight=1)
    elif source.number in _SHOWN:
        _show(w, (to,), _SHOWN[source.number])
    else:
        identical(w, instruction)


def translate_push_sreg(w: UnitWriter, instruction: Instruction) -> None:
    (source,) = instruction.operands
    assert isinstance(source, SegmentRegister)
    size = instruction.operand_size
    if source.number == CS:
        if size != 32:
            call_out(w, instruction)
            return
        w.do("push", Immediate(w.context.selector, 0, full=True), weight=1)
    elif source.number in _SHOWN:
        w.do("push", w.area(_SHOWN[source.number], size), weight=1)
    else:
        identical(w, instruction)


# -- Selectors, loaded -----------------------------------------------------------------------------


def translate_mov_to_sreg(w: UnitWriter, instruction: Instruction) -> None:
    segment, source = instruction.operands
    if isinstance(source, Register):
        source = GENERAL[16][source.number]
    elif isinstance(source, Memory):
        source = replace(source, size=16)
    _load(w, instruction, segment, source)


def translate_pop_sreg(w: UnitWriter, instruction: Instruction) -> None:
    _load(w, instruction, instruction.operands[0], _STACK_TOP)


def _load(w: UnitWriter, instruction: Instruction, segment: Operand, selector: Operand) -> None:
    assert isinstance(segment, SegmentRegister)
    if segment.number == SS or instruction.operand_size != 32:
        call_out(w, instruction)
    elif segment.number == GS:
        _load_gs(w, instruction, selector)
    else:
        _load_data(w, instruction, selector)


def _load_gs(w: UnitWriter, instruction: Instruction, selector: Operand) -> None:
    """Mostly it holds that selector already."""
    both = {Lost.EAX, Lost.ECX}
    w.do("mov", w.field(SAVE_ECX), R_ECX)
    w.do("movzx", R_ECX, selector)
    w.do("mov", w.field(SAVE_EAX), R_EAX, lost={Lost.ECX})
    w.do("mov", R_EAX, w.area(layout.GS_NEGATED), lost={Lost.ECX})
    w.do("lea", R_ECX, Memory(ECX, EAX, 1, 0), lost=both)
    w.do("mov", R_EAX, w.field(SAVE_EAX), lost=both)
    same = len(w.data) + _SHORT_JECXZ + w.hypercall_size(instruction.bytes)
    w.do("jecxz", Relative(same, 8), lost={Lost.ECX})
    w.hypercall(instruction.bytes, lost={Lost.ECX})
    if selector is _STACK_TOP:
        w.do("mov", R_ECX, w.field(SAVE_ECX), lost={Lost.ECX})
        w.do("lea", GENERAL[32][ESP], Memory(ESP, None, 1, 4), weight=1)
    else:
        w.do("mov", R_ECX, w.field(SAVE_ECX), lost={Lost.ECX}, weight=1)


def _load_data(w: UnitWriter, instruction: Instruction, selector: Operand) -> None:
    """Loaded as it stands, unless it names the translator's area, or has RPL 1 or 2.

    Such a selector may name no descriptor of DPL 0, but ring 1 has only seen those raised to DPL 1.
    The RPL is moved to the top of ECX, by what changes no flag: then RPL 0 is zero there, and RPL 3
    becomes zero by adding one more.
    """
    lost = {Lost.ECX}
    again = encoded("lea", R_ECX, Memory(ECX, None, 1, 1 << _RPL))
    shift = encoded("lea", R_ECX, Memory(None, ECX, 8, 0))
    swap = encoded("bswap", R_ECX)
    user = encoded("lea", R_ECX, Memory(ECX, None, 1, -USER & 0xFFFF_FFFF))
    back = encoded("lea", R_ECX, Memory(ECX, None, 1, _OWN + USER))
    w.do("mov", w.field(SAVE_ECX), R_ECX)
    w.do("movzx", R_ECX, selector)
    w.do("lea", R_ECX, Memory(ECX, None, 1, -_OWN & 0xFFFF_FFFF), lost=lost)
    rest = (user, back, swap, shift, shift, again)
    slow = len(w.data) + 4 * _SHORT_JECXZ + sum(map(len, rest))
    fast = slow + w.hypercall_size(instruction.bytes)
    w.do("jecxz", Relative(slow, 8), lost=lost)
    w.step(user, lost)
    w.do("jecxz", Relative(slow, 8), lost=lost)
    for code in (back, swap, shift, shift):
        w.step(code, lost)
    w.do("jecxz", Relative(fast, 8), lost=lost)
    w.step(again, lost)
    w.do("jecxz", Relative(fast, 8), lost=lost)
    w.hypercall(instruction.bytes, lost=lost)
    w.do("mov", R_ECX, w.field(SAVE_ECX), lost=lost)
    w.step(instruction.bytes, weight=1)


# -- Which function --------------------------------------------------------------------------------


def _functions() -> dict[str, Form]:
    """By a row's body: what writes its code."""
    found = {}
    for module in (globals(), vars(transfers)):
        for name, value in module.items():
            if name.startswith("translate_"):
                found[name.removeprefix("translate_")] = value
    return found


_FUNCTIONS: Final = _functions()
#: By row id.
FORMS: Final[tuple[Form, ...]] = tuple(
    {"identical": identical, "callout": call_out}.get(row.translation) or _FUNCTIONS[row.body]
    for row in ROWS
)
#: Rows that compute an address and access nothing.
_ADDRESS_ONLY: Final = frozenset(row.id for row in ROWS if "a" in row.access)
_TRANSFERS: Final = frozenset(row.id for row in ROWS if f"translate_{row.body}" in vars(transfers))


#: Rows that ring 3 may execute, if at all, on conditions of its own.
_KERNELS: Final = frozenset(
    row.id for row in ROWS
    if row.privilege in ("cpl0", "iopl", "io")
    or row.body in ("popf", "iret", "mov_to_sreg", "pop_sreg")
)  # fmt: skip


def form_of(instruction: Instruction, context: Context) -> Form:
    """What translates an instruction. Where CS ends below 4 GiB, targets need a look."""
    row = instruction.row
    if context.user and row.id in _KERNELS:
        return call_out
    if context.whole and row.body == "iret":
        return call_out  # it must not take ring 3 out of the cache
    if row.body == "xlat" and instruction.prefixes.segment in (CS, GS):
        return call_out  # its operand is not written down
    if row.id not in _ADDRESS_ONLY:
        for operand in instruction.operands:
            if type(operand) is Memory and operand.effective_segment in (CS, GS):
                return call_out
    limited = context.limit != FLAT_LIMIT
    if row.id in _TRANSFERS and (limited or instruction.prefixes.operand_size):
        return call_out
    return FORMS[row.id]


#: After these the guest does not go on behind them.
ENDS: Final = frozenset(
    row.id for row in ROWS
    if row.body in ("jmp", "jmp_indirect", "call", "call_indirect", "ret", "iret", "hlt", "ud2")
    or row.cost in ("far", "interrupt")
)  # fmt: skip
assert SEGMENTS[GS].number == GS
