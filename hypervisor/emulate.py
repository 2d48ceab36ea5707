"""Privileged instructions that are simple enough to be done where they trap.

They only move a value between the guest and its virtual devices or its virtual interrupt flag, and
are most of what a kernel traps for. Each is called for a guest in its kernel, with the real CPU
still holding its registers, and returns False to leave the instruction to the virtual CPU - as it
does with all that has a condition: debug traps, user mode, operands that need the guest's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from emulator.core import EFLAGS_IF, GENERAL
from hypervisor.segments import CS
from isa.table import ROWS

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

EFLAGS_TF: Final = 0x100
EFLAGS_RF: Final = 0x10000
DR7_ENABLED: Final = 0xFF
OPERAND_SIZE: Final = 0x66
EAX: Final = GENERAL.index("eax")
EDX: Final = GENERAL.index("edx")
ACCUMULATOR_MASK: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF}


def _retire(vm: VirtualMachine, record: Any) -> None:
    """The instruction is done: one tick, and on to the next."""
    real = vm.real
    real.eip = (record.eip + record.length) & 0xFFFF_FFFF
    real.tick += 1
    real.interrupt_shadow = real.debug_shadow = 0


def _is_plain(vm: VirtualMachine) -> bool:
    """No debug trap is owed after the instruction, and none held off."""
    return not vm.real.eflags & (EFLAGS_TF | EFLAGS_RF) and not vm.real.dr[7] & DR7_ENABLED


def _port_access(vm: VirtualMachine, record: Any) -> tuple[int, int] | None:
    """Port and size in bytes of an IN or OUT; None if it has prefixes other than 66."""
    operands, length = ROWS[record.row].operands, record.length
    by_dx, size = "DX" in operands, 1 if "AL" in operands else 4
    plain = 1 if by_dx else 2
    if by_dx and length == plain:  # nearly all of them
        return vm.real.gpr[EDX] & 0xFFFF, size
    code = vm.host.cpu.read_linear(vm.real.seg[CS].base + record.eip, length)
    if len(code) != length or length > plain + 1:
        return None
    if length > plain:
        if code[0] != OPERAND_SIZE:
            return None
        size = min(size, 2)
    return vm.real.gpr[EDX] & 0xFFFF if by_dx else code[-1], size


def emulate_out(vm: VirtualMachine, record: Any) -> bool:
    """OUT to a virtual device."""
    access = _port_access(vm, record)
    if access is None or not _is_plain(vm):
        return False
    port, size = access
    vm.board.clock.now = vm.real.tick
    vm.board.bus.port_write(port, size, vm.real.gpr[EAX] & ACCUMULATOR_MASK[size])
    _retire(vm, record)
    vm.check_power()
    return True


def emulate_in(vm: VirtualMachine, record: Any) -> bool:
    """IN from a virtual device."""
    access = _port_access(vm, record)
    if access is None or not _is_plain(vm):
        return False
    port, size = access
    vm.board.clock.now = vm.real.tick
    mask = ACCUMULATOR_MASK[size]
    value = vm.board.bus.port_read(port, size) & mask
    vm.real.gpr[EAX] = vm.real.gpr[EAX] & ~mask & 0xFFFF_FFFF | value
    _retire(vm, record)
    return True


def emulate_cli(vm: VirtualMachine, record: Any) -> bool:
    """CLI on the virtual interrupt flag."""
    if not _is_plain(vm):
        return False
    vm.cpu.state.eflags &= ~EFLAGS_IF
    _retire(vm, record)
    return True


def emulate_sti(vm: VirtualMachine, record: Any) -> bool:
    """STI on the virtual interrupt flag; the next instruction runs before any interrupt."""
    if not _is_plain(vm):
        return False
    state = vm.cpu.state
    was_off = not state.eflags & EFLAGS_IF
    state.eflags |= EFLAGS_IF
    _retire(vm, record)
    # The real CPU keeps it until the next instruction has retired.
    vm.real.interrupt_shadow = int(was_off)
    return True


#: Who emulates an instruction, by mnemonic; the virtual CPU interprets the others.
EMULATED: Final[dict[str, Callable[[VirtualMachine, Any], bool]]] = {
    "out": emulate_out,
    "in": emulate_in,
    "cli": emulate_cli,
    "sti": emulate_sti,
}
