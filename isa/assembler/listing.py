"""The listing: each line with its number, its offset and its bytes, as `nasm -l` lays it out.

A site of a paravirtual image is listed instruction by instruction below the line that it is of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from isa.assembler.program import ListingEntry
from isa.disassembler import disassemble
from isa.sites import Site

_BYTES_PER_LINE: Final = 9
_MAXIMUM_ROWS: Final = 64


def _site_rows(offset: int, site: Site) -> Iterator[tuple[str, str]]:
    """Column and text of each instruction of a site; in brackets, what stands behind its `int`."""
    yield f"{offset:08X} <{site.form} {site.size:X}h>", ""
    executed = {offset + step.offset for step in site.steps}
    for line in disassemble(site.code, offset):
        text = line.text if line.address in executed else f"({line.text})"
        yield f"{line.address:08X} {line.bytes.hex().upper()}", f"| {text}"


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
        rows = [(column, "") for column in _rows(entry)]
        if entry.sites:
            rows = [row for offset, site in entry.sites for row in _site_rows(offset, site)]
        for number, (column, text) in enumerate(rows[:_MAXIMUM_ROWS]):
            text = entry.text if number == 0 else text
            lines.append(f"{entry.line:6} {column:<28} {mark:>4} {text}".rstrip())
    return "\n".join(lines) + "\n" if lines else ""
