"""Shared page tables: the guest's own tables, which the real CPU walks as they are.

Nothing in them needs translating, for the guest's memory is the machine pages of the same numbers
(`direct`; guest_memory.py). But the guest must not write what the hardware believes. So we type
frames, as Xen's direct paging does (Barham et al. 2003, 3.3): when CR3 names a directory it is
validated, and what it leads to: its page is a `directory`, those below are `table`s. A page with a
type is traced - no entry of a valid table maps it writable - so a store to it faults, is
interpreted, and the entries that it changed are validated again. A directory is never used as a
table. A table keeps its type while a directory refers to it; a directory that is not in use loses
its own when it is written to, for it will be filled or is something else now.

A guest must not be stopped for what a bare machine allows, so an entry that we cannot let the
hardware have is not refused but *veiled*: changed while the real CPU runs, and put back before
anybody else looks (`veil`, `unveil`). Veiled are

    entries that map a traced page writable       read-only for the hardware
    the top entry of a directory                  the monitor's; the guest reaches its own memory
                                                  there through the virtual CPU
    entries of pages that the guest does not own  lead beyond all memory: reads are all ones
    4 MiB pages                                   tables of ours, where single pages may be traced
    entries of devices' pages                     not present: the virtual CPU makes the access
    reserved bits, directories used as tables     not present

What the veil forbids but the guest's tables allow, the virtual CPU does: it sees the tables as the
guest wrote them, as snapshots and comparisons do. A guest that reads its own tables on the real
CPU finds the hardware's entries: a cleared write bit in those that map tables, and ours in the top
one, as Xen's guests do; what is not present to it reads as 0. Accessed and dirty bits are the
hardware's own, in the guest's tables. The real CR0.WP is always 1: what a kernel may write under a
virtual WP=0 is interpreted. While paging is off, tables of ours map all memory one to one.
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final

from emulator.core import Access, Cpu
from hypervisor.guest_memory import NO_FRAME, GuestMemory
from hypervisor.memory.base import GuestPaging
from hypervisor.memory.shadow import CR0_PG, CR4_PSE, Verdict, changed_entries
from hypervisor.monitor import ACCESSED, DIRECTORY_INDEX, DIRTY, PRESENT, USER, WRITABLE

if TYPE_CHECKING:
    from hypervisor.host import Host

PAGE: Final = 4096
ENTRIES: Final = 1024
LARGE: Final = 128  #: in a directory: a 4 MiB page; in a table: reserved; both if CR4.PSE
LARGE_RESERVED: Final = 0x003F_F000
FLAGS: Final = PAGE - 1  #: of an entry, without its page
USED: Final = ACCESSED | DIRTY
ALL: Final = PRESENT | WRITABLE | USER | ACCESSED
#: Directories that stay valid while they are not in use.
MOST_DIRECTORIES: Final = 64
MOST_SPANS: Final = 256  #: tables of ours, 4 KiB each, before all are dropped
LEAST_FREE: Final = 4  #: frames that the host shall keep
WORD: Final = struct.Struct("<I")
TABLES: Final = "tables"  #: whom pages are traced for: descriptor tables, IDT, TSS
WRITE: Final = int(Access.WRITE)
AS_USER: Final = int(Access.USER)


class Veil(Enum):
    """What the hardware sees of an entry instead."""

    READ_ONLY = "read-only"
    NOWHERE = "nowhere"  #: it leads to a page beyond all memory
    ABSENT = "absent"
    SPLIT = "split"  #: a 4 MiB page: a table of ours
    MONITOR = "monitor"


class Typed:
    """A guest page that the hardware uses as a table or directory."""

    def __init__(self, page: int, kind: str, copy: array[int]) -> None:
        self.page = page
        self.kind = kind  #: "directory" or "table"
        self.copy = copy  #: its entries as they were validated, up to accessed and dirty bits
        self.veils: dict[int, Veil] = {}
        self.children: dict[int, Typed] = {}  #: of a directory: index -> table
        self.users: set[tuple[Typed, int]] = set()  #: of a table: directories and indices


class SharedPaging(GuestPaging):
    """Page tables of one virtual CPU, shared with the hardware.

    cpu: the virtual CPU, whose control registers count. monitor_table: machine page of the table
    that the top of linear space has.
    """

    direct = True

    def __init__(
        self, host: Host, memory: GuestMemory, cpu: Cpu, monitor_table: int | None
    ) -> None:
        super().__init__(host, memory)
        self._cpu = cpu
        assert monitor_table is not None
        self._monitors_entry = monitor_table << 12 | PRESENT | WRITABLE | ACCESSED
        #: All of the machine's memory. Page flags are passed by: what is code in a page of tables
        #: is as old when the veil is lifted as it was before.
        self._words = host.memory.view(0, host.memory.size).cast("I")
        self._directories: OrderedDict[int, Typed] = OrderedDict()
        self._tables: dict[int, Typed] = {}
        self._live: Typed | None = None  #: the directory in CR3
        self._extensions = False  #: CR4.PSE, under which all of them are valid
        #: Page -> entries of valid tables that map it, and would have it writable.
        self._writers: dict[int, set[tuple[Typed, int]]] = defaultdict(set)
        self._traced: set[int] = set()
        self._others: dict[int, set[str]] = defaultdict(set)  #: page -> for whom else it is traced
        self._spans: dict[tuple[int, int], int] = {}  #: first page and rights -> table of ours
        self._flat = self._own_directory()  #: for paging off: filled on demand
        self._none = self._own_directory()  #: for a CR3 that names no memory
        self._read_only: list[int] | None = None  #: places of veiled entries; None: look again
        self._veiled: list[tuple[int, Veil]] = []  #: of the others
        self._saved: list[tuple[int, int, int]] = []  #: place, entry, bits that the hardware sets
        self._fresh = -1  #: a page whose copy had the newest accessed and dirty bits

    def _own_directory(self) -> int:
        frame = self._host.allocate_zeroed()
        self._put(frame, DIRECTORY_INDEX, self._monitors_entry)
        return frame

    def _put(self, frame: int, index: int, entry: int) -> None:
        self._host.memory.write(frame << 12 | index * 4, WORD.pack(entry))

    # -- the address space in use ------------------------------------------------------------------

    def root(self) -> int:
        """Machine address of the directory that CR3 names, which is valid now."""
        state = self._cpu.state
        before, self._live = self._live, None
        if not state.cr0 & CR0_PG:
            frame = self._flat
        else:
            self._check_extensions(bool(state.cr4 & CR4_PSE))
            frame = state.cr3 >> 12
            if not self._memory.is_memory(frame):
                frame = self._none
            else:
                self._live = self._directories.get(frame) or self._pin(frame)
                self._directories.move_to_end(frame)
        if self._live is not before:
            self._read_only = None
        return int(frame) << 12

    def _check_extensions(self, extensions: bool) -> None:
        """What large and reserved entries are depends on CR4.PSE."""
        if extensions != self._extensions:
            self.clear()
            self._extensions = extensions

    def _pin(self, page: int) -> Typed:
        """Validate a directory."""
        table = self._tables.get(page)
        if table is not None:
            self._drop_users(table)
        while len(self._directories) >= MOST_DIRECTORIES:
            self._drop(next(iter(self._directories.values())))
        directory = Typed(page, "directory", self._read(page))
        self._directories[page] = directory
        self._protect(page)
        directory.veils[DIRECTORY_INDEX] = Veil.MONITOR
        for index, entry in enumerate(directory.copy):
            if entry & PRESENT:
                self._admit(directory, index, entry)
        self._say("validate the directory at %08x, tables %d", page << 12, len(directory.children))
        return directory

    def _read(self, page: int) -> array[int]:
        return array("I", self._memory.read(page << 12, PAGE))

    # -- validation --------------------------------------------------------------------------------

    def _admit(self, typed: Typed, index: int, entry: int) -> None:
        """Decide what the hardware may see of a present entry."""
        self.fills += 1
        if typed.kind == "table":
            veil = self._admit_page(typed, index, entry)
        elif index == DIRECTORY_INDEX:
            return
        else:
            veil = self._admit_table(typed, index, entry)
        if veil is not None:
            typed.veils[index] = veil
            self._read_only = None

    def _admit_page(self, table: Typed, index: int, entry: int) -> Veil | None:
        page = entry >> 12
        if (self._extensions and entry & LARGE) or self._memory.is_barred(page):
            return Veil.ABSENT
        if page >= self._memory.count:
            return None if page in self._memory.lent else Veil.NOWHERE
        if not entry & WRITABLE:
            return None
        self._writers[page].add((table, index))
        return Veil.READ_ONLY if page in self._traced else None

    def _admit_table(self, directory: Typed, index: int, entry: int) -> Veil | None:
        page = entry >> 12
        if self._extensions and entry & LARGE:
            return Veil.ABSENT if entry & LARGE_RESERVED else Veil.SPLIT
        if not self._memory.is_memory(page):  # its entries read as all ones
            return Veil.ABSENT if self._extensions else Veil.NOWHERE
        if page in self._directories:
            return Veil.ABSENT
        table = self._tables.get(page) or self._make_table(page)
        table.users.add((directory, index))
        directory.children[index] = table
        self._read_only = None
        return None

    def _make_table(self, page: int) -> Typed:
        table = self._tables[page] = Typed(page, "table", self._read(page))
        self._protect(page)
        for index, entry in enumerate(table.copy):
            if entry & PRESENT:
                self._admit(table, index, entry)
        return table

    def _retract(self, typed: Typed, index: int) -> None:
        """Undo `_admit`."""
        if typed.veils.get(index) is not Veil.MONITOR and typed.veils.pop(index, None) is not None:
            self._read_only = None
        child = typed.children.pop(index, None)
        if child is not None:
            child.users.discard((typed, index))
            self._read_only = None
            if not child.users:
                self._drop_table(child)
        elif typed.kind == "table":
            self._writers[typed.copy[index] >> 12].discard((typed, index))

    def _drop_table(self, table: Typed) -> None:
        for index, entry in enumerate(table.copy):
            if entry & PRESENT:
                self._retract(table, index)
        del self._tables[table.page]
        self._unprotect(table.page)

    def _drop(self, directory: Typed) -> None:
        """A directory is none any more; nor are the tables that it alone refers to."""
        self._say("drop the directory at %08x", directory.page << 12)
        for index in list(directory.children):
            self._retract(directory, index)
        del self._directories[directory.page]
        self._unprotect(directory.page)
        self._read_only = None
        self.stale = True

    def _drop_users(self, table: Typed) -> None:
        for directory in {directory for directory, _ in table.users}:
            self._drop(directory)

    # -- the veil ----------------------------------------------------------------------------------

    def runner(self, run: Callable[[int], int]) -> Callable[[int], int]:
        def veiled(until: int) -> int:
            self.veil()
            try:
                return run(until)
            finally:
                self.unveil()

        return veiled

    def veil(self) -> None:
        """Make the live tables what the hardware may use."""
        if self._live is None:
            return
        if self._read_only is None:
            self._place_veils()
            assert self._read_only is not None
        words = self._words
        for place in self._read_only:
            words[place] &= ~WRITABLE & 0xFFFF_FFFF
        for place, veil in self._veiled:
            entry = words[place]
            words[place] = new = self._instead(veil, entry)
            self._saved.append((place, entry, USED if veil is Veil.NOWHERE and new else 0))

    def unveil(self) -> None:
        """Make them what the guest has written, with the hardware's marks."""
        if self._live is None:
            return
        words = self._words
        for place, entry, marks in self._saved:
            words[place] = entry | words[place] & marks
        self._saved.clear()
        for place in self._read_only or ():
            words[place] |= WRITABLE

    def _place_veils(self) -> None:
        self._read_only, self._veiled = [], []
        assert self._live is not None
        for typed in {self._live, *self._live.children.values()}:
            start = typed.page * ENTRIES
            for index, veil in typed.veils.items():
                if veil is Veil.READ_ONLY:
                    self._read_only.append(start + index)
                else:
                    self._veiled.append((start + index, veil))

    def _instead(self, veil: Veil, entry: int) -> int:
        if veil is Veil.MONITOR:
            return self._monitors_entry
        if veil is Veil.NOWHERE:
            return entry & FLAGS | NO_FRAME << 12
        if veil is Veil.SPLIT and entry & ACCESSED:
            # Of a clean page the first store must come to us, to set its dirty bit.
            writable = WRITABLE if entry & WRITABLE and entry & DIRTY else 0
            return self._span(entry >> 22 << 10, entry & USER | writable)
        return 0

    # -- tables of ours ----------------------------------------------------------------------------

    def _span(self, first: int, rights: int) -> int:
        """The directory entry for a table of ours, for 4 MiB of the guest's memory; 0 if there is
        no memory for one."""
        frame = self._spans.get((first, rights))
        if frame is None:
            if self._host.free_frames < LEAST_FREE or len(self._spans) >= MOST_SPANS:
                return 0
            frame = self._spans[first, rights] = self._host.allocate()
            pages = range(first, first + ENTRIES)
            entries = array("I", [self._span_entry(page, rights) for page in pages])
            self._host.memory.write(frame << 12, entries.tobytes())
        return frame << 12 | ALL

    def _span_entry(self, page: int, rights: int) -> int:
        if self._memory.is_barred(page):
            return 0
        if page in self._traced:
            rights &= ~WRITABLE
        return self._memory.frame(page) << 12 | rights | PRESENT | USED

    def _mend_spans(self, page: int) -> None:
        """A page is traced now, or no more."""
        for (first, rights), frame in self._spans.items():
            if first <= page < first + ENTRIES:
                self._put(frame, page - first, self._span_entry(page, rights))

    def _drop_spans(self) -> None:
        for frame in self._spans.values():
            self._host.free(frame)
        self._spans.clear()
        self._host.memory.write(self._flat << 12, bytes(PAGE))
        self._put(self._flat, DIRECTORY_INDEX, self._monitors_entry)
        self.stale = True

    # -- faults ------------------------------------------------------------------------------------

    def fault(self, linear: int, error: int) -> tuple[Verdict, int]:
        """Judge a page fault of the real CPU, by CR2 and error code; of a true one the code."""
        access = error & (WRITE | AS_USER)
        paged = bool(self._cpu.state.cr0 & CR0_PG)
        before = self._marks(linear) if paged else 0
        walked = self._cpu.walk(linear, access)
        if walked is None:
            return Verdict.TRUE, self._cpu.walk_error
        page = walked.physical >> 12
        if self._memory.is_barred(page):
            return Verdict.DEVICE, 0
        if access & WRITE and page in self._traced:
            typed = self._typed(page)
            if typed is not None:
                typed.copy = self._read(page)
                self._fresh = page
            return Verdict.TRACED, 0
        if len(self._spans) >= MOST_SPANS:
            self._drop_spans()
        if not paged:
            return (Verdict.HIDDEN if self._fill_flat(linear >> 22) else Verdict.BARRED), 0
        # A 4 MiB page has been marked: what the hardware sees of it says more now.
        marked = walked.large and before != self._marks(linear)
        return (Verdict.HIDDEN if marked else Verdict.BARRED), 0

    def _marks(self, linear: int) -> int:
        """Accessed and dirty bits of a directory entry."""
        place = (self._cpu.state.cr3 & -PAGE) + (linear >> 22) * 4
        return self._memory.u32(place) & USED

    def _fill_flat(self, upper: int) -> bool:
        """Map 4 MiB while paging is off; False if they are, or cannot be."""
        if upper == DIRECTORY_INDEX or self._host.memory.u32(self._flat << 12 | upper * 4):
            return False
        entry = self._span(upper << 10, WRITABLE | USER)
        self._put(self._flat, upper, entry)
        self.fills += 1
        self._say("map %08x one to one", upper << 22)
        return bool(entry)

    # -- tracing -----------------------------------------------------------------------------------

    def _typed(self, page: int) -> Typed | None:
        return self._directories.get(page) or self._tables.get(page)

    def trace(self, page: int, owner: str = TABLES) -> None:
        """Have stores to a guest page interpreted and reported, for an owner's sake."""
        self._others[page].add(owner)
        self._protect(page)

    def untrace(self, page: int, owner: str = TABLES) -> None:
        """An owner needs to know of stores to a guest page no more."""
        self._others[page].discard(owner)
        self._unprotect(page)

    def is_traced(self, page: int) -> bool:
        """Are stores to a guest page reported?"""
        return page in self._traced

    def _protect(self, page: int) -> None:
        """From now on no entry maps the page writable."""
        if page in self._traced or not self._memory.is_memory(page):
            return
        self._traced.add(page)
        self._memory.watch(page, True)
        for table, index in self._writers.get(page, ()):
            table.veils[index] = Veil.READ_ONLY
        self._mend_spans(page)
        self._read_only = None
        self.stale = True

    def _unprotect(self, page: int) -> None:
        if page not in self._traced or self._others.get(page) or self._typed(page) is not None:
            return
        self._traced.discard(page)
        self._memory.watch(page, False)
        for table, index in self._writers.get(page, ()):
            del table.veils[index]
        self._mend_spans(page)
        self._read_only = None

    def written(self, page: int) -> None:
        """A traced guest page has been written to: validate what has changed."""
        typed = self._typed(page)
        if typed is None:
            return
        self._say("store to the %s at %08x", typed.kind, page << 12)
        live = self._live
        if typed is live or any(directory is live for directory, _ in typed.users):
            self._compare(typed)
        elif typed.kind == "directory":
            self._drop(typed)
        else:
            self._drop_users(typed)

    def _compare(self, typed: Typed) -> None:
        """Validate the entries that have changed."""
        now = self._read(typed.page)
        known = self._fresh == typed.page
        self._fresh = -1
        for index, old, entry in self._changed(typed, now):
            known = known and not old & PRESENT
            if not (old ^ entry) & ~USED:
                continue
            if old & PRESENT:
                self._retract(typed, index)
                self.drops += 1
            typed.copy[index] = entry
            if entry & PRESENT:
                self._admit(typed, index, entry)
            self._say("entry %d of the %s at %08x: %08x", index, typed.kind,
                      typed.page << 12, entry)  # fmt: skip
        typed.copy = now
        # Where marks may have been cleared, the TLB would keep them from being set again.
        self.stale |= not known

    @staticmethod
    def _changed(typed: Typed, now: array[int]) -> Iterator[tuple[int, int, int]]:
        """Index, old and new entry of what is different now."""
        for index in changed_entries(typed.copy.tobytes(), now.tobytes()):
            yield index, typed.copy[index], now[index]

    def clear(self) -> None:
        """Take all types away."""
        self._say("drop all")
        for directory in list(self._directories.values()):
            self._drop(directory)
        self._drop_spans()
        self.stale = True
