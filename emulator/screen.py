"""What is on the screen: text memory as the VGA's registers say that it is shown.

A cell is a byte of character, in the IBM PC's code page 437, and a byte of attribute: bits 0-3 the
colour, 4-6 the ground's, 7 blinking. Whoever looks does so without the guest's knowledge. Read
devices/vga.py for the registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from emulator.devices import vga
from emulator.memory import TEXT

if TYPE_CHECKING:
    from emulator.memory import Memory

#: What a BIOS leaves: light grey on black.
BLANK: Final = b"\x20\x07"
#: More than any text mode has.
MOST_COLUMNS, MOST_ROWS = 132, 60
#: Code page 437, the pictures of 0x00 to 0x1F and 0x7F among it.
_PICTURES: Final = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
CHARACTERS: Final = (
    _PICTURES
    + bytes(range(0x20, 0x7F)).decode("cp437")
    + "⌂"
    + bytes(range(0x80, 0xFF)).decode("cp437")
    + " "
)


class Screen(NamedTuple):
    """A screen full of cells."""

    columns: int
    cells: bytes  #: characters and attributes, row by row
    cursor: tuple[int, int] | None  #: row and column; None: it is off, or elsewhere
    blinks: bool

    @property
    def rows(self) -> list[bytes]:
        """The cells of each row."""
        width = 2 * self.columns
        return [self.cells[at : at + width] for at in range(0, len(self.cells), width)]

    @property
    def lines(self) -> list[str]:
        """The text of each row, without blanks at its end."""
        return ["".join(CHARACTERS[code] for code in row[::2]).rstrip() for row in self.rows]


def clear_screen(memory: Memory) -> None:
    """Leave text memory as a BIOS does."""
    memory.write(TEXT.start, BLANK * (len(TEXT) // 2))


def read_screen(memory: Memory, device: vga.Vga) -> Screen:
    """The screen as it is now."""
    crtc = device.crtc
    columns = min(crtc[vga.COLUMNS] + 1, MOST_COLUMNS)
    overflow = crtc[vga.OVERFLOW]
    height = crtc[vga.HEIGHT] | (overflow & 2) << 7 | (overflow & 0x40) << 3
    rows = min((height + 1) // ((crtc[vga.ROW_HEIGHT] & 0x1F) + 1), MOST_ROWS)
    start = crtc[vga.START_HIGH] << 8 | crtc[vga.START_LOW]
    pitch = 2 * crtc[vga.PITCH] or columns
    text = memory.read(TEXT.start, len(TEXT))
    cells = b"".join(_wrapped(text, 2 * (start + row * pitch), 2 * columns) for row in range(rows))
    return Screen(columns, cells, _cursor(crtc, start, pitch, columns, rows), device.blinks)


def _wrapped(text: bytes, at: int, size: int) -> bytes:
    """Text memory goes round."""
    at %= len(text)
    return (text[at:] + text)[:size] if at + size > len(text) else text[at : at + size]


def _cursor(
    crtc: list[int], start: int, pitch: int, columns: int, rows: int
) -> tuple[int, int] | None:
    first, last = crtc[vga.CURSOR_START], crtc[vga.CURSOR_END]
    place = (crtc[vga.CURSOR_HIGH] << 8 | crtc[vga.CURSOR_LOW]) - start
    row, column = divmod(place, pitch)
    is_off = first & 0x20 or first & 0x1F > last & 0x1F
    return None if is_off or not 0 <= row < rows or column >= columns else (row, column)
