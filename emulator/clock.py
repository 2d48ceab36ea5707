"""Guest time: what is due when, and the one queue through which the outside world enters.

Guest time is counted in ticks, one for each guest instruction retired; no wall clock has a part in
it. Devices ask to be woken at a tick. A wake-up is plain data, (tick, device name, tag), so that a
snapshot holds it; the device finds what to do in its own state. Read devices/device.py next.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

#: The guest's speed by its own clocks. 100 million instructions a second is about what the core
#: runs, so guest seconds and wall seconds are alike where a person watches.
TICKS_PER_SECOND: Final = 100_000_000
#: Later than any tick.
NEVER: Final = (1 << 64) - 1


def units_at(tick: int, hertz: int) -> int:
    """Whole periods of a clock of `hertz` that have passed since tick 0."""
    return tick * hertz // TICKS_PER_SECOND


def tick_of(unit: int, hertz: int) -> int:
    """The first tick at which `units_at` yields `unit`: exact, so clocks never drift apart."""
    return -(-unit * TICKS_PER_SECOND // hertz)


class Clock:
    """The current tick, and the wake-ups ahead. `next_tick` is the earliest, or NEVER."""

    def __init__(self) -> None:
        self.now = 0
        self.next_tick = NEVER
        self._due: dict[tuple[str, str], int] = {}
        # Entries that no longer agree with _due are stale and skipped: cancelling costs no search.
        self._heap: list[tuple[int, str, str]] = []

    def schedule(self, device: str, tag: str, tick: int) -> None:
        """Wake `device` with `tag` at `tick`, and not when it was to be woken with it before."""
        self._due[device, tag] = tick
        heapq.heappush(self._heap, (tick, device, tag))
        self._settle()

    def cancel(self, device: str, tag: str) -> None:
        """Forget the wake-up, if there is one."""
        if self._due.pop((device, tag), None) is not None:
            self._settle()

    def take_due(self) -> Iterator[tuple[str, str]]:
        """Remove and yield the wake-ups due by now; at one tick, in the order of their names."""
        while self.next_tick <= self.now:
            _, device, tag = heapq.heappop(self._heap)
            del self._due[device, tag]
            self._settle()
            yield device, tag

    def _settle(self) -> None:
        heap, due = self._heap, self._due
        while heap and due.get((heap[0][1], heap[0][2])) != heap[0][0]:
            heapq.heappop(heap)
        self.next_tick = heap[0][0] if heap else NEVER

    def save(self) -> dict[str, Any]:
        """The wake-ups as plain data. `now` is the CPU's to save."""
        return {"due": sorted((tick, *key) for key, tick in self._due.items())}

    def load(self, saved: dict[str, Any]) -> None:
        """Take back what `save` returned."""
        self._heap = [(tick, device, tag) for tick, device, tag in saved["due"]]
        heapq.heapify(self._heap)
        self._due = {(device, tag): tick for tick, device, tag in self._heap}
        self._settle()


class Input(NamedTuple):
    """Bytes from outside for a device, stamped with guest time. No bytes: there will be no more."""

    tick: int
    device: str
    data: bytes


class InputQueue:
    """Every outside input passes through here; `log` is what a replay has to feed in again."""

    def __init__(self) -> None:
        self.log: list[Input] = []
        self._waiting: deque[Input] = deque()

    def push(self, entry: Input) -> None:
        """Add an input; inputs come in the order of their ticks."""
        self._waiting.append(entry)
        self.log.append(entry)

    def take_due(self, now: int) -> Iterator[Input]:
        """Remove and yield the inputs stamped `now` or earlier."""
        while self._waiting and self._waiting[0].tick <= now:
            yield self._waiting.popleft()
