"""Something to do before a signal ends the process: write disks out, put a terminal back.

Whoever had the signals before has them afterwards: what is to be done nests, the last first.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class _Ending:
    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        for number in ENDING:
            with contextlib.suppress(ValueError):  # not the main thread: signals are not ours
                self._before[number] = signal.signal(number, self._end)

    def remove(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _end(self, number: int, frame: FrameType | None) -> None:
        """Do it; the signal is then whoever's it was before."""
        del frame
        self._act()
        self.remove()
        os.kill(os.getpid(), number)


@contextlib.contextmanager
def before_ending(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` if a signal is about to end the process within the block."""
    ending = _Ending(act)
    ending.install()
    try:
        yield
    finally:
        ending.remove()
