"""`seventeen compare`: what techniques cost, program by program.

Two kinds of cycles stand in separate columns. *Executed* cycles are measured: what the core charges
for the guest's instructions and devices, on the real CPU and on the virtual one. *Modelled* cycles
are the hypervisor's own work, counted and priced by hypervisor/cost.py. Both are the same in every
run. Wall time is only measured, and says as much of Python as of the technique.

    for row in compare(["quicksort", "paging"], ["trap", "paravirt"]).rows:
        print(row.program, row.technique, row.ratio)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emulator import Machine
from emulator.core import ExitReason
from emulator.result import Result
from guests import Guest
from hypervisor.cost import modelled_cycles
from hypervisor.errors import HypervisorError
from hypervisor.experiments.fidelity import Column, Progress, default_columns
from hypervisor.experiments.subjects import Image, Subject, find_subject, variants
from hypervisor.techniques import find_technique
from hypervisor.vm import VirtualMachine

NATIVE: Final = "native"
#: Computation, memory, recursion, page tables, ring 3, and an operating system with all of it.
PROGRAMS: Final = ("fibonacci", "quicksort", "sieve", "paging", "rings", "os")
REPEAT: Final = 3
#: Seconds after which a run is not repeated: noise is small against it.
LONG: Final = 4.0
#: A run that goes astray is given so many times the native ticks, and some to spare.
ASTRAY, SPARE_TICKS = 2, 10_000


@dataclass(frozen=True, slots=True)
class Wall:
    """Wall time of runs, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def most(self) -> float:
        return max(self.seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """One program under one technique."""

    program: str
    technique: str  #: as `Column` prints it, or "native"
    ticks: int  #: guest time
    executed: int  #: cycles of the guest's own instructions
    work: Mapping[str, int]  #: the hypervisor's, piece by piece: keys of hypervisor/cost.py
    exits: Mapping[str, int]  #: of the real CPU, by reason
    same: bool  #: output and status are as natively
    ratio: float  #: of all cycles to the native run's
    wall: Wall
    wall_ratio: float  #: of the medians

    @property
    def modelled(self) -> int:
        """Cycles of the hypervisor's own work."""
        return modelled_cycles(self.work) if self.work else 0

    @property
    def cycles(self) -> int:
        """All machine time."""
        return self.executed + self.modelled


@dataclass(frozen=True, slots=True)
class Refusal:
    """A technique that cannot run a program, and why."""

    program: str
    technique: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, each program's native one first, and what was refused."""

    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]

    def row(self, program: str, technique: str) -> Row:
        """One row; KeyError if there is none."""
        for row in self.rows:
            if (row.program, row.technique) == (program, technique):
                return row
        raise KeyError((program, technique))


def compare(
    programs: Sequence[str | Path | Guest | Subject] | None = None,
    techniques: Sequence[str | Column] | None = None,
    *,
    repeat: int = REPEAT,
    progress: Progress = lambda done, total, name: None,
) -> Comparison:
    """Run programs natively and under techniques, and say what it cost.

    programs: names of guests, or paths; None for `PROGRAMS`. techniques: names or columns; None for
    all. repeat: runs of each, for the wall time; long ones are not repeated.
    """
    subjects = [find_subject(p) for p in (PROGRAMS if programs is None else programs)]
    wanted = default_columns() if techniques is None else techniques
    columns = [Column(c) if isinstance(c, str) else c for c in wanted if c != NATIVE]
    for column in columns:
        find_technique(column.technique)  # better to hear now than in an hour
    rows: list[Row] = []
    refusals: list[Refusal] = []
    total = len(subjects) * (len(columns) + 1)
    for number, subject in enumerate(subjects):
        done = number * (len(columns) + 1)
        progress(done, total, f"{subject.name} {NATIVE}")
        reference = _run_native(subject, repeat)
        rows.append(_row(subject, NATIVE, reference, reference))
        for place, column in enumerate(columns, 1):
            progress(done + place, total, f"{subject.name} {column}")
            try:
                outcome = _run_virtual(subject, column, reference, repeat)
            except HypervisorError as error:
                refusals.append(Refusal(subject.name, str(column), str(error)))
            else:
                rows.append(_row(subject, str(column), outcome, reference))
    progress(total, total, "")
    return Comparison(tuple(rows), tuple(refusals))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What some runs of the same had in common, and their wall time."""

    result: Result
    work: Mapping[str, int]
    exits: Mapping[str, int]
    wall: Wall


def _row(subject: Subject, technique: str, outcome: _Outcome, native: _Outcome) -> Row:
    result, reference = outcome.result, native.result
    cycles = result.cycles + (modelled_cycles(outcome.work) if outcome.work else 0)
    return Row(
        program=subject.name,
        technique=technique,
        ticks=result.ticks,
        executed=result.cycles,
        work=outcome.work,
        exits=outcome.exits,
        same=(result.output, result.status) == (reference.output, reference.status),
        ratio=cycles / max(reference.cycles, 1),
        wall=outcome.wall,
        wall_ratio=outcome.wall.median / native.wall.median,
    )


def _run_native(subject: Subject, repeat: int) -> _Outcome:
    image = subject.image()

    def run() -> _Outcome:
        machine = Machine(ram=subject.ram, console_in=subject.input)
        machine.load(image)
        result, wall = _time(machine, subject.ticks)
        return _Outcome(result, {}, {}, wall)

    return _repeated(run, repeat)


def _run_virtual(subject: Subject, column: Column, reference: _Outcome, repeat: int) -> _Outcome:
    image: Image = subject.image(variants(column.technique)[0])
    limit = min(subject.ticks, ASTRAY * reference.result.ticks + SPARE_TICKS)

    def run() -> _Outcome:
        vm = VirtualMachine(
            image,
            column.technique,
            ram=subject.ram,
            console_in=subject.input,
            virtualizable=column.virtualizable,
        )
        result, wall = _time(vm, limit)
        return _Outcome(result, _work(vm), dict(vm.counts), wall)

    return _repeated(run, repeat)


def _time(machine: Machine, ticks: int) -> tuple[Result, Wall]:
    start = time.perf_counter()
    result = machine.run(ticks)
    return result, Wall((time.perf_counter() - start,))


def _work(vm: VirtualMachine) -> dict[str, int]:
    """The hypervisor's work in a run, by the keys of hypervisor/cost.py."""
    interrupts = vm.exits[ExitReason.INTERRUPT]
    return {
        # An interrupt is an exit as well: the real machine's devices are the hypervisor's.
        "exits": sum(vm.counts.values()) + interrupts,
        "interpreted": vm.steps,
        "shadow_fill": vm.paging.fills,
        "injected": vm.reflected + interrupts,
        "device": vm.board.bus.accesses,
    }


def _repeated(run: Callable[[], _Outcome], repeat: int) -> _Outcome:
    """Run again until enough runs or seconds are spent; RuntimeError if two runs differ."""
    first = run()
    seconds = list(first.wall.seconds)
    while len(seconds) < repeat and sum(seconds) < LONG:
        again = run()
        if (again.result, again.work, again.exits) != (first.result, first.work, first.exits):
            raise RuntimeError("two runs of the same differ: the machine is not deterministic")
        seconds += again.wall.seconds
    return _Outcome(first.result, first.work, first.exits, Wall(tuple(seconds)))
