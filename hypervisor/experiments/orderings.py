"""What follows from a comparison: who is faster than whom, and whether the paper found the same.

An ordering rests on modelled cycles, so it is worth as much as the model: it is made again with all
of the hypervisor's prices halved and doubled, and said to flip where that changes it. The wall
time's ordering stands beside it. The claims are those of K. Adams and O. Agesen (ASPLOS 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hypervisor.experiments.compare import NATIVE, Comparison, Row

#: By how much the hypervisor's prices are multiplied.
FACTORS: Final = (0.5, 1.0, 2.0)
#: Cycles that differ by less than this share are as good as equal.
CLOSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Ordering:
    """The techniques of one workload, cheapest first; those as good as equal stand together."""

    program: str
    by_factor: tuple[tuple[tuple[str, ...], ...], ...]  #: for each of FACTORS
    by_wall: tuple[str, ...]  #: where wall time could be told

    @property
    def flips(self) -> bool:
        """Does halving or doubling the modelled costs change who is faster than whom?"""
        return any(
            _place(order, a) < _place(order, b) and _place(other, a) > _place(other, b)
            for order in self.by_factor
            for other in self.by_factor
            for a in sum(order, ())
            for b in sum(order, ())
        )

    @property
    def wall_differs(self) -> bool:
        """Does the wall time put some pair the other way round than the model's cycles do?"""
        order = self.by_factor[FACTORS.index(1.0)]
        places = [_place(order, name) for name in self.by_wall]
        return places != sorted(places)


def _place(order: tuple[tuple[str, ...], ...], name: str) -> int:
    return next(place for place, group in enumerate(order) if name in group)


def orderings(comparison: Comparison) -> list[Ordering]:
    """One for each workload; who did something else has no place in it."""
    return [_ordering(name, comparison.of(name)) for name in comparison.programs]


def _ordering(program: str, rows: Sequence[Row]) -> Ordering:
    rows = [row for row in rows if row.same]
    timed = [row for row in rows if row.wall_ratio is not None]
    return Ordering(
        program,
        tuple(_groups(rows, factor) for factor in FACTORS),
        tuple(row.technique for row in sorted(timed, key=lambda row: row.wall.median)),
    )


def _groups(rows: Sequence[Row], factor: float) -> tuple[tuple[str, ...], ...]:
    def cycles(row: Row) -> float:
        return row.executed + factor * row.modelled

    groups: list[list[Row]] = []
    for row in sorted(rows, key=cycles):
        if groups and cycles(row) <= cycles(groups[-1][0]) * (1 + CLOSE):
            groups[-1].append(row)
        else:
            groups.append([row])
    return tuple(tuple(row.technique for row in group) for group in groups)


# -- The paper -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the paper found: one technique is cheaper than another at something."""

    program: str
    faster: str
    slower: str
    words: str
    because: str  #: why it should be so; where it is not so here, `instead` says why
    instead: str = ""


HARDWARE_SHADOW: Final = "hardware --mmu shadow"
CLAIMS: Final = (
    Claim(
        "in",
        "translate",
        NATIVE,
        "software beats native on in",
        "a virtual device is a variable, a real one is on a bus",
    ),
    Claim(
        "callret",
        NATIVE,
        "translate",
        "translation loses on callret",
        "each return has to look up where its target has gone",
    ),
    Claim(
        "ptemod",
        "translate",
        "trap",
        "adaptive translation wins on ptemod",
        "stores that keep faulting are translated anew, to code that does not fault",
    ),
    Claim(
        "syscall",
        "hardware",
        "translate",
        "hardware assistance wins on syscall",
        "the guest's kernel is in ring 0, so there is nothing to step in for",
    ),
    Claim(
        "divzero",
        "hardware",
        "translate",
        "hardware assistance wins on divzero",
        "exceptions go through the guest's own IDT",
    ),
    Claim(
        "cr8wr",
        "translate",
        HARDWARE_SHADOW,
        "software beats early hardware on cr8wr",
        "the paper's translator turns the write into code; an exit costs thousands of cycles",
        "ours turns interrupt-flag instructions into code, but calls out for control registers; "
        "and CR2, unlike CR8, is a register for which hardware needs no exit",
    ),
    Claim(
        "in",
        "translate",
        HARDWARE_SHADOW,
        "software beats early hardware on in",
        "an exit from guest mode costs more than a callout",
    ),
    Claim(
        "pgfault",
        "translate",
        HARDWARE_SHADOW,
        "early hardware loses on pgfault with shadow tables",
        "every page fault exits, for it may be the shadow's",
        "our translator returns from the handler by a callout for IRET within the kernel, "
        "which costs a second exit",
    ),
    Claim(
        "ptemod",
        "translate",
        HARDWARE_SHADOW,
        "early hardware loses on ptemod with shadow tables",
        "every store to a page table exits, and nothing can be translated",
    ),
    Claim(
        "pgfault",
        "hardware --mmu nested",
        "translate",
        "hardware wins on pgfault with nested paging",
        "a guest's page fault is its own affair",
    ),
    Claim(
        "ptemod",
        "hardware --mmu nested",
        "translate",
        "hardware wins on ptemod with nested paging",
        "a page table is memory like any other",
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says to a claim."""

    claim: Claim
    figures: (
        tuple[float, float] | None
    )  #: cycles of one operation, faster and slower; None: not run
    holds: bool
    stable: bool  #: with the modelled costs halved and doubled as well


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Each claim, held against the rows; those about workloads that were not run are left out."""
    return [_verdict(claim, comparison) for claim in CLAIMS if claim.program in comparison.programs]


def find_row(comparison: Comparison, program: str, technique: str) -> Row | None:
    """A row by technique and memory, however its column names the one that it prefers."""
    words, _, mmu = technique.partition(" --mmu ")
    for row in comparison.of(program):
        name = row.technique.partition(" --mmu ")[0]
        if name == words and (not mmu or row.mmu == mmu):
            return row
    return None


def _verdict(claim: Claim, comparison: Comparison) -> Verdict:
    faster = find_row(comparison, claim.program, claim.faster)
    slower = find_row(comparison, claim.program, claim.slower)
    if faster is None or slower is None:
        return Verdict(claim, None, False, False)

    def holds(factor: float) -> bool:
        one, other = (row.executed + factor * row.modelled for row in (faster, slower))
        return one < other

    cycles: Callable[[Row], float] = lambda row: row.each(row.cycles)  # noqa: E731
    answers = {holds(factor) for factor in FACTORS}
    return Verdict(claim, (cycles(faster), cycles(slower)), holds(1.0), len(answers) == 1)
