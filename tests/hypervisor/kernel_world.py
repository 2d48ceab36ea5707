"""The fixed part of every generated kernel: where things lie, its tables, and its handlers.

A generated guest (kernel_guests.py) is a real program: it starts in ring 0 with paging off, loads
its tables, and runs its steps (kernel_steps.py) one after another. Every vector has a stub. The
common handler writes CR2, vector, error code and frame into a log; then it returns (traps,
interrupts, INT n), or leaves what was interrupted and goes on where `RECOVER` points: at the next
step. So a fault ends a step, never the guest. Vector LEAVE is how ring 3 says that it is done: the
step goes on where `LEFT` points.

Code is assembled; tables are bytes beside it. `times` keeps the steps at a fixed address, so that
they can be assembled alone, which is what makes thousands of guests cheap. All addresses are
guest-physical, and below 2 MiB the same as linear ones, in whatever address space.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from typing import Final

RAM: Final = "2M"
CODE, STEPS = 0x100000, 0x102000
STEPS_END: Final = 0x110000
GDT, LDT, IDT = 0x110000, 0x110200, 0x110800
TSS: Final = 0x111000
#: Page directories of three address spaces: the plain one, one with data pages and aliases in
#: another order, and one of 4 MiB pages.
DIRECTORIES: Final = (0x112000, 0x113000, 0x114000)
LOW_TABLES: Final = (0x115000, 0x116000)
ALIAS_TABLES: Final = (0x117000, 0x118000)
TOP_TABLE: Final = 0x119000
VARIABLES, LOG = 0x11A000, 0x11B000
STACK_TOP, RING_0_TOP, USER_STACK_TOP = 0x11D000, 0x11E000, 0x11F000
#: Six pages: writable, writable, the kernel's, read-only, not present, writable.
DATA: Final = 0x120000
DATA_PAGES: Final = 6
MEMORY_END: Final = 0x200000

ALIAS: Final = 0x400000  #: linear; with paging on, the low 2 MiB once more
TOP: Final = 0xFFC00000  #: linear; with paging on, the data pages over and over

#: Where a fault leads, and where the vector LEAVE does.
RECOVER, LEFT = VARIABLES, VARIABLES + 4
LOG_POINTER, TRACE_LEFT = VARIABLES + 8, VARIABLES + 12
GDT_POINTER, IDT_POINTER, SHORT_POINTER = VARIABLES + 16, VARIABLES + 24, VARIABLES + 32
DONE: Final = VARIABLES + 0x100  #: a counter for each feature: its steps that ran to their end
SCRATCH: Final = VARIABLES + 0x400  #: where steps keep what they saw

#: Selectors: the kernel's, the user's (RPL 3), and what else the tables hold.
KCODE, KDATA, UCODE, UDATA, TSS_AT, LDT_AT = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30
CALL_GATE, CONFORMING, SPARE, SPARE_GATE, WINDOW, EXPAND_DOWN = 0x38, 0x40, 0x48, 0x50, 0x58, 0x60
READ_ONLY, ABSENT, EXECUTE_ONLY, RING_1_DATA = 0x68, 0x70, 0x78, 0x80
LDT_DATA, LDT_CODE, LDT_ABSENT, LDT_SPARE = 0x07, 0x0F, 0x14, 0x1C

VECTORS: Final = 0x48
HAS_ERROR: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
TIMER, SOFTWARE, LEAVE = 0x20, 0x30, 0x40  #: vectors; 0x30-0x3F return, LEAVE does not
#: Trap gates for ring 3, which a hypervisor may let the hardware use.
TRAP_GATES: Final = range(SOFTWARE + 4, SOFTWARE + 8)
USER_PORTS: Final = (0x80, 0xE9)  #: what the I/O bitmap lets ring 3 use

P, W, U, LARGE = 1, 2, 4, 0x80

_HANDLER: Final = f"""
common:
    pusha
    push ds
    push es
    mov eax, {KDATA}
    mov ds, ax
    mov es, ax
    cld
    mov edi, [{LOG_POINTER}]
    mov eax, cr2
    stosd
    mov eax, [esp + 40]
    stosd
    mov eax, [esp + 44]
    stosd
    mov eax, [esp + 48]
    stosd
    mov eax, [esp + 52]
    stosd
    mov eax, [esp + 56]
    stosd
    cmp edi, {LOG + 0x1000 - 24}
    jb handler_room
    mov edi, {LOG}
handler_room:
    mov [{LOG_POINTER}], edi
    mov eax, [esp + 40]
    cmp eax, 1
    je handler_trace
    cmp eax, 3
    je handler_return
    cmp eax, 4
    je handler_return
    cmp eax, {TIMER}
    jb recover
    cmp eax, {SOFTWARE}
    jb handler_interrupt
    cmp eax, {LEAVE}
    jb handler_return
    ja recover
    mov eax, {KDATA}
    mov ss, ax
    mov esp, {STACK_TOP}
    push 2
    popf
    jmp [{LEFT}]
recover:
    mov eax, {KDATA}
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, {STACK_TOP}
    push 2
    popf
    jmp [{RECOVER}]
handler_interrupt:
    mov al, 0x20
    out 0x20, al
    jmp handler_return
handler_trace:
    or dword [esp + 56], 0x10000
    dec dword [{TRACE_LEFT}]
    jns handler_return
    and dword [esp + 56], ~0x100
handler_return:
    pop es
    pop ds
    popa
    add esp, 8
    iret
"""

#: At STEPS the first step follows.
PROLOGUE: Final = (
    f"""bits 32
org {CODE}
_start:
    lgdt [{GDT_POINTER}]
    lidt [{IDT_POINTER}]
    jmp {KCODE}:.loaded
.loaded:
    mov eax, {KDATA}
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, {STACK_TOP}
    mov eax, {TSS_AT}
    ltr ax
    mov eax, {LDT_AT}
    lldt ax
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    jmp {STEPS}
gate_entry:
    mov eax, cs
    retf
align 16
stubs:
"""
    + "".join(
        ("" if vector in HAS_ERROR else "push 0\n") + f"push {vector}\njmp common\nalign 16\n"
        for vector in range(VECTORS)
    )
    + _HANDLER
    + f"times {STEPS - CODE}-($-$$) nop\n"
)


def descriptor(base: int, limit: int, access: int, flags: int = 0xC) -> int:
    """The 64 bits of a segment descriptor. flags: granularity 8, big 4."""
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | flags << 52
        | (base >> 24) << 56
    )


def gate(selector: int, offset: int, access: int, count: int = 0) -> int:
    """The 64 bits of a gate; access 0x8E is an interrupt gate, 0x8F a trap gate, 0x8C a call gate,
    of DPL 0; 0x60 more of DPL 3."""
    return offset & 0xFFFF | selector << 16 | count << 32 | access << 40 | (offset >> 16) << 48


def _gdt(gate_entry: int) -> bytes:
    entries = {
        KCODE: descriptor(0, 0xFFFFF, 0x9A),
        KDATA: descriptor(0, 0xFFFFF, 0x92),
        UCODE: descriptor(0, 0xFFFFF, 0xFA),
        UDATA: descriptor(0, 0xFFFFF, 0xF2),
        TSS_AT: descriptor(TSS, 0x90, 0x89, 0),
        LDT_AT: descriptor(LDT, 0x1F, 0x82, 0),
        CALL_GATE: gate(KCODE, gate_entry, 0xEC),
        CONFORMING: descriptor(0, 0xFFFFF, 0x9E),
        WINDOW: descriptor(DATA, 0x1FFF, 0x92, 4),
        EXPAND_DOWN: descriptor(0, 0, 0x96),
        READ_ONLY: descriptor(0, 0xFFFFF, 0xF0),
        ABSENT: descriptor(0, 0xFFFFF, 0x12),
        EXECUTE_ONLY: descriptor(0, 0xFFFFF, 0x98),
        RING_1_DATA: descriptor(0, 0xFFFFF, 0xB2),
    }
    table = bytearray(0x88)
    for selector, value in entries.items():
        struct.pack_into("<Q", table, selector & ~7, value)
    return bytes(table)


def _ldt() -> bytes:
    return struct.pack(
        "<4Q",
        descriptor(DATA, 0x2FFF, 0xF2, 4),
        descriptor(0, 0xFFFFF, 0xFA),
        descriptor(0, 0xFFFFF, 0x72),
        descriptor(DATA, 0xFFF, 0x92, 4),
    )


def _tss() -> bytes:
    image = bytearray(0x91)
    struct.pack_into("<II", image, 4, RING_0_TOP, KDATA)
    struct.pack_into("<H", image, 102, 0x68)
    image[0x68:] = b"\xff" * (0x91 - 0x68)
    for port in USER_PORTS:
        image[0x68 + port // 8] &= ~(1 << port % 8)
    return bytes(image)


def _rights(page: int) -> int:
    """Of a page's frame number, in the plain address space."""
    address = page << 12
    if STEPS <= address < STEPS_END or address == USER_STACK_TOP - 0x1000:
        return P | W | U
    if DATA <= address < DATA + (DATA_PAGES << 12):
        return (P | W | U, P | W | U, P | W, P | U, W | U, P | W | U)[page - (DATA >> 12)]
    return P | W


@cache
def _paging() -> dict[int, bytes]:
    """No entry is marked as accessed or dirty: that is for the run to do."""
    pages = range(MEMORY_END >> 12)
    plain = [page << 12 | _rights(page) for page in pages]
    first = DATA >> 12
    other = list(plain)
    other[first], other[first + 1] = plain[first + 1], plain[first]
    shifted = [(page + 1 << 12 if page == first else page << 12) | _rights(page) for page in pages]
    top = [first + number % DATA_PAGES << 12 | P | W | U for number in range(1024)]
    tables = dict(zip((*LOW_TABLES, *ALIAS_TABLES, TOP_TABLE),
                      (plain, other, plain, shifted, top), strict=True))  # fmt: skip
    for number, directory in enumerate(DIRECTORIES):
        entries = [0] * 1024
        if number < 2:
            entries[0], entries[1] = LOW_TABLES[number], ALIAS_TABLES[number]
        else:
            entries[0] = entries[1] = LARGE
        entries[1023] = TOP_TABLE
        tables[directory] = [entry | P | W | U if entry else 0 for entry in entries]
    return {at: struct.pack(f"<{len(table)}I", *table) for at, table in tables.items()}


def tables(symbols: Mapping[str, int]) -> dict[int, bytes]:
    """All that lies beside the code, by address. symbols: `stubs` and `gate_entry`."""
    idt = b""
    for vector in range(VECTORS):
        access = 0xEE if vector in (3, 4) or vector >= SOFTWARE else 0x8E
        if vector in TRAP_GATES:
            access = 0xEF
        idt += struct.pack("<Q", gate(KCODE, symbols["stubs"] + 16 * vector, access))
    gdt = _gdt(symbols["gate_entry"])
    variables = struct.pack("<IIII", 0, 0, LOG, 0)
    for limit, base in ((len(gdt) - 1, GDT), (len(idt) - 1, IDT), (9 * 8 - 1, IDT)):
        variables += struct.pack("<HI2x", limit, base)
    data = bytes((7 * at ^ at >> 3) & 0xFF for at in range(DATA_PAGES << 12))
    return {GDT: gdt, LDT: _ldt(), IDT: idt, TSS: _tss(), VARIABLES: variables, DATA: data,
            **_paging()}  # fmt: skip
