"""Kernels written by hand: shadows of STI and MOV SS, debugging, ports, page tables; and the list.

Read written_tables.py for what such a kernel is, killers.py for who runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_rings import timer_writes
from tests.hypervisor.kernel_steps import IF, lines
from tests.hypervisor.kernel_world import (
    ALIAS,
    ALIAS_TABLES,
    DATA,
    DIRECTORIES,
    GDT,
    KCODE,
    KDATA,
    LARGE,
    LEFT,
    LOW_TABLES,
    RECOVER,
    SCRATCH,
    SOFTWARE,
    SPARE,
    STACK_TOP,
    TOP,
    TOP_TABLE,
    TRACE_LEFT,
    UDATA,
    USER_STACK_TOP,
    WINDOW,
    P,
    U,
    W,
    descriptor,
)  # fmt: skip
from tests.hypervisor.written_tables import (
    GATE,
    NT,
    RF,
    TABLES,
    TF,
    TSD,
    WITH_DESCRIPTORS,
    WITH_GATES,
    A,
    enable,
    install,
    store,
    visit,
)

_handed = f"push {RF | IF | 2}\npush {KCODE}\npush .there\niret\n.there: in al, 0x21"
_ticking = lines(*timer_writes(2, 2), "mov dx, ss", "sti", "mov ecx, 500", ".again:")
_load_watched: Final = f"mov ss, [{SCRATCH}]"
_watched: Final = lines(f"mov dword [{SCRATCH}], {KDATA}", f"mov eax, {SCRATCH}", "mov dr0, eax",
                        "mov eax, 0xF0402", "mov dr7, eax")  # fmt: skip
#: Shadows of STI and MOV SS, debugging, control registers, ports.
WITH_STATE: Final = {
    "STI at every tick": lines(_ticking, "cli", "sti", "in al, 0x21", "nop", "nop",
                               "loop .again", "cli"),
    "STI twice at every tick": lines(_ticking, "cli", "nop", "sti", "sti", "in al, 0x21",
                                     "loop .again", "cli"),
    "STI and a fault at every tick": lines(_ticking, "cli", "sti", f"int {GATE}", "nop", "nop",
                                           "loop .again", "cli"),
    "INT that no assembler saw": lines("mov eax, 6", f"db 0xCD, {GATE}"),
    "MOV SS at every tick": lines(_ticking, "mov ss, dx", "in al, 0x21", "nop", "nop", "nop",
                                  "loop .again", "cli"),
    "POP SS at every tick": lines(_ticking, "push ss", "pop ss", "smsw bx", "nop",
                                  "loop .again", "cli"),
    "RF at every tick": lines(_ticking, _handed, "loop .again", "cli"),
    "stepped MOV SS": lines(
        f"mov dword [{TRACE_LEFT}], 40", "mov dx, ss", f"push {TF | 2}", "popf",
        "mov ss, dx", "in al, 0x21", "mov ss, dx", "nop", "mov ss, dx", "smsw bx", "sti",
        "cli", f"invlpg [{DATA}]", "mov eax, 5", "invlpg [eax]", "push 2", "popf",
    ),
    "time": lines(
        "mov ecx, 0x10", "mov eax, 12345", "mov edx, 1", "wrmsr", "rdtsc",
        f"mov [{SCRATCH}], eax", f"mov [{SCRATCH + 4}], edx",
        visit(0, "rdtsc", f"mov [{DATA}], eax"),
    ),
    "time for kernels": lines(
        "mov eax, cr4", f"or eax, {TSD}", "mov cr4, eax", "rdtsc", f"mov [{SCRATCH}], eax",
        visit(0, "rdtsc"),
    ),
    **{
        f"x87 with CR0 {bits:#x}": lines(
            "mov eax, cr0", f"or eax, {bits}", "mov cr0, eax", code,
            visit(0, code),
        )
        for bits, code in ((2 | 8, "db 0x9B"), (8, "db 0x9B"), (4, "db 0xD9, 0xE8"),
                           (8, "db 0xD9, 0xE8"), (0x20, "db 0x9B"))
    },
    "alignment": lines("mov eax, cr0", "or eax, 0x40000", "mov cr0, eax",
                       visit(0x40000, f"mov eax, [{DATA + 1}]")),
    "ports of many bits": lines(
        "mov edx, 0x10021", "mov eax, 0x12345678", "in al, dx", f"mov [{SCRATCH}], eax",
        "mov edx, 0xABCD1234", "db 0x3E, 0xED", f"mov [{SCRATCH + 4}], eax", "in ax, dx",
        f"mov [{SCRATCH + 8}], eax", "mov eax, 0x11223344", "out dx, ax", "db 0x3E, 0xEF",
        "out dx, eax", "in ax, 0x21", "out 0x80, ax",
    ),
    "elements through ports": lines(
        *timer_writes(2, 2), "mov edx, 0x40", f"mov edi, {DATA}", "sti", "mov ecx, 700",
        "rep insb", "mov ecx, 3", "rep insw", "mov ecx, 3", "rep insd", "mov edx, 0x80",
        f"mov esi, {DATA}", "mov ecx, 300", "rep outsb", "mov ecx, 3", "rep outsw",
        "mov ecx, 3", "rep outsd", "cli",
    ),
    "ports in a segment": lines(
        store(GDT + SPARE, descriptor(0x1000, 0xFFFFF, 0x9B)),
        f"jmp {SPARE}:.inside - 0x1000", ".inside:", "in al, 0x21", "mov eax, 7",
        "out 0x80, al", "in al, 0x40", "invlpg [eax]", f"jmp {KCODE}:.outside", ".outside:",
    ),
    "sites in a segment": lines(
        store(GDT + SPARE, descriptor(0x1000, 0xFFFFF, 0x9B)), *timer_writes(2, 2), "mov dx, ss",
        f"jmp {SPARE}:.inside - 0x1000", ".inside: mov ecx, 60", ".again:", "cli", "sti", "nop",
        "pushf", "pop eax", "mov ds, dx", "push 0x202", "popf", "push ds", "pop ds", "mov ss, dx",
        "in al, 0x21", "smsw bx", "dec ecx", "jnz .again", "cli", f"jmp {KCODE}:.outside",
        ".outside:",
    ),
    "sites that are not where their labels say": lines(
        store(GDT + SPARE, descriptor(0, 0xFFFFF, 0x9B)),
        f"mov word [{GDT + SPARE + 2}], .second - .first", f"jmp {SPARE}:.first",
        ".first: smsw bx", ".second: in al, 0x21", f"mov [{SCRATCH}], eax",
        f"jmp {KCODE}:.outside", ".outside:",
    ),
    "a user's steps": lines(
        f"mov dword [{TRACE_LEFT}], 5",
        visit(0, f"push {TF | 2}", "popf", "inc eax", "inc eax", "push 2", "popf"),
    ),
    "NT in ring 3": visit(0, f"push {NT | 2}", "popf", "iret"),
    "breakpoint on a port": lines(
        "mov eax, cr4", "or eax, 8", "mov cr4, eax", "mov eax, 0x80", "mov dr0, eax",
        "mov eax, 0x20402", "mov dr7, eax", "out 0x80, al", "in al, 0x80", "mov dx, 0x80",
        "out dx, al", "mov eax, 0", "mov dr7, eax",
    ),
    "breakpoints everywhere": lines(
        f"mov eax, {DATA}", "mov dr0, eax", f"mov eax, {DATA + 8}", "mov dr1, eax",
        f"mov eax, {DATA + 16}", "mov dr2, eax", f"mov eax, {DATA + 24}", "mov dr3, eax",
        "mov eax, 0xDDDD04AA", "mov dr7, eax", f"mov [{DATA}], eax", f"mov [{DATA + 8}], eax",
        f"mov [{DATA + 16}], eax", f"mov [{DATA + 24}], eax", f"sgdt [{DATA + 6}]",
        f"sidt [{DATA + 14}]", "mov eax, dr6", f"mov [{SCRATCH}], eax", "mov eax, 0",
        "mov dr7, eax",
    ),
    "breakpoint on popped flags": lines(
        f"mov eax, {STACK_TOP - 4}", "mov dr0, eax", "mov eax, 0xF0402", "mov dr7, eax",
        f"mov dword [{TRACE_LEFT}], 3", "push 2", "popf", "nop", "mov eax, 0", "mov dr7, eax",
    ),
    "breakpoint behind MOV SS": lines(
        "mov eax, .there", "mov dr0, eax", "mov eax, 0x402", "mov dr7, eax", "mov dx, ss",
        "mov ss, dx", ".there: nop", "push ss", "pop ss", "nop", "mov eax, 0", "mov dr7, eax",
    ),
    "breakpoint behind a user's MOV SS": lines(
        "mov eax, .there", "mov dr0, eax", "mov eax, 0x402", "mov dr7, eax",
        visit(0, "mov ss, cx", ".there: in al, 0x80", "nop"), "mov eax, 0", "mov dr7, eax",
    ),
    "breakpoint on what SS is loaded from": lines(
        _watched, *(lines(_load_watched, behind) for behind in (
            "nop", "cli", "in al, 0x21", "smsw bx", "pushf", f"int {SOFTWARE}",
            f"mov eax, [{DATA}]",
        )), "mov eax, 0", "mov dr7, eax",
    ),
    "breakpoint on what SS is loaded from, and a fault": lines(
        "jmp .begin", ".skip: add dword [esp], 2", "iret", ".begin:",
        install(".skip", 0x8F, 6), _watched, _load_watched, "ud2", "nop", "mov eax, 0",
        "mov dr7, eax",
    ),
    "breakpoint on what a user's SS is loaded from": lines(
        _watched, visit(0, f"mov dword [{SCRATCH}], {UDATA}", _load_watched, "in al, 0x80",
                        _load_watched, "nop", _load_watched, f"int {SOFTWARE}"),
        "mov eax, 0", "mov dr7, eax",
    ),
    "STI and a trap at every tick": lines(
        "jmp .begin", ".skip: add dword [esp], 2", "iret", ".begin:",
        install(".skip", 0x8F, 6), _ticking, "cli", "sti", "ud2", "nop", "loop .again", "cli",
    ),
    "MOV SS and a trap": lines(
        "jmp .begin", ".skip: add dword [esp], 2", "iret", ".begin:",
        install(".skip", 0x8F, 6), "mov eax, .skip", "mov dr0, eax", "mov eax, 0x402",
        "mov dr7, eax", "mov dx, ss", "mov ss, dx", "ud2", "mov eax, 0", "mov dr7, eax",
    ),
    "flags over an exit": lines(
        *(lines(f"push {bit | 2}", "popf", "in al, 0x21", "smsw bx", "pushf",
                f"pop dword [{SCRATCH + 4 * n}]", f"int {SOFTWARE}")
          for n, bit in enumerate((1, 4, 0x10, 0x40, 0x80, 0x400, 0x800, NT, 0x40000,
                                   0x200000, 0x244ED5))),
        "push 2", "popf",
    ),
}  # fmt: skip


_entry = LOW_TABLES[0] + (DATA >> 12) * 4
_there, _flat = DATA + ALIAS, f"mov eax, {DIRECTORIES[0]}"
_look = lines(f"sgdt [{DATA + 16}]", f"mov eax, [{DATA + 16}]", f"add [{SCRATCH}], eax")
_moved = f"mov dword [{_entry}], {DATA + 0x1000 | P | W | U}"
#: Page tables.
WITH_PAGES: Final = {
    "extensions": lines(
        f"mov dword [{(DATA >> 12) * 4}], {DATA + 0x1000 | 0x67}",
        f"mov dword [{(DATA >> 12) * 4 + 4}], {DATA + 0x5000 | 0x67}",
        enable(0), f"mov dword [{DIRECTORIES[0] + 4}], 0x87", _flat,
        "mov cr3, eax", f"inc dword [{_there}]", "mov eax, cr4", "xor eax, 0x10",
        "mov cr4, eax", f"inc dword [{_there}]", "mov eax, cr4", "xor eax, 0x10",
        "mov cr4, eax", f"inc dword [{_there}]", f"inc dword [{_there + 0x1000}]",
    ),
    "rights above": lines(
        enable(0), f"inc dword [{_there}]", f"inc dword [{_there + 0x1000}]",
        f"mov dword [{DIRECTORIES[0] + 4}], {ALIAS_TABLES[0] | 5}", "mov eax, cr0",
        "or eax, 0x10000", "mov cr0, eax", _flat, "mov cr3, eax", f"mov eax, [{_there}]",
        f"mov [{_there + 0x1000}], eax",
    ),
    "users' rights above": lines(
        enable(0), f"inc dword [{_there}]", f"inc dword [{_there + 0x1000}]",
        f"mov dword [{DIRECTORIES[0] + 4}], {ALIAS_TABLES[0] | 3}", _flat, "mov cr3, eax",
        f"mov eax, [{_there}]", visit(0, f"mov eax, [{_there + 0x1000}]"),
    ),
    "a page that becomes a table": lines(
        enable(0), f"mov dword [{TABLES + 4 * (DATA >> 12)}], {DATA | 0x67}",
        f"mov dword [{DIRECTORIES[0] + 4}], {TABLES | 7}", _flat, "mov cr3, eax",
        f"mov eax, [{_there}]", f"mov dword [{TABLES + 4 * (DATA >> 12)}], {DATA + 0x1000 | 7}",
        f"invlpg [{_there}]", f"inc dword [{_there}]",
    ),
    "code at the top": lines(
        f"mov byte [{DATA}], 0xC3", enable(0), f"mov eax, {TOP}", "call eax",
    ),
    "top of memory in a segment": lines(
        store(GDT + SPARE, descriptor(0x1000, 0xFFFFF, 0x93)), enable(0), f"mov eax, {SPARE}",
        "mov fs, ax", f"mov eax, [fs:{TOP + 0x10}]", f"mov [{SCRATCH}], eax",
    ),
    "stacks in all of linear space": lines(
        "mov ebx, 0x400", "mov ecx, 1020", ".again: mov esp, ebx", "pushf",
        "add ebx, 0x400000", "loop .again", f"mov esp, {STACK_TOP}",
    ),
    "IRET of a missing page": lines(
        "jmp .begin", f".mend: or byte [{_entry + 16}], {P}", "add esp, 4", "iret", ".begin:",
        f"mov dword [{DATA + 0x3FFC}], .back", f"mov dword [{DATA + 0x4000}], {KCODE}",
        f"mov dword [{DATA + 0x4004}], 2", f"or byte [{_entry + 12}], {W}", enable(0),
        install(".mend", 0x8E, 14), f"mov esp, {DATA + 0x3FFC}", "mov eax, 0x12345678", "iret",
        ".back:", f"mov [{SCRATCH}], eax", f"mov esp, {STACK_TOP}",
    ),
    "IRET to nowhere": lines(
        f"push {UDATA}", f"push {USER_STACK_TOP}", f"push {IF | 2}", "push 0x93", "push 0",
        "mov eax, 0x87654321", "stc", "iret",
    ),
    "a user's hypercall": visit(IF, "mov eax, 0", "int 0x82"),
    "stepped sites": lines(
        f"mov dword [{TRACE_LEFT}], 60", f"push {TF | 2}", "popf", "pushf", "pop eax", "cli",
        "sti", "cli", "mov dx, ds", "push ds", "pop ds", "mov ds, dx", "push 2", "popf",
    ),
    "INVLPG by a register": lines(enable(0), _look, _moved, f"mov eax, {DATA}", "invlpg [eax]",
                                  _look),
    "INVLPG in a segment": lines(
        enable(0), _look, _moved, f"mov eax, {WINDOW}", "mov ds, ax", "mov eax, 0",
        "invlpg [eax]", f"mov eax, {KDATA}", "mov ds, ax", _look,
    ),
    "INVLPG by a null selector": lines(
        enable(0), "mov eax, 0", "mov ds, ax", "invlpg [eax]",
    ),
    "INVLPG in an expand-down segment": lines(
        enable(0), "mov eax, 0x60", "mov ds, ax", f"mov eax, {DATA}", "invlpg [eax]",
        "mov eax, 0", "invlpg [eax]",
    ),
    "WP=0": lines(
        enable(0), "mov eax, cr0", "and eax, ~0x10000", "mov cr0, eax",
        f"mov eax, [{DATA + 0x3000}]", f"mov [{DATA + 0x3000}], eax",
        f"mov [{DATA + 0x3004}], eax", visit(0, f"mov eax, [{DATA + 0x3000}]",
                                             f"mov ecx, [{DATA + 0x3008}]"),
        f"mov [{DATA + 0x3008}], eax",
        "mov eax, cr0", "or eax, 0x10000", "mov cr0, eax", f"mov [{DATA + 0x3008}], eax",
    ),
    "WP=0 and a user": lines(
        enable(0), "mov eax, cr0", "and eax, ~0x10000", "mov cr0, eax",
        f"mov [{DATA + 0x3000}], eax", visit(0, f"mov eax, [{DATA + 0x3000}]",
                                             f"mov [{DATA + 0x3000}], eax"),
    ),
    "dirty in large pages": lines(
        enable(2), f"mov dword [{DIRECTORIES[2] + 4}], 0x87",
        f"mov dword [{DIRECTORIES[2] + 8}], 0x87",
        "mov eax, cr3", "mov cr3, eax", f"mov eax, [{_there}]",
        f"mov [{_there}], eax", f"mov [{_there + 0x1000}], eax",
        f"mov eax, [{DATA + 2 * ALIAS}]", f"mov [{DATA + 0x1000 + 2 * ALIAS}], eax",
        f"mov eax, [{DIRECTORIES[2] + 8}]", f"mov [{SCRATCH}], eax",
    ),
    "top of memory by the stack": lines(
        enable(0), f"mov eax, [ss:{TOP + 0x80010}]",
        f"inc dword [ss:{TOP + 0x80014}]", f"mov esp, {TOP + 0x81000}",
        "push eax", "push 5", "pop ecx",
    ),
    "all of linear space": lines(
        "mov ebx, 0", "mov ecx, 1020", ".again: mov eax, [ebx]", "add ebx, 0x400000",
        "loop .again", f"inc dword [{DATA}]", enable(0), f"inc dword [{DATA}]",
    ),
    "POPF of a missing page": lines(
        "jmp .begin", f".mend: or byte [{_entry + 16}], {P}", "add esp, 4", "iret", ".begin:",
        f"mov dword [{DATA + 0x4000}], 0xAD7", f"or byte [{_entry + 12}], {W}", enable(0),
        install(".mend", 0x8E, 14), f"mov esp, {DATA + 0x4000}", "popf",
        f"mov esp, {STACK_TOP}", "pushf", f"pop dword [{SCRATCH}]",
    ),
    "POPF of a missing page, in a segment": lines(
        "jmp .begin", f".mend: or byte [{_entry + 16}], {P}", "add esp, 4", "iret", ".begin:",
        store(GDT + SPARE, descriptor(0x1000, 0xFFFFF, 0x9B)),
        f"mov dword [{DATA + 0x4000}], 0xAD7", f"or byte [{_entry + 12}], {W}", enable(0),
        install(".mend", 0x8E, 14),
        f"jmp {SPARE}:.inside - 0x1000", f".inside: mov esp, {DATA + 0x4000}", "popf",
        f"mov esp, {STACK_TOP}", "pushf", f"pop dword [{SCRATCH}]", "push 2", "popf",
        f"jmp {KCODE}:.outside", ".outside:",
    ),
    "an absent page that was accessed": lines(
        f"or byte [{_entry + 16}], {A}", enable(0), f"mov eax, [{DATA + 0x3000}]",
        f"mov eax, [{DATA + 0x4000}]",
    ),
    "a large page again": lines(
        enable(2), f"mov [{_there}], eax", f"mov [{_there + 0x1000}], eax",
        f"mov dword [{DIRECTORIES[2] + 4}], 0x87", f"invlpg [{_there}]", f"mov eax, [{_there}]",
        f"mov [{_there + 0x1000}], eax",
    ),
    "a large page changed while away": lines(
        enable(2), f"mov [{_there}], eax", f"mov [{_there + 0x1000}], eax",
        f"mov eax, {DIRECTORIES[0]}", "mov cr3, eax", f"mov dword [{DIRECTORIES[2] + 4}], 0x87",
        f"mov eax, {DIRECTORIES[2]}", "mov cr3, eax", f"mov eax, [{_there}]",
        f"mov [{_there + 0x1000}], eax",
    ),
    "accessed again": lines(
        f"mov dword [{DIRECTORIES[0] + 8}], {TOP_TABLE | P | W | U}", enable(0),
        f"mov eax, [{DATA}]", f"and byte [{_entry}], {~A & 0xFF}", f"invlpg [{DATA}]",
        f"mov eax, [{DATA}]", f"mov eax, [{2 * ALIAS}]",
        f"and byte [{DIRECTORIES[0] + 8}], {~A & 0xFF}", "mov eax, cr3", "mov cr3, eax",
        f"mov eax, [{2 * ALIAS}]",
    ),
    "many large pages": lines(
        f"mov edi, {DIRECTORIES[2] + 4}", f"mov eax, {LARGE | P | W | U}", "mov ecx, 1018",
        "rep stosd", enable(2), "mov ebx, 0", "mov ecx, 1019", ".again: mov eax, [ebx]",
        "add ebx, 0x400000", "loop .again",
    ),
    "changed while away, for a user": lines(
        enable(0), visit(0, f"mov eax, [{_there}]"), f"mov eax, {DIRECTORIES[1]}",
        "mov cr3, eax",
        f"mov dword [{ALIAS_TABLES[0] + 4 * (DATA >> 12)}], {DATA + 0x1000 | P | W | U}",
        f"mov eax, {DIRECTORIES[0]}", "mov cr3, eax", visit(0, f"mov eax, [{_there}]"),
    ),
    "a table of another space": lines(
        f"mov dword [{DIRECTORIES[1] + 8}], {TOP_TABLE | P | W | U}", enable(0),
        f"mov eax, [{ALIAS + GDT + 8}]", f"mov ebx, {DIRECTORIES[1]}",
        f"mov eax, {DIRECTORIES[0]}", "mov cr3, ebx", f"or byte [{ALIAS_TABLES[0]}], {A}",
        f"mov ecx, [{2 * ALIAS + GDT + 8}]", "mov cr3, eax", f"mov edx, [{ALIAS + GDT + 8}]",
        f"mov [{SCRATCH}], edx",
    ),
    "a table of a space that has gone": lines(
        enable(0), f"mov eax, [{_there}]", f"mov eax, {DIRECTORIES[1]}", "mov cr3, eax",
        f"mov dword [{DIRECTORIES[0] + 16}], {TOP_TABLE | P}", f"mov eax, {DIRECTORIES[2]}",
        "mov cr3, eax", f"mov eax, [{_there}]", f"or byte [{ALIAS_TABLES[0]}], {A}",
        f"mov eax, [{_there}]",
    ),
    "a reserved bit": lines(
        enable(0), f"mov eax, [{DATA + ALIAS}]", f"or dword [{_entry + 8}], 0xA0",
        f"or dword [{_entry + 4}], 0xA0", "mov eax, cr3", "mov cr3, eax",
        f"mov eax, [{DATA}]", f"mov eax, [{DATA + 0x1000}]",
    ),
}  # fmt: skip


#: Assembly by name.
KERNELS: Final[dict[str, str]] = {
    **WITH_GATES, **WITH_DESCRIPTORS, **WITH_STATE, **WITH_PAGES
}  # fmt: skip


@dataclass(frozen=True)
class WrittenKernel(KernelGuest):
    """A guest of one step, by the name of its code."""

    name: str = ""

    @cached_property
    def steps_source(self) -> str:
        return (
            f"step_0:\nmov dword [{RECOVER}], step_1\nmov dword [{LEFT}], .finished\n"
            f"{KERNELS[self.name]}\n\n.finished: nop\n"
            "step_1:\nmov al, 1\nout 0xF4, al\ncli\nhlt\n"
        )

    def __str__(self) -> str:
        return self.name


def written_kernel(name: str) -> WrittenKernel:
    """The kernel of that name; KeyError if there is none."""
    assert name in KERNELS
    return WrittenKernel((), name)
