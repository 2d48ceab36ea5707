"""The vCPU area: what a guest kernel's code and its hypervisor share while it runs.

isa/paravirt.py says what its words mean. The virtual IF lives here while the guest runs, so that
CLI and STI are stores and no exits; with the world switch it comes and goes. Its page is made
read-only while the hypervisor wants to know of a store to it: while an interrupt waits, and while
POPF and IRET have more to do than flip IF. What ring 1 has written is not trusted: any byte but 0
means 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from emulator.core import EFLAGS_IF
from hypervisor.emulate import EFLAGS_TF
from hypervisor.world import EFLAGS_IOPL
from isa.paravirt import (
    FIELDS,
    FLAGS_BASE,
    IF_FLAG,
    IF_WORD,
    VCPU_AREA_BYTES,
    VCPU_PAGE,
    Field,
)

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine


class VcpuArea:
    """One virtual machine's vCPU area, at a linear address. `World` calls `enter` and `leave`."""

    #: While one of these is set, stores to the virtual IF fault.
    watched_flags = EFLAGS_IOPL | EFLAGS_TF

    def __init__(
        self,
        vm: VirtualMachine,
        base: int = VCPU_PAGE,
        fields: Sequence[Field] = FIELDS,
        *,
        user: bool = False,
    ) -> None:
        self._vm = vm
        self.base = base
        vm.monitor.map(base, VCPU_AREA_BYTES, writable=True, user=user)
        self._bytes = {
            field: vm.host.memory.view(
                vm.monitor.machine(base + field.address - VCPU_PAGE), field.size
            )
            for field in fields
        }
        self._flag = self._bytes[IF_FLAG]
        self._word = self._bytes[IF_WORD]
        self._base = self._bytes[FLAGS_BASE]
        self._protected = False

    def enter(self, virtual: Any) -> None:
        """Show the guest its virtual flags."""
        flags = virtual.eflags
        self._word[:] = b"\0\1\0\0" if flags & EFLAGS_IF else b"\0\0\0\0"
        base = (flags & EFLAGS_IOPL) - EFLAGS_IF
        self._base[:] = (base & 0xFFFF_FFFF).to_bytes(4, "little")
        wanted = bool(virtual.interrupt_line or flags & self.watched_flags)
        if wanted != self._protected:
            self._protected = wanted
            self._vm.monitor.protect(self.base, writable=not wanted)
            self._vm.host.cpu.invalidate_page(self.base)

    def leave(self, virtual: Any) -> None:
        """Take the virtual IF as the guest has left it."""
        if self._flag[0]:
            virtual.eflags |= EFLAGS_IF
        else:
            virtual.eflags &= ~EFLAGS_IF

    @property
    def interrupts_on(self) -> bool:
        """The virtual IF, while the guest runs."""
        return self._flag[0] != 0

    def read(self, field: Field) -> int:
        """A field, as the guest has left it."""
        return int.from_bytes(self._bytes[field], "little")

    def put(self, field: Field, value: int) -> None:
        """Set a field of four bytes."""
        self._bytes[field][:] = (value & 0xFFFF_FFFF).to_bytes(4, "little")

    def holds(self, linear: int) -> bool:
        """Is a linear address in the area?"""
        return self.base <= linear < self.base + VCPU_AREA_BYTES
