"""Linking back: running original code in place where it needs no translation (--link-back).

The other way that monitors have gone: if the code that a link leads to is safe, the link leads to
the original. What has to be safe is a whole *region*: all that direct jumps reach from there. Where
anything else begins - a return, a sensitive instruction, a page that is not there - the cache must
have control again, and without a trace in the guest's code only the debug registers can see to
that: a region has an instruction breakpoint at each of its edges, so there are four edges at most,
among all regions. They are worth that only for loops. A guest that uses the debug registers itself
has no regions. translate.py holds this against chaining alone, which is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypervisor.guest_memory import PAGE
from hypervisor.monitor import MONITOR
from hypervisor.translator.builder import Source, decode_at, read_source
from hypervisor.translator.coherence import CODE
from hypervisor.translator.forms import FLAT_LIMIT, form_of, identical
from isa.errors import DecodeError
from isa.operands import Relative

if TYPE_CHECKING:
    from hypervisor.translator.cache import Cache
    from hypervisor.translator.unit import Context, Link
    from hypervisor.vm import VirtualMachine
    from isa.decoder import Instruction

EDGES: Final = 4  #: how many instruction breakpoints a processor has
MOST_INSTRUCTIONS: Final = 64
DR6_CLEAR: Final = 0xFFFF_0FF0
DR7_ALWAYS: Final = 0x400
_BRANCHES: Final = frozenset({"jcc", "jmp", "loop", "loopz", "loopnz", "jecxz"})
_FALLS: Final = _BRANCHES - {"jmp"}


class Region(NamedTuple):
    """Code that runs in place."""

    inside: frozenset[int]  #: EIPs of its instructions
    edges: frozenset[int]  #: EIPs where it ends
    pages: Mapping[int, int]  #: linear page -> guest page


class Regions:
    """The regions of one virtual machine, and the debug registers that guard them."""

    def __init__(self, vm: VirtualMachine, cache: Cache) -> None:
        self._vm, self._cache = vm, cache
        self._regions: list[Region] = []
        self._links: list[Link] = []
        self._refused: set[int] = set()  #: EIPs at which no region can begin
        self.edges: frozenset[int] = frozenset()
        self.linked = 0

    def link(self, link: Link, context: Context) -> bool:
        """Lead a link back to the original, if it may; the virtual CPU's tables are up to date."""
        if context.base or context.limit != FLAT_LIMIT or context.user or link.eip in self._refused:
            return False
        if not any(link.eip in region.inside for region in self._regions):
            region = self._explore(context, link.eip)
            edges = self.edges if region is None else self.edges | region.edges
            if region is None or len(edges) > EDGES:
                self._refused.add(link.eip)
                return False
            self._regions.append(region)
            self.edges = edges
            for page in region.pages.values():
                self._vm.paging.trace(page, CODE)
        self._cache.lead_back(link)
        self._links.append(link)
        self.linked += 1
        return True

    def _explore(self, context: Context, eip: int) -> Region | None:
        """What is reached from an EIP; None if it is no loop, or too much."""
        inside: set[int] = set()
        edges: set[int] = set()
        pages: dict[int, int] = {}
        waiting, loops = [eip], False
        while waiting:
            at = waiting.pop()
            if at in inside or at in edges:
                continue
            found = self._safe(context, at)
            if found is None:
                edges.add(at)
                continue
            instruction, source = found
            inside.add(at)
            first = at & -PAGE
            used = source.pages[: 1 + (instruction.length > len(source.code))]
            pages.update(zip((first, first + PAGE), used, strict=False))
            successors = _successors(instruction)
            loops = loops or any(successor <= at for successor in successors)
            waiting += successors
            if len(inside) > MOST_INSTRUCTIONS or len(edges) > EDGES:
                return None
        return Region(frozenset(inside), frozenset(edges), pages) if loops else None

    def _safe(self, context: Context, eip: int) -> tuple[Instruction, Source] | None:
        """The instruction at an EIP, if it needs no translation."""
        source = None if eip >= MONITOR - PAGE else read_source(self._vm, context, eip)
        instruction = None if source is None else decode_at(source, 0, eip)
        if source is None or instruction is None or isinstance(instruction, DecodeError):
            return None
        is_branch = instruction.row.body in _BRANCHES and not instruction.prefixes.operand_size
        if is_branch or form_of(instruction, context) is identical:
            return None if instruction.row.body == "ud2" else (instruction, source)
        return None

    def written(self, page: int) -> None:
        """A traced guest page has been written to."""
        if any(page in region.pages.values() for region in self._regions):
            self.clear()

    def check(self) -> None:
        """What linear addresses mean may have changed."""
        for region in self._regions:
            if any(self._vm.page_of(linear) != page for linear, page in region.pages.items()):
                self.clear()
                return

    def clear(self) -> None:
        """All code runs from the cache again."""
        for link in self._links:
            if link.unit.start:
                self._cache.lead_to_stub(link)
        self._links.clear()
        self._regions.clear()
        self._refused.clear()
        self.edges = frozenset()

    def load(self, state: Any) -> None:
        """Put the edges into a CPU's debug registers."""
        enabled = 0
        for number, edge in enumerate(sorted(self.edges)):
            state.dr[number] = edge
            enabled |= 2 << 2 * number  # globally, on execution
        state.dr[6], state.dr[7] = DR6_CLEAR, enabled | DR7_ALWAYS


def _successors(instruction: Instruction) -> list[int]:
    """Where the guest goes from a safe instruction."""
    after = (instruction.address + instruction.length) & FLAT_LIMIT
    body = instruction.row.body
    if body not in _BRANCHES:
        return [after]
    target = instruction.operands[0]
    assert isinstance(target, Relative)
    return [target.target, after] if body in _FALLS else [target.target]
