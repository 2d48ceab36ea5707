"""A comparison in words and as plain data; hypervisor/cli/compare.py prints it, compare_page.py
draws it."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from hypervisor.cost import hypervisor_costs
from hypervisor.experiments.compare import Comparison, Outside, Row, Wall
from hypervisor.experiments.orderings import FACTORS, Groups, Ordering, Verdict, orderings, verdicts
from hypervisor.experiments.sweeps import Sweep

COLUMNS: Final = (
    "workload",
    "technique",
    "executed cycles",
    "hypervisor cycles",
    "ratio",
    "exits",
    "wall",
    "min",
    "max",
    "ratio of wall",
    "most exits",
)
NUMBERS: Final = frozenset(COLUMNS[2:-1])
NOTE: Final = (
    "Executed: cycles of the guest's instructions, or of what they were translated to, by the "
    "core. Hypervisor: its own work, modelled by hypervisor/cost.py. Ratio: of their sum to "
    "native's. Of an operation all figures are the difference of two runs, divided by how many the "
    "second does more; of a program, of its whole run. Below 1: a virtual device answers from "
    "memory, a real one from a bus. A dash: too short to be told."
)
DIFFERS: Final = "*"  #: behind the name of a technique under which a program did something else
DIFFERS_NOTE: Final = "* the program did not do what it does natively: the figures mean little"
MOST_REASONS: Final = 3
NO_FIGURE: Final = "-"
FEW: Final = 100  #: below it, cycles have a decimal


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table; after each workload's rows, those of others' virtual machines."""
    table = []
    for program in comparison.programs:
        table += [_row_cells(row) for row in comparison.of(program)]
        table += [_outside_cells(o) for o in comparison.outside if o.program == program]
    return table


def _row_cells(row: Row) -> tuple[str, ...]:
    return (
        row.program,
        row.technique + DIFFERS * (not row.same),
        amount(row.each(row.executed)),
        amount(row.each(row.modelled)),
        f"{row.ratio:.2f}",
        amount(row.each(sum(row.exits.values()))),
        *_wall_cells(row.wall, row.operations),
        NO_FIGURE if row.wall_ratio is None else f"{row.wall_ratio:.2f}",
        most_exits(row),
    )


def _outside_cells(found: Outside) -> tuple[str, ...]:
    seconds = _wall_cells(found.wall, found.operations)
    ratio = NO_FIGURE if found.wall_ratio is None else f"{found.wall_ratio:.2f}"
    return (found.program, found.name, *[NO_FIGURE] * 4, *seconds, ratio, "")


def _wall_cells(wall: Wall, operations: int) -> list[str]:
    """Of an operation; a difference of two runs may be noise, and even below zero."""
    return [
        NO_FIGURE if wall.is_noise or seconds <= 0 else duration(seconds / operations)
        for seconds in (wall.median, wall.least, wall.most)
    ]


def amount(value: float) -> str:
    """A number of cycles or exits; of an operation it may be a fraction."""
    value = value or 0.0  # no minus
    if value == int(value) or abs(value) >= FEW:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Wall time, in a unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def most_exits(row: Row) -> str:
    """The reasons of most exits, and how many there are for each operation."""
    ordered = sorted(row.exits.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {amount(row.each(n))}" for reason, n in ordered[:MOST_REASONS])


def notes(comparison: Comparison) -> list[str]:
    """What must be said below the table."""
    lines = [NOTE, f"Cost model: {comparison.model.name}, {comparison.model.title}."]
    if not all(row.same for row in comparison.rows):
        lines.append(DIFFERS_NOTE)
    lines += [f"refused: {r.program}, {r.technique}: {r.reason}" for r in comparison.refusals]
    return lines


# -- Orderings and the paper ----------------------------------------------------------------------


def ordering_text(order: Groups) -> str:
    """Cheapest first; who is as good as equal shares a place."""
    return " < ".join(" = ".join(group) for group in order)


def verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    """What the paper found, our figures, and whether it is so here."""
    claim = verdict.claim
    if verdict.figures is None:
        return claim.words, NO_FIGURE, NO_FIGURE, "not run"
    faster, slower = (
        f"{name} {amount(value)}"
        for name, value in zip((claim.faster, claim.slower), verdict.figures, strict=True)
    )
    answer = "yes" if verdict.holds else "no"
    if not verdict.stable:
        answer += ", flips with the modelled costs"
    return claim.words, faster, slower, answer


VERDICT_COLUMNS: Final = ("the paper: cycles of an operation", "cheaper there", "dearer there",
                          "so here")  # fmt: skip


def verdict_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The claims about what was run."""
    return [verdict_cells(v) for v in verdicts(comparison) if v.figures is not None]


# -- Data ------------------------------------------------------------------------------------------


def as_json(comparison: Comparison, sweeps: tuple[Sweep, ...] = ()) -> dict[str, Any]:
    """Everything as plain data; what the wall clock measured stands apart, it never repeats."""
    return {
        "cost_model": comparison.model.name,
        "rows": [_row_json(row) for row in comparison.rows],
        "outside": [_outside_json(found) for found in comparison.outside],
        "refusals": [
            {"program": r.program, "technique": r.technique, "reason": r.reason}
            for r in comparison.refusals
        ],
        "orderings": [_ordering_json(found) for found in orderings(comparison)],
        "claims": [_verdict_json(found) for found in verdicts(comparison)],
        "sweeps": [
            {
                "title": sweep.title,
                "x": sweep.x,
                "y": sweep.y,
                "points": list(sweep.points),
                "curves": {name: list(values) for name, values in sweep.curves.items()},
            }
            for sweep in sweeps
        ],
        "costs": [
            {"key": c.key, "cycles": c.cycles, "what": c.what, "source": c.source}
            for c in hypervisor_costs(comparison.model)
        ],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "program": row.program,
        "technique": row.technique,
        "mmu": row.mmu,
        "operations": row.operations,
        "same": row.same,
        "ticks": row.ticks,
        "executed": row.executed,
        "modelled": row.modelled,
        "ratio": row.ratio,
        "work": dict(sorted(row.work.items())),
        "exits": dict(sorted(row.exits.items())),
        "wall": {"seconds": list(row.wall.seconds), "ratio": row.wall_ratio},
    }


def _outside_json(found: Outside) -> dict[str, Any]:
    return {
        "program": found.program,
        "name": found.name,
        "operations": found.operations,
        "wall": {"seconds": list(found.wall.seconds), "ratio": found.wall_ratio},
    }


def _ordering_json(found: Ordering) -> dict[str, Any]:
    orders = {
        f"{factor:g}": [list(group) for group in order]
        for factor, order in zip(FACTORS, found.by_factor, strict=True)
    }
    wall = {"order": [list(group) for group in found.by_wall], "differs": found.wall_differs}
    return {"program": found.program, "flips": found.flips, "cycles": orders, "wall": wall}


def _verdict_json(found: Verdict) -> dict[str, Any]:
    claim = found.claim
    return {
        "program": claim.program,
        "words": claim.words,
        "faster": claim.faster,
        "slower": claim.slower,
        "cycles": None if found.figures is None else list(found.figures),
        "holds": found.holds,
        "stable": found.stable,
    }


def as_csv(comparison: Comparison) -> str:
    """A line for each row, with a column for each exit reason that occurred."""
    reasons = sorted({reason for row in comparison.rows for reason in row.exits})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["program", "technique", "mmu", "operations", "same", "ticks", "executed", "modelled",
         "ratio", "wall_median", "wall_min", "wall_max", *(f"exits: {r}" for r in reasons)]
    )  # fmt: skip
    for row in comparison.rows:
        wall = row.wall
        writer.writerow(
            [row.program, row.technique, row.mmu, row.operations, int(row.same), row.ticks,
             row.executed, row.modelled, f"{row.ratio:.6f}", wall.median, wall.least, wall.most,
             *(row.exits.get(reason, 0) for reason in reasons)]
        )  # fmt: skip
    for found in comparison.outside:
        wall = found.wall
        writer.writerow(
            [found.program, found.name, "", found.operations, "", "", "", "", "",
             wall.median, wall.least, wall.most, *([""] * len(reasons))]
        )  # fmt: skip
    return text.getvalue()
