"""Tables for people and for scripts: rich where a person looks, aligned text everywhere else.

A terminal may be narrower than a table. Words are then folded; numbers never are: what has no room
follows in a table of its own, which begins with the same columns of names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.table import Table as RichTable

GAP: Final = 2  #: between columns, at least


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    stream: TextIO | None = None,
) -> None:
    """Print rows below their column names; the columns in `right` hold numbers."""
    stream = stream or sys.stdout
    if stream.isatty():
        _print_rich(columns, rows, right, stream)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip(), file=stream)


def _print_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str], stream: TextIO
) -> None:
    from rich.console import Console

    console = Console(file=stream)
    keys = max(1, next((n for n, name in enumerate(columns) if name in right), 1))
    cells = list(zip(columns, *rows, strict=True))
    widths = [_least(column, right) for column in cells]
    names = [max(map(len, column)) for column in cells[:keys]]
    whole = sum(names) <= console.width / 2  # then each name stays on its line
    if whole:
        widths[:keys] = names
    for place, chosen in enumerate(parts(widths, keys, console.width)):
        if place:
            console.print()
        console.print(_table([cells[n] for n in chosen], right, keys if whole else 0))


def parts(widths: Sequence[int], keys: int, room: int) -> list[list[int]]:
    """The columns, in as many tables as there must be for `room`; each begins with the keys."""
    repeated = list(range(keys))
    used = start = sum(widths[:keys]) + GAP * (keys - 1)
    found = [repeated]
    for number in range(keys, len(widths)):
        if used + GAP + widths[number] > room and len(found[-1]) > keys:
            found.append(repeated)
            used = start
        found[-1] = [*found[-1], number]
        used += GAP + widths[number]
    return found


def _least(cells: Sequence[str], right: frozenset[str]) -> int:
    """What a column needs, its name first: a number is whole, words may stand below each other."""
    name, *others = cells
    words = [*name.split(), *(others if name in right else " ".join(others).split())]
    return max(map(len, words), default=0)


def _table(columns: Sequence[Sequence[str]], right: frozenset[str], whole: int) -> RichTable:
    """One table; the first `whole` columns, and numbers, stay on their lines."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for number, (name, *cells) in enumerate(columns):
        least = max(map(len, [*cells, *name.split()]))
        numeric = name in right
        table.add_column(
            fill(name, least) if numeric else name,
            justify="right" if numeric else "left",
            no_wrap=numeric or number < whole,
            min_width=least if numeric else None,
            overflow="fold",
        )
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*map(Text, row))  # Text: brackets are no markup
    return table
