"""patch: the kernel's code runs in place, its unsafe instructions overwritten.

VirtualBox's way (PATM and CSAM): code is scanned before it runs, and what would be unfaithful in
ring 1 becomes a jump into patch memory or an INT3 (hypervisor/patcher/). What is privileged traps,
as under `trap`. Whatever happens in patch memory ends here: a fault of ours is repaired, else the
virtual CPU executes the original. What guests read of patched code is what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emulator.core import EventKind
from hypervisor.emulate import DR7_ENABLED, EFLAGS_RF, EFLAGS_TF
from hypervisor.outcome import Outcome
from hypervisor.patcher.area import PatchArea
from hypervisor.patcher.memory import PatchMemory
from hypervisor.patcher.patches import Patches
from hypervisor.patcher.scanner import Scanner
from hypervisor.segments import BIG, CS, SS
from hypervisor.techniques.base import USER, Technique
from hypervisor.translator import layout
from hypervisor.translator.unit import Context, Place
from isa.decoder import MAXIMUM_LENGTH
from isa.paravirt import VCPU_AREA_BYTES, VCPU_PAGE

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

DEBUG: Final = 1
BREAKPOINT: Final = 3
PAGE_FAULT: Final = 14
SELECTOR_FAULTS: Final = frozenset({10, 11, 12, 13})
SOFTWARE: Final = int(EventKind.SOFTWARE)
STI: Final = "sti"


class Patch(Technique):
    """The in-place patcher."""

    name: ClassVar[str] = "patch"
    switches: ClassVar[Mapping[str, tuple[str, Any]]] = {"--strict": ("strict", True)}
    own_vector: ClassVar[int | None] = layout.OWN_VECTOR

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict  #: no indirect transfer leads to code that has not been scanned

    def attach(self, vm: VirtualMachine) -> None:
        self.memory = PatchMemory(vm.host, vm.monitor)
        self.scanner = Scanner(vm, strict=self.strict)
        self.patches = Patches(vm, self.scanner, self.memory)
        self._area = vm.world.area = PatchArea(vm, self.memory, self.patches)
        self._context = Context(False, -1, 0, 0)
        vm.descriptors.data_end = VCPU_PAGE + VCPU_AREA_BYTES
        vm.descriptors.code_end = layout.CODE + self.memory.size
        vm.descriptors.hides_code = True
        vm.view_page = self.patches.unpatched

    def forget(self, vm: VirtualMachine) -> None:
        del vm
        self.patches.forget()
        self.scanner.clear()

    # -- scanning --------------------------------------------------------------------------------

    def runs_directly(self, vm: VirtualMachine) -> bool:
        state = vm.cpu.state
        if state.cpl == USER:
            return self.patches.at(state.eip) is None
        if state.eflags & (EFLAGS_TF | EFLAGS_RF) or state.dr[7] & DR7_ENABLED:
            return False  # each instruction is watched
        if not state.seg[SS].attributes & BIG:
            return False  # patches use ESP
        context = self._virtual_context(vm)
        if context != self._context:
            self._context = context
            self.patches.clear()
            self.scanner.clear()
        if state.eip not in self.scanner.instructions:
            self._scan({state.eip})
        else:
            self._enter(state.eip)
        return True

    def _enter(self, eip: int) -> None:
        """The guest is let in at an instruction that is known: nobody may overwrite it half."""
        patch = self.patches.at(eip)
        if patch is not None and eip not in patch.sites:
            self._scan({eip})

    def _scan(self, entries: set[int]) -> None:
        self.patches.make(self._context, self.scanner.scan(self._context, entries))

    def gate(self, vm: VirtualMachine, low: int, high: int) -> tuple[int, int] | None:
        """The guest's own gate: its handler is scanned now, for the hardware will not ask."""
        eip = high & 0xFFFF_0000 | low & 0xFFFF
        if eip not in self.scanner.instructions:
            self._scan({eip})
        return super().gate(vm, low, high)

    def traced(self, vm: VirtualMachine, record: Any) -> None:
        machine = vm.cpu.translate(record.linear)
        page = None if machine is None else vm.guest_page.get(machine >> 12)
        if page is not None:
            self.patches.before_store(page << 12 | record.linear & 0xFFF)

    def written(self, vm: VirtualMachine, page: int) -> None:
        del vm
        roots: set[int] = set()
        for linear in self.patches.written(page):
            roots |= self.scanner.forget_page(linear)
        if roots:
            self._scan(roots)

    def original(self, vm: VirtualMachine) -> bytes:
        eip = vm.cpu.state.eip
        site = self.patches.original_at(eip)
        if site is not None:
            return site.original
        if not any(self.patches.at(eip + number) for number in range(MAXIMUM_LENGTH)):
            return b""
        instruction = self.scanner.decode(self._virtual_context(vm), eip)
        return b"" if instruction is None else instruction.bytes

    @staticmethod
    def _virtual_context(vm: VirtualMachine) -> Context:
        code = vm.cpu.state.seg[CS]
        return Context(False, code.selector, code.base, code.limit)

    # -- exits -----------------------------------------------------------------------------------

    def limit(self, vm: VirtualMachine, until: int) -> int:
        """Stop one tick early, to see whether the last instruction is an STI; as paravirt does."""
        world = vm.world
        if not world.entered:
            world.enter()
        if vm.real.tick + 1 < until:
            return until - 1
        site = self.patches.original_at(self._guest_eip(vm.real.eip))
        is_sti = site is not None and site.name == STI and vm.in_kernel
        world.sti_shadow_at = vm.real.tick + 1 if is_sti and not self._area.interrupts_on else -1
        return until

    def _guest_eip(self, eip: int) -> int:
        return self.memory.find(eip)[1].eip if self.memory.holds(eip) else eip

    def event(self, vm: VirtualMachine, record: Any) -> Outcome | None:
        if self.memory.holds(record.eip):
            _, place = self.memory.find(record.eip)
            if record.kind == SOFTWARE:
                return self._original(vm, place)
            return self._faulted(vm, record, place)
        if record.kind == SOFTWARE and record.vector == BREAKPOINT:
            return self._breakpoint(vm, record.eip)
        return None

    def _breakpoint(self, vm: VirtualMachine, eip: int) -> Outcome | None:
        """INT3: a patch, or the guest's own."""
        patch = self.patches.by_eip.get(eip)
        if patch is None:
            return None
        patch.executed += 1
        site = patch.sites[eip]
        vm.count(f"int3: {site.name}")
        if patch.start and vm.in_kernel:
            vm.real.eip = patch.start
            return Outcome.RESUME
        return vm.interpret(site.name)

    def _faulted(self, vm: VirtualMachine, record: Any, place: Place) -> Outcome | None:
        """An exception in patch memory."""
        if record.vector == PAGE_FAULT and not self._area.holds(record.linear):
            if self.memory.holds(record.linear):
                return self._original(vm, place)  # ring 3 has come here
            if vm.fill_shadow(record):
                return Outcome.RESUME
        if place.site is None:
            return None if vm.in_kernel else self._original(vm, place)
        if record.vector in SELECTOR_FAULTS and vm.fill_descriptor(record.error):
            return Outcome.RESUME
        return self._original(vm, place)

    def _original(self, vm: VirtualMachine, place: Place) -> Outcome:
        """Have the virtual CPU execute what stands for by a patch."""
        site = place.site or self.patches.original_at(place.eip)
        if site is None:
            vm.world.leave()  # between two of the guest's instructions
            return Outcome.RESUME
        vm.count(f"site: {site.name}")
        return vm.interpret(site.name)
