"""The translator's vCPU area: the virtual IF, as a paravirtual kernel has it, and what else of the
virtual CPU translations read - selectors and control registers.

`enter` also decides where in the cache the real CPU goes on, and `leave` where the guest is then.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from emulator.core import EFLAGS_IF, GENERAL, ffi
from hypervisor import segments
from hypervisor.emulate import DR7_ENABLED
from hypervisor.segments import Segment
from hypervisor.translator import gate, layout
from hypervisor.vcpu_area import VcpuArea
from hypervisor.world import RING_AND_SEGMENTS, TABLES_AND_CONTROLS, USER
from isa.operands import CS, EAX, ECX, EDX, ESP, GS, SS
from isa.paravirt import FIELDS, SAVE_ECX
from isa.site_forms import Step
from isa.sites import put_back

if TYPE_CHECKING:
    from hypervisor.translator.cache import Cache
    from hypervisor.translator.linkback import Regions
    from hypervisor.translator.unit import Place
    from hypervisor.vm import VirtualMachine

NULL_SELECTORS: Final = 4
EFLAGS_NT: Final = 0x4000
SINGLE_STEP: Final = 0x4000  #: DR6.BS
HALF: Final = struct.Struct("<H")
_NAMES: Final = {"eax": EAX, "ecx": ECX, "edx": EDX, "esp": ESP}
assert GENERAL[ESP] == "esp"


class TranslatorArea(VcpuArea):
    """The area of a machine whose kernel is translated. The technique sets `entry`."""

    #: With NT an IRET is another one; translations do not look at it.
    watched_flags = VcpuArea.watched_flags | EFLAGS_NT

    def __init__(self, vm: VirtualMachine, cache: Cache, *, user: bool) -> None:
        super().__init__(vm, layout.AREA, (*FIELDS, *layout.OWN_FIELDS), user=user)
        self._user = user  #: ring 3's code is translated as well
        self.regions: Regions | None = None  #: of code that runs in place
        self._guest_debug: list[int] | None = None  #: DR0 to DR7, while theirs are in use
        self._cache = cache
        self._state = ffi.buffer(vm.cpu.state)
        self._seen = b""
        self._seen_tables = b""
        self.entry = 0  #: where the translation of the virtual CPU's EIP is entered
        #: What the guest has in CS behind its pass-through gates.
        self.kernel_code: tuple[int, Segment] | None = None

    def forget(self) -> None:
        """Descriptors may have changed, which GS could be loaded with again."""
        self._seen = b""

    def enter(self, virtual: Any) -> None:
        super().enter(virtual)
        self._show(virtual)
        if virtual.cpl != USER or self._user:
            self._vm.real.eip = self.entry
        if self.regions is not None and self.regions.edges:
            self._guard(self.regions, virtual)

    def _show(self, virtual: Any) -> None:
        """Let the guest's code see what has changed."""
        now = self._state[TABLES_AND_CONTROLS]
        if now != self._seen_tables:
            self._seen_tables = now
            show_controls(self, virtual)
            self._seen = b""
        now = self._state[RING_AND_SEGMENTS]
        if now != self._seen:
            self._seen = now
            self._show_selectors(virtual)

    def _guard(self, regions: Regions, virtual: Any) -> None:
        """The debug registers are for the edges of regions, unless the guest uses them."""
        if virtual.dr[7] & DR7_ENABLED:
            regions.clear()
            return
        self._guest_debug = list(virtual.dr)
        regions.load(self._vm.real)

    def _show_selectors(self, virtual: Any) -> None:
        gs = virtual.seg[GS]
        self.put(layout.GS_SELECTOR, gs.selector)
        self.put(layout.SS_SELECTOR, virtual.seg[SS].selector)
        same = self._is_loaded(gs)
        self.put(layout.GS_NEGATED, -(gs.selector if same else layout.NO_SELECTOR))
        self.put(layout.SAME_CS, self._same_code(virtual))

    def _same_code(self, virtual: Any) -> int:
        """The kernel's CS, if loading it changes nothing; while ring 3 runs, that of its gates."""
        if virtual.cpl != USER:
            code = virtual.seg[CS]
            return code.selector if self._is_loaded(code) else layout.NO_SELECTOR
        if self.kernel_code is not None:
            selector, loaded = self.kernel_code
            if self._vm.descriptors.source(selector) == loaded:
                return selector
        return layout.NO_SELECTOR

    def _is_loaded(self, register: Any) -> bool:
        """Would loading its selector again change nothing?"""
        if register.selector < NULL_SELECTORS:
            return bool(register.attributes & segments.UNUSABLE)
        descriptors = self._vm.descriptors
        descriptors.fill(register.selector)
        return descriptors.holds(register)

    # -- and back ----------------------------------------------------------------------------------

    def leave(self, virtual: Any) -> None:
        super().leave(virtual)
        if self._guest_debug is not None:
            self._end_guard(virtual, self._guest_debug)
            self._guest_debug = None
        if (virtual.cpl != USER or self._user) and self._cache.holds(virtual.eip):
            self._leave_cache(virtual)  # else it runs in place

    def _end_guard(self, virtual: Any, debug: list[int]) -> None:
        """The debug registers are the guest's again."""
        stepped = virtual.dr[6] & SINGLE_STEP  # ring 3 may do that as it likes
        virtual.dr[0:8] = debug
        virtual.dr[6] |= stepped

    def _leave_cache(self, virtual: Any) -> None:
        """What is the translation's becomes the guest's."""
        place = self._cache.place(virtual.eip)
        self.take_back(virtual, place)
        if place.gate:
            self._end_exchange(virtual)
        code = virtual.seg[CS]
        if virtual.cpl != USER and code.selector & USER == USER and self.kernel_code is not None:
            # It has come through a gate.
            code.selector, (code.attributes, code.base, code.limit) = self.kernel_code

    def _end_exchange(self, virtual: Any) -> None:
        """Within a gate's exchange of GS: what serves as scratch is zero again."""
        vm, base, esp = self._vm, virtual.seg[SS].base, virtual.gpr[ESP]
        (selector,) = HALF.unpack(vm.host.cpu.read_linear(base + esp + gate.GS_HALF, HALF.size))
        for offset in (gate.GS_HALF, gate.OWN_HALF):
            vm.host.cpu.write_linear(base + esp + offset, bytes(HALF.size))
        register = virtual.seg[GS]
        if vm.real.seg[GS].selector != layout.AREA_SELECTOR | segments.KERNEL_RING:
            return  # it is the program's still
        if selector != register.selector:
            register.selector = selector
            source = vm.descriptors.source(selector)
            loaded = source or Segment(segments.UNUSABLE, 0, 0)
            register.attributes, register.base, register.limit = loaded

    def take_back(self, state: Any, place: Place) -> None:
        """Make a CPU's registers, which are those of a place in the cache, the guest's."""
        if place.target:
            state.eip = self.read(layout.WANTED)
            self.restore_saved(state)
        else:
            put_registers_back(self, state, place)

    def restore_saved(self, state: Any) -> None:
        """ECX as it was before the cache looked for a target."""
        state.gpr[ECX] = self.read(SAVE_ECX)


def put_registers_back(area: VcpuArea, state: Any, place: Place) -> None:
    """Undo what the steps before a place have done to a CPU's registers."""
    state.eip = place.eip
    if not place.lost and not place.released:
        return
    step = Step(0, b"", 0, place.lost, place.released)
    for name, value in put_back(step, state.gpr[ESP], state.eflags, area.read).items():
        if name == "eflags":
            state.eflags = value
        elif name == "if_word":
            state.eflags = state.eflags & ~EFLAGS_IF | (EFLAGS_IF if value else 0)
        else:
            state.gpr[_NAMES[name]] = value


def show_controls(area: VcpuArea, virtual: Any) -> None:
    """Let the guest's code see its system and control registers."""
    area.put(layout.LDTR_SELECTOR, virtual.ldtr.selector)
    area.put(layout.TR_SELECTOR, virtual.tr.selector)
    for number, field in layout.CONTROL.items():
        area.put(field, getattr(virtual, f"cr{number}"))


def show_selectors(area: VcpuArea, virtual: Any) -> None:
    """The same, and SS, for code that has all other selectors itself."""
    area.put(layout.SS_SELECTOR, virtual.seg[SS].selector)
    show_controls(area, virtual)
