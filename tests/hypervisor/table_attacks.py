"""Kernels that go for their own page tables, and a judge of what the hardware then could reach.

A `TableAttack` changes page-table entries in every way there is: stores, locked and repeated ones,
pushes, batches of mmu_update; so that tables become data and data tables, directories map
themselves, 4 MiB pages lie over tables, frames are a stranger's. `check_reach` walks the machine's
tables from the real CR3 as the hardware would (SDM vol. 3, 4.3); it shares no code with
memory/shared.py. `watched` has it called whenever the real CPU is entered and left. Read
test_shared.py next; kernel_world.py is the world around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Final

from emulator.loader import HOLE
from hypervisor.hypercalls import BY_NAME
from hypervisor.vm import VirtualMachine
from isa.paravirt import HYPERCALL_VECTOR
from tests.hypervisor.kernel_guests import KernelGuest
from tests.hypervisor.kernel_memory import enable
from tests.hypervisor.kernel_steps import LEAVE_RING_3, into_ring_3, lines
from tests.hypervisor.kernel_world import (
    ALIAS,
    ALIAS_TABLES,
    DATA,
    DIRECTORIES,
    GDT,
    IDT,
    LEFT,
    LOW_TABLES,
    RECOVER,
    TOP_TABLE,
    TSS,
    P,
    U,
    W,
)
from tests.hypervisor.walker import LARGE, MONITOR_ENTRY, PAGE, PRESENT, USER, WRITABLE, words

SPARE: Final = (0x130000, 0x131000, 0x132000)  #: pages that nothing else uses
BATCH: Final = 0x133000  #: what mmu_update reads
TABLES: Final = (*DIRECTORIES, *LOW_TABLES, *ALIAS_TABLES, TOP_TABLE)
PAGES: Final = (*TABLES, *SPARE, DATA, DATA + 0x1000, GDT, TSS)
#: Nobody's, the hypervisor's or beyond all memory, in a machine of 2 MiB and what is behind it.
STRANGE: Final = (0xA0000, 0xC8000, 0x200000, 0x300000, 0x5F0000, 0x7FF000, 0x800000, 0xFFFFF000)
#: 0xE3 and 0xE5: 4 MiB pages that have been used, of the kernel, and read-only.
RIGHTS: Final = (P | W | U, P | W | U, P | W, P | U, 0xE3, P | W | U | LARGE, 0xE5, 0x67, 0xE7)
UPPER: Final = (1, 1, 2, 3, 1022, 1023)  #: entries of directories; the first maps the kernel


def _place(rng: Random) -> int:
    """Where an entry lies; never one that maps what the kernel needs to go on."""
    if rng.randrange(2):
        return rng.choice((*DIRECTORIES, *SPARE)) + 4 * rng.choice(UPPER)
    table = rng.choice((*LOW_TABLES, *ALIAS_TABLES, *SPARE))
    pages = [page for page in PAGES if page not in (GDT, TSS)]
    return table + 4 * (rng.choice(pages) >> 12)


def _value(rng: Random) -> int:
    if rng.randrange(8) == 0:
        return rng.choice((0, 0x80 | P | W | U, rng.randrange(1 << 32)))
    return rng.choice(PAGES if rng.randrange(4) else STRANGE) | rng.choice(RIGHTS)


def _linear(rng: Random) -> int:
    page = rng.choice(PAGES) + 4 * rng.randrange(1024)
    base = rng.choice((0, ALIAS, 2 * ALIAS, 3 * ALIAS, 1022 * ALIAS, 1023 * ALIAS))
    return (base + page) & 0xFFFFFFFC


def store(rng: Random) -> str:
    """One entry, by some instruction and some name of its page."""
    at, value = _place(rng), _value(rng)
    if rng.randrange(3) == 0:
        at += rng.choice((ALIAS, 2 * ALIAS, 3 * ALIAS))
    return rng.choice(
        (
            f"mov dword [{at}], {value}",
            f"mov eax, {value}\nxchg eax, [{at}]",
            f"or dword [{at}], {value}",
            f"lock bts dword [{at}], {rng.randrange(32)}",
            f"mov edi, {at}\nmov ecx, 3\nmov eax, {value}\nrep stosd",
            f"mov word [{at}], {value & 0xFFFF}",
        )
    )


def copy(rng: Random) -> str:
    """A whole page becomes another's twin: data become tables."""
    return lines(
        f"mov esi, {rng.choice(TABLES)}", f"mov edi, {rng.choice(SPARE)}", "mov ecx, 1024",
        "rep movsd",
    )  # fmt: skip


def recursive(rng: Random) -> str:
    """A directory is one of its own tables, or another's; through it, an entry is written."""
    directory, upper = rng.choice(DIRECTORIES), rng.choice((2, 3, 1022))
    inner = directory if rng.randrange(3) else rng.choice(DIRECTORIES)
    entry = rng.choice((0, 1, 4, 1023)) << 12 | 4 * rng.choice((*UPPER, DATA >> 12))
    return lines(
        f"mov dword [{directory + 4 * upper}], {inner | rng.choice(RIGHTS)}",
        f"mov eax, {directory}\nmov cr3, eax",
        f"mov dword [{upper * ALIAS + entry}], {_value(rng)}",
    )


def promote(rng: Random) -> str:
    """Data become a table while the TLB has them writable; then they are written again."""
    directory, page, upper = rng.choice(DIRECTORIES[:2]), rng.choice(SPARE), rng.choice((2, 3))
    maps = LOW_TABLES[DIRECTORIES.index(directory)] + (page >> 10)
    return lines(
        f"mov eax, {directory}\nmov cr3, eax",
        f"mov dword [{page}], 0",
        f"mov dword [{directory + 4 * upper}], {page | P | W | U}",
        rng.choice(("nop", f"mov dword [{maps}], 0\nmov dword [{maps}], {page | P}\n"
                           f"or dword [{maps}], {W}")),
        f"mov dword [{page + 4 * rng.randrange(4)}], {_value(rng)}",
        f"mov dword [{upper * ALIAS + 0x1000 * rng.randrange(4)}], {_value(rng)}",
    )  # fmt: skip


def twin(rng: Random) -> str:
    """A copy of a directory is another, or a table, or both; and is then written to."""
    first, page = rng.choice(DIRECTORIES), rng.choice(SPARE)
    table = f"mov dword [{first + 8}], {page | P | W | U}"
    change = f"mov dword [{page + 4 * rng.choice((*UPPER, 0x131, 0x112))}], {_value(rng)}"
    back = [f"mov eax, {page}\nmov cr3, eax", f"mov eax, {first}\nmov cr3, eax"]
    return lines(
        f"mov esi, {first}", f"mov edi, {page}", "mov ecx, 1024", "rep movsd",
        table if rng.randrange(2) else "nop", *(back if rng.randrange(2) else back[::-1]),
        change, f"mov dword [{2 * ALIAS + rng.randrange(0x400000) & ~3}], {_value(rng)}",
    )  # fmt: skip


def stack(rng: Random) -> str:
    """A table is a stack, for an event's frame too."""
    return lines(f"mov esp, {_place(rng) + 4}", f"push dword {_value(rng)}",
                 rng.choice(("int 0x30", "ud2", "call $+5")))  # fmt: skip


def exchange(rng: Random) -> str:
    """A lock-free update: what was read is compared."""
    at = _place(rng)
    return lines(f"mov eax, [{at}]", f"mov ecx, {_value(rng)}", f"lock cmpxchg [{at}], ecx")


def batch(rng: Random) -> str:
    """mmu_update, sometimes with an entry that is none."""
    count = rng.randrange(1, 5)
    updates = [(_place(rng), _value(rng)) for _ in range(count)]
    if rng.randrange(6) == 0:
        updates[rng.randrange(count)] = rng.choice(STRANGE) + rng.choice((0, 2)), _value(rng)
    stores = [
        f"mov dword [{BATCH + 8 * number}], {at}\nmov dword [{BATCH + 8 * number + 4}], {value}"
        for number, (at, value) in enumerate(updates)
    ]
    call = BY_NAME["mmu_update"].number
    return lines(*stores, f"mov ebx, {BATCH}", f"mov ecx, {count}", f"mov eax, {call}",
                 f"int {HYPERCALL_VECTOR}")  # fmt: skip


def reload(rng: Random) -> str:
    """CR3 anew, or another page in it: a directory, seldom a table or a strange one."""
    page = rng.choice(DIRECTORIES if rng.randrange(6) else (*STRANGE, *STRANGE, *TABLES[3:]))
    return f"mov eax, {page}\nmov cr3, eax" if rng.randrange(2) else "mov eax, cr3\nmov cr3, eax"


def use(rng: Random) -> str:
    """A store that would be an entry, wherever the tables lead."""
    return f"mov dword [{_linear(rng)}], {_value(rng)}"


def user(rng: Random) -> str:
    return lines(*into_ring_3(rng, 0), use(rng), LEAVE_RING_3)


def switch(rng: Random) -> str:
    """Paging off and on, or CR4.PSE or CR0.WP the other way."""
    return rng.choice((
        "mov eax, cr0\nand eax, 0x7FFFFFFF\nmov cr0, eax\n" + use(rng),
        "mov eax, cr4\nxor eax, 0x10\nmov cr4, eax",
        "mov eax, cr0\nxor eax, 0x10000\nmov cr0, eax\n" + use(rng),
        f"lgdt [{GDT + 0x800}]" if rng.randrange(4) == 0 else f"sidt [{IDT + 0x700}]",
    ))  # fmt: skip


FLUSH: Final = "mov eax, cr3\nmov cr3, eax"


@dataclass(frozen=True)
class TableAttack(KernelGuest):
    """The attack of a number. hostile: with hypercalls, which its native twin has nobody for, with
    stale TLB entries, and with reads of tables, which show the veil."""

    number: int = 0
    hostile: bool = True

    @cached_property
    def steps_source(self) -> str:
        rng = Random(f"table attack {self.number}")
        ways: list[Callable[[Random], str]] = [store, store, store, reload, use, use, user, switch,
                                               recursive, promote]  # fmt: skip
        ways += [batch, batch, copy, stack, exchange, twin] if self.hostile else []
        text, count = "", rng.randrange(4, 24)
        for number in range(count):
            start = lines(enable(rng.randrange(3))) if rng.randrange(4) == 0 or not number else ""
            flush = FLUSH if not self.hostile or rng.randrange(2) else ""
            text += f"step_{number}:\nmov dword [{RECOVER}], step_{number + 1}\n"
            text += f"mov dword [{LEFT}], .finished\n"
            text += lines(start, rng.choice(ways)(rng), flush, use(rng)) + "\n.finished:\n"
        return text + f"step_{count}:\nmov al, 1\nout 0xF4, al\ncli\nhlt\n"


def attack(number: int, *, hostile: bool = True) -> TableAttack:
    """The guest of that number."""
    return TableAttack((), number, hostile)


# -- What the hardware could reach -----------------------------------------------------------------


def check_reach(vm: VirtualMachine) -> int:
    """Assert that the real CPU's tables lead to the guest's own frames alone, and that no page of
    these tables is writable; how many entries were looked at."""
    memory, real = vm.host.memory, vm.host.cpu.state
    assert real.cr0 >> 31
    assert not real.cr4 & 16
    assert real.cr0 & 1 << 16
    root, monitors = real.cr3 >> 12, vm.monitor.page_table
    own = set(vm.guest_page)
    nowhere = range(HOLE.start // PAGE, HOLE.stop // PAGE)
    described = vm.descriptors._pages  # page -> descriptors that the real CPU has from there
    used, writable, count = {root}, set(), 0
    for upper, above in enumerate(words(memory.read(root << 12, PAGE))):
        table = above >> 12
        if upper == MONITOR_ENTRY:
            assert (table, above & (PRESENT | USER)) == (monitors, PRESENT)
            continue
        if not above & PRESENT:
            continue
        assert table in own or table in vm.paging._spans.values() or table == 0xFFFFF, hex(above)
        used |= {table} & own
        for lower, entry in enumerate(words(memory.read(table << 12, PAGE))):
            frame = entry >> 12
            if not entry & PRESENT:
                continue
            count += 1
            is_none = frame in nowhere or frame >= memory.size // PAGE
            assert frame in own or is_none, f"{upper << 22 | lower << 12:#x}: {entry:#x}"
            if above & entry & WRITABLE:
                writable.add(frame)
    assert not used & writable, [hex(page << 12) for page in used & writable]
    traced = {page for page in writable if vm.paging.is_traced(page) or described.get(page)}
    assert not traced, [hex(page << 12) for page in traced]
    return count


def watched(vm: VirtualMachine) -> list[int]:
    """Have `check_reach` called at each entry and exit of the real CPU; its counts."""
    seen: list[int] = []

    def run(until: int) -> int:
        seen.append(check_reach(vm))
        reason: int = vm.host.cpu.run(until)
        seen.append(check_reach(vm))
        return reason

    vm._run_real = vm.paging.runner(run)
    return seen
