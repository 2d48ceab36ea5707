"""The 8254 interval timer: three counters at 1,193,182 Hz, and port 0x61 which gates the third.

Nothing counts here. A counter remembers at which clock its count was loaded; count and output
follow from the clock now, so a guest second costs no more than the interrupts it asked for. Clocks
are numbered from tick 0 and converted exactly: timers never drift. Modes 0 to 5, the three ways to
access a count, counter latch, status latch and BCD. Source: Intel 8254 data sheet.

Channel 0 drives interrupt line 0, channel 1 (refresh, long ago) nothing, channel 2 the speaker.
One difference: the one-clock low pulse of modes 2, 4 and 5 has no width on line 0.
Read rtc.py next.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.clock import tick_of, units_at
from emulator.devices.device import Device, Platform, State

HERTZ: Final = 1_193_182
CONTROL: Final = 0x43
SYSTEM_CONTROL: Final = 0x61  #: bit 0 gate of channel 2, bit 1 speaker, bit 4 refresh, bit 5 OUT2
LOW, HIGH, BOTH = 1, 2, 3  #: how a count is accessed
REFRESH_CLOCKS: Final = 18  #: of channel 1 on every PC: about 15 us
STARTED_BY_COUNT: Final = (0, 4)  #: modes in which a new count starts over at once
PERIODIC: Final = (2, 3)  #: modes that go on for ever; modes 1 and 5 wait for a rising gate
PULSED: Final = (2, 4, 5)  #: modes whose OUT is low for one clock


class Channel(State):
    """One counter. Clocks are absolute; counts are 1 to 65536."""

    def __init__(
        self, mode: int = 3, access: int = BOTH, bcd: bool = False, gate: bool = True
    ) -> None:
        self.mode = mode
        self.access = access
        self.bcd = bcd
        self.gate = gate
        self.count: int | None = None  #: None: no count written since the control word
        self.start: int | None = None  #: the clock at which counting began; None: it has not
        self.frozen: int | None = None  #: clocks counted when the gate fell
        #: a count written while another runs: the count, the clock at which it is loaded, the start
        #: of its (perhaps half) period then
        self.pending: list[int] | None = None
        self.low_byte: int | None = None  #: written, its high byte still to come
        self.high_next = False  #: the next read yields the high byte
        self.latch: int | None = None
        self.status: int | None = None

    def elapsed(self, clock: int) -> int | None:
        """Clocks counted; None: not counting."""
        if self.frozen is not None:
            return self.frozen
        return None if self.start is None else max(0, clock - self.start)

    def settle(self, clock: int) -> None:
        """Load the pending count if its clock has come."""
        if self.pending is not None and clock >= self.pending[1]:
            self.count, _, self.start = self.pending
            self.pending = None

    def boundary(self, elapsed: int) -> int:
        """Clocks from the start to the end of the period in progress (modes 2 and 3)."""
        assert self.count is not None
        return (elapsed // self.count + 1) * self.count

    def output(self, clock: int) -> bool:
        """OUT."""
        elapsed = self.elapsed(clock)
        count = self.count
        if self.mode == 0:
            return elapsed is not None and count is not None and elapsed >= count
        if elapsed is None or count is None:
            return True
        if self.mode == 1:
            return elapsed >= count
        if self.mode == 2:
            return elapsed % count != count - 1
        if self.mode == 3:
            return elapsed % count < (count + 1) // 2
        return elapsed != count

    def value(self, clock: int) -> int:
        """The counting element, 16 bits, in BCD if so programmed."""
        elapsed = self.elapsed(clock)
        count = self.count or 0
        if elapsed is None or not count:
            value = count
        elif self.mode == 2:
            value = count - elapsed % count
        elif self.mode == 3:
            # It counts down by two, twice a period.
            half = (count + 1) // 2
            phase = elapsed % count
            phase = max(0, phase - count % 2) if phase < half else phase - half
            value = (count & ~1) - 2 * phase
        else:
            value = count - elapsed
        if not self.bcd:
            return value & 0xFFFF
        return int(str(value % 10000), 16)

    def next_edge(self, clock: int) -> int | None:
        """The first clock after `clock` at which OUT may have risen or (mode 3) changed."""
        elapsed = self.elapsed(clock)
        if elapsed is None or self.count is None or self.frozen is not None or self.start is None:
            return None
        if self.mode in (0, 1):
            edge = self.count
        elif self.mode in (4, 5):
            edge = self.count + 1
        else:
            edge = self.boundary(elapsed)
            half = edge - self.count // 2
            if self.mode == 3 and elapsed < half:
                edge = half
        return self.start + edge if self.start + edge > clock else None

    def load_count(self, raw: int, clock: int) -> None:
        """A whole count has been written; it counts from the next clock, or after this period."""
        text = f"{raw:04x}"
        value = int(text) if self.bcd and text.isdecimal() else raw
        count = value or (10000 if self.bcd else 0x10000)
        if self.mode in PERIODIC and self.start is not None:
            self._replace(count, clock)
            return
        self.count = count
        if self.mode in STARTED_BY_COUNT:
            self.start = clock + 1
            self.frozen = None if self.gate else 0
        elif self.mode in PERIODIC and self.gate:
            self.start = clock + 1

    def _replace(self, count: int, clock: int) -> None:
        """Have `count` loaded at the end of this period; in mode 3 of this half."""
        assert self.count is not None
        assert self.start is not None
        elapsed = max(0, clock - self.start)
        end = self.start + self.boundary(elapsed)
        half = end - self.count // 2
        if self.mode == 3 and clock < half:
            self.pending = [count, half, half - (count + 1) // 2]
        else:
            self.pending = [count, end, end]

    def set_gate(self, high: bool, clock: int) -> None:
        """The gate changes."""
        if high == self.gate:
            return
        self.gate = high
        if self.mode in STARTED_BY_COUNT:
            if not high:
                self.frozen = self.elapsed(clock)
            elif self.frozen is not None:
                self.start, self.frozen = clock - self.frozen, None
        elif high and self.count is not None:  # a rising gate starts the period over
            self.start = clock + 1
        elif not high and self.mode in PERIODIC:
            self.start = None
            if self.pending is not None:
                self.count, self.pending = self.pending[0], None


class PitState(State):
    def __init__(self) -> None:
        self.channels = [Channel(), Channel(), Channel(gate=False)]
        self.speaker = 0  #: bits 0 and 1 of port 0x61

    def save(self) -> dict[str, Any]:
        return {"channels": [channel.save() for channel in self.channels], "speaker": self.speaker}

    def load(self, saved: dict[str, Any]) -> None:
        for channel, plain in zip(self.channels, saved["channels"], strict=True):
            channel.load(plain)
        self.speaker = saved["speaker"]


class Pit(Device):
    """The timer and the two bits of port 0x61 that belong to it."""

    name = "pit"
    ports = ((0x40, 4), (SYSTEM_CONTROL, 1))

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = PitState()
        platform.set_irq(0, True)

    @property
    def clock(self) -> int:
        """The clock now."""
        return units_at(self.platform.now, HERTZ)

    def read(self, port: int, size: int = 1) -> int:
        clock = self.clock
        if port == SYSTEM_CONTROL:
            out = self.state.channels[2].output(clock)
            refresh = clock // REFRESH_CLOCKS & 1
            return self.state.speaker | refresh << 4 | out << 5
        if port == CONTROL:
            return 0xFF
        channel = self.state.channels[port & 3]
        if channel.status is not None:
            status, channel.status = channel.status, None
            return status
        channel.settle(clock)
        value = channel.value(clock) if channel.latch is None else channel.latch
        high = channel.high_next if channel.access == BOTH else channel.access == HIGH
        channel.high_next = channel.access == BOTH and not high
        if not channel.high_next:
            channel.latch = None
        return value >> 8 if high else value & 0xFF

    def write(self, port: int, size: int, value: int) -> None:
        clock = self.clock
        if port == SYSTEM_CONTROL:
            self.state.speaker = value & 3
            self.state.channels[2].set_gate(bool(value & 1), clock)
        elif port == CONTROL:
            self._control(value, clock)
        else:
            self._write_count(port & 3, value, clock)

    def _control(self, value: int, clock: int) -> None:
        select = value >> 6
        if select == 3:  # read-back: latch what bits 4 and 5 do not forbid, of channels by bit
            for number, channel in enumerate(self.state.channels):
                if value & 2 << number:
                    self._read_back(channel, value, clock)
            return
        channel = self.state.channels[select]
        access = value >> 4 & 3
        if access == 0:
            channel.settle(clock)
            if channel.latch is None:
                channel.latch = channel.value(clock)
            return
        mode = value >> 1 & 7
        self.state.channels[select] = Channel(
            mode=mode if mode < 6 else mode - 4,
            access=access,
            bcd=bool(value & 1),
            gate=channel.gate,
        )
        if select == 0:
            self._drive(clock)

    @staticmethod
    def _read_back(channel: Channel, command: int, clock: int) -> None:
        channel.settle(clock)
        if not command & 0x20 and channel.latch is None:
            channel.latch = channel.value(clock)
        if not command & 0x10 and channel.status is None:
            null = channel.count is None or channel.pending is not None
            channel.status = (
                channel.output(clock) << 7
                | null << 6
                | channel.access << 4
                | channel.mode << 1
                | channel.bcd
            )

    def _write_count(self, number: int, value: int, clock: int) -> None:
        channel = self.state.channels[number]
        channel.settle(clock)
        if channel.access == LOW:
            channel.load_count(value, clock)
        elif channel.access == HIGH:
            channel.load_count(value << 8, clock)
        elif channel.low_byte is None:
            channel.low_byte = value
            if channel.mode == 0:  # the first byte stops it
                channel.start, channel.count, channel.frozen = None, None, None
        else:
            whole = value << 8 | channel.low_byte
            channel.low_byte = None
            channel.load_count(whole, clock)
        if number == 0:
            self._drive(clock)

    def wake(self, tag: str) -> None:
        channel = self.state.channels[0]
        if channel.mode in PULSED:
            self.platform.set_irq(0, False)
        self._drive(self.clock)

    def _drive(self, clock: int) -> None:
        """Set line 0 to OUT of channel 0, and ask to be woken when that changes."""
        channel = self.state.channels[0]
        channel.settle(clock)
        # A pulse is made by `wake`; until then the line stays up.
        self.platform.set_irq(0, channel.mode in PULSED or channel.output(clock))
        edge = channel.next_edge(clock)
        if edge is None:
            self.platform.cancel(self.name, "edge")
        else:
            self.platform.schedule(self.name, "edge", tick_of(edge, HERTZ))
