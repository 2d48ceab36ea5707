"""What a drive says of itself: the 256 words of IDENTIFY DEVICE.

Words that are not named here are 0: what they speak of is left out, DMA and SMART among it.
Source: ATA/ATAPI-6 (T13 1410D), 8.15. Read ide.py for the drive.
"""

from __future__ import annotations

import struct
from typing import Final

from emulator.devices.drive import HEADS, TRACK, Drive

WORDS: Final = 256
#: Sectors that the addresses of the two older ways reach.
MOST_BY_CHS: Final = 16_383 * 16 * 63
MOST_BY_LBA28: Final = (1 << 28) - 1
MOST_BLOCK: Final = 16  #: sectors that READ and WRITE MULTIPLE move at once
CYCLE_NS: Final = 120  #: of a transfer in PIO mode 4

NOT_REMOVABLE, LBA, IORDY = 0x0040, 1 << 9, 1 << 11
WRITE_CACHE, LOOK_AHEAD, NOP = 1 << 5, 1 << 6, 1 << 14
LBA48, FLUSH, FLUSH_EXT, VALID = 1 << 10, 1 << 12, 1 << 13, 1 << 14


def cylinders(sectors: int, heads: int, per_track: int) -> int:
    """Of a translation: whole ones, at least one, and no more than a BIOS can count."""
    return max(1, min(sectors // (heads * per_track), 16_383 if heads == 16 else 0xFFFF))


def identify(drive: Drive, serial: str, sectors: int) -> bytes:
    """The answer to IDENTIFY DEVICE, of a drive of so many sectors."""
    heads, track = drive.heads, drive.track
    now = cylinders(sectors, heads, track)
    commands = LBA48 | FLUSH | FLUSH_EXT
    words = [0] * WORDS
    numbers = {
        0: NOT_REMOVABLE,
        1: cylinders(sectors, HEADS, TRACK),
        3: HEADS,
        6: TRACK,
        47: 0x8000 | MOST_BLOCK,
        48: 1,  # 32 bits at once
        49: LBA | IORDY,
        51: 2 << 8,
        53: 3,  # words 54 to 58 and 64 to 70 count
        54: now,
        55: heads,
        56: track,
        59: 0x100 | drive.multiple if drive.multiple else 0,
        64: 3,  # PIO modes 3 and 4
        67: CYCLE_NS,
        68: CYCLE_NS,
        80: 0x70,  # ATA-4 to ATA-6
        82: WRITE_CACHE | LOOK_AHEAD | NOP,
        83: VALID | commands,
        84: VALID,
        85: WRITE_CACHE | LOOK_AHEAD | NOP,
        86: commands,
        87: VALID,
    }
    for number, value in numbers.items():
        words[number] = value
    _put(words, 57, min(now * heads * track, sectors, MOST_BY_CHS), 2)
    _put(words, 60, min(sectors, MOST_BY_LBA28), 2)
    _put(words, 100, sectors, 4)
    _put_text(words, 10, 10, serial)
    _put_text(words, 23, 4, "1.0")
    _put_text(words, 27, 20, "SEVENTEEN DISK")
    return struct.pack(f"<{WORDS}H", *words)


def _put(words: list[int], first: int, value: int, count: int) -> None:
    """A number over several words, its lowest first."""
    for n in range(count):
        words[first + n] = value >> 16 * n & 0xFFFF


def _put_text(words: list[int], first: int, count: int, text: str) -> None:
    """Text, two characters a word, the first in the upper byte."""
    padded = text.ljust(2 * count).encode("ascii")
    words[first : first + count] = struct.unpack(f">{count}H", padded)
