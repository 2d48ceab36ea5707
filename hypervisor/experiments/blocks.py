"""`seventeen blocks`: a guest's translation units, how often each runs, and how control gets there.

To count, the real CPU records every instruction that it executes (TRACE_EXEC, which steps it): a
record at the address where a unit begins a guest instruction is that instruction's execution. The
translations are not touched, so the guest runs as it always does and can tell nothing; it only runs
some hundred times slower. A record is of an attempt: it counts when guest time has gone on. Until
then another record at the same tick means that a fault has ended it, or, if it is of the same
instruction, that it was started again after a fault which the hypervisor repaired.

A unit is *entered* when control comes to it from elsewhere, or back to an earlier place in it. How,
is an edge's kind: a link, which the hypervisor chains when it is first followed; a look-up in the
cache's table of targets, for returns and indirect jumps; or an event, an IRET, or the hypervisor.
blocks_page.py draws the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from emulator.core import TraceKind
from emulator.result import Result
from hypervisor.errors import ExperimentError
from hypervisor.experiments.subjects import Subject
from hypervisor.techniques.translate import Translate
from hypervisor.translator.listing import text_of
from hypervisor.translator.unit import Unit
from hypervisor.vm import VirtualMachine
from isa.disassembler import disassemble

LINK: Final = "link"
LOOK_UP: Final = "look-up"
EVENT: Final = "event"
#: Opcode bytes before a jump's displacement: one, or two if it is conditional.
OPCODES: Final = (1, 2)


@dataclass(eq=False, slots=True)
class Block:
    """All units of the same guest code at the same place: it may have been translated again."""

    eip: int
    name: str  #: symbol and offset, if known
    source: bytes
    texts: tuple[str, ...]  #: the guest's instructions
    listing: str  #: as -d in_asm,out_asm shows it, when it was first made
    size: int  #: bytes of the translation
    made: int = 0
    entered: int = 0
    executed: int = 0  #: guest instructions; an iteration of a repeat is one

    @property
    def label(self) -> str:
        return f"{self.eip:#010x} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Edge:
    """Control going from one block to another."""

    start: Block
    end: Block
    kind: str
    times: int


@dataclass(frozen=True, slots=True)
class Graph:
    """What a run has made of a guest's code."""

    program: str
    blocks: tuple[Block, ...]  #: hottest first
    edges: tuple[Edge, ...]  #: most taken first
    result: Result
    chained: int  #: links that were chained, each time they were
    elsewhere: int  #: guest instructions that ran in no unit: in ring 3, or interpreted

    def hottest(self, count: int) -> tuple[Block, ...]:
        """The blocks in which most instructions were executed."""
        return self.blocks[:count]

    def share(self, block: Block) -> float:
        """The part of all guest instructions that a block has executed."""
        return block.executed / max(self.result.ticks, 1)

    def successors(self, block: Block) -> list[Edge]:
        """Where control goes from a block, most taken first."""
        return [edge for edge in self.edges if edge.start is block]


@dataclass(slots=True)
class _Here:
    """Where control was last seen in a unit."""

    block: Block | None = None
    index: int = 0  #: of the instruction in its unit
    tick: int = -1
    eip: int = 0  #: the guest's
    pending: bool = False  #: it is not known yet whether it has been executed
    address: int = 0
    by_link: bool = False  #: a link's jump, or its stub, was the last of the cache
    outside: bool = True  #: since then: in ring 3, on the virtual CPU, or an event was delivered


@dataclass(slots=True)
class _Laid:
    """A unit's place in the cache, and what of it is looked up by address."""

    start: int
    end: int
    addresses: list[int] = field(default_factory=list)


class Census:
    """Listens to the real CPU's records, and counts."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._blocks: dict[tuple[int, bytes], Block] = {}
        #: By address: block, number in its unit, the guest's EIP.
        self._sites: dict[int, tuple[Block, int, int]] = {}
        self._links: set[int] = set()  #: addresses
        self._laid: list[_Laid] = []
        self._here = _Here()
        self.edges: Counter[tuple[Block, Block, str]] = Counter()
        vm.technique.on_code(self._added)
        vm.set_tracer(TraceKind.EXEC | TraceKind.EVENT, self)

    @property
    def blocks(self) -> Iterable[Block]:
        """All that there were."""
        return self._blocks.values()

    def _added(self, unit: Unit) -> None:
        self._vm.drain_trace()  # what stood here before has run
        for old in [laid for laid in self._laid if laid.start < unit.end and unit.start < laid.end]:
            self._laid.remove(old)
            for address in old.addresses:
                self._sites.pop(address, None)
                self._links.discard(address)
        laid = _Laid(unit.start, unit.end)
        self._laid.append(laid)
        for link in unit.links:
            ways = [link.stub, *(link.displacement - size for size in OPCODES)]
            laid.addresses += [unit.start + way for way in ways]
        self._links.update(laid.addresses)
        if not unit.is_gate:
            block = self._block(unit)
            for index, (eip, offset) in enumerate(unit.inside.items()):
                self._sites[unit.start + offset] = block, index, eip
                laid.addresses.append(unit.start + offset)

    def _block(self, unit: Unit) -> Block:
        block = self._blocks.get((unit.eip, unit.source))
        if block is None:
            assert unit.space is not None
            name = self._vm.symbols.name
            block = self._blocks[unit.eip, unit.source] = Block(
                unit.eip,
                name((unit.space.context.base + unit.eip) & 0xFFFF_FFFF),
                unit.source,
                tuple(line.text for line in disassemble(unit.source, unit.eip)),
                text_of(unit, name),
                len(unit.code),
            )
        block.made += 1
        return block

    def render(self, records: Iterable[Any]) -> None:
        """Take records, oldest first."""
        sites, links, holds, here = self._sites, self._links, self._vm.technique.holds, self._here
        for record in records:
            eip = record.eip
            if here.pending and record.tick > here.tick:
                self._settle()
            if record.kind != TraceKind.EXEC:
                here.outside = True
                continue
            place = sites.get(eip)
            if place is not None:
                self._execute(eip, record.tick, *place)
            elif not holds(eip):
                here.outside = True
                here.pending &= eip == here.eip  # else a fault has led elsewhere
            else:
                here.by_link = eip in links
            here.address = eip

    def finish(self, ticks: int) -> None:
        """The run has ended, at a tick."""
        if self._here.pending and ticks > self._here.tick:
            self._settle()

    def _settle(self) -> None:
        """What control was last seen at has been executed."""
        assert self._here.block is not None
        self._here.block.executed += 1
        self._here.pending = False

    def _execute(self, address: int, tick: int, block: Block, index: int, eip: int) -> None:
        here = self._here
        same = block is here.block
        again = index == here.index and (tick == here.tick or address == here.address)
        if not same or not (again or index == here.index + 1):
            block.entered += 1
            if here.block is not None:
                kind = EVENT if here.outside else LINK if here.by_link else LOOK_UP
                self.edges[here.block, block, kind] += 1
        here.block, here.index, here.tick, here.eip = block, index, tick, eip
        here.outside, here.pending = False, True
        here.by_link = address in self._links


def record(subject: Subject, *, max_ticks: int | None = None, user: bool = False) -> Graph:
    """Run a program under the translator, and count; ExperimentError if nothing was translated.

    user: what runs in ring 3 is translated as well.
    """
    vm = VirtualMachine(technique=Translate(user=user), **subject.options)
    assert isinstance(vm.technique, Translate)
    image = subject.image()
    vm.symbols = subject.symbols(image)
    census = Census(vm)
    vm.load(image)
    vm.symbols = subject.symbols(image)
    result = vm.run(max_ticks=subject.ticks if max_ticks is None else max_ticks)
    vm.drain_trace()
    census.finish(result.ticks)
    blocks = sorted(census.blocks, key=lambda block: (-block.executed, block.eip))
    if not blocks:
        raise ExperimentError(f"{subject.name}: nothing was translated")
    return Graph(
        subject.name,
        tuple(blocks),
        tuple(_ordered(census.edges)),
        result,
        vm.technique.translator.cache.chained,
        result.ticks - sum(block.executed for block in blocks),
    )


def _ordered(counted: Counter[tuple[Block, Block, str]]) -> Iterator[Edge]:
    for (start, end, kind), times in sorted(
        counted.items(), key=lambda item: (-item[1], item[0][0].eip, item[0][1].eip, item[0][2])
    ):
        yield Edge(start, end, kind, times)
