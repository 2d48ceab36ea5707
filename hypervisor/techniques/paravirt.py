"""paravirt: the kernel knows that it is a guest.

Its sensitive instructions were replaced when it was assembled (isa/sites.py). Most sites are code
in the vCPU area and exit only if there is something to do; the others are INT, an exit that says
what it is, without a fault to decode. A site is known by its label: the kernel's EIP or, in a code
segment with a base, the linear address. Whatever happens at a site ends here: a fault of ours - a
missing shadow page, a descriptor not yet there - is repaired and the step tried again; else what
the site has changed so far is put back, and the virtual CPU executes the original instruction as if
it stood there alone.

A kernel may also ask for a hypercall by number (hypervisor/hypercalls.py). Barham et al., "Xen and
the art of virtualization" (2003), is the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from emulator.core import EFLAGS_IF, GENERAL, EventKind, ffi
from hypervisor.calls import Hypercalls
from hypervisor.emulate import EMULATED, Trapped
from hypervisor.errors import HypervisorError
from hypervisor.memory.shadow import Verdict
from hypervisor.outcome import RESUME, Outcome
from hypervisor.segments import CS
from hypervisor.techniques.base import Technique
from hypervisor.vcpu_area import VcpuArea
from isa.paravirt import HYPERCALL_VECTOR, HYPERVISOR, VCPU_AREA_BYTES, VCPU_PAGE
from isa.site_forms import FORM_BY_NAME, Step
from isa.sites import Site, put_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypervisor.vm import VirtualMachine

DEBUG: Final = 1
PAGE_FAULT: Final = 14
SELECTOR_FAULTS: Final = frozenset({10, 11, 12, 13})  #: #TS, #NP, #SS, #GP
STI: Final = "sti"
INT: Final = b"\xcd"
INT_LENGTH: Final = 2
SOFTWARE: Final = int(EventKind.SOFTWARE)
EAX: Final = GENERAL.index("eax")
#: Where the field `seg` of a CPU's state has the base of CS, in doublewords.
CS_BASE: Final = (CS * ffi.sizeof("Segment") + ffi.offsetof("Segment", "base")) // 4
LINEAR: Final = 0xFFFF_FFFF


class Asked(NamedTuple):
    """A site's original instruction, worked out when it was loaded."""

    reason: str  #: what its exit is counted as
    emulate: Callable[[VirtualMachine, Trapped], bool] | None
    trapped: Trapped


class Found(NamedTuple):
    """A site as the guest has it at an EIP, and the step that is there."""

    site: Site
    step: Step
    asked: Asked


def _asked(site: Site) -> Asked:
    row, original = site.row, site.original
    trapped = Trapped(row, len(original), site.end & 0xFFFF_FFFF, lambda: original)
    return Asked(f"hypercall: {row.mnemonic}", EMULATED.get(row.mnemonic), trapped)


class Paravirt(Technique):
    """A hypervisor that its guest speaks to."""

    name: ClassVar[str] = "paravirt"
    variant: ClassVar[str | None] = HYPERVISOR
    memories: ClassVar[tuple[str, ...]] = ("shadow", "shared")
    own_vector: ClassVar[int | None] = HYPERCALL_VECTOR

    def __init__(self) -> None:
        self._steps: dict[int, Found] = {}
        self._restarts: dict[int, Site] = {}

    def attach(self, vm: VirtualMachine) -> None:
        self._area = vm.world.area = VcpuArea(vm)
        self._calls = Hypercalls(vm)
        self._read_event = vm.host.cpu.event
        self._real_segments = vm.host.cpu.field("seg")
        vm.descriptors.data_end = VCPU_PAGE + VCPU_AREA_BYTES

    def load(self, vm: VirtualMachine, variant: str | None, sites: Sequence[Site]) -> None:
        if variant != HYPERVISOR:
            raise HypervisorError(
                "technique paravirt: expected an image made by `asm --paravirt`, found "
                + ("its native twin" if variant else "a plain one")
            )
        self._steps = {}
        for site in sites:
            asked = _asked(site)
            self._steps |= {site.address + s.offset: Found(site, s, asked) for s in site.steps}
        self._restarts = {s.restart: s for s in sites if s.restart != s.address}

    def runs_directly(self, vm: VirtualMachine) -> bool:
        # The guest has put EIP where its original POPF seems to be: the site begins elsewhere.
        state = vm.cpu.state
        eip, base = state.eip, state.seg[CS].base
        site = self._restarts.get(eip) or self._restarts.get(eip + base & LINEAR)
        if site is not None and state.cpl == 0:
            state.eip = eip - (site.restart - site.address)
        return True

    def limit(self, vm: VirtualMachine, until: int) -> int:
        """Stop one tick early: whether the last instruction is an STI must be seen before it runs.

        Interrupts are not taken right after an STI that has turned them on, and the store that it
        has become leaves no trace of that.
        """
        world = vm.world
        if not world.entered:
            world.enter()
        if vm.real_tick[0] + 1 < until:
            return until - 1
        found = self._find(vm, vm.real.eip)
        is_sti = found is not None and found.site.form == STI and vm.in_kernel
        world.sti_shadow_at = vm.real.tick + 1 if is_sti and not self._area.interrupts_on else -1
        return until

    def event(self, vm: VirtualMachine, record: Any) -> Outcome | None:
        eip, vector, kind = self._read_event()
        found = self._find(vm, eip)
        # Sites are a kernel's, but it may have them executed in ring 3; there all of them ask.
        if kind != SOFTWARE:
            if found is None or not _stands(vm, eip, found.step):
                return None
            return self._faulted(vm, record, found)
        if vector != HYPERCALL_VECTOR:
            return None
        if found is not None and found.step.code.startswith(INT):
            return self._called(vm, found)
        if not vm.in_kernel:
            return None
        return self._calls.make(vm.gpr[EAX], eip + INT_LENGTH & 0xFFFF_FFFF)

    # -- sites -------------------------------------------------------------------------------------

    def _find(self, vm: VirtualMachine, eip: int) -> Found | None:
        """The site at an EIP of the real CPU's."""
        found = self._steps.get(eip)
        base = self._real_segments[CS_BASE]
        if not base or (found is not None and _is_whole(vm, eip, found)):
            return found
        linear = self._steps.get(eip + base & LINEAR)
        if linear is None or not _is_whole(vm, eip, linear):
            return None
        site = replace(linear.site, address=eip - linear.step.offset)
        return Found(site, linear.step, _asked(site))

    def _called(self, vm: VirtualMachine, found: Found) -> Outcome:
        """INT at a site: the guest asks for the original instruction."""
        _, step, asked = found
        vm.count(asked.reason)
        emulate = asked.emulate
        if emulate is not None and not step.offset and vm.in_kernel and emulate(vm, asked.trapped):
            return RESUME
        return self._original(vm, found)

    def _faulted(self, vm: VirtualMachine, record: Any, found: Found) -> Outcome | None:
        """An exception at one of the instructions that a site is made of."""
        if record.vector == PAGE_FAULT:
            return self._page_fault(vm, record, found)
        if record.vector in SELECTOR_FAULTS and vm.descriptors.fill(record.error):
            vm.count("descriptor load")
            vm.refresh_paging()
            return RESUME
        if record.vector == DEBUG and not found.step.offset:
            return None  # it belongs to the instruction before
        # A trap within the site is within what the guest sees as one instruction: that one, when
        # it is executed as a whole, meets the data breakpoint again, and no other.
        return self._original(vm, found)

    def _page_fault(self, vm: VirtualMachine, record: Any, found: Found) -> Outcome | None:
        if not self._area.holds(record.linear):
            verdict, _ = vm.paging.fault(record.linear, record.error)
            if verdict is Verdict.HIDDEN:
                vm.count("hidden page fault")
                vm.refresh_paging()
                return RESUME
            if verdict is Verdict.TRUE and not record.length and not found.step.offset:
                return None  # of the fetch: the guest has nothing there
        vm.count(f"site: {found.asked.trapped.row.mnemonic}")
        return self._original(vm, found)

    def _original(self, vm: VirtualMachine, found: Found) -> Outcome:
        """Undo what the site has done, and execute what it stands for."""
        site, step, asked = found
        vm.world.leave()
        state = vm.cpu.state
        values = put_back(step, state.gpr[GENERAL.index("esp")], state.eflags, self._area.read)
        for name, value in values.items():
            if name == "eflags":
                state.eflags = value
            elif name == "if_word":
                state.eflags = state.eflags & ~EFLAGS_IF | (EFLAGS_IF if value else 0)
            else:
                state.gpr[GENERAL.index(name)] = value
        state.eip = site.restart & LINEAR
        mnemonic = asked.trapped.row.mnemonic
        return vm.interpret(mnemonic, site.original, site.end - site.restart)


def _stands(vm: VirtualMachine, eip: int, step: Step) -> bool:
    """Not if other code lies there now. What is absent may stand."""
    return step.code.startswith(vm.code_at(eip, step.length))


def _is_whole(vm: VirtualMachine, eip: int, found: Found) -> bool:
    """Whether all of a site lies around the step at an EIP: one INT looks like another."""
    site = found.site
    return site.code.startswith(vm.code_at(eip - found.step.offset & LINEAR, site.size))


assert FORM_BY_NAME[STI]
