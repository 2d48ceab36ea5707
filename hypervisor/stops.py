"""Stops at a debugger's breakpoints and watchpoints, where a guest has two CPUs.

Both CPUs look for them, for the guest's code may run on either, and the debugger is asked once the
virtual one is up to date (`Machine.debugger`). What the real CPU meets is an exit like any
other (exits.py). What the virtual CPU meets is the bare machine's own exit; but that may come with
another one, or with the delivery of an event, and then nobody has been told yet. gdb/machine.py is
the debugger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from emulator.core import ExitReason
from hypervisor.monitor import MONITOR
from hypervisor.outcome import RESUME, Outcome

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

DEADLINE: Final = int(ExitReason.DEADLINE)
LINEAR: Final = 0xFFFF_FFFF


def at_breakpoint(vm: VirtualMachine) -> Outcome:
    """The real CPU is at a breakpoint; in code of ours, at one that stands for the guest's."""
    (base, eip), tick = vm.technique.position(vm), vm.real.tick
    here = (base + eip & LINEAR, tick) == vm.resumed
    # Where it stands the real CPU does not meet it again; elsewhere, after a switch, it might.
    if not here and not vm.cpu.is_past_breakpoint(eip, tick):
        vm.world.leave()
        vm.meet()
    return RESUME


def at_own_breakpoint(vm: VirtualMachine) -> None:
    """The virtual CPU is at one; unless within a repeat that the real CPU has begun."""
    real, state = vm.host.cpu, vm.cpu.state
    eip = (state if vm.technique.guest_mode else real.state).eip
    if not real.is_past_breakpoint(eip, state.tick):
        vm.meet()


def at_watchpoint(vm: VirtualMachine) -> Outcome:
    """The guest's code has met a watchpoint on the real CPU; or code of ours has, for itself."""
    record = vm.record
    own = record.hit_linear >= MONITOR and not vm.technique.guest_mode
    if not own and not vm.technique.is_own_access(vm, record.hit_eip):
        vm.world.leave()
        vm.meet(record)
    return RESUME


def tell(vm: VirtualMachine) -> None:
    """What the virtual CPU has met, and not said."""
    if vm.cpu.take_hit():
        vm.meet(vm.cpu.record)


def run_debugged(vm: VirtualMachine, run: Callable[[int], int], until: int) -> int:
    """Run to an exit, and leave no watchpoint for later."""
    tell(vm)
    if vm.stopped:
        return DEADLINE
    reason = run(until)
    tell(vm)
    return reason
