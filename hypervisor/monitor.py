"""The monitor area: what ring 0 keeps in every address space of a guest, and where.

An IA-32 processor finds its descriptor tables, its IDT and its TSS by linear address, so a
hypervisor has to own a piece of linear space while its guest runs. Ours is the top 4 MiB. Guests
cannot reach it: their segments are cut to end below it (descriptors.py), and its pages are the
supervisor's, so not even uncut segments would help ring 3. It takes one entry of each shadow page
directory (memory/shadow.py), which points to the one page table made here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from isa.paravirt import VCPU_PAGE

if TYPE_CHECKING:
    from hypervisor.host import Host

PAGE: Final = 4096
MONITOR: Final = VCPU_PAGE  #: linear address where it begins; it ends at 4 GiB
DIRECTORY_INDEX: Final = MONITOR >> 22

# Linear addresses in it. A paravirtual kernel's vCPU area comes first (isa/paravirt.py), so that a
# data segment's limit can let the kernel reach it and nothing behind it; then what else a technique
# maps (translator/layout.py), some of it in reach of code segments; the tables are behind all that.
GDT: Final = MONITOR + 0x3D0000
LDT: Final = MONITOR + 0x3E0000
IDT: Final = MONITOR + 0x3F0000
TSS: Final = MONITOR + 0x3F1000
TABLE_BYTES: Final = 0x10000  #: a GDT or LDT with all 8192 descriptors
TSS_BYTES: Final = 104
TSS_BITMAP: Final = 102  #: offset of the word that says where the I/O bitmap begins

PRESENT: Final = 1
WRITABLE: Final = 2
USER: Final = 4
ACCESSED: Final = 32
DIRTY: Final = 64

#: The selectors that the real TR and LDTR hold; guests see them through STR and SLDT.
TSS_SELECTOR: Final = 0xFFF8
LDT_SELECTOR: Final = 0xFFF0


class Monitor:
    """One VM's monitor area in machine memory. Every access goes by machine address."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._memory = host.memory
        self.page_table = host.allocate_zeroed()
        self._frames: dict[int, int] = {}  #: linear page -> machine page
        self._users: set[int] = set()  #: linear pages that ring 3 may reach
        for start, size in ((GDT, TABLE_BYTES), (LDT, TABLE_BYTES), (IDT, PAGE), (TSS, PAGE)):
            self.map(start, size, writable=False)
        # A bitmap that begins where the TSS ends: every port access above IOPL faults.
        self.write(TSS + TSS_BITMAP, struct.pack("<H", TSS_BYTES))

    def map(self, start: int, size: int, *, writable: bool, user: bool = False) -> None:
        """Put zeroed pages there. writable: even by ring 1, where its segments reach; user: in
        reach of ring 3's, too."""
        assert start >= MONITOR, f"{start:#x} lies below the monitor area"
        for linear in range(start, start + size, PAGE):
            self._frames[linear] = self._host.allocate_zeroed()
            if user:
                self._users.add(linear)
            self.protect(linear, writable=writable)

    def _entry(self, linear: int) -> int:
        return (self.page_table << 12) + (linear >> 12 & 1023) * 4

    def protect(self, linear: int, *, writable: bool) -> None:
        """Let ring 1 write a page that its segments reach, or not; flush the TLB after."""
        rights = PRESENT | ACCESSED | DIRTY | (WRITABLE if writable else 0)
        rights |= USER if linear & -PAGE in self._users else 0
        entry = self._frames[linear & -PAGE] << 12 | rights
        self._memory.write(self._entry(linear), struct.pack("<I", entry))

    def lend(self, linear: int, frame: int | None, *, writable: bool = False) -> None:
        """Map a frame that is not ours, to ring 1; None: no more. Flush the TLB's entry after."""
        rights = PRESENT | ACCESSED | DIRTY | (WRITABLE if writable else 0)
        entry = 0 if frame is None else frame << 12 | rights
        self._memory.write(self._entry(linear), struct.pack("<I", entry))

    def machine(self, linear: int) -> int:
        """The machine address of a linear address in the area."""
        return self._frames[linear & -PAGE] << 12 | linear & (PAGE - 1)

    def write(self, linear: int, data: bytes) -> None:
        """Write within one page of the area."""
        self._memory.write(self.machine(linear), data)

    def read(self, linear: int, size: int) -> bytes:
        """Read within one page of the area."""
        return self._memory.read(self.machine(linear), size)

    def free(self) -> None:
        """Give the frames back."""
        for frame in (self.page_table, *self._frames.values()):
            self._host.free(frame)
