"""What hardware assistance and shared page tables cost, on the current model and by the clock.

    python -m tests.bench.assisted [--quick] [--json FILE]

`compare`'s own workloads, run longer: the processor- and system-call-bound part of the small OS has
targets. Making processes and switching between them changes page tables all the time; they stand
beside it, for comparison. Cycles are those of guest and hypervisor together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypervisor.experiments.compare import NATIVE, compare
from hypervisor.experiments.fidelity import Column
from hypervisor.experiments.workloads import COUNTED
from isa.cost import CURRENT
from tests.bench.virtual import judged, line, run_alone

if TYPE_CHECKING:
    from hypervisor.experiments.compare import Row

#: By workload: how many times as many operations as `compare` has.
TARGETED: Final = {"calls": 100, "collatz": 30, "recursion": 30}
BESIDE: Final = {"forkwait": 2, "switch": 2}
HARDWARE, SHARED = Column("hardware", mmu="nested"), Column("paravirt", mmu="shared")
#: What the design promises: cycles, and wall time.
MOST: Final = {"hardware": (1.05, 1.15), "paravirt": (1.2, None)}


def bench_assisted(*, quick: bool, folder: Path) -> dict[str, Any]:
    """All figures of this module, printed as they come."""
    del folder
    print("\nHardware assistance and shared page tables, as a multiple of native")
    line("", "cycles", "", "wall")
    figures: dict[str, Any] = {}
    for names, has_target in ((TARGETED, True), (BESIDE, False)):
        for name, times in names.items():
            workload = COUNTED[name].workload(times)
            found = compare(
                [workload], [HARDWARE, SHARED], repeat=2 if quick else 5, cost_model=CURRENT.name
            )
            for row in found.rows:
                if row.technique != NATIVE:
                    figures[f"{name}, {row.technique}"] = _print(row, has_target=has_target)
    return figures


def _print(row: Row, *, has_target: bool) -> dict[str, float | None]:
    kind = row.technique.split()[0]
    most = MOST[kind] if has_target else (None, None)
    cycles = judged(row.ratio, most[0], "x")
    wall = ("too short", "") if row.wall_ratio is None else judged(row.wall_ratio, most[1], "x")
    line(f"{row.program}, {kind} {row.mmu}", *cycles, " ".join(wall).rstrip())
    return {"cycles": row.ratio, "wall": row.wall_ratio}


if __name__ == "__main__":
    run_alone(bench_assisted, __doc__)
