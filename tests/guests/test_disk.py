"""Disks beside QEMU's: the guest that counts its starts, and registers after commands of all kinds.

For the same image, both must print the same and leave the same image behind.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator import Machine
from guests import LIB, Guest, find
from isa import assemble_file
from tests.guests.conftest import Run

SECTORS = 64
IMAGE = bytes((n * 13 + n // 512) & 0xFF for n in range(512 * SECTORS))
REGISTERS = Path(__file__).with_name("disk_registers.asm")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    return path


def run_natively(program: Path, image: Path) -> bytes:
    machine = Machine(ram="16M", disks=[image])
    machine.load(program)
    result = machine.run(1_000_000_000)
    machine.close()
    assert result.status == 0, result.reason
    return result.output


def drive(image: Path) -> tuple[str, str]:
    return "-drive", f"file={image},format=raw,if=ide"


def test_it_counts_its_starts(build_elf: Callable[[Guest], Path], image: Path) -> None:
    image.write_bytes(bytes(512 * SECTORS))
    for number in range(1, 4):
        printed = run_natively(build_elf(find("disk")), image)
        assert printed.decode().splitlines() == [
            f"A disk of {SECTORS} sectors.",
            f"It has been here {number} times.",
        ]
    assert image.read_bytes()[:4] == b"\3\0\0\0"


def test_qemu_and_we_may_take_turns(
    build_elf: Callable[[Guest], Path], image: Path, run_qemu: Run
) -> None:
    elf = build_elf(find("disk"))
    image.write_bytes(bytes(512 * SECTORS))
    for number in (1, 3):
        assert f"here {number} times".encode() in run_natively(elf, image)
        outcome = run_qemu(elf, b"", *drive(image))
        assert f"here {number + 1} times".encode() in outcome.output


@pytest.fixture
def printed(image: Path, tmp_path: Path, run_qemu: Run) -> list[tuple[str, str]]:
    """What the registers say here and under QEMU, line by line."""
    elf, other = tmp_path / "registers.elf", tmp_path / "other.img"
    elf.write_bytes(assemble_file(REGISTERS, include=[LIB]).elf())
    shutil.copy(image, other)
    ours = run_natively(elf, image).decode().splitlines()
    theirs = run_qemu(elf, b"", *drive(other)).output.decode().splitlines()
    assert image.read_bytes() == other.read_bytes()
    return list(zip(ours, theirs, strict=True))


FIELDS = re.compile(r"(.+): (\d+) (0x\w+) status (0x\w+) error (0x\w+)")
DSC, ERR = 0x10, 0x01


def test_registers_say_what_qemus_say(printed: list[tuple[str, str]]) -> None:
    """But for three things: QEMU clears DSC after errors and when idle, which no drive does; it
    aborts what is beyond the disk, which the standard calls IDNF; and takes the data before."""
    failed = 0
    for pair in printed:
        ours, theirs = (FIELDS.fullmatch(line) for line in pair)
        if ours is None or theirs is None:
            assert pair[0] == pair[1]
            continue
        status, other = (int(found[4], 16) for found in (ours, theirs))
        assert status & ~DSC == other & ~DSC, pair
        if status & ERR:
            failed += 1
        else:
            assert ours.groups()[:3] == theirs.groups()[:3]
            assert ours[5] == theirs[5]
    assert (len(printed), failed) == (39, 11)
