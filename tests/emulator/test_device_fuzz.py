"""Whatever is done to the registers of devices, nothing breaks, and snapshots change nothing.

Directly: random accesses of all sizes over the bus, to ports and to pages, time passing in between.
And from a guest, by every kind of instruction that can reach a device, or make the processor reach
one by itself (device_programs.py): natively and under techniques, watched and not, it comes to the
same end. tests/core/sanitize.py runs this file under the sanitizers, as it does the others here.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import Machine
from emulator.clock import NEVER
from emulator.machine import MACHINES
from emulator.result import Stop
from emulator.strings import read_elements, write_elements
from hypervisor.vm import VirtualMachine
from isa import assemble
from tests.emulator.device_programs import (
    END,
    LOCAL_APIC,
    PORTS,
    PREAMBLE,
    RAM,
    REGISTERS,
    program,
)

IMAGE: Final = bytes(n * 7 + n // 512 & 0xFF for n in range(64 * 512))
TYPED: Final = b"hello\nthere\n"


def make(machine: str, way: dict[str, Any] | None = None) -> Machine:
    """A machine with something on each device; bare if there is no `way`."""
    options = {"ram": RAM, "machine": machine, "disks": [IMAGE], "console_in": TYPED}
    return Machine(**options) if way is None else VirtualMachine(**options, **way)


# -- Over the bus ----------------------------------------------------------------------------------


class Deed(NamedTuple):
    """One thing that is done to a machine from outside."""

    what: str
    address: int
    size: int
    value: int


def addresses(pages: list[int]) -> st.SearchStrategy[int]:
    offsets = st.one_of(
        st.sampled_from(REGISTERS), st.integers(0, 0xFFF), st.sampled_from([0xFFD, 0xFFE, 0xFFF])
    )
    return st.builds(lambda page, offset: page + offset, st.sampled_from(pages), offsets)


PAGES: Final = [page << 12 for page in make("apic").board.bus.pages]
VALUES: Final = st.one_of(
    st.integers(0, 0xFF), st.integers(0, 0x3FFFF), st.integers(0, 0xFFFF_FFFF)
)
SIZES: Final = st.sampled_from([1, 1, 2, 4, 4])
DEEDS: Final = st.one_of(
    st.builds(Deed, st.sampled_from(["in", "out"]), st.sampled_from(PORTS), SIZES, VALUES),
    st.builds(Deed, st.sampled_from(["ins", "outs"]), st.sampled_from(PORTS), SIZES, VALUES),
    st.builds(Deed, st.sampled_from(["load", "store", "store"]), addresses(PAGES), SIZES, VALUES),
    st.builds(Deed, st.sampled_from(["wait", "take", "take"]), st.just(0), st.just(0), VALUES),
)


def do(machine: Machine, deed: Deed) -> object:
    """Do it; what it answers."""
    bus, (what, address, size, value) = machine.board.bus, deed
    kept = value & (1 << 8 * size) - 1
    match what:
        case "in":
            return bus.port_read(address, size)
        case "out":
            return bus.port_write(address, size, kept)
        case "ins":
            return read_elements(machine.board, address, size, value % 40, machine._ends())
        case "outs":
            data = (IMAGE * 2)[value % 999 :][: size * (value % 40)]
            return write_elements(machine.board, address, size, memoryview(data), machine._ends())
        case "load":
            answer = bus.memory_read(address, size)
            assert 0 <= answer < 1 << 8 * size
            return answer
        case "store":
            return bus.memory_write(address, size, kept)
        case "take":
            return machine._acknowledge() if machine.cpu.state.interrupt_line else None
    return pass_time(machine, value % 3_000_000)


def pass_time(machine: Machine, ticks: int) -> None:
    """Let time pass as for a halted CPU, from wake-up to wake-up, but no more than so many."""
    clock, state = machine.board.clock, machine.cpu.state
    end = clock.now + ticks
    for _ in range(2000):
        due = min(clock.next_tick, state.timer_due)
        clock.now = state.tick = max(clock.now, min(due, end))
        machine.board.run_due()
        machine.cpu.advance_apic()
        if due >= end:
            break


@pytest.mark.parametrize("machine", MACHINES)
@given(deeds=st.lists(DEEDS, max_size=80), cut=st.integers(0, 80))
def test_nothing_over_the_bus_upsets_a_machine(machine: str, deeds: list[Deed], cut: int) -> None:
    first, second = make(machine), make(machine)
    for deed in deeds[:cut]:
        do(first, deed)
    second.restore(first.save())
    for deed in deeds[cut:]:
        assert do(first, deed) == do(second, deed), deed
    assert first.save() == second.save()
    assert first.cpu.state.timer_due == second.cpu.state.timer_due <= NEVER


# -- From a guest ----------------------------------------------------------------------------------

FAST, DEEP = 60, 2400
STEPS: Final = 40
TICKS: Final = 3000
#: Wall seconds for one run. Code in its own stores' way takes 2 ms an instruction under `patch`.
PATIENCE: Final = 60
WAYS: Final[dict[str, dict[str, Any] | None]] = {
    "native": None,
    "interpret": {"technique": "interpret"},
    "trap": {"technique": "trap", "virtualizable": True},
    "translate": {"technique": "translate"},
    "strict": {"technique": "patch --strict"},
    "nested": {"technique": "hardware", "mmu": "nested"},
    "shadow": {"technique": "hardware", "mmu": "shadow"},
}


class End(NamedTuple):
    """What a run comes to."""

    stop: Stop
    status: int
    ticks: int
    registers: object
    output: bytes
    pages: dict[int, bytes]
    board: dict[str, Any]


@contextmanager
def patience() -> Iterator[None]:
    """A run that goes on for ever fails."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError("the run does not end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def end_of(machine: Machine, seen: bytes = b"") -> End:
    with patience():
        result = machine.run(TICKS)
    return End(
        result.stop,
        result.status,
        result.ticks,
        result.registers,
        seen + result.output,
        dict(machine.memory.pages()),
        machine.board.save(),
    )


def run(code: Any, machine: str, way: str, *, watched: bool = False, cut: int = 0) -> End:
    """A run; watched: with each access of the local APIC on the bus; cut: saved at that tick, and
    gone on with on another machine."""
    first = make(machine, WAYS[way])
    first.load(code)
    if watched:
        first.set_tracer(0, Silent())
        first.watch_apic()
    if not cut:
        return end_of(first)
    with patience():
        before = first.run(cut)
    if before.stop is not Stop.OUT_OF_TICKS:
        return end_of(first)
    second = make(machine, WAYS[way])
    second.load(code)
    second.restore(first.save())
    return end_of(second, before.output)


class Silent:
    """A tracer that says nothing."""

    def render(self, records: object) -> None:
        del records


def hunt(seeds: range, way: str) -> Counter[str]:
    """Run programs on either machine, in a way and natively; how they ended."""
    ends: Counter[str] = Counter()
    for seed in seeds:
        machine = MACHINES[seed % 4 != 0]
        code = assemble(program(f"devices {seed}", STEPS))
        expected = run(code, machine, "native")
        ends[expected.stop.name] += 1
        watched, cut = seed % 3 == 0, seed % 7 * 61 if seed % 2 else 0
        found = run(code, machine, way, watched=watched, cut=cut)
        pairs = zip(End._fields, expected, found, strict=True)
        assert [name for name, a, b in pairs if a != b] == [], f"seed {seed}"
    return ends


@pytest.mark.parametrize("way", ["native", "translate", "nested"])
def test_a_guest_may_do_anything_to_devices(way: str) -> None:
    ends = hunt(range(FAST), way)
    assert len(ends) >= 4
    assert ends["UNHANDLED"] == 0


@pytest.mark.deep
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("way", WAYS)
def test_a_guest_may_do_anything_to_devices_deep(way: str, part: int) -> None:
    count = DEEP // 4 if way not in ("interpret", "strict") else DEEP // 40
    hunt(range(FAST + part * count, FAST + (part + 1) * count), way)


# -- What differed once ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("source", [0xF0000, LOCAL_APIC])
def test_a_string_that_switches_the_machine_off_ends_there(source: int, way: str) -> None:
    """Natively, elements behind the one that did were written still; in guest mode, that one was
    begun anew on another CPU if a device had brought it."""
    code = assemble(
        f"mov esi, {source}\nmov ecx, 5\nmov edx, 0xF4\nrep outsb\nmov edx, 1\ncli\nhlt"
    )
    end = run(code, "apic", way)
    assert (end.stop, end.ticks) == (Stop.POWERED_OFF, 4)
    assert end.registers == run(code, "apic", "native").registers


#: A string whose elements have COM1 ask for an interrupt, and no more: the 8259 is open, IF is set.
ASKS = """
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0
    out 0x21, al
    mov dword [BUFFER], 0x00020002
    mov esi, BUFFER
    mov ecx, 4
    mov edx, 0x3F9
    sti
    rep outsb
"""
#: One during which the local APIC's timer comes to its end.
TIMED = """
    mov dword [LOCAL + 0x3E0], 11
    mov dword [LOCAL + 0x320], 0x42
    mov edi, BUFFER
    mov ecx, 300
    mov edx, 0x3FD
    sti
    mov dword [LOCAL + 0x380], 50
    rep insb
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("source", [ASKS, TIMED], ids=["asks", "timed"])
def test_a_string_is_interrupted_between_two_elements(source: str, way: str) -> None:
    """Many went at once before anybody looked. A run that is cut at each tick has one at a time."""
    code = assemble(PREAMBLE + source + END)
    stepped = make("apic")
    stepped.load(code)
    while stepped.run(stepped.ticks + 1).stop is Stop.OUT_OF_TICKS:
        pass
    expected, found = end_of(stepped), run(code, "apic", way)
    assert found == expected
