"""Cost as a curve: against the number of system calls, and of page faults against the working set.

Each point is a run on the machine, as in compare.py; cycles alone, so that they repeat to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from guests import find
from hypervisor.experiments.compare import NATIVE, columns_of, compare
from hypervisor.experiments.fidelity import Column, Progress
from hypervisor.experiments.subjects import of_guest
from hypervisor.experiments.workloads import COUNTED, NANO, Workload
from isa.cost import DEFAULT_MODEL

CALLS: Final = (250, 500, 1000, 2000, 4000)
PAGES: Final = (1, 4, 16, 64, 256)
FAULTS: Final = (1024, 2048)  #: in the run that is taken away, and in the other


@dataclass(frozen=True, slots=True)
class Sweep:
    """A curve for each technique."""

    title: str
    x: str  #: what the numbers along the axis count
    y: str  #: and what those up it are
    points: tuple[int, ...]
    curves: dict[str, tuple[float, ...]]  #: by technique, native among them


def _calls(count: int) -> Workload:
    """The whole run of a program that makes so many system calls."""
    subject = COUNTED["calls"].subject(count)
    return Workload(f"{count} calls", "", NANO, subject, COUNTED["calls"].subject(0), 1)


def _faults(pages: int) -> Workload:
    """Faults on so many pages, all of which are touched before any is taken away."""
    program = of_guest(find("nano_touch"))
    less, more = (replace(program, kernel_args=f"count={count} pages={pages}") for count in FAULTS)
    return Workload(f"{pages} pages", "", NANO, more, less, FAULTS[1] - FAULTS[0])


def sweeps(
    techniques: Sequence[str | Column] | None = None,
    *,
    cost_model: str = DEFAULT_MODEL,
    progress: Progress = lambda done, total, name: None,
) -> tuple[Sweep, ...]:
    """Both curves; a technique that cannot run the program has none."""
    chosen = [column for column in columns_of(techniques) if column.technique != "interpret"]
    calls = _curves([_calls(count) for count in CALLS], chosen, cost_model, progress)
    faults = _curves([_faults(pages) for pages in PAGES], chosen, cost_model, progress)
    return (
        Sweep(
            "Cost against the number of system calls, on the small OS",
            "system calls",
            "cycles of the program",
            CALLS,
            calls,
        ),
        Sweep(
            "Cost of a page fault against the working set",
            "pages touched before all are taken away",
            "cycles of a fault",
            PAGES,
            faults,
        ),
    )


def _curves(
    workloads: Sequence[Workload], columns: Sequence[Column], cost_model: str, progress: Progress
) -> dict[str, tuple[float, ...]]:
    found = compare(workloads, columns, repeat=1, cost_model=cost_model, progress=progress)
    curves = {}
    for technique in (NATIVE, *found.techniques):
        rows = [row for row in found.rows if row.technique == technique and row.same]
        if len(rows) == len(workloads):
            curves[technique] = tuple(row.each(row.cycles) for row in rows)
    return curves
