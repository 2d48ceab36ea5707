"""Several virtual machines on one host: each gets its share, and none disturbs another.

Machine time is the cycles that either CPU has executed for a guest. tests/cli/test_several.py has
the command line's side.
"""

from __future__ import annotations

import pytest

from emulator.memory import TEXT
from emulator.result import Stop
from guests import find
from hypervisor.errors import HypervisorError
from hypervisor.host import TURN_CYCLES, Host, run_turn
from hypervisor.vm import VirtualMachine
from isa import Program, assemble, assemble_file
from isa.paravirt import HYPERVISOR

RAM = "2M"
#: Counts in memory for ever: the count says how far it has come.
COUNTER = "next: inc dword [0x180000]\njmp next"
#: Ways for a guest to be of no use to anyone.
WRECKS = {
    "triple fault": ("ud2", Stop.TRIPLE_FAULT),
    "halted for good": ("cli\nhlt", Stop.HALTED),
    "a loop": ("jmp $", Stop.OUT_OF_TICKS),
    "a loop with interrupts off": ("cli\njmp $", Stop.OUT_OF_TICKS),
    "handlers that fault": (
        "lgdt [g]\nlidt [i]\nmov esp, -4096\nud2\ng: dw 15\ndd d\ni: dw 55\ndd t\n"
        "d: dq 0, 0x00CF9B000000FFFF\nt: times 6 dq 0\ndw b - $$, 8, 0x8E00, 0x10\nb: ud2",
        Stop.UNSUPPORTED,
    ),
    "stores to all memory there is": ("xor edi, edi\nmov ecx, -1\nrep stosb", Stop.OUT_OF_TICKS),
}


def program(text: str, technique: str) -> Program:
    return assemble(text, paravirt=HYPERVISOR if technique == "paravirt" else None)


def machines(host: Host, sources: list[str], technique: str = "trap") -> list[VirtualMachine]:
    images = [program(text, technique) for text in sources]
    return [VirtualMachine(image, technique, ram=RAM, host=host) for image in images]


EACH = ("trap", "interpret", "paravirt", "translate", "patch", "patch --strict", "hardware")


@pytest.mark.parametrize("technique", EACH)
def test_two_that_only_compute_progress_alike(technique: str) -> None:
    host = Host("4M", guests=2)
    first, second = machines(host, [COUNTER, COUNTER], technique)
    for _ in range(3):
        for vm in (first, second):
            assert not run_turn(vm, TURN_CYCLES // 10, None)
    assert abs(first.cycles - second.cycles) <= first.cycles // 10
    counts = [vm.memory.u32(0x180000) for vm in (first, second)]
    assert abs(counts[0] - counts[1]) <= counts[0] // 10


def test_a_guest_that_exits_all_the_time_takes_no_more_than_its_share() -> None:
    host = Host("4M", guests=2)
    busy, chatty = machines(host, [COUNTER, "next: in al, 0x21\njmp next"])
    host.run([busy, chatty], max_ticks=20_000)
    assert busy.cycles > 0
    assert chatty.cycles > 0
    assert (busy.ticks, chatty.ticks) == (20_000, 20_000)


def test_machine_time_is_each_ones_own() -> None:
    host = Host("4M", guests=2)
    first, second = machines(host, [COUNTER, "cli\nhlt"])
    results = host.run([first, second], max_ticks=100_000)
    assert first.world.cycles + second.world.cycles == host.cpu.state.cycle
    assert min(first.world.cycles, second.world.cycles) > 0
    alone = VirtualMachine(assemble(COUNTER), ram=RAM).run(100_000)
    assert results[0].cycles == alone.cycles


@pytest.mark.parametrize("name", WRECKS)
@pytest.mark.parametrize("technique", EACH)
def test_a_wrecked_guest_takes_nobody_along(name: str, technique: str) -> None:
    source, stop = WRECKS[name]
    guest = find("rings")
    image = assemble_file(guest.source, include=guest.includes).elf()
    host = Host("20M", guests=3)
    VirtualMachine(program(source, technique), technique, ram=RAM, host=host)
    healthy = VirtualMachine(image, "trap", ram=guest.ram, host=host, virtualizable=True)
    end = program("mov al, 7\nout 0xF4, al", technique)
    other = VirtualMachine(end, technique, ram=RAM, host=host)
    results = host.run(host.machines, max_ticks=50_000)
    assert results[0].stop is stop, results[0].reason
    assert (results[1].status, results[1].output) == (0, guest.prints), healthy.ticks
    assert results[2].status == 7, other.ticks


@pytest.mark.parametrize("technique", ["trap", "translate"])
def test_results_are_those_of_runs_alone(technique: str) -> None:
    guests = [find(name) for name in ("hello", "paging", "rings", "selfmod")]
    images = [assemble_file(g.source, include=g.includes).elf() for g in guests]
    host = Host("64M", guests=len(guests))
    options = {"ram": "16M", "virtualizable": technique == "trap"}
    for image in images:
        VirtualMachine(image, technique, host=host, **options)
    together = host.run(host.machines, max_ticks=5_000_000)
    for guest, image, result in zip(guests, images, together, strict=True):
        alone = VirtualMachine(image, technique, **options).run()
        assert result.output == guest.prints
        assert result._replace(exits=alone.exits) == alone


def test_a_host_that_is_full_says_so() -> None:
    host = Host("2M", guests=1)
    VirtualMachine(ram="2M", host=host)
    with pytest.raises(HypervisorError, match="no memory left"):
        VirtualMachine(ram="8M", host=host)


def test_what_a_machine_leaves_behind_is_wiped() -> None:
    host = Host("4M", guests=2)
    first = VirtualMachine(ram=RAM, host=host)
    first.memory.write(0x100000, b"secret")
    first.memory.free()
    second = VirtualMachine(ram=RAM, host=host)
    assert set(dict(second.memory.pages())) == set(range(TEXT.start, TEXT.stop, 4096))
