"""An IDE channel between its steps: saved, polled, and moving blocks for single accesses."""

from __future__ import annotations

import pytest

from emulator.devices.ide import BUSY_TICKS, LOOK_TICKS
from emulator.disk import SECTOR
from tests.emulator.ide_bench import (
    BASE,
    BSY,
    CONTROL,
    DRQ,
    IMAGE,
    READY,
    Bench,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def sector(number: int, count: int = 1) -> bytes:
    return IMAGE[number * SECTOR : (number + count) * SECTOR]


def at_work(code: int, moved: int) -> Bench:
    """A drive in the middle of a command of two sectors; `moved` bytes have been. -1: busy."""
    bench = Bench()
    bench.address(50, count=2)
    bench.out(7, code)
    if moved >= 0 and code == 0x20:
        bench.wait()
        bench.take(moved)
    elif moved >= 0:
        bench.give(b"w" * moved)
    return bench


@pytest.mark.parametrize(("code", "moved"), [(0x20, -1), (0x20, 100), (0x30, 100)])
def test_a_saved_channel_goes_on(code, moved):
    bench = at_work(code, moved)
    saved, other = bench.ide.save(), Bench()
    other.ide.load(saved)
    other.platform.clock.load(bench.platform.clock.save())
    other.platform.clock.now = bench.platform.now
    for each in (bench, other):
        if code == 0x30:
            each.give(b"v" * (2 * SECTOR - 100))
        each.wait()
        each.take(700)
        each.wait()
    assert other.ide.save() == bench.ide.save()
    assert other.contents(50, 2) == bench.contents(50, 2)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 5, 127, 128, 600])
def test_blocks_are_what_single_accesses_would_be(bench, size, count):
    other = Bench()
    for each in (bench, other):
        each.address(30, count=2)
        each.command(0x20)
    block = bench.ide.read_block(BASE, size, count)
    assert block == other.take(len(block), size)
    assert bench.ide.save() == other.ide.save()
    assert bench.ide.read(CONTROL) == READY | DRQ  # its last element is left
    for each in (bench, other):
        each.take(SECTOR - len(block), size)
        each.wait()
        each.take()
        each.wait()
        each.out(7, 0x30)
    data = bytes(range(256)) * 4
    done = bench.ide.write_block(BASE, size, memoryview(data)[: size * count])
    assert done <= count
    other.give(data[: done * size], size)
    assert bench.ide.save() == other.ide.save()
    assert bench.ide.read(CONTROL) == READY | DRQ


def test_a_driver_that_polls_need_not_look_for_ever(bench):
    bench.address(3)
    bench.out(7, 0x20)
    looks = 0
    while bench.inb(7) & BSY:
        looks += 1
        bench.platform.run_to(bench.platform.now + 3)
    assert 40 < looks <= BUSY_TICKS // LOOK_TICKS
    assert bench.take() == sector(3)


def test_looks_while_a_reset_is_held_end_nothing(bench):
    bench.ide.write(CONTROL, 1, 4)
    for _ in range(100):
        assert bench.ide.read(CONTROL) & BSY
    assert bench.wait() & BSY
    bench.ide.write(CONTROL, 1, 0)
    assert bench.wait() == READY


def test_no_block_without_data(bench):
    assert bench.ide.read_block(BASE, 4, 10) == b""
    assert bench.ide.write_block(BASE, 4, memoryview(bytes(40))) == 0
    bench.address(1)
    bench.out(7, 0x30)
    assert bench.ide.read_block(BASE, 4, 10) == b""
    bench.give(bytes(SECTOR))
    bench.wait()
    bench.command(0x20)
    assert bench.ide.write_block(BASE, 4, memoryview(bytes(40))) == 0
