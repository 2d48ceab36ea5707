"""Kernels whose stores to page tables become adaptive, and then find something else.

Written as translated_kernels.py's are, which has them in its list. Each has one store instruction,
`.set`, that does it all: first to entries that nothing uses, until it is adaptive, then elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.hypervisor.kernel_code import FRAMES, SLOTS, entry_of, prepare
from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_rings import timer_writes
from tests.hypervisor.kernel_world import (
    ALIAS,
    CALL_GATE,
    DATA,
    DIRECTORIES,
    GDT,
    KDATA,
    LOW_TABLES,
    SPARE,
    STACK_TOP,
    descriptor,
)
from tests.hypervisor.test_translate import guest_of, in_ring_3
from tests.hypervisor.translated_code import SECOND, adds, call
from tests.hypervisor.written_tables import store

#: Entries of a page table that nothing is mapped by, and enough stores for any way of following.
UNUSED: Final = entry_of(0, SLOTS + 0x20000)
ENOUGH: Final = 14
ENTRY: Final = entry_of(0, SLOTS)


def routine(code: str = "mov [ebx], eax") -> str:
    return f"jmp .begin\n.set: {code}\nret\n.begin:"


def put(at: int, value: int) -> str:
    """One store. Bit 0 of a value is not to be set where nothing must be mapped."""
    return f"mov ebx, {at}\nmov eax, {value}\ncall .set"


WARM: Final = "\n".join(put(UNUSED + 4 * n, 2 * n) for n in range(ENOUGH))
#: Flags that stores are to leave, or to change, and registers that they must not.
FLAGS: Final = (2, 0x8D7, 0x802, 0x46)
REGISTERS: Final = "mov eax, 0x80000010\nmov ecx, 0x22222222\nmov edx, 0x33333332"


def _looked_at(at: int, flags: int) -> str:
    """One store with all registers and flags known, and what it has left."""
    cells = "\n".join(
        f"mov [ebp + {4 * n}], {name}" for n, name in enumerate(("eax", "ecx", "edx", "ebx"))
    )
    return (
        f"{REGISTERS}\nmov ebx, {at}\npush {flags}\npopf\ncall .set\n{cells}\npushf\n"
        f"pop dword [ebp + 16]\nmov eax, [{at}]\nmov [ebp + 20], eax\nadd ebp, 24"
    )


def registers_and_flags(code: str) -> KernelGuest:
    """Stores of a kind, by their alias and without one, with registers and flags looked at."""
    places = [UNUSED + 4 * n for n in (1, 2)] + [DATA + 0x1000]
    looks = "\n".join(_looked_at(at, flags) for at in places for flags in FLAGS)
    return guest_of(
        f"{enable(0)}\n{routine(code)}\nmov ecx, 0\nmov edx, 4\n{WARM}\nmov ebp, {DATA + 0x200}\n"
        f"{looks}"
    )


def interrupted() -> KernelGuest:
    """The timer strikes behind each instruction of a store, by and by."""
    ticking = "\n".join(timer_writes(2, 2))
    return guest_of(
        f"{enable(0)}\n{routine()}\n{WARM}\n{ticking}\nmov ebx, {UNUSED}\nmov edx, 0x77777777\n"
        "mov ecx, 300\nsti\n.more: mov eax, ecx\nadd eax, eax\ncall .set\nadd esi, edx\n"
        "loop .more\n"
        f"cli\nmov [{DATA}], edx\nmov [{DATA + 4}], esi"
    )


def elsewhere() -> KernelGuest:
    """What has the same number as an alias, by its bits 12 to 17, but is no table."""
    far = [UNUSED + distance for distance in (-0x40000, -0x80000, 0x40000, ALIAS - 0x40000)]
    stores = "\n".join(put(at, 6) for at in far)
    return guest_of(f"{enable(0)}\n{routine()}\n{WARM}\n{stores}\n{put(UNUSED, 8)}\n{stores}")


def through_another_segment() -> KernelGuest:
    """DS is another one, with a base, and the offset that of the table."""
    base = 0x20000
    spare = store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x93))
    flat, other = (f"mov ecx, {selector}\nmov ds, cx\n" for selector in (KDATA, SPARE))
    return guest_of(
        f"{spare}\n{enable(0)}\n{routine()}\n{other}{flat}{WARM}\n{other}{put(UNUSED + 4, 6)}\n"
        f"{flat}"
        f"mov eax, [{UNUSED + 4 + base}]\nmov [{DATA}], eax",
        # And the other way about: what it faulted at was the table, by another offset.
        f"{routine()}\n{other}"
        + WARM.replace(f"{UNUSED}", f"{UNUSED - base}")
        + f"\n{put(UNUSED + 4 - base, 6)}\n{put(UNUSED + 4, 4)}\n{flat}",
    )


def changed_segment() -> KernelGuest:
    """FS is flat when the table gets its alias, and then its descriptor in the GDT has a base."""
    flat, other = (store(GDT + SPARE, descriptor(b, 0xFFFFF, 0x93)) for b in (0, 0x20000))
    load = f"mov eax, {SPARE}\nmov fs, ax"
    return guest_of(
        f"{flat}\n{enable(0)}\n{load}\n{routine('mov [fs:ebx], eax')}\n{WARM}\n{other}\n{load}\n"
        f"{put(UNUSED + 4, 6)}\n{flat}\n{load}"
    )


def in_a_segment_that_ends() -> KernelGuest:
    """The segment ends within a table, which lies low enough for a limit in bytes."""
    table = 0x50000
    ends = store(GDT + SPARE, descriptor(0, table + 0x43, 0x93, 4))
    under = f"mov dword [{DIRECTORIES[0] + 8}], {table | 7}"
    use = f"mov eax, [{2 * ALIAS}]"
    warm = "\n".join(put(table + 4 * n, 2 * n) for n in range(2, ENOUGH))
    return guest_of(
        f"{ends}\n{under}\nmov dword [{table}], {FRAMES | 7}\n{enable(0)}\n{use}\n"
        f"mov eax, {SPARE}\nmov fs, ax\n{routine('mov [fs:ebx], eax')}\n{warm}\n{warm}\n"
        f"{put(table + 0x44, 6)}"
    )


def with_a_shadow() -> KernelGuest:
    """Entries of pages that are in use: what is mapped there changes with the next INVLPG."""
    page = SLOTS + 0x20000
    look = f"mov eax, [{page}]\nadd [{DATA}], eax"
    words = "\n".join(f"mov dword [{frame}], {n}" for n, frame in ((3, FRAMES), (5, SECOND)))
    warm = "\n".join(put(UNUSED + 4 * n, 2 * n) for n in range(20, 20 + ENOUGH))
    turns = "\n".join(
        f"{put(UNUSED + 4 * 20, 4)}\n{put(UNUSED + 4 * 21, 4)}\n{look}\n{put(UNUSED, frame | 7)}\n"
        f"invlpg [{page}]\n{look}"
        for frame in (SECOND, FRAMES)
    )
    return guest_of(
        f"{enable(0)}\n{words}\n{routine()}\n{put(UNUSED, FRAMES | 7)}\ninvlpg [{page}]\n{look}\n"
        f"{warm}\n{turns}\n{turns}"
    )


def made_with_their_neighbours() -> KernelGuest:
    """An entry changes by itself, and then is made in the shadow together with the one before."""
    page = SLOTS + 0x20000
    words = "\n".join(f"mov dword [{frame}], {n}" for n, frame in ((3, FRAMES), (5, SECOND)))
    warm = "\n".join(put(UNUSED + 4 * n, 2 * n) for n in range(20, 20 + ENOUGH))
    return guest_of(
        f"{enable(0)}\n{words}\n{routine()}\n{put(UNUSED, FRAMES | 0x67)}\n"
        f"{put(UNUSED + 4, FRAMES | 0x67)}\n{warm}\n{put(UNUSED + 4, SECOND | 0x67)}\n"
        f"mov eax, [{page}]\nmov eax, [{page + 0x1000}]\nadd [{DATA}], eax"
    )


def unaligned() -> KernelGuest:
    """Across two entries, and across the end of the table."""
    last = (UNUSED | 0xFFF) - 1
    places = (UNUSED + 6, UNUSED + 9, UNUSED + 15, last, last - 1, last + 1)
    stores = "\n".join(put(at, 0x20406) for at in places)
    return guest_of(f"{enable(0)}\n{routine()}\n{WARM}\n{stores}\n{put(UNUSED, 8)}\n{stores}")


def of_16_bits() -> KernelGuest:
    """A table in reach of addresses of 16 bits."""
    table = 0x8000
    under = f"mov dword [{DIRECTORIES[0] + 8}], {table | 7}"
    warm = "\n".join(put(table + 4 * n | 0x70000, 2 * n) for n in range(2, 2 + ENOUGH))
    return guest_of(
        f"{under}\nmov dword [{table}], {FRAMES | 7}\n{enable(0)}\nmov eax, [{2 * ALIAS}]\n"
        f"{routine('mov [bx], eax')}\n{warm}\n{warm}\nmov eax, [{table + 12}]\nmov [{DATA}], eax"
    )


def through_gs_by_now() -> KernelGuest:
    """The store's prefix is changed when it is adaptive: what it reaches is in the area's reach."""
    return guest_of(
        f"{enable(0)}\n{routine('db 0x3E' + chr(10) + 'mov [ebx], eax')}\n{WARM}\n"
        f"mov byte [.set], 0x65\n{put(0x700, 6)}\n{put(UNUSED, 8)}\n{put(0x1040, 6)}\n"
        f"{put(0x1050, 6)}\n"
        f"mov byte [.set], 0x2E\n{put(0x700, 4)}"
    )


def of_several_uses() -> KernelGuest:
    """A table with two shadows, for CR0.WP; and two tables of one number, one after another."""
    protect = "mov eax, cr0\nxor eax, 0x10000\nmov cr0, eax"
    look = f"mov eax, [{SLOTS + 0x20000 + 0x40000}]"
    table = LOW_TABLES[0] + 0x40000
    under = f"mov dword [{DIRECTORIES[0] + 8}], {table | 7}\nmov dword [{table}], {FRAMES | 7}"
    same = "\n".join(put(table + 4 * n, 0) for n in range(2, 5))
    other = "\n".join(put(table + 4 * n, 4 * n) for n in range(2, 9))
    return guest_of(
        f"{under}\n{enable(0)}\n{look}\n{routine()}\n{WARM}\n{protect}\n{look}\n{WARM}\n{protect}\n"
        f"{look}\n{WARM}",
        f"{routine()}\nmov eax, [{2 * ALIAS}]\n{WARM}\n{same}\n{other}\n{put(UNUSED, 2)}\n"
        f"{put(UNUSED, 4)}\n{put(UNUSED, 8)}\nmov eax, [{table + 12}]\nmov [{DATA}], eax",
    )


def of_two_rights() -> KernelGuest:
    """One directory has the table twice, with other rights: it has two shadows."""
    again = f"mov dword [{DIRECTORIES[0] + 16}], {LOW_TABLES[0] | 5}"
    look = f"mov eax, [{SLOTS + 0x60000}]\nmov eax, [{4 * ALIAS + SLOTS + 0x60000}]"
    return guest_of(f"{again}\n{enable(0)}\n{look}\n{routine()}\n{WARM}\n{look}\n{WARM}")


def when_the_segment_is_another_by_then() -> KernelGuest:
    """A store to code in a table, by which nothing is translated under this stack any more: when
    something is again, DS is one that nothing can be stored by."""
    at, base = LOW_TABLES[0] + 0xC00, 0x1000
    spare = store(GDT + SPARE, descriptor(base, 0xFFFFF, 0x93))
    code = store(GDT + CALL_GATE, descriptor(0, 0xFFFFF, 0x9B))
    under = f"mov eax, {SPARE}\nmov ss, ax\nmov esp, {STACK_TOP - base}"
    back = f"mov ecx, {KDATA}\nmov ss, cx\nmov esp, {STACK_TOP}"
    to_code = f"mov ecx, {CALL_GATE}\nmov ds, cx"
    return guest_of(
        f"{code}\n{spare}\nmov dword [{at}], 0x00C30204\n{enable(0)}\n{call(at, 0)}\n{under}\n"
        f"{routine()}\n{put(at, 0x00C30404)}\n{to_code}\n{back}\n{put(UNUSED, 2)}"
    )


def code_that_moves() -> KernelGuest:
    """Entries of code's pages, which have no shadow, change unseen; then somebody flushes."""
    small = f"mov ax, {SPARE}\nmov ss, ax\nmov esp, 0x800"
    large = f"mov ax, {KDATA}\nmov ss, ax\nmov esp, {STACK_TOP}"
    flushes = (
        f"invlpg [{SLOTS}]", "mov eax, cr3\nmov cr3, eax", f"mov eax, {SLOTS}\ninvlpg [eax]",
        f"{small}\ninvlpg [{SLOTS}]\n{large}", f"{small}\nmov eax, cr3\nmov cr3, eax\n{large}",
    )  # fmt: skip
    steps = [
        f"{routine()}\n{WARM}\n{put(ENTRY, SECOND | 7)}\n{flush}\n{call(SLOTS + 0x40, 8 * n)}\n"
        f"{WARM}\n"
        f"{put(ENTRY, FRAMES | 7)}\n{flush}\n{call(SLOTS + 0x40, 8 * n + 4)}"
        for n, flush in enumerate(flushes)
    ]
    start = f"{prepare()}\n{adds(FRAMES, 3)}\n{adds(SECOND, 5)}\n{call(SLOTS + 0x40, 64)}"
    return guest_of(store(GDT + SPARE, descriptor(DATA, 0xFFFFF, 0x93, 8)) + f"\n{start}", *steps)


def of_another_table(small: bool) -> KernelGuest:
    """FS is loaded with the same selector from another GDT, in a page that is traced already."""
    other = GDT + 0x400
    pointers = "".join(
        f"mov word [{DATA + 0x1000 + 8 * n}], 0x87\nmov dword [{DATA + 0x1002 + 8 * n}], {table}\n"
        for n, table in enumerate((other, GDT))
    )
    copy = f"cld\nmov esi, {GDT}\nmov edi, {other}\nmov ecx, 34\nrep movsd\n"
    flat, based, spare = (
        store(at, descriptor(base, 0xFFFFF, 0x93, flags))
        for at, base, flags in (
            (GDT + SPARE, 0, 0xC), (other + SPARE, 0x20000, 0xC), (other + CALL_GATE, DATA, 8),
        )
    )  # fmt: skip
    load = f"mov eax, {SPARE}\nmov fs, ax"
    change = f"lgdt [{DATA + 0x1000}]"
    if small:  # where nothing is translated
        under = f"mov eax, {CALL_GATE}\nmov ss, ax\nmov esp, 0x800"
        back = f"mov eax, {KDATA}\nmov ss, ax\nmov esp, {STACK_TOP}"
        first = store(GDT + CALL_GATE, descriptor(DATA, 0xFFFFF, 0x93, 8))
        flat, change = f"{flat}\n{first}", f"{under}\n{change}\n{load}\n{back}"
    return guest_of(
        f"{pointers}{copy}{flat}\n{based}\n{spare}\n{enable(0)}\n{load}\n"
        f"{routine('mov [fs:ebx], eax')}\n{WARM}\n{change}\n{load}\n{put(UNUSED + 4, 6)}\n"
        f"lgdt [{DATA + 0x1008}]\n{load}\n{put(UNUSED + 8, 6)}"
    )


def to_code_in_a_table() -> KernelGuest:
    """Entries that nothing is mapped by are code, which runs and is changed by the same store."""
    at = LOW_TABLES[0] + 0xC00  # add al, n; ret
    calls = "\n".join(
        f"{put(at, 0x00C30004 | n << 8)}\n{call(at, 4 * n)}\n{WARM}" for n in (2, 3, 4, 5)
    )
    return guest_of(f"{enable(0)}\n{routine()}\n{WARM}\n{calls}")


def of_both_rings() -> KernelGuest:
    """Ring 3 executes the store, too."""
    calls = [f"mov ebx, {DATA + 4 * n}\nmov eax, {n}\ncall .set" for n in range(2)]
    return guest_of(enable(0), f"{routine()}\n{WARM}\n{in_ring_3(*calls)}")


def _reloaded(base: int, access: int) -> KernelGuest:
    """FS is loaded anew, from a descriptor in an LDT of its own that has changed meanwhile."""
    table, selector = DATA + 0x5000, 0x0C
    load = f"mov dword [{DATA}], 0\nmov word [{DATA + 4}], {selector}\nlfs eax, [{DATA}]"
    flat = store(table + 8, descriptor(0, 0xFFFFF, 0x93))
    other = store(table + 8, descriptor(base, 0xFFFFF, access))
    own = f"{store(GDT + SPARE, descriptor(table, 0x1F, 0x82, 0))}\nmov eax, {SPARE}\nlldt ax"
    return guest_of(
        f"{enable(0)}\n{own}\n{flat}\n{load}\n{routine('mov [fs:ebx], eax')}\n{WARM}\n{other}\n"
        f"{load}\n{put(UNUSED + 4, 6)}\nmov eax, [fs:{UNUSED + 4}]\nmov [{DATA + 8}], eax"
    )


def _both(middle: str = "") -> str:
    """A routine with two adaptive stores, through ES and FS, and no exit between them; flat first,
    until it has been called often enough."""
    code = f"mov [es:ebx], eax\n{middle}mov [fs:ebx + 4], ebp"
    return f"mov edx, {KDATA}\nmov esi, edx\nmov ebp, 6\n{routine(code)}\n{WARM}"


def one_selector_of_two(base: int, access: int) -> KernelGuest:
    """ES is flat, and FS is not, though they have one selector: the GDT has changed between."""
    flat, other = (
        store(GDT + SPARE, descriptor(b, 0xFFFFF, kind)) for b, kind in ((0, 0x93), (base, access))
    )
    again = put(UNUSED, 4)
    return guest_of(
        f"{enable(0)}\nmov eax, {KDATA}\nmov fs, ax\n{_both()}\n{other}\nmov eax, {SPARE}\n"
        f"mov fs, ax\n{flat}\nmov es, ax\n{again}\n{again}\n{again}"
    )


def one_selector_of_late(middle: str) -> KernelGuest:
    """ES is flat, and FS is loaded between the stores by the same selector, which is another
    segment's by now."""
    flat, other = (store(GDT + SPARE, descriptor(b, 0xFFFFF, 0x93)) for b in (0, 0x20000))
    again = f"mov eax, {KDATA}\nmov fs, ax\n{put(UNUSED, 4)}"
    return guest_of(
        f"{enable(0)}\n{flat}\nmov eax, {KDATA}\nmov fs, ax\n{_both(middle)}\n"
        f"mov edx, {SPARE}\nmov es, dx\n{other}\n{again}\n{again}\n{again}"
    )


#: A table that is mapped at a page like others, and what is mapped there later.
SEEN, VIEWED, LATER = SLOTS + 0x20000, 0x150000, SECOND


def of_a_table_that_moves(*flushes: str) -> KernelGuest:
    """A table's own linear page becomes another one's, by an entry that nobody sees changed."""
    under = f"mov dword [{DIRECTORIES[0] + 8}], {VIEWED | 7}\nmov dword [{VIEWED}], {FRAMES | 7}"
    warm = "\n".join(put(SEEN + 4 * n, 2 * n) for n in range(2, ENOUGH))
    others = "\n".join(put(UNUSED + 4 * n, 2 * n) for n in range(2, ENOUGH))
    steps = "\n".join(
        f"{put(UNUSED, VIEWED | 7)}\n{flush}\n{warm}\n{others}\n{warm}\n"
        f"{put(UNUSED, LATER | 7)}\n{flush}\n{put(SEEN + 8, 6)}"
        for flush in flushes
    )
    return guest_of(f"{under}\n{enable(0)}\nmov eax, [{2 * ALIAS}]\n{routine()}\n{steps}")


def in_another_space() -> KernelGuest:
    """A table's linear page is another one's in an address space that is entered while nothing is
    translated."""
    tables = "\n".join((
        f"mov dword [{DIRECTORIES[0] + 8}], {VIEWED | 7}", f"mov dword [{VIEWED}], {FRAMES | 7}",
        f"mov dword [{UNUSED}], {VIEWED | 7}", f"mov dword [{entry_of(1, SEEN)}], {LATER | 7}",
        store(GDT + SPARE, descriptor(DATA, 0xFFFFF, 0x93, 8)),
    ))  # fmt: skip
    warm = "\n".join(put(SEEN + 4 * n, 2 * n) for n in range(2, ENOUGH))
    enter = [f"mov eax, {directory}\nmov cr3, eax" for directory in DIRECTORIES[:2]]
    small = f"mov ax, {SPARE}\nmov ss, ax\nmov esp, 0x800"
    large = f"mov ax, {KDATA}\nmov ss, ax\nmov esp, {STACK_TOP}"
    use = put(SEEN + 8, 6)
    return guest_of(
        f"{tables}\n{enable(0)}\nmov eax, [{2 * ALIAS}]\n{routine()}\n{enter[1]}\n{use}\n"
        f"{enter[0]}\n{warm}\n{small}\n{enter[1]}\n{large}\n{use}"
    )


KINDS_OF_STORES: Final = (
    "mov [ebx], eax", "mov [ebx], edx", "mov [ebx], ecx", "mov [ebx + ecx * 4 - 0x88888888], eax",
    "mov dword [ebx], 0x1234", "add [ebx], eax", "or [ebx], edx", "xor [ebx], ecx",
    "and [ebx], eax",
    "sub [ebx], eax", "add dword [ebx], 6", "xchg [ebx], eax", "lock or [ebx], eax",
)  # fmt: skip
STORE_KERNELS: Final[dict[str, Callable[[], KernelGuest]]] = {
    **{
        f"stores by {code}": lambda code=code: registers_and_flags(code)  # type: ignore[misc]
        for code in KINDS_OF_STORES
    },
    "stores interrupted": interrupted,
    "stores elsewhere": elsewhere,
    "stores through another segment": through_another_segment,
    "stores by a changed segment": changed_segment,
    "stores in a segment that ends": in_a_segment_that_ends,
    "stores to entries with a shadow": with_a_shadow,
    "stores beside what is used": made_with_their_neighbours,
    "stores unaligned": unaligned,
    "stores of 16 bits": of_16_bits,
    "stores through GS by now": through_gs_by_now,
    "stores to tables of several uses": of_several_uses,
    "stores to a table of two rights": of_two_rights,
    "stores by what is code by then": when_the_segment_is_another_by_then,
    "stores that move code": code_that_moves,
    "stores to code in a table": to_code_in_a_table,
    "stores by another table's segment": lambda: of_another_table(False),
    "stores by another table's segment, interpreted": lambda: of_another_table(True),
    "stores of both rings": of_both_rings,
    "stores by a segment that has moved": lambda: _reloaded(0x20000, 0x93),
    "stores by a segment that is read-only by now": lambda: _reloaded(0, 0x91),
    "stores by one selector, one with a base": lambda: one_selector_of_two(0x20000, 0x93),
    "stores by one selector, one read-only": lambda: one_selector_of_two(0, 0x91),
    "stores by one selector, one loaded": lambda: one_selector_of_late("mov fs, dx\n"),
    "stores by one selector, one after the other": lambda: one_selector_of_late(
        "mov es, si\nmov fs, dx\n"
    ),
    "stores to a table that moves": lambda: of_a_table_that_moves(
        f"invlpg [{SEEN}]", "mov eax, cr3\nmov cr3, eax"
    ),
    "stores in another space": in_another_space,
}
