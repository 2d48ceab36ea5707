"""The writer of a unit's code: instructions of the cache, with what each means to the guest.

It extends the writer of paravirtual sites (isa/site_forms.py), so that the same forms serve: their
words are reached through GS here, and the hypervisor is asked by `int OWN_VECTOR`, without the
original behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Final

from hypervisor.translator import layout
from hypervisor.translator.layout import R_EAX, R_ECX, area_operand
from hypervisor.translator.unit import Context, Link, Place, Site
from isa.encoder import encode
from isa.operands import GS, SEGMENTS, Immediate, Memory, Operand, Relative
from isa.paravirt import SAVE_EAX, SAVE_ECX, Field
from isa.site_forms import INT_LENGTH, Lost, Writer

JUMP_LENGTH: Final = 5  #: of a JMP with a 32-bit displacement
DISPLACEMENT: Final = 4


@lru_cache(maxsize=1 << 12)
def encoded(mnemonic: str, *operands: Operand) -> bytes:
    """The bytes of an instruction; one with a relative operand stands at 0."""
    return encode(mnemonic, operands).data


CALL_OUT: Final = encoded("int", Immediate(layout.OWN_VECTOR, 0))
RESTORE_EAX: Final = encoded("mov", R_EAX, area_operand(SAVE_EAX))
RESTORE_ECX: Final = encoded("mov", R_ECX, area_operand(SAVE_ECX))
LOAD_GS: Final = encoded("mov", SEGMENTS[GS], area_operand(layout.GS_SELECTOR, 16))


class UnitWriter(Writer):
    """Writes a unit. `begin` says which guest instruction what follows is part of."""

    before_iret: bytes = LOAD_GS
    has_targets: bool = True  #: TARGETS can be looked at

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.data: bytearray = bytearray()  # type: ignore[assignment]
        self.places: dict[int, Place] = {}
        self.weightless: list[int] = []
        self.links: list[Link] = []
        self.site = Site(0, b"", None)

    def begin(self, site: Site) -> None:
        """The steps to come are this guest instruction's."""
        self.site = site

    # -- what forms use ----------------------------------------------------------------------------

    def field(self, field: Field) -> Memory:
        return self.area(field)

    def area(self, field: Field, size: int | None = None) -> Memory:
        """A word of the area, or its low bits, as an operand."""
        return area_operand(field, size)

    def step(
        self,
        code: bytes,
        lost: Iterable[Lost] = (),
        *,
        weight: int = 0,
        released: int = 0,
    ) -> None:
        at = len(self.data)
        self.places[at] = Place(self.site.eip, self.site, frozenset(lost), released)
        if not weight:
            self.weightless.append(at)
        self.data += code

    def do(
        self,
        mnemonic: str,
        *operands: Operand,
        lost: Iterable[Lost] = (),
        weight: int = 0,
        released: int = 0,
    ) -> None:
        if operands and type(operands[0]) is Relative:  # as if it stood at 0, for the cache's sake
            target, size = operands[0].target - len(self.data), operands[0].size
            operands = Relative(target, size), *operands[1:]
        code = encoded(mnemonic, *operands)
        self.step(code, lost, weight=weight, released=released)

    def hypercall(self, original: bytes, lost: Iterable[Lost] = ()) -> None:
        """Have the hypervisor execute the guest's instruction."""
        del original
        self.step(CALL_OUT, lost)

    def hypercall_size(self, original: bytes) -> int:
        del original
        return INT_LENGTH

    def last_counts(self) -> None:
        self.weightless.pop()

    # -- what only translations need ---------------------------------------------------------------

    def identical(self, code: bytes) -> None:
        """The instruction itself."""
        self.places[len(self.data)] = Place(self.site.eip)
        self.data += code

    def glue(self, code: bytes, eip: int) -> None:
        """An instruction between two of the guest's; the guest is at `eip`."""
        self.places[len(self.data)] = Place(eip)
        self.weightless.append(len(self.data))
        self.data += code

    def link(self, mnemonic: str, eip: int, *, lost: Iterable[Lost] = (), weight: int = 1) -> None:
        """A jump to a guest EIP, taken as the last step of the site."""
        code = encoded_jump(mnemonic)
        self.links.append(Link(len(self.data) + len(code) - DISPLACEMENT, eip))
        self.step(code, lost, weight=weight)

    def go_on(self, eip: int) -> None:
        """A jump to a guest EIP, where the guest is already."""
        self.links.append(Link(len(self.data) + JUMP_LENGTH - DISPLACEMENT, eip))
        self.glue(encoded_jump("jmp"), eip)

    def finish(self) -> None:
        """Write the links' stubs, and let the jumps lead there."""
        for link in self.links:
            link.stub = len(self.data)
            self.places[link.stub] = Place(link.eip, link=link)
            self.weightless.append(link.stub)
            self.data += CALL_OUT
            after = link.displacement + DISPLACEMENT
            distance = (link.stub - after).to_bytes(DISPLACEMENT, "little")
            self.data[link.displacement : after] = distance


@cache
def encoded_jump(mnemonic: str) -> bytes:
    """A jump with a 32-bit displacement, to be filled in."""
    return encode(mnemonic, (Relative(0, 32),)).data
