"""The real CPU's local APIC, lent to the guest that runs there.

A guest's local APIC is used all the time: kernels ask it who they are, end interrupts by it, set
its timer. So the guest gets the real one, with its own state in it, which comes and goes with the
world switch (csrc/apic.c, APIC_LENT): its page is mapped, and no access exits. Only when the output
rises does the real CPU leave, for whether the guest can be interrupted is the virtual CPU's to say.

Somebody who watches wants each access: then the page is taken back, and the virtual CPU makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emulator.core import ApicMode, Cpu
from emulator.firmware import LOCAL_APIC
from emulator.local_apic import LocalApic

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

LOCAL_APIC_PAGE: Final = LOCAL_APIC >> 12


class LentApic(LocalApic):
    """The local APIC of a virtual machine."""

    def __init__(self, vm: VirtualMachine) -> None:
        super().__init__(vm.cpu, vm.board)
        self._vm = vm
        vm.cpu.set_apic(ApicMode.BUS)
        vm.world.set_apic(ApicMode.LENT)
        vm.guest_memory.lent.add(LOCAL_APIC_PAGE)

    @property
    def cpu(self) -> Cpu:
        """The CPU that has the registers now."""
        return self._vm.host.cpu if self._vm.world.entered else self._cpu

    def watch(self) -> None:
        self._vm.guest_memory.lent.discard(LOCAL_APIC_PAGE)
        self._vm.paging.clear()
        if self._vm.technique.guest_mode:  # there the page stays the guest's to reach
            self._vm.world.set_apic(ApicMode.BUS)
