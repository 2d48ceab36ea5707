"""More steps of generated kernels: gates, ring 3 and back, flags, interrupts, ports.

See kernel_steps.py for what a step is. No code runs in rings 1 and 2: a guest's kernel that uses
them is not for every technique. Read kernel_memory.py next.
"""

from __future__ import annotations

from random import Random

from tests.hypervisor.kernel_steps import (
    AC,
    IF,
    IOPL_3,
    LEAVE_RING_3,
    RING_3,
    SELECTORS,
    data,
    drawn,
    into_ring_3,
    lines,
    store64,
    touch,
)  # fmt: skip
from tests.hypervisor.kernel_world import (
    ABSENT,
    CALL_GATE,
    CONFORMING,
    DATA,
    GDT,
    IDT,
    IDT_POINTER,
    KCODE,
    KDATA,
    LDT_CODE,
    LEFT,
    SCRATCH,
    SOFTWARE,
    SPARE_GATE,
    STACK_TOP,
    TIMER,
    TRAP_GATES,
    TSS,
    UCODE,
    UDATA,
    USER_STACK_TOP,
    gate,
)  # fmt: skip


def software_interrupts(rng: Random) -> str:
    return rng.choice(
        (
            f"int {SOFTWARE + rng.randrange(8)}",
            "int3",
            "mov al, 0x7F\nadd al, 1\ninto",
            f"mov eax, 9\nbound eax, [{DATA}]",
            "ud2",
            "int 0x60",
            "int 0x47",
            f"int {TIMER + 1}",
            "db 0xF0, 0x89, 0xC0",
            "mov ecx, 0\ndiv ecx",
        )
    )


def gates(rng: Random) -> str:
    """A gate of any kind, used from ring 0 or 3."""
    vector = SOFTWARE + 8 + rng.randrange(4)
    access = rng.choice((0x8E, 0x8F, 0xEE, 0xEF, 0x0E, 0x8C, 0x82, 0xEE))
    selector = rng.choice((KCODE, KCODE, KCODE, CONFORMING, UCODE, KDATA, 0, ABSENT, 0xFFF8))
    low, high = gate(selector, 0, access) & 0xFFFFFFFF, gate(selector, 0, access) >> 32
    use = f"int {vector}"
    if rng.randrange(2):
        use = lines(*into_ring_3(rng), use, LEAVE_RING_3)
    return lines(
        f"mov eax, [{IDT + 8 * SOFTWARE}]",
        "and eax, 0xFFFF",
        f"or eax, {low}",
        f"mov [{IDT + 8 * vector}], eax",
        f"mov eax, [{IDT + 8 * SOFTWARE + 4}]",
        f"and eax, 0xFFFF0000\nor eax, {high}",
        f"mov [{IDT + 8 * vector + 4}], eax",
        use,
    )


def system_calls(rng: Random) -> str:
    """Ring 3 and the kernel use one gate, which a hypervisor may let the hardware use; it changes.

    An even number of rounds, so that what is changed ends as it was.
    """
    vector = rng.choice(TRAP_GATES)
    access, handler = IDT + vector * 8 + 5, IDT + vector * 8
    change = rng.choice(
        (
            "nop",
            f"xor byte [{access}], 1",  # an interrupt gate
            f"xor byte [{access}], 0x60",  # not for ring 3
            f"xor byte [{handler}], 16",  # another vector's handler
            f"xor byte [{TSS + 5}], 8",  # another stack
            f"lidt [{IDT_POINTER}]",
            "mov eax, cr3\nmov cr3, eax",
            "push 0x202\npopf\nnop\ncli",
        )
    )
    between = (drawn(rng), touch(rng), "nop", f"mov ecx, {KDATA}\nmov es, cx", f"int {SOFTWARE}")
    return lines(
        f"mov dword [{SCRATCH + 96}], {rng.choice((2, 4))}",
        ".again:",
        f"mov dword [{LEFT}], .back",
        *into_ring_3(rng, rng.choice((IF, IF, IF, 0))),
        f"int {vector}",
        rng.choice(between),
        f"int {vector}",
        LEAVE_RING_3,
        f".back: int {vector}",
        change,
        rng.choice((f"int {vector}", "nop")),
        f"dec dword [{SCRATCH + 96}]",
        "jnz .again",
        f"mov dword [{LEFT}], .finished",
    )


def _user_line(rng: Random) -> str:
    return rng.choice(
        (
            drawn(rng),
            drawn(rng),
            touch(rng),
            touch(rng),
            f"int {SOFTWARE + rng.randrange(8)}",
            "hlt",
            "mov eax, cr0",
            "cli",
            "sti",
            "in al, 0x80",
            "out 0xE9, al",
            "in al, 0x21",
            "int 0x20",
            "ud2",
            f"call {CALL_GATE | 3}:0",
            f"mov ecx, {rng.choice(SELECTORS)}\nmov fs, cx",
            f"mov eax, [{STACK_TOP - 64}]",
            f"mov [{TSS}], eax",
            "push eax\npop ecx",
            "invlpg [eax]",
            "mov dx, 0x1234\nin eax, dx",
            f"lgdt [{DATA}]",
            "int3",
        )
    )


def ring_3(rng: Random) -> str:
    """Out by IRET, some code, and back by INT or a fault."""
    inner = (_user_line(rng) for _ in range(rng.randrange(1, 6)))
    return lines(*into_ring_3(rng), *inner, LEAVE_RING_3)


def ring_3_far(rng: Random) -> str:
    """Out by a far return; there far transfers, through call gates too."""
    inner = rng.choice(
        (
            f"call {CALL_GATE | 3}:0",
            f"call {CONFORMING}:.there",
            f"jmp {UCODE}:.here",
            f"call {KCODE}:.here",
            f"jmp {LDT_CODE}:.here",
        )
    )
    return lines(
        f"push {UDATA}",
        f"push {USER_STACK_TOP}",
        f"push {UCODE}",
        "push .ring_3",
        "retf",
        RING_3,
        inner,
        "jmp .here",
        ".there: retf",
        ".here:",
        LEAVE_RING_3,
    )


def ring_3_unsafe(rng: Random) -> str:
    """The unsafe instructions where they leak: only techniques that see to ring 3 are faithful."""
    line = rng.choice(
        (
            "sgdt [{at}]",
            "sidt [{at}]",
            "sldt [{at}]",
            "str [{at}]",
            "smsw [{at}]",
            "pushf\npop eax",
            "push {flags}\npopf\npushf\npop eax",
            "mov ecx, {selector}\nlar eax, ecx",
            "mov ecx, {selector}\nlsl eax, ecx",
            "mov ecx, {selector}\nverr cx",
            "mov eax, cs",
        )
    )
    line = line.format(
        at=DATA + 16, flags=rng.choice((0, IF, IOPL_3)) | 2, selector=rng.choice(SELECTORS)
    )
    return lines(
        *into_ring_3(rng),
        line,
        "setz cl",
        f"mov [{DATA + 8}], ecx",
        f"mov [{DATA}], eax",
        LEAVE_RING_3,
    )


def call_gates(rng: Random) -> str:
    """A call gate of any kind, from ring 0 or 3."""
    access = rng.choice((0x8C, 0xEC, 0xEC, 0x0C, 0x84))
    selector = rng.choice((KCODE, KCODE, CONFORMING, UCODE, KDATA, 0))
    value = gate(selector, 0, access, rng.choice((0, 0, 2)))
    use = f"call {SPARE_GATE | 3}:0"
    if rng.randrange(2):
        use = lines(*into_ring_3(rng), use, LEAVE_RING_3)
    return lines(
        *store64(GDT + SPARE_GATE, value),
        "mov eax, .inside",
        f"mov [{GDT + SPARE_GATE}], ax",
        "shr eax, 16",
        f"mov [{GDT + SPARE_GATE + 6}], ax",
        use,
        "jmp .end",
        ".inside:",
        "mov eax, [esp + 4]",
        "retf",
        ".end:",
    )


# -- Flags, interrupts, ports ---------------------------------------------------------------------


def flags(rng: Random) -> str:
    value = rng.choice((0, IF, IOPL_3, IF | IOPL_3, AC, 0x8D5, 0x200000)) | 2
    return lines(
        f"push {value}",
        "popf",
        "pushf",
        f"pop dword [{SCRATCH + 64}]",
        rng.choice(("cli", "sti\nnop\ncli", f"int {SOFTWARE + 2}")),
        "pushf",
        f"pop dword [{SCRATCH + 68}]",
        "cli\ncld",
    )


def timer_writes(count: int, mode: int) -> tuple[str, ...]:
    """Interrupt line 0 as vector TIMER, all others masked."""
    writes = (
        (0x20, 0x11),
        (0x21, TIMER),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xFE),
        (0xA1, 0xFF),
        (0x43, 0x30 | mode << 1),
        (0x40, count),
        (0x40, 0),
    )
    return tuple(f"mov al, {value}\nout {port}, al" for port, value in writes)


def timer(rng: Random) -> str:
    """Interrupts while a loop runs, in ring 0 or 3."""
    loop = (f"mov ecx, {rng.randrange(50, 400)}", ".again: add eax, ecx", "loop .again")
    if rng.randrange(2):
        user = into_ring_3(rng, IF)
        return lines(*timer_writes(rng.randrange(2, 6), 2), *user, *loop, LEAVE_RING_3)
    between = rng.choice(("nop", "cli\nnop\nsti\nnop", f"int {SOFTWARE}", "mov ss, dx"))
    return lines(*timer_writes(rng.randrange(2, 6), 2), "mov dx, ss", "sti", *loop, between, "cli")


def halt(rng: Random) -> str:
    """HLT until the timer's one shot."""
    return lines(
        *timer_writes(rng.randrange(1, 9), 0), "sti", rng.choice(("hlt", "nop\nhlt")), "cli"
    )


def ports(rng: Random) -> str:
    accesses = []
    for _ in range(rng.randrange(1, 5)):
        port = rng.choice((0x80, 0xE9, 0x21, 0x40, 0x61, 0x71, 0x3F8, 0x3FD, 0x1234, 0xFFFF))
        register = rng.choice(("al", "al", "ax", "eax"))
        accesses.append(f"mov edx, {port}\nin {register}, dx\nmov [{SCRATCH + 80}], eax")
        port = rng.choice((0x80, 0xE9, 0x3F8, 0x70, 0x5000, 0xA1))
        accesses.append(
            f"mov edx, {port}\nmov al, {rng.randrange(256)}\nout dx, "
            + rng.choice(("al", "al", "ax" if port == 0x5000 else "al"))
        )
    if rng.randrange(2):
        accesses.append(f"mov edx, {rng.choice((0x80, 0xE9))}\nmov ecx, {rng.randrange(1, 9)}")
        accesses.append(
            rng.choice((f"mov edi, {data(rng)}\nrep insb", f"mov esi, {data(rng)}\nrep outsb"))
        )
    return lines(*accesses)


def time_stamps(rng: Random) -> str:
    return lines(
        "rdtsc",
        f"mov [{SCRATCH + 96}], eax",
        "cpuid" if rng.randrange(3) == 0 else "nop",
        "rdtsc",
        f"mov [{SCRATCH + 100}], eax",
    )
