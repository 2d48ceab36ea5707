"""More steps of generated kernels: memory management, debugging, nested faults, and bad ends.

Page tables are edited with an invalidation wherever rights or frames are taken away, and without
where rights are only added: a guest that relied on stale TLB entries would be outside the design.
See kernel_steps.py for what a step is. Read next: kernel_guests.py, which puts them together.
"""

from __future__ import annotations

from random import Random

from tests.hypervisor.kernel_steps import AC, LEAVE_RING_3, data, into_ring_3, lines, touch
from tests.hypervisor.kernel_world import (
    ABSENT,
    ALIAS,
    ALIAS_TABLES,
    DATA,
    DATA_PAGES,
    DIRECTORIES,
    IDT,
    LARGE,
    LOW_TABLES,
    SCRATCH,
    SHORT_POINTER,
    SOFTWARE,
    TOP,
    TRACE_LEFT,
    TSS,
    UDATA,
    P,
    U,
    W,
)  # fmt: skip

TF, WP, PG, AM, TS = 0x100, 0x10000, 0x80000000, 0x40000, 8


# -- Memory management ----------------------------------------------------------------------------


def enable(space: int) -> str:
    return f"mov eax, {DIRECTORIES[space]}\nmov cr3, eax\nmov eax, cr0\nor eax, {PG}\nmov cr0, eax"


def paging_switch(rng: Random) -> str:
    change = f"mov eax, cr0\nand eax, {PG - 1}\nmov cr0, eax"
    if rng.randrange(4):
        change = enable(rng.randrange(3))
    return lines(change, touch(rng), touch(rng))


def spaces(rng: Random) -> str:
    """From one address space into another and back, with something done in each."""
    visits = [enable(rng.randrange(3))]
    for _ in range(rng.randrange(1, 4)):
        visits += [
            touch(rng, data(rng, 2)),
            f"mov eax, {DIRECTORIES[rng.randrange(3)]}",
            "mov cr3, eax",
            touch(rng, data(rng, 2)),
        ]
    return lines(*visits)


def _entry(rng: Random) -> tuple[int, int]:
    """Where a page-table entry of a data page lies, and the linear page that it maps."""
    number = rng.randrange(2)
    page = rng.randrange(DATA_PAGES)
    alias = rng.choice((0, ALIAS))
    table = (ALIAS_TABLES if alias else LOW_TABLES)[number]
    return table + 4 * ((DATA >> 12) + page), alias + DATA + (page << 12)


def page_edits(rng: Random) -> str:
    """An entry is replaced and invalidated, then used."""
    at, linear = _entry(rng)
    frame = DATA + (rng.randrange(DATA_PAGES) << 12)
    value = frame | rng.choice((P | W | U, P | W, P | U, P, 0, W | U, P | W | U | 0x60))
    use = touch(rng, linear + rng.choice((0, 8, 0xFFE)))
    if rng.randrange(2):
        use = lines(*into_ring_3(rng, 0), use, LEAVE_RING_3)
    start = (enable(rng.randrange(2)),) if rng.randrange(2) else ()
    flush = rng.choice((f"invlpg [{linear}]", "mov eax, cr3\nmov cr3, eax"))
    return lines(
        *start,
        touch(rng, linear),
        f"mov dword [{at}], {value}",
        flush,
        use,
        f"mov eax, [{at}]",
        f"mov [{SCRATCH + 112}], eax",
    )


def page_grants(rng: Random) -> str:
    """Rights are added, which wants no invalidation. What is not present is in no TLB."""
    at, linear = _entry(rng)
    start = (enable(rng.randrange(2)),) if rng.randrange(2) else ()
    return lines(
        *start,
        f"and byte [{at}], {~rng.choice((P, W, U, P | W)) & 0xFF}",
        f"invlpg [{linear}]",
        f"or dword [{at}], {P | W | U}",
        touch(rng, linear),
        touch(rng, linear + 0x80),
    )


def dirty_bits(rng: Random) -> str:
    """Accessed and dirty bits are cleared, invalidated, and set again by use."""
    at, linear = _entry(rng)
    return lines(
        enable(rng.randrange(2)),
        touch(rng, linear),
        f"and dword [{at}], ~0x60",
        f"invlpg [{linear}]",
        touch(rng, linear),
        f"mov eax, [{at}]",
        f"mov [{SCRATCH + 116}], eax",
    )


def directory_edits(rng: Random) -> str:
    """The aliases' directory entry: absent, read-only, the kernel's, 4 MiB, another table."""
    number = rng.randrange(2)
    value = rng.choice(
        (
            0,
            ALIAS_TABLES[0] | 7,
            ALIAS_TABLES[1] | 5,
            ALIAS_TABLES[0] | 3,
            LARGE | 7,
            LARGE | 5,
            LOW_TABLES[1] | 7,
        )
    )
    return lines(
        enable(number),
        f"mov dword [{DIRECTORIES[number] + 4}], {value}",
        rng.choice(
            (
                "mov eax, cr3\nmov cr3, eax",
                f"mov eax, cr0\nxor eax, {PG}\nmov cr0, eax\nor eax, {PG}\nmov cr0, eax",
            )
        ),
        touch(rng, data(rng) | ALIAS),
        touch(rng, data(rng)),
    )


def write_protection(rng: Random) -> str:
    """CR0.WP decides whether the kernel may write the read-only page; the user never may."""
    page = DATA + 0x3000 + 8 * rng.randrange(8)
    use = f"mov [{page}], esp"
    if rng.randrange(3) == 0:
        use = lines(use, *into_ring_3(rng, 0), use, LEAVE_RING_3)
    change = f"or eax, {WP}" if rng.randrange(2) else f"and eax, {~WP & 0xFFFFFFFF}"
    return lines(enable(rng.randrange(2)), "mov eax, cr0", change, "mov cr0, eax", use)


def user_memory(rng: Random) -> str:
    """Ring 3 reads and writes pages of every kind."""
    touches = (touch(rng) for _ in range(rng.randrange(1, 4)))
    return lines(enable(rng.randrange(2)), *into_ring_3(rng, 0), *touches, LEAVE_RING_3)


def large_pages(rng: Random) -> str:
    return lines(
        enable(2),
        touch(rng),
        touch(rng, data(rng, 2) | ALIAS),
        f"mov dword [{DIRECTORIES[2] + 4}], {LARGE | rng.choice((7, 5, 3, 0x67))}",
        f"invlpg [{ALIAS + DATA}]",
        touch(rng, data(rng, 2) | ALIAS),
    )


def top_of_memory(rng: Random) -> str:
    """The last 4 MiB of linear space are a guest's too."""
    at = TOP + rng.randrange(1024) * 0x1000 + rng.choice((0, 8, 0xFF0, 0xFFE))
    use = touch(rng, min(at, 0xFFFFFFF8))
    if rng.randrange(2):
        use = lines(*into_ring_3(rng, 0), use, LEAVE_RING_3)
    return lines(enable(rng.randrange(3)), use)


def control_bits(rng: Random) -> str:
    """CR0.TS and MP by several ways, read back by several."""
    return lines(
        rng.choice((f"mov eax, cr0\nor eax, {TS}\nmov cr0, eax", "smsw ax\nor al, 10\nlmsw ax")),
        rng.choice(("nop", "clts")),
        "smsw ax",
        f"mov [{SCRATCH + 120}], ax",
        "mov eax, cr0",
        f"mov [{SCRATCH + 124}], eax",
        rng.choice(("nop", "db 0xD9, 0xE8", "mov eax, cr4", "mov eax, cr2", "mov eax, cr1")),
        "clts",
    )


# -- Debugging, nested faults, the end ------------------------------------------------------------


def single_steps(rng: Random) -> str:
    return lines(
        f"mov dword [{TRACE_LEFT}], {rng.randrange(4)}",
        f"push {TF | 2}",
        "popf",
        "nop",
        rng.choice(
            (
                "inc eax",
                f"mov ecx, 3\nmov edi, {DATA}\nrep stosb",
                f"int {SOFTWARE}",
                "mov dx, ss\nmov ss, dx\nnop",
            )
        ),
        "nop",
        "push 2",
        "popf",
    )


def breakpoints(rng: Random) -> str:
    kind, at = rng.choice(((0, ".here"), (1, str(DATA + 4)), (3, str(DATA + 4))))
    control = 0x401 | kind << 16 | (3 << 18 if kind else 0)
    return lines(
        f"mov eax, {at}",
        "mov dr0, eax",
        f"mov eax, {control}",
        "mov dr7, eax",
        f"mov dword [{TRACE_LEFT}], 0",
        f".here: mov [{DATA + 4}], eax",
        f"mov ecx, [{DATA + 4}]",
        "mov eax, dr6",
        f"mov [{SCRATCH + 128}], eax",
        "mov eax, 0",
        "mov dr7, eax",
        "mov dr6, eax",
    )


def alignment(rng: Random) -> str:
    return lines(
        "mov eax, cr0",
        f"or eax, {AM}",
        "mov cr0, eax",
        *into_ring_3(rng, AC),
        f"mov eax, [{DATA + rng.randrange(8)}]",
        LEAVE_RING_3,
    )


def double_faults(rng: Random) -> str:
    """#GP without a gate for it; the step after finds all as it was."""
    if rng.randrange(2):
        return lines(f"lidt [{SHORT_POINTER}]", "mov eax, 0xFFF8", "mov ds, ax")
    return lines(f"and byte [{IDT + 13 * 8 + 5}], 0x7F", "int 0x60")


def bad_ring_0_stack(rng: Random) -> str:
    """Out of ring 3 there is no way but a stack that cannot be."""
    field, value = rng.choice(((8, 0), (8, ABSENT), (8, UDATA), (4, 0x80000000)))
    return lines(
        enable(0), f"mov dword [{TSS + field}], {value}", *into_ring_3(rng, 0), LEAVE_RING_3
    )


def bad_stack(rng: Random) -> str:
    """A fault, whose frame faults, and so on."""
    stack = rng.choice((DATA + 0x5000, 0x80000000))  # the page below the first is not present
    return lines(
        enable(0), f"mov esp, {stack}", rng.choice(("push eax\npush eax", "ud2", "int 0x60"))
    )


def no_idt(rng: Random) -> str:
    return lines(f"mov word [{SCRATCH}], {rng.choice((0, 0x3F))}", f"lidt [{SCRATCH}]", "ud2")


def idle(rng: Random) -> str:
    """HLT without anything that could end it."""
    return rng.choice(("cli\nhlt", "mov al, 0xFF\nout 0x21, al\nsti\nhlt"))


def endless(rng: Random) -> str:
    del rng
    return "jmp $"
