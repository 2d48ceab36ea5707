"""A machine as gdb's target: bare, or virtual under any technique.

While the guest stands still, the machine's CPU has its state: under a technique that is the
virtual CPU, which a run leaves up to date, so registers need no translation. Memory is read as the
guest wrote it, through its own page tables and without a trace in them.

To *step* is to run until the next tick: one instruction of the guest, or one iteration of a
repeat. An event on the way takes no tick, and ends the step where it has led: after a fault gdb
sees the first instruction of the handler, as with QEMU. Unlike QEMU's default, interrupts are
taken and time goes on, for the run must not be another one for being looked at. A step of a halted
CPU is the wait for the interrupt that wakes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emulator.core import SEGMENTS, lib
from hypervisor.gdb import monitor
from hypervisor.gdb.breakpoints import Breakpoints, as_virtual
from hypervisor.gdb.packets import PACKET_SIZE
from hypervisor.gdb.registers import REGISTERS
from hypervisor.gdb.target import Point

if TYPE_CHECKING:
    from emulator.machine import Machine

PAGE: Final = 4096
LINEAR: Final = 0xFFFF_FFFF
CS: Final = SEGMENTS.index("cs")
STORE: Final = 64  #: bytes: a technique looks at what is so near to a store


class MachineTarget:
    """One machine, while gdb is connected."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._vm = as_virtual(machine)
        self._points = Breakpoints(machine)
        self.reason = ""  #: why it has stopped, as a stop reply says it
        owner: Any = machine if self._vm is None else self._vm.host
        self._core = owner.memory.machine

    # -- registers and memory ----------------------------------------------------------------------

    def read_register(self, number: int) -> bytes:
        register = REGISTERS[number]
        value = register.read(self.machine.cpu.state)
        return (value & (1 << register.size * 8) - 1).to_bytes(register.size, "little")

    def write_register(self, number: int, data: bytes) -> None:
        REGISTERS[number].write(self.machine.cpu.state, int.from_bytes(data, "little"))

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """Guest-physical addresses and sizes, page by page, up to what is not mapped."""
        pieces = []
        while size > 0:
            step = min(size, PAGE - address % PAGE)
            place = self.machine.cpu.translate(address)
            if place is None:
                break
            pieces.append((self._physical(place), step))
            address, size = address + step & LINEAR, size - step
        return pieces

    def _physical(self, place: int) -> int:
        """The guest-physical address of a machine address; one beyond all memory if it has none."""
        if self._vm is None:
            return place
        page: int = self._vm.guest_page.get(place // PAGE, LINEAR // PAGE)
        return page * PAGE | place % PAGE

    def read_memory(self, address: int, size: int) -> bytes:
        return b"".join(self._read(*piece) for piece in self._pieces(address, size))

    def _read(self, physical: int, size: int) -> bytes:
        if self._vm is None:
            return self.machine.memory.read(physical, size)
        first = physical & -PAGE
        page: bytes = self._vm.view_page(first, self._vm.memory.read(first, PAGE))
        return page[physical - first : physical - first + size]

    def write_memory(self, address: int, data: bytes) -> bool:
        pieces = self._pieces(address, len(data))
        if sum(size for _, size in pieces) < len(data):
            return False
        done = 0
        for physical, size in pieces:
            self._write(physical, data[done : done + size])
            done += size
        return True

    def _write(self, physical: int, data: bytes) -> None:
        """Within a page."""
        if self._vm is None:
            self.machine.memory.write(physical, data)
            return
        for at in (*range(physical, physical + len(data), STORE), physical + len(data) - 1):
            self._vm.technique.storing(self._vm, at)
        self._vm.write_physical(physical, data)

    def monitor(self, command: str) -> str:
        return monitor.answer(self.machine, command)[: PACKET_SIZE // 2]

    # -- breakpoints and watchpoints ---------------------------------------------------------------

    def insert(self, point: Point, address: int, size: int) -> bool:
        return self._points.insert(_place(point, address, size))

    def remove(self, point: Point, address: int, size: int) -> None:
        self._points.remove(_place(point, address, size))

    def stops(self, hit: Any) -> bool:
        """Called by the machine, at a breakpoint or with the record of a watchpoint's exit."""
        return self._stops_here() if hit is None else self._stops_after(hit)

    def _stops_here(self) -> bool:
        """Not where the guest has stood already, nor where gdb has no breakpoint."""
        here = self._here()
        point = self._points.at(here[0])
        if point is None:
            self._points.load()  # something of ours is not there any more
        elif here != self.machine.resumed:
            self._stopped(f"{point.reason}:;")
            return True
        return False

    def _stops_after(self, record: Any) -> bool:
        point = self._points.watching(record.hit_linear, record.hit_access)
        if point is None:
            return False
        self._stopped(f"{point.reason}:{record.hit_linear:x};")
        return True

    def _stopped(self, reason: str) -> None:
        self.reason = self.reason or reason

    def _here(self) -> tuple[int, int]:
        state = self.machine.cpu.state
        return (state.seg[CS].base + state.eip) & LINEAR, state.tick

    # -- running -----------------------------------------------------------------------------------

    def attach(self) -> None:
        """gdb has come."""
        self.machine.debugger = self.stops

    def detach(self) -> None:
        """gdb has gone: the guest is as if it had not been there."""
        self._points.clear()
        self.suspend()
        self.machine.debugger = None

    def resume(self, *, stepping: bool) -> None:
        """The guest is about to go on."""
        self.machine.resumed = self._here()
        self.reason = ""
        if not stepping:
            self._points.load()
        self._forget_requests()
        lib.machine_stop_at_events(self._core, stepping)

    def suspend(self) -> None:
        """It stands still again; `reason` says why."""
        for cpu in self._points.cpus:
            if cpu.take_hit():  # with the end of a step
                self._stops_after(cpu.record)
        lib.machine_stop_at_events(self._core, False)
        self._forget_requests()

    def _forget_requests(self) -> None:
        for cpu in self._points.cpus:
            cpu.forget_request()


def _place(point: Point, address: int, size: int) -> tuple[Point, int, int]:
    """A breakpoint is at an address, whatever size its instruction is said to have."""
    return point, address, 1 if point.is_breakpoint else size
