"""A comparison in words, as plain data and as a page; hypervisor/cli/compare.py prints it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from hypervisor.cost import HYPERVISOR_COSTS
from hypervisor.experiments import page
from hypervisor.experiments.compare import NATIVE, Comparison, Row

COLUMNS: Final = (
    "program",
    "technique",
    "executed cycles",
    "hypervisor cycles",
    "ratio",
    "exits",
    "wall ms",
    "min",
    "max",
    "ratio of wall",
    "most exits",
)
NUMBERS: Final = frozenset(COLUMNS[2:-1])
NOTE: Final = (
    "Executed: cycles of the guest's instructions, or of what they were translated to, by the "
    "core. Hypervisor: its own work, modelled by hypervisor/cost.py. Ratio: of their sum to "
    "native's."
)
DIFFERS: Final = "*"  #: behind the name of a technique under which a program did something else
DIFFERS_NOTE: Final = "* the program did not do what it does natively: the figures mean little"
MOST_REASONS: Final = 3

#: The plot: pixels.
_LEFT, _WIDTH, _RIGHT, _LINE, _BAR = 260, 640, 120, 44, 14


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table."""
    return [
        (
            row.program,
            row.technique + DIFFERS * (not row.same),
            f"{row.executed:,}",
            f"{row.modelled:,}",
            f"{row.ratio:.2f}",
            f"{sum(row.exits.values()):,}",
            f"{row.wall.median * 1e3:.1f}",
            f"{row.wall.least * 1e3:.1f}",
            f"{row.wall.most * 1e3:.1f}",
            f"{row.wall_ratio:.2f}",
            most_exits(row),
        )
        for row in comparison.rows
    ]


def most_exits(row: Row) -> str:
    """The reasons of most exits."""
    ordered = sorted(row.exits.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ordered[:MOST_REASONS])


def notes(comparison: Comparison) -> list[str]:
    """What must be said below the table."""
    lines = [NOTE]
    if not all(row.same for row in comparison.rows):
        lines.append(DIFFERS_NOTE)
    lines += [f"refused: {r.program}, {r.technique}: {r.reason}" for r in comparison.refusals]
    return lines


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain data; what the wall clock measured stands apart, it never repeats."""
    return {
        "rows": [_row_json(row) for row in comparison.rows],
        "refusals": [
            {"program": r.program, "technique": r.technique, "reason": r.reason}
            for r in comparison.refusals
        ],
        "costs": [
            {"key": c.key, "cycles": c.cycles, "what": c.what, "source": c.source}
            for c in HYPERVISOR_COSTS
        ],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "program": row.program,
        "technique": row.technique,
        "same": row.same,
        "ticks": row.ticks,
        "executed": row.executed,
        "modelled": row.modelled,
        "ratio": row.ratio,
        "work": dict(sorted(row.work.items())),
        "exits": dict(sorted(row.exits.items())),
        "wall": {"seconds": list(row.wall.seconds), "ratio": row.wall_ratio},
    }


def as_csv(comparison: Comparison) -> str:
    """A line for each row, with a column for each exit reason that occurred."""
    reasons = sorted({reason for row in comparison.rows for reason in row.exits})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["program", "technique", "same", "ticks", "executed", "modelled", "ratio", "wall_median",
         "wall_min", "wall_max", *(f"exits: {reason}" for reason in reasons)]
    )  # fmt: skip
    for row in comparison.rows:
        wall = row.wall
        writer.writerow(
            [row.program, row.technique, int(row.same), row.ticks, row.executed, row.modelled,
             f"{row.ratio:.6f}", wall.median, wall.least, wall.most,
             *(row.exits.get(reason, 0) for reason in reasons)]
        )  # fmt: skip
    return text.getvalue()


# -- The page --------------------------------------------------------------------------------------


def as_page(comparison: Comparison) -> str:
    """One HTML page with the table, a plot for each program, and the prices."""
    return page.page("seventeen compare", _parts(comparison))


def _parts(comparison: Comparison) -> Iterable[str]:
    yield "<h1>What techniques cost</h1>"
    yield from (f"<p>{escape(line)}</p>" for line in notes(comparison))
    yield page.table(
        COLUMNS,
        (f"<tr>{''.join(map(_cell, COLUMNS, line))}</tr>" for line in rows(comparison)),
        NUMBERS,
    )
    yield "<h2>Cycles and wall time, as multiples of native</h2>"
    for program in dict.fromkeys(row.program for row in comparison.rows):
        chosen = [row for row in comparison.rows if row.program == program]
        yield f"<h3>{escape(program)}</h3>"
        yield plot([row for row in chosen if row.technique != NATIVE])
    yield "<h2>The hypervisor's prices</h2>"
    yield page.table(
        ("piece", "cycles", "what", "source"),
        (
            f"<tr>{page.cell(c.key)}{page.cell(str(c.cycles), 'number')}{page.cell(c.what)}"
            f"{page.cell(c.source)}</tr>"
            for c in HYPERVISOR_COSTS
        ),
        frozenset({"cycles"}),
    )


def _cell(column: str, text: str) -> str:
    names = COLUMNS[:2]
    return page.cell(text, "number" if column in NUMBERS else "name" if column in names else "")


def plot(chosen: Sequence[Row]) -> str:
    """Two bars for each technique on a logarithmic axis: cycles above, wall time below."""
    if not chosen:
        return ""
    values = [value for row in chosen for value in (row.ratio, row.wall_ratio)]
    low = math.floor(min(0.0, *map(math.log10, values)))
    high = max(low + 1, math.ceil(max(map(math.log10, values))))

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (math.log10(value) - low) / (high - low)

    height = _LINE * len(chosen) + 24
    parts = [f'<svg viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img">']
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(
            f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - 20}"/>'
            f'<text class="dim" x="{at:.1f}" y="{height - 5}" text-anchor="middle">'
            f"{10.0**power:g}x</text>"
        )
    for number, row in enumerate(chosen):
        top = number * _LINE + 4
        parts.append(f'<text x="0" y="{top + 19}">{escape(row.technique)}</text>')
        for value, kind, shift in (
            (row.ratio, "executed", 0),
            (row.wall_ratio, "modelled", _BAR + 2),
        ):
            left, right = sorted((x(1.0), x(value)))
            parts.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{top + shift}" '
                f'width="{max(right - left, 1):.1f}" height="{_BAR}"/>'
                f'<text x="{right + 4:.1f}" y="{top + shift + _BAR - 3}">'
                f"{value:.2f} {'cycles' if kind == 'executed' else 'wall'}</text>"
            )
    return "".join([*parts, "</svg>"])
