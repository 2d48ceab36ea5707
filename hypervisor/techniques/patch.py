"""patch: the kernel's code runs in place, its unsafe instructions overwritten.

VirtualBox's way (PATM and CSAM): code is scanned before it runs, and what would be unfaithful in
ring 1 becomes a jump into patch memory or an INT3 (hypervisor/patcher/). What is privileged traps,
as under `trap`. Whatever happens in patch memory ends here: a fault of ours is repaired, else the
virtual CPU executes the original.

Patches are hidden where page tables can tell who comes. The shadows show a page with patches to the
kernel alone, and only through linear pages where it is known to execute it; for any other access
the originals are put back, the virtual CPU makes it, and the patches return. Who executes a page
sees what stands there: the kernel, and ring 3 once it has come to execute code of that page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emulator.core import EventKind, ffi
from hypervisor.emulate import DR7_ENABLED, EFLAGS_RF, EFLAGS_TF
from hypervisor.guest_memory import PAGE
from hypervisor.monitor import MONITOR
from hypervisor.outcome import Outcome
from hypervisor.patcher.area import PatchArea
from hypervisor.patcher.coherence import NEAR, Coherence
from hypervisor.patcher.memory import PatchMemory
from hypervisor.patcher.patches import CROSSES, DOWNGRADED, FULL, INT3, SHARED, Patches
from hypervisor.patcher.scanner import GATE, Scanner
from hypervisor.segments import BIG, CS, SS
from hypervisor.techniques.base import USER, Placed, Technique
from hypervisor.translator import layout
from hypervisor.translator.builder import code_page
from hypervisor.translator.engine import CONTROLS, CONTROLS_AT
from hypervisor.translator.unit import Context, Place
from isa.decoder import MAXIMUM_LENGTH, decode
from isa.errors import DecodeError
from isa.paravirt import VCPU_AREA_BYTES, VCPU_PAGE

if TYPE_CHECKING:
    from hypervisor.patcher.patches import Patch as PatchCode
    from hypervisor.vm import VirtualMachine

DEBUG: Final = 1
BREAKPOINT: Final = 3
PAGE_FAULT: Final = 14
SELECTOR_FAULTS: Final = frozenset({10, 11, 12, 13})
SOFTWARE: Final = int(EventKind.SOFTWARE)
STI: Final = "sti"
#: Counted when the kernel runs into a patch at an address that nobody knew of.
UNSCANNED: Final = "unscanned entry"


class Patch(Technique):
    """The in-place patcher."""

    name: ClassVar[str] = "patch"
    switches: ClassVar[Mapping[str, tuple[str, Any]]] = {"--strict": ("strict", True)}
    own_vector: ClassVar[int | None] = layout.OWN_VECTOR

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict  #: no indirect transfer leads to code that has not been scanned
        self.met_by_users = 0
        self.hidden = 0  #: accesses for which patches were put back

    def attach(self, vm: VirtualMachine) -> None:
        self.memory = PatchMemory(vm.host, vm.monitor)
        self.scanner = Scanner(vm, strict=self.strict)
        self.patches = Patches(vm, self.scanner, self.memory)
        self.coherence = Coherence(vm, self.scanner, self.patches)
        self._area = vm.world.area = PatchArea(vm, self.memory, self.patches)
        self._registers = ffi.buffer(vm.cpu.state)
        self._controls = 0, 0, 0
        vm.descriptors.data_end = VCPU_PAGE + VCPU_AREA_BYTES
        vm.descriptors.code_end = layout.CODE + self.memory.size
        vm.descriptors.hides_code = True
        vm.view_page = self.patches.unpatched
        vm.paging.veils = True

    def forget(self, vm: VirtualMachine) -> None:
        del vm
        self.coherence.forget()

    def work(self) -> Mapping[str, int]:
        return {"translated": self.scanner.scanned}  # most stay as they are: at most that much

    def hard_cases(self) -> dict[str, int]:
        """How often each of the cases came up that make patching hard."""
        counts, coherence = self.patches.counts, self.coherence
        return {
            "instructions moved along with a site": self.patches.moved_along,
            "sites that overlap another": self.scanner.overlaps,
            "sites across two pages": counts[CROSSES],
            "sites in a page that is mapped twice": counts[SHARED],
            "jumps undone": counts[DOWNGRADED],
            "pages of code changed": coherence.rescanned,
            "pages of code replaced by others": coherence.moved,
            "faults and interrupts in patch memory": self._area.left_within,
            "patches met by ring 3": self.met_by_users,
            "accesses that patches were hidden from": self.hidden,
            "sites without room in patch memory": counts[FULL],
            "bytes of patch memory taken back": self.memory.taken_back,
        }

    # -- scanning --------------------------------------------------------------------------------

    def runs_directly(self, vm: VirtualMachine) -> bool:
        state = vm.cpu.state
        if state.cpl == USER:
            if self.coherence.incomplete:
                self.coherence.scan()  # it may come to the kernel by a gate that is open
            return not self._shares(vm)
        if state.eflags & (EFLAGS_TF | EFLAGS_RF) or state.dr[7] & DR7_ENABLED:
            return False  # each instruction is watched
        if not state.seg[SS].attributes & BIG:
            return False  # patches use ESP
        if state.seg[CS].base + state.eip & 0xFFFF_FFFF >= MONITOR:
            return False  # where it has something of its own, or nothing
        context = self._virtual_context(vm)
        if context != self.scanner.context:
            self.coherence.clear(context)
        self._check_controls()
        eip = state.eip
        patch = self.patches.at(eip)
        if not self.scanner.knows(eip) or (patch is not None and eip not in patch.sites):
            self.coherence.scan({eip})  # nobody may have overwritten it half
        elif self.coherence.incomplete:
            self.coherence.scan()
        return True

    def _shares(self, vm: VirtualMachine) -> bool:
        """Has ring 3 come to what is patched for the kernel?"""
        patch = self.patches.by_eip.get(vm.cpu.state.eip)
        if not self.original(vm):
            return False
        self.met_by_users += 1
        if patch is not None and not patch.code:
            patch.executed += 1
        return True

    def _check_controls(self) -> None:
        """Code may be elsewhere after a change of CR0, CR3 or CR4."""
        cr0, _, cr3, cr4 = CONTROLS.unpack_from(self._registers, CONTROLS_AT)
        now = cr0, cr3, cr4
        if now != self._controls:
            self._controls = now
            self.coherence.check()

    def gate(self, vm: VirtualMachine, low: int, high: int) -> tuple[int, int] | None:
        """The guest's own gate: its handler is scanned now, for the hardware will not ask."""
        selector, eip = low >> 16 & ~USER, high & 0xFFFF_0000 | low & 0xFFFF
        code = vm.descriptors.source(selector)
        context = self.scanner.context
        if code is None or context != Context(False, selector, code.base, code.limit):
            return None
        self.scanner.targets[eip].add(GATE)
        self.coherence.scan({eip})
        return super().gate(vm, low, high)

    def traced(self, vm: VirtualMachine, record: Any) -> None:
        vm.world.leave()  # the store may have been moved by a patch that goes now
        for linear in (record.linear, record.linear + NEAR & 0xFFFF_FFFF):
            page = vm.page_of(linear)
            if page is not None:
                self.coherence.before_store(page << 12 | linear & 0xFFF)

    def barred(self, vm: VirtualMachine, record: Any) -> bool:
        """An access to a page with patches. Where it is a fetch, the guest comes to execute it."""
        vm.world.leave()
        page = vm.page_of(record.linear)
        if page is None:
            return False
        if not record.length:
            if not vm.in_kernel:
                return bool(vm.paging.share(page))
            return not self.scanner.knows(vm.cpu.state.eip)  # it will be, before it goes on
        self._put_back(vm, record.linear)
        return False

    def _put_back(self, vm: VirtualMachine, linear: int) -> None:
        """Let an access that is about to be interpreted find the guest's own bytes."""
        first = linear & -PAGE
        found = (vm.page_of(first + number * PAGE & 0xFFFF_FFFF) for number in (-1, 0, 1))
        self.hidden += self.coherence.put_back({page for page in found if page is not None})

    def position(self, vm: VirtualMachine) -> tuple[int, int]:
        base, eip = super().position(vm)
        return base, self._guest_eip(eip)

    def stands_for(self, vm: VirtualMachine, linear: int) -> Iterator[int]:
        del vm
        eip = linear - self.scanner.context.base & 0xFFFF_FFFF
        for patch in self.patches.by_eip.values():
            if patch.start and eip in patch.inside:
                yield patch.start + patch.inside[eip]

    def on_placed(self, listen: Placed) -> None:
        def placed(patch: PatchCode) -> None:
            listen(self.scanner.context.base, patch.start, patch.inside)

        self.memory.on_placed = placed

    def storing(self, vm: VirtualMachine, physical: int) -> None:
        del vm
        self.coherence.before_store(physical)

    def written(self, vm: VirtualMachine, page: int) -> None:
        del vm
        self.coherence.written(page)

    def original(self, vm: VirtualMachine) -> bytes:
        """What the guest has at EIP, if any of it has been overwritten."""
        state = vm.cpu.state
        context, eip = self._virtual_context(vm), state.eip
        if eip > context.limit:
            return b""
        linear = (context.base + eip) & 0xFFFF_FFFF
        offset = linear & (PAGE - 1)
        page = code_page(vm, linear, context.user)
        beyond = offset + MAXIMUM_LENGTH - PAGE
        if page is None or not (
            self.patches.overwrites(page, offset, MAXIMUM_LENGTH)
            or (beyond > 0 and self._overwritten_beyond(vm, linear - offset + PAGE, beyond))
        ):
            return b""
        code = self.scanner.bytes_at(eip, context)
        try:
            return decode(code, eip).bytes
        except DecodeError as error:
            return b"" if error.vector is None else code

    def _overwritten_beyond(self, vm: VirtualMachine, linear: int, size: int) -> bool:
        page = code_page(vm, linear & 0xFFFF_FFFF, vm.cpu.state.cpl == USER)
        return page is not None and self.patches.overwrites(page, 0, size)

    @staticmethod
    def _virtual_context(vm: VirtualMachine) -> Context:
        code = vm.cpu.state.seg[CS]
        return Context(vm.cpu.state.cpl == USER, code.selector, code.base, code.limit)

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
        place = self.memory.place(eip) if self.memory.holds(eip) else None
        return eip if place is None else place.eip

    def event(self, vm: VirtualMachine, record: Any) -> Outcome | None:
        if record.vector == PAGE_FAULT and self.coherence.check_near(record.linear):
            vm.world.leave()  # code is elsewhere now, where it has not been scanned
            return Outcome.RESUME
        at = (vm.real.seg[CS].base + record.eip) & 0xFFFF_FFFF
        if self.memory.holds(at):
            place = self.memory.place(at)
            if place is None:
                return self._lost(vm)
            if record.kind == SOFTWARE:
                return self._original(vm, place)
            return self._faulted(vm, record, place)
        if record.kind == SOFTWARE and record.vector == BREAKPOINT:
            return self._breakpoint(vm, record.eip)
        return None

    @staticmethod
    def _lost(vm: VirtualMachine) -> Outcome:
        """The guest has jumped into patch memory: see what it has there itself."""
        vm.counts[UNSCANNED] += 1
        return vm.interpret(UNSCANNED)

    def _breakpoint(self, vm: VirtualMachine, eip: int) -> Outcome | None:
        """INT3: a patch, or the guest's own."""
        patch = self.patches.by_eip.get(eip)
        if vm.in_kernel and patch is not None:
            patch.executed += 1
            site = patch.sites[eip]
            vm.count(f"int3: {site.name}")
            if patch.start:
                vm.real.eip = patch.start
                return Outcome.RESUME
            return vm.interpret(site.name)
        vm.world.leave()
        code = self.original(vm)
        if not code or code[0] == INT3[0]:
            return None  # its own, whatever follows it
        if not vm.in_kernel:
            self.met_by_users += 1
            if patch is not None:
                patch.executed += 1
            return vm.interpret("patched for the kernel", code, len(code))
        vm.counts[UNSCANNED] += 1
        self.coherence.scan({eip})  # its page may be mapped here as well
        if self.patches.at(eip) is None:
            return vm.interpret(UNSCANNED, code, len(code))
        return Outcome.RESUME

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
        vm.world.leave()  # before the patch that it stands in may go
        if record.vector == PAGE_FAULT:
            self._put_back(vm, record.linear)
        return self._original(vm, place)

    def _original(self, vm: VirtualMachine, place: Place) -> Outcome:
        """Have the virtual CPU execute what stands for by a patch."""
        site = place.site or self.patches.original_at(place.eip)
        if site is None:
            vm.world.leave()  # between two of the guest's instructions
            return Outcome.RESUME
        vm.count(f"site: {site.name}")
        return vm.interpret(site.name)
