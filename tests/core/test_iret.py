"""IRET: which flags it loads at which CPL and IOPL, operand sizes, what it refuses."""

from __future__ import annotations

import pytest

from emulator.core import ExitReason, Unsupported
from tests.core.lab import (
    CODE,
    CODE_OF,
    DATA_OF,
    FLAG,
    FREE,
    GP,
    SS,
    STACK,
    TARGET,
    WRITABLE,
    Lab,
    Outcome,
    arrived,
    descriptor,
    faults_cleanly,
    gate,
)


@pytest.fixture
def lab() -> Lab:
    lab = Lab()
    lab.memory.write(TARGET, b"\xcd\x80")
    return lab


def iret(lab: Lab, cpl: int, iopl: int, image: int, to: int, bits: int = 32) -> Outcome:
    """IRET from a ring to a ring with this EFLAGS image, all flags clear before."""
    lab.ring(cpl)
    lab.cpu["eflags"] = iopl << 12 | 2
    outer = [0x60000, DATA_OF[to] | to] if to > cpl else []
    words = [TARGET if bits == 32 else 0xB000, CODE_OF[to] | to, image, *outer]
    lab.cpu["esp"] = STACK - 0x40
    if bits == 32:
        lab.put32(STACK - 0x40, *words)
    else:
        lab.memory.write(STACK - 0x40, b"".join((w & 0xFFFF).to_bytes(2, "little") for w in words))
        lab.memory.write(0xB000, b"\xcd\x80")
    return lab.run("iret" if bits == 32 else "o16 iret")


EVERY = 0x3F7FD7 & ~(FLAG["tf"] | FLAG["vm"] | FLAG["nt"]) & ~0x180000  #: all IRET may load, no TF


@pytest.mark.parametrize(
    ("cpl", "iopl", "to", "loads"),
    [
        (0, 0, 0, EVERY),
        (0, 0, 3, EVERY),
        (1, 0, 1, EVERY & ~0x3000 & ~FLAG["if"]),
        (1, 1, 3, EVERY & ~0x3000),
        (3, 0, 3, EVERY & ~0x3000 & ~FLAG["if"]),
        (3, 3, 3, EVERY & ~0x3000),
    ],
)
def test_iret_flags(lab: Lab, cpl: int, iopl: int, to: int, loads: int) -> None:
    outcome = iret(lab, cpl, iopl, EVERY, to)
    assert arrived(outcome)
    assert outcome.frame is not None
    expected = (loads | 2 | iopl << 12) & ~FLAG["rf"]
    if cpl == 0:
        expected = (loads | 2) & ~FLAG["rf"]
    assert outcome.frame.eflags == expected  # INT has ended RF's effect


@pytest.mark.parametrize("to", [0, 3])
def test_iret_of_16_bits_keeps_the_upper_flags(lab: Lab, to: int) -> None:
    outcome = iret(lab, 0, 0, EVERY, to, 16)
    assert outcome.frame is not None
    assert outcome.vector == 0x80
    assert outcome.frame.eip == 0xB002
    assert outcome.frame.eflags == EVERY & 0xFFFF | 2
    if to == 3:
        assert (outcome.frame.esp, outcome.frame.ss) == (0, DATA_OF[3] | 3)


def test_iret_unsupported(lab: Lab) -> None:
    assert iret(lab, 0, 0, FLAG["vm"] | 2, 0).reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == Unsupported.V86
    lab.cpu["eflags"] = FLAG["nt"]
    lab.cpu["eip"] = CODE
    assert lab.go().reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == Unsupported.NESTED_TASK
    assert lab.cpu["eip"] == CODE


def test_iret_ignores_vm_outside_ring_0(lab: Lab) -> None:
    outcome = iret(lab, 3, 0, FLAG["vm"] | FLAG["cf"] | 2, 3)
    assert arrived(outcome)
    assert outcome.frame is not None
    assert outcome.frame.eflags == FLAG["cf"] | 2


def test_iret_pops_within_the_stack(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(0, STACK - 1, WRITABLE))
    lab.set_segment("ss", FREE)
    lab.cpu["esp"] = STACK - 8  # EIP and CS, but no flags
    lab.put32(STACK - 8, TARGET, CODE_OF[0])
    assert faults_cleanly(lab, "iret") == (SS, 0)


def test_iret_restores_what_an_interrupt_saved(lab: Lab) -> None:
    lab.set_idt(0x80, gate(CODE_OF[0], TARGET, 0xF, 3))
    lab.memory.write(TARGET, b"\xcf")
    lab.ring(3)
    lab.cpu["eflags"] = 0x200ED7
    outcome = lab.run("int 0x80\nint 0x81")
    assert outcome.fault == (GP, 0x81 * 8 + 2)
    assert outcome.frame is not None
    assert outcome.frame.eflags == 0x200ED7 | FLAG["rf"]
    assert outcome.frame.esp == STACK
    assert outcome.frame.eip == CODE + 2
