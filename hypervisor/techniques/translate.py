"""translate: the kernel's code runs only as its translation, in ring 1.

Unmodified kernels on the unvirtualizable ISA: what is safe is copied, the rest becomes code on the
vCPU area or a callout (hypervisor/translator/). Here is what the virtual machine's loop asks for,
and what exits from the cache mean: a stub (where next?), a target that TARGETS does not know, a
callout, and faults, which are the hypervisor's to repair or the guest's own. User code runs as it
is. Adams and Agesen (2006) is the model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emulator.core import EventKind, ffi
from hypervisor.emulate import DR7_ENABLED, EFLAGS_RF, EFLAGS_TF, EMULATED, Trapped
from hypervisor.memory.shadow import Verdict
from hypervisor.outcome import Outcome
from hypervisor.segments import BIG, CS, KERNEL_RING, SS
from hypervisor.techniques.base import USER, Technique
from hypervisor.translator import layout
from hypervisor.translator.adaptive import Adaptive
from hypervisor.translator.area import TranslatorArea
from hypervisor.translator.builder import build, read_source
from hypervisor.translator.cache import DEFAULT_BYTES, Cache
from hypervisor.translator.coherence import Coherence
from hypervisor.translator.gate import build_gate
from hypervisor.translator.linkback import Regions
from hypervisor.translator.unit import Context
from isa.operands import EAX, GS
from isa.site_forms import INT_LENGTH

if TYPE_CHECKING:
    from hypervisor.translator.unit import Link, Place, Site, Unit
    from hypervisor.vm import VirtualMachine

DEBUG: Final = 1
PAGE_FAULT: Final = 14
SELECTOR_FAULTS: Final = frozenset({10, 11, 12, 13})
SOFTWARE: Final = int(EventKind.SOFTWARE)
STI: Final = "sti"
CONTROLS: Final = struct.Struct("=4I")  #: CR0, CR2, CR3, CR4 as CpuState has them
CONTROLS_AT: Final = ffi.offsetof("CpuState", "cr0")


class Translate(Technique):
    """The block-caching binary translator."""

    name: ClassVar[str] = "translate"
    switches: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "--user": ("user", True),
        "--no-adaptive": ("adaptive", False),
        "--link-back": ("link_back", True),
    }
    own_vector: ClassVar[int | None] = layout.OWN_VECTOR
    generates_code: ClassVar[bool] = True

    def __init__(
        self,
        *,
        user: bool = False,
        adaptive: bool = True,
        link_back: bool = False,
        cache_bytes: int = DEFAULT_BYTES,
    ) -> None:
        self.user = user  #: ring 3 is translated too
        self.adaptive = adaptive  #: stores that keep faulting are translated anew
        self.link_back = link_back  #: safe loops run in place
        self.kernel_in_ring_1 = not user  # else INT is translated too
        self._cache_bytes = cache_bytes

    def attach(self, vm: VirtualMachine) -> None:
        user = self.user
        vm.paging.shares_monitor = user
        self._cache = Cache(vm.host, vm.monitor, self._cache_bytes, user=user)
        self._area = vm.world.area = TranslatorArea(vm, self._cache, user=user)
        self._coherence = Coherence(vm, self._cache)
        self._adaptive = Adaptive(vm, self._cache)
        vm.paging.on_tables = self._adaptive.clear
        self._regions = Regions(vm, self._cache)
        self._area.regions = self._regions if self.link_back else None
        self._space = self._cache.space(Context(False, 0, 0, 0))
        self._gates: dict[int, Unit] = {}  #: by EIP of the handler
        self._cache.on_lost_gate = lambda: vm.gates.close()
        self._waiting: Link | None = None  #: wants to lead to the unit that is entered next
        self._registers = ffi.buffer(vm.cpu.state)
        self._controls = 0, 0, 0
        self._reserve_segments(vm)

    def _reserve_segments(self, vm: VirtualMachine) -> None:
        """CS and GS of translations."""
        rings = (KERNEL_RING, USER) if self.user else (KERNEL_RING,)
        area = layout.area_segment(rings[-1])
        vm.descriptors.reserve(layout.AREA_SELECTOR, area)
        for ring in rings:
            code = layout.code_segment(ring, self._cache.size)
            vm.descriptors.reserve(layout.CODE_SELECTORS[ring], code)
            vm.world.own_segments[ring] = {
                CS: [layout.CODE_SELECTORS[ring] | ring, *code],
                GS: [layout.AREA_SELECTOR | ring, *area],
            }

    def traced(self, vm: VirtualMachine, record: Any) -> None:
        if self.adaptive and vm.in_kernel:
            if not self._cache.holds(record.eip):
                return
            unit = self._cache.unit_at(record.eip)
            eip = unit.places[record.eip - unit.start].eip
            self._adaptive.faulted(eip, record.linear, unit)

    @property
    def cache(self) -> Cache:
        """For those who look at what has been translated."""
        return self._cache

    def on_code(self, listen: Callable[[Unit], object]) -> None:
        self._cache.on_added = listen

    def holds(self, address: int) -> bool:
        return layout.CODE <= address < layout.CODE + self._cache.size

    def written(self, vm: VirtualMachine, page: int) -> None:
        del vm
        self._adaptive.clear()
        self._regions.written(page)
        self._coherence.written(page)
        self._check_mapping()
        self._area.forget()

    def _check_mapping(self) -> None:
        """What linear addresses mean may have changed."""
        self._coherence.check()
        self._regions.check()

    def _check_controls(self) -> None:
        """Code may be elsewhere after a change of CR0, CR3 or CR4."""
        cr0, _, cr3, cr4 = CONTROLS.unpack_from(self._registers, CONTROLS_AT)
        now = cr0, cr3, cr4
        if now != self._controls:
            self._controls = now
            self._adaptive.clear()
            self._check_mapping()

    def forget(self, vm: VirtualMachine) -> None:
        del vm
        self._regions.clear()
        self._cache.clear()
        self._space = self._cache.space(self._space.context)
        self._coherence.forget()
        self._adaptive.forget()
        self._area.forget()

    # -- where the guest goes on -----------------------------------------------------------------

    def runs_directly(self, vm: VirtualMachine) -> bool:
        state = vm.cpu.state
        if state.cpl == USER and not self.user:
            return True
        if not self._can_translate(state):
            self._adaptive.clear()
            return False
        waiting, self._waiting = self._waiting, None
        code = state.seg[CS]
        self._check_controls()
        context = Context(state.cpl == USER, code.selector, code.base, code.limit, self.user)
        if context != self._space.context:
            self._space = self._cache.space(context)
            self._regions.clear()
        self._adaptive.before_entry()
        entry = self._entry(vm, state.eip, jumped=waiting is not None)
        if entry is None:
            return False
        self._area.entry = entry
        if waiting is not None and waiting.eip == state.eip and waiting.unit.start:
            self._connect(waiting)
        return True

    def _connect(self, link: Link) -> int | None:
        """Let a link lead on; the address, or None if its EIP is not translated."""
        if self.link_back and link.target is None and self._regions.link(link, self._space.context):
            return link.eip
        return self._cache.chain(link)

    def _can_translate(self, state: Any) -> bool:
        """Not while each instruction is watched, nor with a stack that translations cannot use."""
        if state.eflags & EFLAGS_TF or state.dr[7] & DR7_ENABLED:
            return False
        stack = state.seg[SS]
        return bool(stack.attributes & BIG) and not (stack.base and self._coherence.mixed)

    def _entry(self, vm: VirtualMachine, eip: int, *, jumped: bool) -> int | None:
        """Where the translation of an EIP is entered; None if nothing can be fetched there."""
        found = self._space.find_jumped(eip) if jumped else self._space.find(eip)
        if found is not None:
            return found[0].start + found[1]
        unit = self._translate(vm, eip)
        return None if unit is None else unit.entry

    def _translate(self, vm: VirtualMachine, eip: int) -> Unit | None:
        """A unit for the code at an EIP; None if there is nothing to be fetched."""
        space = self._space
        source = read_source(vm, space.context, eip)
        if source is None:
            return None
        unit = self._cache.wake(space, eip, source.pages)
        if unit is None:
            checked = not self._coherence.mixed.isdisjoint(source.pages)
            unit = build(source, space.context, eip, checked, self._adaptive.sites)
            if unit is None:
                return None
            self._cache.add(unit, space)
        self._coherence.watch(unit, space.context.base)
        return unit

    def gate(self, vm: VirtualMachine, low: int, high: int) -> tuple[int, int] | None:
        """A pass-through gate leads to the handler's translation (translator/gate.py)."""
        selector, eip = low >> 16 & ~USER, high & 0xFFFF_0000 | low & 0xFFFF
        code = vm.descriptors.source(selector)
        context = self._space.context
        if code is None or context != Context(False, selector, code.base, code.limit):
            return None
        unit = self._gates.get(eip)
        if unit is None or not unit.start:
            unit = self._gates[eip] = build_gate(context, eip)
            self._cache.add(unit, self._space)
        self._area.kernel_code = selector, code
        start = unit.start
        return (
            layout.CODE_SELECTORS[KERNEL_RING] << 16 | start & 0xFFFF,
            start & 0xFFFF_0000 | high & 0xFFFF,
        )

    # -- exits from the cache --------------------------------------------------------------------

    def event(self, vm: VirtualMachine, record: Any) -> Outcome | None:
        if self._regions.edges and record.vector == DEBUG and record.kind != SOFTWARE:
            return self._left_region(vm)
        if not (vm.in_kernel or self.user):
            return None
        if not self._cache.holds(record.eip):
            return None
        place = self._cache.place(record.eip)
        if record.kind == SOFTWARE:
            if place.link is not None:
                return self._follow(vm, place.link)
            if place.target:
                return self._look_up(vm)
            if place.gate:
                return self._exchange(vm)
            if place.check:
                return self._changed(vm, record)
            if place.revert:
                return self._revert(vm, record, place)
            return self._call_out(vm, place)
        if place.check:
            return self._check_faulted(vm, record)
        if place.site is None:
            return None
        return self._faulted(vm, record, place)

    def _follow(self, vm: VirtualMachine, link: Link) -> Outcome:
        """A stub: go where its link leads."""
        vm.counts["translation: link"] += 1
        entry = self._connect(link)
        if entry is None or entry == link.eip:
            vm.world.leave()  # where it runs in place, its breakpoints are to be loaded
            self._waiting = link if entry is None else None
        else:
            vm.real.eip = entry
        return Outcome.RESUME

    def _left_region(self, vm: VirtualMachine) -> Outcome:
        """Code that runs in place ends here, and the cache goes on; or ring 3 has come by."""
        if not vm.in_kernel:
            vm.real.eflags |= EFLAGS_RF
            return Outcome.RESUME
        vm.counts["translation: edge"] += 1
        vm.world.leave()
        return Outcome.RESUME

    def _look_up(self, vm: VirtualMachine) -> Outcome:
        """TARGETS does not know what is looked for."""
        vm.counts["translation: target"] += 1
        eip = vm.real.gpr[EAX]
        target = self._space.active.get(eip)
        if target is None:
            vm.world.leave()
            target = self._translate(vm, eip)
            if target is None:
                return Outcome.RESUME
        self._cache.make_target(target)
        if vm.world.entered:
            self._area.restore_saved(vm.real)
            vm.real.eip = target.entry
        return Outcome.RESUME

    def _exchange(self, vm: VirtualMachine) -> Outcome:
        """The program has loaded GS: the world switch finds out with what."""
        vm.counts["translation: gs"] += 1
        vm.world.leave()
        return Outcome.RESUME

    def _changed(self, vm: VirtualMachine, record: Any) -> Outcome:
        """A unit that checks itself is not what its source says any more."""
        vm.counts["translation: changed"] += 1
        if vm.real.seg[SS].base:
            return vm.interpret("stack with a base")  # it has compared something else
        vm.world.leave()
        self._cache.drop(self._cache.unit_at(record.eip))
        self._coherence.invalidated += 1
        return Outcome.RESUME

    def _check_faulted(self, vm: VirtualMachine, record: Any) -> Outcome:
        """The source is not mapped, to us or to anyone: then its fetch will say so."""
        if record.vector == PAGE_FAULT:
            verdict, _ = vm.paging.fault(record.linear, record.error)
            if verdict is Verdict.HIDDEN:
                vm.count("hidden page fault")
                vm.refresh_paging()
                return Outcome.RESUME
        return self._changed(vm, record)

    def _revert(self, vm: VirtualMachine, record: Any, place: Place) -> Outcome:
        """An adaptive store that writes to no table any more."""
        vm.counts["translation: reverted"] += 1
        vm.world.leave()
        self._adaptive.revert(place.eip, self._cache.unit_at(record.eip))
        return Outcome.RESUME

    def _call_out(self, vm: VirtualMachine, place: Place) -> Outcome:
        """The guest's instruction is the hypervisor's to execute."""
        site = place.site
        assert site is not None
        vm.count(site.name)
        if site.row is None or site.row.privilege == "cpl0":
            self._adaptive.clear()  # CR3 loads and INVLPG are among these
        emulate = EMULATED.get(site.name)
        if emulate is not None and site.row is not None and not place.lost and vm.in_kernel:
            end = vm.record.eip + INT_LENGTH
            trapped = Trapped(site.row, len(site.original), end, lambda: site.original)
            if emulate(vm, trapped):
                return Outcome.RESUME
        return vm.interpret(site.name)

    def _faulted(self, vm: VirtualMachine, record: Any, place: Place) -> Outcome | None:
        """An exception at a step of what has become of one guest instruction."""
        site = place.site
        assert site is not None
        if record.vector == PAGE_FAULT:
            return self._page_fault(vm, record, site)
        if record.vector in SELECTOR_FAULTS and vm.descriptors.fill(record.error):
            vm.count("descriptor load")
            return Outcome.RESUME
        return self._original(vm, site)

    def _page_fault(self, vm: VirtualMachine, record: Any, site: Site) -> Outcome:
        if not self._area.holds(record.linear):
            verdict, _ = vm.paging.fault(record.linear, record.error)
            if verdict is Verdict.HIDDEN:
                vm.count("hidden page fault")
                vm.refresh_paging()
                return Outcome.RESUME
        return self._original(vm, site)

    def _original(self, vm: VirtualMachine, site: Site) -> Outcome:
        """Have the virtual CPU execute what the steps stand for."""
        vm.count(f"site: {site.name}")
        return vm.interpret(site.name)

    def limit(self, vm: VirtualMachine, until: int) -> int:
        """Stop one tick early, to see whether the last instruction is an STI.

        An interrupt must not be taken right after one that has turned interrupts on.
        """
        world = vm.world
        if not world.entered:
            world.enter()
        if vm.real.tick + 1 < until:
            return until - 1
        world.sti_shadow_at = -1
        if not self._cache.holds(vm.real.eip):
            return until
        if vm.in_kernel and not self._area.interrupts_on:
            place = self._cache.place(vm.real.eip)
            found = self._space.find(vm.real.gpr[EAX] if place.target else place.eip)
            site = None if found is None else found[0].places[found[1]].site
            if site is not None and site.row is not None and site.row.mnemonic == STI:
                world.sti_shadow_at = vm.real.tick + 1
        return until
