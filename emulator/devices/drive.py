"""One ATA drive: its registers, the addresses they hold, and what it is about to move.

A drive has no ports of its own; the channel (ide.py) reads and writes its registers, and runs its
commands. An address is LBA28, LBA48 - where a register holds two bytes, the one written last and
the one before - or cylinder, head and sector, by a translation that the guest may change. Source:
ATA/ATAPI-6 (T13 1410D), 6.2 and 7. Read ide.py next.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from emulator.devices.device import State

DATA, ERROR, COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, STATUS = range(8)
FEATURES, COMMAND = ERROR, STATUS  #: when written
BSY, DRDY, DSC, DRQ, ERR = 0x80, 0x40, 0x10, 0x08, 0x01
READY: Final = DRDY | DSC
UNC, IDNF, ABRT = 0x40, 0x10, 0x04
DIAGNOSED: Final = 1  #: the error register after a reset: the drive is well
DEVICE_ONES, DEVICE_LBA, DEVICE_SECOND, DEVICE_HEAD = 0xA0, 0x40, 0x10, 0x0F
HEADS, TRACK = 16, 63  #: of the translation that a drive begins with


class Transfer(NamedTuple):
    """A command that moves sectors."""

    writes: bool = False
    many: bool = False  #: as many sectors a block as SET MULTIPLE MODE said
    wide: bool = False  #: LBA48


TRANSFERS: Final = {
    0x20: Transfer(),
    0x21: Transfer(),
    0x24: Transfer(wide=True),
    0x29: Transfer(many=True, wide=True),
    0xC4: Transfer(many=True),
    0x30: Transfer(writes=True),
    0x31: Transfer(writes=True),
    0x34: Transfer(writes=True, wide=True),
    0x39: Transfer(writes=True, many=True, wide=True),
    0xC5: Transfer(writes=True, many=True),
}


class Drive(State):
    """Registers and transfer of one drive. Lists are indexed by register."""

    def __init__(self) -> None:
        self.current = [0, 0, 1, 1, 0, 0, 0]
        self.previous = [0] * 7  #: what was in a register before: the upper half for LBA48
        self.error = DIAGNOSED
        self.status = READY
        self.heads = HEADS
        self.track = TRACK
        self.multiple = 0
        self.command = 0
        self.failed = 0  #: error bits that the end of the busy time will tell
        self.next = 0  #: the sector that the next block begins with
        self.left = 0  #: sectors of the command that are in no block yet
        self.buffer = b""  #: the block: all of it for the guest, or what of it has come from there
        self.position = 0  #: bytes the guest has read
        self.wanted = 0  #: bytes the guest is to write

    def reset(self) -> None:
        """To the state of a drive that has been reset, its signature in place."""
        self.load(Drive().save())

    def address(self, wide: bool) -> int | None:
        """The first sector that the registers name; None if there cannot be one."""
        current, previous, device = self.current, self.previous, self.current[DEVICE]
        low = current[LBA_HIGH] << 16 | current[LBA_MID] << 8 | current[LBA_LOW]
        if wide:
            high = previous[LBA_HIGH] << 16 | previous[LBA_MID] << 8 | previous[LBA_LOW]
            return high << 24 | low
        if device & DEVICE_LBA:
            return (device & DEVICE_HEAD) << 24 | low
        head, sector = device & DEVICE_HEAD, current[LBA_LOW]
        if head >= self.heads or not 1 <= sector <= self.track:
            return None
        return ((low >> 8) * self.heads + head) * self.track + sector - 1

    def count(self, wide: bool) -> int:
        """Sectors wanted; 0 in the registers means all that they can count, and one."""
        if wide:
            return self.previous[COUNT] << 8 | self.current[COUNT] or 0x10000
        return self.current[COUNT] or 0x100

    def show(self, sector: int, wide: bool) -> None:
        """Put a sector's address into the registers."""
        current, device = self.current, self.current[DEVICE]
        if wide or device & DEVICE_LBA:
            for n in range(3):
                current[LBA_LOW + n] = sector >> 8 * n & 0xFF
                self.previous[LBA_LOW + n] = sector >> 24 + 8 * n & 0xFF
            head = sector >> 24 & DEVICE_HEAD if not wide else device & DEVICE_HEAD
        else:
            track, number = divmod(sector, self.track)
            cylinder, head = divmod(track, self.heads)
            current[LBA_LOW] = number + 1
            current[LBA_MID], current[LBA_HIGH] = cylinder & 0xFF, cylinder >> 8 & 0xFF
        current[DEVICE] = device & ~DEVICE_HEAD | head
