"""The 16550A UART that is COM1: a byte sink, a line of input, and its interrupts.

Sending takes no time: a byte written goes to the sink at once, and the transmitter is always empty.
Receiving does: bytes arrive at line rate, 115200 baud, and wait on the line while the guest has no
room, as a sender with handshake would. Input known beforehand is on the line from tick 0, but
nobody is asked for it before the guest listens: it enables the receive interrupt, reads the receive
buffer, or looks at the line status twice without sending. So a guest that only prints never waits
for a pipe. Implemented: FIFOs and their triggers, receive timeout, the priorities of IIR, loopback.
On the first serial cards OUT2 connected the interrupt to its line, and loopback cut it off; here it
is connected always, as in QEMU, which kernels that never set OUT2 rely on (xv6). Left out: modem
control, line format, break. Source: National Semiconductor PC16550D data sheet. Read debug.py next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emulator.clock import TICKS_PER_SECOND
from emulator.devices.device import Device, Platform, State

COM1: Final = 0x3F8
LINE: Final = 4
#: Start bit, eight data bits and stop bit at 115200 baud.
BYTE_TICKS: Final = TICKS_PER_SECOND * 10 // 115_200
TIMEOUT_TICKS: Final = 4 * BYTE_TICKS
FIFO_SIZE: Final = 16
TRIGGERS: Final = (1, 4, 8, 14)

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
IER_RECEIVE, IER_TRANSMIT, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_TRANSMIT, IIR_RECEIVE, IIR_LINE, IIR_TIMEOUT = 1, 0, 2, 4, 6, 12
IIR_FIFO: Final = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVE = 1, 2
LCR_DIVISOR: Final = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 1, 2, 4, 8, 16
LSR_READY, LSR_OVERRUN, LSR_EMPTY = 1, 2, 0x60
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
#: Loopback: which modem input each output becomes.
LOOPED: Final = ((MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))


class UartState(State):
    def __init__(self) -> None:
        self.ier = 0
        self.fcr = 0
        self.lcr = 3
        self.mcr = 0
        self.msr = MSR_CTS | MSR_DSR | MSR_DCD  #: somebody is connected and ready
        self.scratch = 0
        self.divisor = 1
        self.overrun = False
        self.transmit_pending = False  #: the transmitter became empty, and nobody has been told
        self.timeout = False
        self.fifo: list[int] = []  #: received, oldest first
        self.line = b""  #: sent to us, not yet arrived
        self.next_arrival = 0  #: tick before which the line carries no further byte
        self.listening = False
        self.ended = False  #: no more input will come
        self.looks = 0  #: reads of the line status since the last byte sent


class Uart(Device):
    """COM1. `sink` takes what the guest sends."""

    name = "com1"
    ports = ((COM1, 8),)

    def __init__(self, platform: Platform, sink: Callable[[bytes], object]) -> None:
        super().__init__(platform)
        self.state = UartState()
        self._sink = sink

    # -- registers ----------------------------------------------------------------------------

    def read(self, port: int, size: int = 1) -> int:
        state, register = self.state, port - COM1
        if register == LSR:
            return self._read_line_status()
        if register <= IER and state.lcr & LCR_DIVISOR:
            return state.divisor >> 8 * register & 0xFF
        if register == DATA:
            return self._read_data()
        if register == IIR:
            cause = self._cause()
            if cause == IIR_TRANSMIT:
                state.transmit_pending = False
                self._update()
            return cause | (IIR_FIFO if state.fcr & FCR_ENABLE else 0)
        if register == MSR:
            value, state.msr = state.msr, state.msr & 0xF0
            self._update()
            return value
        values = {IER: state.ier, LCR: state.lcr, MCR: state.mcr, SCRATCH: state.scratch}
        return values[register]

    def write(self, port: int, size: int, value: int) -> None:
        state, register = self.state, port - COM1
        if register <= IER and state.lcr & LCR_DIVISOR:
            shift = 8 * register
            state.divisor = state.divisor & ~(0xFF << shift) | value << shift
        elif register == DATA:
            self._send(value)
        elif register == IER:
            self._enable(value & 15)
        elif register == IIR:
            self._control_fifo(value)
        elif register == LCR:
            state.lcr = value
        elif register == MCR:
            self._control_modem(value & 0x1F)
        elif register == SCRATCH:
            state.scratch = value

    def _read_line_status(self) -> int:
        state = self.state
        state.looks += 1
        if not state.fifo and (state.listening or state.looks > 1):
            self._listen()
        value = LSR_EMPTY | bool(state.fifo) * LSR_READY | state.overrun * LSR_OVERRUN
        if state.overrun:
            state.overrun = False
            self._update()
        return value

    def _read_data(self) -> int:
        state = self.state
        if not state.fifo:
            self._listen()
        value = state.fifo.pop(0) if state.fifo else 0
        state.timeout = False
        self._await_timeout()
        self._update()
        self._arrive()
        return value

    def _send(self, value: int) -> None:
        state = self.state
        state.looks = 0
        told = state.ier & IER_TRANSMIT
        if told:  # full for a moment: the interrupt falls, and rises anew
            state.transmit_pending = False
            self._update()
        if state.mcr & MCR_LOOP:
            self._take(value)
        else:
            self._sink(bytes((value,)))
        state.transmit_pending = True
        if told:
            self._update()

    def _enable(self, value: int) -> None:
        state = self.state
        if value & ~state.ier & IER_TRANSMIT:
            state.transmit_pending = True  # it is empty already: tell at once
        state.ier = value
        self._update()
        if value & IER_RECEIVE:
            self._listen()

    def _control_fifo(self, value: int) -> None:
        state = self.state
        if value & FCR_CLEAR_RECEIVE or (value ^ state.fcr) & FCR_ENABLE:
            state.fifo, state.timeout = [], False
        # The other bits can be written only together with the enable.
        state.fcr = value & 0xC9 if value & FCR_ENABLE else 0
        self._await_timeout()
        self._update()
        self._arrive()

    def _control_modem(self, value: int) -> None:
        state = self.state
        state.mcr = value
        if value & MCR_LOOP:
            inputs = sum(line for output, line in LOOPED if value & output)
        else:
            inputs = MSR_CTS | MSR_DSR | MSR_DCD
        changed = (inputs ^ state.msr) & 0xF0
        # RI tells only that it fell.
        deltas = changed >> 4 & ~4 | (changed & state.msr & MSR_RI) >> 4
        state.msr = inputs | state.msr & 15 | deltas
        self._update()

    # -- receiving ----------------------------------------------------------------------------

    @property
    def _room(self) -> int:
        size = FIFO_SIZE if self.state.fcr & FCR_ENABLE else 1
        return size - len(self.state.fifo)

    def receive(self, data: bytes) -> None:
        if data:
            self.state.line += data
        else:
            self.state.ended = True
        self._await_arrival()

    def _listen(self) -> None:
        """The guest wants input: let in what has arrived by now, and ask for more."""
        self.state.listening = True
        self._arrive()

    def _arrive(self) -> None:
        state = self.state
        if self._room > 0 and state.next_arrival <= self.platform.now:
            if not state.line and state.listening and not state.ended:
                self.platform.request_input(self.name)
            if state.line:
                byte, state.line = state.line[0], state.line[1:]
                state.next_arrival = self.platform.now + BYTE_TICKS
                self._take(byte)
        self._await_arrival()

    def _await_arrival(self) -> None:
        """Be woken for the next byte: one on the line, or one that a listener will ask for.

        A listener who has asked by now and got nothing is told by `receive`.
        """
        state, now = self.state, self.platform.now
        may_ask = state.listening and not state.ended and state.next_arrival > now
        if self._room > 0 and (state.line or may_ask):
            self.platform.schedule(self.name, "arrival", max(state.next_arrival, now))
        else:
            self.platform.cancel(self.name, "arrival")

    def _take(self, byte: int) -> None:
        """A byte has arrived, from the line or by loopback."""
        state = self.state
        if self._room > 0:
            state.fifo.append(byte)
        else:
            state.overrun = True
            if not state.fcr & FCR_ENABLE:
                state.fifo = [byte]  # without FIFO the newcomer replaces it
        self._await_timeout()
        self._update()

    def _await_timeout(self) -> None:
        """With FIFO: tell of a few bytes that wait and are not followed by others."""
        state = self.state
        if state.fifo and state.fcr & FCR_ENABLE and not state.timeout:
            due = self.platform.now + TIMEOUT_TICKS
            self.platform.schedule(self.name, "timeout", due)
        else:
            self.platform.cancel(self.name, "timeout")

    def wake(self, tag: str) -> None:
        if tag == "arrival":
            self._arrive()
        elif tag == "timeout":
            self.state.timeout = True
            self._update()
        else:
            super().wake(tag)

    # -- interrupts ---------------------------------------------------------------------------

    def _cause(self) -> int:
        """The interrupt of highest priority, as IIR names it."""
        state = self.state
        if state.ier & IER_LINE and state.overrun:
            return IIR_LINE
        if state.ier & IER_RECEIVE:
            trigger = TRIGGERS[state.fcr >> 6] if state.fcr & FCR_ENABLE else 1
            if len(state.fifo) >= trigger:
                return IIR_RECEIVE
            if state.timeout:
                return IIR_TIMEOUT
        if state.ier & IER_TRANSMIT and state.transmit_pending:
            return IIR_TRANSMIT
        if state.ier & IER_MODEM and state.msr & 15:
            return IIR_MODEM
        return IIR_NONE

    def _update(self) -> None:
        self.platform.set_irq(LINE, self._cause() != IIR_NONE)
