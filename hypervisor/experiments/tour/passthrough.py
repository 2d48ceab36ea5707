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
    first_tick,
    text_of,
    walk,
)
from hypervisor.variants import set_weights
from hypervisor.vm import VirtualMachine
from isa.paravirt import HYPERVISOR, NATIVE

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
    """A machine for the paravirtual kernel that uses pass-through gates, or does not."""
    return VirtualMachine(technique="paravirt", ram=RAM, gates=gates)


def show() -> list[Line]:
    """The exits of system calls, with and without a gate of the guest's in the shadow IDT."""
    plain, image = build(SOURCE), build(SOURCE, HYPERVISOR)
    start = first_tick(plain)
    native = walk(bare(), plain, lambda machine: f"EAX={machine.cpu['eax']}")
    exits, equal = [], []
    for gates in (False, True):
        vm = monitor(gates=gates)
        exits.append([step.seen for step in walk(vm, image, Exits(vm), start).steps])
        equal.append(difference(gates=gates))
    rows = [
        (text_of(plain, step.number), step.seen, *seen)
        for step, *seen in zip(native.steps, *exits, strict=True)
    ]
    lines = paragraph(
        "A system call needs nothing from ring 0. If the guest's gate is a trap gate to its "
        "kernel, and virtual IF is 1 and IOPL 0, the shadow IDT may hold it, and the real CPU goes "
        "from ring 3 to ring 1 by itself. Exits of a paravirtual kernel:"
    )
    columns = ("after", "native", "gates=False", "gates=True")
    lines += [blank(), *table(columns, rows), blank()]
    return lines + paragraph(
        f"Lockstep against the native twin: without gates {equal[0]}, with gates {equal[1]}."
    )


def difference(*, gates: bool) -> str:
    """What lockstep says of the image and its native twin."""
    twin, image = build(SOURCE, NATIVE), build(SOURCE, HYPERVISOR)

    def native() -> NativeRun:
        run = NativeRun(twin, ram=RAM)
        set_weights(run.machine.memory, twin.sites)
        return run

    found = first_difference(
        native,
        lambda: MachineRun(monitor(gates=gates), image),
        max_ticks=TICKS,
        sites=[range(site.address, site.end) for site in image.sites],
        name="paravirt",
    )
    return "no difference" if found is None else str(found)
