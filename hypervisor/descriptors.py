"""The shadow GDT and LDT: what the real CPU reads when a guest loads a segment register.

They start empty. A load then faults, and `fill` copies the guest's descriptor, cut to what is safe
(segments.py), if it is a plain present segment that is marked accessed; the load is tried again.
All else - gates, system descriptors, what is not accessed yet - is left out, so that such a load
goes to the scratch CPU, which does with it what the architecture says. The pages that filled
descriptors came from are traced: before the guest changes one, the shadows of that page are
emptied. A page that is written to all the time is not worth it: its descriptors stay out.

A segment register that the guest has loaded by itself holds the shadow; `source` knows the
original.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from emulator.core import Access, Cpu
from hypervisor import segments
from hypervisor.monitor import (
    GDT,
    LDT,
    LDT_SELECTOR,
    MONITOR,
    TABLE_BYTES,
    TSS,
    TSS_BYTES,
    TSS_SELECTOR,
)
from hypervisor.segments import Segment

if TYPE_CHECKING:
    from hypervisor.monitor import Monitor

TABLE_INDICATOR: Final = 4  #: of a selector: it names the LDT
HIGH_ACCESSED: Final = 1 << 8
HIGH_MEMORY: Final = 1 << 12
HIGH_PRESENT: Final = 1 << 15
SYSTEM_TSS: Final = 0x89
SYSTEM_LDT: Final = 0x82
PAIR: Final = struct.Struct("<II")
READ: Final = int(Access.READ)
#: Stores to a page with descriptors after which they are left to the virtual CPU. Small kernels
#: have their GDT in a structure of a CPU, beside its most used variables (xv6).
MOST_STORES: Final = 1000


def key_of(selector: int) -> int:
    """What tells descriptors apart: the selector without its RPL."""
    return selector & 0xFFFC


class Descriptors:
    """The shadows of one virtual CPU's GDT and LDT.

    code_end, data_end: linear addresses where code and data segments are cut. trace(page) has
    stores to a guest page reported to `forget_page`.
    """

    def __init__(
        self,
        cpu: Cpu,
        monitor: Monitor,
        guest_page: Mapping[int, int],
        trace: Callable[[int], None],
        code_end: int = MONITOR,
        data_end: int = MONITOR,
    ) -> None:
        self._cpu = cpu
        self._monitor = monitor
        self._trace = trace
        self._guest_page = guest_page  #: machine page -> guest page
        self.code_end = code_end
        self.data_end = data_end
        #: Code segments cannot be read through: what is behind `data_end` can only be executed.
        self.hides_code = False
        self.filled = 0  #: how often a descriptor was copied
        self.on_filled: Callable[[], None] = lambda: None
        self._own: set[int] = set()  #: keys of the monitor's own descriptors
        self._sources: dict[int, Segment] = {}
        self._originals: dict[int, tuple[int, ...]] = {}  #: the same, as they were read
        self._pages: dict[int, set[int]] = defaultdict(set)  #: guest page -> keys
        self._stores: Counter[int] = Counter()  #: by guest page with descriptors
        self.busy: set[int] = set()  #: guest pages with so many that they are not shadowed
        self.on_busy: Callable[[int], None] = lambda page: None
        self._places: dict[int, int] = {}  #: linear page of filled descriptors -> guest page
        self._tables = self._table_registers()
        self._write_system()

    def _write_system(self) -> None:
        """The descriptors that the real TR and LDTR come from."""
        for selector, kind, base, size in (
            (TSS_SELECTOR, SYSTEM_TSS, TSS, TSS_BYTES),
            (LDT_SELECTOR, SYSTEM_LDT, LDT, TABLE_BYTES),
        ):
            self.reserve(selector, Segment(kind, base, size - 1))

    def reserve(self, selector: int, segment: Segment) -> None:
        """Give the shadow GDT a descriptor that is the monitor's own, whatever the guest's has."""
        self._own.add(key_of(selector))
        self._write(key_of(selector), segments.encode(segment))

    def _table_registers(self) -> tuple[int, ...]:
        state = self._cpu.state
        return (
            state.gdtr.base, state.gdtr.limit,
            state.ldtr.base, state.ldtr.limit, state.ldtr.attributes,
        )  # fmt: skip

    # -- what the guest has changed ----------------------------------------------------------------

    def check(self) -> None:
        """Forget what came from tables that are not the guest's any more, or lie elsewhere now.

        To be called after GDTR, LDTR or the meaning of linear addresses may have changed.
        """
        if self._table_registers() != self._tables:
            self._tables = self._table_registers()
            self.clear()
            return
        for linear, page in self._places.items():
            if self._page_of(linear) != page:
                self.clear()
                return

    def forget_page(self, page: int) -> None:
        """The guest has changed a guest page, perhaps one with descriptors."""
        self._count_store(page)
        for key in list(self._pages.get(page, ())):
            if self._read(key) != self._originals.get(key):
                self._pages[page].discard(key)
                self._sources.pop(key, None)
                self._originals.pop(key, None)
                self._write(key, (0, 0))

    def _count_store(self, page: int) -> None:
        """Let go of a table among variables, whose stores cost more than its loads can save.

        Its descriptors are left to the virtual CPU from now on; its page is not traced for them.
        """
        if page not in self._pages:
            return
        self._stores[page] += 1
        if self._stores[page] == MOST_STORES:
            self.busy.add(page)
            for key in self._pages.pop(page):
                self._sources.pop(key, None)
                self._originals.pop(key, None)
                self._write(key, (0, 0))
            self.on_busy(page)

    def clear(self) -> None:
        """Forget all."""
        for key in self._sources:
            self._write(key, (0, 0))
        self._sources.clear()
        self._originals.clear()
        self._pages.clear()
        self._places.clear()
        self._stores.clear()
        self.busy.clear()

    # -- filling -----------------------------------------------------------------------------------

    def fill(self, selector: int) -> bool:
        """Copy the guest's descriptor; False if it is there already, or is none to copy.

        Nor is one for ring 1 or 2: the virtual CPU loads it, and shows that the guest uses them.
        """
        key = key_of(selector)
        if key in self._sources or not key:
            return False
        linear = self._linear(key)
        if linear is None or key in self._own:
            return False
        pair = self._read(key)
        if pair is None:
            return False
        low, high = pair
        wanted = HIGH_ACCESSED | HIGH_MEMORY | HIGH_PRESENT
        source = segments.parse(low, high)
        shadow = self.shadow(source)
        if high & wanted != wanted or shadow is None or segments.dpl(source) in (1, 2):
            return False
        for place in {linear & -4096, (linear + 7) & -4096}:
            self._cpu.walk(place, READ)  # the guest's load would have set the accessed bits
            page = self._page_of(place)
            if page is None or page in self.busy:
                return False
            self._places[place] = page
            self._pages[page].add(key)
            self._trace(page)
        self._sources[key], self._originals[key] = source, pair
        self._write(key, segments.encode(shadow))
        self.filled += 1
        self.on_filled()
        return True

    def shadow(self, source: Segment) -> Segment | None:
        """What stands for a guest's segment on the real CPU; None if nothing can."""
        if source.attributes & segments.CODE:
            cut = segments.cut(source, self.code_end)
            if cut is not None and self.hides_code:
                cut = cut._replace(attributes=cut.attributes & ~segments.READABLE)
            return cut
        # With a base the vCPU area would not be where its users think. Ring 3's segments may reach
        # it, for its pages are the supervisor's: all flat segments end alike, as the core likes.
        return segments.cut(source, MONITOR if source.base else self.data_end)

    def source(self, selector: int) -> Segment | None:
        """The guest's descriptor behind a selector that the real CPU has loaded, or None."""
        return self._sources.get(key_of(selector))

    def holds(self, register: Any) -> bool:
        """Is what a segment register was loaded with there still, and traced?"""
        now = Segment(register.attributes, register.base, register.limit)
        return self.source(register.selector) == now

    def agrees(self, register: Any) -> bool:
        """Would the real CPU load a segment register with the same again, if with anything?"""
        return self.source(register.selector) is None or self.holds(register)

    def _read(self, key: int) -> tuple[int, ...] | None:
        """The guest's descriptor as it is now."""
        linear = self._linear(key)
        data = b"" if linear is None else self._cpu.read_linear(linear, 8)
        return PAIR.unpack(data) if len(data) == 8 else None

    def _linear(self, key: int) -> int | None:
        """Where the guest keeps the descriptor, if its table reaches so far."""
        state = self._cpu.state
        table, offset = state.gdtr, key & ~7
        if key & TABLE_INDICATOR:
            table = state.ldtr
            if table.attributes & segments.UNUSABLE:
                return None
        if offset + 7 > table.limit:
            return None
        linear: int = (table.base + offset) & 0xFFFF_FFFF
        return linear

    def _page_of(self, linear: int) -> int | None:
        """The guest page at a linear address, without a trace in the guest's page tables."""
        address = self._cpu.translate(linear)
        return None if address is None else self._guest_page.get(address >> 12)

    def _write(self, key: int, pair: tuple[int, int]) -> None:
        base = LDT if key & TABLE_INDICATOR else GDT
        self._monitor.write(base + (key & ~7), PAIR.pack(*pair))
