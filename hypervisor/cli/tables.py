"""Tables for people and for scripts: rich where a person looks, aligned text everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO


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
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: brackets are no markup
    Console(file=stream).print(table)
