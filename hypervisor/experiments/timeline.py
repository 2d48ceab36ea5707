"""When a guest left the CPU, for what, and how long the hypervisor had it: a run over machine time.

Machine time is the guest's executed cycles and the hypervisor's modelled ones (hypervisor/cost.py),
one after the other. A `Recorder` listens to the counting of exits, which is at the start of each;
what the hypervisor does until the next one is charged to the one before. timeline_page.py draws it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from hypervisor.cost import modelled_cycles
from hypervisor.experiments.compare import _work, machine_for
from hypervisor.experiments.subjects import variants
from hypervisor.outcome import Counts
from hypervisor.trace import TracedCounts
from hypervisor.vm import VirtualMachine

if TYPE_CHECKING:
    from hypervisor.experiments.fidelity import Column
    from hypervisor.experiments.subjects import Subject

#: Exits that are kept; of a longer run the rest is only counted.
MOST: Final = 200_000


@dataclass(frozen=True, slots=True)
class Exit:
    """One exit, in cycles of machine time from the start."""

    reason: str
    start: int
    hypervisor: int  #: cycles that the hypervisor works because of it

    @property
    def end(self) -> int:
        """When the guest goes on."""
        return self.start + self.hypervisor


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run: its exits in order, and machine time at its end."""

    name: str
    exits: tuple[Exit, ...]
    end: int
    left_out: int = 0  #: exits that were too many to keep
    kept: int | None = None  #: machine time until which they are kept; None for all of it

    @property
    def known(self) -> int:
        """Machine time of which it is known whose it was."""
        return self.end if self.kept is None else self.kept

    def shares(self, bins: int, until: int) -> list[float]:
        """The hypervisor's share of the time in each of so many equal parts of [0, until)."""
        width = max(until / bins, 1e-9)
        used = [0.0] * bins
        for exit in self.exits:
            first = int(exit.start / width)
            last = min(int(exit.end / width), bins - 1)
            for number in range(first, last + 1):
                inside = min(exit.end, (number + 1) * width) - max(exit.start, number * width)
                used[number] += max(inside, 0.0)
        return [min(cycles / width, 1.0) for cycles in used]

    def by_reason(self) -> dict[str, tuple[int, int]]:
        """Reason -> how many exits, and cycles of the hypervisor's; most cycles first."""
        found: dict[str, tuple[int, int]] = {}
        for exit in self.exits:
            count, cycles = found.get(exit.reason, (0, 0))
            found[exit.reason] = count + 1, cycles + exit.hypervisor
        return dict(sorted(found.items(), key=lambda item: (-item[1][1], item[0])))


class HeardCounts(Counts):
    """Exits by reason; a recorder hears of each before it is counted."""

    def __init__(self, before: Counts, recorder: Recorder) -> None:
        super().__init__(before)
        self._before, self._recorder = before, recorder

    def __setitem__(self, reason: str, count: int) -> None:
        self._recorder.note(reason)
        super().__setitem__(reason, count)
        if isinstance(self._before, TracedCounts):
            self._before[reason] = count  # -d exits wants to hear of it, too


class Recorder:
    """Records the exits of one virtual machine from now on."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._marks: list[tuple[str, int, int]] = []  #: reason, executed, modelled
        self._left_out = 0
        self._closed: tuple[int, int] | None = None  #: when the first that is left out came
        vm.counts = HeardCounts(vm.counts, self)

    def note(self, reason: str) -> None:
        """An exit, which is about to be counted."""
        if len(self._marks) == MOST:
            self._left_out += 1
            self._closed = self._closed or self._now()
            return
        self._marks.append((reason, *self._now()))

    def _now(self) -> tuple[int, int]:
        vm = self._vm
        return vm.cycles, modelled_cycles(_work(vm), vm.host.cost_model)

    def finish(self, name: str) -> Timeline:
        """What has been recorded."""
        now = self._now()
        marks = [*self._marks, ("", *(self._closed or now))]
        exits = tuple(
            Exit(reason, executed + modelled, after - modelled)
            for (reason, executed, modelled), (_, _, after) in pairwise(marks)
        )
        kept = sum(self._closed) if self._closed else None
        return Timeline(name, exits, sum(now), self._left_out, kept)


@contextlib.contextmanager
def recorded(
    vm: VirtualMachine, program: str, technique: str, write: Callable[[str], object]
) -> Iterator[None]:
    """Record what a machine does in the block, and have a page of it written."""
    from hypervisor.experiments.timeline_page import as_page

    recorder = Recorder(vm)
    yield
    write(as_page(recorder.finish(technique), program, vm.host.cost_model))


def record(subject: Subject, column: Column, cost_model: str) -> Timeline:
    """Run a program under a technique, and record it."""
    image = subject.image(variants(column.technique)[0])
    vm = machine_for(subject, column, cost_model)
    assert isinstance(vm, VirtualMachine)
    recorder = Recorder(vm)
    vm.load(image, kernel_args=subject.kernel_args)
    vm.run(subject.ticks)
    return recorder.finish(str(column))
