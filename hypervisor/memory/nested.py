"""Nested page tables: the guest's own tables, and below them ours.

The hardware walks both (csrc/nested.c): the guest's, which we never look at, give a guest-physical
address, and ours a machine address for it. So a guest changes its tables as it likes, without an
exit; only a page that we have not mapped yet is one, a violation. Ours change with the guest's
memory alone. What the price is: a TLB miss walks in two dimensions.

The entries' accessed and dirty bits are the hardware's, and tell which memory the guest has used.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import GuestMemory
from hypervisor.memory.base import GuestPaging
from hypervisor.monitor import ACCESSED, DIRTY, PRESENT, USER, WRITABLE

if TYPE_CHECKING:
    from emulator.core import Cpu
    from hypervisor.host import Host

PAGE: Final = 4096
ENTRIES: Final = 1024
GROUP: Final = 64  #: entries that are made at once
WORD: Final = struct.Struct("<I")
RIGHTS: Final = PRESENT | WRITABLE | USER


class NestedPaging(GuestPaging):
    """The host's tables for one guest's physical memory."""

    nested = True

    def __init__(
        self, host: Host, memory: GuestMemory, cpu: Cpu, monitor_table: int | None
    ) -> None:
        del cpu, monitor_table  # neither the guest's tables nor its linear space concern us
        super().__init__(host, memory)
        self._directory = host.allocate_zeroed()
        self._tables: dict[int, int] = {}  #: index in the directory -> machine page of the table

    def root(self) -> int:
        return self._directory << 12

    def violated(self, physical: int) -> None:
        """Map a guest-physical address, and what lies around it."""
        upper, index = physical >> 22, physical >> 12 & (ENTRIES - 1)
        table = self._tables.get(upper)
        if table is None:
            table = self._tables[upper] = self._host.allocate_zeroed()
            self._write(self._directory, upper, array("I", [table << 12 | RIGHTS]))
        first = index & -GROUP
        pages = range(upper * ENTRIES + first, upper * ENTRIES + first + GROUP)
        # Where there is no memory the machine has none either: reads are all ones.
        entries = array("I", [self._memory.frame(page) << 12 | RIGHTS for page in pages])
        self._write(table, first, entries)
        self.fills += GROUP
        self._say("map guest-physical %08x, pages %d", pages.start << 12, GROUP)

    def _write(self, frame: int, index: int, entries: array[int]) -> None:
        self._host.memory.write(frame << 12 | index * WORD.size, entries.tobytes())

    def used(self, bit: int = ACCESSED) -> set[int]:
        """Guest pages that the guest has read or written, or with DIRTY, written."""
        found = set()
        for upper, entries in self._read():
            found |= {upper * ENTRIES + i for i, entry in enumerate(entries) if entry & bit}
        return found

    def take_dirty(self) -> set[int]:
        """Guest pages written to since the last time; from now on they are clean."""
        dirty = self.used(DIRTY)
        for upper, entries in self._read():
            self._write(self._tables[upper], 0, array("I", [e & ~DIRTY for e in entries]))
        self.stale = True  # while the TLB says that a page is dirty, stores do not say so again
        return dirty

    def _read(self) -> Iterator[tuple[int, array[int]]]:
        for upper, table in self._tables.items():
            yield upper, array("I", self._host.memory.read(table << 12, PAGE))

    def clear(self) -> None:
        self._say("unmap all")
        for table in self._tables.values():
            self._host.free(table)
        self._tables.clear()
        self._host.memory.write(self._directory << 12, bytes(PAGE))
        self.stale = True
