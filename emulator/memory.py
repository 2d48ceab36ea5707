"""The machine's memory: one anonymous mapping, so what nobody has written costs nothing.

The core reads and writes it directly. Everybody else writes through `machine_write`, which honours
the page flags: a write over code makes the core decode it again. Addresses are machine addresses;
where there is no memory, reads are all ones and writes are lost, as on an empty bus. Read core.py
for the CPU's side, loader.py for how a program gets here.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from emulator.core import PageFlag, ffi, lib
from emulator.errors import CoreError, MachineError

if TYPE_CHECKING:
    from isa.cost import CostModel

PAGE: Final = 4096
CHUNK: Final = 1 << 18  #: looked at as a whole when searching for pages in use
NO_MEMORY: Final = (1 << 64) - 1
#: Video memory and firmware on a PC: no RAM here, but for these pages.
HOLE: Final = range(0xA0000, 0x100000)
ROM: Final = range(0xF0000, 0xF1000)
TEXT: Final = range(0xB8000, 0xC0000)  #: of the screen, as good as RAM to the core
HOLE_MEMORY: Final = (TEXT, ROM)
#: Below: the first mebibyte, and room for a program above it. Above: where devices' addresses lie.
SMALLEST: Final = 2 << 20
LARGEST: Final = 3 << 30
UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str | int) -> int:
    """Bytes of a memory size: a number, or a string such as ``64M``; MachineError if it is none."""
    if isinstance(text, int):
        size = text
    else:
        match = re.fullmatch(r"\s*([0-9]+)\s*([KMG]?)i?B?\s*", text, re.IGNORECASE | re.ASCII)
        if match is None:
            raise MachineError(f"memory size {text!r}: expected a number with K, M or G, as 64M")
        size = int(match[1]) * UNITS[match[2].upper()]
    if not SMALLEST <= size <= LARGEST:
        shown = text if isinstance(text, str) else f"{size} bytes"
        raise MachineError(f"memory size {shown}: expected at least 2M and at most 3G")
    return size & ~(PAGE - 1)


class Memory:
    """RAM, and the core's machine over it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._weighted: set[int] = set()
        # Private: to read what nobody has written then takes no memory either.
        self._bytes = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._buffer = ffi.from_buffer("uint8_t[]", self._bytes)
        machine = lib.machine_new(self._buffer, size)
        if machine == ffi.NULL:
            raise CoreError("not enough memory for a machine")
        self.machine: Any = ffi.gc(machine, lib.machine_free)

    def unmap(self, addresses: range) -> None:
        """Leave whole pages without memory."""
        for page in range(addresses.start // PAGE, addresses.stop // PAGE):
            lib.machine_map(self.machine, page, NO_MEMORY)

    def map(self, addresses: range) -> None:
        """Undo `unmap`."""
        for page in range(addresses.start // PAGE, addresses.stop // PAGE):
            lib.machine_map(self.machine, page, page * PAGE)

    def leave_hole(self) -> None:
        """Leave out what a PC has no RAM for, but for the pages of `HOLE_MEMORY`."""
        self.unmap(HOLE)
        for memory in HOLE_MEMORY:
            self.map(memory)

    def leave_device(self, page: int) -> None:
        """Have accesses to a page of machine addresses exit: a device is there."""
        self.set_flags(range(page * PAGE, (page + 1) * PAGE), set_=PageFlag.MMIO)

    def set_flags(self, addresses: range, *, set_: int = 0, clear: int = 0) -> None:
        """Set and clear flags (`emulator.core.PageFlag`) of whole pages."""
        first, count = addresses.start // PAGE, len(addresses) // PAGE
        lib.machine_set_flags(self.machine, first, count, set_, clear)

    def set_weights(self, page: int, bits: bytes | None) -> None:
        """Give instructions of a page retire weight 0, a bit a byte; csrc/api.h says more."""
        self._weighted.add(page)
        if lib.machine_set_weights(self.machine, page, ffi.NULL if bits is None else bits) != 0:
            raise MachineError(f"no memory at page {page:#x} whose instructions could be weighted")

    def forget_weights(self) -> None:
        """Let all instructions count again."""
        for page in list(self._weighted):
            self.set_weights(page, None)
        self._weighted.clear()

    def set_costs(self, model: CostModel) -> None:
        """Charge what a processor of this model takes, from now on."""
        from isa.table import ROWS

        by_key = model.instruction_cycles
        rows = [by_key[row.cost] for row in ROWS]
        events = list(model.event_cycles.values())
        if lib.machine_set_costs(self.machine, rows, len(rows), events, len(events)) != 0:
            raise CoreError(f"cost model {model.name}: the core has other rows or events")

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes; all ones where there is no memory."""
        buffer = ffi.new("uint8_t[]", max(size, 1))
        ffi.memmove(buffer, b"\xff" * size, size)
        done = 0
        while done < size:
            step = lib.machine_read(
                self.machine, (address + done) & 0xFFFF_FFFF, buffer + done, size - done
            )
            done += step
            if done < size:  # a page without memory: go on behind it
                done += PAGE - (address + done) % PAGE
        return bytes(ffi.buffer(buffer, size))

    def write(self, address: int, data: bytes) -> None:
        """Write through the page flags; what meets no memory is lost."""
        done, size = 0, len(data)
        while done < size:
            piece = data[done:] if done else data
            done += lib.machine_write(
                self.machine, (address + done) & 0xFFFF_FFFF, piece, len(piece)
            )
            if done < size:
                done += PAGE - (address + done) % PAGE

    def view(self, address: int, size: int) -> memoryview:
        """The bytes themselves, past all page flags: for those who know that nobody else cares."""
        return memoryview(self._bytes)[address : address + size]

    def u8(self, address: int) -> int:
        """The byte at a machine address."""
        return self.read(address, 1)[0]

    def u16(self, address: int) -> int:
        """The word at a machine address."""
        return int.from_bytes(self.read(address, 2), "little")

    def u32(self, address: int) -> int:
        """The doubleword at a machine address."""
        return int.from_bytes(self.read(address, 4), "little")

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """The (offset, bytes) of every page that is not all zero."""
        # A cffi buffer is compared where it lies, as fast as memory can be read.
        zeros, zero = bytes(CHUNK), bytes(PAGE)
        for start in range(0, self.size, CHUNK):
            length = min(CHUNK, self.size - start)
            if ffi.buffer(self._buffer + start, length) == zeros[:length]:
                continue
            chunk = self._bytes[start : start + length]
            for offset in range(0, len(chunk), PAGE):
                page = chunk[offset : offset + PAGE]
                if page != zero:
                    yield start + offset, page

    def restore(self, pages: Mapping[int, bytes]) -> None:
        """Make memory what `pages` yielded."""
        zero = bytes(PAGE)
        for offset in {offset for offset, _ in self.pages()} | set(pages):
            self._bytes[offset : offset + PAGE] = pages.get(offset, zero)
        lib.machine_flush_blocks(self.machine)
