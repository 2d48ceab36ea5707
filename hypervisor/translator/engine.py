"""The translator of one virtual machine: its cache, and what keeps the cache true to the guest.

`prepare` answers the run loop's question - where does the guest's next instruction go on in the
cache? - and translates if need be. Everything else tells the translator what has changed: stores to
traced pages, control registers, another guest. techniques/translate.py says what exits from the
cache mean, and calls on this.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from emulator.core import ffi
from hypervisor.emulate import DR7_ENABLED, EFLAGS_RF, EFLAGS_TF
from hypervisor.segments import BIG, CS, EXPAND_DOWN, KERNEL_RING, SS, Segment
from hypervisor.translator import layout
from hypervisor.translator.adaptive import Adaptive
from hypervisor.translator.area import TranslatorArea
from hypervisor.translator.builder import build, read_source
from hypervisor.translator.cache import Cache
from hypervisor.translator.coherence import Coherence
from hypervisor.translator.forms import FLAT_LIMIT
from hypervisor.translator.gate import build_gate
from hypervisor.translator.linkback import Regions
from hypervisor.translator.unit import Context
from hypervisor.world import USER
from isa.operands import GS

if TYPE_CHECKING:
    from hypervisor.translator.unit import Link, Site, Unit
    from hypervisor.vm import VirtualMachine

STI: Final = "sti"
CONTROLS: Final = struct.Struct("=4I")  #: CR0, CR2, CR3, CR4 as CpuState has them
CONTROLS_AT: Final = ffi.offsetof("CpuState", "cr0")


def reaches_all(stack: Any) -> bool:
    """Can units that check themselves (check.py) read all code through a guest's SS?"""
    return bool(not stack.base and stack.limit == FLAT_LIMIT and not stack.attributes & EXPAND_DOWN)


class Translator:
    """user: ring 3's code is translated too. link_back: safe loops run in place."""

    def __init__(
        self, vm: VirtualMachine, *, user: bool, link_back: bool, cache_bytes: int
    ) -> None:
        self._vm, self._user, self._link_back = vm, user, link_back
        vm.paging.shares_monitor = user
        self.cache = Cache(vm.host, vm.monitor, cache_bytes, user=user)
        self.area = TranslatorArea(vm, self.cache, user=user)
        self.coherence = Coherence(vm, self.cache)
        self.adaptive = Adaptive(vm, self.cache)
        vm.paging.on_tables = vm.descriptors.on_filled = self.adaptive.clear
        self.regions = Regions(vm, self.cache)
        self.area.regions = self.regions if link_back else None
        self.space = self.cache.space(Context(False, 0, 0, 0))
        self._gates: dict[int, Unit] = {}  #: by EIP of the handler
        vm.world.on_change.append(self._check_gates)
        self.cache.on_lost_gate = lambda: vm.gates.close()
        #: The stack that gates lead to, as it was when one was made.
        self._gate_stack: tuple[int, Segment | None] = 0, None
        self.waiting: Link | None = None  #: wants to lead to the unit that is entered next
        self._registers = ffi.buffer(vm.cpu.state)
        self._controls: tuple[int, ...] = ()  #: CR0, CR3 and CR4, as code was mapped by last
        self.lookups = 0  #: of units, by EIP
        self._reserve_segments()

    def _reserve_segments(self) -> None:
        """CS and GS of translations."""
        rings = (KERNEL_RING, USER) if self._user else (KERNEL_RING,)
        area = layout.area_segment(rings[-1])
        self._vm.descriptors.reserve(layout.AREA_SELECTOR, area)
        for ring in rings:
            code = layout.code_segment(ring, self.cache.size)
            self._vm.descriptors.reserve(layout.CODE_SELECTORS[ring], code)
            self._vm.world.own_segments[ring] = {
                CS: [layout.CODE_SELECTORS[ring] | ring, *code],
                GS: [layout.AREA_SELECTOR | ring, *area],
            }

    # -- what has changed --------------------------------------------------------------------------

    def written(self, page: int) -> None:
        """A traced guest page has been written to."""
        self.regions.written(page)
        self.coherence.written(page)
        self._check_mapping()
        self._check_gates()
        self.area.forget()

    def flushed(self) -> None:
        """INVLPG, or a load of CR3: what was stored to page tables counts from now on.

        Nobody may have been told: stores through aliases are not reported, and a table that no
        shadow was ever made of is not traced, though code may be mapped by it.
        """
        self.adaptive.clear()
        self._check_mapping()

    def _check_mapping(self) -> None:
        """What linear addresses mean may have changed."""
        self.coherence.check()
        self.regions.check()

    def _stack_of_gates(self) -> tuple[int, Segment | None]:
        selector = self._vm.gates.stack
        return selector, self._vm.descriptors.source(selector)

    def _check_gates(self) -> None:
        """No gate may lead to a stack that translations cannot use."""
        if self._vm.gates and self._stack_of_gates() != self._gate_stack:
            self._vm.gates.close()

    def _check_controls(self) -> None:
        """Code may be elsewhere after a change of CR0, CR3 or CR4."""
        cr0, _, cr3, cr4 = CONTROLS.unpack_from(self._registers, CONTROLS_AT)
        now = cr0, cr3, cr4
        if now != self._controls:
            self._controls = now
            self.adaptive.clear()
            self._check_mapping()

    def forget(self) -> None:
        """The guest is another one now."""
        self.regions.clear()
        self.cache.clear()
        self.space = self.cache.space(self.space.context)
        self.coherence.forget()
        self.adaptive.forget()
        self.area.forget()

    # -- where the guest goes on -------------------------------------------------------------------

    def prepare(self) -> bool:
        """Have the virtual CPU's EIP translated; False if it cannot be."""
        state = self._vm.cpu.state
        if not self._can_translate(state):
            # What is interpreted may flush: whoever comes next, by a gate as well, has to look.
            self._controls = ()
            self._vm.gates.close()
            return False
        waiting, self.waiting = self.waiting, None
        code = state.seg[CS]
        self._check_controls()
        context = Context(state.cpl == USER, code.selector, code.base, code.limit, self._user)
        if context != self.space.context:
            self.space = self.cache.space(context)
            self.regions.clear()
        self.adaptive.before_entry()
        entry = self._entry(state.eip, jumped=waiting is not None)
        if entry is None:
            return False
        self.area.entry = entry
        if waiting is not None and waiting.eip == state.eip and waiting.unit.start:
            self.connect(waiting)
        return True

    def connect(self, link: Link) -> int | None:
        """Let a link lead on; the address, or None if its EIP is not translated."""
        if self._link_back and link.target is None and self.regions.link(link, self.space.context):
            return link.eip
        self.lookups += 1
        return self.cache.chain(link)

    def _can_translate(self, state: Any) -> bool:
        """Not while each instruction is watched, nor with a stack that translations cannot use; nor
        the one that RF is for, which would be lost within its steps."""
        if state.eflags & (EFLAGS_TF | EFLAGS_RF) or state.dr[7] & DR7_ENABLED:
            return False
        stack = state.seg[SS]
        if not stack.attributes & BIG:
            return False
        return not self.coherence.mixed or reaches_all(stack)

    def _entry(self, eip: int, *, jumped: bool) -> int | None:
        """Where the translation of an EIP is entered; None if nothing can be fetched there."""
        self.lookups += 1
        found = self.space.find_jumped(eip) if jumped else self.space.find(eip)
        if found is not None:
            return found[0].start + found[1]
        unit = self.translate(eip)
        return None if unit is None else unit.entry

    def translate(self, eip: int) -> Unit | None:
        """A unit for the code at an EIP; None if there is nothing to be fetched."""
        space = self.space
        source = read_source(self._vm, space.context, eip)
        if source is None:
            return None
        unit = self.cache.wake(space, eip, source.pages)
        if unit is None:
            checked = not self.coherence.mixed.isdisjoint(source.pages)
            unit = build(source, space.context, eip, checked, self.adaptive.sites)
            if unit is None:
                return None
            self.cache.add(unit, space)
        self.coherence.watch(unit, space.context.base)
        return unit

    def gate(self, low: int, high: int) -> tuple[int, int] | None:
        """What leads a pass-through gate to its handler's translation; None if it cannot be."""
        self._check_controls()
        selector, eip = low >> 16 & ~USER, high & 0xFFFF_0000 | low & 0xFFFF
        code = self._vm.descriptors.source(selector)
        context = self.space.context
        if code is None or context != Context(False, selector, code.base, code.limit):
            return None
        if eip > code.limit:
            return None  # then the INT itself faults
        self._vm.descriptors.fill(self._vm.gates.stack)
        self._gate_stack = _, stack = self._stack_of_gates()
        if stack is None or not stack.attributes & BIG or not reaches_all(stack):
            return None
        unit = self._gates.get(eip)
        if unit is None or not unit.start:
            unit = self._gates[eip] = build_gate(context, eip)
            self.cache.add(unit, self.space)
        self.area.kernel_code = selector, code
        start = unit.start
        return (
            layout.CODE_SELECTORS[KERNEL_RING] << 16 | start & 0xFFFF,
            start & 0xFFFF_0000 | high & 0xFFFF,
        )

    def _site_at(self, eip: int) -> Site | None:
        """What has become of the instruction at an EIP, if it begins with a step of its own."""
        unit = self.space.active.get(eip)
        found = self.space.inside.get(eip) if unit is None else (unit, unit.inside.get(eip, 0))
        return None if found is None else found[0].places[found[1]].site

    def next_is_sti(self) -> bool:
        """Is the instruction that the real CPU has come to an STI of the guest's kernel?"""
        real = self._vm.real
        if not self.cache.holds(real.eip):
            return False
        place = self.cache.place(real.eip)
        eip = self.area.read(layout.WANTED) if place.target else place.eip
        site = place.site or self._site_at(eip)
        return site is not None and site.row is not None and site.row.mnemonic == STI
