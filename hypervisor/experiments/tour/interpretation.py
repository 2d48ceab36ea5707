"""The stop about interpretation: what Theorem 3's hybrid monitor steps, and what it runs directly.

`interpret` executes all that a kernel does one instruction at a time on the virtual CPU, and lets
the real CPU run ring 3. What that costs is said in cycles of machine time, the same in every run;
`seventeen compare` says it for whole guests.
"""

from __future__ import annotations

from typing import Final

from emulator import Machine
from hypervisor.cost import HYPERVISOR_CYCLES
from hypervisor.experiments.lockstep import first_difference
from hypervisor.experiments.observe import MachineRun, NativeRun
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import (
    RAM,
    TICKS,
    bare,
    build,
    flags,
    text_of,
    walk,
)
from hypervisor.vm import VirtualMachine
from isa import Program

SOURCE: Final = """\
; A kernel that uses POPF, and a program that it calls in ring 3.
%include "guest.inc"
%include "ring3.inc"
start:  call install_rings
        mov eax, program
show:   sti
        push 0
        popf                    ; interrupts off
        call call_ring_3        ; by an IRET; until INT 0x80
        jmp show_end
ring_3_code
program:
        mov edi, user_stack
        mov ecx, 300
        rep stosb               ; an iteration counts as an instruction
        int SYSTEM_CALL
ring_0_code
show_end:
        exit 0
"""


def monitor() -> VirtualMachine:
    """The hybrid monitor."""
    return VirtualMachine(technique="interpret", ram=RAM)


class Shares:
    """Instructions since one last looked: all, and those that the virtual CPU has stepped."""

    def __init__(self) -> None:
        self._before = (0, 0)

    def __call__(self, machine: Machine) -> tuple[str, int, int]:
        state = machine.cpu.state
        now = (state.tick, state.retired_cpl0)
        ticks, stepped = (a - b for a, b in zip(now, self._before, strict=True))
        self._before = now
        return flags(machine), stepped, ticks - stepped


def show() -> list[Line]:
    """Each line of kernel and program: how often stepped, how often run directly."""
    program = build(SOURCE)
    native = walk(bare(), program, flags)
    other = walk(monitor(), program, Shares())
    rows: dict[int, tuple[str, str, str, int, int]] = {}  # by line: a loop's iterations together
    for ours, theirs in zip(native.steps, other.steps, strict=True):
        seen, stepped, direct = theirs.seen
        *_, before, run = rows.get(theirs.number, ("", "", "", 0, 0))
        text = text_of(program, theirs.number)
        rows[theirs.number] = (text, ours.seen, seen, before + stepped, run + direct)
    found = first_difference(
        lambda: NativeRun(program, ram=RAM),
        lambda: MachineRun(monitor(), program),
        max_ticks=TICKS,
        name="interpret",
    )
    lines = paragraph(
        "Theorem 3's hybrid monitor steps what runs in virtual ring 0, and lets ring 3 run by "
        "itself. So an instruction does no harm if it is unsafe in a kernel only."
    )
    columns = ("after", "native", "interpret", "stepped", "run directly")
    lines += [blank(), *table(columns, [tuple(map(str, row)) for row in rows.values()]), blank()]
    equal = "no difference from native" if found is None else f"the first difference: {found}"
    lines += paragraph(f"Lockstep finds {equal}.")
    return [*lines, *paragraph(cost(program))]


def cost(program: Program) -> str:
    """The whole run: what was stepped, and its price beside that of the guest's instructions."""
    vm = monitor()
    vm.load(program)
    result = vm.run(max_ticks=TICKS)
    price = HYPERVISOR_CYCLES["interpreted"]
    steps, cycles = f"{vm.steps:,}", f"{result.cycles:,}"
    return (
        f"Start to end: {result.ticks:,} instructions in {cycles} cycles, and {steps} steps; at "
        f"{price} cycles a step, an estimate (hypervisor/cost.py), {vm.steps * price:,} more."
    )
