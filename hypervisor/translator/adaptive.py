"""Which stores are adaptive, and which page tables they may write by themselves.

A store that faulted MOST_FAULTS times on traced tables is translated anew (stores.py). When one
finds no alias for a table it faults, and then gets it, if nothing but its shadow depends on the
table. (What else may fault for ever is a device's memory; this machine's devices have ports only.)
Whatever may make an alias wrong - a change of tables, of the address space, of segments, INVLPG -
takes all of them away; the next faults bring them back.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hypervisor import segments
from hypervisor.guest_memory import PAGE
from hypervisor.translator import layout, stores
from hypervisor.translator.forms import FLAT_LIMIT
from isa.decoder import decode
from isa.errors import DecodeError
from isa.operands import Memory

if TYPE_CHECKING:
    from hypervisor.translator.cache import Cache
    from hypervisor.translator.unit import Unit
    from hypervisor.vm import VirtualMachine

MOST_FAULTS: Final = 8
ALIAS: Final = struct.Struct("<4I")
_KIND: Final = segments.UNUSABLE | segments.CODE | segments.EXPAND_DOWN | segments.WRITABLE
NO_ALIAS: Final = ALIAS.pack(FLAT_LIMIT, 0, 0, 0)  #: equal to no aligned page


def _is_flat(register: Any) -> bool:
    kind = register.attributes & _KIND
    return bool(kind == segments.WRITABLE and not register.base and register.limit == FLAT_LIMIT)


class Adaptive:
    """The adaptive stores of one virtual machine."""

    def __init__(self, vm: VirtualMachine, cache: Cache) -> None:
        self._vm, self._cache = vm, cache
        vm.monitor.map(layout.ALIASES, PAGE, writable=False)
        vm.monitor.write(layout.ALIASES, NO_ALIAS * layout.WINDOW_COUNT)
        self.sites: set[int] = set()  #: EIPs of adaptive stores
        self.made = self.reverted = 0
        self._faults: Counter[int] = Counter()  #: by EIP of the store
        self._aliases: set[int] = set()
        self._selectors: set[int] = set()  #: that stores with aliases may have in their segments
        self._wanted: tuple[int, int] | None = None  #: a store's EIP, and what it faulted at
        self._outdated: Unit | None = None  #: has a store that is adaptive by now

    def faulted(self, eip: int, linear: int, unit: Unit) -> None:
        """A store to a traced page has faulted; it is about to be interpreted."""
        self._faults[eip] += 1
        if self._faults[eip] == MOST_FAULTS and self._can_adapt(eip):
            self.sites.add(eip)
            self.made += 1
        if eip in self.sites:
            self._wanted = eip, linear
            if eip not in unit.adaptive:
                self._outdated = unit

    def _instruction(self, eip: int) -> bytes:
        vm = self._vm
        return vm.cpu.read_linear(vm.cpu.state.seg[segments.CS].base + eip, 15)

    def _can_adapt(self, eip: int) -> bool:
        try:
            return stores.can_adapt(decode(self._instruction(eip), eip))
        except DecodeError:
            return False

    def before_entry(self) -> None:
        """The virtual CPU is up to date, and about to be put on the real one."""
        if self._outdated is not None:
            if self._outdated.start:
                self._cache.drop(self._outdated)
            self._outdated = None
        if self._wanted is not None:
            eip, linear = self._wanted
            self._wanted = None
            self._alias(eip, linear & -PAGE)
        if self._selectors and not self._hold():
            self.clear()

    def _hold(self) -> bool:
        """Are all segments flat whose selectors aliases ask for?"""
        segments_now = self._vm.cpu.state.seg
        return all(
            _is_flat(register) for register in segments_now if register.selector in self._selectors
        )

    def _alias(self, eip: int, linear: int) -> None:
        """Let stores like the one at an EIP write to the table at a linear address."""
        vm, paging = self._vm, self._vm.paging
        machine = vm.cpu.translate(linear)
        frame = -1 if machine is None else machine >> 12
        page = vm.guest_page.get(frame)
        selector = self._selector(eip)
        if page is None or selector is None or self._cache.of_page.get(page):
            return
        shadow = paging.only_shadow(page)
        if shadow is None or linear >= layout.CODE & 0xFFC0_0000:
            return
        number = stores.alias_number(linear)
        window, own = layout.WINDOWS + number * PAGE, layout.SHADOWS + number * PAGE
        vm.monitor.lend(window, frame, writable=True)
        vm.monitor.lend(own, shadow)
        self._invalidate(number)
        distances = [(to - layout.AREA - linear) & FLAT_LIMIT for to in (window, own)]
        vm.monitor.write(stores.alias_address(number), ALIAS.pack(linear, *distances, selector))
        self._aliases.add(number)
        self._selectors |= {selector & ~segments.KERNEL_RING, selector}
        paging.unreported.add(page)

    def _selector(self, eip: int) -> int | None:
        """What the real CPU has in the segment register that a store uses, if no other segment
        can be loaded by it."""
        vm = self._vm
        try:
            to = decode(self._instruction(eip), eip).operands[0]
        except DecodeError:
            return None
        if not isinstance(to, Memory):
            return None
        register = vm.cpu.state.seg[to.effective_segment]
        if not vm.descriptors.agrees(register):
            return None
        is_stack = to.effective_segment == segments.SS
        selector: int = register.selector
        return selector | segments.KERNEL_RING if is_stack else selector

    def _invalidate(self, number: int) -> None:
        for base in (layout.WINDOWS, layout.SHADOWS):
            self._vm.host.cpu.invalidate_page(base + number * PAGE)

    def revert(self, eip: int, unit: Unit) -> None:
        """A store has written to no table for long: it becomes what it was. The world is left."""
        self.sites.discard(eip)
        self._faults[eip] = 0
        self.reverted += 1
        self._cache.drop(unit)

    def clear(self) -> None:
        """No store may write to a table by itself."""
        if not self._aliases:
            return
        for number in self._aliases:
            self._vm.monitor.write(stores.alias_address(number), NO_ALIAS)
            for base in (layout.WINDOWS, layout.SHADOWS):
                self._vm.monitor.lend(base + number * PAGE, None)
            self._invalidate(number)
        self._aliases.clear()
        self._selectors.clear()
        self._vm.paging.refresh_unreported()

    def forget(self) -> None:
        """The guest is another one now."""
        self.clear()
        self.sites.clear()
        self._faults.clear()
        self._wanted = self._outdated = None
