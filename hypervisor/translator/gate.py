"""The way into the cache from ring 3: what a pass-through gate (hypervisor/gates.py) leads to.

The processor has switched stacks and pushed the frame; all other registers are the program's, and
GS, by which translations reach their area, as well. It is exchanged without any scratch below ESP:
the upper halves of the selectors in the frame are zero and the processor's to ignore, so they serve
for a moment. Then the program's GS is compared with what the area says of it: nearly always it is
that; if not, the hypervisor looks.
"""

from __future__ import annotations

from typing import Final

from hypervisor.segments import KERNEL_RING
from hypervisor.translator import layout
from hypervisor.translator.layout import R_EAX, R_ECX, area_operand
from hypervisor.translator.unit import Context, Place, Unit
from hypervisor.translator.writer import CALL_OUT, RESTORE_EAX, RESTORE_ECX, UnitWriter, encoded
from isa.operands import EAX, ECX, ESP, GS, SEGMENTS, Immediate, Memory, Operand, Relative
from isa.paravirt import SAVE_EAX, SAVE_ECX
from isa.site_forms import Lost

#: Offsets from ESP of what serves as scratch: behind CS and SS, 16 bits each.
GS_HALF: Final = 6
OWN_HALF: Final = 18
_SHORT: Final = 2


def _half(offset: int) -> Memory:
    return Memory(ESP, None, 1, offset, 16)


def build_gate(context: Context, eip: int) -> Unit:
    """The unit behind a gate to the handler at an EIP."""
    w = UnitWriter(context)

    exchanging = False

    def glue(code: bytes, *lost: Lost) -> None:
        w.places[len(w.data)] = Place(eip, lost=frozenset(lost), gate=exchanging)
        w.weightless.append(len(w.data))
        w.data += code

    def do(mnemonic: str, *operands: Operand, lost: tuple[Lost, ...] = ()) -> None:
        glue(encoded(mnemonic, *operands), *lost)

    both = (Lost.EAX, Lost.ECX)
    do("mov", _half(GS_HALF), SEGMENTS[GS])
    exchanging = True
    do("mov", _half(OWN_HALF), Immediate(layout.AREA_SELECTOR | KERNEL_RING, 0))
    do("mov", SEGMENTS[GS], _half(OWN_HALF))
    do("mov", _half(OWN_HALF), Immediate(0, 0))
    do("mov", area_operand(SAVE_EAX), R_EAX)
    do("mov", area_operand(SAVE_ECX), R_ECX)
    do("movzx", R_ECX, _half(GS_HALF))
    do("mov", R_EAX, area_operand(layout.GS_NEGATED), lost=(Lost.ECX,))
    do("lea", R_ECX, Memory(ECX, EAX, 1, 0), lost=both)
    glue(encoded("jecxz", Relative(_SHORT + len(CALL_OUT), 8)), *both)
    glue(CALL_OUT, *both)
    do("mov", _half(GS_HALF), Immediate(0, 0), lost=both)
    exchanging = False
    glue(RESTORE_EAX, *both)
    glue(RESTORE_ECX, Lost.ECX)
    w.go_on(eip)
    w.finish()
    return Unit(
        eip=eip, pages=(), source=b"", instructions=0, code=bytes(w.data), body=0, places=w.places,
        weightless=tuple(w.weightless), inside={}, links=tuple(w.links), is_gate=True,
    )  # fmt: skip
