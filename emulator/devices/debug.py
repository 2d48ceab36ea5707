"""The ports made for guests under test: leave with a status, or say something without a UART.

Port 0xF4 ends the run, 0xE9 prints a byte, 0x80 takes the progress codes that firmware shows on a
card. QEMU has the first two (isa-debug-exit, isa-debugcon); its exit status differs: there, twice
the value and one. The last of the devices: go back to machine.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emulator.devices.device import Device, Platform, State

#: Exit statuses are a guest's up to this; what is above is the host's to choose.
LAST_GUEST_STATUS: Final = 63


class DebugState(State):
    def __init__(self) -> None:
        self.code = 0  #: the last byte written


class DebugExit(Device):
    """A byte written to port 0xF4 ends the run with it as exit status; above 63 it counts as 63."""

    name = "debug-exit"
    ports = ((0xF4, 1),)

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = DebugState()

    def write(self, port: int, size: int, value: int) -> None:
        self.state.code = value
        self.platform.power_off(min(value, LAST_GUEST_STATUS))


class DebugConsole(Device):
    """A byte written to port 0xE9 goes to `sink`; reading 0xE9 there says that it exists."""

    name = "debug-console"
    ports = ((0xE9, 1),)

    def __init__(self, platform: Platform, sink: Callable[[bytes], object]) -> None:
        super().__init__(platform)
        self.state = DebugState()
        self._sink = sink

    def read(self, port: int, size: int = 1) -> int:
        return 0xE9

    def write(self, port: int, size: int, value: int) -> None:
        self.state.code = value
        self._sink(bytes((value,)))


class PostCode(Device):
    """Port 0x80 holds the last byte written; many a guest writes there to let time pass."""

    name = "post-code"
    ports = ((0x80, 1),)

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.state = DebugState()

    def read(self, port: int, size: int = 1) -> int:
        return self.state.code

    def write(self, port: int, size: int, value: int) -> None:
        self.state.code = value
