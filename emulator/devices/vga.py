"""The registers of a VGA, as a BIOS leaves them in text mode 3: 80 columns, 25 lines, 16 colours.

The picture is nobody's business here: text memory is plain memory at 0xB8000, which a guest writes
without any exit, and screen.py makes lines of it when somebody looks. What it needs to know is kept
in these registers: where the screen begins in memory, and where the cursor is. The rest is stored
and read back, so that a driver finds what it wrote. Retrace is where the beam would be by guest
time: 70 pictures a second. Left out: graphics modes and their memory, fonts, and the monochrome
card's ports 0x3B4 to 0x3BA. Source: IBM VGA technical reference. Read debug.py next.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.clock import units_at
from emulator.devices.device import Device, Platform, State

ATTRIBUTE, ATTRIBUTE_READ, MISCELLANEOUS, SEQUENCER, DAC, GRAPHICS = (
    *(0x3C0, 0x3C1, 0x3C2),
    *(0x3C4, 0x3C6, 0x3CE),
)
DAC_MASK, DAC_READ, DAC_WRITE, DAC_DATA = 0x3C6, 0x3C7, 0x3C8, 0x3C9
FEATURE_READ, MISCELLANEOUS_READ = 0x3CA, 0x3CC
CRTC: Final = 0x3D4
STATUS: Final = 0x3DA  #: feature control when written

#: Registers of mode 3, by index.
CRTC_MODE_3: Final = bytes.fromhex(
    "5f 4f 50 82 55 81 bf 1f 00 4f 0d 0e 00 00 00 00 9c 8e 8f 28 1f 96 b9 a3 ff"
)
SEQUENCER_MODE_3: Final = bytes.fromhex("03 00 03 00 02")
GRAPHICS_MODE_3: Final = bytes.fromhex("00 00 00 00 00 10 0e 00 ff")
ATTRIBUTE_MODE_3: Final = bytes.fromhex(
    "00 01 02 03 04 05 14 07 38 39 3a 3b 3c 3d 3e 3f 0c 00 0f 08 00"
)
MISCELLANEOUS_MODE_3: Final = 0x67
#: Indices of the CRTC's registers.
COLUMNS, OVERFLOW, ROW_HEIGHT, CURSOR_START, CURSOR_END = 0x01, 0x07, 0x09, 0x0A, 0x0B
START_HIGH, START_LOW, CURSOR_HIGH, CURSOR_LOW = 0x0C, 0x0D, 0x0E, 0x0F
PROTECTION, HEIGHT, PITCH = 0x11, 0x12, 0x13
PROTECTED: Final = 0x80  #: of PROTECTION: registers 0 to 7 keep their values
LINE_COMPARE: Final = 0x10  #: of OVERFLOW: this bit is not protected
MODE_CONTROL: Final = 0x10  #: index of the attribute controller's
BLINK: Final = 0x08  #: of MODE_CONTROL: bit 7 of an attribute blinks, and is no colour
ADDRESS: Final = 0x1F  #: of the attribute controller's index

LINE_HERTZ: Final = 31_469
LINES, SHOWN_LINES = 449, 400
RETRACE_LINES: Final = range(412, 414)
#: A line in hundredths: of so many something is shown.
SHOWN_PART: Final = 80
BLANK, RETRACE = 0x01, 0x08  #: of STATUS


class VgaState(State):
    def __init__(self) -> None:
        self.miscellaneous = MISCELLANEOUS_MODE_3
        self.feature = 0
        self.crtc_index = 0
        self.crtc = list(CRTC_MODE_3)
        self.sequencer_index = 0
        self.sequencer = list(SEQUENCER_MODE_3)
        self.graphics_index = 0
        self.graphics = list(GRAPHICS_MODE_3)
        self.attribute_index = 0x20
        self.attribute = list(ATTRIBUTE_MODE_3)
        self.attribute_data = False  #: the next write to ATTRIBUTE is data
        self.mask = 0xFF
        self.palette = _palette()
        self.dac_at = 0  #: the byte of the palette that comes next
        self.dac_state = 0  #: 3 while it is read, 0 while it is written


def _palette() -> list[int]:
    """256 colours of 6 bits for red, green and blue; the first 64 are the EGA's."""
    palette = [0] * 768
    for colour in range(64):
        for component in range(3):  # bit 2 and 5 are red, 1 and 4 green, 0 and 3 blue
            strong, weak = colour >> 2 - component & 1, colour >> 5 - component & 1
            palette[3 * colour + component] = 42 * strong + 21 * weak
    return palette


class Vga(Device):
    """The registers; `screen.py` has the picture."""

    name = "vga"
    ports = ((0x3C0, 16), (CRTC, 2), (STATUS, 1))

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = VgaState()

    @property
    def crtc(self) -> list[int]:
        """The CRTC's registers by index."""
        registers: list[int] = self.state.crtc
        return registers

    @property
    def blinks(self) -> bool:
        """Bit 7 of an attribute makes its character blink; otherwise it is the ground's."""
        return bool(self.state.attribute[MODE_CONTROL] & BLINK)

    def read(self, port: int, size: int = 1) -> int:
        state = self.state
        if port == STATUS:
            state.attribute_data = False
            return self._beam()
        if port == DAC_DATA:
            return self._read_palette()
        if port == ATTRIBUTE_READ:
            return _register(state.attribute, state.attribute_index & ADDRESS)
        values = {
            ATTRIBUTE: state.attribute_index,
            MISCELLANEOUS: 0x10,  # a colour monitor
            SEQUENCER: state.sequencer_index,
            SEQUENCER + 1: _register(state.sequencer, state.sequencer_index),
            DAC_MASK: state.mask,
            DAC_READ: state.dac_state,
            DAC_WRITE: state.dac_at // 3,
            FEATURE_READ: state.feature,
            MISCELLANEOUS_READ: state.miscellaneous,
            GRAPHICS: state.graphics_index,
            GRAPHICS + 1: _register(state.graphics, state.graphics_index),
            CRTC: state.crtc_index,
            CRTC + 1: _register(state.crtc, state.crtc_index),
        }
        return values.get(port, 0xFF)

    def write(self, port: int, size: int, value: int) -> None:
        state = self.state
        if port == CRTC + 1:
            self._write_crtc(value)
        elif port == ATTRIBUTE:
            self._write_attribute(value)
        elif port == SEQUENCER + 1:
            _set_register(state.sequencer, state.sequencer_index, value)
        elif port == GRAPHICS + 1:
            _set_register(state.graphics, state.graphics_index, value)
        elif port == DAC_DATA:
            state.palette[state.dac_at] = value & 0x3F
            state.dac_at = (state.dac_at + 1) % len(state.palette)
        elif port in (DAC_READ, DAC_WRITE):
            state.dac_at, state.dac_state = 3 * value, 3 if port == DAC_READ else 0
        elif port in STORED:
            setattr(state, STORED[port], value)

    def _write_crtc(self, value: int) -> None:
        crtc, index = self.state.crtc, self.state.crtc_index
        if index <= OVERFLOW and crtc[PROTECTION] & PROTECTED:
            if index == OVERFLOW:
                crtc[index] = crtc[index] & ~LINE_COMPARE | value & LINE_COMPARE
            return
        _set_register(crtc, index, value)

    def _write_attribute(self, value: int) -> None:
        """Index and data come through one port, in turns."""
        state = self.state
        if state.attribute_data:
            _set_register(state.attribute, state.attribute_index & ADDRESS, value)
        else:
            state.attribute_index = value & 0x3F
        state.attribute_data = not state.attribute_data

    def _read_palette(self) -> int:
        state = self.state
        value: int = state.palette[state.dac_at]
        state.dac_at = (state.dac_at + 1) % len(state.palette)
        return value

    def _beam(self) -> int:
        line, part = divmod(units_at(self.platform.now, 100 * LINE_HERTZ), 100)
        line %= LINES
        blank = line >= SHOWN_LINES or part >= SHOWN_PART
        return blank * BLANK | (line in RETRACE_LINES) * RETRACE


#: Ports that are written to, and what keeps it.
STORED: Final = {
    MISCELLANEOUS: "miscellaneous",
    STATUS: "feature",
    SEQUENCER: "sequencer_index",
    GRAPHICS: "graphics_index",
    CRTC: "crtc_index",
    DAC_MASK: "mask",
}


def _register(registers: list[int], index: int) -> int:
    return registers[index] if index < len(registers) else 0


def _set_register(registers: list[Any], index: int, value: int) -> None:
    if index < len(registers):
        registers[index] = value
