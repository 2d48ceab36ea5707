"""The listing: each line with its number, its offset and its bytes, as `nasm -l` lays it out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from isa.assembler.program import ListingEntry

_BYTES_PER_LINE: Final = 9
_MAXIMUM_ROWS: Final = 64


def _rows(entry: ListingEntry) -> list[str]:
    """The offset-and-bytes column, one text a row."""
    if entry.offset is None:
        return [""]
    if entry.reserved:
        return [f"{entry.offset:08X} <res {entry.reserved:X}h>"]
    rows: list[str] = []
    for start in range(0, len(entry.data), _BYTES_PER_LINE):
        more = "-" if start + _BYTES_PER_LINE < len(entry.data) else ""
        chunk = entry.data[start : start + _BYTES_PER_LINE].hex().upper()
        if len(rows) == _MAXIMUM_ROWS:
            rows.append("...")
            break
        rows.append(f"{entry.offset + start:08X} {chunk}{more}")
    return rows or [f"{entry.offset:08X}"]


def write_listing(entries: Iterable[ListingEntry]) -> str:
    """The listing of these entries."""
    lines = []
    for entry in entries:
        mark = f"<{entry.depth}>" if entry.depth else ""
        for number, column in enumerate(_rows(entry)):
            text = entry.text if number == 0 else ""
            lines.append(f"{entry.line:6} {column:<28} {mark:>4} {text}".rstrip())
    return "\n".join(lines) + "\n" if lines else ""
