"""Shadow page tables: the tables that the real CPU walks while a guest runs.

The guest's own tables say guest-physical addresses, so hardware cannot use them. For each address
space of the guest we keep a second set, filled on demand: every page starts absent, and the fault
tells what is wanted. The core walks the guest's tables as the guest's access would (cpu_walk): if
that faults it is a true fault, the guest's own; else a hidden one, which the guest never sees, and
the entry is made. An entry is made writable only when the guest's is dirty, so the dirty bit is set
when it should be.

Guest tables that have a shadow are traced: write-protected in all shadows, and watched, so that the
scratch CPU's stores are seen too. A store to one is interpreted, then the entries it changed are
dropped; if the table is not in the address space that is in use, its whole shadow goes, for a
kernel that fills a new space writes to it a thousand times. So shadows stay right across CR3
switches.

A technique may have changed a page for the kernel alone (`veil`). Then the real CPU gets at it only
in ring 1, and only through linear pages where the kernel is known to execute it; all other accesses
are barred, and are the technique's to see to.

A shadow table depends on what its entries mean: the guest's table, the rights of the directory
entry above it, and CR0.WP. Under virtual WP=0 a kernel may write what is read-only: such a page
becomes writable for the supervisor and vanishes for the user, until the user asks for it again. The
real CR0.WP is always 1.
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from emulator.core import Access, Cpu
from hypervisor.guest_memory import GuestMemory
from hypervisor.memory.base import GuestPaging
from hypervisor.monitor import ACCESSED, DIRECTORY_INDEX, DIRTY, PRESENT, USER, WRITABLE

if TYPE_CHECKING:
    from hypervisor.host import Host

PAGE: Final = 4096
ENTRIES: Final = 1024
LARGE: Final = 128  #: of a directory entry: a 4 MiB page, if CR4.PSE
CR0_PG: Final = 1 << 31
CR0_WP: Final = 1 << 16
CR4_PSE: Final = 1 << 4
#: Shadow tables and directories kept before all are dropped: 4 KiB each.
MOST_TABLES: Final = 1000
#: How many entries after the one that faulted are made with it, where they need no bit set.
PREFETCH: Final = 15
WORD: Final = struct.Struct("<I")
TABLES: Final = "tables"  #: whom pages are traced for: descriptor tables, IDT, TSS
READ: Final = int(Access.READ)
WRITE: Final = int(Access.WRITE)
AS_USER: Final = int(Access.USER)


class Verdict(Enum):
    """What a page fault on the real CPU was."""

    HIDDEN = "hidden"  #: the entry was missing; it is there now
    TRUE = "true"  #: the guest's own
    TRACED = "traced"  #: a store to a traced page: to be interpreted
    DEVICE = "device"  #: an access to a device: to be interpreted
    BARRED = "barred"  #: right, but not for the real CPU: to be interpreted


class Key(NamedTuple):
    """What the entries of a shadow table depend on."""

    kind: str  #: "directory", "table", "large" (a 4 MiB page), "flat" (paging off)
    page: int  #: guest page of the table; for large and flat the first page mapped
    rights: int  #: WRITABLE | USER of the directory entry above
    write_protect: bool  #: CR0.WP
    extensions: bool  #: CR4.PSE
    #: Of a large page, whose dirty bit is its entry's own: directory and index. Of a table, if what
    #: it may map depends on where it is: index.
    place: int = 0


def changed_entries(before: bytes, now: bytes) -> Iterator[int]:
    """Indices of the entries in which two page tables differ."""
    # As two large numbers: one entry of a thousand has changed, and a loop would look at all.
    difference = int.from_bytes(before, "little") ^ int.from_bytes(now, "little")
    while difference:
        index = ((difference & -difference).bit_length() - 1) // 32
        yield index
        difference &= -1 << 32 * (index + 1)


class Table:
    """A shadow table or directory, and what the guest's looked like when last seen."""

    def __init__(self, key: Key, frame: int, copy: array[int] | None) -> None:
        self.key = key
        self.frame = frame
        self.copy = copy  #: the guest's entries, up to accessed bits; None if it has no table
        self.parents: set[tuple[Table, int]] = set()
        self.children: dict[int, Table] = {}  #: of a directory
        self.writable: dict[int, int] = {}  #: index -> guest page, of entries with write rights


class ShadowPaging(GuestPaging):
    """The shadows of one virtual CPU.

    cpu: the virtual CPU, whose control registers and guest tables count. monitor_table: machine
    page of the table that the top of linear space has in all of them; None: that is the guest's.
    """

    def __init__(
        self, host: Host, memory: GuestMemory, cpu: Cpu, monitor_table: int | None
    ) -> None:
        super().__init__(host, memory)
        self._cpu = cpu
        self._monitor_table = monitor_table
        #: Called when it changes which pages are traced, or for whom, or what shadows them.
        self.on_tables: Callable[[], None] = lambda: None
        #: Guest tables with stores that nobody reports, to entries that have no shadow.
        self.unreported: set[int] = set()
        self.veils = False  #: may some pages be veiled?
        self._veiled: Mapping[int, Set[int]] = {}  #: guest page -> linear pages that show it
        self.shared: set[int] = set()  #: veiled pages that ring 3 gets at too, to execute them
        self.shares_monitor = False  #: some of the monitor's pages are in reach of ring 3
        self._tables: OrderedDict[Key, Table] = OrderedDict()
        self._of_page: dict[int, set[Table]] = defaultdict(set)  #: guest page -> shadows of it
        self._writers: dict[int, set[tuple[Table, int]]] = defaultdict(set)
        self._traced: set[int] = set()
        self._others: dict[int, set[str]] = defaultdict(set)  #: page -> for whom else it is traced

    # -- the address space in use ------------------------------------------------------------------

    def root(self) -> int:
        """Machine address of the shadow directory for the virtual CPU's control registers."""
        return self._directory().frame << 12

    def _directory(self) -> Table:
        state = self._cpu.state
        if not state.cr0 & CR0_PG:
            return self._table(Key("directory", -1, 0, True, False))
        protect, extensions = bool(state.cr0 & CR0_WP), bool(state.cr4 & CR4_PSE)
        return self._table(Key("directory", state.cr3 >> 12, 0, protect, extensions))

    def _table(self, key: Key) -> Table:
        """The shadow for a key, made empty if there is none."""
        table = self._tables.get(key)
        if table is not None:
            return table
        if len(self._tables) >= MOST_TABLES or self._host.free_frames < 2:
            self.clear()
        is_guests = key.kind == "table" or (key.kind == "directory" and key.page >= 0)
        copy = array("I", self._memory.read(key.page << 12, PAGE)) if is_guests else None
        table = self._tables[key] = Table(key, self._host.allocate_zeroed(), copy)
        if key.kind == "directory" and self._monitor_table is not None:
            rights = PRESENT | WRITABLE | ACCESSED | (USER if self.shares_monitor else 0)
            self._store(table, DIRECTORY_INDEX, self._monitor_table << 12 | rights)
        if is_guests:
            self.on_tables()
            self._of_page[key.page].add(table)
            self._protect(key.page)
        return table

    def _store(self, table: Table, index: int, entry: int) -> None:
        self._host.memory.write(table.frame << 12 | index * 4, WORD.pack(entry))

    # -- faults ------------------------------------------------------------------------------------

    def fault(self, linear: int, error: int) -> tuple[Verdict, int]:
        """Judge a page fault of the real CPU, by CR2 and error code; of a true one the code."""
        access = error & (WRITE | AS_USER)
        walked = self._cpu.walk(linear, access)
        if walked is None:
            return Verdict.TRUE, self._cpu.walk_error
        page = walked.physical >> 12
        if self._memory.is_barred(page):
            return Verdict.DEVICE, 0
        if access & WRITE and page in self._traced:
            return Verdict.TRACED, 0
        if page in self._veiled and not self._shows(page, linear, access):
            return Verdict.BARRED, 0
        before = self.fills
        self._fill(linear, access, walked, page)
        if self.report is not None:
            self._say_filled(linear, error, page, self.fills - before)
        return Verdict.HIDDEN, 0

    def _say_filled(self, linear: int, error: int, page: int, count: int) -> None:
        self._say(
            "fill %08x for a %s's %s: guest page %08x, machine page %08x, entries %d",
            linear & -PAGE,
            "user" if error & AS_USER else "kernel",
            "write" if error & WRITE else "read",
            page << 12,
            self._memory.frame(page) << 12,
            count,
        )

    def _fill(self, linear: int, access: int, walked: Any, page: int) -> None:
        directory = self._directory()
        upper, index = linear >> 22, linear >> 12 & 1023
        assert not self._is_monitors(upper), f"{linear:#x} is the monitor's"
        table = directory.children.get(upper)
        if not self._cpu.state.cr0 & CR0_PG:
            table = table or self._link(directory, upper, Key("flat", upper << 10, 0, True, False))
            self._map(table, index, page, WRITABLE | USER)
            self._prefetch_flat(table, index)
            return
        if table is None:
            key = self._key_below(directory.key, upper, walked)
            table = self._link(directory, upper, key)
        if directory.copy is not None:
            directory.copy[upper] = walked.directory_entry
        if table.copy is not None:
            table.copy[index] = walked.table_entry
        self._map(table, index, page, self._rights(walked, access))
        self._prefetch(table, index)

    def _is_monitors(self, index: int) -> bool:
        return index == DIRECTORY_INDEX and self._monitor_table is not None

    def _key_below(self, above: Key, upper: int, walked: Any) -> Key:
        entry = walked.directory_entry
        rights = entry & (WRITABLE | USER)
        if walked.large:
            place = above.page << 10 | upper
            return Key("large", entry >> 22 << 10, rights, above.write_protect, True, place)
        place = upper if self.veils else 0
        return Key("table", entry >> 12, rights, above.write_protect, above.extensions, place)

    def _rights(self, walked: Any, access: int) -> int:
        """Rights of the shadow entry for a page that was just accessed so."""
        rights = USER if walked.user else 0
        if walked.writable:
            return rights | (WRITABLE if walked.dirty else 0)
        # A kernel's store under WP=0: allowed, but to it alone.
        return WRITABLE if access == WRITE and walked.dirty else rights

    def _link(self, directory: Table, upper: int, key: Key) -> Table:
        table = self._table(key)
        if directory.key not in self._tables:  # all shadows went to make room for this one
            directory = self._directory()
        directory.children[upper] = table
        table.parents.add((directory, upper))
        # The rights are in the entries below.
        entry = table.frame << 12 | PRESENT | WRITABLE | USER | ACCESSED
        self._store(directory, upper, entry)
        return table

    def _map(self, table: Table, index: int, page: int, rights: int) -> None:
        """Make an entry. Traced pages are never writable."""
        if page in self._traced:
            rights &= ~WRITABLE
        if page in self._veiled and page not in self.shared:
            rights &= ~USER
        old = table.writable.pop(index, None)
        if old is not None:
            self._writers[old].discard((table, index))
            self.stale = True
        if rights & WRITABLE:
            table.writable[index] = page
            self._writers[page].add((table, index))
        frame = self._memory.frame(page)
        self._store(table, index, frame << 12 | PRESENT | ACCESSED | DIRTY | rights)
        self.fills += 1

    def _prefetch(self, table: Table, index: int) -> None:
        """Make the entries that follow, as far as the guest's need no accessed bit set."""
        if table.copy is None:
            return
        if table.key.page in self.unreported:
            self._recall(table)
        wanted = PRESENT | ACCESSED
        for at in range(index + 1, min(index + 1 + PREFETCH, ENTRIES)):
            entry = table.copy[at]
            if entry & wanted != wanted or at in table.writable:
                continue
            if table.key.extensions and entry & LARGE:
                continue  # a reserved bit: that page faults
            if entry >> 12 in self._veiled or entry >> 12 in self._memory.devices:
                continue
            rights = entry & table.key.rights
            if not entry & DIRTY:
                rights &= ~WRITABLE
            self._map(table, at, entry >> 12, rights & (WRITABLE | USER))

    def _prefetch_flat(self, table: Table, index: int) -> None:
        for at in range(index + 1, min(index + 1 + PREFETCH, ENTRIES)):
            page = table.key.page + at
            if at in table.writable or page in self._veiled or not self._memory.is_memory(page):
                continue
            self._map(table, at, page, WRITABLE | USER)

    # -- veils -------------------------------------------------------------------------------------

    def veil(self, pages: Mapping[int, Set[int]]) -> None:
        """Guest pages that are veiled from now on, each but through some linear pages."""
        changed = {page for page, _ in self._veiled.items() ^ pages.items()}
        self._veiled = pages
        self.shared &= pages.keys()
        if changed:
            self._hide({self._memory.frame(page) for page in changed})

    def share(self, page: int) -> bool:
        """Let ring 3 at a veiled page, for it executes it; False if it is not veiled to it."""
        if page in self.shared or page not in self._veiled:
            return False
        self.shared.add(page)
        self._hide({self._memory.frame(page)})
        return True

    def _shows(self, page: int, linear: int, access: int) -> bool:
        listed = linear & -PAGE in self._veiled[page]
        return page in self.shared if access & AS_USER else listed

    def _hide(self, frames: Set[int]) -> None:
        """Drop all entries for some machine pages."""
        for table in list(self._tables.values()):
            if table.key.kind == "directory":
                continue
            entries = array("I", self._host.memory.read(table.frame << 12, PAGE))
            if frames.isdisjoint(entry >> 12 for entry in entries):
                continue
            for index, entry in enumerate(entries):
                if entry & PRESENT and entry >> 12 in frames:
                    self._drop_entry(table, index)

    # -- tracing -----------------------------------------------------------------------------------

    def trace(self, page: int, owner: str = TABLES) -> None:
        """Have stores to a guest page interpreted and reported, for an owner's sake."""
        if owner in self._others[page]:
            return
        self.on_tables()
        self._others[page].add(owner)
        self._protect(page)

    def is_traced(self, page: int) -> bool:
        """Are stores to a guest page reported?"""
        return page in self._traced

    def refresh_unreported(self) -> None:
        """All stores are reported again: see what has become of tables that had others."""
        for page in self.unreported:
            for table in self._of_page.get(page, ()):
                self._recall(table)
        self.unreported.clear()

    def _recall(self, table: Table) -> None:
        """See what the guest's table is now. Only entries without a shadow have changed."""
        table.copy = array("I", self._memory.read(table.key.page << 12, PAGE))

    def only_shadow(self, page: int) -> int | None:
        """The machine page of the one shadow that a guest table has; None if there are more, or
        none, or stores to it are reported to someone else too."""
        tables = self._of_page.get(page, ())
        if len(tables) != 1 or self._others.get(page):
            return None
        return next(iter(tables)).frame

    def _protect(self, page: int) -> None:
        if page in self._traced or not self._memory.is_memory(page):
            return
        self._traced.add(page)
        self._memory.watch(page, True)
        for table, index in self._writers.pop(page, ()):
            del table.writable[index]
            self._store(table, index, 0)
            self.stale = True

    def untrace(self, page: int, owner: str = TABLES) -> None:
        """An owner needs to know of stores to a guest page no more."""
        self._others[page].discard(owner)
        self._unprotect(page)

    def _unprotect(self, page: int) -> None:
        if page in self._traced and not self._others.get(page) and not self._of_page.get(page):
            self._traced.discard(page)
            self._memory.watch(page, False)

    def written(self, page: int) -> None:
        """A traced guest page has been written to: drop what no longer holds."""
        self._say("store to traced guest page %08x", page << 12)
        live = self._directory()
        for table in list(self._of_page.get(page, ())):
            if table is live or any(parent is live for parent, _ in table.parents):
                self._compare(table)
            else:
                self._drop(table)

    def _compare(self, table: Table) -> None:
        """Drop the entries for which the guest's have changed."""
        assert table.copy is not None
        now = self._memory.read(table.key.page << 12, PAGE)
        for index in changed_entries(table.copy.tobytes(), now):
            self._drop_entry(table, index)
        table.copy = array("I", now)

    def _drop_entry(self, table: Table, index: int) -> None:
        if table.key.kind == "directory" and self._is_monitors(index):
            return
        child = table.children.pop(index, None)
        if child is not None:
            child.parents.discard((table, index))
            if child.key.kind == "large":
                self._drop(child)
        page = table.writable.pop(index, None)
        if page is not None:
            self._writers[page].discard((table, index))
        self._store(table, index, 0)
        self.drops += 1
        self.stale = True
        self._say(
            "drop entry %d of the %s at %08x",
            index,
            table.key.kind,
            table.key.page << 12 & 0xFFFF_FFFF,
        )

    def _drop(self, table: Table) -> None:
        """Give up a whole shadow table or directory."""
        self.on_tables()
        self._say("drop the %s at %08x", table.key.kind, table.key.page << 12 & 0xFFFF_FFFF)
        for index in list(table.writable):
            self._writers[table.writable[index]].discard((table, index))
        for index, child in table.children.items():
            child.parents.discard((table, index))
            if child.key.kind == "large":  # its dirty bit was in the guest's directory
                self._drop(child)
        for parent, index in list(table.parents):
            del parent.children[index]
            self._store(parent, index, 0)
        del self._tables[table.key]
        self._of_page[table.key.page].discard(table)
        self._host.free(table.frame)
        self._unprotect(table.key.page)
        self.stale = True

    def clear(self) -> None:
        """Drop all shadows."""
        self.on_tables()
        self._say("drop all")
        for table in list(self._tables.values()):
            self._host.free(table.frame)
        self._tables.clear()
        self._of_page.clear()
        self._writers.clear()
        for page in list(self._traced):
            self._unprotect(page)
        self.stale = True
