"""The stop about hardware assistance: the same kernel deprivileged, and in guest mode twice."""

from __future__ import annotations

from typing import Final

from hypervisor.experiments.lockstep import first_difference
from hypervisor.experiments.observe import MachineRun, NativeRun
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import (
    RAM,
    TICKS,
    Exits,
    build,
    first_tick,
    text_of,
    walk,
)
from hypervisor.vm import VirtualMachine

SOURCE: Final = """\
; A kernel with paging on does what kernels do.
%include "guest.inc"
%include "interrupts.inc"
start:  call install_gdt
        mov dword [directory], 0x83     ; the first 4 MiB, as one large page
        mov eax, table
        or eax, 3
        mov [directory + 4], eax
        mov eax, cr4
        or eax, 0x10                    ; PSE
        mov cr4, eax
        mov eax, directory
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80010000              ; PG, WP
        mov cr0, eax
        mov dword [table], 0x180003     ; 4 MiB: present, writable
        mov eax, [0x400000]
        push 2
        pop eax
show:   push 2
        popf
        mov eax, cr0
        mov eax, cr3
        mov cr3, eax
        mov dword [table], 0x181003     ; another frame
        invlpg [0x400000]
        mov eax, [0x400000]
        in al, 0x80
show_end:
        exit 0

section .bss
alignb 4096
directory: resb 4096
table:  resb 4096
"""
#: A title, the technique, and the memory virtualization.
COLUMNS: Final = (
    ("trap", "trap", "shadow"),
    ("shadow", "hardware", "shadow"),
    ("nested", "hardware", "nested"),
)


def show_guest_mode() -> list[Line]:
    """The exits of each line, deprivileged and in guest mode."""
    program = build(SOURCE)
    start = first_tick(program)
    walks = []
    for _, technique, mmu in COLUMNS:
        vm = VirtualMachine(technique=technique, mmu=mmu, ram=RAM)
        walks.append(walk(vm, program, Exits(vm), start))
    rows = [
        (text_of(program, steps[0].number), *(step.seen for step in steps))
        for steps in zip(*(w.steps for w in walks), strict=True)
    ]
    lines = paragraph(
        "In guest mode the kernel has ring 0, its own tables and its own IDT; only what the "
        "control block lists leaves it. On shadow tables that is paging, too; on nested ones the "
        "CPU walks the guest's tables and the hypervisor's. Exits under trap, and under hardware "
        "with shadow and nested tables:"
    )
    titles = ("after", *(title for title, _, _ in COLUMNS))
    lines += [blank(), *table(titles, rows), blank()]
    found = [difference(technique, mmu) for _, technique, mmu in COLUMNS]
    return lines + paragraph(
        f"Lockstep against the bare machine: {found[1]} on shadow tables, {found[2]} on nested."
    )


def difference(technique: str, mmu: str) -> str:
    """What lockstep says of the kernel under a technique."""
    program = build(SOURCE)
    found = first_difference(
        lambda: NativeRun(program, ram=RAM),
        lambda: MachineRun(VirtualMachine(technique=technique, mmu=mmu, ram=RAM), program),
        max_ticks=TICKS,
        name=technique,
    )
    return "no difference" if found is None else str(found)
