"""The I/O APIC by its register protocol (Intel 82093AA data sheet)."""

from __future__ import annotations

import pytest

from emulator.devices.ioapic import BASE, IoApic
from tests.emulator.fake import FakePlatform

INDEX, WINDOW = BASE, BASE + 0x10
LEVEL, MASKED, REMOTE_IRR, LOGICAL = 1 << 15, 1 << 16, 1 << 14, 1 << 11


class Bench:
    def __init__(self) -> None:
        self.platform = FakePlatform()
        self.chip = IoApic(self.platform)

    def __getitem__(self, register: int) -> int:
        self.chip.write(INDEX, 4, register)
        return self.chip.read(WINDOW, 4)

    def __setitem__(self, register: int, value: int) -> None:
        self.chip.write(INDEX, 4, register)
        self.chip.write(WINDOW, 4, value)

    def route(self, pin: int, low: int, destination: int = 0) -> None:
        self[0x10 + 2 * pin + 1] = destination << 24
        self[0x10 + 2 * pin] = low

    def sent(self) -> list[int]:
        """Vectors of the messages since last time."""
        vectors = [message["vector"] for message in self.platform.messages]
        self.platform.messages.clear()
        return vectors


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_registers_after_reset(bench):
    assert bench[0] == bench[2] == 1 << 24
    assert bench[1] == 0x170011
    assert [bench[0x10 + n] for n in range(48)] == [MASKED, 0] * 24
    assert bench[0x40] == bench[3] == 0


def test_what_can_be_written(bench):
    bench.route(5, 0xFFFFFFFF, 0xFF)
    assert bench[0x1A] == 0x1AFFF  # delivery status and remote IRR cannot
    assert bench[0x1B] == 0xFF000000
    bench[0] = 0xFFFFFFFF
    assert bench[0] == 0x0F000000
    bench[1] = 0
    assert bench[1] == 0x170011


def test_an_edge_is_a_message_once(bench):
    bench.route(4, 0x34)
    bench.chip.set_line(4, True)
    bench.chip.set_line(4, True)
    assert bench.sent() == [0x34]
    bench.chip.set_line(4, False)
    bench.chip.set_line(4, True)
    assert bench.sent() == [0x34]


def test_the_timer_is_at_pin_2(bench):
    bench.route(2, 0x20)
    bench.chip.set_line(0, True)
    assert bench.sent() == [0x20]


def test_an_edge_on_a_masked_line_is_lost(bench):
    bench.chip.set_line(4, True)
    bench.route(4, 0x34)
    assert bench.sent() == []


def test_a_level_waits_for_its_end(bench):
    bench.chip.set_line(9, True)
    bench.route(9, LEVEL | 0x39)
    assert bench.sent() == [0x39]
    assert bench[0x10 + 18] & REMOTE_IRR
    bench.chip.set_line(9, True)
    assert bench.sent() == []
    bench.chip.end_of_interrupt(0x38)  # somebody else's
    assert bench.sent() == []
    bench.chip.end_of_interrupt(0x39)  # and the line is up still
    assert bench.sent() == [0x39]
    bench.chip.set_line(9, False)
    bench.chip.end_of_interrupt(0x39)
    assert bench.sent() == []
    assert not bench[0x10 + 18] & REMOTE_IRR


def test_a_level_that_nobody_takes_is_offered_again(bench):
    bench.platform.takes_messages = False
    bench.route(9, LEVEL | 0x39)
    bench.chip.set_line(9, True)
    assert not bench[0x10 + 18] & REMOTE_IRR


def test_a_message_says_whom_it_is_for(bench):
    bench.route(1, LOGICAL | 1 << 8 | 0x31, 0x0F)
    bench.chip.set_line(1, True)
    assert bench.platform.messages == [
        {"destination": 0x0F, "logical": True, "mode": 1, "vector": 0x31, "level": False}
    ]


def test_whether_it_can_wake_anybody(bench):
    assert not bench.chip.can_interrupt()
    bench.route(1, 0x31)
    assert bench.chip.can_interrupt()


def test_narrow_accesses(bench):
    bench.chip.write(INDEX, 1, 1)
    assert bench.chip.read(WINDOW, 1) == 0x11
    assert bench.chip.read(WINDOW + 2, 1) == 0x17
    assert bench.chip.read(WINDOW + 4, 4) == 0
    bench.chip.write(INDEX, 1, 0x10)
    bench.chip.write(WINDOW, 1, 0)
    assert bench[0x10] == MASKED
    bench.chip.write(0xFEC00020, 4, 0)
    assert bench.chip.read(0xFEC00020, 4) == 0


def test_saved_and_loaded(bench):
    bench.route(9, LEVEL | 0x39)
    bench.chip.set_line(9, True)
    other = Bench()
    other.chip.load(bench.chip.save())
    other.chip.end_of_interrupt(0x39)
    assert other.sent() == [0x39]
