"""The keyboard controller, the keyboard behind it, and what becomes of typed characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import Machine
from emulator.devices.keyboard import KEY_TICKS, REMIND_TICKS, REPLY_TICKS, Keyboard, SystemControl
from emulator.devices.keys import SET_1, SET_2, Stroke, codes_of, take_stroke
from emulator.result import Stop
from isa import assemble
from tests.emulator.fake import FakePlatform
from tests.emulator.test_machine import SYSTEM

DATA, STATUS, LINE, MOUSE_LINE = 0x60, 0x64, 1, 12
FULL, MOUSE, TIMEOUT = 0x01, 0x20, 0x40


class Bench:
    """A keyboard with a driver."""

    def __init__(self, *typed: bytes | None) -> None:
        self.platform = FakePlatform()
        self.platform.source.extend(typed)
        self.keyboard = Keyboard(self.platform, typed=bool(typed))
        self.platform.device = self.keyboard

    @property
    def status(self) -> int:
        return self.keyboard.read(STATUS)

    def command(self, value: int, *data: int) -> None:
        self.keyboard.write(STATUS, 1, value)
        for each in data:
            self.keyboard.write(DATA, 1, each)

    def tell(self, value: int) -> None:
        self.keyboard.write(DATA, 1, value)

    def pass_time(self, ticks: int) -> None:
        self.platform.run_to(self.platform.now + ticks)

    def answer(self) -> int:
        assert self.status & FULL
        return self.keyboard.read(DATA)

    def reply(self) -> int:
        """What the keyboard says."""
        self.pass_time(REPLY_TICKS)
        return self.answer()

    def codes(self) -> list[int]:
        """All that is typed, as the guest reads it."""
        found = []
        while True:
            self.pass_time(KEY_TICKS)
            if not self.status & FULL:
                return found
            found.append(self.keyboard.read(DATA))


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- the controller ---------------------------------------------------------------------------


def test_at_rest(bench):
    assert bench.status == 0x14
    assert bench.platform.clock.next_tick == (1 << 64) - 1


@pytest.mark.parametrize(
    ("command", "answer"),
    [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x00), (0x20, 0x65), (0xD0, 0xCF), (0xA4, 0xF1)],
)
def test_commands_with_an_answer(bench, command, answer):
    bench.command(command)
    assert bench.status & FULL
    assert bench.platform.lines[LINE]
    assert bench.answer() == answer
    assert not bench.status & FULL
    assert not bench.platform.lines[LINE]


def test_the_command_byte(bench):
    bench.command(0x60, 0x00)
    bench.command(0x20)
    assert not bench.platform.lines[LINE]  # the interrupt is off
    assert bench.answer() == 0
    for command, bits in ((0xAD, 0x10), (0xA7, 0x30), (0xAE, 0x20), (0xA8, 0x00)):
        bench.command(command)
        bench.command(0x20)
        assert bench.answer() == bits
    bench.command(0x65, 0x42)
    bench.command(0x25)
    assert bench.answer() == 0x42


def test_status_tells_a_command_from_data(bench):
    bench.command(0x60)
    assert bench.status & 8
    bench.tell(0x65)
    assert not bench.status & 8


def test_the_output_buffer_may_be_written(bench):
    bench.command(0xD2, 0x1E)
    assert bench.platform.lines[LINE]
    assert bench.answer() == 0x1E


def test_the_mouse_port_works_but_nobody_is_there(bench):
    bench.command(0x60, 0x47)
    bench.command(0xD3, 0x5A)
    assert bench.status & (FULL | MOUSE) == FULL | MOUSE
    assert (bench.platform.lines[LINE], bench.platform.lines[MOUSE_LINE]) == (False, True)
    assert bench.answer() == 0x5A
    assert not bench.platform.lines[MOUSE_LINE]
    bench.command(0xD4, 0xFF)
    assert bench.status & (FULL | MOUSE | TIMEOUT) == FULL | MOUSE | TIMEOUT
    assert bench.answer() == 0xFE
    assert bench.status & (FULL | MOUSE | TIMEOUT) == 0


@pytest.mark.parametrize(
    ("command", "data", "status"),
    [(0xFE, (), 0), (0xF0, (), 0), (0xFF, (), None), (0xD1, (0xFE,), 0), (0xD1, (0xFF,), None)],
)
def test_the_reset_line_ends_the_run(bench, command, data, status):
    bench.command(command, *data)
    assert bench.platform.status == status


def test_port_92():
    platform = FakePlatform()
    device = SystemControl(platform)
    assert device.read(0x92) == 2
    device.write(0x92, 1, 0)
    assert device.read(0x92) == 0
    assert platform.status is None
    device.write(0x92, 1, 3)
    assert platform.status == 0


# -- the keyboard -----------------------------------------------------------------------------


def test_reset_is_acknowledged_and_passed(bench):
    bench.tell(0xFF)
    assert not bench.status & FULL
    bench.pass_time(REPLY_TICKS)
    assert bench.platform.lines[LINE]
    assert bench.answer() == 0xFA
    assert bench.reply() == 0xAA
    assert bench.codes() == []


def test_identity_is_translated_or_not(bench):
    bench.tell(0xF2)
    assert [bench.reply() for _ in range(3)] == [0xFA, 0xAB, 0x41]
    bench.command(0x60, 0x05)
    bench.tell(0xF2)
    assert [bench.reply() for _ in range(3)] == [0xFA, 0xAB, 0x83]


def test_commands_of_the_keyboard(bench):
    for value in (0xED, 7, 0xF3, 0, 0xF4, 0xF6):
        bench.tell(value)
        assert bench.reply() == 0xFA
    assert bench.keyboard.save()["leds"] == 0
    bench.tell(0xEE)
    assert bench.reply() == 0xEE
    bench.tell(0x12)
    assert bench.reply() == 0xFE
    bench.tell(0xFE)
    assert bench.reply() == 0xFE  # what was sent last


def test_the_scan_code_set_can_be_asked_for_and_chosen(bench):
    bench.command(0x60, 0x05)
    for wanted in (1, 2, 1):
        for value in (0xF0, wanted, 0xF0, 0):
            bench.tell(value)
            assert bench.reply() == 0xFA
        assert bench.reply() == wanted


def test_the_keyboard_waits_while_its_interface_is_off(bench):
    bench.command(0xAD)
    bench.keyboard.state.replies.append(0xAA)
    bench.command(0xAE)
    bench.command(0xAD)
    bench.pass_time(KEY_TICKS)
    assert not bench.status & FULL
    bench.command(0xAE)
    assert bench.reply() == 0xAA


# -- typing -----------------------------------------------------------------------------------


def test_a_character_is_a_key_down_and_up():
    bench = Bench(b"a", b"")
    bench.pass_time(0)
    assert bench.platform.lines[LINE]
    assert bench.answer() == 0x1E
    bench.pass_time(KEY_TICKS - 1)
    assert not bench.status & FULL
    bench.pass_time(1)
    assert bench.answer() == 0x9E
    assert bench.codes() == []


@pytest.mark.parametrize(
    ("typed", "codes"),
    [
        (b"A", "2a 1e 9e aa"),
        (b"?", "2a 35 b5 aa"),
        (b"\r", "1c 9c"),
        (b"\x7f", "0e 8e"),
        (b"\t", "0f 8f"),
        (b"\x03", "1d 2e ae 9d"),
        (b"\x1b[A", "e0 48 e0 c8"),
        (b"\x1bOD", "e0 4b e0 cb"),
        (b"\x1b[3~", "e0 53 e0 d3"),
        (b"\x1bOP", "3b bb"),
        (b"\x1b[24~", "58 d8"),
        (b"\x1b", "01 81"),
        (b"\x1bx", "38 2d ad b8"),
        (b"\xc3\xa9z", "2c ac"),
    ],
)
def test_what_is_typed_in_set_1(typed, codes):
    assert Bench(typed, b"").codes() == list(bytes.fromhex(codes))


def test_what_is_typed_in_set_2():
    bench = Bench(b"A\x1b[C", b"")
    bench.command(0x60, 0x05)
    assert bench.codes() == list(bytes.fromhex("12 1c f0 1c f0 12 e0 74 e0 f0 74"))


def test_what_is_typed_in_the_keyboards_own_set_1():
    bench = Bench(None, b"q", b"")
    bench.command(0x60, 0x05)
    for value in (0xF0, 1):
        bench.tell(value)
        assert bench.reply() == 0xFA
    assert bench.codes() == [0x10, 0x90]


def test_no_key_is_lost_while_the_guest_does_not_read():
    bench = Bench(b"abc", b"def", b"")
    bench.pass_time(100 * KEY_TICKS)
    assert bench.platform.requests == 1
    codes = bench.codes()
    assert [code for code in codes if code < 0x80] == [0x1E, 0x30, 0x2E, 0x20, 0x12, 0x21]


def test_a_byte_that_nobody_reads_is_announced_again_but_not_for_ever():
    bench = Bench(b"a", b"")
    bench.pass_time(10**13)
    ticks = [tick for tick, line in bench.platform.rises if line == LINE]
    assert ticks[:4] == [0, REMIND_TICKS, 3 * REMIND_TICKS, 7 * REMIND_TICKS]
    assert len(ticks) < 20
    assert bench.codes() == [0x1E, 0x9E]
    assert bench.platform.clock.next_tick > 10**18


def test_scanning_may_be_off():
    bench = Bench(b"k", b"")
    bench.tell(0xF5)
    assert bench.reply() == 0xFA
    assert bench.codes() == []
    bench.tell(0xF4)
    assert bench.reply() == 0xFA
    assert bench.codes() == [0x25, 0xA5]


def test_input_may_come_later():
    bench = Bench(None)
    bench.pass_time(10)
    bench.keyboard.receive(b"x")
    assert bench.codes() == [0x2D, 0xAD]
    bench.keyboard.receive(b"y")
    assert bench.codes() == [0x15, 0x95]


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_saved_keyboard_goes_on(moment):
    bench, other = Bench(b"aB\x1b[D", b""), Bench()
    for _ in range(moment):
        bench.pass_time(KEY_TICKS)
        bench.answer()
    other.keyboard.load(bench.keyboard.save())
    other.platform.clock.load(bench.platform.clock.save())
    other.platform.clock.now = bench.platform.now
    assert other.codes() == bench.codes()


# -- keys -------------------------------------------------------------------------------------


def test_the_sets_agree():
    assert len(SET_1) == len(SET_2) == 0x58
    assert (SET_2[0x1E], SET_2[0x1C], SET_2[0x39], SET_2[0x48]) == (0x1C, 0x5A, 0x29, 0x75)


@pytest.mark.parametrize("character", [chr(code) for code in range(0x20, 0x7F)])
def test_every_printable_character_has_a_key(character):
    stroke, rest = take_stroke(character.encode())
    assert stroke is not None
    assert rest == b""
    assert set(stroke.held) <= {0x2A}


@given(st.binary(min_size=1, max_size=30))
def test_any_bytes_end(data):
    while data:
        stroke, rest = take_stroke(data)
        assert len(rest) < len(data)
        assert stroke is None or codes_of(stroke, 1)
        data = rest


def test_a_stroke_holds_its_keys_around_it():
    stroke = Stroke(0x48, (0x1D, 0x2A), extended=True)
    assert codes_of(stroke, 1) == list(bytes.fromhex("1d 2a e0 48 e0 c8 aa 9d"))


# -- a guest ----------------------------------------------------------------------------------

#: Sends every scan code to COM1, by interrupt; Escape going up ends it.
TYPIST = (
    SYSTEM.replace("0xee            ; timer and COM1", "0xfd")
    + """
main:
    sti
.wait:
    hlt
    jmp .wait
handler:
    in al, 0x60
    mov edx, 0x3f8
    out dx, al
    cmp al, 0x81
    je .end
    mov al, 0x20
    out 0x20, al
    iret
.end:
    mov al, 0xfe
    out 0x64, al
    hlt
"""
)


def test_a_guest_hears_keys_by_interrupt_and_may_reset():
    machine = Machine(ram="4M", console_in=b"Hi\x1b", typed=True)
    machine.load(assemble(TYPIST))
    result = machine.run(100_000_000)
    assert (result.stop, result.status) == (Stop.POWERED_OFF, 0)
    assert result.output == bytes.fromhex("2a 23 a3 aa 17 97 01 81")
    # The first byte came before there was a controller to tell, and was announced again; the
    # second was ready by then.
    assert REMIND_TICKS + 6 * KEY_TICKS < result.ticks < REMIND_TICKS + 7 * KEY_TICKS


def test_com1_hears_nothing_of_what_is_typed():
    machine = Machine(ram="4M", console_in=b"abc", typed=True)
    machine.load(
        assemble("mov ecx, 99999\nmov edx, 0x3fd\nnext: in al, dx\nloop next\nout 0xf4, al")
    )
    assert machine.run().status == 0x3F
    assert machine.board.devices["keyboard"].save()["typed"] != b""
