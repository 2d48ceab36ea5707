"""Breakpoints and watchpoints, on every CPU that may execute the guest's code.

A breakpoint is a linear address in the core's own table; guest memory stays as it is, for guests
may read their code. Under a technique both CPUs get it, the real one also for code that stands for
the guest's instruction elsewhere: in the translation cache, in patch memory. New code of that kind
is looked through before it runs; what has gone from there leaves an address behind that means
nothing, and is taken out when it is met. Watchpoints are linear, too: all code accesses the
guest's memory at the guest's own addresses. Read machine.py for what is done when one is met.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from emulator.core import WatchAccess
from hypervisor.gdb.target import Point
from hypervisor.monitor import MONITOR

if TYPE_CHECKING:
    from emulator.core import Cpu
    from emulator.machine import Machine

LINEAR: Final = 0xFFFF_FFFF
#: What an access has to be to meet a watchpoint.
ACCESSES: Final = {
    Point.WRITE: WatchAccess.WRITE,
    Point.READ: WatchAccess.READ,
    Point.ACCESS: WatchAccess.READ | WatchAccess.WRITE,
}
MOST_WATCHPOINTS: Final = 64  #: as many as a CPU of the core has room for


def as_virtual(machine: Machine) -> Any:
    """The machine as a `VirtualMachine`; None if it is a bare one."""
    return machine if hasattr(machine, "technique") else None


Place = tuple[Point, int, int]  #: kind, linear address, size


class Breakpoints:
    """What gdb has inserted into one machine."""

    def __init__(self, machine: Machine) -> None:
        vm = as_virtual(machine)
        self._virtual: Cpu = machine.cpu
        self._real: Cpu | None = None if vm is None else vm.host.cpu
        self._vm = vm
        self._points: set[Place] = set()
        self._known: dict[Cpu, set[int]] = {cpu: set() for cpu in self.cpus}
        self._watched: set[Place] = set()
        if vm is not None:
            vm.technique.on_placed(self._placed)

    @property
    def cpus(self) -> list[Cpu]:
        """All that execute code of the guest."""
        return [self._virtual] if self._real is None else [self._virtual, self._real]

    def insert(self, place: Place) -> bool:
        """Add one; False if there are too many."""
        watchpoints = sum(not point.is_breakpoint for point, _, _ in self._points)
        if not place[0].is_breakpoint and watchpoints == MOST_WATCHPOINTS:
            return place in self._points
        self._points.add(place)
        return True

    def remove(self, place: Place) -> None:
        """Take one away."""
        self._points.discard(place)

    def clear(self) -> None:
        """Take all away, at once."""
        self._points.clear()
        self.load()

    def at(self, linear: int) -> Point | None:
        """The kind of breakpoint at a linear address."""
        for point in (Point.SOFTWARE, Point.HARDWARE):
            if any(place[:2] == (point, linear) for place in self._points):
                return point
        return None

    def watching(self, linear: int, access: int) -> Point | None:
        """The kind of watchpoint that an access to a byte has met."""
        for point, first, size in self._points:
            if point.is_breakpoint or linear - first & LINEAR >= size:
                continue
            if access & ACCESSES[point]:
                return point
        return None

    # -- to the CPUs -------------------------------------------------------------------------------

    def load(self) -> None:
        """Let the CPUs know: before the guest goes on."""
        wanted = self._wanted
        self._set(self._virtual, wanted)
        if self._real is not None:
            self._set(self._real, self._real_addresses(wanted))
        watched = {place for place in self._points if not place[0].is_breakpoint}
        if watched != self._watched:
            self._watched = watched
            for cpu in self.cpus:
                cpu.clear_watchpoints()
                for point, first, size in watched:
                    cpu.set_watchpoint(first, size, ACCESSES[point])

    @property
    def _wanted(self) -> set[int]:
        return {address for point, address, _ in self._points if point.is_breakpoint}

    def _real_addresses(self, wanted: set[int]) -> set[int]:
        """Where the real CPU comes by; nothing of the guest's is where the monitor is."""
        vm = self._vm
        if vm.technique.guest_mode:
            return wanted
        found = {linear for linear in wanted if linear < MONITOR}
        return found.union(*(vm.technique.stands_for(vm, linear) for linear in wanted))

    def _set(self, cpu: Cpu, wanted: set[int]) -> None:
        known = self._known[cpu]
        for linear in known - wanted:
            cpu.set_breakpoint(linear, False)
        for linear in wanted - known:
            cpu.set_breakpoint(linear)
        self._known[cpu] = set(wanted)

    def _placed(self, base: int, start: int, inside: Mapping[int, int]) -> None:
        """New code stands for instructions of the guest; it has not run yet."""
        wanted = self._wanted
        if not wanted or self._real is None:
            return
        for eip, offset in inside.items():
            if base + eip & LINEAR in wanted:
                self._real.set_breakpoint(start + offset)
                self._known[self._real].add(start + offset)
