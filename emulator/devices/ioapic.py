"""The I/O APIC: twenty-four lines in, messages to local APICs out.

Each line has an entry of the redirection table: vector, trigger, mask, and which CPU is meant. An
edge on an open line is a message at once, and lost on a masked one; a level is a message while the
line is up, its entry is open and the last one has been answered: the remote IRR is set from the
message to the EOI of its vector. Lines 0 to 15 are the PC's, but for the timer, which is at 2; at
line 0 the 8259s' output arrives, and there is no other way to tell the two apart. Registers are
reached through a window: an index at offset 0, data at 0x10. Source: Intel 82093AA data sheet. Left
out: other CPUs than number 0, and what local APICs leave out of delivery modes. Read ide.py next.
"""

from __future__ import annotations

from typing import Final

from emulator.devices.device import Device, Platform, State

BASE: Final = 0xFEC0_0000
PAGE: Final = 4096
PINS: Final = 24
#: The pin of a PC's line, where it is not the line's number.
PIN_OF_LINE: Final = {0: 2}
#: Where the 8259s' output arrives.
EXTINT_PIN: Final = 0
#: What firmware gives it for a name: the CPUs' come first.
FIRMWARE_ID: Final = 1

INDEX, WINDOW = 0x00, 0x10
ID_REGISTER, VERSION_REGISTER, ARBITRATION, TABLE = 0, 1, 2, 0x10
VERSION: Final = 0x11 | PINS - 1 << 16

DELIVERY_MODE: Final = 7 << 8
EXTINT: Final = 7 << 8
LOGICAL: Final = 1 << 11
ACTIVE_LOW: Final = 1 << 13  #: kept, and no more: a device's line says what it wants
REMOTE_IRR: Final = 1 << 14
LEVEL: Final = 1 << 15
MASKED: Final = 1 << 16
#: What can be written of an entry's low half; its high half is the destination.
WRITABLE: Final = 0x1AFFF
DESTINATION: Final = 0xFF00_0000


class IoApicState(State):
    def __init__(self) -> None:
        self.index = 0
        self.id = FIRMWARE_ID << 24
        self.lines = 0  #: levels, a bit a pin
        self.low = [MASKED] * PINS
        self.high = [0] * PINS


class IoApic(Device):
    """The one I/O APIC of an `apic` machine."""

    name = "ioapic"
    pages = ((BASE, PAGE),)
    width = 4

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = IoApicState()

    # -- lines ------------------------------------------------------------------------------------

    def set_line(self, line: int, level: bool) -> None:
        """Drive a PC's line, 0 to 15."""
        self._set_pin(PIN_OF_LINE.get(line, line), level)

    def _set_pin(self, pin: int, level: bool) -> None:
        state = self.state
        rises = level and not state.lines >> pin & 1
        state.lines = state.lines & ~(1 << pin) | level << pin
        if state.low[pin] & LEVEL:
            self._offer_level(pin)
        elif rises and not state.low[pin] & MASKED:
            self._send(pin)

    def _offer_level(self, pin: int) -> None:
        entry = self.state.low[pin]
        if not self.state.lines >> pin & 1 or entry & (MASKED | REMOTE_IRR):
            return
        if self._send(pin):
            self.state.low[pin] |= REMOTE_IRR

    def _send(self, pin: int) -> bool:
        """Send a pin's message; whether somebody has taken it."""
        low, high = self.state.low[pin], self.state.high[pin]
        return self.platform.send_message(
            destination=high >> 24,
            logical=bool(low & LOGICAL),
            mode=(low & DELIVERY_MODE) >> 8,
            vector=low & 0xFF,
            level=bool(low & LEVEL),
        )

    def end_of_interrupt(self, vector: int) -> None:
        """A CPU has ended a level-triggered interrupt: its line may ask again."""
        for pin in range(PINS):
            entry = self.state.low[pin]
            if entry & 0xFF == vector and entry & REMOTE_IRR:
                self.state.low[pin] &= ~REMOTE_IRR
                self._offer_level(pin)

    def can_interrupt(self) -> bool:
        """Some line is open: a halted CPU may yet be woken."""
        return any(not entry & MASKED for entry in self.state.low)

    # -- registers --------------------------------------------------------------------------------

    def read(self, port: int, size: int = 1) -> int:
        offset = port - BASE
        byte = offset & 15
        if byte >= 4:
            return 0
        value = {INDEX: self.state.index, WINDOW: self._register()}.get(offset & ~15, 0)
        return value >> 8 * byte & (1 << 8 * size) - 1

    def _register(self) -> int:
        state, index = self.state, self.state.index
        if TABLE <= index < TABLE + 2 * PINS:
            pin, high = divmod(index - TABLE, 2)
            entry: int = (state.high if high else state.low)[pin]
            return entry
        # The arbitration id follows the id.
        known = {ID_REGISTER: state.id, VERSION_REGISTER: VERSION, ARBITRATION: state.id}
        return known.get(index, 0)

    def write(self, port: int, size: int, value: int) -> None:
        offset, state = port - BASE, self.state
        if offset == INDEX:
            state.index = value & 0xFF
        elif offset == WINDOW and size == self.width:  # as its data sheet has it: doublewords
            if state.index == ID_REGISTER:
                state.id = value & 0x0F00_0000
            elif TABLE <= state.index < TABLE + 2 * PINS:
                self._set_entry(state.index - TABLE, value)

    def _set_entry(self, half: int, value: int) -> None:
        state = self.state
        pin, high = divmod(half, 2)
        if high:
            state.high[pin] = value & DESTINATION
            return
        state.low[pin] = value & WRITABLE | state.low[pin] & REMOTE_IRR
        if not value & LEVEL:
            state.low[pin] &= ~REMOTE_IRR
        else:
            self._offer_level(pin)
