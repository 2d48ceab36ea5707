"""Shadow page tables against the guest's own, by a walker that knows neither's code (walker.py)."""

from __future__ import annotations

import pytest

from guests import find
from hypervisor.vm import VirtualMachine
from isa import assemble_file
from tests.hypervisor.kernel_guests import MAX_TICKS, RAM, random_guest
from tests.hypervisor.walker import check, shadow_entries

EVERY = 97  #: ticks between two looks


def watch(vm: VirtualMachine, until: int, every: int) -> int:
    """Run and look at the shadows now and then; how many entries were looked at."""
    seen = tick = 0
    while tick < until:
        tick += every
        stopped = vm.run(max_ticks=tick).ticks < tick
        seen += check(vm)
        if stopped:
            break
    return seen


def check_guest(seed: int, technique: str) -> int:
    vm = VirtualMachine(technique=technique, ram=RAM, virtualizable=technique == "trap")
    vm.load(random_guest(seed).program)
    return watch(vm, MAX_TICKS, EVERY)


def test_generated_kernels() -> None:
    assert sum(check_guest(seed, "trap") for seed in range(30)) > 1000


@pytest.mark.deep
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("technique", ["trap", "interpret"])
def test_generated_kernels_deep(technique: str, part: int) -> None:
    assert sum(check_guest(seed, technique) for seed in range(part * 100, part * 100 + 100)) > 1000


@pytest.mark.parametrize("name", ["paging", "alias"])
def test_paging_guests(name: str) -> None:
    guest = find(name)
    vm = VirtualMachine(assemble_file(guest.source, include=guest.includes), "trap")
    assert watch(vm, guest.ticks, 1009) > 400


def test_the_small_operating_system() -> None:
    guest = find("os")
    program = assemble_file(guest.source, include=guest.includes)
    vm = VirtualMachine(program, "trap", virtualizable=True, console_in=b"ps\nforktest\nexit\n")
    assert watch(vm, 20_000_000, 40_000) > 1000


def test_the_walker_sees_what_is_wrong() -> None:
    """Each way in which an entry may say too much is caught."""
    guest = find("alias")
    vm = VirtualMachine(assemble_file(guest.source, include=guest.includes), "trap")
    vm.run(max_ticks=20_000)
    assert check(vm) > 0
    linear, entry = next(iter(shadow_entries(vm)))
    memory = vm.host.memory
    table = memory.u32(vm.paging.root() + (linear >> 22) * 4) & ~0xFFF
    place = table + (linear >> 12 & 1023) * 4
    for wrong in (entry ^ 1 << 12, entry ^ 1 << 20):
        memory.write(place, wrong.to_bytes(4, "little"))
        with pytest.raises(AssertionError):
            check(vm)
        memory.write(place, entry.to_bytes(4, "little"))
    assert check(vm) > 0
