"""Patch memory: where the code that patches lead to stands; read-only to ring 1.

Room is taken from the first hole that is large enough, and given back when a patch is removed; if
there is none, nothing can be patched any more but by INT3 and the hypervisor.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hypervisor.translator import layout
from hypervisor.translator.codepages import CodePages
from hypervisor.translator.writer import DISPLACEMENT

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.monitor import Monitor
    from hypervisor.patcher.patches import Patch
    from hypervisor.translator.unit import Place

DEFAULT_BYTES: Final = 1 << 18


class PatchMemory:
    """The patch memory of one virtual machine."""

    def __init__(self, host: Host, monitor: Monitor, size: int = DEFAULT_BYTES) -> None:
        self.size = size
        self._pages = CodePages(host, monitor)
        self._holes: list[tuple[int, int]] = [(layout.CODE, size)]  #: linear address, bytes
        self._starts: list[int] = []
        self._patches: dict[int, Patch] = {}  #: by start
        self.taken_back = 0  #: bytes
        self.on_placed: Callable[[Patch], object] = lambda patch: None  #: a debugger's

    def holds(self, linear: int) -> bool:
        """Is a linear address in patch memory?"""
        return layout.CODE <= linear < layout.CODE + self.size

    def add(self, patch: Patch) -> None:
        """Give a patch's code its place, and let its jumps lead where they are to."""
        size = len(patch.code)
        number = next((n for n, hole in enumerate(self._holes) if hole[1] >= size), None)
        if number is None:
            patch.code = b""
            return
        start, room = self._holes[number]
        self._holes[number : number + 1] = [(start + size, room - size)] if room > size else []
        patch.start = start
        insort(self._starts, start)
        self._patches[start] = patch
        code = bytearray(patch.code)
        for link in patch.links:
            offset = patch.inside.get(link.eip)
            to = link.eip if offset is None else start + offset
            after = link.displacement + DISPLACEMENT
            distance = (to - start - after) & 0xFFFF_FFFF
            code[link.displacement : after] = distance.to_bytes(DISPLACEMENT, "little")
        self._pages.write(start, bytes(code))
        self._pages.set_weights(start, size, patch.weightless)
        self.on_placed(patch)

    def free(self, patch: Patch) -> None:
        """Take a patch's room back."""
        if not patch.start:
            return
        self._starts.remove(patch.start)
        del self._patches[patch.start]
        insort(self._holes, (patch.start, len(patch.code)))
        self.taken_back += len(patch.code)
        merged: list[tuple[int, int]] = []
        for start, size in self._holes:
            if merged and sum(merged[-1]) == start:
                merged[-1] = merged[-1][0], merged[-1][1] + size
            else:
                merged.append((start, size))
        self._holes = merged
        patch.start = 0

    def place(self, linear: int) -> Place | None:
        """What stands at a linear address; None if no instruction of ours begins there."""
        number = bisect_right(self._starts, linear) - 1
        if number < 0:
            return None
        start = self._starts[number]
        return self._patches[start].places.get(linear - start)
