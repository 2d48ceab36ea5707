"""Decode .debug_line: which line of which source an address comes from.

The table is a program for a small machine (DWARF 2 to 4, section 6.2; DWARF 5 changes only how
files are listed), run here. Compilers write 4 or 5, NASM 2 or 3. A broken table yields the rows up
to the break: it is a help for people, not an input to trust.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from hypervisor.elf import Section

#: Forms of DWARF 5's file entries that producers use, by what follows them.
_FORM_STRING, _FORM_LINE_STRP, _FORM_UDATA, _FORM_DATA16 = 0x08, 0x1F, 0x0F, 0x1E
_FORM_FIXED: Final = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8}
_CONTENT_PATH, _CONTENT_DIRECTORY = 1, 2


@dataclass(frozen=True, slots=True)
class Line:
    """From `address` on (linear), code comes from this line; None: from no source."""

    address: int
    file: str
    line: int | None


class _Reader:
    """A cursor over bytes; IndexError or struct.error past the end."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def number(self, size: int) -> int:
        if self.at + size > len(self.data):
            raise IndexError("past the end")
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 63:
                return value

    def sleb(self) -> int:
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode("utf-8", "replace")
        self.at = end + 1
        return text


@dataclass
class _Header:
    minimum_length: int
    line_base: int
    line_range: int
    opcode_base: int
    lengths: list[int]
    files: list[str]
    first_file: int  # number of files[0]

    def name(self, number: int) -> str:
        index = number - self.first_file
        return self.files[index] if 0 <= index < len(self.files) else "?"


@dataclass
class _State:
    address: int = 0
    file: int = 1
    line: int = 1
    rows: list[Line] = field(default_factory=list)


def read_lines(sections: list[Section]) -> list[Line]:
    """All rows of all line programs, by address."""
    tables = {section.name: section.data for section in sections}
    reader, rows = _Reader(tables.get(".debug_line", b"")), []
    strings = tables.get(".debug_line_str", b"")
    try:
        while reader.at < len(reader.data):
            length = reader.number(4)
            unit = _Reader(reader.data[: reader.at + length], reader.at)
            reader.at += length
            rows += _run(unit, _read_header(unit, strings))
    except (IndexError, ValueError, struct.error):
        pass  # what was read so far is of use
    return sorted(rows, key=lambda row: (row.address, row.line is not None))


def _read_header(reader: _Reader, strings: bytes) -> _Header:
    version = reader.number(2)
    if not 2 <= version <= 5:
        raise ValueError(f"line table of version {version}")
    if version == 5:
        reader.number(2)  # size of an address and of a segment selector
    length = reader.number(4)
    program = reader.at + length
    minimum_length = reader.number(1)
    if version >= 4:
        reader.number(1)  # operations an instruction, for VLIW
    reader.number(1)  # default_is_stmt
    line_base = struct.unpack("<b", bytes([reader.number(1)]))[0]
    line_range, opcode_base = reader.number(1), reader.number(1)
    lengths = [reader.number(1) for _ in range(opcode_base - 1)]
    files = _files_5(reader, strings) if version == 5 else _files_2(reader)
    reader.at = program
    if not line_range:
        raise ValueError("a line range of 0")
    first = 0 if version == 5 else 1
    return _Header(minimum_length, line_base, line_range, opcode_base, lengths, files, first)


def _files_2(reader: _Reader) -> list[str]:
    directories, files = [""], []
    while name := reader.text():
        directories.append(name)
    while name := reader.text():
        directory = reader.uleb()
        reader.uleb()  # time
        reader.uleb()  # length
        folder = directories[directory] if directory < len(directories) else ""
        files.append(f"{folder}/{name}" if folder else name)
    return files


def _files_5(reader: _Reader, strings: bytes) -> list[str]:
    directories = [str(entry.get(_CONTENT_PATH, "")) for entry in _entries_5(reader, strings)]
    files = []
    for entry in _entries_5(reader, strings):
        number = int(entry.get(_CONTENT_DIRECTORY, 0))
        # Directory 0 is where the compiler ran: names are shown relative to it.
        folder = directories[number] if 0 < number < len(directories) else ""
        name = str(entry.get(_CONTENT_PATH, "?"))
        files.append(f"{folder}/{name}" if folder else name)
    return files


def _entries_5(reader: _Reader, strings: bytes) -> Iterator[dict[int, str | int]]:
    formats = [(reader.uleb(), reader.uleb()) for _ in range(reader.number(1))]
    for _ in range(reader.uleb()):
        yield {content: _form(reader, form, strings) for content, form in formats}


def _form(reader: _Reader, form: int, strings: bytes) -> str | int:
    if form == _FORM_STRING:
        return reader.text()
    if form == _FORM_LINE_STRP:
        return _Reader(strings, reader.number(4)).text()
    if form == _FORM_UDATA:
        return reader.uleb()
    if form == _FORM_DATA16:
        return reader.number(16)
    if form in _FORM_FIXED:
        return reader.number(_FORM_FIXED[form])
    raise ValueError(f"form {form:#x}")


def _run(reader: _Reader, header: _Header) -> list[Line]:
    """Run one line program; its state after each row is a row of the result."""
    state = _State()
    while reader.at < len(reader.data):
        opcode = reader.number(1)
        if opcode >= header.opcode_base:
            step = opcode - header.opcode_base
            state.address += step // header.line_range * header.minimum_length
            state.line += header.line_base + step % header.line_range
            state.rows.append(Line(state.address, header.name(state.file), state.line))
        elif opcode == 0:
            _extended(reader, state)
        else:
            _standard(opcode, reader, header, state)
    return state.rows


def _extended(reader: _Reader, state: _State) -> None:
    length = reader.uleb()
    end = reader.at + length
    opcode = reader.number(1)
    if opcode == 1:  # end of sequence
        state.rows.append(Line(state.address, "", None))
        state.address, state.file, state.line = 0, 1, 1
    elif opcode == 2:
        state.address = reader.number(length - 1)
    reader.at = end


def _standard(opcode: int, reader: _Reader, header: _Header, state: _State) -> None:
    if opcode == 1:
        state.rows.append(Line(state.address, header.name(state.file), state.line))
    elif opcode == 2:
        state.address += reader.uleb() * header.minimum_length
    elif opcode == 3:
        state.line += reader.sleb()
    elif opcode == 4:
        state.file = reader.uleb()
    elif opcode == 8:
        step = 255 - header.opcode_base
        state.address += step // header.line_range * header.minimum_length
    elif opcode == 9:
        state.address += reader.number(2)
    else:  # of no interest here, or unknown: the header says how many arguments to skip
        for _ in range(header.lengths[opcode - 1]):
            reader.uleb()
