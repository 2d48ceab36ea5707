"""What a world switch is to the rest: world.py's into ring 1, guest_mode.py's into guest mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emulator.core import ApicMode

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.vcpu_area import VcpuArea


class Switch:
    """Between one virtual CPU and the real one."""

    def __init__(self, host: Host, intercepts: Any) -> None:
        self._host = host
        self.intercepts = intercepts  #: of the real CPU while the guest runs
        self._apic_mode: int = ApicMode.NONE
        self._vendor = b""
        self.entered = False  #: the real CPU holds what is newest
        self.area: VcpuArea | None = None  #: of a guest that has one
        #: By real ring and index: what the real CPU has in segment registers while the guest runs
        #: there, whatever the guest has in them: selector, attributes, base, limit.
        self.own_segments: dict[int, dict[int, list[int]]] = {}
        self.sti_shadow_at = -1  #: the tick at which an STI of such a one has just retired
        #: Called when table or control registers have changed, before the guest goes on.
        self.on_change: list[Callable[[], None]] = []

    def enter(self) -> None:
        """Make the real CPU the guest's."""

    def leave(self) -> None:
        """Bring the virtual CPU up to date."""

    def refresh(self) -> None:
        """Make the real CPU forget what the tables no longer say."""
        raise NotImplementedError

    def load_intercepts(self) -> None:
        """Make the real CPU's intercepts those of this machine, if it is running."""

    def set_apic(self, mode: int) -> None:
        """Whose the real CPU's local APIC is while the guest runs (`emulator.core.ApicMode`)."""
        self._apic_mode = mode
        if self._host.running is self:
            self.leave()
            self._host.cpu.set_apic(mode)

    def set_vendor(self, name: bytes) -> None:
        """What CPUID calls the real CPU's maker while the guest runs; before it does."""
        self._vendor = name

    def load_trace(self) -> None:
        """Make what the real CPU records that of this machine, if it is running."""

    def _take_over(self) -> None:
        """The real CPU was another virtual machine's."""
        before: Switch | None = self._host.running
        if before is not None:
            before.leave()
            before.give_up()
        self._host.running = self
        self._host.cpu.set_apic(self._apic_mode)
        self._host.cpu.set_vendor(self._vendor)

    def give_up(self) -> None:
        """The real CPU goes to another virtual machine."""

    def forget(self) -> None:
        """The guest is another one now."""
        self.entered = False

    @property
    def cycles(self) -> int:
        """How many cycles the real CPU has spent on this guest, and nobody else counts."""
        return 0
