"""The board of a machine without its CPU: bus, clock, devices and console, wired together.

The board is the platform that devices see, and runs on whatever guest time its owner puts into
`clock.now`. So it serves the bare machine (machine.py) and a virtual one alike. Its owner runs the
wake-ups that are due, reads the `interrupt` line, and stops when `status` is set. Read
devices/device.py for the other side of the platform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from emulator.bus import Bus
from emulator.clock import Clock, Input, InputQueue
from emulator.console import BytesInput, InputSource, Sink
from emulator.devices.debug import DebugConsole, DebugExit, PostCode
from emulator.devices.device import Device
from emulator.devices.ide import PrimaryIde, SecondaryIde
from emulator.devices.ioapic import IoApic
from emulator.devices.keyboard import Keyboard, SystemControl
from emulator.devices.pic import Pic
from emulator.devices.pit import Pit
from emulator.devices.rtc import DEFAULT_DATE, Rtc
from emulator.devices.uart import Uart
from emulator.devices.vga import Vga
from emulator.disk import Disk

CONSOLE: Final = Uart.name  #: the device that input is for, unless it is typed


class Board:
    """A PC's devices. `ram` is the size their firmware bytes tell, in bytes.

    apic: with an I/O APIC, which the lines reach as well as the 8259s; its owner has a local APIC,
    and gives it what comes through `on_message`. disks: of the primary IDE channel's first and
    second drive, then of the secondary's. typed: what comes from `console_in` is typed on the
    keyboard; otherwise COM1 receives it.
    """

    def __init__(
        self,
        *,
        ram: int,
        date: datetime = DEFAULT_DATE,
        console_in: InputSource | None = None,
        console_out: Sink,
        debug_out: Sink,
        apic: bool = False,
        disks: Sequence[Disk | None] = (),
        typed: bool = False,
    ) -> None:
        self.clock = Clock()
        self.bus = Bus()
        self.inputs = InputQueue()
        self.source: InputSource = BytesInput() if console_in is None else console_in
        self.console = Keyboard.name if typed else CONSOLE  #: the device that input is for
        self.interrupt = False  #: the line to the CPU
        self.on_interrupt: Callable[[bool], object] = lambda level: None
        #: Arguments: destination, logical, mode, vector, level (csrc/api.h, cpu_apic_message).
        self.on_message: Callable[[int, bool, int, int, bool], bool] = lambda *message: False
        self.status: int | None = None  #: set when the guest has switched the machine off
        self.devices: dict[str, Device] = {}
        self.pic = Pic(self)
        self.ioapic = IoApic(self) if apic else None
        self.vga = Vga(self)
        for device in (
            self.pic,
            *([self.ioapic] if self.ioapic else []),
            Pit(self),
            Rtc(self, date, ram),
            Uart(self, console_out),
            DebugExit(self),
            DebugConsole(self, debug_out),
            PostCode(self),
            PrimaryIde(self, disks[:2]),
            SecondaryIde(self, disks[2:]),
            Keyboard(self, typed),
            SystemControl(self),
            self.vga,
        ):
            self.plug(device)

    def plug(self, device: Device) -> None:
        """Add a device; MachineError if a port or a page is taken."""
        self.devices[device.name] = device
        for claim in device.claims():
            self.bus.claim_ports(claim)
        for claim in device.page_claims():
            self.bus.claim_memory(claim)

    # -- the platform that devices see (devices/device.py) --------------------------------------

    @property
    def now(self) -> int:
        return self.clock.now

    def schedule(self, device: str, tag: str, tick: int) -> None:
        self.clock.schedule(device, tag, tick)

    def cancel(self, device: str, tag: str) -> None:
        self.clock.cancel(device, tag)

    def set_irq(self, line: int, level: bool) -> None:
        self.pic.set_line(line, level)
        if self.ioapic is not None:
            self.ioapic.set_line(line, level)

    def set_interrupt(self, level: bool) -> None:
        self.interrupt = level
        self.on_interrupt(level)

    def send_message(
        self, *, destination: int, logical: bool, mode: int, vector: int, level: bool
    ) -> bool:
        return self.on_message(destination, logical, mode, vector, level)

    def request_input(self, device: str) -> None:
        data = self.source.read() if device == self.console else b""
        if data is not None:
            self.inputs.push(Input(self.clock.now, device, data))
            self._deliver()

    def power_off(self, status: int) -> None:
        self.status = status

    def can_interrupt(self) -> bool:
        """Some line is open: a halted CPU may yet be woken by a device."""
        return self.pic.can_interrupt() or (self.ioapic is not None and self.ioapic.can_interrupt())

    # -- for the owner ----------------------------------------------------------------------------

    def run_due(self) -> None:
        """Run the wake-ups due by now, and those that these ask for at once."""
        for device, tag in self.clock.take_due():
            self.devices[device].wake(tag)

    def poll(self) -> None:
        """Take in what has come from a live source since last time."""
        if self.source.live:
            self.request_input(self.console)

    def _deliver(self) -> None:
        for entry in self.inputs.take_due(self.clock.now):
            self.devices[entry.device].receive(entry.data)

    def save(self) -> dict[str, Any]:
        """Clock and devices as plain data."""
        return {
            "clock": self.clock.save(),
            "devices": {name: device.save() for name, device in self.devices.items()},
            "interrupt": self.interrupt,
            "status": self.status,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take back what `save` returned."""
        self.clock.load(saved["clock"])
        for name, device in self.devices.items():
            device.load(saved["devices"][name])
        self.interrupt = saved["interrupt"]
        self.status = saved["status"]
