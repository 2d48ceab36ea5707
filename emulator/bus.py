"""The bus: which device answers at which port or machine address. One table for each.

A claim is a range with two functions, so an entry may be a method of a Python device or a function
of a C library alike. A device says how many bytes it takes at once; a wider access reaches it as
several, lowest address first, as the chipset of a PC breaks a word for an 8-bit card. Where nobody
answers, reads are all ones and writes are lost. A string instruction moves many elements through
one port: a device may take several at once, as long as nobody could tell. Read devices/device.py
for the devices' side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from emulator.errors import MachineError

Read = Callable[[int, int], int]  #: (port or machine address, bytes) -> value
Write = Callable[[int, int, int], object]  #: (port or machine address, bytes, value)
#: (port, bytes of an element, most elements) -> whole elements, first to last; perhaps none
ReadBlock = Callable[[int, int, int], bytes]
#: (port, bytes of an element, elements) -> how many elements were taken; perhaps none
WriteBlock = Callable[[int, int, memoryview], int]

PORTS: Final = 0x10000
PAGE: Final = 4096


class Claim(NamedTuple):
    """A range of ports or machine addresses, and who answers there."""

    name: str
    first: int
    count: int  # type: ignore[assignment]  # hides a tuple's method, which nobody needs
    read: Read
    write: Write
    width: int = 1  #: bytes the device takes at once: 1, 2 or 4
    #: For ports whose elements may move many at once. What a block moves depends on no time, and
    #: causes nothing: an element that does (the last of a sector) is left to `read` or `write`.
    read_block: ReadBlock | None = None
    write_block: WriteBlock | None = None

    def step(self, address: int, left: int) -> int:
        """Bytes to hand over at once: aligned, a power of two, no more than the device takes."""
        step = self.width
        while step > left or address % step:
            step //= 2
        return step


def _read(claims: dict[int, Claim], shift: int, address: int, size: int) -> int:
    """Read piece by piece: an access may reach several devices, or none. Keys: address >> shift."""
    value = done = 0
    while done < size:
        claim = claims.get((address + done) >> shift)
        step = 1 if claim is None else claim.step(address + done, size - done)
        piece = 0xFF if claim is None else claim.read(address + done, step)
        value |= piece << 8 * done
        done += step
    return value


def _write(claims: dict[int, Claim], shift: int, address: int, size: int, value: int) -> None:
    done = 0
    while done < size:
        claim = claims.get((address + done) >> shift)
        step = 1 if claim is None else claim.step(address + done, size - done)
        if claim is not None:
            claim.write(address + done, step, value >> 8 * done & (1 << 8 * step) - 1)
        done += step


class Bus:
    """The two tables. Values are unsigned, sizes are in bytes: 1, 2 or 4."""

    def __init__(self) -> None:
        self.ports: dict[int, Claim] = {}  #: by port
        self.pages: dict[int, Claim] = {}  #: by machine page
        self.accesses = 0  #: how many there have been

    def claim_ports(self, claim: Claim) -> None:
        """Give a range of ports to a device; MachineError if it is another's."""
        self._claim(self.ports, claim, range(claim.first, claim.first + claim.count), PORTS)

    def claim_memory(self, claim: Claim) -> None:
        """Give whole pages of machine addresses to a device; MachineError if they are another's."""
        if claim.first % PAGE or claim.count % PAGE:
            raise MachineError(f"{claim.name}: expected whole pages of machine addresses")
        pages = range(claim.first // PAGE, (claim.first + claim.count) // PAGE)
        self._claim(self.pages, claim, pages, 1 << 20)

    @staticmethod
    def _claim(table: dict[int, Claim], claim: Claim, keys: range, end: int) -> None:
        if not keys or keys.start < 0 or keys.stop > end:
            raise MachineError(f"{claim.name}: claims {keys}, outside 0 to {end - 1:#x}")
        for key in keys:
            if key in table:
                raise MachineError(f"{claim.name}: {key:#x} belongs to {table[key].name}")
        table.update(dict.fromkeys(keys, claim))

    def port_read(self, port: int, size: int) -> int:
        """IN of `size` bytes."""
        self.accesses += 1
        claim = self.ports.get(port)
        if size == 1:  # nearly all of them
            return 0xFF if claim is None else claim.read(port, 1)
        return _read(self.ports, 0, port, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT of `size` bytes."""
        self.accesses += 1
        claim = self.ports.get(port)
        if size > 1:
            _write(self.ports, 0, port, size, value)
        elif claim is not None:
            claim.write(port, 1, value)

    def port_read_block(self, port: int, size: int, count: int) -> bytes:
        """What `port_read` would return next, up to `count` times, as bytes; none: ask it."""
        claim = self.ports.get(port)
        if claim is None or claim.read_block is None or size > claim.width:
            return b""
        data = claim.read_block(port, size, count)
        self.accesses += len(data) // size
        return data

    def port_write_block(self, port: int, size: int, data: memoryview) -> int:
        """Do `port_write` for the first elements of `data`; how many that were, perhaps none."""
        claim = self.ports.get(port)
        if claim is None or claim.write_block is None or size > claim.width:
            return 0
        done = claim.write_block(port, size, data)
        self.accesses += done
        return done

    def memory_read(self, address: int, size: int) -> int:
        """A load from a device page, by machine address."""
        self.accesses += 1
        return _read(self.pages, 12, address, size)

    def memory_write(self, address: int, size: int, value: int) -> None:
        """A store to a device page, by machine address."""
        self.accesses += 1
        _write(self.pages, 12, address, size, value)
