"""The stop about pass-through gates: system calls that reach the guest's kernel without ring 0."""

from __future__ import annotations

from typing import Final

from hypervisor.experiments.lockstep import first_difference
from hypervisor.experiments.observe import MachineRun, NativeRun
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import (
    RAM,
    TICKS,
    Exits,
    bare,
    build,
    flags,
    text_of,
    walk,
)
from hypervisor.vm import VirtualMachine

SOURCE: Final = """\
; A program makes three system calls through a trap gate, which leaves IF alone.
%include "guest.inc"
%include "ring3.inc"
start:  call install_rings
        mov edx, SYSTEM_CALL
        mov eax, system_call
        mov ecx, GATE_TRAP | GATE_DPL_3
        call set_gate
        mov eax, program
        call call_ring_3                ; until the UD2
        exit 0
system_call:
        inc eax                         ; the kernel's part
        iret
ring_3_code
program:
        xor eax, eax
show:   int SYSTEM_CALL
        int SYSTEM_CALL
        int SYSTEM_CALL
show_end:
        ud2
ring_0_code
"""


def monitor(*, gates: bool) -> VirtualMachine:
    """A machine that uses pass-through gates, or does not."""
    return VirtualMachine(technique="trap", ram=RAM, virtualizable=True, gates=gates)


def show() -> list[Line]:
    """The exits of system calls, with and without a gate of the guest's in the shadow IDT."""
    program = build(SOURCE)
    native = walk(bare(), program, lambda machine: f"EAX={machine.cpu['eax']} {flags(machine)}")
    columns, rows, equal = ["after", "native"], [], []
    exits = {gates: Exits() for gates in (False, True)}
    sides = {gates: walk(monitor(gates=gates), program, exits[gates]) for gates in exits}
    for ours, without, within in zip(
        native.steps, sides[False].steps, sides[True].steps, strict=True
    ):
        text = text_of(program, ours.number)
        rows.append((text, ours.seen, without.seen or "-", within.seen or "-"))
    columns += ["gates=False", "gates=True"]
    for gates in exits:
        found = first_difference(
            lambda: NativeRun(program, ram=RAM),
            lambda gates=gates: MachineRun(monitor(gates=gates), program),  # type: ignore[misc]
            max_ticks=TICKS,
        )
        equal.append("no difference" if found is None else str(found))
    lines = paragraph(
        "A system call needs nothing from ring 0. If the guest's gate is a trap gate to its "
        "kernel, virtual IF is 1 and IOPL 0, the shadow IDT may hold it as it is, and the real CPU "
        "goes from ring 3 to ring 1 by itself."
    )
    lines += [blank(), *table(columns, rows), blank()]
    lines += paragraph(
        f"Lockstep, against native: without gates {equal[0]}, with gates {equal[1]}."
    )
    return lines
