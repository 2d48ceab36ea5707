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
from hypervisor.translator.codepages import CodePages
from hypervisor.translator.unit import Context, Link, Place, Space, Unit
from hypervisor.translator.writer import CALL_OUT, DISPLACEMENT

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.monitor import Monitor

DEFAULT_BYTES: Final = 1 << 20
LEAST_BYTES: Final = 512  #: a few units; one that takes more has the rest of the page, too
WORD: Final = struct.Struct("<I")
TARGET_MASK: Final = (1 << layout.TARGET_BITS) - 1
PAGE_WORDS: Final = PAGE // WORD.size
TABLES: Final = {False: layout.KERNEL_TARGETS, True: layout.USER_TARGETS}


class Cache:
    """The units of one virtual machine. user: there are units for ring 3 among them."""

    def __init__(
        self, host: Host, monitor: Monitor, size: int = DEFAULT_BYTES, *, user: bool = False
    ) -> None:
        self._monitor = monitor
        size = min(max(size, LEAST_BYTES), layout.MOST_CODE)
        self._end = layout.CODE + size
        self.size = -(-size // PAGE) * PAGE  #: bytes in reach of its CS, more than any unit takes
        self.spaces: dict[Context, Space] = {}
        self._latest: dict[bool, Space | None] = {False: None, True: None}  #: of ring 3 or not
        self._pages = CodePages(host, monitor, user=user)
        self._starts: list[int] = []  #: of all units, ascending; and they themselves
        self._units: list[Unit] = []
        self.of_page: dict[int, set[Unit]] = defaultdict(set)  #: by guest page of their source
        self.translated = self.evicted = self.chained = 0
        self.instructions = 0  #: of the guest's, in all that was translated
        self.targeted = 0  #: entries of TARGETS that were led to a unit
        self.on_lost_gate: Callable[[], None] = lambda: None
        self.on_added: Callable[[Unit], object] = lambda unit: None
        self.on_placed: Callable[[Unit], object] = lambda unit: None  #: a debugger's
        self._next = layout.CODE
        self._miss = self._lay_miss()
        for of_user in (False, True) if user else (False,):
            self._lay_targets(of_user)

    def _lay_miss(self) -> int:
        """Where TARGETS leads for what it does not know."""
        self._reserve(len(CALL_OUT))
        at = self._next
        self._pages.write(at, CALL_OUT)
        self._pages.set_weights(at, len(CALL_OUT), (0,))
        self._next += len(CALL_OUT)
        self._first = self._next
        return at

    def _lay_targets(self, user: bool) -> None:
        table = TABLES[user]
        self._monitor.map(table, layout.TARGETS_BYTES, writable=False, user=user)
        page = WORD.pack(self._miss) * PAGE_WORDS
        for at in range(table, table + layout.TARGETS_BYTES, PAGE):
            self._monitor.write(at, page)

    # -- finding ---------------------------------------------------------------------------------

    def space(self, context: Context) -> Space:
        """The units of a context, which is the one that its ring runs in from now on."""
        space = self.spaces.get(context)
        if space is None:
            space = self.spaces[context] = Space(context)
        before = self._latest[context.user]
        if before is not space:
            if before is not None:
                for unit in list(before.targets.values()):
                    self._forget_target(unit)
            self._latest[context.user] = space
        return space

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

    def add(self, unit: Unit, space: Space) -> None:
        """Give a unit its place, and let it be found."""
        unit.space = space
        size = len(unit.code)
        self._reserve(size)
        unit.start = self._next
        self._next += size
        place = bisect_right(self._starts, unit.start)
        self._starts.insert(place, unit.start)
        self._units.insert(place, unit)
        self._pages.write(unit.start, unit.code)
        self._pages.set_weights(unit.start, size, unit.weightless)
        for link in unit.links:
            link.unit = unit
        for page in unit.pages:
            self.of_page[page].add(unit)
        self.on_added(unit)
        self.on_placed(unit)
        if unit.is_gate:
            unit.active = True
            return
        self.translated += 1
        self.instructions += unit.instructions
        self._activate(unit)

    def _reserve(self, size: int) -> None:
        """Make room at `_next`, at the cost of what is oldest.

        A unit lies in one page, if it can: the core does not chain code that runs on into another.
        """
        if self._next % PAGE + size > PAGE >= size:
            self._next += -self._next % PAGE
        if self._next + size > self._end:
            self._evict(self._next, self._end)
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

    # -- chaining --------------------------------------------------------------------------------

    def chain(self, link: Link) -> int | None:
        """Let a link lead to the translation of its EIP, if there is one: its address, or None."""
        assert link.unit.space is not None
        found = link.unit.space.find_jumped(link.eip)
        if found is None:
            return None
        target, offset = found
        if link.target is None and link.unit.active:
            link.target = target
            target.incoming.append(link)
            self._lead(link, target.start + offset)
            self.chained += 1
        return target.start + offset

    def _unchain(self, link: Link) -> None:
        link.target = None
        self.lead_to_stub(link)

    def lead_to_stub(self, link: Link) -> None:
        """Let a link ask the hypervisor."""
        self._lead(link, link.unit.start + link.stub)

    def lead_back(self, link: Link) -> None:
        """Let a link lead to the guest's own code, where CS has base 0."""
        self._lead(link, link.eip)

    def holds(self, address: int) -> bool:
        """Is a linear address in the cache?"""
        return layout.CODE <= address < layout.CODE + self.size

    def _lead(self, link: Link, to: int) -> None:
        at = link.unit.start + link.displacement
        self._pages.write(at, WORD.pack(to - at - DISPLACEMENT & 0xFFFF_FFFF))

    def make_target(self, unit: Unit) -> None:
        """Let what looks for the unit's EIP find it."""
        assert unit.space is not None
        targets, number = unit.space.targets, unit.eip & TARGET_MASK
        before = targets.get(number)
        if before is not None:
            before.is_target = False
        unit.is_target = True
        targets[number] = unit
        self.targeted += 1
        self._write_target(unit, unit.start)

    def _forget_target(self, unit: Unit) -> None:
        assert unit.space is not None
        unit.is_target = False
        del unit.space.targets[unit.eip & TARGET_MASK]
        self._write_target(unit, self._miss)

    def _write_target(self, unit: Unit, to: int) -> None:
        assert unit.space is not None
        table = TABLES[unit.space.context.user]
        self._monitor.write(table + WORD.size * (unit.eip & TARGET_MASK), WORD.pack(to))

    # -- sleeping and going ----------------------------------------------------------------------

    def _activate(self, unit: Unit) -> None:
        assert unit.space is not None
        unit.active = True
        unit.space.active[unit.eip] = unit
        if not unit.checked:
            for eip, offset in unit.inside.items():
                unit.space.inside[eip] = unit, offset

    def sleep(self, unit: Unit) -> None:
        """Let nothing lead to a unit any more, and it to nothing."""
        if not unit.active:
            return
        unit.active = False
        space = unit.space
        assert space is not None
        if space.active.get(unit.eip) is unit:
            del space.active[unit.eip]
        for eip in unit.inside:
            if space.inside.get(eip, (None,))[0] is unit:
                del space.inside[eip]
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
            space.asleep[unit.eip, unit.pages[0]] = unit

    def wake(self, space: Space, eip: int, pages: tuple[int, ...]) -> Unit | None:
        """The unit that was made of the code in these guest pages, if there is one asleep."""
        unit = space.asleep.get((eip, pages[0]))
        if unit is None or unit.pages != pages[: len(unit.pages)]:
            return None
        del space.asleep[eip, pages[0]]
        self._activate(unit)
        return unit

    def drop(self, unit: Unit) -> None:
        """Forget a unit."""
        self.sleep(unit)
        assert unit.space is not None
        asleep = unit.space.asleep
        if unit.is_gate:
            self.on_lost_gate()
        elif asleep.get((unit.eip, unit.pages[0])) is unit:
            del asleep[unit.eip, unit.pages[0]]
        for page in unit.pages:
            self.of_page[page].discard(unit)
        place = bisect_right(self._starts, unit.start) - 1
        del self._starts[place], self._units[place]
        unit.start = 0

    def clear(self) -> None:
        """Forget all units."""
        for unit in list(self._units):
            self.drop(unit)
        self.spaces.clear()
        self._latest = {False: None, True: None}
        self._next = self._first
