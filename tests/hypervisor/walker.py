"""A walker of page tables in Python, to judge the shadow tables by: it shares no code with either.

`check` looks at every entry that the real CPU could use, and asks the guest's own tables, as the
SDM (vol. 3, 4.3) has them, whether it may be there. Entries may be missing; none may say too much.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hypervisor.vm import VirtualMachine

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 32, 64, 128
MONITOR_ENTRY = 1023
PAGE = 4096


@dataclass(frozen=True)
class Meaning:
    """What a guest's tables say of a linear page."""

    page: int  #: guest-physical page
    writable: bool
    user: bool
    dirty: bool
    accessed: bool  #: all entries on the way are


def words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def guest_meaning(vm: VirtualMachine, linear: int) -> Meaning | None:
    """By the guest's own tables; None where they map nothing."""
    state = vm.cpu.state
    if not state.cr0 >> 31:
        return Meaning(linear >> 12, True, True, True, True)
    upper = vm.memory.u32((state.cr3 & ~0xFFF) + (linear >> 22) * 4)
    if not upper & PRESENT:
        return None
    if upper & LARGE and state.cr4 & 16:
        page = (upper >> 22 << 10) + (linear >> 12 & 1023)
        return Meaning(page, bool(upper & 2), bool(upper & 4), bool(upper & 64), bool(upper & 32))
    lower = vm.memory.u32((upper & ~0xFFF) + (linear >> 12 & 1023) * 4)
    if not lower & PRESENT:
        return None
    both = upper & lower
    return Meaning(
        lower >> 12, bool(both & WRITABLE), bool(both & USER), bool(lower & DIRTY),
        bool(both & ACCESSED),
    )  # fmt: skip


def shadow_entries(vm: VirtualMachine) -> Iterator[tuple[int, int]]:
    """(linear page address, entry) of all that the real CPU's tables map, but the monitor area."""
    memory = vm.host.memory
    for upper, above in enumerate(words(memory.read(vm.paging.root(), PAGE))):
        if not above & PRESENT or upper == MONITOR_ENTRY:
            continue
        for lower, entry in enumerate(words(memory.read(above & ~0xFFF, PAGE))):
            if entry & PRESENT:
                yield upper << 22 | lower << 12, entry


def check(vm: VirtualMachine) -> int:
    """Assert that no shadow entry says more than the guest's tables; how many there are."""
    vm.world.leave()
    count = 0
    for linear, entry in shadow_entries(vm):
        meaning = guest_meaning(vm, linear)
        where = f"{linear:#x}: shadow {entry:#x}, guest {meaning}"
        assert meaning is not None, where
        assert entry >> 12 == vm.memory.frame(meaning.page), where
        assert meaning.accessed, where
        assert not entry & USER or meaning.user, where
        if entry & WRITABLE:
            assert meaning.dirty, where
            assert not vm.paging.is_traced(meaning.page), where
            kernels_alone = not entry & USER and not vm.cpu.state.cr0 & 1 << 16
            assert meaning.writable or kernels_alone, where
        count += 1
    return count
