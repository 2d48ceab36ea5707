"""The bare machine: memory, bus, devices, clock and loader around the C core.

    machine = Machine(ram="4M")
    machine.load(program)
    print(machine.run().registers.eax)

Names load on first use: the devices and the loader are of use without the compiled core. Reading
order: machine.py, then core.py, bus.py, clock.py, memory.py, devices/device.py, loader.py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emulator.errors import CoreError, DiskError, EmulatorError, LoadError, MachineError

if TYPE_CHECKING:
    from emulator.disk import Disk
    from emulator.machine import Machine
    from emulator.result import Result

__all__ = [
    "CoreError",
    "Disk",
    "DiskError",
    "EmulatorError",
    "LoadError",
    "Machine",
    "MachineError",
    "Result",
]

_HOMES = {
    "Disk": "emulator.disk",
    "Machine": "emulator.machine",
    "Result": "emulator.result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
