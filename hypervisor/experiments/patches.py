"""`seventeen patches`: every site that the in-place patcher has patched, and what came of it.

Sites are seen where their patches come and go: code is given its place in patch memory, and takes
no more of it. To count executions, the real CPU records each instruction that it executes
(TRACE_EXEC, which steps it, as blocks.py explains): a record at the patch, or at the start of its
code, is an execution of the site, for the guest may be let in at either. Records at one tick are
one execution: a patch takes no tick, and after a fault that was repaired the same starts again. A
patch without code is executed by exits alone, which it counts itself.

A site that was patched alike several times, as when the guest has loaded another CS, is one site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from emulator.core import TraceKind
from emulator.result import Result
from hypervisor.experiments.subjects import Subject
from hypervisor.patcher.listing import code_lines
from hypervisor.patcher.patches import JUMP, Patch
from hypervisor.techniques.patch import Patch as Technique
from hypervisor.translator.listing import Name
from hypervisor.vm import VirtualMachine
from isa.disassembler import disassemble

COLUMNS: Final = ("site", "symbol", "original", "", "patched", "", "kind", "executed", "no jump as")
NUMBERS: Final = frozenset({"executed"})
REMOVED: Final = "removed"


@dataclass(eq=False, slots=True)
class Site:
    """What was patched."""

    patch: Patch  #: the last one made here
    start: int = 0  #: of its code in patch memory; 0 if it has none
    code: bytes = b""
    in_place: bool = True  #: at the end of the run
    ran: int = 0  #: times that it was begun, if it has code
    exits: int = 0  #: INT3s

    @property
    def executed(self) -> int:
        """How often the site was executed by way of its patch."""
        return self.ran if self.code else self.exits

    @property
    def original(self) -> list[tuple[bytes, str]]:
        """The guest's instructions that it stands for: bytes and text."""
        sites = self.patch.sites.values()
        return [line for site in sites for line in _lines(site.original, site.eip)]

    @property
    def patched(self) -> list[tuple[bytes, str]]:
        """What was written there."""
        return _lines(self.patch.bytes, self.patch.eip)


def _lines(code: bytes, eip: int) -> list[tuple[bytes, str]]:
    return [(line.bytes, line.text) for line in disassemble(code, eip)]


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has shown."""

    program: str
    technique: str
    sites: tuple[Site, ...]  #: by address
    counts: Counter[str]  #: of patches made, by why they are no jump
    hard_cases: dict[str, int]
    result: Result
    name: Name


@dataclass(slots=True)
class _Begun:
    """Executions of a patch."""

    times: int = 0
    tick: int = -1  #: the last one's


class Census:
    """Sees patches come and go, and counts."""

    def __init__(self, vm: VirtualMachine, technique: Technique) -> None:
        self._vm, self._technique = vm, technique
        self._sites: dict[tuple[int, str, bytes], Site] = {}
        self._begun: dict[int, _Begun] = {}  #: by the addresses of patch and code
        memory = technique.memory
        self._add, self._free = memory.add, memory.free
        vars(memory).update(add=self._added, free=self._freed)  # nobody else pays for it
        vm.set_tracer(TraceKind.EXEC, self)

    def _added(self, patch: Patch) -> None:
        self._vm.drain_trace()  # what stood there before has run
        self._add(patch)
        if patch.start:
            self._begun[patch.start] = self._begun[patch.eip] = _Begun()

    def _freed(self, patch: Patch) -> None:
        self._vm.drain_trace()
        self._take(patch, in_place=False)
        self._free(patch)

    def _take(self, patch: Patch, *, in_place: bool) -> None:
        """Add what a patch has done to what is known of its site."""
        key = patch.eip, patch.kind, patch.original
        site = self._sites.setdefault(key, Site(patch))
        site.patch, site.in_place = patch, in_place
        site.exits += patch.executed
        if patch.start:
            site.ran += self._begun.pop(patch.start).times
            del self._begun[patch.eip]
            site.start = patch.start
            site.code = self._vm.monitor.read(patch.start, len(patch.code))

    def render(self, records: Iterable[Any]) -> None:
        """Take records, oldest first."""
        known = self._begun
        for record in records:
            begun = known.get(record.eip)
            if begun is not None and record.tick != begun.tick:
                begun.times += 1
                begun.tick = record.tick

    def sites(self) -> Iterator[Site]:
        """All that there were, at the end of the run."""
        self._vm.drain_trace()
        for patch in self._technique.patches.by_eip.values():
            self._take(patch, in_place=True)
        yield from sorted(self._sites.values(), key=lambda s: (s.patch.eip, s.in_place))


def record(subject: Subject, *, strict: bool = False, max_ticks: int | None = None) -> Found:
    """Run a program under the patcher, and see what was patched."""
    technique = Technique(strict=strict)
    vm = VirtualMachine(technique=technique, **subject.options)
    image = subject.image()
    vm.load(image)
    symbols = subject.symbols(image)
    vm.symbols = symbols
    census = Census(vm, technique)
    result = vm.run(max_ticks=subject.ticks if max_ticks is None else max_ticks)
    return Found(
        subject.name,
        "patch --strict" if strict else "patch",
        tuple(census.sites()),
        technique.patches.counts.copy(),
        technique.hard_cases(),
        result,
        symbols.name,
    )


# -- In words --------------------------------------------------------------------------------------


def rows(found: Found, sites: Iterable[Site]) -> Iterator[tuple[str, ...]]:
    """The guest's instructions and what stands there now, side by side."""
    for site in sites:
        patch, (now, text) = site.patch, site.patched[0]
        kind = patch.kind if site.in_place else f"{patch.kind}, {REMOVED}"
        (was, original), *others = site.original
        yield (
            *(f"{patch.eip:#010x}", found.name(patch.eip), was.hex(" "), original),
            *(now.hex(" "), text, kind, f"{site.executed:,}", patch.reason),
        )
        for was, original in others:
            yield ("", "", was.hex(" "), original, "", "", "", "", "")


def code_of(found: Found, site: Site) -> list[str]:
    """The code in patch memory that a site leads to."""
    if not site.code:
        return []
    return list(code_lines(site.patch, site.start, site.code, found.name))


def summary(found: Found) -> list[str]:
    """What the run was, and why its sites are no jumps."""
    result = found.result
    here = [site for site in found.sites if site.in_place]
    jumps = sum(site.patch.kind == JUMP for site in here)
    exits = sum(site.exits for site in found.sites)
    gone = len(found.sites) - len(here)
    lines = [
        f"{found.program}: {result.ticks:,} guest instructions, {exits:,} exits by INT3. It ended: "
        f"{result.reason}.",
        f"In place at the end: {jumps} by jump, {len(here) - jumps} by INT3; {gone} sites no more.",
    ]
    made = ", ".join(f"{reason} {count:,}" for reason, count in found.counts.most_common())
    met = ", ".join(f"{case} {count:,}" for case, count in found.hard_cases.items() if count)
    lines += [f"In the course of the run: {made}."] if made else []
    return [*lines, f"Hard cases: {met}."] if met else lines


def as_json(found: Found) -> dict[str, Any]:
    """All of it."""
    return {
        "program": found.program,
        "technique": found.technique,
        "ticks": found.result.ticks,
        "reason": found.result.reason,
        "counts": dict(found.counts),
        "hard_cases": found.hard_cases,
        "sites": [_site_as_json(found, site) for site in found.sites],
    }


def _site_as_json(found: Found, site: Site) -> dict[str, Any]:
    return {
        "eip": site.patch.eip,
        "symbol": found.name(site.patch.eip),
        "kind": site.patch.kind,
        "in_place": site.in_place,
        "reason": site.patch.reason,
        "original": [{"bytes": was.hex(), "text": text} for was, text in site.original],
        "patched": [{"bytes": now.hex(), "text": text} for now, text in site.patched],
        "code": code_of(found, site),
        "executed": site.executed,
        "int3_exits": site.exits,
    }
