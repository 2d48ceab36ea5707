"""What follows from a comparison: who is faster than whom, and whether the paper found the same.

An ordering rests on modelled cycles, so it is worth as much as the model: it is made again with all
of the hypervisor's prices halved and doubled, and said to flip where that changes it. The wall
time's ordering stands beside it. The claims are those of K. Adams and O. Agesen (ASPLOS 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hypervisor.experiments.compare import NATIVE, Comparison, Row

#: By how much the hypervisor's prices are multiplied.
FACTORS: Final = (0.5, 1.0, 2.0)
#: Cycles that differ by less than this share are as good as equal.
CLOSE: Final = 0.02
#: Wall time repeats less well.
CLOSE_WALL: Final = 0.25

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Ordering:
    """The techniques of one workload, cheapest first; those as good as equal stand together."""

    program: str
    by_factor: tuple[Groups, ...]  #: for each of FACTORS
    by_wall: Groups  #: those too short to be told stand first, together

    @property
    def flips(self) -> bool:
        """Does halving or doubling the modelled costs change who is faster than whom?"""
        return any(_differ(one, other) for one in self.by_factor for other in self.by_factor)

    @property
    def wall_differs(self) -> bool:
        """Does the wall time put some pair the other way round than the model's cycles do?"""
        return _differ(self.by_factor[FACTORS.index(1.0)], self.by_wall)


def _differ(one: Groups, other: Groups) -> bool:
    """Is there a pair that stands the other way round?"""
    names = [name for group in one for name in group]
    return any(
        _place(one, a) < _place(one, b) and _place(other, a) > _place(other, b)
        for a in names
        for b in names
    )


def _place(order: Groups, name: str) -> int:
    return next(place for place, group in enumerate(order) if name in group)


def orderings(comparison: Comparison) -> list[Ordering]:
    """One for each workload; who did something else has no place in it."""
    return [_ordering(name, comparison.of(name)) for name in comparison.programs]


def _ordering(program: str, rows: Sequence[Row]) -> Ordering:
    rows = [row for row in rows if row.same]
    cycles = [
        _groups({row.technique: row.executed + factor * row.modelled for row in rows}, CLOSE)
        for factor in FACTORS
    ]
    short = tuple(row.technique for row in rows if row.wall.is_noise)
    timed = {row.technique: row.wall.best for row in rows if not row.wall.is_noise}
    return Ordering(program, tuple(cycles), (short,) * bool(short) + _groups(timed, CLOSE_WALL))


def _groups(amounts: Mapping[str, float], close: float) -> Groups:
    """Names by amount, the least first; those within a share of a group's first join it."""
    groups: list[list[str]] = []
    for name in sorted(amounts, key=amounts.__getitem__):
        if groups and amounts[name] <= amounts[groups[-1][0]] * (1 + close):
            groups[-1].append(name)
        else:
            groups.append([name])
    return tuple(map(tuple, groups))


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
