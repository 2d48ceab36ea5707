"""What a technique has to say to the run loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hypervisor.errors import HypervisorError
from hypervisor.segments import CS
from isa.paravirt import HYPERVISOR

if TYPE_CHECKING:
    from hypervisor.outcome import Outcome
    from hypervisor.translator.unit import Unit
    from hypervisor.vm import VirtualMachine
    from isa.sites import Site

USER: int = 3
#: Base of a guest's CS, linear address of the code, and the guest's EIPs -> offsets in it.
Placed = Callable[[int, int, "Mapping[int, int]"], object]


class Technique:
    """One way to run a guest's kernel."""

    name: ClassVar[str]
    #: The memory virtualizations it can go with; the first is the default.
    memories: ClassVar[tuple[str, ...]] = ("shadow",)
    #: By the word on a command line: an argument of the class, and its value.
    switches: ClassVar[Mapping[str, tuple[str, Any]]] = {}
    #: Whether the guest's kernel runs in ring 1, so that the hardware may call it (gates.py).
    kernel_in_ring_1: bool = True
    #: Whether it runs in guest mode (guest_mode.py), in ring 0 of its own.
    guest_mode: ClassVar[bool] = False
    #: Never passed through a gate: `int` with it asks for the hypervisor, in the kernel at least.
    own_vector: ClassVar[int | None] = None
    #: Whether the virtual CPU may go on by itself (scratch.py): memory holds the guest's own code.
    steps_on: ClassVar[bool] = False
    #: Whether it makes code of its own: `on_code`, `holds`.
    generates_code: ClassVar[bool] = False
    #: The variant that a source is assembled to, if it is run from source (isa/paravirt.py).
    variant: ClassVar[str | None] = None

    def attach(self, vm: VirtualMachine) -> None:
        """Called once, when the machine has been built."""

    def load(self, vm: VirtualMachine, variant: str | None, sites: Sequence[Site]) -> None:
        """Called for each program: its paravirtual variant, and its sites.

        HypervisorError if the technique cannot run such a one.
        """
        if variant == HYPERVISOR:
            raise HypervisorError(
                f"technique {self.name}: a paravirtual image runs under paravirt alone"
            )

    def limit(self, vm: VirtualMachine, until: int) -> int:
        """The tick at which the real CPU shall stop at the latest, at most `until`."""
        del vm
        return until

    def event(self, vm: VirtualMachine, record: Any) -> Outcome | None:
        """A chance at an event of the real CPU before all others; None to pass."""
        del vm, record
        return None

    def runs_directly(self, vm: VirtualMachine) -> bool:
        """May the real CPU execute the guest's next instruction itself?

        Asked with the virtual CPU up to date; where not, the virtual CPU takes a step.
        """
        raise NotImplementedError

    def step(self, vm: VirtualMachine, until: int) -> int:
        """Have the virtual CPU take the step, or several but not beyond a tick; the last's exit."""
        del until
        vm.steps += 1
        code = self.original(vm)
        return vm.cpu.step(code, len(code))

    def original(self, vm: VirtualMachine) -> bytes:
        """The guest's instruction at the virtual CPU's EIP, if something else stands there."""
        del vm
        return b""

    def traced(self, vm: VirtualMachine, record: Any) -> None:
        """A store to a traced page has faulted on the real CPU; it will be interpreted."""

    def barred(self, vm: VirtualMachine, record: Any) -> bool:
        """The shadows keep the real CPU from a page; True if the guest may try again.

        If not, what it wanted to do will be interpreted.
        """
        del vm, record
        return False

    def gate(self, vm: VirtualMachine, low: int, high: int) -> tuple[int, int] | None:
        """What the shadow IDT has for a pass-through gate of the guest's; None: it cannot be."""
        del vm
        return low, high

    def on_code(self, listen: Callable[[Unit], object]) -> None:
        """Have each unit of generated code shown, when it is in its place and has not run yet."""

    def holds(self, address: int) -> bool:
        """Is generated code at this linear address?"""
        del address
        return False

    def position(self, vm: VirtualMachine) -> tuple[int, int]:
        """Base of CS, and EIP, of the guest's instruction that the real CPU is at."""
        return vm.real.seg[CS].base, vm.real.eip

    def stands_for(self, vm: VirtualMachine, linear: int) -> Iterable[int]:
        """Linear addresses where code of ours does what the guest's instruction at one would do."""
        del vm, linear
        return ()

    def on_placed(self, listen: Placed) -> None:
        """Have new code of that kind told of, when it is in its place and has not run yet."""

    def is_own_access(self, vm: VirtualMachine, eip: int) -> bool:
        """Is what the real CPU's instruction at an EIP accesses no affair of the guest's?"""
        del vm, eip
        return False

    def storing(self, vm: VirtualMachine, physical: int) -> None:
        """Somebody is about to store at a guest-physical address, for whom nothing will fault."""

    def written(self, vm: VirtualMachine, page: int) -> None:
        """A traced guest page has been written to."""

    def forget(self, vm: VirtualMachine) -> None:
        """The guest is another one now, or elsewhere: nothing made for it holds."""

    def work(self) -> Mapping[str, int]:
        """What it has done beside serving exits, by the keys of hypervisor/cost.py."""
        return {}

    def statistics(self) -> Mapping[str, int]:
        """What it has made of the guest's code: counts by name, as `run --json` has them."""
        return {}

    def refusal(self, vm: VirtualMachine) -> str:
        """Why this guest cannot go on under this technique; empty if it can."""
        cpl = vm.cpu.state.cpl
        if cpl in (1, 2):
            return f"the guest runs in ring {cpl}, which {self.name} has no ring for"
        return ""
