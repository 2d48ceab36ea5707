"""An IDE channel on a platform of its own, and a driver for it that knows how to wait."""

from __future__ import annotations

import struct

from emulator.devices.ide import BUSY_TICKS, PrimaryIde
from emulator.disk import SECTOR, Disk
from tests.emulator.fake import FakePlatform

BASE, CONTROL, LINE = 0x1F0, 0x3F6, 14
BSY, READY, DRQ, ERR = 0x80, 0x50, 0x08, 0x01
IDNF, ABRT, UNC = 0x10, 0x04, 0x40
SECTORS = 4000
IMAGE = b"".join(struct.pack("<I", n) * 128 for n in range(SECTORS))


class Bench:
    """A channel with a driver that knows how to wait."""

    def __init__(self, *disks: Disk | None) -> None:
        self.platform = FakePlatform()
        self.disks = disks or (Disk(IMAGE),)
        self.ide = PrimaryIde(self.platform, self.disks)
        self.platform.device = self.ide

    def out(self, register: int, value: int) -> None:
        self.ide.write(BASE + register, 1, value)

    def inb(self, register: int) -> int:
        return self.ide.read(BASE + register)

    @property
    def line(self) -> bool:
        return self.platform.lines[LINE]

    def wait(self) -> int:
        """Let the busy time pass; the status, read where that changes nothing."""
        self.platform.run_to(self.platform.now + BUSY_TICKS)
        return self.ide.read(CONTROL)

    def address(self, lba: int, count: int = 1, drive: int = 0) -> None:
        """LBA28."""
        for register, value in enumerate((count, lba, lba >> 8, lba >> 16), 2):
            self.out(register, value & 0xFF)
        self.out(6, 0xE0 | drive << 4 | lba >> 24)

    def address_wide(self, lba: int, count: int) -> None:
        """LBA48: the upper half first."""
        for shift in (1, 0):
            self.out(2, count >> 8 * shift & 0xFF)
            for n in range(3):
                self.out(3 + n, lba >> 24 * shift + 8 * n & 0xFF)
        self.out(6, 0x40)

    def command(self, code: int) -> int:
        self.out(7, code)
        return self.wait()

    def take(self, size: int = SECTOR, width: int = 4) -> bytes:
        pieces = (self.ide.read(BASE, width) for _ in range(size // width))
        return b"".join(piece.to_bytes(width, "little") for piece in pieces)

    def give(self, data: bytes, width: int = 4) -> None:
        for at in range(0, len(data), width):
            self.ide.write(BASE, width, int.from_bytes(data[at : at + width], "little"))

    def contents(self, first: int, count: int = 1) -> bytes:
        disk = self.disks[0]
        assert disk is not None
        return disk.read(first, count)

    def identity(self) -> tuple[int, ...]:
        assert self.command(0xEC) == READY | DRQ
        return struct.unpack("<256H", self.take())
