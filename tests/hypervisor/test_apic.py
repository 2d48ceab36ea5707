"""A kernel that lives by its local APIC, natively and under every technique.

Nobody watching, the core serves the local APIC itself, natively, and a hypervisor lends the real
one; watched, every access goes over the bus. All of these must be one and the same to the guest.
"""

from __future__ import annotations

from typing import Any

import pytest

from emulator import Machine
from emulator.result import Result, Stop
from hypervisor.experiments.observe import MachineRun, NativeRun, compare
from hypervisor.vm import VirtualMachine
from isa import assemble
from tests.hypervisor.apic_guest import PROGRAM, RAM, TICKS

WAYS: dict[str, dict[str, Any]] = {
    "interpret": {"technique": "interpret"},
    "trap": {"technique": "trap", "virtualizable": True},
    "translate": {"technique": "translate"},
    "patch": {"technique": "patch"},
    "nested": {"technique": "hardware", "mmu": "nested"},
    "shadow": {"technique": "hardware", "mmu": "shadow"},
}


def run(machine: Machine) -> Result:
    machine.load(PROGRAM)
    return machine.run(TICKS)


@pytest.fixture(scope="module")
def native() -> Result:
    return run(Machine(ram=RAM, machine="apic"))


@pytest.fixture(scope="module")
def watched() -> NativeRun:
    found = NativeRun(PROGRAM, ram=RAM, machine="apic")
    found.run(TICKS)
    return found


def test_it_ends(native):
    assert native.stop is Stop.HALTED
    assert native.output == b"a" * 19


def test_natively_its_registers_cost_no_exit(native, watched):
    ours = [a for a in watched.observe().accesses if a.address >> 12 == 0xFEE00]
    assert len(ours) > 200
    stores = [a for a in watched.observe().accesses if a.address >> 12 == 0xFEC00]
    # Of the level's interrupts alone the I/O APIC must hear the end.
    assert native.exits["mmio_write"] == len(stores) + 20
    assert native.exits["mmio_read"] == native.exits["interrupt"] == 0


def test_being_watched_changes_nothing(native, watched):
    assert watched.result is not None
    assert watched.result.registers == native.registers
    assert watched.result.ticks == native.ticks


@pytest.mark.parametrize("way", WAYS)
def test_a_lent_one_is_the_guests_own(native, way):
    result = run(VirtualMachine(ram=RAM, machine="apic", **WAYS[way]))
    assert (result.stop, result.registers, result.ticks, result.output) == (
        native.stop, native.registers, native.ticks, native.output,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_access_is_the_same(watched, way):
    virtual = MachineRun(VirtualMachine(ram=RAM, machine="apic", **WAYS[way]), PROGRAM)
    virtual.run(TICKS)
    assert compare(watched.observe(), virtual.observe(), name=way) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_page_before_it_does_not_bring_it_along(way):
    """Shadows are made for some pages at once, but devices are never among them."""
    program = assemble("mov eax, [0xFEDFF000]\nmov eax, [0xFEE00030]\ncli\nhlt")
    machine = VirtualMachine(ram=RAM, machine="apic", **WAYS[way])
    seen = MachineRun(machine, program)
    seen.run(TICKS)
    assert [access.address for access in seen.observe().accesses] == [0xFEE00030]


@pytest.mark.parametrize("way", ["translate", "nested", "trap"])
def test_lent_registers_cost_no_exit(way):
    machine = VirtualMachine(ram=RAM, machine="apic", **WAYS[way])
    result = run(machine)
    # Those of the I/O APIC, and the ends of its levels' interrupts.
    assert result.exits["device access"] + result.exits["mmio write"] < 60


def test_two_machines_take_turns_with_the_real_one(native):
    from hypervisor.host import Host

    host = Host("16M", guests=3)
    machines = [
        VirtualMachine(technique=technique, ram=RAM, machine=machine, host=host)
        for technique, machine in (("translate", "apic"), ("hardware", "apic"), ("patch", "pc"))
    ]
    for machine in machines[:2]:
        machine.load(PROGRAM)
    machines[2].load(assemble("mov ecx, 100000\nagain: loop again\ncli\nhlt"))
    results = host.run(machines, TICKS)
    assert [result.registers for result in results[:2]] == [native.registers] * 2
    assert results[2].stop is Stop.HALTED


@pytest.mark.parametrize("at", range(1000, 400_000, 57_131))
@pytest.mark.parametrize("way", ["native", "translate", "nested"])
def test_saved_at_any_tick(native, way, at):
    def make() -> Machine:
        if way == "native":
            return Machine(ram=RAM, machine="apic")
        return VirtualMachine(ram=RAM, machine="apic", **WAYS[way])

    first, second = make(), make()
    first.load(PROGRAM)
    first.run(at)
    second.load(PROGRAM)
    second.restore(first.save())
    result = second.run(TICKS)
    assert (result.registers, result.ticks) == (native.registers, native.ticks)
