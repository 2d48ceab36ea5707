"""Whatever a guest does, cpu_run returns, at the tick it was told or before, and nothing breaks.

Random bytes and unruly programs run in every ring under scribbled tables; what broke once stands by
name at the end. That a cut changes nothing is test_state.py's; here it is only that the run ends,
and that the state it leaves is one a processor can be in. tests/core/sanitize.py runs this file
under the sanitizers.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from emulator.core import ExitReason, PageFlag, Unsupported, lib
from tests.core.churn import churn
from tests.core.lab import CODE, CODE_OF, DATA, DATA_OF, DB, STUBS, TSS, UD, Lab, gate
from tests.core.samples import STRING_ROWS, bytes_setup, program
from tests.core.world import WHOLE, Setup, Trail, World, ragged

FAST, DEEP = 1200, 60_000
TICKS = 300
#: EFLAGS bits that exist; VM cannot be entered.
EXISTING_FLAGS = 0x257FD7


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def check(world: World, trail: Trail) -> None:
    state = world.state
    assert trail.end != "too many exits"
    assert state.tick <= TICKS
    assert state.eflags & ~EXISTING_FLAGS == 0
    assert state.eflags & 2
    assert state.gpr[8] == 0
    assert state.cpl == state.seg[lib.SEG_CS].selector & 3
    assert state.cr0 & 1
    assert all(segment.limit & 0xFFF == 0xFFF or segment.limit <= 0xFFFFF for segment in state.seg)


def draw(seed: str) -> Setup:
    rng = Random(seed)
    kind = rng.randrange(10)
    if kind < 6:
        return bytes_setup(rng)
    return program(rng, STRING_ROWS, 8) if kind == 6 else program(rng, length=60)


def fuzz(world: World, seeds: range) -> Counter[str]:
    ends: Counter[str] = Counter()
    for seed in seeds:
        trail = world.run(draw(f"fuzz {seed}"), TICKS, ragged(seed) if seed % 4 == 0 else WHOLE)
        check(world, trail)
        ends[trail.end.partition(" ")[0]] += 1
    return ends


def test_anything_ends(world: World) -> None:
    ends = fuzz(world, range(FAST))
    assert ends[""] > FAST // 2, "most should run to their limit, not die at once"
    assert ends["SHUTDOWN"] > 0
    assert ends["UNSUPPORTED"] > 0


@pytest.mark.deep
@pytest.mark.parametrize("part", range(10))
def test_anything_ends_deep(world: World, part: int) -> None:
    fuzz(world, range(FAST + part * DEEP // 10, FAST + (part + 1) * DEEP // 10))


def test_machines_come_and_go() -> None:
    churn(20)


# -- What broke once ------------------------------------------------------------------------------


def test_handlers_that_fault_at_once_do_not_hold_the_cpu() -> None:
    """Delivery takes no tick: without a rule of its own this loop would never end."""
    lab = Lab()
    lab.memory.write(STUBS + UD * 16, b"\x0f\x0b")
    lab.load("mov esp, 0x80000000\nud2")  # where there is no memory to overwrite
    outcome = lab.go()
    assert outcome.reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == Unsupported.FAULT_LOOP
    assert lab.state.tick == 1
    assert lab.cpu["eip"] == STUBS + UD * 16


def test_a_push_onto_a_data_breakpoint_traps_before_the_handler() -> None:
    """The trap was kept outside the saved state until the handler's first instruction was over."""
    lab = Lab()
    lab.cpu["esp"] = DATA + 0x100
    lab.state.dr[0], lab.state.dr[7] = DATA + 0xF4, 0x000D_0402
    lab.set_gdt(DATA_OF[0], lab.entry(DATA_OF[0]))
    outcome = lab.run("ud2")
    assert outcome.vector == DB
    assert outcome.frame is not None
    assert outcome.frame.eip == STUBS + UD * 16
    assert lab.state.dr[6] & 15 == 1


def test_a_debug_trap_that_hits_its_own_frame_ends() -> None:
    """As the processors' endless stream of #DB: each frame meets the breakpoint again."""
    lab = Lab()
    lab.set_idt(0x80, gate(CODE_OF[0], STUBS + 0x80 * 16, 0xE, level=3))
    lab.put32(TSS + 4, DATA + 0x100)
    lab.memory.write(STUBS + DB * 16, b"\x90\xf4")
    lab.ring(3)
    lab.state.dr[0], lab.state.dr[7] = DATA + 0xF4, 0x000D_0402
    outcome = lab.run("int 0x80")
    assert outcome.reason in (ExitReason.UNSUPPORTED, ExitReason.HALT)
    assert lab.state.tick < 10


def test_code_at_the_end_of_linear_space() -> None:
    """Execution goes on from the last byte to the first, or faults."""
    lab = Lab()
    lab.cpu["eip"] = 0xFFFF_FFFA
    assert lab.go(100).reason in (ExitReason.HALT, ExitReason.DEADLINE, ExitReason.SHUTDOWN)


@pytest.mark.parametrize("prefix", [b"\x66", b"\xf3", b"\x2e", b"\xf0"])
def test_nothing_but_prefixes(prefix: bytes) -> None:
    lab = Lab()
    lab.memory.write(CODE, prefix * 0x2000)
    lab.cpu["eip"] = CODE
    outcome = lab.go()
    assert outcome.vector == 13


def test_ticks_at_the_end_of_time() -> None:
    """A limit beyond what is signed, and one in the past."""
    lab = Lab()
    lab.load("hlt")
    assert lab.cpu.run((1 << 64) - 1) == ExitReason.HALT
    assert lab.cpu.run(0) == ExitReason.DEADLINE


def answered(lab: Lab, exits: int = 200) -> int:
    """Run to the end, device reads answered with their address; how many there were."""
    for reads in range(exits):
        reason = lab.go().reason
        if reason == ExitReason.MMIO_READ:
            lab.cpu.complete(lab.cpu.exit.address)
        elif reason != ExitReason.MMIO_WRITE:
            assert reason in (ExitReason.HALT, ExitReason.SHUTDOWN)
            return reads
    raise AssertionError("no end")


@pytest.mark.parametrize("misaligned", [0, 2])
def test_enter_copies_thirty_frame_pointers_from_a_device(misaligned: int) -> None:
    """More reads than could once be remembered: it never ended, and no tick passed."""
    lab = Lab()
    device = DATA + 0x1000
    lab.memory.set_flags(range(device, device + 0x1000), set_=PageFlag.MMIO)
    lab.cpu["ebp"] = device + 0x80 - misaligned
    lab.cpu["esp"] = DATA + 0x800
    lab.load("enter 0, 31\nhlt")
    assert answered(lab) == 30
    assert lab.get32(DATA + 0x800 - 8) == device + 0x80 - misaligned - 4


def test_descriptor_tables_on_a_device_do_not_hold_the_cpu() -> None:
    """A delivery that waits for the device forgets its event, which then arises again."""
    lab = Lab()
    device = DATA + 0x1000
    lab.memory.set_flags(range(device, device + 0x1000), set_=PageFlag.MMIO)
    lab.state.idtr.base = device
    lab.load("ud2")
    answered(lab)
    assert lab.state.tick == 0
