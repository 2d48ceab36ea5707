"""The stop about shadow pages: one page, its entry in the guest's table and in the shadow."""

from __future__ import annotations

from typing import Final

from emulator import Machine
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from hypervisor.experiments.tour.steps import RAM, Exits, bare, build, text_of, walk
from hypervisor.guest_memory import GuestMemory
from hypervisor.memory.shadow import ENTRIES, PAGE, WORD
from hypervisor.monitor import ACCESSED, DIRTY, PRESENT, WRITABLE
from hypervisor.vm import VirtualMachine

SOURCE: Final = """\
; A kernel maps a page at 4 MiB, reads and writes it, and takes it away again.
%include "guest.inc"
%include "interrupts.inc"
%define PAGE 0x400000
%define ENTRY dword [table]
start:  call install_gdt
        call install_interrupts
        mov edx, VECTOR_PAGE_FAULT
        mov eax, handler
        mov ecx, GATE_INTERRUPT
        call set_gate
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
        mov dword [table + 4], 0        ; touch the table once
        push 2                          ; and IRET's descriptor
        push KERNEL_CODE
        push map
        iret
show:
handler:
        mov ENTRY, 0x180003             ; map it again
        add esp, 4                      ; the error code
        iret
map:    mov ENTRY, 0x180003             ; present, writable
        mov eax, [PAGE]
        mov [PAGE], eax
        mov ENTRY, 0
        invlpg [PAGE]
        mov eax, [PAGE]                 ; a page fault
show_end:
        exit 0

section .bss
alignb 4096
directory: resb 4096
table:  resb 4096
"""
PAGE_SHOWN: Final = 4 << 20  #: linear address
FRAME: Final = 0x180000  #: guest-physical
TABLE: Final = "table"
RIGHTS: Final = ((PRESENT, "P"), (WRITABLE, "W"), (ACCESSED, "A"), (DIRTY, "D"))


def show() -> list[Line]:
    """Both entries and the exits, after each line of the guest."""
    program = build(SOURCE)
    address, vm = program.symbols[TABLE].value, VirtualMachine(technique="trap", ram=RAM)
    exits = Exits(vm)

    def guests_entry(machine: Machine) -> str:
        return entry_text(WORD.unpack(machine.memory.read(address, WORD.size))[0])

    def look(machine: Machine) -> tuple[str, str, str]:
        assert isinstance(machine, VirtualMachine)
        return guests_entry(machine), entry_text(shadow_entry(machine)), exits(machine)

    native, other = walk(bare(), program, guests_entry), walk(vm, program, look)
    rows = [(text_of(program, step.number), *step.seen) for step in other.steps]
    same = [step.seen for step in native.steps] == [step.seen[0] for step in other.steps]
    lines = paragraph(
        "The guest's table says guest-physical addresses; the real CPU walks a shadow of it, whose "
        "entries are made when they are missed. The guest's table is write-protected."
    )
    lines += [blank(), *table(("after", "guest's", "shadow", "exits"), rows), blank()]
    assert isinstance(vm.memory, GuestMemory)
    frame = vm.memory.frame(FRAME // PAGE) * PAGE
    lines += paragraph(
        f"Guest-physical {FRAME:x} is machine {frame:x}. Natively the guest's entry is "
        f"{'the same' if same else 'another one'} throughout, and it sees "
        f"{', '.join(native.events)} as it does here: {', '.join(other.events)}."
    )
    return lines


def shadow_entry(vm: VirtualMachine) -> int:
    """The shadow's entry for the page, as the real CPU finds it from CR3; 0 if there is none."""
    above = entry_at(vm, vm.paging.root(), PAGE_SHOWN >> 22)
    if not above & PRESENT:
        return 0
    return entry_at(vm, above & -PAGE, PAGE_SHOWN // PAGE % ENTRIES)


def entry_at(vm: VirtualMachine, table_address: int, index: int) -> int:
    """An entry of a table in machine memory."""
    found: int = WORD.unpack(vm.host.memory.read(table_address + index * WORD.size, WORD.size))[0]
    return found


def entry_text(entry: int) -> str:
    """An entry as people read it: frame and rights."""
    if not entry & PRESENT:
        return "-"
    return f"{entry & -PAGE:x} " + "".join(name for bit, name in RIGHTS if entry & bit)
