"""hardware: the guest runs in guest mode, its kernel in ring 0.

VT-x and SVM ended the trouble with the unsafe instructions by a mode in which none of them need
trap: the guest has a processor state of its own, and all of it is real. What the hypervisor still
has to see - devices, interrupts, its own page tables - the control block lists, and each is an exit
(guest_mode.py, exits.py). With `nested` the guest's page tables are its own affair; with `shadow`,
as the first such processors had it, page faults and CR3 loads exit, and the tables are shadows.

Adams and Agesen (2006) found that mode slower than a translator wherever exits are frequent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hypervisor.techniques.base import Technique

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine


class Hardware(Technique):
    """Hardware assistance."""

    name: ClassVar[str] = "hardware"
    memories: ClassVar[tuple[str, ...]] = ("nested", "shadow")
    kernel_in_ring_1: bool = False
    guest_mode: ClassVar[bool] = True

    def runs_directly(self, vm: VirtualMachine) -> bool:
        del vm
        return True

    def refusal(self, vm: VirtualMachine) -> str:
        del vm
        return ""
