"""The 8042 keyboard controller on ports 0x60 and 0x64, a keyboard behind it, and port 0x92.

The keyboard sends scan codes of set 2; the controller turns them into set 1 if it is told to, holds
one byte for the guest, and says so on interrupt line 1. Whoever types sends characters (keys.py
makes keys of them), all the input there is from the start, at 1 ms a byte; a key waits until the
guest has read the one before, so none is lost. An interrupt controller forgets, when it is set up,
that a line has risen: so a byte that nobody reads is announced again, each time after twice as
long. Commands of the keyboard and of the controller are answered after a moment. There is a port
for a mouse and no mouse: what is sent to it times out.

The guest finds what a BIOS leaves: translation and interrupt on, mouse off. To pull the reset line
(0xFE to port 0x64, or port 0x92) ends the run with status 0, as QEMU's -no-reboot does. Left out:
gate A20, which is kept and always open; scan code set 3, typematic repeat, the keyboard lock.
Sources: Intel 8042 data sheet; IBM PS/2 Technical Reference. Read vga.py next.
"""

from __future__ import annotations

from typing import Final

from emulator.clock import TICKS_PER_SECOND
from emulator.devices.device import Device, Platform, State
from emulator.devices.keys import SET_1, codes_of, take_stroke

DATA: Final = 0x60
STATUS: Final = 0x64  #: when read; commands when written
LINE: Final = 1
MOUSE_LINE: Final = 12
#: A byte of eleven bits at some 11 kHz.
KEY_TICKS: Final = TICKS_PER_SECOND // 1000
#: Until the keyboard answers. Real ones take longer, but so does an IN on a real PC's bus, by which
#: drivers measure their patience.
REPLY_TICKS: Final = TICKS_PER_SECOND // 20_000

#: A byte is announced again after so long if it is not read, and at last after so long.
REMIND_TICKS: Final = 10 * KEY_TICKS
MOST_REMIND_TICKS: Final = 1000 * TICKS_PER_SECOND

FULL, SYSTEM, COMMAND, UNLOCKED, MOUSE, TIMEOUT = 0x01, 0x04, 0x08, 0x10, 0x20, 0x40
#: Bits of the command byte.
INTERRUPT, MOUSE_INTERRUPT, CONFIG_SYSTEM = 0x01, 0x02, 0x04
DISABLED, MOUSE_DISABLED, TRANSLATE = 0x10, 0x20, 0x40
NOT_RESET, A20, PORT_REST = 0x01, 0x02, 0xCC  #: of the output port
ACK, RESEND, PASSED, ECHO = 0xFA, 0xFE, 0xAA, 0xEE
BREAK: Final = 0xF0  #: before a code of set 2: the key goes up
IDENTITY: Final = (0xAB, 0x83)
#: Keyboard commands with an argument: LEDs, scan code set, typematic rate.
WITH_ARGUMENT: Final = (0xED, 0xF0, 0xF3)
#: Controller commands whose argument comes through port 0x60.
WITH_DATA: Final = (*range(0x60, 0x80), 0xD1, 0xD2, 0xD3, 0xD4)
#: Controller commands with an answer that never changes: password (none is set), self test, tests
#: of the mouse's and the keyboard's port, input port, test inputs.
ANSWERS: Final = {0xA4: 0xF1, 0xAA: 0x55, 0xA9: 0x00, 0xAB: 0x00, 0xC0: 0x80, 0xE0: 0x00}
#: Controller commands that clear and set bits of the command byte.
SWITCHES: Final = {
    0xA7: (0, MOUSE_DISABLED),
    0xA8: (MOUSE_DISABLED, 0),
    0xAD: (0, DISABLED),
    0xAE: (DISABLED, 0),
}


class KeyboardState(State):
    def __init__(self) -> None:
        # The controller.
        self.ram = [INTERRUPT | CONFIG_SYSTEM | MOUSE_DISABLED | TRANSLATE, *[0] * 31]
        self.output = 0  #: the byte for the guest
        self.status = SYSTEM | UNLOCKED
        self.port = NOT_RESET | A20 | PORT_REST
        self.command = 0  #: waits for its data; 0: none does
        self.answers: list[int] = []  #: to be read next: a byte, and MOUSE or TIMEOUT << 8
        self.going_up = False  #: a BREAK has come and is being translated
        # The keyboard.
        self.replies: list[int] = []
        self.codes: list[int] = []  #: of keys, to be sent
        self.typed = b""  #: characters whose keys have not been pressed yet
        self.ended = False  #: nobody will type any more
        self.argument_of = 0  #: a keyboard command that waits for its argument
        self.scanning = True
        self.scan_set = 2
        self.leds = 0
        self.last = 0  #: sent last
        self.patience = REMIND_TICKS  #: until the byte that waits is announced again
        self.ready = 0  #: tick before which the keyboard sends nothing


class Keyboard(Device):
    """Controller and keyboard. `typed`: the outside is asked for what is typed."""

    name = "keyboard"
    ports = ((DATA, 1), (STATUS, 1))

    def __init__(self, platform: Platform, typed: bool = False) -> None:
        super().__init__(platform)
        self.state = KeyboardState()
        self.state.ended = not typed
        if typed:
            platform.schedule(self.name, "byte", 0)

    # -- the controller -----------------------------------------------------------------------

    @property
    def _config(self) -> int:
        config: int = self.state.ram[0]
        return config

    def read(self, port: int, size: int = 1) -> int:
        state = self.state
        if port == STATUS:
            status: int = state.status
            return status
        value: int = state.output
        state.status &= ~(FULL | MOUSE | TIMEOUT)
        self.platform.cancel(self.name, "remind")
        self._go_on()
        return value

    def write(self, port: int, size: int, value: int) -> None:
        state = self.state
        if port == STATUS:
            state.status |= COMMAND
            state.command = value if value in WITH_DATA else 0
            if not state.command:
                self._control(value)
        else:
            state.status &= ~COMMAND
            command, state.command = state.command, 0
            if command:
                self._take_data(command, value)
            else:
                state.ram[0] &= ~DISABLED  # whoever talks to the keyboard wants to hear it
                self._tell_keyboard(value)
        self._go_on()

    def _control(self, command: int) -> None:
        """A command without data."""
        state = self.state
        if 0x20 <= command < 0x40:
            self._answer(state.ram[command - 0x20])
        elif command in SWITCHES:
            clear, set_ = SWITCHES[command]
            state.ram[0] = state.ram[0] & ~clear | set_
        elif command == 0xD0:
            self._answer(state.port)
        elif command >= 0xF0:
            if not command & NOT_RESET:  # bits that are 0 are pulsed low
                self.platform.power_off(0)
        elif command in ANSWERS:
            if command == 0xAA:
                state.status |= SYSTEM
            self._answer(ANSWERS[command])

    def _take_data(self, command: int, value: int) -> None:
        """A command whose data have come."""
        state = self.state
        if command < 0x80:
            state.ram[command - 0x60] = value
            if command == 0x60:
                state.status = state.status & ~SYSTEM | value & SYSTEM
        elif command == 0xD1:
            state.port = value
            if not value & NOT_RESET:
                self.platform.power_off(0)
        elif command == 0xD2:
            self._answer(value)
        elif command == 0xD3:
            self._answer(value, MOUSE)
        else:  # 0xD4: there is no mouse
            self._answer(RESEND, MOUSE | TIMEOUT)

    def _answer(self, value: int, flags: int = 0) -> None:
        self.state.answers.append(value | flags << 8)

    def _go_on(self) -> None:
        """Have the next byte wait for the guest: the controller's at once, else the keyboard's."""
        state = self.state
        if not state.status & FULL and state.answers:
            answer = state.answers.pop(0)
            state.output = answer & 0xFF
            state.status |= FULL | answer >> 8
        self._drive_lines()
        if not state.status & FULL and not self._config & DISABLED:
            self._await_byte()
        else:
            self.platform.cancel(self.name, "byte")

    def _drive_lines(self) -> None:
        state, config = self.state, self._config
        full, mouse = state.status & FULL, state.status & MOUSE
        self.platform.set_irq(LINE, bool(full and not mouse and config & INTERRUPT))
        self.platform.set_irq(MOUSE_LINE, bool(full and mouse and config & MOUSE_INTERRUPT))

    def _translate(self, code: int) -> int | None:
        """A byte of the keyboard's as the guest sees it; None: the next one says more."""
        state = self.state
        if not self._config & TRANSLATE:
            return code
        if code == BREAK:
            state.going_up = True
            return None
        up, state.going_up = state.going_up, False
        code = SET_1.get(code, code)
        return code | 0x80 if up else code

    # -- the keyboard -------------------------------------------------------------------------

    def _tell_keyboard(self, value: int) -> None:
        """A byte for the keyboard: a command, or the argument of one."""
        state = self.state
        state.ready = self.platform.now + REPLY_TICKS
        command, state.argument_of = state.argument_of, 0
        if command and value < 0x80:
            self._take_argument(command, value)
        elif value in WITH_ARGUMENT:
            state.argument_of = value
            state.replies.append(ACK)
        elif value == 0xFE:
            state.replies.append(state.last)
        elif value == 0xEE:
            state.replies.append(ECHO)
        elif value == 0xF2:
            state.replies += (ACK, *IDENTITY)
        elif value in (0xF4, 0xF5, 0xF6, 0xFF):
            self._set_defaults(value)
        else:
            state.replies.append(RESEND)

    def _take_argument(self, command: int, value: int) -> None:
        state = self.state
        state.replies.append(ACK)
        if command == 0xED:
            state.leds = value & 7
        elif command == 0xF0 and value == 0:
            state.replies.append(state.scan_set)
        elif command == 0xF0 and value in (1, 2):
            state.scan_set = value

    def _set_defaults(self, command: int) -> None:
        """Enable; disable with defaults; defaults; reset, which also tests."""
        state = self.state
        state.scanning = command != 0xF5
        if command != 0xF4:
            state.scan_set, state.leds = 2, 0
        state.replies.append(ACK)
        if command == 0xFF:
            state.replies.append(PASSED)

    def _next_byte(self) -> int | None:
        """What the keyboard sends next, taken from where it waits; None if it has nothing."""
        state = self.state
        if state.replies:
            byte: int = state.replies.pop(0)
            return byte
        while state.scanning and not state.codes and state.typed:
            stroke, state.typed = take_stroke(state.typed)
            if stroke is not None:
                state.codes = codes_of(stroke, state.scan_set)
        return state.codes.pop(0) if state.scanning and state.codes else None

    def _await_byte(self) -> None:
        """Be woken when the keyboard may send, if it has something to send."""
        state = self.state
        if state.scanning and not (state.codes or state.typed or state.ended):
            self.platform.request_input(self.name)
        if state.replies or (state.scanning and (state.codes or state.typed)):
            self.platform.schedule(self.name, "byte", max(state.ready, self.platform.now))
        else:
            self.platform.cancel(self.name, "byte")

    def receive(self, data: bytes) -> None:
        state = self.state
        state.typed += data
        state.ended = not data
        if data and not state.status & FULL and not self._config & DISABLED and state.scanning:
            self.platform.schedule(self.name, "byte", max(state.ready, self.platform.now))

    def wake(self, tag: str) -> None:
        if tag == "byte":
            self._send_byte()
        elif tag == "remind":
            self.platform.set_irq(LINE, False)
            self._drive_lines()
            self._await_reader(2 * self.state.patience)
        else:
            super().wake(tag)

    def _await_reader(self, patience: int) -> None:
        self.state.patience = patience
        if patience <= MOST_REMIND_TICKS:
            self.platform.schedule(self.name, "remind", self.platform.now + patience)

    def _send_byte(self) -> None:
        state = self.state
        while (byte := self._next_byte()) is not None:
            state.last = byte
            state.ready = self.platform.now + (REPLY_TICKS if state.replies else KEY_TICKS)
            code = self._translate(byte)
            if code is not None:
                state.output = code
                state.status |= FULL
                self._await_reader(REMIND_TICKS)
                break
        self._go_on()


class SystemControl(Device):
    """Port 0x92: bit 0 pulls the reset line, bit 1 opens gate A20, which is always open."""

    name = "system-control"
    ports = ((0x92, 1),)

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = SystemControlState()

    def read(self, port: int, size: int = 1) -> int:
        value: int = self.state.value
        return value

    def write(self, port: int, size: int, value: int) -> None:
        self.state.value = value & ~1
        if value & 1:
            self.platform.power_off(0)


class SystemControlState(State):
    def __init__(self) -> None:
        self.value = A20
