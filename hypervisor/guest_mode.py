"""The world switch of hardware assistance: into guest mode and out of it.

Nothing is deprivileged, so nothing need be worked out: the core swaps the guest's whole state for
the host's (csrc/guest.c), at each entry and each exit. What the guest's state is, the virtual CPU
holds; what shall exit, a control block says, as VT-x's VMCS and SVM's VMCB do. Between two runs the
virtual CPU is always up to date: nothing is ever entered or left as world.py does, whose interface
this has. Read exits.py for what is done about exits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from emulator.core import Cpu, EventKind, ffi, lib
from hypervisor.switch import Switch
from hypervisor.world import TABLES_AND_CONTROLS

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.memory.base import GuestPaging

EXCEPTION: Final = int(EventKind.EXCEPTION)
EXTERNAL: Final = int(EventKind.EXTERNAL)
ALL_PORTS: Final = b"\xff" * 8192
PAGE_FAULT: Final = 14
CR0_OWN: Final = 0x8001_0001  #: PG, WP, PE: without PE there is no PG, which is on here
CR4_PSE: Final = 0x10
CR3: Final = 1 << 3


class GuestMode(Switch):
    """What switches between one virtual CPU and the real one's guest mode."""

    def __init__(self, host: Host, cpu: Cpu, paging: GuestPaging) -> None:
        self.control: Any = ffi.new("ControlBlock *")
        super().__init__(host, self.control.intercepts)
        self._cpu, self._paging = cpu, paging
        self.control.ports = ALL_PORTS
        self.control.nested = paging.nested
        self._run = partial(lib.cpu_run_guest, host.cpu.pointer, cpu.pointer, self.control)
        self._bytes = ffi.buffer(cpu.state)
        self._controls = b""
        if not paging.nested:
            self._own_paging()

    def _own_paging(self) -> None:
        """The guest runs on shadows: what it does to paging is ours to follow."""
        control = self.control
        control.cr0_mask, control.cr0 = CR0_OWN, CR0_OWN
        control.cr4_mask, control.cr4 = CR4_PSE, 0
        self.intercepts.vectors[PAGE_FAULT >> 3] |= 1 << (PAGE_FAULT & 7)
        self.intercepts.cr_reads = self.intercepts.cr_writes = CR3

    def run(self, until: int) -> int:
        """Run the guest until a tick or an earlier exit; returns its reason."""
        if self._host.running is not self:
            self._take_over()
        controls = self._bytes[TABLES_AND_CONTROLS]
        if controls != self._controls or self._paging.stale:
            self._controls = controls
            self.refresh()
        reason: int = self._run(until)
        return reason

    def refresh(self) -> None:
        control = self.control
        root = self._paging.root()
        if self._paging.stale or root != control.root:
            control.flush = 1
        control.root = root
        self._paging.stale = False

    def deliver(self, vector: int, kind: int, error: int | None = None) -> None:
        """Have the processor deliver an event when it next enters the guest."""
        self.control.event = [1, vector, kind, error is not None, error or 0, False]

    @property
    def delivering(self) -> bool:
        """Is there an event that is still to be delivered?"""
        valid: int = self.control.event.valid
        return bool(valid)

    def drop(self) -> Any:
        """The event; it is not to be delivered any more."""
        self.control.event.valid = 0
        return self.control.event

    def deliver_here(self) -> int:
        """Have the virtual CPU deliver the event; 0, or the reason of an exit."""
        event = self.drop()
        reason: int = lib.cpu_inject(
            self._cpu.pointer, event.vector, event.kind, event.has_error, event.error
        )
        return reason

    def forget(self) -> None:
        super().forget()
        self.control.event.valid = self.control.pending_exit = 0
        self._controls = b""
