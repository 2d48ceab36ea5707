"""Pages of the monitor area that hold code of our own, and what of it takes no tick.

The pages are mapped as code comes to them, read-only to ring 1. cache.py and the patcher's
memory.py say where in them code goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hypervisor.guest_memory import PAGE

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.monitor import Monitor


class CodePages:
    """Those of one virtual machine. user: ring 3 may execute there, too."""

    def __init__(self, host: Host, monitor: Monitor, *, user: bool = False) -> None:
        self._host, self._monitor, self._user = host, monitor, user
        self._weights: dict[int, int] = {}  #: linear page -> a bit a byte

    def write(self, linear: int, data: bytes) -> None:
        """Write code, or a piece of it."""
        done = 0
        while done < len(data):
            at = linear + done
            step = min(len(data) - done, PAGE - at % PAGE)
            if at & -PAGE not in self._weights:
                self._monitor.map(at & -PAGE, PAGE, writable=False, user=self._user)
                self._weights[at & -PAGE] = 0
            self._monitor.write(at, data[done : done + step])
            done += step

    def set_weights(self, linear: int, size: int, weightless: Iterable[int]) -> None:
        """Say which bytes begin an instruction that takes no tick; the others begin none."""
        marks = 0
        for offset in weightless:
            marks |= 1 << offset
        done = 0
        while done < size:
            page, at = linear + done & -PAGE, (linear + done) % PAGE
            step = min(size - done, PAGE - at)
            mask = (1 << step) - 1
            bits = self._weights[page] & ~(mask << at) | (marks >> done & mask) << at
            self._weights[page] = bits
            frame = self._monitor.machine(page) >> 12
            self._host.memory.set_weights(frame, bits.to_bytes(PAGE // 8, "little"))
            done += step
