"""A repeated INS or OUTS of a guest's kernel: many elements an exit, not one.

Each iteration traps under the techniques that run a kernel in ring 1, and 128 are a sector. The
virtual CPU, whose interpretation is never wrong, moves them a page at once as the bare machine's
does; what takes care is that it stops behind them. Read emulate.py for who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emulator.core import GENERAL, SEGMENTS, ExitReason
from hypervisor import segments

if TYPE_CHECKING:
    from hypervisor.emulate import Trapped
    from hypervisor.vm import VirtualMachine

OPERAND_SIZE: Final = 0x66
REPEAT: Final = 0xF3
DEADLINE: Final = int(ExitReason.DEADLINE)
INTERRUPT: Final = int(ExitReason.INTERRUPT)
EFLAGS_DF: Final = 0x400
PAGE_MASK: Final = 0xFFF
ELEMENT_SIZE: Final = {"b": 1, "w": 2, "d": 4}
ECX: Final = GENERAL.index("ecx")
ESI: Final = GENERAL.index("esi")
EDI: Final = GENERAL.index("edi")
CS: Final = SEGMENTS.index("cs")
DS: Final = SEGMENTS.index("ds")
ES: Final = SEGMENTS.index("es")


def _elements(vm: VirtualMachine, mnemonic: str) -> int:
    """Elements of a repeated INS or OUTS, about to go on, that no fault can come between: those
    in the page of the one before, upwards in a segment that holds all of it."""
    state, size = vm.cpu.state, ELEMENT_SIZE[mnemonic[-1]]
    inward = mnemonic.startswith("ins")
    segment, offset = state.seg[ES if inward else DS], state.gpr[EDI if inward else ESI]
    whole = segment.limit >= offset | PAGE_MASK and not segment.base & PAGE_MASK
    if state.eflags & EFLAGS_DF or segment.attributes & segments.EXPAND_DOWN or not whole:
        return 0
    room: int = min((PAGE_MASK + 1 - (offset & PAGE_MASK)) // size, state.gpr[ECX])
    return room if offset & PAGE_MASK else 0  # at a page's beginning, it is another page


def move_elements(vm: VirtualMachine, trapped: Trapped) -> bool:
    """A repeated INS or OUTS: the virtual CPU does what is in one page at once.

    Each iteration would trap. The first may fault; after it none can before the page ends, and an
    interrupt stops it: so the virtual CPU never runs on into other code, which may be patched.
    """
    code, mnemonic = trapped.code(), trapped.row.mnemonic
    if REPEAT not in code or not set(code[:-1]) <= {REPEAT, OPERAND_SIZE}:
        return False
    vm.world.leave()
    state, clock = vm.cpu.state, vm.board.clock
    eip = state.eip
    if vm.cpu.read_linear(state.seg[CS].base + eip, len(code)) != code:
        return False  # something else stands there for it
    vm.interpret(mnemonic)
    start = state.tick
    end = start + (_elements(vm, mnemonic) if state.eip == eip else 0)
    while state.tick < end and not vm.stopped:
        reason = vm.cpu.run(min(end, clock.next_tick, state.timer_due, vm._limit))
        if reason == INTERRUPT:
            break  # the run loop sees to it
        clock.now = state.tick
        vm._handlers[reason]()
        if reason == DEADLINE:
            break
    vm.steps += state.tick - start
    return True
