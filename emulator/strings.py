"""The elements of a repeated INS or OUTS, one by one or, where the device offers it, many at once.

Each is an access and a tick of its own, so where the core cuts a repeat matters to no device. And
between two the processor takes an interrupt: where one has asked for it, or has switched the
machine off, the string ends for now. Read bus.py for what a device may offer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulator.board import Board


Ends = Callable[[], object]  #: is this a place to end?


def read_elements(board: Board, port: int, size: int, count: int, ends: Ends) -> bytes:
    """What `count` reads of `size` bytes yield, from now on; or fewer."""
    bus, clock = board.bus, board.clock
    data, now = b"", clock.now
    while len(data) < count * size and not (data and ends()):
        piece = bus.port_read_block(port, size, count - len(data) // size)
        if not piece:
            piece = bus.port_read(port, size).to_bytes(size, "little")
        data += piece
        clock.now += len(piece) // size
    clock.now = now  # they have yet to retire
    return data


def write_elements(board: Board, port: int, size: int, data: memoryview, ends: Ends) -> int:
    """Write the elements of `data`, from now on; how many."""
    bus, clock, now = board.bus, board.clock, board.clock.now
    while data and not (clock.now > now and ends()):
        done = bus.port_write_block(port, size, data)
        if not done:
            bus.port_write(port, size, int.from_bytes(data[:size], "little"))
            done = 1
        data = data[done * size :]
        clock.now += done
    count, clock.now = clock.now - now, now
    return count
