"""The vCPU area of a patched guest, and the way between its EIPs and patch memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypervisor.translator.area import put_registers_back, show_selectors
from hypervisor.translator.layout import OWN_FIELDS
from hypervisor.vcpu_area import VcpuArea
from hypervisor.world import USER
from isa.operands import CS
from isa.paravirt import FIELDS

if TYPE_CHECKING:
    from hypervisor.patcher.memory import PatchMemory
    from hypervisor.patcher.patches import Patches
    from hypervisor.vm import VirtualMachine


class PatchArea(VcpuArea):
    """`enter` goes on in patch memory where the guest is within a jump; `leave` comes back."""

    def __init__(self, vm: VirtualMachine, memory: PatchMemory, patches: Patches) -> None:
        super().__init__(vm, fields=(*FIELDS, *OWN_FIELDS))
        self._memory, self._patches = memory, patches
        self.left_within = 0  #: times that a fault or an interrupt came in patch memory

    def enter(self, virtual: Any) -> None:
        super().enter(virtual)
        show_selectors(self, virtual)
        if virtual.cpl == USER:
            return
        patch = self._patches.at(virtual.eip)
        if patch is not None and patch.start and virtual.eip in patch.inside:
            self._vm.real.eip = patch.start + patch.inside[virtual.eip]

    def leave(self, virtual: Any) -> None:
        super().leave(virtual)
        linear = (virtual.seg[CS].base + virtual.eip) & 0xFFFF_FFFF
        if self._memory.holds(linear):  # ring 3 may have come there, by any segment
            self.left_within += 1
            place = self._memory.place(linear)
            if place is not None:
                put_registers_back(self, virtual, place)
