"""A platform for one device alone: time moves when the test says so, lines and wishes are noted."""

from __future__ import annotations

from collections import deque

from emulator.clock import Clock
from emulator.devices.device import Device


class FakePlatform:
    """What a device sees in these tests (devices/device.py, `Platform`)."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lines = [False] * 16
        self.rises: list[tuple[int, int]] = []  #: (tick, line) of every rising edge
        self.interrupt = False
        self.status: int | None = None
        self.device: Device | None = None
        #: What `request_input` finds: bytes, b"" for the end, None for nothing yet.
        self.source: deque[bytes | None] = deque()
        self.requests = 0
        self.messages: list[dict[str, int]] = []
        self.takes_messages = True

    @property
    def now(self) -> int:
        return self.clock.now

    def schedule(self, device: str, tag: str, tick: int) -> None:
        self.clock.schedule(device, tag, tick)

    def cancel(self, device: str, tag: str) -> None:
        self.clock.cancel(device, tag)

    def set_irq(self, line: int, level: bool) -> None:
        if level and not self.lines[line]:
            self.rises.append((self.now, line))
        self.lines[line] = level

    def set_interrupt(self, level: bool) -> None:
        self.interrupt = level

    def send_message(self, **message: int) -> bool:
        self.messages.append(message)
        return self.takes_messages

    def request_input(self, device: str) -> None:
        assert self.device is not None
        self.requests += 1
        data = self.source.popleft() if self.source else None
        if data is not None:
            self.device.receive(data)

    def power_off(self, status: int) -> None:
        self.status = status

    def run_to(self, tick: int) -> None:
        """Let time pass, with every wake-up at its own tick."""
        assert self.device is not None
        while self.clock.next_tick <= tick:
            self.clock.now = max(self.clock.now, self.clock.next_tick)
            for _, tag in self.clock.take_due():
                self.device.wake(tag)
        self.clock.now = tick
