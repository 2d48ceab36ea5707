"""The steps that generated kernels are made of: one function for each feature of the machine.

A step is a few lines of assembly, drawn by a seeded generator. It may fault: the handlers
(kernel_world.py) then go on at the next step. So each one finds the kernel's own segments and
stack, and nothing else: paging may be on or off, any address space may be loaded. What is outside
the design is not drawn: code in rings 1 and 2, and reliance on stale TLB entries - whoever takes
rights or frames away invalidates before the next use.

Here are data and segments; read kernel_rings.py next.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from isa.decoder import decode
from isa.operands import ESP, Register
from isa.row import Row
from isa.sampling import random_instruction, user_rows
from isa.strategies import Window, aimed
from tests.hypervisor.kernel_world import (
    ABSENT,
    ALIAS,
    CALL_GATE,
    CONFORMING,
    DATA,
    DATA_PAGES,
    EXECUTE_ONLY,
    EXPAND_DOWN,
    GDT,
    IDT_POINTER,
    KCODE,
    KDATA,
    LDT,
    LDT_ABSENT,
    LDT_CODE,
    LDT_DATA,
    LDT_SPARE,
    LEAVE,
    LEFT,
    READ_ONLY,
    RING_1_DATA,
    SCRATCH,
    SOFTWARE,
    SPARE,
    STACK_TOP,
    TOP,
    TSS_AT,
    UCODE,
    UDATA,
    USER_STACK_TOP,
    WINDOW,
    descriptor,
)  # fmt: skip

Step = Callable[[Random], str]
IF, IOPL_3, AC = 0x200, 0x3000, 0x40000

#: What stands before and behind code for ring 3: a paravirtual build leaves it as it is.
RING_3: Final = ".ring_3:\n%pragma seventeen user"
LEAVE_RING_3: Final = f"int {LEAVE}\n%pragma seventeen kernel"

SELECTORS: Final = (
    0, 3, KCODE, KDATA, KDATA | 3, UDATA, UDATA & ~3, UCODE, WINDOW, EXPAND_DOWN, READ_ONLY, ABSENT,
    EXECUTE_ONLY, RING_1_DATA, RING_1_DATA | 1, KDATA | 1, CONFORMING, TSS_AT, CALL_GATE, LDT_DATA,
    LDT_DATA & ~3, LDT_CODE, LDT_ABSENT, LDT_SPARE, 0x90, 0xFFF8, 0x3C,
)  # fmt: skip
#: ESP is a step's stack, and 16-bit addresses would not reach the data.
_ROWS: Final = tuple(row for row in user_rows() if row.mnemonic not in ("enter", "leave"))


def lines(*parts: str) -> str:
    """A step's text."""
    return "\n".join(parts)


def _bytes(code: bytes) -> str:
    return "db " + ",".join(map(str, code))


def data(rng: Random, pages: int = DATA_PAGES) -> int:
    """A linear address of the data, by one of its ways; often near a page's end."""
    at = rng.randrange(pages) << 12
    at += rng.choice((rng.randrange(0xFC0), rng.randrange(0xFF8, 0x1000), rng.randrange(0x100)))
    return DATA + at + rng.choice((0, 0, 0, ALIAS))


def touch(rng: Random, address: int | None = None) -> str:
    at = data(rng) if address is None else address
    return rng.choice(
        (
            f"mov eax, [{at}]",
            f"mov [{at}], eax",
            f"inc dword [{at}]",
            f"xchg bl, [{at}]",
            f"cmp dword [{at}], 5",
            f"mov word [{at}], 0x1234",
            f"push dword [{at}]\npop ecx",
        )
    )


def _keeps_stack(code: bytes) -> bool:
    return not any(
        isinstance(operand, Register) and operand.number == ESP and operand.size > 8
        for operand in decode(code).operands
    )


def drawn(rng: Random, rows: tuple[Row, ...] = _ROWS) -> str:
    """An instruction of the table, its memory operands in the first two data pages."""
    while True:
        row = rows[rng.randrange(len(rows))]
        code = random_instruction(rng, row, address_16=False)
        if _keeps_stack(code):
            return _bytes(aimed(rng, code, Window(DATA, 0x2000)))


def into_ring_3(rng: Random, flags: int | None = None) -> tuple[str, ...]:
    """IRET to the line that follows, in ring 3."""
    if flags is None:
        flags = rng.choice((0, 0, IF, IOPL_3, IF | IOPL_3))
    code = rng.choice((UCODE, UCODE, UCODE, LDT_CODE))
    return (
        f"push {UDATA}",
        f"push {USER_STACK_TOP}",
        f"push {flags | 2}",
        f"push {code}",
        "push .ring_3",
        "iret",
        RING_3,
        f"mov ecx, {UDATA}",
        "mov ds, cx",
        "mov es, cx",
    )


def _ring_3_trip(rng: Random) -> str:
    """Out and back, and on with the step."""
    return lines(
        f"mov dword [{LEFT}], .back",
        *into_ring_3(rng, 0),
        LEAVE_RING_3,
        ".back:",
        f"mov dword [{LEFT}], .finished",
    )


# -- Code that any ring may run -------------------------------------------------------------------


def arithmetic(rng: Random) -> str:
    return lines(*(drawn(rng) for _ in range(rng.randrange(1, 8))), "cld", f"mov esp, {STACK_TOP}")


def strings(rng: Random) -> str:
    """A repeat across pages, perhaps into one that is missing or read-only."""
    name = rng.choice(("movsb", "movsd", "stosb", "stosd", "lodsb", "cmpsb", "scasd", "movsw"))
    prefix = rng.choice(("repe", "repne")) if name[:4] in ("cmps", "scas") else "rep"
    return lines(
        rng.choice(("cld", "cld", "std")),
        f"mov esi, {data(rng)}",
        f"mov edi, {data(rng)}",
        f"mov ecx, {rng.choice((0, 1, 3, 17, 64, 300, 1030))}",
        f"mov eax, {rng.choice((0, 0x41414141, 0x01020304))}",
        f"{prefix} {name}",
        f"mov [{SCRATCH}], ecx",
        "cld",
    )


def self_modifying(rng: Random) -> str:
    """An immediate ahead is rewritten: through its own address, or its alias."""
    alias = rng.choice((0, 0, ALIAS))
    return lines(
        f"mov ecx, {rng.randrange(1, 4)}",
        ".again:",
        f"add byte [.spot + 1 + {alias}], {rng.randrange(1, 5)}",
        ".spot: mov eax, 0x11223344",
        f"add [{SCRATCH}], eax",
        "loop .again",
        "mov eax, .there + " + str(alias),
        "jmp eax",
        ".there: mov byte [.last], 0x40",
        ".last: nop",
        "mov eax, .back",
        "jmp eax",
        ".back:",
    )


# -- Segments -------------------------------------------------------------------------------------


def segment_loads(rng: Random) -> str:
    register = rng.choice(("es", "ds", "fs", "gs", "ss"))
    selector = rng.choice(SELECTORS)
    offset = rng.choice((0, 0x10, 0xFFE, 0x1FFE, DATA, DATA + 0x100))
    load = rng.choice(
        (f"mov ecx, {selector}\nmov {register}, cx", f"push {selector}\npop {register}")
    )
    if register == "ss":
        load = f"mov ecx, {selector}\nmov ss, cx\nmov esp, {rng.choice((0x1000, STACK_TOP))}"
        use = "push eax\npop ecx"
    else:
        use = rng.choice((f"mov ecx, [{register}:{offset}]", f"mov [{register}:{offset}], eax"))
    return lines(load, f"int {SOFTWARE}" if rng.randrange(3) == 0 else "nop", use, *restore())


def restore() -> tuple[str, ...]:
    """The kernel's own segments and stack."""
    return (
        f"mov ecx, {KDATA}",
        *(f"mov {name}, cx" for name in ("ds", "es", "fs", "gs", "ss")),
        f"mov esp, {STACK_TOP}",
    )


def _random_descriptor(rng: Random) -> tuple[int, int]:
    """A data descriptor, and an offset at which it reaches the data, or might."""
    base = rng.choice((0, DATA, DATA, 0xFFFFF000, TOP, DATA - 0x800))
    limit = rng.choice((0xFFFFF, 0xFFFFF, 0xFFF, 0x17FF, 0x1FF))
    access = rng.choice((0x92, 0x92, 0xF2, 0xF2, 0xF3, 0x93, 0x90, 0x96, 0xF6, 0x9A, 0x98, 0x12))
    value = descriptor(base, limit, access, rng.choice((0xC, 0xC, 4, 0)))
    return value, (DATA + rng.choice((0, 0x10, 0x7FE, 0xFFE)) - base) & 0xFFFFFFFF


def descriptor_edits(rng: Random) -> str:
    """A segment register keeps what was loaded, whatever becomes of its descriptor."""
    selector = rng.choice((SPARE, SPARE, LDT_SPARE))
    at = (LDT if selector & 4 else GDT) + (selector & ~7)
    (first, offset), (second, _) = _random_descriptor(rng), _random_descriptor(rng)
    register = rng.choice(("es", "fs", "gs"))
    return lines(
        *store64(at, first),
        f"mov ecx, {selector}",
        f"mov {register}, cx",
        f"mov eax, [{register}:{offset}]",
        *store64(at, second),
        rng.choice((f"int {SOFTWARE + 1}", "nop", _ring_3_trip(rng))),
        f"mov [{register}:{offset}], ecx",
        f"mov {register}, cx",
        f"mov eax, [{register}:{offset}]",
        *restore(),
    )


def store64(at: int, value: int) -> tuple[str, ...]:
    return (f"mov dword [{at}], {value & 0xFFFFFFFF}", f"mov dword [{at + 4}], {value >> 32}")


def descriptor_questions(rng: Random) -> str:
    """LAR, LSL, VERR, VERW: the answer is ZF and a register."""
    questions = []
    for number in range(rng.randrange(1, 4)):
        name = rng.choice(("lar ecx, eax", "lsl ecx, eax", "verr ax", "verw ax"))
        questions += [
            f"mov eax, {rng.choice(SELECTORS)}",
            "mov ecx, 0",
            name,
            f"setz [{SCRATCH + 16 * number}]",
            f"mov [{SCRATCH + 4 + 16 * number}], ecx",
        ]
    return lines(*questions)


def table_questions(rng: Random) -> str:
    """SGDT, SIDT, SLDT, STR, SMSW, and the selectors as they are read."""
    name = rng.choice(
        (
            "sgdt [{at}]",
            "sidt [{at}]",
            "sldt [{at}]",
            "str [{at}]",
            "smsw [{at}]",
            "smsw eax",
            "mov [{at}], cs",
            "mov [{at}], ss",
            "push cs\npop eax",
            "push ss\npop eax",
            "mov eax, ds",
            "sldt eax",
            "str eax",
        )
    )
    return lines(name.format(at=SCRATCH + 32), f"mov [{SCRATCH + 48}], eax")


def table_loads(rng: Random) -> str:
    """LLDT and LTR good and bad, LGDT and LIDT of the same tables again."""
    bad = rng.choice((0, KDATA, ABSENT, 0xFFF8, CALL_GATE, LDT_DATA))
    return rng.choice(
        (
            f"mov eax, {bad}\nlldt ax\nmov eax, {LDT_DATA}\nmov es, ax",
            f"mov eax, {bad}\nltr ax",
            f"and byte [{GDT + TSS_AT + 5}], 0xFD\nmov eax, {TSS_AT}\nltr ax",
            f"lidt [{IDT_POINTER}]\nint {SOFTWARE}",
            f"mov eax, 0x30\nlldt ax\nmov eax, {LDT_DATA}\nmov es, ax\n" + lines(*restore()),
        )
    )


def far_transfers(rng: Random) -> str:
    """Within ring 0: to the kernel's code, conforming code, and what is no code."""
    selector = rng.choice((KCODE, KCODE, CONFORMING, LDT_CODE, KDATA, 0, ABSENT, CALL_GATE, UCODE))
    kind = rng.randrange(3)
    if kind == 0:
        return lines(
            f"jmp {selector}:.on", ".on:", f"mov [{SCRATCH}], cs", f"jmp {KCODE}:.end", ".end:"
        )
    if kind == 1:
        return lines(
            f"call {selector}:.on", "jmp .end", ".on:", "mov eax, [esp + 4]", "retf", ".end:"
        )
    return lines(
        f"push {selector}",
        "push .on",
        "retf",
        ".on:",
        f"mov [{SCRATCH}], cs",
        f"jmp {KCODE}:.end",
        ".end:",
    )
