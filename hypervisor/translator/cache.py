"""The translation cache: where units live, how they are found, chained and thrown out.

It is a ring: units are laid one behind another, and where the ring comes round, the oldest make
room. A unit that goes is unchained: the jumps that lead to it lead to their stubs again, and
TARGETS no longer knows it. Units whose code is not where their EIP leads now - after a change of
page tables, or in another address space - are put to sleep, and wake when it is.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.translator import layout
from hypervisor.translator.unit import Link, Place, Site, Unit
from hypervisor.translator.writer import CALL_OUT, DISPLACEMENT

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.monitor import Monitor

DEFAULT_BYTES: Final = 1 << 20
LEAST_BYTES: Final = 2 * PAGE  #: the largest unit takes less than one
WORD: Final = struct.Struct("<I")
TARGET_MASK: Final = (1 << layout.TARGET_BITS) - 1
PAGE_WORDS: Final = PAGE // WORD.size


class Cache:
    """The units of one virtual machine."""

    def __init__(self, host: Host, monitor: Monitor, size: int = DEFAULT_BYTES) -> None:
        self._host, self._monitor = host, monitor
        self.size = min(max(size, LEAST_BYTES), layout.MOST_CODE) & -PAGE
        monitor.map(layout.TARGETS, layout.TARGETS_BYTES, writable=False)
        self._weights: dict[int, int] = {}  #: linear page -> a bit a byte
        self._starts: list[int] = []  #: of all units, ascending; and they themselves
        self._units: list[Unit] = []
        self.active: dict[int, Unit] = {}  #: by the EIP that a unit begins at
        self._asleep: dict[tuple[int, int], Unit] = {}  #: by EIP and first guest page
        self._inside: dict[int, tuple[Unit, int]] = {}
        self.of_page: dict[int, set[Unit]] = defaultdict(set)  #: by guest page of their source
        self._targets: dict[int, Unit] = {}  #: number in TARGETS -> unit that it leads to
        self.translated = self.evicted = self.chained = 0
        self.on_lost_gate: Callable[[], None] = lambda: None
        self._next = layout.CODE
        self._miss = self._lay_miss()
        self._clear_targets()

    def _lay_miss(self) -> int:
        """Where TARGETS leads for what it does not know."""
        self._reserve(len(CALL_OUT))
        at = self._next
        self._write(at, CALL_OUT)
        self._set_weights(at, len(CALL_OUT), (0,))
        self._next += len(CALL_OUT)
        self._first = self._next
        return at

    # -- finding ---------------------------------------------------------------------------------

    def entry(self, eip: int) -> int | None:
        """Where the guest's instruction at an EIP is entered; None if it is not translated."""
        unit = self.active.get(eip)
        if unit is not None:
            return unit.entry
        found = self._inside.get(eip)
        return None if found is None else found[0].start + found[1]

    def site_at(self, eip: int) -> Site | None:
        """The guest's instruction at an EIP, if it is translated to something else than itself."""
        unit = self.active.get(eip)
        if unit is not None:
            return unit.places[unit.body].site
        found = self._inside.get(eip)
        return None if found is None else found[0].places[found[1]].site

    def unit_at(self, address: int) -> Unit:
        """The unit that a linear address of the cache is in."""
        return self._units[bisect_right(self._starts, address) - 1]

    def place(self, address: int) -> Place:
        """What stands at a linear address of the cache."""
        if address == self._miss:
            return Place(0, target=True)
        unit = self.unit_at(address)
        return unit.places[address - unit.start]

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units)

    # -- adding ----------------------------------------------------------------------------------

    def add(self, unit: Unit) -> None:
        """Give a unit its place, and let it be found."""
        size = len(unit.code)
        self._reserve(size)
        unit.start = self._next
        self._next += size
        place = bisect_right(self._starts, unit.start)
        self._starts.insert(place, unit.start)
        self._units.insert(place, unit)
        self._write(unit.start, unit.code)
        self._set_weights(unit.start, size, unit.weightless)
        for link in unit.links:
            link.unit = unit
        for page in unit.pages:
            self.of_page[page].add(unit)
        if unit.is_gate:
            unit.active = True
            return
        self.translated += 1
        self._activate(unit)

    def _reserve(self, size: int) -> None:
        """Make room at `_next`, at the cost of what is oldest."""
        end = layout.CODE + self.size
        if self._next + size > end:
            self._evict(self._next, end)
            self._next = self._first
        self._evict(self._next, self._next + size)

    def _evict(self, start: int, end: int) -> None:
        place = max(bisect_right(self._starts, start) - 1, 0)
        for unit in self._units[place:]:
            if unit.start >= end:
                break
            if unit.end > start:
                self.drop(unit)
                self.evicted += 1

    def _write(self, linear: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            at = linear + done
            step = min(len(data) - done, PAGE - at % PAGE)
            if at & -PAGE not in self._weights:
                self._monitor.map(at & -PAGE, PAGE, writable=False)
                self._weights[at & -PAGE] = 0
            self._monitor.write(at, data[done : done + step])
            done += step

    def _set_weights(self, linear: int, size: int, weightless: tuple[int, ...]) -> None:
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

    # -- chaining --------------------------------------------------------------------------------

    def chain(self, link: Link) -> bool:
        """Let a link lead to the translation of its EIP; False if there is none."""
        target = self.active.get(link.eip) or self._inside.get(link.eip, (None,))[0]
        entry = self.entry(link.eip)
        if target is None or entry is None:
            return False
        if link.target is None and link.unit.active:
            link.target = target
            target.incoming.append(link)
            self._lead(link, entry)
            self.chained += 1
        return True

    def _unchain(self, link: Link) -> None:
        link.target = None
        self._lead(link, link.unit.start + link.stub)

    def _lead(self, link: Link, to: int) -> None:
        at = link.unit.start + link.displacement
        self._write(at, WORD.pack(to - at - DISPLACEMENT & 0xFFFF_FFFF))

    def make_target(self, unit: Unit) -> None:
        """Let what looks for the unit's EIP find it."""
        number = unit.eip & TARGET_MASK
        before = self._targets.get(number)
        if before is not None:
            before.is_target = False
        unit.is_target = True
        self._targets[number] = unit
        self._monitor.write(layout.TARGETS + 4 * number, WORD.pack(unit.start))

    def _forget_target(self, unit: Unit) -> None:
        number = unit.eip & TARGET_MASK
        unit.is_target = False
        del self._targets[number]
        self._monitor.write(layout.TARGETS + 4 * number, WORD.pack(self._miss))

    def _clear_targets(self) -> None:
        page = WORD.pack(self._miss) * PAGE_WORDS
        for at in range(layout.TARGETS, layout.TARGETS + layout.TARGETS_BYTES, PAGE):
            self._monitor.write(at, page)

    # -- sleeping and going ----------------------------------------------------------------------

    def _activate(self, unit: Unit) -> None:
        unit.active = True
        self.active[unit.eip] = unit
        if not unit.checked:
            for eip, offset in unit.inside.items():
                self._inside[eip] = unit, offset

    def sleep(self, unit: Unit) -> None:
        """Let nothing lead to a unit any more, and it to nothing."""
        if not unit.active:
            return
        unit.active = False
        if self.active.get(unit.eip) is unit:
            del self.active[unit.eip]
        for eip in unit.inside:
            if self._inside.get(eip, (None,))[0] is unit:
                del self._inside[eip]
        for link in unit.incoming:
            self._unchain(link)
        unit.incoming.clear()
        for link in unit.links:
            if link.target is not None:
                link.target.incoming.remove(link)
                self._unchain(link)
        if unit.is_target:
            self._forget_target(unit)
        if not unit.is_gate:
            self._asleep[unit.eip, unit.pages[0]] = unit

    def wake(self, eip: int, pages: tuple[int, ...]) -> Unit | None:
        """The unit that was made of the code in these guest pages, if there is one asleep."""
        unit = self._asleep.get((eip, pages[0]))
        if unit is None or unit.pages != pages[: len(unit.pages)]:
            return None
        del self._asleep[eip, pages[0]]
        self._activate(unit)
        return unit

    def drop(self, unit: Unit) -> None:
        """Forget a unit."""
        self.sleep(unit)
        if unit.is_gate:
            self.on_lost_gate()
        elif self._asleep.get((unit.eip, unit.pages[0])) is unit:
            del self._asleep[unit.eip, unit.pages[0]]
        for page in unit.pages:
            self.of_page[page].discard(unit)
        place = bisect_right(self._starts, unit.start) - 1
        del self._starts[place], self._units[place]
        unit.start = 0

    def clear(self) -> None:
        """Forget all units."""
        for unit in list(self._units):
            self.drop(unit)
        self._next = self._first
