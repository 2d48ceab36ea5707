"""Privileged instructions that are simple enough to be done where they trap.

They only move a value between the guest and its virtual devices or its virtual interrupt flag, and
are most of what a kernel traps for. Each is called for a guest in its kernel, with the real CPU
still holding its registers, and returns False to leave the instruction to the virtual CPU - as it
does with all that has a condition: debug traps, user mode, operands that need the guest's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from emulator.core import EFLAGS_IF, GENERAL, SEGMENTS
from hypervisor import segments
from hypervisor.strings import move_elements
from isa.row import Row
from isa.table import ROWS

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine


class Trapped(NamedTuple):
    """A privileged instruction of the guest's kernel, about to be emulated."""

    row: Row
    length: int  #: bytes
    end: int  #: EIP of the next instruction
    code: Callable[[], bytes]  #: its bytes, for those who need them


EFLAGS_TF: Final = 0x100
EFLAGS_RF: Final = 0x10000
DR7_ENABLED: Final = 0xFF
OPERAND_SIZE: Final = 0x66
EAX: Final = GENERAL.index("eax")
EDX: Final = GENERAL.index("edx")
DS: Final = SEGMENTS.index("ds")
MOD_AND_REG: Final = 0xF8  #: of a ModRM byte
INVLPG_BY_REGISTER: Final = 7 << 3
NO_BASE: Final = (4, 5)  #: r/m that mean a SIB byte, or a displacement
ACCUMULATOR_MASK: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF}
#: How many places are remembered.
MOST_TRAPPED: Final = 4096


def trapped_at(vm: VirtualMachine, row: int, length: int, eip: int) -> Trapped:
    """What has trapped; kept by place, for a kernel traps at the same ones again and again."""
    place = eip, length, row
    found = vm.trapped.get(place)
    if found is None:
        if len(vm.trapped) == MOST_TRAPPED:
            vm.trapped.clear()
        code = partial(vm.code_at, eip, length)
        found = vm.trapped[place] = Trapped(ROWS[row], length, eip + length & 0xFFFF_FFFF, code)
    return found


def _is_plain(vm: VirtualMachine) -> bool:
    """No debug trap is owed after the instruction, and none held off."""
    return not vm.flags[0] & (EFLAGS_TF | EFLAGS_RF) and not vm.dr[7] & DR7_ENABLED


def _port_access(vm: VirtualMachine, trapped: Trapped) -> tuple[int, int] | None:
    """Port and size in bytes of an IN or OUT; None if it has prefixes other than 66."""
    operands, length = trapped.row.operands, trapped.length
    by_dx, size = "DX" in operands, 1 if "AL" in operands else 4
    plain = 1 if by_dx else 2
    if by_dx and length == plain:  # nearly all of them
        return vm.gpr[EDX] & 0xFFFF, size
    code = trapped.code()
    if len(code) != length or length > plain + 1:
        return None
    if length > plain:
        if code[0] != OPERAND_SIZE:
            return None
        size = min(size, 2)
    return vm.gpr[EDX] & 0xFFFF if by_dx else code[-1], size


def emulate_out(vm: VirtualMachine, trapped: Trapped) -> bool:
    """OUT to a virtual device."""
    access = _port_access(vm, trapped)
    if access is None or not _is_plain(vm):
        return False
    port, size = access
    vm.board.clock.now = vm.real_tick[0]
    vm.board.bus.port_write(port, size, vm.gpr[EAX] & ACCUMULATOR_MASK[size])
    vm.emulated_cycles += vm.prices["io"]
    vm.retire(trapped.end)
    vm.check_power()
    return True


def emulate_in(vm: VirtualMachine, trapped: Trapped) -> bool:
    """IN from a virtual device."""
    access = _port_access(vm, trapped)
    if access is None or not _is_plain(vm):
        return False
    port, size = access
    vm.board.clock.now = vm.real_tick[0]
    mask = ACCUMULATOR_MASK[size]
    value = vm.board.bus.port_read(port, size) & mask
    vm.gpr[EAX] = vm.gpr[EAX] & ~mask & 0xFFFF_FFFF | value
    vm.emulated_cycles += vm.prices["io"]
    vm.retire(trapped.end)
    return True


def emulate_cli(vm: VirtualMachine, trapped: Trapped) -> bool:
    """CLI on the virtual interrupt flag."""
    if not _is_plain(vm) or vm.world.area is not None:
        return False
    vm.cpu.state.eflags &= ~EFLAGS_IF
    vm.emulated_cycles += vm.prices["flags"]
    vm.retire(trapped.end)
    return True


def emulate_sti(vm: VirtualMachine, trapped: Trapped) -> bool:
    """STI on the virtual interrupt flag; the next instruction runs before any interrupt."""
    if not _is_plain(vm) or vm.world.area is not None:
        return False
    state = vm.cpu.state
    was_off = not state.eflags & EFLAGS_IF
    state.eflags |= EFLAGS_IF
    vm.emulated_cycles += vm.prices["flags"]
    vm.retire(trapped.end)
    # The real CPU keeps it until the next instruction has retired.
    vm.real.interrupt_shadow = int(was_off)
    return True


def emulate_invlpg(vm: VirtualMachine, trapped: Trapped) -> bool:
    """INVLPG of an address in a register: for the virtual TLB, as shadows follow stores."""
    code = trapped.code()
    segment = vm.real.seg[DS]
    if (
        len(code) != 3
        or code[2] & MOD_AND_REG != INVLPG_BY_REGISTER
        or code[2] & 7 in NO_BASE
        or segment.attributes & (segments.UNUSABLE | segments.EXPAND_DOWN)
        or not _is_plain(vm)
    ):
        return False
    vm.emulated_cycles += vm.prices["invlpg"]
    vm.cpu.invalidate_page((segment.base + vm.gpr[code[2] & 7]) & 0xFFFF_FFFF)
    vm.retire(trapped.end)
    return True


def emulate_string(vm: VirtualMachine, trapped: Trapped) -> bool:
    """A repeated INS or OUTS: strings.py has it."""
    return _is_plain(vm) and move_elements(vm, trapped)


#: Who emulates an instruction, by mnemonic; the virtual CPU interprets the others.
EMULATED: Final[dict[str, Callable[[VirtualMachine, Trapped], bool]]] = {
    "out": emulate_out,
    "in": emulate_in,
    "cli": emulate_cli,
    "sti": emulate_sti,
    "invlpg": emulate_invlpg,
    **dict.fromkeys(("insb", "insw", "insd", "outsb", "outsw", "outsd"), emulate_string),
}
