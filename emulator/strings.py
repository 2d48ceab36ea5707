"""The elements of a repeated INS or OUTS, one by one or, where the device offers it, many at once.

Each is an access and a tick of its own, so where the core cuts a repeat matters to no device. Read
bus.py for what a device may offer.
"""

from __future__ import annotations

from emulator.bus import Bus
from emulator.clock import Clock


def read_elements(bus: Bus, clock: Clock, port: int, size: int, count: int) -> bytes:
    """What `count` reads of `size` bytes yield; the clock stands behind the last of them then."""
    data = b""
    while len(data) < count * size:
        piece = bus.port_read_block(port, size, count - len(data) // size)
        if not piece:
            piece = bus.port_read(port, size).to_bytes(size, "little")
        data += piece
        clock.now += len(piece) // size
    return data


def write_elements(bus: Bus, clock: Clock, port: int, size: int, data: bytes) -> None:
    """Write all elements of `data`; the clock stands behind the last of them then."""
    while data:
        done = bus.port_write_block(port, size, data)
        if not done:
            bus.port_write(port, size, int.from_bytes(data[:size], "little"))
            done = 1
        data = data[done * size :]
        clock.now += done
