"""Read what a person wants to know of an ELF32: its code, its symbols, its line table.

The loader (emulator/loader.py) reads program headers, because they say what to run. Here the
section headers are read, because they say what it meant: `disasm`, traces and fault reports name
addresses by them, and a paravirtual image says where its sites are. Nothing is trusted: any file
may be handed in. lines.py decodes the line table, symbols.py answers "what is at this address".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hypervisor.errors import ImageError

if TYPE_CHECKING:
    from isa.sites import Site

MAGIC: Final = b"\x7fELF"
_HEADER: Final = struct.Struct("<16s2H5I6H")
_SECTION: Final = struct.Struct("<10I")
_SYMBOL: Final = struct.Struct("<3I2BH")
_EM_386: Final = 3
_SHT_SYMTAB, _SHT_NOTE, _SHT_NOBITS = 2, 7, 8
_SHF_ALLOC, _SHF_EXECINSTR = 2, 4
#: Types of symbols that stand for a place: none, object, function.
_PLACES: Final = (0, 1, 2)
_SHN_UNDEF, _SHN_LORESERVE = 0, 0xFF00


@dataclass(frozen=True, slots=True)
class Section:
    """A section with its bytes; `address` is linear. Empty `data`: it takes no room in the file."""

    name: str
    kind: int
    flags: int
    address: int
    data: bytes
    link: int

    @property
    def code(self) -> bool:
        """It is loaded and may be executed."""
        return bool(self.flags & _SHF_ALLOC and self.flags & _SHF_EXECINSTR)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name for a linear address; `size` in bytes, 0 if not said."""

    name: str
    address: int
    size: int


def read_sections(image: bytes) -> list[Section]:
    """All sections of an ELF32 for IA-32; ImageError if it is something else."""
    if len(image) < _HEADER.size or image[:4] != MAGIC:
        raise ImageError("expected an ELF header, found too few bytes or another magic number")
    ident, _, machine, _, _, _, offset, _, _, _, _, size, count, names = _HEADER.unpack_from(image)
    if ident[4:6] != b"\x01\x01" or machine != _EM_386:
        raise ImageError("expected a 32-bit little-endian ELF for IA-32")
    if not count:
        return []
    if size < _SECTION.size or names >= count:
        raise ImageError("the section headers are broken")
    rows = []
    for number in range(count):
        try:
            rows.append(_SECTION.unpack_from(image, offset + number * size))
        except struct.error:
            raise ImageError(f"section header {number} lies outside the file") from None
    texts = _bytes_of(image, rows[names])
    return [
        Section(_text(texts, row[0]), row[1], row[2], row[3], _bytes_of(image, row), row[6])
        for row in rows
    ]


def _bytes_of(image: bytes, row: tuple[int, ...]) -> bytes:
    """The bytes of a section; fewer than it says if the file ends before."""
    return b"" if row[1] == _SHT_NOBITS else image[row[4] : row[4] + row[5]]


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else len(table)].decode("utf-8", "replace")


def read_sites(sections: list[Section]) -> tuple[str, tuple[Site, ...]] | None:
    """Variant and sites of a paravirtual image (isa/sites.py); None if it is another.

    ImageError if the list of sites is broken, or its sites are not in the image.
    """
    notes = b"".join(section.data for section in sections if section.kind == _SHT_NOTE)
    if not notes:
        return None
    from isa.errors import SiteError
    from isa.sites import read_note

    try:
        found = read_note(notes)
    except SiteError as error:
        raise ImageError(str(error)) from None
    if found is not None:
        code = [section for section in sections if section.flags & _SHF_ALLOC]
        for site in found[1]:
            if not any(_holds(section, site) for section in code):
                raise ImageError(f"no site stands at {site.address:#x}, where the list has one")
    return found


def _holds(section: Section, site: Site) -> bool:
    offset = site.address - section.address
    return offset >= 0 and section.data[offset : offset + site.size] == site.code


def read_symbols(sections: list[Section]) -> list[Symbol]:
    """The symbols that name places, in the order of the file."""
    found = []
    for section in sections:
        if section.kind != _SHT_SYMTAB or section.link >= len(sections):
            continue
        texts = sections[section.link].data
        whole = len(section.data) - len(section.data) % _SYMBOL.size
        for name, value, size, info, _, home in _SYMBOL.iter_unpack(section.data[:whole]):
            text = _text(texts, name)
            if text and info & 15 in _PLACES and _SHN_UNDEF < home < _SHN_LORESERVE:
                found.append(Symbol(text, value, size))
    return found
