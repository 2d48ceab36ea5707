"""Sections: what a source is divided into, and where each part lies.

As in NASM's flat binaries: `.text` first, then the other sections with contents in the order they
first appear, then those without, each aligned. Addresses are known only when all sizes are; then
`passes.py` runs a last time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from isa.assembler.diagnostics import SourceError

DEFAULT_ALIGN: Final = 4
ADDRESS_SPACE: Final = 1 << 32


@dataclass(eq=False, slots=True)
class Section:
    """A section. Offsets and sizes are in bytes; `address` is where its labels count from."""

    name: str
    nobits: bool = False
    writable: bool = True
    executable: bool = False
    align: int = DEFAULT_ALIGN
    absolute: bool = False  #: not part of the image: labels there are plain numbers
    start: int | None = None  #: where it was asked to be loaded
    virtual: int | None = None  #: where it was asked to be addressed
    address: int = 0
    load_address: int = 0
    offset: int = 0  #: the current place, while a pass runs
    size: int = 0  #: as the last pass found it
    data: bytearray = field(default_factory=bytearray)


def new_section(name: str) -> Section:
    """A section with the attributes its name implies."""
    if name == ".text":
        return Section(name, writable=False, executable=True, align=1)
    if name == ".bss":
        return Section(name, nobits=True)
    return Section(name, writable=name != ".rodata")


def align_up(value: int, boundary: int) -> int:
    return -(-value // boundary) * boundary


def place(sections: Iterable[Section], origin: int) -> None:
    """Give every section its address; `SourceError` where there is none left."""
    every = [section for section in sections if not section.absolute]
    ordered = [s for s in every if s.name == ".text"]
    ordered += [s for s in every if s.name != ".text" and not s.nobits]
    ordered += [s for s in every if s.nobits and s.name != ".text"]
    cursor = origin
    for section in ordered:
        cursor = align_up(cursor, section.align) if section.start is None else section.start
        section.load_address = cursor
        section.address = cursor if section.virtual is None else section.virtual
        cursor += section.size
        if cursor > ADDRESS_SPACE or section.address + section.size > ADDRESS_SPACE:
            raise SourceError(f"section {section.name} ends beyond 4 GiB")
