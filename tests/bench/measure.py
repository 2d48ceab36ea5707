"""Time one piece of work on one machine: the difference of two runs, so that start-up cancels.

How many iterations make a run long enough to be timed is found for each machine by itself; before
that, all have to print the same checksum for the same few iterations. machines.py says what runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import build
from tests.bench.machines import Bench, BenchError, Outcome

Run = Callable[[int], Outcome]

ATTEMPTS = 3
CHECKED = 5  # iterations of which the checksums are compared
LONG = 5.0  # seconds after which a run is not repeated: noise is small against it


@dataclass(frozen=True)
class Plan:
    """The two iteration counts, and how often each run is repeated at most; the fastest counts."""

    low: int
    high: int
    repeats: int

    @property
    def steps(self) -> int:
        return self.high - self.low


def calibrate(run: Run, seconds: float, repeats: int) -> Plan:
    """Counts for which `run` takes about `seconds` longer with the high one than with the low."""
    count, base = 16, min(run(1).seconds, run(1).seconds)
    while (spent := run(count).seconds - base) < seconds / 2:  # start-up varies
        count *= 4
    high = max(8, int(count * seconds / spent))
    return Plan(high // 8, high, repeats)


def _fastest(run: Run, iterations: int, repeats: int) -> Outcome:
    outcomes: list[Outcome] = []
    while len(outcomes) < repeats and sum(outcome.seconds for outcome in outcomes) < LONG:
        outcomes.append(run(iterations))
    return min(outcomes, key=lambda outcome: outcome.seconds)


def time_work(run: Run, seconds: float, repeats: int) -> float:
    """Seconds an iteration, from runs of about `seconds`; longer ones if noise hides the work."""
    plan = calibrate(run, seconds, repeats)
    for _ in range(ATTEMPTS):
        low = _fastest(run, plan.low, plan.repeats).seconds
        high = _fastest(run, plan.high, plan.repeats).seconds
        if high > low:
            return (high - low) / plan.steps
        plan = Plan(plan.low, plan.high * 4, plan.repeats)
    raise BenchError(f"{plan.high} iterations take no longer than {plan.low}: machine too busy")


def time_workload(
    machines: list[Bench], workload: build.Workload, folder: Path, seconds: float, repeats: int
) -> dict[str, float]:
    """Seconds an iteration by machine."""

    def runner(machine: Bench) -> Run:
        return lambda iterations: machine.run_workload(workload, folder, iterations)

    runs = {machine.name: runner(machine) for machine in machines}
    return _time_all(runs, seconds, repeats, workload.name)


def time_system_cost(
    machines: list[Bench], cost: str, folder: Path, seconds: float, repeats: int
) -> dict[str, float]:
    """Seconds an operation by machine, for those that can do it."""
    kernel = build.build_system(folder)

    def runner(machine: Bench) -> Run:
        return lambda count: machine.run_kernel(kernel, f"cost={cost} iterations={count}")

    runs = {machine.name: runner(machine) for machine in machines if machine.whole}
    return _time_all(runs, seconds, repeats, cost)


def _time_all(runs: dict[str, Run], seconds: float, repeats: int, what: str) -> dict[str, float]:
    printed = {name: run(CHECKED).output for name, run in runs.items()}
    if len(set(printed.values())) > 1:
        raise BenchError(f"{what}: the machines disagree: {printed}")
    return {name: time_work(run, seconds, repeats) for name, run in runs.items()}


def time_start(machines: list[Bench], folder: Path, repeats: int) -> dict[str, float]:
    """Median seconds from nothing to a kernel's exit and back, by machine."""
    kernel = build.build_kernel(build.WORKLOADS[0], folder)
    return {
        machine.name: statistics.median(
            machine.run_kernel(kernel, "iterations=0").seconds for _ in range(repeats)
        )
        for machine in machines
        if machine.whole
    }


def time_interpreter(repeats: int) -> float:
    """Median seconds that an empty Python program takes: the floor of our own start-up."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
