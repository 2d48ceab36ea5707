"""What ends a translation: its source changes, or is not where it was.

The guest pages that units were made of are traced: a store to one is interpreted, and then the
units whose bytes have changed are dropped. Pages that are stored to again and again are *mixed*:
nobody watches them, and their units check themselves (check.py). Which guest page each linear page
of code is, is looked at again after a change of control registers or of page tables; units whose
page has moved sleep.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from hypervisor.guest_memory import PAGE
from hypervisor.translator.builder import code_page, moved_pages
from hypervisor.translator.check import MOST_STORES

if TYPE_CHECKING:
    from hypervisor.translator.cache import Cache
    from hypervisor.translator.unit import Unit
    from hypervisor.vm import VirtualMachine

CODE: Final = "code"  #: whom pages are traced for


class Coherence:
    """Keeps the units of one virtual machine true to their source."""

    def __init__(self, vm: VirtualMachine, cache: Cache) -> None:
        self._vm, self._cache = vm, cache
        #: Linear page of active code -> guest page; the kernel's and ring 3's.
        self._mapped: dict[int, int] = {}
        self._of_users: dict[int, int] = {}
        self._base = 0  #: of CS
        self.mixed: set[int] = set()  #: guest pages whose units check themselves
        self._stores: Counter[int] = Counter()  #: interpreted, by guest page
        self.invalidated = 0

    def watch(self, unit: Unit, base: int) -> None:
        """A unit has become active; CS has this base."""
        self._base = base
        assert unit.space is not None
        user = unit.space.context.user
        linear = (base + unit.eip) & 0xFFFF_F000
        for page in unit.pages:
            (self._of_users if user else self._mapped)[linear] = page
            linear = (linear + PAGE) & 0xFFFF_FFFF
            if not unit.checked:
                self._vm.paging.trace(page, CODE)

    def written(self, page: int) -> None:
        """A traced guest page has been written to."""
        units = self._cache.of_page.get(page)
        if not units:
            return
        self._stores[page] += 1
        mixes = self._stores[page] >= MOST_STORES
        for unit in list(units):
            if mixes or self._source(unit) != unit.source:
                self._cache.drop(unit)
                self.invalidated += 1
        if mixes:
            self.mixed.add(page)
        if not units:  # as when it mixes
            self._vm.paging.untrace(page, CODE)

    def _source(self, unit: Unit) -> bytes:
        """What stands now where a unit was made from."""
        memory, size = self._vm.memory, len(unit.source)
        at = unit.eip + self._base & (PAGE - 1)
        first = memory.read(unit.pages[0] * PAGE + at, min(size, PAGE - at))
        if len(first) == size:
            return first
        return first + memory.read(unit.pages[1] * PAGE, size - len(first))

    def check(self) -> None:
        """What linear addresses mean may have changed: units that are not there any more sleep."""
        vm, users = self._vm, self._of_users
        gone = [self._mapped.pop(linear) for linear in moved_pages(vm, self._mapped)]
        left = [at for at, page in users.items() if code_page(vm, at, True) != page]
        gone += [users.pop(linear) for linear in left]
        for page in gone:
            for unit in list(self._cache.of_page.get(page, ())):
                self._cache.sleep(unit)

    def clear(self) -> None:
        """No unit is left."""
        self._mapped.clear()
        self._of_users.clear()

    def forget(self) -> None:
        """The guest is another one now."""
        self.clear()
        self.mixed.clear()
        self._stores.clear()
