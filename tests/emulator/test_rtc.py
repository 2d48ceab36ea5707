"""The MC146818 by its register protocol; its dates against Python's."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.clock import TICKS_PER_SECOND as SECOND
from emulator.devices.rtc import Rtc, date_from_days, days_from_date
from tests.emulator.fake import FakePlatform

A, B, C, D = 10, 11, 12, 13
PERIODIC, ALARM, UPDATE, SET, BINARY, FULL_DAY = 0x40, 0x20, 0x10, 0x80, 4, 2
DATE = datetime(2024, 2, 28, 23, 59, 58, tzinfo=timezone.utc)


class Bench:
    def __init__(self, date: datetime = DATE, ram: int = 0) -> None:
        self.platform = FakePlatform()
        self.rtc = Rtc(self.platform, date, ram)
        self.platform.device = self.rtc

    def __getitem__(self, register: int) -> int:
        self.rtc.write(0x70, 1, register)
        return self.rtc.read(0x71)

    def __setitem__(self, register: int, value: int) -> None:
        self.rtc.write(0x70, 1, register)
        self.rtc.write(0x71, 1, value)

    def to(self, seconds: float) -> None:
        self.platform.run_to(ceil(seconds * SECOND))

    def rises(self) -> list[float]:
        return [tick / SECOND for tick, line in self.platform.rises if line == 8]

    def time(self) -> tuple[int, ...]:
        """Century, year, month, day, weekday, hours, minutes, seconds, as the registers are."""
        return tuple(self[register] for register in (0x32, 9, 8, 7, 6, 4, 2, 0))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_shows_the_date_in_bcd(bench):
    assert bench.time() == (0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x58)


def test_time_passes_into_a_leap_day(bench):
    bench.to(2)
    assert bench.time() == (0x20, 0x24, 0x02, 0x29, 5, 0, 0, 0)
    bench.to(86_402)
    assert bench.time() == (0x20, 0x24, 0x03, 0x01, 6, 0, 0, 0)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2600, 1, 1)), st.integers(0, 10**8))
def test_any_date_agrees_with_python(start, seconds):
    start = start.replace(microsecond=0, tzinfo=timezone.utc)
    bench = Bench(start)
    bench[B] = FULL_DAY | BINARY
    bench.to(seconds)
    expected = start + timedelta(seconds=seconds)
    century = expected.year // 100
    assert bench.time() == (
        century // 10 << 4 | century % 10, expected.year % 100, expected.month, expected.day,
        expected.isoweekday() % 7 + 1, expected.hour, expected.minute, expected.second,
    )  # fmt: skip


@given(st.integers(-800_000, 3_000_000))
def test_days_and_dates_are_inverse(days):
    assert days_from_date(*date_from_days(days)) == days


@pytest.mark.parametrize(
    ("hour", "shown"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)]
)
def test_twelve_hours(hour, shown):
    bench = Bench(DATE.replace(hour=hour))
    bench[B] = 0
    assert bench[4] == shown
    bench[4] = shown
    bench[B] = FULL_DAY
    assert bench[4] == hour // 10 << 4 | hour % 10


def test_set_holds_the_time_and_takes_the_new_one(bench):
    bench[B] = SET | FULL_DAY
    for register, value in ((0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (6, 6)):
        bench[register] = value
    for register, value in ((4, 0x23), (2, 0x59), (0, 0x59)):
        bench[register] = value
    bench.to(10)
    assert bench[0] == 0x59
    bench[B] = FULL_DAY
    bench.to(11)
    assert bench.time() == (0x20, 0, 1, 1, 7, 0, 0, 0)


def test_a_field_written_while_running_counts_at_once(bench):
    bench[2] = 0x30
    bench.to(2)
    assert bench.time()[5:] == (0x23, 0x31, 0x00)


def test_an_impossible_date_is_no_trouble(bench):
    bench[B] = SET
    for register in range(10):
        bench[register] = 0xFF
    bench[B] = FULL_DAY
    bench.to(5)
    assert all(value <= 0x99 for value in bench.time())


def test_uip_announces_the_update(bench):
    bench.to(0.5)
    assert not bench[A] & 0x80
    bench.to(0.9999)
    assert bench[A] & 0x80
    bench.to(1)
    assert not bench[A] & 0x80


def test_update_interrupt(bench):
    bench[B] = FULL_DAY | UPDATE
    bench.to(1.5)
    assert bench.rises() == [1]
    assert bench[C] == 0x80 | PERIODIC | UPDATE  # the periodic flag is raised in silence
    assert not bench.platform.lines[8]
    assert bench[C] == 0
    bench.to(2.5)
    assert bench.rises() == [1, 2]


def test_an_interrupt_nobody_reads_comes_once(bench):
    bench[B] = FULL_DAY | UPDATE
    bench.to(10)
    assert bench.rises() == [1]


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_periodic_interrupt(bench, rate, hertz):
    bench[A] = 0x20 | rate
    bench[B] = FULL_DAY | PERIODIC
    for n in range(1, 5):
        bench.to(n / hertz)
        assert bench.platform.lines[8]
        assert bench[C] & PERIODIC
        bench.to((n + 0.5) / hertz)
        assert not bench.platform.lines[8]


def test_rate_0_is_no_interrupt(bench):
    bench[A] = 0x20
    bench[B] = FULL_DAY | PERIODIC
    bench.to(3)
    assert bench.rises() == []


def set_alarm(bench: Bench, hours: int, minutes: int, seconds: int) -> None:
    bench[5], bench[3], bench[1] = hours, minutes, seconds


def test_alarm(bench):
    set_alarm(bench, 0x00, 0x00, 0x03)
    bench[B] = FULL_DAY | ALARM
    bench.to(100)
    assert bench.rises() == [5]
    assert bench[C] == 0x80 | 0x40 | ALARM | UPDATE  # the others' flags are raised in silence
    bench.to(86_400 + 100)
    assert bench.rises() == [5, 86_405]


def test_alarm_with_fields_that_match_anything(bench):
    set_alarm(bench, 0xFF, 0xC0, 0x30)
    bench[B] = FULL_DAY | ALARM
    for n in range(3):
        bench.to(33 + 60 * n)
        assert bench[C] & ALARM
    assert bench.rises() == [32, 92, 152]


def test_alarm_in_twelve_hours(bench):
    bench[B] = 0
    set_alarm(bench, 0x12, 0, 0)  # midnight
    bench[B] = ALARM
    bench.to(10)
    assert bench.rises() == [2]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 86_399))
def test_the_next_alarm_is_the_first_second_that_matches(hours, minutes, seconds, start):
    bench = Bench(datetime(2000, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=start))
    bench[B] = FULL_DAY | BINARY
    set_alarm(bench, hours, minutes, seconds)

    def matches(field: int, value: int) -> bool:
        return field >= 0xC0 or field == value

    expected = None
    possible = all(f >= 0xC0 or f < n for f, n in ((hours, 24), (minutes, 60), (seconds, 60)))
    if possible:
        expected = next(
            distance
            for distance in range(1, 86_401)
            for now in ((start + distance) % 86_400,)
            if matches(hours, now // 3600)
            if matches(minutes, now // 60 % 60)
            if matches(seconds, now % 60)
        )
    assert bench.rtc._next_alarm(start) == expected


def test_a_stopped_divider_stops_time(bench):
    bench[A] = 0x60
    bench.to(100)
    assert bench.time()[-1] == 0x58
    bench[A] = 0x26
    bench.to(101)
    assert bench.time()[-1] == 0x59


def test_c_and_d_cannot_be_written_and_the_index_cannot_be_read(bench):
    bench[C] = 0xFF
    bench[D] = 0
    assert bench[C] == 0
    assert bench[D] == 0x80
    assert bench.rtc.read(0x70) == 0xFF


def test_the_nmi_bit_is_no_part_of_the_index(bench):
    bench[0x40] = 0x5A
    assert bench[0xC0] == 0x5A


@pytest.mark.parametrize(("ram", "kib", "blocks"), [(4, 3072, 0), (64, 64512, 768)])
def test_the_firmware_bytes_tell_the_memory(ram, kib, blocks):
    bench = Bench(ram=ram << 20)
    assert bench[0x15] | bench[0x16] << 8 == 640
    assert bench[0x30] | bench[0x31] << 8 == kib
    assert bench[0x34] | bench[0x35] << 8 == blocks


def test_saved_and_loaded_it_goes_on_alike(bench):
    bench[B] = FULL_DAY | UPDATE
    bench.to(1.25)
    saved = bench.rtc.save()
    other = Bench(datetime(1980, 1, 1))
    other.rtc.load(saved)
    other.platform.clock.now = bench.platform.now
    assert other.time() == bench.time()
    assert other[C] == bench[C] != 0
    assert saved["cmos"][C] != 0  # a snapshot does not follow what comes after
