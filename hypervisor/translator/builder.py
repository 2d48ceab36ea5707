"""How a unit is made: guest instructions decoded, one after another, and each translated.

A unit goes on past conditional jumps and callouts, up to a jump, MOST_INSTRUCTIONS, or the end of
its page; an instruction may reach into the next. The guest's code is read as it lies in memory,
without a trace in the guest's page tables: a fault of a fetch is the guest's only when execution
arrives, and then the virtual CPU raises it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Final, NamedTuple

from hypervisor.guest_memory import PAGE
from hypervisor.translator.check import MOST_CHECKED, ends_checked, write_check
from hypervisor.translator.forms import ENDS, FLAT_LIMIT, form_of
from hypervisor.translator.stores import can_adapt, translate_store
from hypervisor.translator.transfers import write_head
from hypervisor.translator.unit import Context, Site, Unit
from hypervisor.translator.writer import UnitWriter
from hypervisor.world import USER
from isa.decoder import MAXIMUM_LENGTH, Instruction, decode
from isa.errors import DecodeError

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

MOST_INSTRUCTIONS: Final = 48
MOST_BYTES: Final = 2048  #: of its code, but for the last instruction's and stubs


class Source(NamedTuple):
    """Guest code from an EIP to the end of its page, and what follows in the next."""

    pages: tuple[int, ...]  #: guest pages
    code: bytes  #: up to the end of the page, or of the segment
    beyond: bytes  #: of the next page; empty if there is none, or CS ends


def read_source(vm: VirtualMachine, context: Context, eip: int) -> Source | None:
    """The code at an EIP; None if nothing can be fetched there, or if it is no memory."""
    if eip > context.limit:
        return None
    linear = (context.base + eip) & 0xFFFF_FFFF
    first = _read(vm, linear, PAGE - linear % PAGE, context.user)
    if first is None:
        return None
    page, code = first
    room = context.limit - eip + 1
    after = _read(vm, (linear + len(code)) & 0xFFFF_FFFF, MAXIMUM_LENGTH, context.user)
    if len(code) >= room or after is None:
        return Source((page,), code[:room], b"")
    return Source((page, after[0]), code, after[1][: room - len(code)])


def code_page(vm: VirtualMachine, linear: int, user: bool) -> int | None:
    """The guest page that a ring fetches its code from; None if it may not, or if it is none."""
    if user and not vm.cpu.read_linear(linear, 1, USER):
        return None
    return vm.page_of(linear)


def moved_pages(vm: VirtualMachine, mapped: Mapping[int, int | None]) -> list[int]:
    """Those of some linear pages that are not mapped to these guest pages any more, for ring 0.

    A kernel has hundreds of them, and stores to its page tables all the time.
    """
    linear = list(mapped)
    found = map(vm.guest_page.get, vm.cpu.translate_pages(linear))
    return [page for page, now in zip(linear, found, strict=True) if now != mapped[page]]


def _read(vm: VirtualMachine, linear: int, size: int, user: bool) -> tuple[int, bytes] | None:
    page = code_page(vm, linear, user)
    if page is None:
        return None
    return page, vm.memory.read(page * PAGE + linear % PAGE, size)


def build(
    source: Source,
    context: Context,
    eip: int,
    checked: bool = False,
    adaptive: Set[int] = frozenset(),
) -> Unit | None:
    """The unit that begins at an EIP; None if CS or memory ends within its first instruction.

    checked: it is one that checks itself. adaptive: EIPs of stores that are to be adaptive.
    """
    first = _Build(source, context, eip, checked, adaptive)
    if not first.inside:
        return None
    if not checked:
        return first.finish()
    # Now that it is known how far the source goes, once more, with the check before it.
    return _Build(source, context, eip, True, adaptive, first.code).finish()


class _Build:
    """A unit being made."""

    def __init__(
        self,
        source: Source,
        context: Context,
        eip: int,
        checked: bool,
        adaptive: Set[int],
        expected: bytes = b"",
    ) -> None:
        # Only ring 1 reaches what such a store looks at.
        self._adaptive = frozenset() if context.user else adaptive
        self._source, self._eip, self._checked = source, eip, checked
        self._writer = w = UnitWriter(context)
        write_head(w, eip)
        self._body = len(w.data)
        if expected:
            write_check(w, eip, context.base + eip & FLAT_LIMIT, expected)
        self.inside: dict[int, int] = {}
        self._size = 0  #: bytes of the source that it is made of
        if self._translate():
            w.go_on((eip + self._size) & FLAT_LIMIT)

    @property
    def code(self) -> bytes:
        """The guest's bytes that it is made of."""
        return (self._source.code + self._source.beyond)[: self._size]

    def _translate(self) -> bool:
        """Write what each instruction becomes; does the guest go on behind the last?"""
        w, source = self._writer, self._source
        most = MOST_CHECKED if self._checked else MOST_INSTRUCTIONS
        while self._goes_on(most):
            eip = (self._eip + self._size) & FLAT_LIMIT
            instruction = decode_at(source, self._size, eip)
            if instruction is None:
                return True  # the rest is in a page that is not there
            self.inside[eip] = len(w.data)
            if isinstance(instruction, DecodeError):
                w.begin(Site(eip, b"", None))
                w.hypercall(b"")
                self._size = min(self._size + MAXIMUM_LENGTH, len(source.code))
                return False
            w.begin(Site(eip, instruction.bytes, instruction.row))
            if eip in self._adaptive and can_adapt(instruction):
                translate_store(w, instruction)
            else:
                form_of(instruction, w.context)(w, instruction)
            self._size += instruction.length
            if instruction.row.id in ENDS:
                return False
            if self._checked and ends_checked(instruction):
                return True
        return True

    def _goes_on(self, most: int) -> bool:
        """Is there code to be translated yet, and room for it?"""
        self._cut = len(self.inside) == most or len(self._writer.data) > MOST_BYTES
        return not self._cut and self._size < len(self._source.code)

    def finish(self) -> Unit:
        """The unit."""
        w, source = self._writer, self._source
        w.finish()
        crosses = self._size > len(source.code)
        return Unit(
            eip=self._eip,
            pages=source.pages if crosses else source.pages[:1],
            source=self.code,
            instructions=len(self.inside),
            code=bytes(w.data),
            body=self._body,
            places=w.places,
            weightless=tuple(w.weightless),
            inside=self.inside,
            links=tuple(w.links),
            checked=self._checked,
            cut=self._cut,
            adaptive=frozenset(self._adaptive & self.inside.keys()),
        )


def decode_at(source: Source, at: int, eip: int) -> Instruction | DecodeError | None:
    """The instruction; the error if it raises an exception; None if its end is not there."""
    try:
        return decode(source.code, eip, at)
    except DecodeError as error:
        if error.vector is not None:
            return error
    if not source.beyond:
        return None
    try:
        return decode(source.code[at:] + source.beyond, eip)
    except DecodeError as error:
        return error if error.vector is not None else None
