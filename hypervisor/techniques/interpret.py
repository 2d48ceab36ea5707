"""interpret: the guest's kernel is interpreted, its user code runs directly.

Popek and Goldberg's hybrid monitor (1974, Theorem 3): all that is executed in virtual supervisor
mode is interpreted, here by stepping the virtual CPU, an instruction at a time. So no instruction
that is sensitive in a kernel alone can do harm. It is faithful for kernels on this ISA and the slow
end of every chart. User code still runs in ring 3 of the real CPU, and what leaks there leaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hypervisor.techniques.base import USER, Technique

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine


class Interpret(Technique):
    """The hybrid virtual machine monitor."""

    name: ClassVar[str] = "interpret"
    kernel_in_ring_1: ClassVar[bool] = False

    def runs_directly(self, vm: VirtualMachine) -> bool:
        return vm.cpu.state.cpl == USER

    def refusal(self, vm: VirtualMachine) -> str:
        del vm
        return ""
