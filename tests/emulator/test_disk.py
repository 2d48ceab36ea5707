"""Disk images: what reaches the file and when, who may open it, and what is said when it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emulator.disk import SECTOR, Disk, open_disks
from emulator.errors import DiskError, MachineError

ONES, TWOS = b"\1" * SECTOR, b"\2" * SECTOR


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8 * SECTOR))
    return path


def test_a_written_sector_is_in_the_file_at_once(image):
    with Disk(image) as disk:
        assert disk.sectors == 8
        disk.write(2, ONES + TWOS)
        assert image.read_bytes()[2 * SECTOR : 4 * SECTOR] == ONES + TWOS
        assert disk.read(1, 3) == bytes(SECTOR) + ONES + TWOS
        assert image.stat().st_size == 8 * SECTOR


def test_a_snapshot_leaves_the_file_alone(image):
    before = image.read_bytes()
    image.chmod(0o444)
    with Disk(image, snapshot=True) as disk:
        disk.write(3, ONES)
        disk.flush()
        assert disk.read(2, 3) == bytes(SECTOR) + ONES + bytes(SECTOR)
    assert image.read_bytes() == before


def test_bytes_are_a_disk_and_stay_as_they_are():
    contents = ONES + TWOS
    disk = Disk(contents)
    disk.write(0, TWOS)
    assert disk.read(0, 2) == TWOS + TWOS
    assert contents == ONES + TWOS


def test_what_is_in_memory_alone_can_be_saved():
    disk, other = Disk(ONES * 4), Disk(ONES * 4)
    disk.write(1, TWOS)
    saved = disk.save()
    disk.write(2, TWOS)
    other.load(saved)
    assert other.read(0, 4) == ONES + TWOS + ONES + ONES


def test_a_file_that_is_written_to_is_no_part_of_a_snapshot(image):
    with Disk(image) as disk:
        disk.write(0, ONES)
        assert disk.save() is None
        disk.load(None)
        assert disk.read(0, 1) == ONES


@pytest.mark.parametrize("size", [1, 511, 513])
def test_a_file_holds_whole_sectors(tmp_path, size):
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(DiskError, match=f"expected a multiple of 512 bytes, found {size}$"):
        Disk(path)


def test_an_empty_file_is_no_disk(tmp_path):
    path = tmp_path / "empty.img"
    path.touch()
    with pytest.raises(DiskError, match=r"empty\.img: expected a disk image, found an empty file"):
        Disk(path)
    with pytest.raises(DiskError, match="found an empty file"):
        Disk(b"")


def test_what_is_no_file_is_no_disk(tmp_path):
    for snapshot in (False, True):
        with pytest.raises(DiskError, match="irectory"):
            Disk(tmp_path, snapshot=snapshot)
    with pytest.raises(DiskError, match=r"none\.img: No such file or directory"):
        Disk(tmp_path / "none.img")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(DiskError, match="expected a file or a block device"):
        Disk(fifo, snapshot=True)


def test_a_file_that_may_not_be_written_to_is_told_before_the_run(image, monkeypatch):
    def refuse(name, how, *mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # a superuser may write to anything
    with pytest.raises(DiskError, match="not writable: Permission denied; a snapshot keeps"):
        Disk(image)


def test_one_writer_or_many_readers(image):
    with Disk(image):
        for snapshot in (False, True):
            with pytest.raises(DiskError, match="in use: another machine has it open"):
                Disk(image, snapshot=snapshot)
    readers = [Disk(image, snapshot=True) for _ in range(2)]
    with pytest.raises(DiskError, match="in use"):
        Disk(image)
    for disk in readers:
        disk.close()
    with Disk(image):
        pass


def test_errors_of_the_host_are_one_line_each_reason(image, monkeypatch):
    lines: list[str] = []
    disk = Disk(image, warn=lines.append)

    def fail(*arguments):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        for name in ("pread", "pwrite", "fdatasync"):
            patch.setattr(os, name, fail)
        for _ in range(3):
            with pytest.raises(DiskError):
                disk.read(1, 2)
            with pytest.raises(DiskError):
                disk.write(3, ONES)
            with pytest.raises(DiskError):
                disk.flush()
    disk.close()
    assert lines == [
        f"{image}: cannot read sector 1: Input/output error",
        f"{image}: cannot write sector 3: Input/output error",
        f"{image}: cannot flush: Input/output error",
    ]


def test_a_file_that_shrinks_is_an_error(image):
    lines: list[str] = []
    with Disk(image, warn=lines.append) as disk:
        os.truncate(image, 5 * SECTOR)
        assert disk.read(4, 1) == bytes(SECTOR)
        with pytest.raises(DiskError, match="cannot read sector 5: the file has become shorter"):
            disk.read(4, 2)
    assert len(lines) == 1


def test_a_short_write_goes_on(image, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:100], at))
    with Disk(image) as disk:
        disk.write(1, ONES)
    assert image.read_bytes()[SECTOR : 2 * SECTOR] == ONES


def test_closing_flushes_and_may_be_repeated(image, monkeypatch):
    flushed = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (flushed.append(fd), sync(fd)))
    disk = Disk(image)
    disk.flush()
    disk.close()
    disk.close()
    assert len(flushed) == 2


def test_a_machine_closes_what_it_has_opened(image):
    from emulator import Machine

    with Disk(image.read_bytes()) as own:
        machine = Machine(disks=[image, None, own])
        assert [disk is None for disk in machine.disks] == [False, True, False]
        with pytest.raises(DiskError, match="in use"):
            Machine(disks=[own, image])
        machine.close()
        Machine(disks=[image]).close()


def test_a_machine_has_four_drives(image):
    with pytest.raises(MachineError, match="at most 4 disks, found 5"):
        open_disks([None] * 5)
    with pytest.raises(DiskError, match="in use"):
        open_disks([image, image])
    with Disk(image):  # the first was closed again
        pass
