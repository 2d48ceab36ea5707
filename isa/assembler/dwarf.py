"""Line information as DWARF 3, the least that gdb and objdump ask for.

One compilation unit, one line program with a sequence for each executable segment. Lines are those
a person wrote: code from a macro belongs to the macro's call. Reference: DWARF 3, 6.2 and 7.5.
"""

from __future__ import annotations

import struct
from typing import Final

from isa.assembler.program import LineEntry, Program, Segment

_COMPILE_UNIT: Final = 0x11
_LANGUAGE_ASSEMBLER: Final = 0x8001
_STANDARD_OPERANDS: Final = bytes([0, 1, 1, 1, 1, 0, 0, 0, 1])
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE = 1, 2, 3, 4
_END_SEQUENCE, _SET_ADDRESS = 1, 2
#: Attribute and form pairs of the unit: name, producer, language, low_pc, high_pc, stmt_list.
_ATTRIBUTES: Final = bytes(
    [0x03, 0x08, 0x25, 0x08, 0x13, 0x05, 0x11, 0x01, 0x12, 0x01, 0x10, 0x06, 0, 0]
)


def _unsigned(value: int) -> bytes:
    """ULEB128."""
    data = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        data.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(data)


def _signed(value: int) -> bytes:
    """SLEB128."""
    data = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        done = value == (-1 if byte & 0x40 else 0)
        data.append(byte | (0 if done else 0x80))
        if done:
            return bytes(data)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape").replace(b"\0", b"") + b"\0"


def _sequence(segment: Segment, entries: list[LineEntry], files: dict[str, int]) -> bytes:
    """The line program of one segment."""
    data = bytearray()
    address, line, file = entries[0].address, 1, 1
    data += b"\0\x05" + bytes([_SET_ADDRESS]) + struct.pack("<I", address)
    for entry in entries:
        if files[entry.file] != file:
            file = files[entry.file]
            data += bytes([_SET_FILE]) + _unsigned(file)
        data += bytes([_ADVANCE_PC]) + _unsigned(entry.address - address)
        data += bytes([_ADVANCE_LINE]) + _signed(entry.line - line) + bytes([_COPY])
        address, line = entry.address, entry.line
    end = segment.linked_address + segment.memory_size
    data += bytes([_ADVANCE_PC]) + _unsigned(end - address)
    return bytes(data) + bytes([0, 1, _END_SEQUENCE])


def _executable(program: Program) -> list[Segment]:
    return [s for s in program.segments if s.executable and s.data]


def _debug_line(program: Program) -> bytes:
    files: dict[str, int] = {}
    body = bytearray()
    for segment in _executable(program):
        start, end = segment.linked_address, segment.linked_address + segment.memory_size
        entries: list[LineEntry] = []
        for entry in program.lines:
            if not start <= entry.address < end:
                continue
            files.setdefault(entry.file, len(files) + 1)
            if not entries or (entries[-1].file, entries[-1].line) != (entry.file, entry.line):
                entries.append(entry)
        if entries:
            body += _sequence(segment, entries, files)
    table = b"".join(_text(file) + b"\0\0\0" for file in files)
    # minimum_instruction_length, default_is_stmt, line_base, line_range, opcode_base
    fixed = struct.pack("<BBbBB", 1, 1, -5, 14, 10) + _STANDARD_OPERANDS
    header = fixed + b"\0" + table + b"\0"
    unit = struct.pack("<HI", 3, len(header)) + header + bytes(body)
    return struct.pack("<I", len(unit)) + unit


def debug_sections(program: Program) -> dict[str, bytes]:
    """The contents of .debug_abbrev, .debug_info and .debug_line."""
    code = _executable(program)
    low = min((s.linked_address for s in code), default=0)
    high = max((s.linked_address + s.memory_size for s in code), default=0)
    die = b"\x01" + _text(program.name) + _text("seventeen asm")
    die += struct.pack("<HIII", _LANGUAGE_ASSEMBLER, low, high, 0)
    unit = struct.pack("<HIB", 3, 0, 4) + die
    return {
        ".debug_abbrev": bytes([1, _COMPILE_UNIT, 0]) + _ATTRIBUTES + b"\0",
        ".debug_info": struct.pack("<I", len(unit)) + unit,
        ".debug_line": _debug_line(program),
    }
