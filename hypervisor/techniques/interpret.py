"""interpret: the guest's kernel is interpreted, its user code runs directly.

Popek and Goldberg's hybrid monitor (1974, Theorem 3): all that is executed in virtual supervisor
mode is interpreted, here by stepping the virtual CPU, an instruction at a time. So no instruction
that is sensitive in a kernel alone can do harm. It is faithful for kernels on this ISA and the slow
end of every chart. User code still runs in ring 3 of the real CPU, and what leaks there leaks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from emulator.core import ExitReason, ffi, lib
from hypervisor.techniques.base import USER, Technique

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

DEADLINE: Final = int(ExitReason.DEADLINE)
#: Steps at a time: less than what fills the trace ring.
MOST_STEPS: Final = 1000


class Interpret(Technique):
    """The hybrid virtual machine monitor."""

    name: ClassVar[str] = "interpret"
    kernel_in_ring_1: bool = False

    def attach(self, vm: VirtualMachine) -> None:
        self._step = partial(lib.cpu_step, vm.cpu.pointer, ffi.NULL, 0, 0)

    def step(self, vm: VirtualMachine, until: int) -> int:
        """As many steps as the run loop has nothing to say about: most time is spent here."""
        state, step, count = vm.cpu.state, self._step, 0
        while True:
            count += 1
            reason: int = step()
            if (
                reason != DEADLINE
                or state.cpl == USER
                or state.interrupt_line
                or state.tick >= until
                or count == MOST_STEPS
            ):
                vm.steps += count
                return reason

    def runs_directly(self, vm: VirtualMachine) -> bool:
        return vm.cpu.state.cpl == USER

    def refusal(self, vm: VirtualMachine) -> str:
        del vm
        return ""
