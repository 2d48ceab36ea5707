"""The pair of 8259A interrupt controllers: sixteen lines in, one line to the CPU out.

A request travels line -> IRR -> (mask, priority) -> output; the CPU acknowledges, the request moves
to ISR and holds back its equals and lessers until the guest writes EOI. The second controller's
output is the first one's line 2. Implemented: ICW1-4, OCW1-3, rotation, automatic EOI, special mask
and special fully nested mode, polling, spurious interrupts, the chipset's edge/level registers.
Source: Intel 8259A data sheet. Left out: MCS-80 mode, buffered mode. Read pit.py next.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.devices.device import Device, Platform, State

FIRST: Final = 0x20
SECOND: Final = 0xA0
EDGE_LEVEL: Final = 0x4D0
CASCADE: Final = 2  #: the line of the first controller that the second drives
SPURIOUS: Final = 7  #: the line reported when a request is gone by the time it is acknowledged
#: Lines that no chipset lets be level-triggered: timer, keyboard, cascade; clock, coprocessor.
EDGE_ONLY: Final = (0x07, 0x21)

ICW1, ICW1_ICW4, ICW1_SINGLE = 0x10, 0x01, 0x02
ICW4_AUTO_EOI, ICW4_NESTED = 0x02, 0x10
OCW3, OCW3_POLL, OCW3_READ, OCW3_READ_ISR, OCW3_MASK, OCW3_SPECIAL = 0x08, 4, 2, 1, 0x40, 0x20


class Chip(State):
    """One 8259A. Sets of lines are bit masks."""

    def __init__(self) -> None:
        self.base = 0  #: vector of line 0
        self.step = 1  #: the ICW awaited next; 1: never initialised; 0: at work
        self.lines = 0  #: levels
        self.latched = 0  #: edge-triggered requests
        self.imr = 0
        self.isr = 0
        self.level = 0  #: level-triggered lines
        self.lowest = 7  #: the line of lowest priority
        self.icw1 = 0
        self.icw4 = 0
        self.rotate_auto = False
        self.special_mask = False
        self.read_isr = False
        self.poll = False

    @property
    def irr(self) -> int:
        """Requests not yet acknowledged."""
        return (self.lines & self.level) | (self.latched & ~self.level)

    def set_line(self, line: int, high: bool) -> None:
        """An edge is remembered only while its line stays up: that is what makes IRQ 7 spurious."""
        bit = 1 << line
        if not high:
            self.lines &= ~bit
            self.latched &= ~bit
        elif not self.lines & bit:
            self.lines |= bit
            if self.step == 0:
                self.latched |= bit

    def first(self, lines: int) -> int | None:
        """The line of highest priority among `lines`."""
        for distance in range(1, 9):
            line = (self.lowest + distance) & 7
            if lines >> line & 1:
                return line
        return None

    def rank(self, line: int | None) -> int:
        """0 for the highest priority; 8 for no line at all."""
        return 8 if line is None else (line - self.lowest - 1) & 7

    def request(self, cascaded: int = 0) -> int | None:
        """The line to report to the CPU, if any. `cascaded`: lines that other controllers drive."""
        if self.step:
            return None
        served = self.isr
        if self.special_mask:
            served &= ~self.imr
        if self.icw4 & ICW4_NESTED:
            served &= ~cascaded
        line = self.first(self.irr & ~self.imr)
        return line if self.rank(line) < self.rank(self.first(served)) else None

    def accept(self, line: int) -> None:
        """The CPU has taken `line`."""
        self.latched &= ~(1 << line)
        if not self.icw4 & ICW4_AUTO_EOI:
            self.isr |= 1 << line
        elif self.rotate_auto:
            self.lowest = line

    def command(self, value: int) -> None:
        """A write to the even port."""
        if value & ICW1:
            kept = {"lines": self.lines, "level": self.level, "base": self.base}
            self.load({**Chip().save(), **kept, "step": 2, "icw1": value})
        elif value & OCW3:
            self.poll = bool(value & OCW3_POLL)
            if value & OCW3_READ:
                self.read_isr = bool(value & OCW3_READ_ISR)
            if value & OCW3_MASK:
                self.special_mask = bool(value & OCW3_SPECIAL)
        else:
            self._end_of_interrupt(value >> 5, value & 7)

    def _end_of_interrupt(self, kind: int, line: int) -> None:
        """OCW2. Bits of `kind`: 4 rotate, 2 specific (the line is named), 1 end of interrupt."""
        rotate, specific, end = kind & 4, kind & 2, kind & 1
        if not end:
            if specific:
                if rotate:
                    self.lowest = line
            else:
                self.rotate_auto = bool(rotate)
            return
        if not specific:
            # In special mask mode, a masked line keeps its ISR bit.
            found = self.first(self.isr & ~self.imr if self.special_mask else self.isr)
            if found is None:
                return
            line = found
        self.isr &= ~(1 << line)
        if rotate:
            self.lowest = line

    def data(self, value: int) -> None:
        """A write to the odd port: an ICW while they are awaited, else the mask."""
        if self.step == 2:
            self.base = value & 0xF8
            self.step = 3 if not self.icw1 & ICW1_SINGLE else self._after_icw3()
        elif self.step == 3:
            self.step = self._after_icw3()  # who is cascaded where is wired on a PC
        elif self.step == 4:
            self.icw4 = value
            self.step = 0
        else:
            self.imr = value

    def _after_icw3(self) -> int:
        return 4 if self.icw1 & ICW1_ICW4 else 0


class PicState(State):
    def __init__(self) -> None:
        self.chips = (Chip(), Chip())
        self.output = False

    def save(self) -> dict[str, Any]:
        return {"chips": [chip.save() for chip in self.chips], "output": self.output}

    def load(self, saved: dict[str, Any]) -> None:
        for chip, plain in zip(self.chips, saved["chips"], strict=True):
            chip.load(plain)
        self.output = saved["output"]


class Pic(Device):
    """Both controllers, wired as on a PC."""

    name = "pic"
    ports = ((FIRST, 2), (SECOND, 2), (EDGE_LEVEL, 2))

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = PicState()

    def set_line(self, line: int, level: bool) -> None:
        """Drive line 0 to 15 (2 is the cascade's own)."""
        self.state.chips[line >> 3].set_line(line & 7, level)
        self._update()

    def acknowledge(self) -> int:
        """The CPU takes the interrupt: its vector."""
        first, second = self.state.chips
        line = first.request(1 << CASCADE)
        if line is None:
            return first.base + SPURIOUS
        first.accept(line)
        vector = first.base + line
        if line == CASCADE:
            inner = second.request()
            vector = second.base + (SPURIOUS if inner is None else inner)
            if inner is not None:
                second.accept(inner)
            # The second one's output falls with the acknowledgement: what rises next is an edge.
            first.set_line(CASCADE, False)
        self._update()
        return vector

    def can_interrupt(self) -> bool:
        """Some line is open: a halted CPU may yet be woken."""
        first = self.state.chips[0]
        return first.step == 0 and first.imr != 0xFF

    def read(self, port: int, size: int = 1) -> int:
        if port >= EDGE_LEVEL:
            return self.state.chips[port - EDGE_LEVEL].level
        number = int(port >= SECOND)
        chip = self.state.chips[number]
        if chip.poll:
            chip.poll = False
            return self._poll(number)
        if port & 1:
            return chip.imr
        return chip.isr if chip.read_isr else chip.irr

    def write(self, port: int, size: int, value: int) -> None:
        if port >= EDGE_LEVEL:
            number = port - EDGE_LEVEL
            self.state.chips[number].level = value & ~EDGE_ONLY[number]
        else:
            chip = self.state.chips[port >= SECOND]
            if port & 1:
                chip.data(value)
            else:
                chip.command(value)
        self._update()

    def _poll(self, number: int) -> int:
        """Acknowledge without the CPU: bit 7 says that there was a request, bits 0-2 which."""
        chip = self.state.chips[number]
        line = chip.request(1 << CASCADE if number == 0 else 0)
        if line is None:
            return 0
        chip.accept(line)
        self._update()
        return 0x80 | line

    def _update(self) -> None:
        state = self.state
        first, second = state.chips
        first.set_line(CASCADE, second.request() is not None)
        output = first.request(1 << CASCADE) is not None
        if output != state.output:
            state.output = output
            self.platform.set_interrupt(output)
