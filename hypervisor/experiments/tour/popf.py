"""Three stops about POPF: on the bare machine, under trap, and where it traps.

The same bytes do three things: in ring 0 they change IF, in ring 3 they silently do not, and in
ring 1, where trap-and-emulate has put a guest's kernel, they do not either, and the monitor hears
nothing of it. Theorem 1 of Popek and Goldberg (1974) says what was missing: with --virtualizable
the instruction traps, and the same monitor is faithful.
"""

from __future__ import annotations

from typing import Final

from emulator import Machine
from hypervisor.experiments.lockstep import Divergence, first_difference
from hypervisor.experiments.observe import MachineRun, NativeRun
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import (
    RAM,
    TICKS,
    Exits,
    Step,
    bare,
    build,
    first_unequal,
    flags,
    text_of,
    walk,
)
from hypervisor.vm import VirtualMachine
from isa import Program

RINGS: Final = """\
; The same three instructions, in ring 0 or, with -D RING=3, in ring 3.
%include "guest.inc"
%include "ring3.inc"
%ifndef RING
%define RING 0
%endif
start:  call install_rings
%if RING = 3
        mov eax, show
        call call_ring_3        ; CF = 0, IF = 1, IOPL = 0; until INT 0x80
        exit 0
%endif
        clc
        sti                     ; as ring 3 begins
show:   push 0x3001             ; CF = 1, IF = 0, IOPL = 3
        popf
        mov al, 0               ; what comes next, whatever POPF did
show_end:
%if RING = 3
        int SYSTEM_CALL
%else
        exit 0
%endif
"""

KERNEL: Final = """\
; A kernel turns interrupts on, and with POPF off again; then it waits for ever.
start:  push 0                  ; touch the stack and the code once
        pop eax
show:   sti                     ; interrupts on
        push 0
        popf                    ; and off
        hlt                     ; off: nothing can wake it, the machine stops
show_end:
"""


def lines_of(program: Program, steps: tuple[Step[str], ...]) -> list[str]:
    """The source lines that have run."""
    return [text_of(program, step.number) for step in steps]


def show_natively() -> list[Line]:
    """POPF in ring 0 beside POPF in ring 3, both on the bare machine."""
    in_ring = {ring: build(RINGS, define=f"RING={ring}") for ring in (0, 3)}
    walks = {ring: walk(bare(), in_ring[ring], carry_and_flags) for ring in (0, 3)}
    ours, theirs = ([step.seen for step in walks[ring].steps] for ring in (0, 3))
    different = list(first_unequal(ours, theirs))
    rows = zip(lines_of(in_ring[0], walks[0].steps), ours, theirs, strict=True)
    events = {ring: ", ".join(walks[ring].events) or "none" for ring in (0, 3)}
    lines = paragraph(
        "The bare machine, the same bytes twice: in a kernel, and in a program in ring 3. "
        "0x3001 on the stack asks for CF = 1, IF = 0 and IOPL = 3."
    )
    lines += [blank(), *table(("after", "in ring 0", "in ring 3"), rows, different), blank()]
    lines += paragraph(f"Exceptions in ring 0: {events[0]}; in ring 3: {events[3]}.")
    lines += paragraph(
        "Ring 3 must not change IF and IOPL, so POPF leaves them. It says so to nobody: there is "
        "no trap that a monitor could wait for. The instruction is sensitive and not privileged."
    )
    return lines


def carry_and_flags(machine: Machine) -> str:
    """CF, IF and IOPL."""
    return f"CF={machine.cpu.state.eflags & 1} {flags(machine)}"


def show_under_trap() -> list[Line]:
    """The first difference of trap-and-emulate from the bare machine."""
    lines = paragraph(
        "Trap-and-emulate runs this kernel in ring 1. STI and HLT trap there, and the monitor does "
        "to the virtual CPU what they ask. POPF is run by the real CPU itself."
    )
    return lines + beside_native("trap", virtualizable=False)


def show_restored() -> list[Line]:
    """The same monitor where POPF traps."""
    lines = paragraph(
        "The same kernel under the same monitor. Only the CPU is another: with --virtualizable its "
        "unsafe instructions raise #GP(0) above ring 0, as if IA-32 had been made so."
    )
    return lines + beside_native("trap", virtualizable=True)


def beside_native(technique: str, *, virtualizable: bool) -> list[Line]:
    """The kernel natively and under a technique, and what lockstep says of the two."""
    program = build(KERNEL)

    def machine() -> VirtualMachine:
        return VirtualMachine(technique=technique, ram=RAM, virtualizable=virtualizable)

    vm = machine()
    exits = Exits(vm)
    native = walk(bare(), program, flags)
    other = walk(vm, program, lambda vm: (flags(vm), exits(vm)))
    found = first_difference(
        lambda: NativeRun(program, ram=RAM),
        lambda: MachineRun(machine(), program),
        max_ticks=TICKS,
        name=technique,
    )
    rows = [
        (text, ours.seen, *theirs.seen)
        for text, ours, theirs in zip(
            lines_of(program, native.steps), native.steps, other.steps, strict=True
        )
    ]
    marked = [n for n, step in enumerate(native.steps) if found and step.tick == found.tick]
    name = f"{technique}, virtualizable" if virtualizable else technique
    lines = [blank(), *table(("after", "native", name, "exits"), rows, marked), blank()]
    lines += paragraph(f"native ends: {native.result.reason}")
    lines += paragraph(f"{technique} ends: {other.result.reason}")
    return [*lines, blank(), *verdict(found, exits.total)]


def verdict(found: Divergence | None, exits: int) -> list[Line]:
    """The first difference as lockstep names it."""
    if found is None:
        return paragraph(
            "Lockstep finds no difference: device accesses, events, and at the end registers and "
            f"memory are equal. The monitor was entered {exits} times."
        )
    return paragraph(f"First difference, found by lockstep: {found}")
