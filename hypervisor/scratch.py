"""The virtual CPU as a scratch CPU: it executes what the real one cannot execute for the guest.

An exit handler asks for one instruction, and gets it done whatever it takes: exits of the virtual
CPU are the bare machine's, and are served as there. But where the real CPU would come back at once,
the virtual one goes on by itself: within a repeat, and while its stack is in the monitor area,
where no segment of the real one reaches. Linux enters its kernel on such a stack: sixty exits a
system call become five. Read exits.py for who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emulator.core import ExitReason
from hypervisor.monitor import MONITOR
from hypervisor.outcome import RESUME, STOP, Outcome

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

DEADLINE: Final = int(ExitReason.DEADLINE)
#: After these the instruction has not retired. Nobody has been asked yet: it may start anew.
UNFINISHED: Final = frozenset(
    {ExitReason.PORT_READ, ExitReason.PORT_WRITE, ExitReason.MMIO_READ, ExitReason.INTERRUPT}
)


class Scratch:
    """Interprets for one virtual machine."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        #: While it executes: what, instead of the instruction at EIP, or nothing; and its length.
        self.instead: tuple[bytes, int] | None = None
        self.until = 0  #: the tick that the guest may not pass

    def interpret(self, reason: str, code: bytes = b"", length: int = 0) -> Outcome:
        """Have the virtual CPU execute one instruction of the guest, or deliver its fault.

        code: the instruction, if another stands at EIP; it counts as `length` bytes long.
        """
        vm = self._vm
        vm.world.leave()
        if not code:
            code = vm.technique.original(vm)
            length = len(code)
        vm.interpreted[reason] += 1
        eip = vm.cpu.state.eip
        self._execute(code, length)
        if vm.technique.steps_on and not vm.stopped:
            self._step_on(reason, eip)
        return STOP if vm.stopped else RESUME

    def _execute(self, code: bytes, length: int) -> None:
        vm = self._vm
        state, tick, eip = vm.cpu.state, vm.cpu.state.tick, vm.cpu.state.eip
        self.instead = code, length
        while not vm.stopped and (state.tick, state.eip) == (tick, eip):
            vm.steps += 1
            why = vm.cpu.step(code, length)
            vm.board.clock.now = state.tick  # a store to a device has retired
            vm.serve(why)
            if why == DEADLINE:
                break
        self.instead = None

    def _step_on(self, reason: str, eip: int) -> None:
        """Go on behind the instruction that was at `eip`, where the real CPU would come back."""
        vm = self._vm
        before = vm.ticks
        # The instruction may have set a timer, the local APIC's or a device's.
        due = min(vm.board.clock.next_tick, vm.cpu.state.timer_due)
        why = vm.cpu.step_on(eip, MONITOR, min(self.until, due))
        done = vm.ticks - before
        vm.interpreted[reason] += done
        vm.steps += done
        if why == DEADLINE:
            return
        vm.board.clock.now = vm.ticks
        if why in UNFINISHED:
            self._execute(b"", 0)
        else:
            vm.serve(why)
