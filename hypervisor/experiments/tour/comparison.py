"""The stop about cost: the same few operations under every technique, as multiples of native."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypervisor.experiments.compare import Comparison, compare
from hypervisor.experiments.fidelity import Column, default_columns
from hypervisor.experiments.orderings import orderings
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.workloads import COUNTED
from hypervisor.techniques import TECHNIQUES

OPERATIONS: Final = ("syscall", "in", "callret", "pgfault", "ptemod")
COUNTS: Final = (1000, 2000)
#: Stepping through everything is the slow end of every chart, and of this screen.
LEFT_OUT: Final = (Column("interpret"),)


def columns() -> list[Column]:
    """Each technique with each memory virtualization, on the real ISA and without switches."""
    return [
        column
        for column in default_columns()
        if not column.virtualizable and column.technique in TECHNIQUES and column not in LEFT_OUT
    ]


def measured() -> Comparison:
    """The operations, each as often as will do."""
    low, high = COUNTS
    counted = [replace(COUNTED[name], low=low, high=high) for name in OPERATIONS]
    return compare([each.workload() for each in counted], columns(), repeat=1)


def show() -> list[Line]:
    """Ratios, and what they hang on."""
    found = measured()
    lines = paragraph(
        "Cycles of one operation, the guest's own and the hypervisor's, as multiples of what it "
        "takes natively."
    )
    names = ("native", *found.techniques)
    rows = [(name, *(_ratio(found, each, name) for each in OPERATIONS)) for name in names]
    lines += [blank(), *table(("technique", *OPERATIONS), rows), blank()]
    cheapest = [f"{each}: {_cheapest(found, each)}" for each in OPERATIONS]
    lines += paragraph(f"Cheapest but for native - {'; '.join(cheapest)}.")
    flips = [order.program for order in orderings(found) if order.flips]
    lines += paragraph(
        "With the hypervisor's prices halved or doubled, "
        + (f"the order changes for {', '.join(flips)}." if flips else "no order changes.")
    )
    return lines


def _ratio(found: Comparison, operation: str, technique: str) -> str:
    ratio = found.row(operation, technique).ratio
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def _cheapest(found: Comparison, operation: str) -> str:
    rows = [row for row in found.of(operation) if row.technique in found.techniques]
    least = min(row.cycles for row in rows)
    return ", ".join(row.technique for row in rows if row.cycles == least)
