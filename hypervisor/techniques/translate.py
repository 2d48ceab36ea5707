"""translate: the kernel's code runs only as its translation, in ring 1.

Unmodified kernels on the unvirtualizable ISA: what is safe is copied, the rest becomes code on the
vCPU area or a callout (hypervisor/translator/). Here is what exits from the cache mean: a stub
(where next?), a target that the cache does not know, a callout, and faults, which are the
hypervisor's to repair or the guest's own. User code runs as it is, unless --user has it translated
too. Adams and Agesen (2006) is the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emulator.core import EventKind
from hypervisor.emulate import EFLAGS_RF, EMULATED, Trapped
from hypervisor.outcome import Outcome
from hypervisor.segments import SS
from hypervisor.techniques.base import USER, Placed, Technique
from hypervisor.translator import layout
from hypervisor.translator.cache import DEFAULT_BYTES
from hypervisor.translator.engine import Translator
from isa.site_forms import INT_LENGTH

if TYPE_CHECKING:
    from hypervisor.translator.unit import Link, Place, Site, Unit
    from hypervisor.vm import VirtualMachine

DEBUG: Final = 1
PAGE_FAULT: Final = 14
SELECTOR_FAULTS: Final = frozenset({10, 11, 12, 13})
SOFTWARE: Final = int(EventKind.SOFTWARE)
SINGLE_STEP: Final = 0x4000  #: DR6.BS


class Translate(Technique):
    """The block-caching binary translator."""

    name: ClassVar[str] = "translate"
    steps_on: ClassVar[bool] = True
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
        self.translator = translator = Translator(
            vm, user=self.user, link_back=self.link_back, cache_bytes=self._cache_bytes
        )
        vm.world.area = translator.area
        self._cache, self._area = translator.cache, translator.area

    def runs_directly(self, vm: VirtualMachine) -> bool:
        return (vm.cpu.state.cpl == USER and not self.user) or self.translator.prepare()

    def written(self, vm: VirtualMachine, page: int) -> None:
        del vm
        self.translator.written(page)

    def forget(self, vm: VirtualMachine) -> None:
        del vm
        self.translator.forget()

    def on_code(self, listen: Callable[[Unit], object]) -> None:
        self._cache.on_added = listen

    def work(self) -> Mapping[str, int]:
        return {
            "translated": self._cache.instructions,
            "unit_found": self.translator.lookups,
            "chained": self._cache.chained + self._cache.targeted,
        }

    def statistics(self) -> Mapping[str, int]:
        cache, adaptive = self._cache, self.translator.adaptive
        return {
            "units": cache.translated,
            "instructions": cache.instructions,
            "evicted": cache.evicted,
            "chained": cache.chained,
            "invalidated": self.translator.coherence.invalidated,
            "adaptive_made": adaptive.made,
            "adaptive_reverted": adaptive.reverted,
        }

    def holds(self, address: int) -> bool:
        return self._cache.holds(address)

    def position(self, vm: VirtualMachine) -> tuple[int, int]:
        eip = vm.real.eip
        if not (vm.in_kernel or self.user) or not self._cache.holds(eip):
            return super().position(vm)
        space = self._cache.unit_at(eip).space
        assert space is not None
        return space.context.base, self._cache.place(eip).eip

    def stands_for(self, vm: VirtualMachine, linear: int) -> Iterator[int]:
        del vm
        for unit in self._cache:
            if unit.space is not None:
                offset = unit.inside.get(linear - unit.space.context.base & 0xFFFF_FFFF)
                if offset is not None:
                    yield unit.start + offset

    def on_placed(self, listen: Placed) -> None:
        def placed(unit: Unit) -> None:
            assert unit.space is not None
            listen(unit.space.context.base, unit.start, unit.inside)

        self._cache.on_placed = placed

    def is_own_access(self, vm: VirtualMachine, eip: int) -> bool:
        if not (vm.in_kernel or self.user) or not self._cache.holds(eip):
            return False
        place = self._cache.place(eip)
        return place.check or place.gate

    def gate(self, vm: VirtualMachine, low: int, high: int) -> tuple[int, int] | None:
        del vm
        return self.translator.gate(low, high)

    def traced(self, vm: VirtualMachine, record: Any) -> None:
        if self.adaptive and vm.in_kernel and self._cache.holds(record.eip):
            unit = self._cache.unit_at(record.eip)
            eip = unit.places[record.eip - unit.start].eip
            self.translator.adaptive.faulted(eip, record.linear, unit)

    def limit(self, vm: VirtualMachine, until: int) -> int:
        """Stop one tick early, to see whether the last instruction is an STI.

        An interrupt must not be taken right after one that has turned interrupts on.
        """
        world = vm.world
        if not world.entered:
            world.enter()
        if vm.real.tick + 1 < until:
            return until - 1
        is_sti = vm.in_kernel and not self._area.interrupts_on and self.translator.next_is_sti()
        world.sti_shadow_at = vm.real.tick + 1 if is_sti else -1
        return until

    # -- exits from the cache --------------------------------------------------------------------

    def event(self, vm: VirtualMachine, record: Any) -> Outcome | None:
        if self.translator.regions.edges and record.vector == DEBUG and record.kind != SOFTWARE:
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
        entry = self.translator.connect(link)
        if entry is None or entry == link.eip:
            vm.world.leave()  # where it runs in place, its breakpoints are to be loaded
            self.translator.waiting = link if entry is None else None
        else:
            vm.real.eip = entry
        return Outcome.RESUME

    def _left_region(self, vm: VirtualMachine) -> Outcome | None:
        """Code that runs in place ends here, and the cache goes on; or ring 3 has come by."""
        if vm.dr[6] & SINGLE_STEP:
            return None  # it is the guest's own
        if not vm.in_kernel:
            vm.real.eflags |= EFLAGS_RF
            return Outcome.RESUME
        vm.counts["translation: edge"] += 1
        vm.world.leave()
        return Outcome.RESUME

    def _look_up(self, vm: VirtualMachine) -> Outcome:
        """TARGETS does not know what is looked for."""
        vm.counts["translation: target"] += 1
        eip = self._area.read(layout.WANTED)
        self.translator.lookups += 1
        target = self.translator.space.active.get(eip)
        if target is None:
            vm.world.leave()
            target = self.translator.translate(eip)
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
        self.translator.coherence.invalidated += 1
        return Outcome.RESUME

    def _check_faulted(self, vm: VirtualMachine, record: Any) -> Outcome:
        """The source is not mapped, to us or to anyone: then its fetch will say so."""
        if record.vector == PAGE_FAULT and vm.fill_shadow(record):
            return Outcome.RESUME
        if record.vector != PAGE_FAULT:
            return vm.interpret("check")  # SS ends before it, or it must be aligned
        return self._changed(vm, record)

    def _revert(self, vm: VirtualMachine, record: Any, place: Place) -> Outcome:
        """An adaptive store that writes to no table any more."""
        vm.counts["translation: reverted"] += 1
        vm.world.leave()
        self.translator.adaptive.revert(place.eip, self._cache.unit_at(record.eip))
        return Outcome.RESUME

    def _call_out(self, vm: VirtualMachine, place: Place) -> Outcome:
        """The guest's instruction is the hypervisor's to execute."""
        site = place.site
        assert site is not None
        vm.count(site.name)
        if site.row is None or site.row.privilege == "cpl0":
            self.translator.flushed()  # CR3 loads and INVLPG are among these
        if not self._cache.unit_at(vm.record.eip).active:
            return vm.interpret(site.name)  # its code is not there any more
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
        if record.vector in SELECTOR_FAULTS and vm.fill_descriptor(record.error):
            return Outcome.RESUME
        return self._original(vm, site)

    def _page_fault(self, vm: VirtualMachine, record: Any, site: Site) -> Outcome:
        if not self._area.holds(record.linear) and vm.fill_shadow(record):
            return Outcome.RESUME
        return self._original(vm, site)

    def _original(self, vm: VirtualMachine, site: Site) -> Outcome:
        """Have the virtual CPU execute what the steps stand for."""
        vm.count(f"site: {site.name}")
        return vm.interpret(site.name)
