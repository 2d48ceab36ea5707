"""What CPUID calls the CPU's maker: some kernels know a few, and take others for one of them."""

from __future__ import annotations

from typing import Any

import pytest

from emulator import Machine
from emulator.errors import MachineError
from hypervisor.host import Host
from hypervisor.vm import VirtualMachine
from isa import assemble

PROGRAM = assemble("mov eax, 0\ncpuid\ncli\nhlt")


def vendor_of(machine: Machine) -> str:
    machine.load(PROGRAM)
    registers = machine.run(10_000).registers
    words = (registers.ebx, registers.edx, registers.ecx)
    return b"".join(word.to_bytes(4, "little") for word in words).decode()


@pytest.mark.parametrize("name", ["SeventeenCPU", "GenuineIntel"])
@pytest.mark.parametrize("technique", ["native", "interpret", "trap", "translate", "hardware"])
def test_cpuid_says_it(technique: str, name: str) -> None:
    options: dict[str, Any] = {"ram": "4M"} if name == "SeventeenCPU" else {"vendor": name}
    native = technique == "native"
    machine = Machine(**options) if native else VirtualMachine(technique=technique, **options)
    assert vendor_of(machine) == name


def test_each_machine_of_a_host_has_its_own() -> None:
    host = Host("16M", guests=2)
    names = ("GenuineIntel", "AuthenticAMD")
    machines = [VirtualMachine(ram="4M", host=host, vendor=name) for name in names]
    for _ in range(2):
        assert tuple(map(vendor_of, machines)) == names


@pytest.mark.parametrize("name", ["", "Intel", "GenuineIntel!", "GenuineIntél"])
def test_it_has_12_characters(name: str) -> None:
    with pytest.raises(MachineError, match="expected 12 characters"):
        Machine(vendor=name)
