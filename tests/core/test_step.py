"""Single steps, many steps at a time, and many translations at a time."""

from __future__ import annotations

import pytest

from emulator.core import ExitReason
from tests.core.lab import Lab

NO_FLOOR = 0xFFFFFFFF


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_steps_go_on_within_a_repeat(lab: Lab) -> None:
    lab.load("mov ecx, 5\nmov esi, 0x9000\nmov edi, 0x9100\nrep movsb\nnop")
    for _ in range(4):
        assert lab.cpu.step() == ExitReason.DEADLINE
    assert lab.cpu["ecx"] == 4
    at = lab.state.eip
    assert lab.cpu.step_on(at, NO_FLOOR, 6) == ExitReason.DEADLINE  # up to a tick
    assert (lab.cpu["ecx"], lab.state.tick, lab.state.eip) == (2, 6, at)
    assert lab.cpu.step_on(at, NO_FLOOR, 100) == ExitReason.DEADLINE  # up to its end
    assert (lab.cpu["ecx"], lab.state.tick, lab.state.eip) == (0, 8, at + 2)


@pytest.mark.parametrize("floor", [0, 0x7001])
def test_steps_go_on_while_the_stack_is_high(lab: Lab, floor: int) -> None:
    lab.load("nop\nmov esp, 0x7100\npush eax\npop eax\nmov esp, 0x7000\nnop\nnop\nhlt")
    for _ in range(2):
        lab.cpu.step()
    reason = lab.cpu.step_on(NO_FLOOR, floor, 100)
    assert reason == (ExitReason.DEADLINE if floor else ExitReason.HALT)
    assert lab.state.tick == (5 if floor else 8)


def test_steps_end_where_something_is_wanted(lab: Lab) -> None:
    lab.load("nop\nin al, 0x60\nnop")
    lab.cpu.step()
    assert lab.cpu.step_on(NO_FLOOR, 0, 100) == ExitReason.PORT_READ
    assert lab.state.tick == 1
    lab.ring(3)
    lab.load("nop\nnop")
    lab.cpu.step()
    tick = lab.state.tick
    assert lab.cpu.step_on(NO_FLOOR, 0, 100) == ExitReason.DEADLINE
    assert lab.state.tick == tick


def test_pages_are_translated_as_addresses_are(lab: Lab) -> None:
    directory, table = 0x8000, 0x9000
    lab.put32(directory, table | 3)
    lab.put32(table, 0x3003, 0, 0x5003)
    lab.cpu["cr3"], lab.cpu["cr0"] = directory, lab.cpu["cr0"] | 1 << 31
    assert list(lab.cpu.translate_pages([0, 0x1000, 0x2FFF, 0xFFFFF000])) == [
        3,
        2**32 - 1,
        5,
        2**32 - 1,
    ]
    assert lab.get32(table) == 0x3003  # without a trace
    assert list(lab.cpu.translate_pages([])) == []
