"""The IDE channels, register by register: what ATA/ATAPI-6 says a driver sees."""

from __future__ import annotations

import os
import struct

import pytest

from emulator.devices.ide import BUSY_TICKS, SecondaryIde
from emulator.disk import SECTOR, Disk
from tests.emulator.fake import FakePlatform
from tests.emulator.ide_bench import (
    ABRT,
    BSY,
    CONTROL,
    DRQ,
    ERR,
    IDNF,
    IMAGE,
    LINE,
    READY,
    SECTORS,
    UNC,
    Bench,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def sector(number: int, count: int = 1) -> bytes:
    return IMAGE[number * SECTOR : (number + count) * SECTOR]


def test_at_rest(bench):
    assert [bench.inb(n) for n in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, READY]
    assert not bench.line


def test_reading_goes_busy_then_data_and_interrupt_then_ready(bench):
    bench.address(1234)
    bench.out(7, 0x20)
    bench.platform.run_to(BUSY_TICKS - 1)
    assert bench.ide.read(CONTROL) == 0x90
    assert not bench.line
    bench.platform.run_to(BUSY_TICKS)
    assert bench.ide.read(CONTROL) == READY | DRQ
    assert bench.line
    assert bench.ide.read(CONTROL) == READY | DRQ
    assert bench.line  # the alternate status leaves it
    assert bench.inb(7) == READY | DRQ
    assert not bench.line
    assert bench.take() == sector(1234)
    assert bench.inb(7) == READY
    assert bench.wait() == READY
    assert bench.platform.rises == [(BUSY_TICKS, LINE)]


@pytest.mark.parametrize("width", [1, 2, 4])
def test_data_come_in_any_width(bench, width):
    bench.address(7)
    bench.command(0x20)
    assert bench.take(width=width) == sector(7)


def test_several_sectors_have_an_interrupt_each(bench):
    bench.address(10, count=3)
    bench.out(7, 0x20)
    data = b""
    for _ in range(3):
        assert bench.wait() == READY | DRQ
        bench.inb(7)
        data += bench.take()
    assert data == sector(10, 3)
    assert bench.wait() == READY
    assert len(bench.platform.rises) == 3


def test_no_count_is_256_sectors(bench):
    bench.address(0, count=0)
    bench.out(7, 0x20)
    for number in range(256):
        assert bench.wait() == READY | DRQ
        assert bench.take() == sector(number)
    assert bench.wait() == READY


def test_writing_asks_for_the_first_block_at_once_and_without_interrupt(bench):
    bench.address(5, count=2)
    bench.out(7, 0x30)
    assert bench.ide.read(CONTROL) == READY | DRQ
    assert not bench.line
    bench.give(b"a" * SECTOR)
    assert bench.contents(5) == b"a" * SECTOR
    assert bench.ide.read(CONTROL) & BSY
    assert bench.wait() == READY | DRQ
    assert bench.line
    bench.give(b"b" * SECTOR, width=2)
    assert bench.wait() == READY
    assert bench.contents(4, 4) == sector(4) + b"a" * SECTOR + b"b" * SECTOR + sector(7)


def test_multiple_sectors_move_as_one_block(bench):
    bench.out(2, 8)
    assert bench.command(0xC6) == READY
    bench.address(100, count=12)
    bench.out(7, 0xC4)
    assert bench.wait() == READY | DRQ
    assert bench.take(8 * SECTOR) == sector(100, 8)
    assert bench.wait() == READY | DRQ
    assert bench.take(4 * SECTOR) == sector(108, 4)
    assert bench.wait() == READY
    bench.address(200, count=9)
    bench.out(7, 0xC5)
    bench.give(b"x" * SECTOR * 8)
    assert bench.wait() == READY | DRQ
    bench.give(b"y" * SECTOR)
    assert bench.wait() == READY
    assert bench.contents(207, 3) == b"x" * SECTOR + b"y" * SECTOR + sector(209)


@pytest.mark.parametrize("count", [3, 32, 255])
def test_a_block_is_a_power_of_two_up_to_16(bench, count):
    bench.out(2, count)
    assert bench.command(0xC6) == READY | ERR
    assert bench.inb(1) == ABRT


@pytest.mark.parametrize("code", [0xC4, 0xC5, 0x29, 0x39])
def test_multiple_must_be_set_before(bench, code):
    bench.address(0)
    assert bench.command(code) == READY | ERR
    assert bench.inb(1) == ABRT


def test_lba48(bench):
    bench.address_wide(3000, 300)
    bench.out(7, 0x24)
    for number in range(300):
        assert bench.wait() == READY | DRQ
        assert bench.take() == sector(3000 + number)
    assert bench.wait() == READY
    bench.address_wide(3999, 1)
    bench.out(7, 0x34)
    bench.give(b"z" * SECTOR)
    assert bench.wait() == READY
    assert bench.contents(3999) == b"z" * SECTOR


def test_the_upper_half_can_be_read_back(bench):
    bench.address_wide(0x665544332211, 0x8877)
    assert [bench.inb(n) for n in range(2, 6)] == [0x77, 0x11, 0x22, 0x33]
    bench.ide.write(CONTROL, 1, 0x80)
    assert [bench.inb(n) for n in range(2, 6)] == [0x88, 0x44, 0x55, 0x66]
    bench.out(2, 1)  # a write ends it
    assert bench.inb(3) == 0x11


def test_lba48_beyond_the_disk(bench):
    bench.address_wide(1 << 40, 1)
    assert bench.command(0x24) == READY | ERR
    assert bench.inb(1) == IDNF


def test_cylinder_head_and_sector(bench):
    for register, value in ((2, 1), (3, 4), (4, 2), (5, 0), (6, 0xA0 | 5)):
        bench.out(register, value)
    assert bench.command(0x20) == READY | DRQ
    assert bench.take() == sector((2 * 16 + 5) * 63 + 3)


def test_the_translation_may_be_changed(bench):
    bench.out(2, 32)
    bench.out(6, 0xA0 | 7)
    assert bench.command(0x91) == READY
    words = bench.identity()
    assert words[54:57] == (SECTORS // (8 * 32), 8, 32)
    for register, value in ((2, 1), (3, 32), (4, 1), (5, 0), (6, 0xA0 | 7)):
        bench.out(register, value)
    assert bench.command(0x20) == READY | DRQ
    assert bench.take() == sector((1 * 8 + 7) * 32 + 31)
    bench.out(6, 0xA0 | 8)  # no such head
    assert bench.command(0x20) == READY | ERR
    assert bench.inb(1) == IDNF


@pytest.mark.parametrize("number", [0, 64])
def test_sectors_count_from_1(bench, number):
    for register, value in ((2, 1), (3, number), (4, 0), (5, 0), (6, 0xA0)):
        bench.out(register, value)
    assert bench.command(0x20) == READY | ERR
    assert bench.inb(1) == IDNF


def test_reading_past_the_end_gives_what_there_is_and_names_the_first_missing(bench):
    bench.address(SECTORS - 1, count=3)
    bench.out(7, 0x20)
    assert bench.wait() == READY | DRQ
    assert bench.take() == sector(SECTORS - 1)
    assert bench.wait() == READY | ERR
    assert bench.line
    assert bench.inb(1) == IDNF
    assert bench.inb(2) == 2  # that many were not moved
    assert [bench.inb(n) for n in (3, 4, 5)] == list(SECTORS.to_bytes(3, "little"))


def test_writing_past_the_end_is_refused_before_data_are_asked_for(bench):
    bench.address(SECTORS)
    assert bench.command(0x30) == READY | ERR
    assert bench.line
    assert bench.inb(1) == IDNF
    bench.address(SECTORS - 1, count=2)
    bench.out(7, 0x30)
    bench.give(b"q" * SECTOR)
    assert bench.wait() == READY | ERR
    assert bench.contents(SECTORS - 1) == b"q" * SECTOR


def test_verify(bench):
    bench.address(SECTORS - 2, count=2)
    assert bench.command(0x40) == READY
    bench.address(SECTORS - 2, count=3)
    assert bench.command(0x40) == READY | ERR
    assert bench.inb(1) == IDNF


def test_identify(bench):
    words = bench.identity()
    text = b"".join(struct.pack(">H", word) for word in words[27:47]).decode()
    assert text.rstrip() == "SEVENTEEN DISK"
    assert words[60] | words[61] << 16 == SECTORS
    assert words[100] | words[101] << 16 == SECTORS
    assert (words[1], words[3], words[6]) == (SECTORS // 1008, 16, 63)
    assert words[49] & 0x300 == 0x200  # LBA, no DMA
    assert words[83] & 0xC400 == 0x4400
    assert words[59] == 0
    bench.out(2, 16)
    bench.command(0xC6)
    assert bench.identity()[59] == 0x110


def test_a_large_disk_is_told_as_far_as_each_way_reaches(tmp_path):
    path = tmp_path / "large.img"
    path.touch()
    os.truncate(path, 1 << 40)
    with Disk(path) as disk:
        bench = Bench(disk)
        words = bench.identity()
        assert words[60] | words[61] << 16 == (1 << 28) - 1
        assert words[100] | words[101] << 16 == 1 << 31
        assert words[1] == 16383
        bench.address_wide((1 << 31) - 1, 1)
        bench.out(7, 0x34)
        bench.give(b"e" * SECTOR)
        assert bench.wait() == READY
        bench.address_wide((1 << 31) - 1, 1)
        assert bench.command(0x24) == READY | DRQ
        assert bench.take() == b"e" * SECTOR


@pytest.mark.parametrize("code", [0x00, 0x08, 0xA0, 0xA1, 0xB0, 0xC8, 0x25, 0xFF])
def test_other_commands_are_aborted(bench, code):
    assert bench.command(code) == READY | ERR
    assert bench.line
    assert bench.inb(1) == ABRT
    assert bench.inb(7) == READY | ERR
    bench.address(1)
    assert bench.command(0x20) == READY | DRQ  # the error is gone


@pytest.mark.parametrize("code", [0x10, 0x1F, 0x70, 0xE0, 0xE1, 0xE2, 0xE3, 0xE5, 0xE6, 0xE7, 0xEA])
def test_commands_without_data_end_with_an_interrupt(bench, code):
    assert bench.command(code) == READY
    assert bench.line


def test_the_power_mode_is_active(bench):
    bench.command(0xE5)
    assert bench.inb(2) == 0xFF


@pytest.mark.parametrize(
    ("feature", "count", "status"),
    [(2, 0, READY), (3, 12, READY), (3, 0x45, READY | ERR), (0xAA, 0, READY), (0x99, 0, READY | 1)],
)
def test_features(bench, feature, count, status):
    bench.out(1, feature)
    bench.out(2, count)
    assert bench.command(0xEF) == status


def test_a_busy_drive_hears_nothing(bench):
    bench.address(20)
    bench.out(7, 0x20)
    for register, value in ((3, 99), (6, 0xF0), (7, 0xEC)):
        bench.out(register, value)
    assert bench.wait() == READY | DRQ
    bench.out(7, 0xEC)
    assert bench.take() == sector(20)
    assert bench.wait() == READY


def test_interrupts_may_be_held_back(bench):
    bench.ide.write(CONTROL, 1, 2)
    bench.address(1)
    assert bench.command(0x20) == READY | DRQ
    assert not bench.line
    bench.ide.write(CONTROL, 1, 0)
    assert bench.line  # it is still owed
    bench.inb(7)
    assert not bench.line


def test_a_command_takes_the_interrupt_back(bench):
    bench.command(0xE7)
    assert bench.line
    bench.out(7, 0xE7)
    assert not bench.line


def test_reset(bench):
    bench.out(2, 8)
    bench.command(0xC6)
    bench.address(77, count=9, drive=1)
    bench.ide.write(CONTROL, 1, 4)
    assert bench.ide.read(CONTROL) & BSY
    bench.platform.run_to(bench.platform.now + 3 * BUSY_TICKS)
    assert bench.ide.read(CONTROL) & BSY  # as long as the bit is set
    bench.ide.write(CONTROL, 1, 0)
    assert bench.ide.read(CONTROL) & BSY
    assert bench.wait() == READY
    assert [bench.inb(n) for n in range(1, 7)] == [1, 1, 1, 0, 0, 0xA0]
    assert not bench.line
    assert bench.identity()[59] == 0


def test_reset_ends_a_command(bench):
    bench.address(1)
    bench.out(7, 0x20)
    bench.ide.write(CONTROL, 1, 4)
    bench.ide.write(CONTROL, 1, 0)
    assert bench.wait() == READY
    assert not bench.platform.rises


def test_diagnostic():
    bench = Bench(Disk(IMAGE), Disk(IMAGE))
    bench.address(5, drive=1)
    assert bench.command(0x90) == READY
    assert bench.line
    assert [bench.inb(n) for n in range(1, 7)] == [1, 1, 1, 0, 0, 0xA0]


def test_two_drives():
    bench = Bench(Disk(IMAGE), Disk(b"second".ljust(SECTOR, b".")))
    bench.address(0, drive=1)
    assert bench.command(0x20) == READY | DRQ
    assert bench.take()[:6] == b"second"
    assert bench.identity()[60] == 1
    bench.out(6, 0xE0)
    assert bench.identity()[60] == SECTORS


def test_an_absent_second_drive_is_status_0_and_takes_no_command(bench):
    bench.out(6, 0xF0)
    assert (bench.inb(7), bench.ide.read(CONTROL), bench.inb(1)) == (0, 0, 0)
    bench.out(7, 0xEC)
    assert bench.wait() == 0
    assert not bench.line
    bench.out(6, 0xE0)
    assert bench.inb(7) == READY


def test_an_absent_first_drive():
    bench = Bench(None, Disk(IMAGE))
    assert bench.inb(7) == bench.ide.read(CONTROL) == READY
    bench.address(3, drive=1)
    assert bench.command(0x20) == READY | DRQ
    assert bench.take() == sector(3)


def test_a_channel_without_drives_reads_0():
    bench = Bench(None, None)
    bench.out(2, 0x55)
    assert [bench.inb(n) for n in range(8)] == [0] * 8
    for value in (4, 0):
        bench.ide.write(CONTROL, 1, value)
    bench.out(7, 0x90)
    assert bench.wait() == 0
    assert not bench.platform.rises


def test_the_second_channel_has_ports_and_a_line_of_its_own():
    platform = FakePlatform()
    ide = SecondaryIde(platform, [Disk(IMAGE)])
    platform.device = ide
    ide.write(0x177, 1, 0xEC)
    platform.run_to(BUSY_TICKS)
    assert ide.read(0x376) == READY | DRQ
    assert platform.rises == [(BUSY_TICKS, 15)]


def test_errors_of_the_host_are_the_drives(tmp_path, monkeypatch):
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    lines: list[str] = []

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with Disk(path, warn=lines.append) as disk:
        bench = Bench(disk)
        with monkeypatch.context() as patch:
            for name in ("pread", "pwrite", "fdatasync"):
                patch.setattr(os, name, fail)
            bench.address(9, count=2)
            assert bench.command(0x20) == READY | ERR
            assert bench.inb(1) == UNC
            assert [bench.inb(n) for n in (2, 3)] == [2, 9]
            bench.out(7, 0x30)
            bench.give(bytes(SECTOR))
            assert bench.wait() == READY | ERR
            assert bench.inb(1) == ABRT
            assert bench.command(0xE7) == READY | ERR
            assert bench.inb(1) == ABRT
        assert len(lines) == 3
        assert bench.command(0x20) == READY | DRQ
