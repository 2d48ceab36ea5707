"""Under `translate` the real CPU executes nothing of a kernel's own code, but what is in the cache.

Every instruction that it executes is looked at.
"""

from __future__ import annotations

from typing import Any

import pytest

from emulator import Machine
from emulator.core import TraceKind
from emulator.result import Stop
from guests import find
from hypervisor.techniques.translate import Translate
from hypervisor.translator.cache import LEAST_BYTES
from hypervisor.vm import VirtualMachine
from isa import assemble_file
from tests.hypervisor.kernel_guests import MAX_TICKS, RAM, random_guest
from tests.hypervisor.test_differential import LEAKS


class Watch:
    """Which addresses the real CPU executes at."""

    def __init__(self, vm: VirtualMachine) -> None:
        self.executed: set[int] = set()
        self._take = vm.host.cpu.take_trace
        vm.host.cpu.take_trace = self._see  # type: ignore[method-assign]
        vm.set_tracer(TraceKind.EXEC, self)

    def _see(self, *arguments: Any) -> Any:
        records = self._take(*arguments)
        self.executed.update(int(record.eip) for record in records)
        return records

    def render(self, records: Any) -> None:
        """The virtual CPU's are of no interest here."""


def check_executed(image: Any, technique: Translate) -> None:
    vm = VirtualMachine(technique=technique, ram=RAM)
    vm.load(image)
    watch = Watch(vm)
    vm.run(MAX_TICKS)
    assert watch.executed
    assert {hex(eip) for eip in watch.executed if not technique.holds(eip)} == set()
    assert vm.real.retired_cpl0 == 0


@pytest.mark.parametrize("name", ["hello", "selfmod", "kprobe_popf", "kprobe_pushf"])
def test_no_kernel_runs_outside_the_cache(name: str) -> None:
    """These have nothing but a kernel: all that the real CPU executes is in the cache."""
    guest = find(name)
    assert guest.rings == (0,)
    image = assemble_file(guest.source, include=guest.includes).elf()
    check_executed(image, Translate(cache_bytes=LEAST_BYTES))


def test_nothing_runs_outside_the_cache_where_ring_3_is_translated() -> None:
    for seed in range(8):
        check_executed(random_guest(seed).program, Translate(user=True))


def kernels_own(image: Any) -> set[int]:
    """EIPs that the bare machine executes in ring 0, and never in ring 3."""
    machine = Machine(ram=RAM)
    machine.load(image)
    state = machine.cpu.state
    by_ring: dict[int, set[int]] = {0: set(), 3: set()}
    for tick in range(1, MAX_TICKS):
        by_ring[state.cpl].add(state.eip)
        if machine.run(tick).stop is not Stop.OUT_OF_TICKS:
            break
    return by_ring[0] - by_ring[3]


@pytest.mark.parametrize("seed", range(8))
def test_no_kernel_of_users_runs_outside_the_cache(seed: int) -> None:
    """Ring 3's code runs as it is, and nothing else does."""
    image = random_guest(seed, without=LEAKS).program
    technique = Translate()
    vm = VirtualMachine(technique=technique, ram=RAM)
    vm.load(image)
    watch = Watch(vm)
    vm.run(MAX_TICKS)
    assert any(technique.holds(eip) for eip in watch.executed)
    assert {hex(eip) for eip in watch.executed & kernels_own(image)} == set()
