"""A program as a multiboot-1 ELF32 executable: what `qemu-system-i386 -kernel` and gdb load.

Each section with contents becomes a PT_LOAD of its own, at the address it was assembled for. A
multiboot loader looks for the header in the first 8 KiB of the *file*; where the source has none
there, a section `.multiboot` of its own is put right behind the program headers. It is not loaded,
so nothing in memory moves. A paravirtual image carries the list of its sites as a note
(`isa/sites.py`), in a section of its own that is not loaded either. Reference: multiboot 0.6.96,
3.1; System V ABI, i386 supplement.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isa.assembler.dwarf import debug_sections
from isa.assembler.program import Program, Segment, Symbol
from isa.sites import NOTE_SECTION, write_note

MULTIBOOT_MAGIC: Final = 0x1BADB002
MULTIBOOT_FLAGS: Final = 2  #: the loader shall say how much memory there is
MULTIBOOT_SEARCH: Final = 8192
_PROGBITS, _SYMTAB, _STRTAB, _NOTE, _NOBITS = 1, 2, 3, 7, 8
_PT_LOAD, _PT_NOTE = 1, 4
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_ABSOLUTE: Final = 0xFFF1
_HEADER_SIZE, _PROGRAM_SIZE, _SECTION_SIZE, _SYMBOL_SIZE = 52, 32, 40, 16
_FILE_ALIGN: Final = 16


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    address: int
    data: bytes
    size: int
    align: int = 1
    link: int = 0
    info: int = 0
    entry_size: int = 0


def has_multiboot_header(image: bytes) -> bool:
    """Whether a loader would find a multiboot-1 header at the start of these bytes."""
    window = image[:MULTIBOOT_SEARCH]
    position = window.find(struct.pack("<I", MULTIBOOT_MAGIC))
    while position >= 0:
        words = struct.unpack("<III", window[position : position + 12].ljust(12, b"\0"))
        if position % 4 == 0 and position + 12 <= len(window) and sum(words) & 0xFFFFFFFF == 0:
            return True
        position = window.find(struct.pack("<I", MULTIBOOT_MAGIC), position + 1)
    return False


def multiboot_header() -> bytes:
    checksum = -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS) & 0xFFFFFFFF
    return struct.pack("<III", MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, checksum)


class _Strings:
    """A string table being built."""

    def __init__(self) -> None:
        self.data = bytearray(1)
        self._known: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self.data)
            self.data += text.encode("utf-8", "surrogateescape") + b"\0"
        return self._known[text]


def _symbol_table(program: Program, first: int) -> tuple[_Strings, bytes, int]:
    """Names, entries, and how many are local; the segments' sections begin at index `first`."""
    strings = _Strings()
    indices = {segment.name: first + i for i, segment in enumerate(program.segments)}

    def entry(symbol: Symbol) -> bytes:
        index = indices.get(symbol.segment, _ABSOLUTE)
        binding = 1 if symbol.exported else 0
        value = symbol.value & 0xFFFFFFFF
        return struct.pack("<IIIBBH", strings.add(symbol.name), value, 0, binding << 4, 0, index)

    # Labels local to one expansion of a macro have made-up names that help nobody.
    shown = [s for s in program.symbols.values() if not s.name.startswith("..@")]
    local = [bytes(_SYMBOL_SIZE)]
    local.append(struct.pack("<IIIBBH", strings.add(program.name), 0, 0, 4, 0, _ABSOLUTE))
    local += [entry(symbol) for symbol in shown if not symbol.exported]
    exported = [entry(symbol) for symbol in shown if symbol.exported]
    return strings, b"".join(local + exported), len(local)


def _loaded(segment: Segment) -> _Section:
    flags = _ALLOC | (_WRITE if segment.writable else 0) | (_EXEC if segment.executable else 0)
    kind = _PROGBITS if segment.data else _NOBITS
    return _Section(
        segment.name, kind, flags, segment.linked_address, segment.data,
        segment.memory_size, max(segment.align, 1),
    )  # fmt: skip


def _sections(program: Program, *, with_header: bool) -> list[_Section]:
    """All sections after the null one, in file order."""
    sections = []
    if with_header:
        header = multiboot_header()
        sections.append(_Section(".multiboot", _PROGBITS, 0, 0, header, len(header), 4))
    first = len(sections) + 1
    sections += [_loaded(segment) for segment in program.segments]
    if program.paravirt is not None:
        note = write_note(program.paravirt, program.sites)
        sections.append(_Section(NOTE_SECTION, _NOTE, 0, 0, note, len(note), 4))
    for name, data in debug_sections(program).items():
        sections.append(_Section(name, _PROGBITS, 0, 0, data, len(data)))
    strings, table, local = _symbol_table(program, first)
    index = len(sections) + 2  # of .strtab, which follows .symtab
    sections.append(
        _Section(".symtab", _SYMTAB, 0, 0, table, len(table), 4, index, local, _SYMBOL_SIZE)
    )
    names = bytes(strings.data)
    sections.append(_Section(".strtab", _STRTAB, 0, 0, names, len(names)))
    return sections


def _program_header(segment: Segment, offset: int) -> bytes:
    flags = 4 | (2 if segment.writable else 0) | (1 if segment.executable else 0)
    return struct.pack(
        "<8I", _PT_LOAD, offset, segment.linked_address, segment.address, len(segment.data),
        segment.memory_size, flags, _FILE_ALIGN,
    )  # fmt: skip


def _program_headers(program: Program, sections: list[_Section], offsets: list[int]) -> bytes:
    """One for each segment, and one for the note."""
    first = next((i for i, section in enumerate(sections) if section.flags & _ALLOC), 0)
    rows = [
        _program_header(segment, offsets[first + number])
        for number, segment in enumerate(program.segments)
    ]
    for section, offset in zip(sections, offsets, strict=True):
        if section.kind == _NOTE:
            size = len(section.data)
            rows.append(struct.pack("<8I", _PT_NOTE, offset, 0, 0, size, size, 4, section.align))
    return b"".join(rows)


def _section_headers(sections: list[_Section], offsets: Iterable[int], names: list[int]) -> bytes:
    rows = [bytes(_SECTION_SIZE)]
    for section, offset, name in zip(sections, offsets, names, strict=True):
        rows.append(
            struct.pack("<10I", name, section.kind, section.flags, section.address, offset,
                        section.size, section.link, section.info, section.align,
                        section.entry_size)
        )  # fmt: skip
    return b"".join(rows)


def _build(program: Program, *, with_header: bool) -> bytes:
    sections = _sections(program, with_header=with_header)
    strings = _Strings()
    names = [strings.add(section.name) for section in sections]
    names.append(strings.add(".shstrtab"))
    text = bytes(strings.data)
    sections.append(_Section(".shstrtab", _STRTAB, 0, 0, text, len(text)))
    count = len(program.segments) + sum(section.kind == _NOTE for section in sections)
    image = bytearray(_HEADER_SIZE + _PROGRAM_SIZE * count)
    offsets = []
    for section in sections:
        # A segment's place in the file and in memory must agree modulo p_align.
        wanted = section.address if section.flags & _ALLOC else 0
        image += bytes((wanted - len(image)) % _FILE_ALIGN)
        offsets.append(len(image))
        image += section.data
    image += bytes(-len(image) % 4)
    table = len(image)
    image += _section_headers(sections, offsets, names)
    headers = _program_headers(program, sections, offsets)
    image[_HEADER_SIZE : _HEADER_SIZE + len(headers)] = headers
    identity = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    image[:_HEADER_SIZE] = identity + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, program.entry, _HEADER_SIZE, table, 0, _HEADER_SIZE,
        _PROGRAM_SIZE, count, _SECTION_SIZE, len(sections) + 1, len(sections),
    )  # fmt: skip
    return bytes(image)


def write_elf(program: Program) -> bytes:
    """The executable, with a multiboot header that its loader will find."""
    image = _build(program, with_header=False)
    if not has_multiboot_header(image):
        image = _build(program, with_header=True)
    return image
