"""What the assembler makes: a program in memory, with its symbols and its lines.

It can be had as a flat binary, as a multiboot-1 ELF (`elf.py`) or as a listing (`listing.py`);
the emulator loads its segments as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from isa.assembler.diagnostics import Diagnostic
from isa.errors import AssemblyError
from isa.sites import Site

#: Where a flat binary is loaded, and a program without `org` begins (guest-physical).
DEFAULT_ORIGIN: Final = 0x100000
MAXIMUM_FLAT: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A section of the finished image. Addresses are guest-physical and flat."""

    name: str
    address: int  #: where it is loaded
    data: bytes
    memory_size: int  #: bytes it takes in memory; what `data` does not fill is zero
    writable: bool
    executable: bool
    align: int
    linked_address: int  #: where its labels believe it is; `address`, unless vstart= said else


@dataclass(frozen=True, slots=True)
class Symbol:
    """A label or a constant. `segment` is the name of the section it lies in, "" for a number."""

    name: str
    value: int
    segment: str
    exported: bool


@dataclass(frozen=True, slots=True)
class LineEntry:
    """The first byte that a source line made. The line is one a person wrote: a macro's call."""

    address: int
    size: int
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ListingEntry:
    """A line of the listing: what it says, and the bytes (or the space) it made."""

    line: int
    text: str
    offset: int | None
    data: bytes
    reserved: int
    depth: int  #: of macro calls
    sites: tuple[tuple[int, Site], ...] = ()  #: with the offset of each


@dataclass(frozen=True)
class Program:
    """An assembled program."""

    name: str
    source: str
    segments: tuple[Segment, ...]
    entry: int
    symbols: Mapping[str, Symbol]
    lines: tuple[LineEntry, ...]  #: by address
    listing_entries: tuple[ListingEntry, ...]
    warnings: tuple[Diagnostic, ...] = ()
    paravirt: str | None = None  #: the variant of a paravirtual image (`isa/paravirt.py`), or None
    sites: tuple[Site, ...] = ()  #: of a paravirtual image, by address

    @property
    def origin(self) -> int:
        """The lowest address the image is loaded at."""
        filled = [s.address for s in self.segments if s.data]
        return min(filled or [s.address for s in self.segments], default=DEFAULT_ORIGIN)

    def flat(self) -> bytes:
        """The image from its origin to the end of the last byte with contents.

        `AssemblyError` where sections lie so far apart that it would be mostly nothing.
        """
        origin = self.origin
        end = max((s.address + len(s.data) for s in self.segments if s.data), default=origin)
        if end - origin > MAXIMUM_FLAT:
            mebibytes = (end - origin) >> 20
            raise AssemblyError(f"{self.name}: error: a flat image would take {mebibytes} MiB")
        image = bytearray(end - origin)
        for segment in self.segments:
            start = segment.address - origin
            image[start : start + len(segment.data)] = segment.data
        return bytes(image)

    def elf(self) -> bytes:
        """A multiboot-1 ELF32 executable with symbols and line information."""
        from isa.assembler.elf import write_elf

        return write_elf(self)

    def listing(self) -> str:
        """Line, offset, bytes and source of every line, as NASM's -l lists them."""
        from isa.assembler.listing import write_listing

        return write_listing(self.listing_entries)

    def source_line(self, address: int) -> tuple[str, int] | None:
        """File and line of the instruction or datum at an address."""
        position = bisect_right(self.lines, address, key=lambda entry: entry.address) - 1
        if position >= 0:
            entry = self.lines[position]
            if address < entry.address + max(entry.size, 1):
                return entry.file, entry.line
        return None

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The nearest label at or below an address, and the distance from it."""
        best: Symbol | None = None
        for symbol in self.symbols.values():
            if not symbol.segment or symbol.value > address or symbol.name.startswith("..@"):
                continue
            if best is None or symbol.value > best.value:
                best = symbol
        return None if best is None else (best.name, address - best.value)
