"""What each hypercall does: one method a row of the table in hypercalls.py.

All that a guest passes is checked before anything changes: addresses by a walk of its own page
tables with its kernel's rights, counts by the table's limits. The instruction has retired when a
method runs. The real CPU still holds the guest then: a method that needs more of the virtual one
than its tables leaves the guest's world first, and others save the time. Read
techniques/paravirt.py for how they get here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from emulator.clock import TICKS_PER_SECOND
from emulator.core import GENERAL, Access, lib
from emulator.memory import HOLE
from hypervisor import segments
from hypervisor.gates import TSS_KERNEL_STACK, TSS_LEAST
from hypervisor.hypercalls import ARGUMENT_REGISTERS, ERROR_VALUES, HYPERCALLS, VERSION
from hypervisor.monitor import MONITOR
from hypervisor.outcome import RESUME, STOP, Outcome

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

PAGE: Final = 4096
KERNEL: Final = 0  #: CPL
MOST_BYTES: Final = 65536
MOST_UPDATES: Final = 1024
MOST_CALLS: Final = 256
LARGEST_STATUS: Final = 63
COM1_TRANSMIT: Final = 0x3F8
EFAULT, EINVAL, ENOSYS = (ERROR_VALUES[name] for name in ("EFAULT", "EINVAL", "ENOSYS"))
ARGUMENTS: Final = tuple(GENERAL.index(name) for name in ARGUMENT_REGISTERS)
EAX: Final = GENERAL.index("eax")
UPDATE: Final = struct.Struct("<II")
TIME: Final = struct.Struct("<Q")
CALL: Final = struct.Struct("<6I")
MULTICALL: Final = next(call.number for call in HYPERCALLS if call.name == "multicall")


class Refused(Exception):
    """A call that was not made; `args[0]` is what the guest gets."""


class Call(NamedTuple):
    """A row of the table, as one virtual machine has it."""

    reason: str  #: what its exit is counted as
    handler: Callable[..., int]
    arguments: Callable[[Sequence[int]], Iterable[int]]  #: takes them from general registers


def _arguments(count: int) -> Callable[[Sequence[int]], Iterable[int]]:
    """What takes so many arguments from registers; a single item it would give bare, so a slice."""
    places = ARGUMENTS[:count]
    if count > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if count else slice(0))


UNKNOWN: Final = Call("hypercall: unknown", lambda: ENOSYS, _arguments(0))


class Hypercalls:
    """The hypercalls of one virtual machine."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._calls = {
            call.number: Call(
                f"hypercall: {call.name}",
                getattr(self, call.handler),
                _arguments(len(call.arguments)),
            )
            for call in HYPERCALLS
        }
        self._write_on_real = partial(lib.cpu_write_linear, vm.host.cpu.pointer)

    def make(self, number: int, end: int) -> Outcome:
        """Make and count the call that the guest's registers ask for; its result goes to EAX.

        end: EIP after the instruction that asks, which retires first.
        """
        vm = self._vm
        call = self._calls.get(number, UNKNOWN)
        vm.counts[call.reason] += 1
        vm.retire(end)
        result = self._result(call, vm.gpr)
        registers = vm.gpr if vm.world.entered else vm.cpu.state.gpr
        registers[EAX] = result & 0xFFFF_FFFF
        return STOP if vm.stopped else RESUME

    @staticmethod
    def _result(call: Call, registers: Sequence[int]) -> int:
        """Make a call with arguments from registers, which are numbered as the core does."""
        try:
            return call.handler(*call.arguments(registers))
        except Refused as refused:
            result: int = refused.args[0]
            return result

    # -- guest memory ------------------------------------------------------------------------------

    def _read(self, linear: int, size: int) -> bytes:
        self._vm.world.leave()
        data = self._vm.cpu.read_linear(linear, size)
        if len(data) < size:
            raise Refused(EFAULT)
        return data

    def _is_memory(self, physical: int) -> bool:
        return physical < self._vm.memory.size and physical not in HOLE

    def _write(self, linear: int, data: bytes) -> None:
        """Write all or nothing, as the guest's kernel might.

        Where the guest can write on the real CPU just now, nobody waits for a store, and its dirty
        bit is set: there it is written at once.
        """
        size = len(data)
        direct = self._vm.world.entered and linear <= MONITOR - PAGE
        direct = direct and linear % PAGE + size <= PAGE
        if direct and self._write_on_real(linear, data, size, KERNEL) == size:
            return
        self._vm.world.leave()
        walks, done = [], 0
        while done < len(data):
            at = (linear + done) & 0xFFFF_FFFF
            step = min(len(data) - done, PAGE - at % PAGE)
            walked = self._vm.cpu.walk(at, Access.WRITE)
            if walked is None or not self._is_memory(walked.physical):
                raise Refused(EFAULT)
            walks.append((walked.physical, data[done : done + step]))
            done += step
        for physical, piece in walks:
            self._vm.write_physical(physical, piece)

    # -- the calls ---------------------------------------------------------------------------------

    def hypercall_vm_info(self, to: int) -> int:
        """Describe the machine."""
        size = self._vm.memory.size
        self._write(to, struct.pack("<4I", VERSION, len(HYPERCALLS), size, TICKS_PER_SECOND))
        return 0

    def hypercall_console_write(self, source: int, count: int) -> int:
        """Send bytes out of COM1, all at one tick."""
        if count > MOST_BYTES:
            raise Refused(EINVAL)
        data = self._read(source, count)
        self._vm.board.clock.now = self._vm.ticks
        for byte in data:
            self._vm.board.bus.port_write(COM1_TRANSMIT, 1, byte)
        return count

    def hypercall_yield(self) -> int:
        """End this machine's turn."""
        self._vm.end_turn()
        return 0

    def hypercall_get_time(self, to: int) -> int:
        """Store the tick."""
        vm = self._vm
        now = vm.real_tick[0] if vm.world.entered else vm.ticks
        self._write(to, TIME.pack(now))
        return 0

    def hypercall_mmu_update(self, entries: int, count: int) -> int:
        """Write page-table entries by guest-physical address."""
        if count > MOST_UPDATES:
            raise Refused(EINVAL)
        updates = list(UPDATE.iter_unpack(self._read(entries, count * UPDATE.size)))
        for entry, _ in updates:
            if entry % 4 or not self._is_memory(entry):
                raise Refused(EINVAL)
        for entry, value in updates:
            self._vm.write_physical(entry, value.to_bytes(4, "little"))
        self._vm.cpu.flush_tlb()
        return count

    def hypercall_set_kernel_stack(self, selector: int, pointer: int) -> int:
        """Write SS0:ESP0 of the guest's TSS."""
        tr = self._vm.cpu.state.tr
        self._vm.world.leave()
        if selector > 0xFFFF or selector & 3 or tr.attributes & segments.UNUSABLE:
            raise Refused(EINVAL)
        if tr.limit < TSS_LEAST:
            raise Refused(EINVAL)
        self._write(tr.base + TSS_KERNEL_STACK, struct.pack("<II", pointer, selector))
        return 0

    def hypercall_multicall(self, calls: int, count: int) -> int:
        """Make calls one after another; each entry gets its result."""
        if count > MOST_CALLS:
            raise Refused(EINVAL)
        registers = [0] * len(GENERAL)
        batch = list(CALL.iter_unpack(self._read(calls, count * CALL.size)))
        for done, (number, *arguments, _) in enumerate(batch):
            for place, argument in zip(ARGUMENTS, arguments, strict=True):
                registers[place] = argument
            call = self._calls.get(number, UNKNOWN)
            result = EINVAL if number == MULTICALL else self._result(call, registers)
            place = calls + done * CALL.size + CALL.size - 4
            self._write(place, (result & 0xFFFF_FFFF).to_bytes(4, "little"))
            if self._vm.stopped or self._vm.turn_ended:
                return done + 1
        return count

    def hypercall_shutdown(self, status: int) -> int:
        """End the machine."""
        if status > LARGEST_STATUS:
            raise Refused(EINVAL)
        self._vm.world.leave()
        self._vm.board.power_off(status)
        self._vm.check_power()
        return 0
