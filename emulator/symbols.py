"""Names for addresses, for the lines that say where a guest died and what a trace shows.

Whoever has a program's symbols gives them to the machine as an object with these two methods. An
assembled program brings its own; hypervisor/symbols.py reads those of an ELF.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Protocol


class Symbolizer(Protocol):
    """What is at a linear address."""

    def name(self, address: int) -> str:
        """``symbol+0x12``, or nothing."""

    def line(self, address: int) -> str:
        """``file:line``, or nothing."""


class Symbols:
    """A `Symbolizer` of names and addresses alone."""

    def __init__(self, addresses: Mapping[str, int] | None = None) -> None:
        by_address = sorted((address, name) for name, address in (addresses or {}).items())
        self._addresses = [address for address, _ in by_address]
        self._names = [name for _, name in by_address]

    def name(self, address: int) -> str:
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return ""
        offset = address - self._addresses[index]
        return self._names[index] + (f"+{offset:#x}" if offset else "")

    def line(self, address: int) -> str:
        return ""
