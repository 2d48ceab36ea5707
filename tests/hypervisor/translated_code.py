"""Kernels whose code changes, moves, and lies across pages, followed in all ways.

Written as translated_kernels.py's are, which has them in its list. kernel_code.py generates such
kernels; here are those that show one thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isa import assemble
from tests.hypervisor.kernel_code import FRAMES, SLOTS, entry_of, prepare
from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_world import (
    DATA,
    DIRECTORIES,
    GDT,
    KCODE,
    KDATA,
    LOW_TABLES,
    SPARE,
    STACK_TOP,
    descriptor,
)
from tests.hypervisor.test_translate import guest_of, in_ring_3
from tests.hypervisor.written_tables import store

#: A table that nothing but code is mapped by, and where.
TABLE, REGION, REGION_INDEX = 0x150000, 0xC00000, 3
SECOND: Final = FRAMES + 0x1000


def adds(frame: int, number: int, at: int = 0x40) -> str:
    """A routine in a frame: add al, n; ret."""
    return f"mov dword [{frame + at}], {0xC30004 | number << 8}"


def call(linear: int, cell: int) -> str:
    """Call it, and keep what it says."""
    return f"mov eax, 0\nmov ecx, {linear}\ncall ecx\nmov [{DATA + cell}], eax"


def mapped_by_an_untraced_table() -> KernelGuest:
    """Code moves where no data is: its table has no shadow, so that nobody sees the store."""
    routines = f"{adds(FRAMES, 3)}\n{adds(SECOND, 5)}"
    table = f"mov dword [{DIRECTORIES[0] + 4 * REGION_INDEX}], {TABLE | 7}"
    entries = [f"mov dword [{TABLE}], {frame | 7}" for frame in (FRAMES, SECOND)]
    here = [call(REGION + 0x40, 4 * n) for n in range(3)]
    return guest_of(
        f"{routines}\n{table}\n{entries[0]}\n{enable(0)}\n{here[0]}",
        f"{entries[1]}\ninvlpg [{REGION}]\n{here[1]}",
        f"{entries[0]}\nmov eax, cr3\nmov cr3, eax\n{here[2]}",
    )


def in_several_spaces() -> KernelGuest:
    """Code at one linear address, after a change of one control register and nothing else."""
    there, large = SLOTS + 0x40, DIRECTORIES[2]
    routines = "\n".join((adds(FRAMES, 3), adds(SECOND, 5), adds(SLOTS, 7)))
    # Without extensions, space 2 has at 0 what is a table then: that of space 0, all accessed.
    table = (
        f"cld\nmov esi, {LOW_TABLES[0]}\nmov edi, 0\nmov ecx, 512\n"
        ".fill: lodsd\nor eax, 0x20\nstosd\nloop .fill"
    )
    cell, steps = 0, []
    for change in (
        f"mov eax, {DIRECTORIES[1]}\nmov cr3, eax", f"mov eax, {DIRECTORIES[0]}\nmov cr3, eax",
        f"mov eax, {large}\nmov cr3, eax", "mov eax, cr4\nxor eax, 0x10\nmov cr4, eax",
        "mov eax, cr4\nxor eax, 0x10\nmov cr4, eax", f"mov eax, {DIRECTORIES[0]}\nmov cr3, eax",
        "mov eax, cr0\nand eax, 0x7FFFFFFF\nmov cr0, eax",
        "mov eax, cr0\nor eax, 0x80000000\nmov cr0, eax",
    ):  # fmt: skip
        cell += 4
        steps.append(f"{change}\n{call(there, cell)}")
    accessed = "\n".join(f"or byte [{entry_of(space, SLOTS)}], 0x20" for space in range(2))
    start = f"{routines}\n{prepare()}\n{accessed}\n{table}\n{call(there, 0)}"
    return guest_of(start, *steps, *steps)


def moved_after_a_flush() -> KernelGuest:
    """No TLB knows the page by then, so that the store counts at once."""
    moves = [
        f"mov eax, cr3\nmov cr3, eax\nmov dword [{entry_of(0, SLOTS)}], {frame | 7}\n"
        f"{call(SLOTS + 0x40, 4 * n)}"
        for n, frame in enumerate((SECOND, FRAMES, SECOND))
    ]
    start = f"{prepare()}\n{adds(FRAMES, 3)}\n{adds(SECOND, 5)}\n{call(SLOTS + 0x40, 16)}"
    return guest_of(start, *moves)


#: Stores to a page, enough that its units check themselves.
MIX: Final = "\n".join(f"mov byte [{FRAMES + 0x800 + n}], {n}\ncall .there" for n in range(24))
THERE: Final = f"jmp .begin\n.there: mov eax, {FRAMES + 0x40}\ncall eax\nret\n.begin:"


def far_into_a_unit() -> KernelGuest:
    """Code changes behind the first bytes of a unit, in its own page or in the next."""
    at, end = FRAMES + 0x40, FRAMES + 0x2000
    code = (
        f"mov dword [{at}], 0x11B84040\nmov dword [{at + 4}], 0x42000000\nmov byte [{at + 8}], 0xC3"
    )
    changes = "\n".join(
        f"mov byte [{at + offset}], {value}\nmov edx, 0\ncall .there\nmov [{DATA + 8 * n}], eax\n"
        f"mov [{DATA + 8 * n + 4}], edx"
        for n, (offset, value) in enumerate(((6, 0x22), (7, 0x4A), (3, 0x33), (7, 0x42), (1, 0x42)))
    )
    # mov eax, imm32; then ret imm16: the last byte of the page is the opcode.
    across = f"mov dword [{end - 4}], 0xB8404040\nmov byte [{end + 4}], 0xC3"
    last = f"mov dword [{end - 4}], 0xC2404040\nmov word [{end}], 0"
    calls = "\n".join(
        f"mov dword [{end}], {value}\nmov eax, 0\npush 0\npush 0\ncall .last\nmov [ebp], eax\n"
        f"mov [ebp + 4], esp\nadd ebp, 8\nmov esp, {STACK_TOP}"
        for value in (4, 0, 8, 0xC300)
    )
    lasts = [
        f"jmp .over\n.last: jmp {end - 4}\n.over: mov ebp, {DATA + 0x80 + 32 * n}\n{calls}"
        for n in range(3)
    ]
    return guest_of(
        prepare(), f"{THERE}\n{code}\n{changes}\n{MIX}\n{changes}",
        f"{last}\n{lasts[0]}", f"{across}\n{lasts[1]}", f"{last}\n{lasts[2]}",
    )  # fmt: skip


def undecodable() -> KernelGuest:
    """Bytes that are no instruction, alone, in a unit's middle, and across pages."""
    bad = ("db 0x0F, 0xFF", "inc eax\ndb 0x0F, 0x04", "db 0xF0\nnop", "mov cs, ax")
    across = f"mov word [{SECOND - 1}], 0xFF0F\nmov eax, {SECOND - 1}\njmp eax"
    return guest_of(prepare(), *bad, across)


def at_the_beginning() -> KernelGuest:
    """Code at 0, where a unit of no context would be; it pushes CS."""
    there = "mov dword [0], 0x00C3580E\nmov ebx, 0\ncall ebx"  # push cs; pop eax; ret
    user = in_ring_3("push cs", f"pop dword [{DATA + 8}]")
    return guest_of(
        f"{there}\nmov [{DATA}], eax", f"{enable(0)}\n{there}\nmov [{DATA + 4}], eax", user
    )


def in_a_segment() -> KernelGuest:
    """Loops and calls where CS has a base, or ends, or is another flat one."""
    body = (
        "mov edx, 0\nmov ecx, 5\n.more: add edx, ecx\ndec ecx\njnz .more\nmov ebx, 3\n"
        ".again: add edx, ebx\nsub ebx, 1\njnz .again\n"
    )
    steps = []
    for n, (base, limit, flags) in enumerate((
        (0x1010, 0xFFFFF, 0xC), (0, 0x10F, 0xC), (0, 0xFFFFF, 0xC), (0x20, 0xFFFFF, 0xC),
    )):  # fmt: skip
        steps.append(
            f"{store(GDT + SPARE, descriptor(base, limit, 0x9B, flags))}\n"
            f"{body.replace('more', 'more_1').replace('again', 'again_1')}"
            f"jmp {SPARE}:.inside - {base}\n.inside:\n{body}jmp {KCODE}:.outside\n"
            f".outside: mov [{DATA + 4 * n}], edx\n"
            + body.replace("more", "more_2").replace("again", "again_2")
        )
    beyond = (
        f"{store(GDT + SPARE, descriptor(0, 0x10F, 0x9B))}\njmp {SPARE}:.in\n.in: mov ecx, 3\n"
        "times 46 nop\n"  # then the longest unit ends within the loop
        ".more: add edx, ecx\ndec ecx\njz 0x110800\njmp .more"
    )
    return guest_of(*steps, beyond, enable(0), *steps, beyond)


def moves_itself() -> KernelGuest:
    """INVLPG of the page that it is in: the next instruction is another."""
    store_entry = f"mov dword [{TABLE}], ebx"
    code = f"mov ecx, {REGION}\n{store_entry}\ninvlpg [ecx]\n"
    copies = []
    for frame, number in ((FRAMES, 3), (SECOND, 5)):
        data = assemble(f"{code}mov eax, {number}\nret", origin=REGION + 0x40).flat()
        copies += [f"mov byte [{frame + 0x40 + n}], {byte}" for n, byte in enumerate(data)]
    moves = "\n".join(
        f"mov ebx, {frame | 7}\nmov edx, {REGION + 0x40}\ncall edx\nmov [{DATA + 4 * n}], eax"
        for n, frame in enumerate((SECOND, FRAMES, FRAMES, SECOND))
    )
    table = f"mov dword [{DIRECTORIES[0] + 4 * REGION_INDEX}], {TABLE | 7}"
    start = "\n".join((*copies, table, f"mov dword [{TABLE}], {FRAMES | 7}", enable(0)))
    return guest_of(f"{start}\n{moves}\n{moves}")


def checked_by_ring_3() -> KernelGuest:
    """Ring 3's alignment is checked, while its code checks itself, at odd addresses."""
    code = f"mov dword [{FRAMES + 0x41}], 0xC3424240"
    trips = [
        in_ring_3(f"mov eax, {FRAMES + 0x41}", "call eax", "call eax", flags=flags)
        for flags in (2, 0x40002)
    ]
    own = f"mov dword [{FRAMES + 0x40}], 0xC3404040"
    return guest_of(
        f"{prepare()}\nmov eax, cr0\nor eax, 0x40000\nmov cr0, eax",
        f"{THERE}\n{own}\n{MIX}\n{code}", *trips, code, *trips,
    )  # fmt: skip


def copied() -> KernelGuest:
    """SS has a base, at which there is a copy of code that changes, in a page that mixes."""
    base, at = 0x8000, FRAMES + 0x40
    codes = [f"mov dword [{where}], 0xC3404040" for where in (at, at + base)]
    spare = store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x93))
    under = f"mov eax, {SPARE}\nmov ss, ax\nmov esp, {STACK_TOP - base}"
    back = f"mov ecx, {KDATA}\nmov ss, cx\nmov esp, {STACK_TOP}"
    change = f"mov byte [{at}], 0x42\nmov edx, 0\nmov eax, 0\ncall .there\nmov [{DATA}], edx"
    return guest_of(
        f"{prepare()}\n{THERE}\n{codes[0]}\n{MIX}\n{codes[1]}\n{spare}\n{under}\ncall .there\n"
        f"{change}\n{back}\nmov [{DATA + 4}], eax"
    )


CODE_KERNELS: Final[dict[str, Callable[[], KernelGuest]]] = {
    "code that moves itself": moves_itself,
    "code checked by ring 3": checked_by_ring_3,
    "code copied to a stack's base": copied,
    "mapped by an untraced table": mapped_by_an_untraced_table,
    "code in several spaces": in_several_spaces,
    "code moved after a flush": moved_after_a_flush,
    "changes far into a unit": far_into_a_unit,
    "undecodable code": undecodable,
    "code at the beginning": at_the_beginning,
    "code in a segment": in_a_segment,
}
