"""The 8259A pair by its register protocol (Intel 8259A data sheet)."""

from __future__ import annotations

import pytest

from emulator.devices.pic import Pic
from tests.emulator.fake import FakePlatform

EOI, ROTATE_EOI, SPECIFIC, ROTATE_SPECIFIC, SET_PRIORITY = 0x20, 0xA0, 0x60, 0xE0, 0xC0


class Bench:
    """A PIC programmed as every PC system does: vectors 0x20 and 0x28, nothing masked."""

    def __init__(self, icw4: int = 1) -> None:
        self.platform = FakePlatform()
        self.pic = Pic(self.platform)
        for base, vector, cascade in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
            self.out(base, 0x11)
            for value in (vector, cascade, icw4, 0):
                self.out(base + 1, value)

    def out(self, port: int, value: int) -> None:
        self.pic.write(port, 1, value)

    def inp(self, port: int) -> int:
        return self.pic.read(port)

    def raise_(self, *lines: int) -> None:
        for line in lines:
            self.pic.set_line(line, True)

    def lower(self, *lines: int) -> None:
        for line in lines:
            self.pic.set_line(line, False)

    def take(self) -> int | None:
        return self.pic.acknowledge() if self.platform.interrupt else None

    def irr(self, base: int = 0x20) -> int:
        self.out(base, 0x0A)
        return self.inp(base)

    def isr(self, base: int = 0x20) -> int:
        self.out(base, 0x0B)
        return self.inp(base)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_before_initialisation_nothing_is_reported():
    platform = FakePlatform()
    pic = Pic(platform)
    pic.set_line(0, True)
    assert not platform.interrupt
    assert not pic.can_interrupt()


def test_a_request_is_acknowledged_with_its_vector(bench):
    bench.raise_(3)
    assert bench.irr() == 8
    assert bench.take() == 0x23
    assert (bench.irr(), bench.isr()) == (0, 8)
    assert not bench.platform.interrupt


def test_a_line_that_stays_up_interrupts_once(bench):
    bench.raise_(3)
    bench.take()
    bench.out(0x20, EOI)
    assert bench.take() is None
    bench.lower(3)
    bench.raise_(3)
    assert bench.take() == 0x23


def test_an_edge_before_initialisation_is_forgotten():
    platform = FakePlatform()
    pic = Pic(platform)
    pic.set_line(0, True)
    for value in (0x20, 4, 1, 0):
        pic.write(0x20 if value == 0x20 else 0x21, 1, 0x11 if value == 0x20 else value)
    assert not platform.interrupt


def test_masking_and_reading_the_mask(bench):
    bench.out(0x21, 0xF7)
    assert bench.inp(0x21) == 0xF7
    bench.raise_(1, 3)
    assert bench.take() == 0x23
    bench.out(0x20, EOI)
    bench.out(0x21, 0)
    assert bench.take() == 0x21


def test_a_request_waits_behind_its_betters_and_not_behind_its_lessers(bench):
    bench.raise_(5)
    assert bench.take() == 0x25
    bench.raise_(6)
    assert bench.take() is None
    bench.raise_(4)
    assert bench.take() == 0x24
    bench.out(0x20, EOI)  # ends 4, the better of the two in service
    assert bench.isr() == 0x20
    bench.out(0x20, EOI)
    assert bench.take() == 0x26


def test_the_second_controller_comes_through_line_2(bench):
    bench.raise_(12)
    assert bench.take() == 0x2C
    assert (bench.isr(0x20), bench.isr(0xA0)) == (4, 0x10)
    bench.raise_(11)  # better than 12: nested in the second, but the first holds line 2 back
    assert bench.take() is None
    bench.out(0xA0, EOI)
    bench.out(0x20, EOI)
    assert bench.take() == 0x2B


def test_special_fully_nested_mode_lets_the_second_nest():
    bench = Bench(icw4=0x11)
    bench.raise_(12)
    assert bench.take() == 0x2C
    bench.raise_(11)
    assert bench.take() == 0x2B
    bench.raise_(13)
    assert bench.take() is None


def test_the_second_reports_its_next_request_after_eoi(bench):
    bench.raise_(8, 9)
    assert bench.take() == 0x28
    bench.out(0xA0, EOI)
    bench.out(0x20, EOI)
    assert bench.take() == 0x29


def test_a_request_that_vanishes_is_spurious(bench):
    bench.raise_(3)
    bench.pic.state.chips[0].lines = bench.pic.state.chips[0].latched = 0
    assert bench.pic.acknowledge() == 0x27
    assert bench.isr() == 0
    bench.raise_(10)
    bench.pic.state.chips[1].lines = bench.pic.state.chips[1].latched = 0
    assert bench.pic.acknowledge() == 0x2F
    assert (bench.isr(0x20), bench.isr(0xA0)) == (4, 0)


def test_a_line_that_falls_takes_its_request_away(bench):
    bench.raise_(3)
    bench.lower(3)
    assert bench.irr() == 0
    assert bench.take() is None


def test_specific_eoi_ends_the_one_it_names(bench):
    bench.raise_(5)
    bench.take()
    bench.raise_(4)
    bench.take()
    bench.out(0x20, SPECIFIC | 5)
    assert bench.isr() == 0x10


def test_automatic_eoi_leaves_nothing_in_service():
    bench = Bench(icw4=3)
    bench.raise_(3)
    assert bench.take() == 0x23
    assert bench.isr() == 0
    bench.raise_(6)
    assert bench.take() == 0x26


def test_rotation_on_eoi_makes_the_served_line_the_last(bench):
    bench.raise_(0)
    bench.take()
    bench.out(0x20, ROTATE_EOI)
    bench.lower(0)
    bench.raise_(0, 7)
    assert bench.take() == 0x27
    bench.out(0x20, ROTATE_SPECIFIC | 7)
    assert bench.take() == 0x20


def test_rotation_in_automatic_eoi():
    bench = Bench(icw4=3)
    bench.out(0x20, 0x80)
    bench.raise_(0)
    bench.take()
    bench.lower(0)
    bench.raise_(0, 7)
    assert bench.take() == 0x27
    bench.out(0x20, 0x00)  # and off again
    assert bench.take() == 0x20


def test_set_priority(bench):
    bench.out(0x20, SET_PRIORITY | 3)
    bench.raise_(0, 4)
    assert bench.take() == 0x24


def test_special_mask_lets_lessers_in_and_keeps_masked_lines_in_service(bench):
    bench.raise_(1)
    bench.take()
    bench.out(0x21, 0x02)
    bench.out(0x20, 0x68)
    bench.raise_(5)
    assert bench.take() == 0x25
    bench.out(0x20, EOI)  # ends 5: line 1 is masked
    assert bench.isr() == 0x02
    bench.out(0x20, 0x48)
    bench.raise_(6)
    assert bench.take() is None


def test_polling_acknowledges(bench):
    bench.out(0x20, 0x0C)
    assert bench.inp(0x20) == 0
    bench.raise_(6)
    bench.out(0x20, 0x0C)
    assert bench.inp(0x20) == 0x86
    assert bench.isr() == 0x40
    assert not bench.platform.interrupt


def test_level_triggered_lines_ask_until_they_fall(bench):
    bench.out(0x4D0, 0xFF)
    bench.out(0x4D1, 0xFF)
    assert (bench.inp(0x4D0), bench.inp(0x4D1)) == (0xF8, 0xDE)  # some lines are edge for ever
    bench.raise_(11)
    for _ in range(2):
        assert bench.take() == 0x2B
        bench.out(0xA0, EOI)
        bench.out(0x20, EOI)
    bench.lower(11)
    assert bench.take() is None


def test_single_mode_takes_no_icw3():
    platform = FakePlatform()
    pic = Pic(platform)
    for port, value in ((0x20, 0x13), (0x21, 0x40), (0x21, 1), (0x21, 0xFE)):
        pic.write(port, 1, value)
    assert pic.read(0x21) == 0xFE
    pic.set_line(0, True)
    assert pic.acknowledge() == 0x40


def test_icw1_clears_mask_service_and_modes(bench):
    bench.raise_(3)
    bench.take()
    bench.out(0x21, 0xAA)
    bench.out(0x20, 0x11)
    for value in (0x30, 4, 1):
        bench.out(0x21, value)
    assert (bench.inp(0x21), bench.isr(), bench.irr()) == (0, 0, 0)


def test_saved_and_loaded_it_goes_on_alike(bench):
    bench.raise_(5, 9)
    bench.out(0x20, SET_PRIORITY | 4)
    saved = bench.pic.save()
    other = Bench()
    other.pic.load(saved)
    assert other.pic.save() == saved
    assert other.pic.acknowledge() == bench.pic.acknowledge() == 0x25
    assert saved["chips"][0]["isr"] == 0  # a snapshot does not follow what comes after
