"""The same program, the same run, to the bit: with timer interrupts, and wherever it is cut.

The clock lives on timer interrupts; the operating system on those, on demand paging, ring changes
and a scripted session. Compared are ticks, cycles, every event's trace record, output and memory.
"""

from __future__ import annotations

import hashlib
from functools import cache
from random import Random
from typing import Any

import pytest

from emulator import Machine
from emulator.core import ExitReason, TraceKind, lib
from guests import find
from isa import assemble_file
from tests.core.lab import DATA, Lab

GUESTS = ("clock", "os", "os_apic", "rings")
CUTS = 25


@cache
def image(name: str) -> bytes:
    guest = find(name)
    return assemble_file(guest.source, include=guest.includes).elf()


def machine_for(name: str, trace: list[str] | None = None, source: Any = None) -> Machine:
    guest = find(name)
    options = guest.options | ({} if source is None else {"console_in": source})
    machine = Machine(
        **options,
        trace="" if trace is None else "int",
        trace_out=(lambda line: None) if trace is None else trace.append,
    )
    machine.load(image(name))
    return machine


def memory_of(machine: Machine) -> str:
    digest = hashlib.sha256()
    for address, page in sorted(dict(machine.memory.pages()).items()):
        if any(page):
            digest.update(address.to_bytes(8, "little") + page)
    return digest.hexdigest()


def end_of(machine: Machine, output: bytes) -> tuple[object, ...]:
    """All that must be the same."""
    state = machine.cpu.state
    return (state.tick, state.cycle, state.retired_cpl0, machine.cpu.registers, output,
            machine.board.status, memory_of(machine))  # fmt: skip


@cache
def whole_run(name: str) -> tuple[tuple[object, ...], int]:
    machine = machine_for(name)
    result = machine.run(max_ticks=find(name).ticks)
    assert result.output == find(name).prints
    return end_of(machine, result.output), result.ticks


@pytest.mark.parametrize("name", GUESTS)
def test_the_same_run_twice(name: str) -> None:
    ends, traces = [], []
    for _ in range(2):
        lines: list[str] = []
        machine = machine_for(name, lines)
        ends.append(end_of(machine, machine.run(max_ticks=find(name).ticks).output))
        traces.append(lines)
    assert ends[0] == ends[1] == whole_run(name)[0]
    assert traces[0] == traces[1]
    assert traces[0], "no events to compare"


def cut_run(name: str, seed: int, cuts: int) -> tuple[object, ...]:
    """Stopped at random ticks; there saved and loaded, here or elsewhere, or its blocks flushed."""
    rng = Random(seed)
    ticks = whole_run(name)[1]
    machine, output = machine_for(name), b""
    for tick in sorted(rng.randrange(ticks) for _ in range(cuts)):
        result = machine.run(max_ticks=tick)
        assert result.ticks == tick
        kind = rng.randrange(4)
        if kind == 0:
            machine.cpu.load(machine.cpu.save())
        elif kind == 1:
            lib.machine_flush_blocks(machine.memory.machine)
        elif kind == 2:
            machine.restore(machine.save())
        else:
            output += result.output
            other = machine_for(name, source=machine.board.source)
            other.restore(machine.save())
            machine = other
    output += machine.run(max_ticks=find(name).ticks).output
    return end_of(machine, output)


@pytest.mark.parametrize("name", GUESTS)
def test_cuts_change_nothing(name: str) -> None:
    assert cut_run(name, 1, CUTS) == whole_run(name)[0]


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("name", GUESTS)
def test_cuts_change_nothing_deep(name: str, seed: int) -> None:
    assert cut_run(name, seed, CUTS * 8) == whole_run(name)[0]


# -- Exact ticks ----------------------------------------------------------------------------------

PROGRAMS = {
    "loop": "mov ecx, 7\nagain: add eax, ecx\nloop again\nhlt",
    "rep movsb": f"mov esi, {DATA}\nmov edi, {DATA + 0x1FF0}\nmov ecx, 50\nrep movsb\nnop\nhlt",
    "rep stosd": f"mov edi, {DATA + 0xFC0}\nmov ecx, 40\nmov eax, 5\nrep stosd\nnop\nhlt",
    "std": f"std\nmov edi, {DATA + 0x20}\nmov ecx, 40\nrep stosb\nnop\nhlt",
    "repne scasb": f"mov edi, {DATA}\nmov ecx, 30\nmov al, 1\nrepne scasb\nnop\nhlt",
    "repe cmpsd": f"mov edi, {DATA}\nmov esi, {DATA + 4}\nmov ecx, 30\nrepe cmpsd\nnop\nhlt",
    "no iterations": f"mov edi, {DATA}\nxor ecx, ecx\nrep stosb\nnop\nhlt",
    "faults": "int 0x80\nhlt",
    "stack": "push eax\ncall next\nnext: pop ebx\nenter 8, 3\nleave\npusha\npopa\nhlt",
}


def finish(lab: Lab, step: int) -> tuple[object, ...]:
    while True:
        before = lab.state.tick
        reason = lab.cpu.run(before + step)
        if reason != ExitReason.DEADLINE:
            assert reason == ExitReason.HALT
            break
        assert lab.state.tick == before + step
    return lab.snapshot(), lab.state.tick, lab.state.cycle, lab.memory.read(DATA, 0x3000)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_limit_is_met_to_the_tick(name: str) -> None:
    """Every limit, alone and as the first of two pieces, and every length of piece."""

    def fresh() -> Lab:
        lab = Lab()
        lab.load(PROGRAMS[name])
        return lab

    expected = finish(fresh(), 10_000)
    for ticks in range(1, expected[1] + 2):  # type: ignore[operator]
        assert finish(fresh(), ticks) == expected
        lab = fresh()
        reason = lab.cpu.run(ticks)
        assert lab.state.tick == min(ticks, expected[1])  # type: ignore[type-var]
        if reason == ExitReason.DEADLINE:
            assert finish(lab, 10_000) == expected


def test_ecx_counts_the_ticks_of_a_repeat() -> None:
    lab = Lab()
    lab.load(f"mov edi, {DATA}\nmov ecx, 10000\nrep stosb\nhlt")
    for ticks in (3, 4, 100, 4098, 4099, 9000, 10001):
        assert lab.cpu.run(ticks) == ExitReason.DEADLINE
        assert lab.cpu["ecx"] == 10_000 - (ticks - 2)
        assert lab.cpu["edi"] == DATA + ticks - 2


def test_a_traced_run_is_the_same_run() -> None:
    """Tracing every instruction makes blocks of one; guest and machine time do not notice."""
    ends = []
    for kinds in (0, TraceKind.EXEC, TraceKind.EVENT | TraceKind.BLOCK):
        lab = Lab()
        lab.load(PROGRAMS["rep stosd"])
        lab.state.trace = int(kinds)
        ends.append(finish(lab, 10_000))
    assert ends[0] == ends[1] == ends[2]
