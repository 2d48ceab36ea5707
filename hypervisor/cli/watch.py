"""`seventeen run --watch`: exits by reason while the guest runs, as kvm_stat shows them.

A thread looks at the machine's counts twice a second: the core runs without Python's lock, and to
read a count changes nothing. On a terminal a table stays in place below what the guest prints;
elsewhere it is a line at a time, of what is new.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from emulator.machine import Machine

INTERVAL: Final = 0.5  #: seconds
LEAST: Final = 1e-3  #: seconds that a rate is made of
MOST: Final = 12  #: reasons in the table

Exits = dict[str, int]


def exits_of(machine: Machine) -> Exits:
    """Exits so far, by reason: the real CPU's if it is virtualized."""
    from emulator.core import ExitReason

    counts: Any = getattr(machine, "counts", None)
    if counts is not None:
        return {reason: counts[reason] for reason in list(counts)}
    return {r.name.lower(): machine.exits[r] for r in ExitReason if machine.exits[r]}


class Line(NamedTuple):
    """One reason: exits in all, and how many a second since the last look."""

    reason: str
    total: int
    rate: float


class Watch:
    """What has been seen of a machine's exits."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._before: Exits = {}
        self._when = time.monotonic()

    def look(self) -> list[Line]:
        """Every reason that there is, the fastest growing since the last look first."""
        now, when = exits_of(self._machine), time.monotonic()
        seconds = max(when - self._when, LEAST)
        lines = [
            Line(reason, total, (total - self._before.get(reason, 0)) / seconds)
            for reason, total in now.items()
        ]
        self._before, self._when = now, when
        return sorted(lines, key=lambda line: (-line.rate, -line.total, line.reason))


def as_text(lines: list[Line], ticks: int) -> str:
    """One line: what has happened since the last look."""
    fresh = [line for line in lines if line.rate > 0]
    shown = ", ".join(
        f"{line.reason} {line.total:,} (+{line.rate:,.0f}/s)" for line in fresh[:MOST]
    )
    return f"watch: tick {ticks:,}: {shown or 'no exits'}"


def as_table(lines: list[Line], ticks: int) -> Any:
    """The same as a table of rich."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("exit", box=SIMPLE_HEAD, title=f"exits at tick {ticks:,}", title_justify="left")
    table.add_column("total", justify="right")
    table.add_column("a second", justify="right")
    for line in lines[:MOST]:
        table.add_row(Text(line.reason), f"{line.total:,}", f"{line.rate:,.0f}")
    return table


@contextlib.contextmanager
def watching(machine: Machine) -> Iterator[None]:
    """Show exits on stderr until the block ends, and once more then."""
    watch = Watch(machine)
    with _display() as show:
        done = threading.Event()

        def loop() -> None:
            while not done.wait(INTERVAL):
                show(watch.look(), machine.ticks)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            show(watch.look(), machine.ticks)


@contextlib.contextmanager
def _display() -> Iterator[Callable[[list[Line], int], object]]:
    if not sys.stderr.isatty():
        yield lambda lines, ticks: print(as_text(lines, ticks), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
        yield lambda lines, ticks: live.update(as_table(lines, ticks), refresh=True)
