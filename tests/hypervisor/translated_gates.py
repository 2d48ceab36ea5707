"""Kernels behind pass-through gates, whose handlers are entered without an exit.

Written as translated_kernels.py's are, which has them in its list. Ring 3 goes in with all kinds of
registers, again and again; the handler writes down what it has found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.hypervisor.kernel_code import FRAMES, SLOTS, entry_of, prepare
from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_steps import IF
from tests.hypervisor.kernel_world import (
    DATA,
    DIRECTORIES,
    GDT,
    KDATA,
    LEFT,
    RING_0_TOP,
    SPARE,
    STACK_TOP,
    TSS,
    UDATA,
    WINDOW,
    descriptor,
)
from tests.hypervisor.test_translate import guest_of
from tests.hypervisor.written_tables import GATE, install, store, visit

CALL: Final = f"int {GATE}"
#: Where a handler's notes are, and how many it has taken.
NOTES, COUNT = DATA + 0x200, DATA + 0x1F0


def trip() -> str:
    """Twice through the gate, the second time without an exit."""
    return visit(IF, "mov eax, 0", CALL, f"add [{DATA}], eax", CALL, f"add [{DATA + 4}], eax")


def _noting(*sources: str) -> str:
    """A handler that keeps registers, and doublewords of its frame, before anything else."""
    notes = "\n".join(
        f"push dword {source}\npop dword [ss:ebp + {4 * n}]" for n, source in enumerate(sources)
    )
    return (
        f"mov ebp, [ss:{COUNT}]\nadd dword [ss:{COUNT}], {4 * len(sources)}\n{notes}\n"
        f"mov ebp, [ss:{COUNT}]\nmov [ss:ebp], gs\nmov [ss:ebp + 2], ds\n"
        f"add dword [ss:{COUNT}], 4\nmov eax, [gs:0x1010]\nadd [ss:{DATA + 8}], eax\niret"
    )


def notes_of_a_handler() -> KernelGuest:
    """Registers and selectors as the program has them, and the frame as it was pushed."""
    frame = [f"[ss:esp + {4 * n}]" for n in range(5)]
    handler = f"jmp .begin\n.notes: {_noting('eax', 'ecx', 'edx', 'ebx', *frame)}\n.begin:"
    load = f"mov dword [{COUNT}], {NOTES}\n{store(GDT + SPARE, descriptor(DATA, 0xFFFFF, 0xF3))}"
    changes = [
        f"mov ebx, {selector}\nmov gs, bx\nmov eax, 0x11111111\nmov ecx, 0x22222222\n"
        f"mov edx, 0x33333333\n{CALL}\nmov ebx, gs\n{CALL}"
        for selector in (SPARE | 3, UDATA, SPARE | 3, UDATA & ~3, SPARE | 3)
    ]
    start = f"mov ebx, {SPARE | 3}\nmov gs, bx"
    trips = [visit(IF, start, CALL, CALL, *changes, CALL) for _ in range(2)]
    return guest_of(
        "\n".join((enable(0), load, handler, install(".notes"), *trips)),
        f"mov eax, {WINDOW}\nmov gs, ax\nmov [{DATA + 12}], gs",
    )


def accessed_by_a_gate() -> KernelGuest:
    """The TSS has a page of its own, which is read for the first time by the INT of ring 3."""
    handler = "jmp .begin\n.stays: jmp .finished\n.begin:"
    return guest_of(f"{enable(0)}\n{handler}\n{install('.stays')}\n{visit(IF, CALL)}")


def beyond_the_end() -> KernelGuest:
    """A gate whose handler lies beyond the end of its CS: the INT faults."""
    short = store(GDT + SPARE, descriptor(0, 0x10F, 0x9B))
    gate = install("0x110FF0", 0xEF, GATE, SPARE)
    return guest_of(
        short, f"{enable(0)}\n{gate}\njmp {SPARE}:.in\n.in: {visit(IF, CALL, 'nop', CALL)}"
    )


def to_another_segment() -> KernelGuest:
    """A gate to a CS that the kernel does not run in otherwise; there it has run the same EIP."""
    base = 0x100
    other = store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x9B))
    handler = (
        "jmp .begin\n.same: add eax, 7\nret\ntimes 252 nop\n"
        ".adds: add eax, 5\nmov ecx, cs\nadd eax, ecx\niret\n.begin: mov eax, 0\ncall .same"
    )
    gate = install(f".adds - {base}", 0xEF, GATE, SPARE)
    return guest_of(f"{other}\n{enable(0)}\n{handler}\n{gate}\n{trip()}")


def _onto(stack: int, attributes: int, pointer: int) -> KernelGuest:
    """Gates that lead to another stack of the kernel's, and then to the old one again."""
    spare = store(GDT + SPARE, descriptor(stack, 0xFFFFF, 0x93, attributes))
    begin = f"mov dword [{TSS + 4}], {pointer}\nmov dword [{TSS + 8}], {SPARE}"
    end = f"mov dword [{TSS + 4}], {RING_0_TOP}\nmov dword [{TSS + 8}], {KDATA}"
    handler = (
        "jmp .begin\n.pops: push 0x202\npopf\npushf\npop eax\npush cs\npush ds\npop ds\npop ecx\n"
        "iret\n.begin:"
    )
    change = f"{spare}\n{begin}"
    return guest_of(
        f"{enable(0)}\n{handler}\n{install('.pops')}\n{trip()}\n{change}\n{trip()}\n{end}\n"
        f"{trip()}",
        f"{begin}\n{store(GDT + SPARE, descriptor(0, 0xFFFFF, 0x93))}\n"
        f"mov dword [{TSS + 4}], {RING_0_TOP}\n{trip()}\n{change}\n{trip()}\n{end}",
    )


def interpreted_before() -> KernelGuest:
    """On a stack of 16 bits, where nothing is translated, the kernel maps a handler elsewhere."""
    handlers = "\n".join(  # mov al, n; iret
        f"mov dword [{frame + 0x40}], {0xCF00B0 | n << 8}"
        for n, frame in ((3, FRAMES), (5, FRAMES + 0x1000))
    )
    small = (
        f"{store(GDT + SPARE, descriptor(DATA, 0xFFFFF, 0x93, 8))}\nmov eax, {SPARE}\n"
        "mov ss, ax\nmov esp, 0x800"
    )
    to = f"mov dword [{entry_of(0, SLOTS)}], {FRAMES + 0x1000 | 7}\ninvlpg [{SLOTS}]"
    change = f"mov eax, {DIRECTORIES[1]}\nmov cr3, eax"
    first = f"{prepare()}\n{handlers}\n{install(str(SLOTS + 0x40))}"
    return guest_of(
        first, trip(), f"{small}\n{change}\n{trip()}", enable(0),
        f"{trip()}\n{small}\n{to}\n{trip()}",
    )  # fmt: skip


def a_stack_that_changes(by_ring_3: bool) -> KernelGuest:
    """The stack's descriptor becomes one of 16 bits: ring 3 writes it, or another GDT has it."""
    other, pointers = GDT + 0x400, DATA + 0x1000
    flat, small = (descriptor(base, 0xFFFFF, 0x93, flags) for base, flags in ((0, 0xC), (DATA, 8)))
    copy = f"cld\nmov esi, {GDT}\nmov edi, {other}\nmov ecx, 34\nrep movsd\n"
    tables = "".join(
        f"mov word [{pointers + 8 * n}], 0x87\nmov dword [{pointers + 2 + 8 * n}], {table}\n"
        for n, table in enumerate((other, GDT))
    )
    start = (
        f"{store(GDT + SPARE, flat)}\n{copy}{tables}{store(other + SPARE, small)}\n{enable(0)}\n"
        f"or byte [{entry_of(0, GDT)}], 4\ninvlpg [{GDT}]\nmov dword [{TSS + 8}], {SPARE}"
    )
    handler = (
        f"jmp .begin\n.pops: push 0x202\npopf\npushf\npop eax\nadd [{DATA}], eax\n"
        f"mov eax, {KDATA}\nmov ss, ax\nmov esp, {STACK_TOP}\npush 2\npopf\njmp [{LEFT}]\n.begin:"
    )
    where = f"mov dword [{TSS + 4}], {DATA + 0x50800}"
    if by_ring_3:
        changes = [visit(IF, store(GDT + SPARE, now), CALL) for now in (small, flat, small)]
    else:
        changes = [
            f"lgdt [{pointers + 8 * n}]\n{visit(IF, CALL)}\n{visit(IF, CALL)}" for n in (0, 1, 0, 1)
        ]
    end = f"mov dword [{TSS + 4}], {RING_0_TOP}\nmov dword [{TSS + 8}], {KDATA}"
    return guest_of(
        "\n".join((start, where, handler, install(".pops"), visit(IF, CALL), *changes, end))
    )


GATE_KERNELS: Final[dict[str, Callable[[], KernelGuest]]] = {
    "notes of a handler": notes_of_a_handler,
    "accessed by a gate": accessed_by_a_gate,
    "gate beyond the end of CS": beyond_the_end,
    "gate to another CS": to_another_segment,
    "gate onto a stack with a base": lambda: _onto(DATA, 0xC, 0x800),
    "gate onto a stack of 16 bits": lambda: _onto(DATA, 8, 0x50800),
    "gate onto a stack that ring 3 changes": lambda: a_stack_that_changes(True),
    "gate onto a stack of another GDT": lambda: a_stack_that_changes(False),
    "gate to what was mapped elsewhere": interpreted_before,
}
