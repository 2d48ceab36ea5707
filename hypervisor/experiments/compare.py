"""`seventeen compare`: what techniques cost, workload by workload.

Two kinds of cycles stand in separate columns. *Executed* cycles are measured: what the core charges
for the guest's instructions, on the real CPU and on the virtual one, and natively for its devices.
*Modelled* cycles are the hypervisor's own work, counted and priced by hypervisor/cost.py. Both are
the same in every run. Wall time is only measured, and says as much of Python as of the technique.

    for row in compare(["quicksort", "ptemod"], ["trap", "paravirt"]).rows:
        print(row.program, row.technique, row.ratio)

A workload is a program, or an operation: then all figures are of the difference of two runs
(workloads.py). What follows from the rows is in orderings.py, what is drawn in compare_page.py.
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
from hypervisor.experiments.subjects import Image, Subject, variants
from hypervisor.experiments.workloads import Workload, find_workloads
from hypervisor.memory import choose_memory
from hypervisor.techniques import find_technique
from hypervisor.vm import VirtualMachine
from isa.cost import DEFAULT_MODEL, CostModel, find_model

NATIVE: Final = "native"
REPEAT: Final = 3
#: Seconds after which a run is not repeated: noise is small against it.
LONG: Final = 0.3
#: Seconds that a difference of two runs may be of by chance.
NOISE: Final = 0.0001
#: A run that goes astray is given so many times the native ticks, and some to spare.
ASTRAY, SPARE_TICKS = 2, 10_000


@dataclass(frozen=True, slots=True)
class Wall:
    """Wall time of runs, in seconds, the fastest first.

    Of differences: the fastest without the fastest, and so on; they may be noise alone.
    """

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """Of the fastest run: whatever else the machine does can only add to it."""
        return self.seconds[0]

    @property
    def is_noise(self) -> bool:
        """Was it too short to be told?"""
        return self.best <= NOISE

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def most(self) -> float:
        return max(self.seconds)

    def ratio(self, native: Wall) -> float | None:
        """Of the fastest runs; None where either is too short to be told."""
        return None if self.is_noise or native.is_noise else self.best / native.best


@dataclass(frozen=True, slots=True)
class Row:
    """One workload under one technique."""

    program: str  #: the workload
    kind: str
    technique: str  #: as `Column` prints it, or "native"
    mmu: str  #: how memory was virtualized; "" natively
    operations: int  #: that the figures are of
    ticks: int  #: guest time
    executed: int  #: cycles of the guest's own instructions
    modelled: int  #: cycles of the hypervisor's own work
    work: Mapping[str, int]  #: the hypervisor's, piece by piece: keys of hypervisor/cost.py
    exits: Mapping[str, int]  #: of the real CPU, by reason
    same: bool  #: output, status and guest time are as natively
    ratio: float  #: of all cycles to the native run's
    wall: Wall
    wall_ratio: float | None  #: of the fastest runs; None if too short to be told

    @property
    def cycles(self) -> int:
        """All machine time."""
        return self.executed + self.modelled

    def each(self, amount: float) -> float:
        """Of one operation."""
        return amount / self.operations


@dataclass(frozen=True, slots=True)
class Refusal:
    """A technique that cannot run a program, and why."""

    program: str
    technique: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outside:
    """A workload under somebody else's virtual machine: wall time alone."""

    program: str
    name: str
    operations: int
    wall: Wall
    wall_ratio: float | None  #: of one operation, to the native one


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, each workload's native one first, and what was refused."""

    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]
    model: CostModel
    workloads: tuple[Workload, ...] = ()
    columns: tuple[Column, ...] = ()
    outside: tuple[Outside, ...] = ()

    def row(self, program: str, technique: str) -> Row:
        """One row; KeyError if there is none."""
        for row in self.rows:
            if (row.program, row.technique) == (program, technique):
                return row
        raise KeyError((program, technique))

    def of(self, program: str) -> list[Row]:
        """All rows of a workload."""
        return [row for row in self.rows if row.program == program]

    @property
    def programs(self) -> list[str]:
        """The workloads' names, in order."""
        return list(dict.fromkeys(row.program for row in self.rows))

    @property
    def techniques(self) -> list[str]:
        """What they ran under, in order; without native."""
        return [t for t in dict.fromkeys(row.technique for row in self.rows) if t != NATIVE]


def compare(
    programs: Sequence[str | Path | Guest | Subject | Workload] | None = None,
    techniques: Sequence[str | Column] | None = None,
    *,
    repeat: int = REPEAT,
    cost_model: str = DEFAULT_MODEL,
    progress: Progress = lambda done, total, name: None,
) -> Comparison:
    """Run workloads natively and under techniques, and say what it cost.

    programs: names of workloads or guests, or paths; None for the default set. techniques: names or
    columns; None for all. repeat: runs of each, for the wall time; long ones are not repeated.
    """
    workloads = find_workloads(programs)
    columns = columns_of(techniques)
    model = find_model(cost_model)
    rows: list[Row] = []
    refusals: list[Refusal] = []
    total = len(workloads) * (len(columns) + 1)
    for number, workload in enumerate(workloads):
        done = number * (len(columns) + 1)
        progress(done, total, f"{workload.name} {NATIVE}")
        reference = _Runs(workload, None, model, repeat).both()
        rows.append(_row(workload, NATIVE, "", reference, reference, model))
        for place, column in enumerate(columns, 1):
            progress(done + place, total, f"{workload.name} {column}")
            try:
                outcome = _Runs(workload, column, model, repeat, reference).both()
            except HypervisorError as error:
                refusals.append(Refusal(workload.name, str(column), str(error)))
            else:
                mmu = choose_memory(column.mmu, find_technique(column.technique))
                rows.append(_row(workload, str(column), mmu, outcome, reference, model))
    progress(total, total, "")
    return Comparison(tuple(rows), tuple(refusals), model, tuple(workloads), tuple(columns))


def columns_of(techniques: Sequence[str | Column] | None) -> list[Column]:
    """Columns by name; HypervisorError for one that cannot be: better to hear now than later."""
    wanted = default_columns() if techniques is None else techniques
    columns = [Column.parse(c) if isinstance(c, str) else c for c in wanted if c != NATIVE]
    for column in columns:
        choose_memory(column.mmu, find_technique(column.technique))
    return columns


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What some runs of the same had in common, and their wall time."""

    result: Result
    work: Mapping[str, int]
    exits: Mapping[str, int]
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The runs of a workload, and those that are taken away, if there are any."""

    more: _Outcome
    less: _Outcome | None

    def figure(self, of: Callable[[_Outcome], int]) -> int:
        return of(self.more) - (of(self.less) if self.less else 0)

    def counts(self, of: Callable[[_Outcome], Mapping[str, int]]) -> dict[str, int]:
        """Of a count by name."""
        less = of(self.less) if self.less else {}
        return {key: count - less.get(key, 0) for key, count in of(self.more).items()}

    @property
    def wall(self) -> Wall:
        if self.less is None:
            return Wall(tuple(sorted(self.more.seconds)))
        pairs = zip(sorted(self.more.seconds), sorted(self.less.seconds), strict=True)
        return Wall(tuple(more - less for more, less in pairs))

    def same_as(self, native: _Pair) -> bool:
        """Whether both did what they do natively, and in as many ticks."""
        return all(
            _seen(mine.result) == _seen(its.result)
            for mine, its in ((self.more, native.more), (self.less, native.less))
            if mine and its
        )


def _seen(result: Result) -> tuple[bytes, int, int]:
    return result.output, result.status, result.ticks


def _row(
    workload: Workload, technique: str, mmu: str, pair: _Pair, native: _Pair, model: CostModel
) -> Row:
    work = pair.counts(lambda outcome: outcome.work)
    exits = pair.counts(lambda outcome: outcome.exits)
    executed = pair.figure(lambda outcome: outcome.result.cycles)
    modelled = modelled_cycles(work, model)
    return Row(
        program=workload.name,
        kind=workload.kind,
        technique=technique,
        mmu=mmu,
        operations=workload.operations,
        ticks=pair.figure(lambda outcome: outcome.result.ticks),
        executed=executed,
        modelled=modelled,
        work=work,
        exits={reason: count for reason, count in exits.items() if count},
        same=pair.same_as(native),
        ratio=(executed + modelled) / max(native.figure(lambda run: run.result.cycles), 1),
        wall=pair.wall,
        wall_ratio=pair.wall.ratio(native.wall),
    )


class _Runs:
    """The runs of a workload natively, or under a technique."""

    def __init__(
        self,
        workload: Workload,
        column: Column | None,
        model: CostModel,
        repeat: int,
        native: _Pair | None = None,
    ) -> None:
        self._workload, self._column = workload, column
        self._model, self._repeat, self._native = model, repeat, native

    def both(self) -> _Pair:
        """All of them; HypervisorError if the technique cannot run the program."""
        workload, native = self._workload, self._native
        more = self._outcome(workload.subject, native.more if native else None)
        if workload.less is None:
            return _Pair(more, None)
        less = self._outcome(workload.less, native.less if native else None, len(more.seconds))
        return _Pair(more, less)

    def _outcome(self, subject: Subject, native: _Outcome | None, exactly: int = 0) -> _Outcome:
        """Run until enough runs or seconds are spent; RuntimeError if two runs differ."""
        variant = variants(self._column.technique)[0] if self._column else None
        image, ticks = subject.image(variant), subject.ticks
        if native:
            ticks = min(ticks, ASTRAY * native.result.ticks + SPARE_TICKS)
        first = self._once(subject, image, ticks)
        seconds = list(first.seconds)
        while len(seconds) < exactly or (
            not exactly and len(seconds) < self._repeat and sum(seconds) < LONG
        ):
            again = self._once(subject, image, ticks)
            if (again.result, again.work, again.exits) != (first.result, first.work, first.exits):
                raise RuntimeError("two runs of the same differ: the machine is not deterministic")
            seconds += again.seconds
        return _Outcome(first.result, first.work, first.exits, tuple(seconds))

    def _once(self, subject: Subject, image: Image, ticks: int) -> _Outcome:
        machine = machine_for(subject, self._column, self._model.name)
        machine.load(image, kernel_args=subject.kernel_args)
        start = time.perf_counter()
        result = machine.run(ticks)
        seconds = time.perf_counter() - start
        if isinstance(machine, VirtualMachine):
            return _Outcome(result, _work(machine), dict(machine.counts), (seconds,))
        return _Outcome(result, {}, {}, (seconds,))


def machine_for(subject: Subject, column: Column | None, cost_model: str) -> Machine:
    """A machine for a subject, bare if there is no column; nothing is loaded yet."""
    if column is None:
        return Machine(cost_model=cost_model, **subject.options)
    return VirtualMachine(
        technique=column.technique,
        mmu=column.mmu,
        virtualizable=column.virtualizable,
        cost_model=cost_model,
        **subject.options,
    )


def _work(vm: VirtualMachine) -> dict[str, int]:
    """The hypervisor's work in a run, by the keys of hypervisor/cost.py."""
    interrupts = vm.exits[ExitReason.INTERRUPT]
    return {
        # An interrupt is an exit as well: the real machine's devices are the hypervisor's.
        "guest_exits" if vm.technique.guest_mode else "exits": sum(vm.counts.values()) + interrupts,
        "interpreted": vm.steps,
        "shadow_fill": vm.paging.fills,
        "injected": vm.reflected + interrupts,
        "device": vm.board.bus.accesses,
        **vm.technique.work(),
    }
