"""The 16550A by its register protocol, and how input reaches it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.devices.uart import BYTE_TICKS, COM1, TIMEOUT_TICKS, Uart
from tests.emulator.fake import FakePlatform

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
OUT2, LOOP = 8, 16
FIFO_1, FIFO_8 = 0x01, 0x81


class Bench:
    def __init__(self, *source: bytes | None) -> None:
        self.platform = FakePlatform()
        self.sent = bytearray()
        self.uart = Uart(self.platform, self.sent.extend)
        self.platform.device = self.uart
        self.platform.source.extend(source)

    def __getitem__(self, register: int) -> int:
        return self.uart.read(COM1 + register)

    def __setitem__(self, register: int, value: int) -> None:
        self.uart.write(COM1 + register, 1, value)

    @property
    def irq(self) -> bool:
        return self.platform.lines[4]

    def pass_bytes(self, count: float) -> None:
        self.platform.run_to(self.platform.now + round(count * BYTE_TICKS))


def test_what_is_written_is_sent_at_once():
    bench = Bench()
    for byte in b"hello":
        assert bench[LSR] & 0x60 == 0x60
        bench[DATA] = byte
    assert bench.sent == b"hello"


def test_a_guest_that_only_prints_asks_nobody_for_input():
    bench = Bench(b"input")
    for byte in b"hello":
        assert not bench[LSR] & 1
        bench[DATA] = byte
    assert bench.platform.requests == 0


def test_the_divisor_hides_behind_dlab():
    bench = Bench()
    bench[LCR] = 0x83
    bench[DATA], bench[IER] = 0x34, 0x12
    assert (bench[DATA], bench[IER]) == (0x34, 0x12)
    bench[LCR] = 3
    assert bench[IER] == 0
    assert bench.sent == b""


def test_plain_registers_keep_what_is_written():
    bench = Bench()
    bench[SCRATCH], bench[LCR], bench[MCR], bench[IER] = 0xA5, 0x1B, 0xFF, 0xFF
    assert (bench[SCRATCH], bench[LCR], bench[MCR], bench[IER]) == (0xA5, 0x1B, 0x1F, 0x0F)


def test_somebody_is_connected():
    assert Bench()[MSR] == 0xB0


def test_known_input_is_there_for_one_who_looks_twice():
    bench = Bench(b"ab", b"")
    assert not bench[LSR] & 1
    assert bench[LSR] & 1
    assert bench[DATA] == ord("a")
    assert not bench[LSR] & 1
    bench.pass_bytes(1)
    assert bench[LSR] & 1
    assert bench[DATA] == ord("b")
    bench.pass_bytes(2)
    assert not bench[LSR] & 1


def test_bytes_come_at_line_rate_and_wait_for_room():
    bench = Bench(b"abc", b"")
    bench[IER] = 1
    arrivals = []
    for _ in range(3):
        while not bench[LSR] & 1:
            bench.pass_bytes(0.25)
        arrivals.append(bench.platform.now)
        bench[DATA]
    assert arrivals == [0, round(BYTE_TICKS * 0.25) * 4, round(BYTE_TICKS * 0.25) * 8]
    late = Bench(b"abc", b"")
    late[IER] = 1
    late.pass_bytes(100)
    assert [late[DATA], late[DATA]] == [ord("a"), ord("b")]  # the second waited on the line
    assert not late[LSR] & 2


def test_no_byte_is_lost_however_slow_the_guest():
    text = bytes(range(256)) * 2
    bench = Bench(text, b"")
    bench[IIR] = FIFO_1
    bench[IER] = 1
    got = bytearray()
    while len(got) < len(text):
        bench.pass_bytes(20)
        while bench[LSR] & 1:
            got.append(bench[DATA])
    assert got == text
    assert not bench[LSR] & 2


def test_live_input_arrives_when_it_comes():
    bench = Bench()
    bench[IER] = 1
    bench[MCR] = OUT2
    assert not bench.irq
    bench.pass_bytes(50)
    bench.uart.receive(b"xy")
    bench.pass_bytes(0)
    assert bench.irq
    assert bench[DATA] == ord("x")
    assert not bench.irq
    bench.pass_bytes(1)
    assert bench[DATA] == ord("y")


def test_a_guest_that_polls_asks_again_and_again():
    bench = Bench(None, None, b"z", b"")
    for _ in range(4):
        bench[LSR]
        bench.pass_bytes(1)
    assert bench[DATA] == ord("z")


def test_receive_interrupt_needs_no_out2():
    bench = Bench(b"a", b"")
    bench[IER] = 1
    assert bench[IIR] == 4
    assert bench.irq
    bench[MCR] = LOOP | OUT2
    assert bench.irq
    bench[MCR] = OUT2
    assert bench.irq
    bench[DATA]
    assert bench[IIR] == 1
    assert not bench.irq


def test_fifo_trigger_and_timeout():
    bench = Bench(b"0123456789", b"")
    bench[IIR] = FIFO_8
    bench[MCR] = OUT2
    bench[IER] = 1
    bench.pass_bytes(6.5)
    assert bench[IIR] == 0xC1
    bench.pass_bytes(1)
    assert bench[IIR] == 0xC4
    for _ in range(4):
        bench[DATA]
    assert bench[IIR] == 0xC1
    bench.pass_bytes(2)
    assert not bench.irq
    bench.platform.run_to(bench.platform.now + TIMEOUT_TICKS)
    assert bench[IIR] == 0xCC
    assert bench.irq
    bench[DATA]
    assert bench[IIR] == 0xC1


def test_clearing_the_fifo():
    bench = Bench(b"ab", b"")
    bench[IIR] = FIFO_1
    bench[IER] = 1
    bench.pass_bytes(2)
    bench[IIR] = 0x03
    assert not bench[LSR] & 1
    bench[IIR] = 0
    assert bench[IIR] & 0xC0 == 0


def test_transmit_interrupt_comes_when_enabled_after_each_byte_and_goes_when_told():
    bench = Bench()
    bench[MCR] = OUT2
    bench[IER] = 2
    assert bench.irq
    assert bench[IIR] == 2
    assert not bench.irq
    assert bench[IIR] == 1
    for n in range(3):
        bench[DATA] = n
        assert bench.irq
    assert len([line for _, line in bench.platform.rises if line == 4]) == 4  # each is an edge


def test_priorities():
    bench = Bench()
    bench[MCR] = LOOP
    bench[IER] = 0x0F
    bench[DATA], bench[DATA] = 1, 2  # no FIFO: overrun
    order = []
    for register in (LSR, DATA, None, MSR):
        order.append(bench[IIR])
        if register is not None:
            bench[register]
    assert order == [6, 4, 2, 0]
    assert bench[IIR] == 1


def test_loopback_sends_to_itself():
    bench = Bench()
    bench[IIR] = FIFO_1
    bench[MCR] = LOOP
    for byte in b"loop":
        bench[DATA] = byte
    assert bytes(bench[DATA] for _ in range(4)) == b"loop"
    assert bench.sent == b""


def test_loopback_turns_modem_outputs_into_inputs():
    bench = Bench()
    for output, line in ((1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80)):
        bench[MCR] = LOOP | output
        assert bench[MSR] & 0xF0 == line
    bench[MCR] = LOOP
    assert bench[MSR] == 0x08  # DCD fell just now
    assert bench[MSR] == 0
    bench[MCR] = LOOP | 4
    assert bench[MSR] == 0x40  # RI tells only when it falls
    bench[MCR] = LOOP
    assert bench[MSR] == 0x04


def test_an_overrun_fifo_loses_the_newcomer():
    bench = Bench()
    bench[IIR] = FIFO_1
    bench[MCR] = LOOP
    for byte in range(17):
        bench[DATA] = byte
    assert bench[LSR] & 2
    assert not bench[LSR] & 2
    assert [bench[DATA] for _ in range(16)] == list(range(16))


@given(st.binary(max_size=60), st.integers(0, 2**32))
def test_saved_and_loaded_it_goes_on_alike(text, seed):
    bench = Bench(text, b"") if text else Bench(b"")
    bench[IIR] = FIFO_8
    bench[IER] = 1
    bench.pass_bytes(seed % 40)
    saved = bench.uart.save()
    other = Bench(*bench.platform.source)
    other.platform.clock.now = bench.platform.now
    other.platform.clock.load(bench.platform.clock.save())
    other.uart.load(saved)
    for b in (bench, other):
        b.pass_bytes(30)
        b[DATA]
        b.pass_bytes(30)
    assert other.uart.save() == bench.uart.save()


@pytest.mark.parametrize("chunks", [(b"abc", b""), (b"a", b"b", b"c", b"")])
def test_how_input_is_cut_makes_no_difference(chunks):
    bench = Bench(*chunks)
    bench[IER] = 1
    seen = []
    for _ in range(40):
        bench.pass_bytes(0.3)
        if bench[LSR] & 1:
            seen.append((bench.platform.now, bench[DATA]))
    whole = Bench(b"abc", b"")
    whole[IER] = 1
    expected = []
    for _ in range(40):
        whole.pass_bytes(0.3)
        if whole[LSR] & 1:
            expected.append((whole.platform.now, whole[DATA]))
    assert seen == expected
    assert len(seen) == 3
