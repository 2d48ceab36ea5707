"""The 8254 by its register protocol (Intel 8254 data sheet), in clocks of 1,193,182 Hz."""

from __future__ import annotations

import pytest

from emulator.clock import TICKS_PER_SECOND, tick_of
from emulator.devices.pit import HERTZ, Pit
from tests.emulator.fake import FakePlatform


class Bench:
    """A PIT whose time is told in its own clocks."""

    def __init__(self) -> None:
        self.platform = FakePlatform()
        self.pit = Pit(self.platform)
        self.platform.device = self.pit
        self.platform.rises.clear()

    def program(
        self, channel: int, mode: int, count: int, *, access: int = 3, bcd: int = 0
    ) -> None:
        self.pit.write(0x43, 1, channel << 6 | access << 4 | mode << 1 | bcd)
        if access & 1:
            self.pit.write(0x40 + channel, 1, count & 0xFF)
        if access & 2:
            self.pit.write(0x40 + channel, 1, count >> 8)

    def to(self, clock: int) -> None:
        self.platform.run_to(tick_of(clock, HERTZ))

    def read(self, channel: int) -> int:
        low = self.pit.read(0x40 + channel)
        return low | self.pit.read(0x40 + channel) << 8

    def latched(self, channel: int) -> int:
        self.pit.write(0x43, 1, channel << 6)
        return self.read(channel)

    def out(self, channel: int) -> bool:
        self.pit.write(0x43, 1, 0xE0 | 2 << channel)  # read back the status alone
        return bool(self.pit.read(0x40 + channel) & 0x80)

    def gate(self, high: bool) -> None:
        self.pit.write(0x61, 1, int(high))

    def rises(self) -> list[int]:
        """Clocks at which line 0 has risen."""
        return [tick * HERTZ // TICKS_PER_SECOND for tick, line in self.platform.rises if not line]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_mode_0_rises_once_a_clock_after_the_count(bench):
    bench.program(0, 0, 100)
    assert not bench.platform.lines[0]
    bench.to(1000)
    assert bench.rises() == [101]
    assert bench.platform.lines[0]


def test_mode_0_counts_down_and_wraps(bench):
    bench.program(0, 0, 100)
    bench.to(41)
    assert bench.latched(0) == 60
    bench.to(111)
    assert bench.latched(0) == 0x10000 - 10


def test_mode_0_stops_at_the_first_byte_of_a_new_count(bench):
    bench.program(0, 0, 100)
    bench.to(50)
    bench.pit.write(0x40, 1, 10)
    bench.to(500)
    assert bench.rises() == []
    bench.pit.write(0x40, 1, 0)
    bench.to(600)
    assert bench.rises() == [511]


def test_mode_2_interrupts_every_period_for_ever_without_drift(bench):
    bench.program(0, 2, 1000)
    bench.to(1_000_000)
    assert bench.rises() == [1 + 1000 * n for n in range(1, 1000)]


def test_mode_2_output_is_low_for_the_last_clock(bench):
    bench.program(0, 2, 10)
    lows = []
    for clock in range(1, 31):
        bench.to(clock)
        if not bench.out(0):
            lows.append(clock)
    assert lows == [10, 20, 30]


def test_mode_2_loads_a_new_count_after_the_period(bench):
    bench.program(0, 2, 100)
    bench.to(250)
    bench.pit.write(0x40, 1, 50)
    bench.pit.write(0x40, 1, 0)
    bench.to(450)
    assert bench.rises() == [101, 201, 301, 351, 401]


def test_mode_3_is_a_square_wave(bench):
    bench.program(0, 3, 10)
    levels = []
    for clock in range(1, 21):
        bench.to(clock)
        levels.append(bench.platform.lines[0])
        assert bench.out(0) == levels[-1]
    assert levels == ([True] * 5 + [False] * 5) * 2


def test_mode_3_with_an_odd_count_is_high_a_clock_longer(bench):
    bench.program(0, 3, 5)
    levels = []
    for clock in range(1, 11):
        bench.to(clock)
        levels.append(bench.platform.lines[0])
    assert levels == [True, True, True, False, False] * 2


def test_mode_3_counts_by_two(bench):
    bench.program(0, 3, 100)
    bench.to(1 + 20)
    assert bench.latched(0) == 60
    bench.to(1 + 70)
    assert bench.latched(0) == 60


def test_mode_3_loads_a_new_count_after_the_half_period(bench):
    bench.program(0, 3, 100)
    bench.to(20)
    bench.pit.write(0x40, 1, 20)
    bench.pit.write(0x40, 1, 0)
    bench.to(100)
    # high 1 to 51, then low for 10, then high at 61, 81
    assert bench.rises() == [61, 81]


def test_mode_4_strobes_once(bench):
    bench.program(0, 4, 100)
    bench.to(101)
    assert not bench.out(0)
    bench.to(1000)
    assert bench.out(0)
    assert bench.rises() == [102]


@pytest.mark.parametrize("mode", [1, 5])
def test_triggered_modes_wait_for_the_gate(bench, mode):
    bench.program(2, mode, 10)
    bench.to(100)
    assert bench.out(2)
    bench.gate(True)
    bench.to(105)
    assert bench.out(2) == (mode == 5)
    bench.to(111)
    assert bench.out(2) == (mode == 1)
    bench.to(112)
    assert bench.out(2)
    bench.gate(False)
    bench.gate(True)  # and again
    bench.to(122 + 1)
    assert bench.out(2) == (mode == 1)


def test_the_gate_of_channel_2_holds_the_count(bench):
    bench.gate(True)
    bench.program(2, 0, 100)
    bench.to(31)
    bench.gate(False)
    bench.to(500)
    assert bench.latched(2) == 70
    bench.gate(True)
    bench.to(500 + 69)
    assert not bench.pit.read(0x61) & 0x20
    bench.to(500 + 70)
    assert bench.pit.read(0x61) & 0x20


def test_a_rising_gate_starts_the_period_over(bench):
    bench.gate(True)
    bench.program(2, 2, 100)
    bench.to(51)
    bench.gate(False)
    assert bench.out(2)
    bench.to(200)
    bench.gate(True)
    bench.to(211)
    assert bench.latched(2) == 90


def test_port_61_keeps_its_two_bits_and_toggles_refresh(bench):
    bench.pit.write(0x61, 1, 0xFF)
    assert bench.pit.read(0x61) & 3 == 3
    seen = set()
    for clock in range(0, 40, 4):
        bench.to(clock)
        seen.add(bench.pit.read(0x61) & 0x10)
    assert seen == {0, 0x10}


def test_a_latched_count_waits_and_a_second_latch_does_not_change_it(bench):
    bench.program(0, 2, 1000)
    bench.to(101)
    bench.pit.write(0x43, 1, 0)
    bench.to(301)
    bench.pit.write(0x43, 1, 0)
    assert bench.read(0) == 900
    assert bench.read(0) == 700


def test_access_to_one_byte(bench):
    bench.program(0, 2, 0x0500, access=2)
    bench.to(1 + 0x100)
    assert bench.pit.read(0x40) == 4
    bench.program(0, 2, 200, access=1)
    bench.to(1 + 0x100 + 51)
    assert bench.pit.read(0x40) == 150


def test_count_zero_is_65536(bench):
    bench.program(0, 2, 0)
    bench.to(1 + 70_000)
    assert bench.rises() == [65_537]


def test_bcd(bench):
    bench.program(0, 2, 0x1000, bcd=1)
    bench.to(11)
    assert bench.latched(0) == 0x0990
    bench.to(1500)
    assert bench.rises() == [1001]


def test_read_back_of_status_and_count(bench):
    bench.pit.write(0x43, 1, 0x34)
    bench.pit.write(0x43, 1, 0xE2)
    assert bench.pit.read(0x40) == 0x80 | 0x40 | 0x34  # OUT high, null count
    bench.program(0, 2, 1000)
    bench.to(101)
    bench.pit.write(0x43, 1, 0xC2)
    assert bench.pit.read(0x40) == 0x80 | 0x34
    assert bench.read(0) == 900


def test_line_0_stays_quiet_while_mode_2_is_programmed(bench):
    bench.program(0, 2, 1000)
    bench.to(1000)
    assert bench.rises() == []


def test_saved_and_loaded_it_goes_on_alike(bench):
    bench.program(0, 3, 77)
    bench.to(500)
    bench.pit.write(0x40, 1, 30)
    saved = bench.pit.save()
    other = Bench()
    other.platform.clock.now = bench.platform.now
    other.platform.clock.load(bench.platform.clock.save())
    other.pit.load(saved)
    for b in (bench, other):
        b.platform.rises.clear()
        b.platform.lines[0] = False
        b.pit.write(0x40, 1, 0)
        b.to(900)
    assert other.pit.save() == bench.pit.save()
    assert other.rises() == bench.rises() != []
