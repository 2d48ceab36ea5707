"""ELF32 executables for IA-32: what a multiboot loader needs of one, every field checked.

Only program headers are read: they say what to run; the section headers, which say what it meant,
are for hypervisor/elf.py. A broken file is a `LoadError` that names the field. Source: the System V
ABI, chapters 4 and 5, and its IA-32 supplement. Read loader.py next.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from emulator.errors import LoadError

MAGIC: Final = b"\x7fELF"
_HEADER: Final = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIIIIIII")
CLASS_32, LITTLE_ENDIAN = 1, 1
TYPE_EXECUTABLE, MACHINE_386 = 2, 3
PT_LOAD, PT_NOTE = 1, 4


class Segment(NamedTuple):
    """Bytes to lie at a machine address; zeros follow up to `size` bytes."""

    address: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        return self.address + self.size


class Elf(NamedTuple):
    """A parsed executable; addresses are physical."""

    entry: int
    segments: tuple[Segment, ...]
    notes: bytes = b""  #: of all PT_NOTE entries: what isa/sites.py reads


def parse(image: bytes) -> Elf:
    """Parse an executable; LoadError says what is wrong with it."""
    if len(image) < _HEADER.size:
        raise LoadError(f"ELF header: expected {_HEADER.size} bytes, found {len(image)}")
    (ident, kind, machine, _, entry, table, _, _, _, entry_size, count, *_) = _HEADER.unpack_from(
        image
    )
    if ident[4] != CLASS_32 or ident[5] != LITTLE_ENDIAN or machine != MACHINE_386:
        raise LoadError("ELF header: expected a 32-bit little-endian file for IA-32")
    if kind != TYPE_EXECUTABLE:
        raise LoadError(f"ELF header: expected an executable (type 2), found type {kind}")
    if count and entry_size != _PROGRAM_HEADER.size:
        expected = _PROGRAM_HEADER.size
        raise LoadError(f"ELF header: program headers of {entry_size} bytes, expected {expected}")
    if table + count * _PROGRAM_HEADER.size > len(image):
        raise LoadError("ELF header: the program headers lie outside the file")
    segments: list[Segment] = []
    notes = b""
    start: int | None = None
    for number in range(count):
        where = table + number * _PROGRAM_HEADER.size
        kind, offset, virtual, physical, filed, size, *_ = _PROGRAM_HEADER.unpack_from(image, where)
        if kind == PT_NOTE:
            notes += image[offset : offset + filed]
        if kind != PT_LOAD or size == 0 == filed:
            continue
        if offset + filed > len(image):
            raise LoadError(f"ELF segment {number}: lies outside the file")
        if filed > size:
            raise LoadError(f"ELF segment {number}: {filed} bytes in the file, {size} in memory")
        segments.append(Segment(physical, image[offset : offset + filed], size))
        if virtual <= entry < virtual + size:
            start = entry - virtual + physical
    if start is None and any(s.address <= entry < s.end for s in segments):
        start = entry  # a kernel linked high that begins before paging may say the physical address
    if start is None:
        raise LoadError(f"ELF header: no segment holds the entry point {entry:#x}")
    return Elf(start, tuple(segments), notes)
