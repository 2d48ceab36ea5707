"""How a unit is made: guest instructions decoded, one after another, and each translated.

A unit goes on past conditional jumps and callouts, up to a jump, MOST_INSTRUCTIONS, or the end of
its page; an instruction may reach into the next. The guest's code is read as it lies in memory,
without a trace in the guest's page tables: a fault of a fetch is the guest's only when execution
arrives, and then the virtual CPU raises it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hypervisor.guest_memory import PAGE
from hypervisor.translator.forms import ENDS, form_of
from hypervisor.translator.transfers import write_head
from hypervisor.translator.unit import Site, Unit
from hypervisor.translator.writer import UnitWriter
from isa.decoder import MAXIMUM_LENGTH, Instruction, decode
from isa.errors import DecodeError

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

MOST_INSTRUCTIONS: Final = 24
FLAT_LIMIT: Final = 0xFFFF_FFFF


class Context(NamedTuple):
    """What the meaning of a guest's code depends on beside its bytes: its CS."""

    selector: int
    base: int
    limit: int


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
    first = _read(vm, linear, PAGE - linear % PAGE)
    if first is None:
        return None
    page, code = first
    room = context.limit - eip + 1
    after = _read(vm, (linear + len(code)) & 0xFFFF_FFFF, MAXIMUM_LENGTH)
    if len(code) >= room or after is None:
        return Source((page,), code[:room], b"")
    return Source((page, after[0]), code, after[1][: room - len(code)])


def _read(vm: VirtualMachine, linear: int, size: int) -> tuple[int, bytes] | None:
    machine = vm.cpu.translate(linear)
    page = None if machine is None else vm.guest_page.get(machine >> 12)
    if machine is None or page is None:
        return None
    return page, vm.host.memory.read(machine, size)


def build(source: Source, context: Context, eip: int) -> Unit | None:
    """The unit that begins at an EIP; None if CS or memory ends within its first instruction."""
    w = UnitWriter(context.selector)
    write_head(w, eip)
    body, begin, limited = len(w.data), eip, context.limit != FLAT_LIMIT
    inside: dict[int, int] = {}
    at, falls = 0, True
    while falls and len(inside) < MOST_INSTRUCTIONS and at < len(source.code):
        instruction = _decode(source, at, eip)
        if instruction is None:
            break  # the rest is in a page that is not there
        inside[eip] = len(w.data)
        if isinstance(instruction, DecodeError):
            w.begin(Site(eip, b"", None))
            w.hypercall(b"")
            at, falls = min(at + MAXIMUM_LENGTH, len(source.code)), False
            break
        site = Site(eip, instruction.bytes, instruction.row)
        w.begin(site)
        form_of(instruction, limited=limited)(w, instruction)
        at += instruction.length
        eip = site.end
        falls = instruction.row.id not in ENDS
    if not inside:
        return None
    if falls:
        w.go_on(eip)
    return _finish(w, source, begin, at, body, inside)


def _decode(source: Source, at: int, eip: int) -> Instruction | DecodeError | None:
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


def _finish(
    w: UnitWriter, source: Source, begin: int, size: int, body: int, inside: dict[int, int]
) -> Unit:
    w.finish()
    crosses = size > len(source.code)
    return Unit(
        eip=begin,
        pages=source.pages if crosses else source.pages[:1],
        source=(source.code + source.beyond)[:size],
        instructions=len(inside),
        code=bytes(w.data),
        body=body,
        places=w.places,
        weightless=tuple(w.weightless),
        inside=inside,
        links=tuple(w.links),
    )
