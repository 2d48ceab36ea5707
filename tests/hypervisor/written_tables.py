"""Kernels written by hand: pass-through gates, and descriptor tables that change.

What the generated ones hardly ever do. Each is one step for the world of generated kernels
(kernel_world.py): it begins in ring 0 with paging off and the kernel's own segments. A fault ends
it. Read written_kernels.py next.
"""

from __future__ import annotations

from typing import Final

from hypervisor import monitor
from tests.hypervisor.kernel_steps import IF, IOPL_3, LEAVE_RING_3, RING_3, lines
from tests.hypervisor.kernel_world import (
    ALIAS,
    ALIAS_TABLES,
    CONFORMING,
    DATA,
    DIRECTORIES,
    EXPAND_DOWN,
    GDT,
    IDT,
    KCODE,
    KDATA,
    LDT,
    LDT_SPARE,
    LEAVE,
    LEFT,
    LOW_TABLES,
    SCRATCH,
    SOFTWARE,
    SPARE,
    STACK_TOP,
    TOP,
    TSS,
    TSS_AT,
    UCODE,
    UDATA,
    USER_STACK_TOP,
    P,
    U,
    W,
    descriptor,
)  # fmt: skip

GATE: Final = SOFTWARE + 12  #: the vector that the kernels below make theirs
#: Room for tables of theirs, in pages that nothing else uses.
TABLES: Final = 0x130000
PG, RF, NT, TSD, TF = 0x80000000, 0x10000, 0x4000, 4, 0x100
A: Final = 0x20  #: of a page-table entry: accessed


def out(flags: int) -> str:
    """To the line that follows, in ring 3, with the kernel's handler of LEAVE going on behind."""
    return lines(
        f"push {UDATA}", f"push {USER_STACK_TOP}", f"push {flags | 2}", f"push {UCODE}",
        "push .ring_3", "iret", RING_3, f"mov ecx, {UDATA}", "mov ds, cx", "mov es, cx",
    )  # fmt: skip


def visit(flags: int, *code: str) -> str:
    """Some code in ring 3, and on with the kernel behind it."""
    visit.number += 1  # type: ignore[attr-defined]
    label = f".visit_{visit.number}"  # type: ignore[attr-defined]
    text = lines(f"mov dword [{LEFT}], {label}", out(flags), *code, LEAVE_RING_3, f"{label}:")
    return text.replace(".ring_3", f"{label}_ring_3") + f"\nmov dword [{LEFT}], .finished"


visit.number = 0  # type: ignore[attr-defined]


def install(handler: str, access: int = 0xEF, vector: int = GATE, selector: int = KCODE) -> str:
    """A gate to a label."""
    at = IDT + 8 * vector
    return lines(
        f"mov eax, {handler}",
        f"mov [{at}], ax",
        f"mov word [{at + 2}], {selector}",
        f"mov ax, {access << 8}",
        f"mov [{at + 4}], eax",
    )


def enable(space: int) -> str:
    return lines(f"mov eax, {DIRECTORIES[space]}", "mov cr3, eax", "mov eax, cr0",
                 f"or eax, {PG}", "mov cr0, eax")  # fmt: skip


def store(at: int, new: int) -> str:
    return lines(f"mov dword [{at}], {new & 0xFFFFFFFF}", f"mov dword [{at + 4}], {new >> 32}")


#: A handler in the way of no one, to be jumped over.
HANDLERS: Final = lines(
    "jmp .begin",
    f".first: pushf\npop dword [ss:{SCRATCH}]\nstr [ss:{SCRATCH + 4}]\niret",
    f".second: mov dword [ss:{SCRATCH + 8}], 2\niret",
    f"%pragma seventeen user\n.third: mov dword [ss:{SCRATCH + 8}], 3\niret",
    "%pragma seventeen kernel",
    ".begin:",
)
CALLS: Final = (f"int {GATE}", "nop", f"int {GATE}")
OPEN: Final = lines(HANDLERS, install(".first"), visit(IF, *CALLS))


def copy(source: int, to: int, size: int) -> str:
    return lines(f"mov esi, {source}", f"mov edi, {to}", f"mov ecx, {size}", "rep movsb")


def pointer(limit: int, base: int) -> str:
    return lines(f"mov word [{SCRATCH + 32}], {limit}", f"mov dword [{SCRATCH + 34}], {base}")


#: Pass-through gates, and what must close them.
WITH_GATES: Final = {
    "gate": OPEN,
    "gate, IF=0": lines(HANDLERS, install(".first"), visit(0, *CALLS)),
    "gate, IOPL=3": lines(HANDLERS, install(".first"), visit(IF | IOPL_3, *CALLS)),
    "gate, then IF=0": lines(OPEN, visit(0, *CALLS)),
    "gate, then IOPL=3": lines(OPEN, visit(IF | IOPL_3, *CALLS)),
    "gate for interrupts": lines(HANDLERS, install(".first", 0xEE), visit(IF, *CALLS)),
    "gate for kernels": lines(HANDLERS, install(".first", 0x8F), visit(IF, *CALLS)),
    "gate not present": lines(HANDLERS, install(".first", 0x6F), visit(IF, *CALLS)),
    "gate of a call": lines(HANDLERS, install(".first", 0xEC), visit(IF, *CALLS)),
    "gate to a user": lines(HANDLERS, install(".third", selector=UCODE), visit(IF, *CALLS)),
    "gate to conforming code": lines(
        HANDLERS, install(".third", selector=CONFORMING), visit(IF, *CALLS)
    ),
    "gate to data": lines(HANDLERS, install(".first", selector=KDATA), visit(IF, *CALLS)),
    "gate to ring 1": lines(
        HANDLERS,
        store(GDT + SPARE, descriptor(0, 0xFFFFF, 0xBB)),
        install(".first", selector=SPARE),
        visit(IF, *CALLS),
    ),
    "gate changed": lines(OPEN, install(".second"), visit(IF, *CALLS)),
    "gate changed in an alias": lines(
        OPEN, enable(0), f"mov byte [{IDT + 8 * GATE + 5 + ALIAS}], 0x6F", visit(IF, *CALLS)
    ),
    "gate changed by ring 3": lines(
        enable(0),
        f"or byte [{LOW_TABLES[0] + (IDT >> 12) * 4}], {U}",
        OPEN,
        visit(IF, f"mov byte [{IDT + 8 * GATE + 5}], 0x6F", *CALLS),
    ),
    "gate refused, then right": lines(
        HANDLERS,
        install(".first", 0x6F),
        visit(IF, f"int {GATE - 1}", "nop"),
        install(".first"),
        visit(IF, *CALLS),
    ),
    "gate of a page fault": lines(
        HANDLERS,
        install(".first", vector=14),
        visit(IF, "int 14", "mov eax, [0x1A0000]", "mov eax, [0x700000]"),
    ),
    "stack changed": lines(OPEN, f"sub dword [{TSS + 4}], 64", visit(IF, *CALLS)),
    "stack selector changed": lines(OPEN, f"mov word [{TSS + 8}], {KDATA | 3}", visit(IF, *CALLS)),
    "stack selector of ring 1": lines(
        OPEN, f"mov word [{TSS + 8}], {KDATA | 1}", visit(IF, *CALLS)
    ),
    "stack selector null": lines(OPEN, f"mov word [{TSS + 8}], 0", visit(IF, *CALLS)),
    "other IDT": lines(
        OPEN,
        copy(IDT, TABLES, 0x240),
        pointer(0x23F, TABLES),
        f"mov byte [{TABLES + 8 * GATE + 5}], 0x6F",
        f"lidt [{SCRATCH + 32}]",
        visit(IF, *CALLS),
    ),
    "IDT in a page of its own": lines(
        HANDLERS,
        install(".first"),
        copy(IDT, TABLES, 0x240),
        pointer(0x23F, TABLES),
        f"lidt [{SCRATCH + 32}]",
        visit(IF, *CALLS),
        f"mov byte [{TABLES + 8 * GATE + 5}], 0x6F",
        visit(IF, *CALLS),
    ),
    "IDT in the same page": lines(
        OPEN,
        copy(IDT, IDT + 0x400, 0x240),
        pointer(0x23F, IDT + 0x400),
        f"mov byte [{IDT + 0x400 + 8 * GATE + 5}], 0x6F",
        f"lidt [{SCRATCH + 32}]",
        visit(IF, *CALLS),
    ),
    "TSS in the same page": lines(
        OPEN,
        copy(TSS, TSS + 0x400, 0x91),
        f"sub dword [{TSS + 0x404}], 128",
        f"mov word [{GDT + TSS_AT + 2}], {TSS + 0x400 & 0xFFFF}",
        f"mov byte [{GDT + TSS_AT + 5}], 0x89",
        f"mov eax, {TSS_AT}",
        "ltr ax",
        visit(IF, *CALLS),
    ),
    "shorter IDT": lines(
        OPEN,
        copy(IDT + 8 * LEAVE, IDT + 8 * 0x22, 8),
        pointer(8 * GATE - 1, IDT),
        f"lidt [{SCRATCH + 32}]",
        visit(IF, *CALLS).replace(f"int {LEAVE}", "int 0x22"),
    ),
    "IDT across pages": lines(
        HANDLERS,
        install(".first"),
        copy(IDT, TABLES + 0x1000 - 8 * GATE - 4, 0x240),
        pointer(0x23F, TABLES + 0x1000 - 8 * GATE - 4),
        f"lidt [{SCRATCH + 32}]",
        visit(IF, *CALLS),
        f"mov byte [{TABLES + 0x1001}], 0x6F",
        visit(IF, *CALLS),
    ),
    "other TSS": lines(
        OPEN,
        copy(TSS, TABLES, 0x91),
        f"sub dword [{TABLES + 4}], 128",
        f"mov dword [{GDT + TSS_AT + 2}], {0x89000000 | TABLES}",
        f"mov eax, {TSS_AT}",
        "ltr ax",
        visit(IF, *CALLS),
    ),
    "shorter TSS": lines(
        OPEN,
        f"mov word [{GDT + TSS_AT}], 7",
        f"mov byte [{GDT + TSS_AT + 5}], 0x89",
        f"mov eax, {TSS_AT}",
        "ltr ax",
        visit(IF, *CALLS),
    ),
    "IDT elsewhere": lines(
        enable(0),
        OPEN,
        copy(IDT & ~0xFFF, TABLES, 0x1000),
        f"mov byte [{TABLES + (IDT & 0xFFF) + 8 * GATE + 5}], 0x6F",
        f"mov dword [{LOW_TABLES[1] + (IDT >> 12) * 4}], {TABLES | 3}",
        f"mov eax, {DIRECTORIES[1]}",
        "mov cr3, eax",
        visit(IF, *CALLS),
    ),
    "TSS elsewhere": lines(
        enable(0),
        OPEN,
        copy(TSS & ~0xFFF, TABLES, 0x1000),
        f"sub dword [{TABLES + (TSS & 0xFFF) + 4}], 128",
        f"mov dword [{LOW_TABLES[1] + (TSS >> 12) * 4}], {TABLES | 3}",
        f"mov eax, {DIRECTORIES[1]}",
        "mov cr3, eax",
        visit(IF, *CALLS),
    ),
    "many events": lines(
        HANDLERS,
        install(".second"),
        visit(IF, "mov ecx, 2100", ".again:", f"int {GATE}", "loop .again"),
    ),
}


def question(selector: int) -> str:
    """Load FS by every way, and see what it reaches; in ring 0 and ring 3."""
    load = (f"mov ecx, {selector}", "mov fs, cx", "mov eax, [fs:8]", f"add [{SCRATCH + 16}], eax")
    return lines(*load, *load, visit(0, *load[:3], f"add [{DATA}], eax", *load[:3]))


def load(selector: int, to: int) -> str:
    """Load FS, and keep what it reaches."""
    return lines(f"mov ecx, {selector | 3}", "mov fs, cx", "mov eax, [fs:8]",
                 f"mov [{SCRATCH + to}], eax")  # fmt: skip


def spare(base: int, limit: int = 0xFFF, access: int = 0xF3) -> int:
    return descriptor(base, limit, access, 4)


_ready = lines(store(GDT + SPARE, spare(DATA)), question(SPARE | 3))
_local = lines(store(LDT + (LDT_SPARE & ~7), spare(DATA)), question(LDT_SPARE | 3))
_other = lines(copy(GDT, TABLES, 0x88), store(TABLES + SPARE, spare(DATA + 0x1010)))
_table = lines(f"mov eax, {SPARE}", "lldt ax", question(LDT_SPARE | 3))


def _at(base: int) -> str:
    return store(TABLES + (LDT_SPARE & ~7), spare(base))


#: Descriptor tables that change under loaded and loadable segments.
WITH_DESCRIPTORS: Final = {
    "other GDT": lines(
        _ready, _other, pointer(0x87, TABLES), f"lgdt [{SCRATCH + 32}]", question(SPARE | 3)
    ),
    "shorter GDT": lines(
        _ready, pointer(SPARE - 1, GDT), f"lgdt [{SCRATCH + 32}]", question(SPARE | 3)
    ),
    "other LDT": lines(
        _local,
        copy(LDT, TABLES, 0x20),
        store(TABLES + (LDT_SPARE & ~7), spare(DATA + 0x1010)),
        store(GDT + SPARE, descriptor(TABLES, 0x1F, 0x82, 0)),
        _table,
    ),
    "shorter LDT": lines(_local, store(GDT + SPARE, descriptor(LDT, 0xF, 0x82, 0)), _table),
    "no LDT": lines(_local, "mov eax, 0", "lldt ax", question(LDT_SPARE | 3)),
    "GDT elsewhere": lines(
        enable(0),
        _ready,
        copy(GDT & ~0xFFF, TABLES, 0x1000),
        store(TABLES + SPARE, spare(DATA + 0x1010)),
        f"mov dword [{LOW_TABLES[1] + (GDT >> 12) * 4}], {TABLES | 3}",
        f"mov eax, {DIRECTORIES[1]}",
        "mov cr3, eax",
        question(SPARE | 3),
    ),
    "GDT changed": lines(
        _ready, store(GDT + SPARE, spare(DATA + 0x1010)), question(SPARE | 3)
    ),
    "GDT changed in an alias": lines(
        enable(0), _ready, store(GDT + SPARE + ALIAS, spare(DATA + 0x1010)), question(SPARE | 3)
    ),
    "GDT moved": lines(
        enable(0),
        _ready,
        copy(GDT & ~0xFFF, TABLES, 0x1000),
        store(TABLES + SPARE, spare(DATA + 0x1010)),
        f"mov dword [{LOW_TABLES[0] + (GDT >> 12) * 4}], {TABLES | 3}",
        f"invlpg [{GDT}]",
        question(SPARE | 3),
    ),
    "GDT written through the TLB": lines(
        _other,
        pointer(0x87, TABLES),
        f"lgdt [{SCRATCH + 32}]",
        f"mov eax, [{DATA}]",
        f"mov eax, [{DATA + 0x1000}]",
        store(TABLES + SPARE, spare(DATA + 0x1010)),
        load(SPARE, 16),
        store(TABLES + SPARE, spare(DATA)),
        load(SPARE, 20),
    ),
    "LDT written through a user's TLB": lines(
        store(GDT + SPARE, descriptor(TABLES, 0x1F, 0x82, 0)),
        f"mov eax, {SPARE}",
        "lldt ax",
        visit(0, f"mov eax, [{DATA}]", f"mov eax, [{DATA + 0x1000}]", _at(DATA + 0x1010),
              load(LDT_SPARE, 16), _at(DATA), load(LDT_SPARE, 20)),
    ),
    "GDT changed when all shadows have gone": lines(
        _ready,
        "mov ebx, 0", "mov ecx, 1020", ".again: mov eax, [ebx]", "add ebx, 0x400000",
        "loop .again",
        store(GDT + SPARE, spare(DATA + 0x1010)),
        question(SPARE | 3),
    ),
    "writable no more, then a GDT": lines(
        enable(0),
        _other,
        f"mov dword [{LOW_TABLES[0] + (TABLES >> 12) * 4}], {TABLES | P | A}",
        f"invlpg [{TABLES}]",
        pointer(0x87, TABLES),
        f"lgdt [{SCRATCH + 32}]",
        load(SPARE, 16),
    ),
    "made read-only by a user, then a GDT": lines(
        f"mov dword [{DIRECTORIES[0] + 8}], {LOW_TABLES[0] | P | W | U}",
        f"mov dword [{LOW_TABLES[0] + (TABLES >> 12) * 4}], {TABLES | P | U}",
        enable(0),
        "mov eax, cr0", "and eax, ~0x10000", "mov cr0, eax",
        copy(GDT, 2 * ALIAS + TABLES, 0x88),
        store(2 * ALIAS + TABLES + SPARE, spare(DATA)),
        f"mov eax, [{DATA}]",
        f"mov eax, [{DATA + 0x1000}]",
        visit(0, f"mov eax, [{TABLES}]"),
        pointer(0x87, TABLES),
        f"lgdt [{SCRATCH + 32}]",
        load(SPARE, 16),
        store(2 * ALIAS + TABLES + SPARE, spare(DATA + 0x1010)),
        load(SPARE, 20),
    ),
    "written by a space that has gone, then a GDT": lines(
        enable(0),
        copy(GDT, ALIAS + 0x1000, 0x88),
        f"mov eax, {DIRECTORIES[1]}",
        "mov cr3, eax",
        f"or byte [{ALIAS_TABLES[0]}], {A}",
        f"mov eax, {DIRECTORIES[2]}",
        "mov cr3, eax",
        f"mov eax, [{ALIAS + DATA}]",
        pointer(0x87, 0x1000),
        f"lgdt [{SCRATCH + 32}]",
        load(UDATA, 16),
        load(UDATA, 20),
        f"mov eax, [{ALIAS + DATA}]",
    ),
    "expand-down segment at the top": lines(
        enable(0), f"mov ecx, {EXPAND_DOWN}", "mov fs, cx", f"mov eax, [fs:{monitor.LDT + 16}]"
    ),
    "segment that is cut within a page": lines(
        store(GDT + SPARE, descriptor(TOP - 0x800, 0xFFFF, 0x93)),
        enable(0),
        f"mov ecx, {SPARE}", "mov fs, cx", "mov eax, [fs:0x810]", f"mov [{SCRATCH + 16}], eax",
    ),
    "not accessed": lines(
        store(GDT + SPARE, spare(DATA, access=0xF2)), question(SPARE | 3)
    ),
    "absent": lines(store(GDT + SPARE, spare(DATA, access=0x73)), question(SPARE | 3)),
    "no memory": lines(store(GDT + SPARE, spare(DATA, access=0xE3)), question(SPARE | 3)),
    **{
        f"{register} {what} over an exit": lines(
            store(GDT + SPARE, spare(DATA, 0x1F, 0xF1)),
            visit(0, f"mov ecx, {SPARE | 3}", f"mov {register}, cx", "in al, 0x80",
                  f"mov eax, [{register}:8]", "mov ebx, eax", use.format(register)),
        )
        for register in ("es", "fs", "gs")
        for what, use in (("limit", "mov eax, [{}:0x20]"), ("rights", "mov [{}:8], eax"))
    },
    "a user's stack": lines(
        store(GDT + SPARE, descriptor(DATA, 0xFFF, 0xF3, 0)),
        visit(0, f"mov ecx, {SPARE | 3}", "mov ss, cx", "mov esp, 0x10800", "in al, 0x80",
              "push eax", "in al, 0x80", "mov esp, 0x1800", "push eax"),
    ),
    "a user's code": lines(
        store(GDT + SPARE, descriptor(0x1000, 0x101, 0xF9)),
        visit(0, f"jmp {SPARE | 3}:.inside - 0x1000", ".inside:", "in al, 0x80", "mov ebx, 1",
              "in al, 0x80", "mov eax, [cs:0x100000]"),
    ),
    "a user's short code": lines(
        store(GDT + SPARE, descriptor(0x1000, 0x101, 0xFB)),
        visit(0, f"jmp {SPARE | 3}:.inside - 0x1000", ".inside:", "in al, 0x80", "mov ebx, 1",
              "in al, 0x80", f"mov eax, [cs:{DATA}]"),
    ),
    "stack of its own": lines(
        store(GDT + SPARE, spare(DATA, 0x2FFF, 0x93)),
        f"mov eax, {SPARE}", "mov ss, ax", "mov esp, 0x800", "push eax", "pushf", "sti", "cli",
        "mov fs, cx", "popf", "pop ecx",
        f"mov eax, {KDATA}", "mov ss, ax", f"mov esp, {STACK_TOP}",
    ),
}  # fmt: skip
