"""What a technique has to say to the run loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

USER: int = 3


class Technique:
    """One way to run a guest's kernel."""

    name: ClassVar[str]
    #: The memory virtualizations it can go with; the first is the default.
    memories: ClassVar[tuple[str, ...]] = ("shadow",)
    #: Whether the guest's kernel runs in ring 1, so that the hardware may call it (gates.py).
    kernel_in_ring_1: ClassVar[bool] = True

    def runs_directly(self, vm: VirtualMachine) -> bool:
        """May the real CPU execute the guest's next instruction itself?

        Asked with the virtual CPU up to date; where not, the virtual CPU takes a step.
        """
        raise NotImplementedError

    def refusal(self, vm: VirtualMachine) -> str:
        """Why this guest cannot go on under this technique; empty if it can."""
        cpl = vm.cpu.state.cpl
        if cpl in (1, 2):
            return f"the guest runs in ring {cpl}, which {self.name} has no ring for"
        return ""
