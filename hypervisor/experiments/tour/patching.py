"""Three stops about the in-place patcher: a jump, an INT3, and why a site is no jump.

What is shown is read where it stands when the piece has run: the guest's bytes in its memory, and
the code in patch memory.
"""

from __future__ import annotations

from typing import Final

from hypervisor.experiments.lockstep import first_difference
from hypervisor.experiments.observe import MachineRun, NativeRun
from hypervisor.experiments.patches import Census, Site
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import RAM, TICKS, build, text_of
from hypervisor.patcher.listing import code_rows
from hypervisor.patcher.patches import JUMP, Patch
from hypervisor.techniques.patch import Patch as Technique
from hypervisor.vm import VirtualMachine
from isa import Program
from isa.disassembler import disassemble

JUMPED: Final = """\
; A kernel turns interrupts off and, with POPF, on again.
start:  push 0                  ; touch the stack and the code once
        pop ebx
        cli
        mov ebx, 5              ; its last byte will be behind the jump
        push 0x202              ; IF = 1
        popf
        mov eax, 1
        mov al, 0
        out 0xF4, al
"""

TRAPPED: Final = """\
; A loop stores GDTR and loads EFLAGS, three times.
start:  push 0                  ; touch the stack and the code once
        pop ebx
        mov ecx, 3
again:  push 2
        popf
        sgdt [table]
        dec ecx
        jnz again
        mov al, 0
        out 0xF4, al
table:  dd 0, 0
"""

REFUSED: Final = """\
; Sites that are no jumps, for more than one reason.
start:  cli                     ; with the two after it, five bytes: a jump
        mov eax, 6
        call kernel
        mov al, 0
        out 0xF4, al
kernel: test eax, eax
        jz again
        pushf
again:  mov ebx, eax            ; what is before jumps here
        dec eax
        jnz again
        cli                     ; what follows is not moved: it exits anyway
        sgdt [table]
        popf
        ret
table:  dd 0, 0
"""


def monitor() -> tuple[VirtualMachine, Technique]:
    """A machine, and its patcher."""
    technique = Technique()
    return VirtualMachine(technique=technique, ram=RAM), technique


def run(source: str) -> tuple[Program, VirtualMachine, list[Patch]]:
    """Run a stop's source at one go: to stop within it would let it in behind patches."""
    program = build(source)
    vm, technique = monitor()
    vm.load(program)
    vm.run(max_ticks=TICKS)
    return program, vm, sorted(technique.patches.by_eip.values(), key=lambda p: p.eip)


def exits_of(vm: VirtualMachine) -> str:
    """All exits of a run, in words."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(vm.counts.items()))


def is_equal(program: Program) -> str:
    """What lockstep finds, in words."""
    found = first_difference(
        lambda: NativeRun(program, ram=RAM),
        lambda: MachineRun(monitor()[0], program),
        max_ticks=TICKS,
        name="patch",
    )
    return "no difference from native" if found is None else f"a difference: {found}"


def instruction(code: bytes, address: int) -> str:
    """One instruction as text."""
    (line,) = disassemble(code, address)
    return line.text


# -- A jump ----------------------------------------------------------------------------------------


def show_jump() -> list[Line]:
    """The guest's instructions, what stands there, and where that leads."""
    program, vm, found = run(JUMPED)
    rows = []
    for patch in found:
        before = None
        code = vm.monitor.read(patch.start, len(patch.code))
        for row in code_rows(patch, patch.start, code, lambda _: ""):
            place = program.source_line(row.eip or 0) if row.eip != before else None
            rows.append((text_of(program, place[1]) if place else "", row.line.text, row.comment))
            before = row.eip
    lines = paragraph(
        "The kernel's own code runs, in ring 1. A JMP in place of a site needs five bytes: what "
        "follows in them moves along to patch memory."
    )
    lines += [blank(), *table(("guest", "patch memory", ""), rows), blank()]
    first = found[0]
    return lines + paragraph(
        f"At {first.eip:x} the bytes {first.original.hex(' ')} have become "
        f"{first.bytes.hex(' ')}: {instruction(first.bytes, first.eip)}. Lockstep finds "
        f"{is_equal(program)}. All exits: {exits_of(vm)}."
    )


# -- An INT3 ---------------------------------------------------------------------------------------


def show_trap() -> list[Line]:
    """Each site's first byte, its exits, and whether code in patch memory goes on."""
    program, vm, found = run(TRAPPED)
    rows = []
    for patch in found:
        original = instruction(patch.sites[patch.eip].original, patch.eip)
        bytes_now = f"{patch.original.hex()} -> {patch.bytes.hex()}"
        goes_on = f"patch memory, {len(patch.code)} bytes" if patch.code else "the virtual CPU"
        rows.append((f"{patch.eip:x}", original, bytes_now, str(patch.executed), goes_on))
    lines = paragraph(
        "Where five bytes cannot be had, the first one becomes INT3, which exits. The hypervisor "
        "then lets the guest go on in patch memory, if there is code for the site; else it "
        "executes the instruction on the virtual CPU, as after a trap."
    )
    columns = ("site", "guest", "byte", "exits", "done by")
    lines += [blank(), *table(columns, rows), blank()]
    return lines + paragraph(
        f"All exits: {exits_of(vm)}. Lockstep finds {is_equal(program)}. Under trap neither would "
        "have exited: SGDT would have shown the hypervisor's table, POPF left IF as it was."
    )


# -- Refused ---------------------------------------------------------------------------------------


def show_refused() -> list[Line]:
    """Every site with its kind, its executions, and the reason."""
    program = build(REFUSED)
    vm, technique = monitor()
    census = Census(vm, technique)
    vm.load(program)
    vm.run(max_ticks=TICKS)
    sites = list(census.sites())
    lines = paragraph(
        "A patch must not be seen half: nobody may jump to what was moved, nor find the rest of a "
        "JMP where an instruction of his begins. So each site is asked whether a JMP may stand "
        "there, and if not, why."
    )
    columns = ("site", "guest", "patch", "executed", "why it is no jump")
    marked = [number for number, site in enumerate(sites) if site.patch.kind != JUMP]
    lines += [blank(), *table(columns, map(_refusal, sites), marked), blank()]
    exits = sum(site.exits for site in sites)
    return lines + paragraph(
        f"{len(marked)} of {len(sites)} sites are no jumps, and {exits} exits came of it."
    )


def _refusal(site: Site) -> tuple[str, ...]:
    return (
        f"{site.patch.eip:x}",
        site.original[0][1],
        site.patch.kind,
        str(site.executed),
        site.patch.reason,
    )
