"""`make bench`: the workloads on every machine that is here, as a table and as JSON.

    python -m tests.bench.main [--quick] [--json FILE] [WORKLOAD...]

Prints each time as a ratio to silicon's (or to Seventeen's where the host is no x86), the geometric
mean over the counted workloads, the costs of system calls, page faults and CR3 loads, the
bandwidth of `rep stos/movs`, start-up times, and what virtualization costs (virtual.py), binary
translation (translated.py) and patching (patched.py) above all. Nothing else should run meanwhile.
measure.py says how a time is taken.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

from tests.bench import build, measure
from tests.bench.assisted import bench_assisted
from tests.bench.machines import MACHINES, Bench, BenchError
from tests.bench.patched import bench_patched
from tests.bench.translated import bench_translated
from tests.bench.virtual import bench_virtual

FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "bench"
BULK_BYTES = 2 << 20  # written an iteration of workloads/bulk.S: one fill and one copy of 1 MiB


def arguments() -> argparse.Namespace:
    names = [workload.name for workload in build.WORKLOADS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="shorter runs, each only once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--only", metavar="LIST", help="machines: comma-separated names")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where programs are built")
    options = parser.parse_args()
    unknown = sorted(set(options.workloads) - set(names))
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(names)}")
    return options


def available(only: str | None) -> list[Bench]:
    """The machines that can run here; says why for those that cannot."""
    wanted = only.split(",") if only else [machine.name for machine in MACHINES]
    machines = []
    for machine in MACHINES:
        if machine.name not in wanted:
            continue
        reason = machine.missing()
        if reason:
            print(f"left out: {machine.name}: {reason}")
        else:
            machines.append(machine)
    return machines


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def row(name: str, cells: list[str]) -> None:
    print(f"{name:<12}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def bench_workloads(
    machines: list[Bench], options: argparse.Namespace, seconds: float, repeats: int
) -> dict[str, Any]:
    base = machines[0].name
    names = [machine.name for machine in machines]
    chosen = options.workloads or [workload.name for workload in build.WORKLOADS]
    print(f"\nTime an iteration: {base} in microseconds, the others as a multiple of it")
    row("", names)
    times, ratios = {}, {}
    for workload in build.WORKLOADS:
        if workload.name not in chosen:
            continue
        found = measure.time_workload(machines, workload, options.folder, seconds, repeats)
        times[workload.name] = found
        cells = [f"{found[base] * 1e6:.1f}", *(f"{found[n] / found[base]:.2f}" for n in names[1:])]
        row(workload.name, cells)
        if workload.counted:
            ratios[workload.name] = {name: found[name] / found[base] for name in names}
    means = {name: geometric_mean([ratio[name] for ratio in ratios.values()]) for name in names}
    row("mean", ["", *(f"{means[name]:.2f}" for name in names[1:])])
    if "bulk" in times:
        row("rep, GB/s", [f"{BULK_BYTES / times['bulk'][name] / 1e9:.1f}" for name in names])
    return {"seconds": times, "geometric mean": means}


def bench_system(
    machines: list[Bench], options: argparse.Namespace, seconds: float, repeats: int
) -> dict[str, Any]:
    whole = [machine for machine in machines if machine.whole]
    names = [machine.name for machine in whole]
    result: dict[str, Any] = {}
    print("\nMicroseconds an operation")
    row("", names)
    for cost, meaning in build.SYSTEM_COSTS.items():
        found = measure.time_system_cost(whole, cost, options.folder, seconds, repeats)
        result[cost] = found
        row(cost, [*(f"{found[name] * 1e6:.3f}" for name in names), f"   {meaning}"])
    starts = measure.time_start(whole, options.folder, 3 if options.quick else 11)
    starts["python"] = measure.time_interpreter(3 if options.quick else 11)
    print("\nMilliseconds to start, run an empty kernel and end (python: an empty program)")
    row("", list(starts))
    row("start", [f"{seconds * 1e3:.1f}" for seconds in starts.values()])
    return {"seconds": result, "start": starts}


def main() -> int:
    options = arguments()
    machines = available(options.only)
    if not machines:
        print("no machine to measure")
        return 1
    seconds, repeats = (0.25, 1) if options.quick else (1.0, 3)
    try:
        figures: dict[str, Any] = {"host": platform.processor() or platform.machine()}
        figures["workloads"] = bench_workloads(machines, options, seconds, repeats)
        if not options.workloads:
            figures["system"] = bench_system(machines, options, seconds, repeats)
            if any(machine.name == "seventeen" for machine in machines):
                figures["virtual"] = bench_virtual(quick=options.quick, folder=options.folder)
                figures["translated"] = bench_translated(quick=options.quick, folder=options.folder)
                figures["patched"] = bench_patched(quick=options.quick, folder=options.folder)
                figures["assisted"] = bench_assisted(quick=options.quick, folder=options.folder)
    except (BenchError, build.BuildError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
