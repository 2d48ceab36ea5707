"""A stop of the tour as lines of text: what is printed, and which lines are to stand out.

A screen has at most `LINES` lines of at most `WIDTH` columns, so that it can be taken in at once.
The text says all; on a terminal cli/tour.py adds colour by the kind of each line. A marked line of
a table begins with `MARK`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

LINES: Final = 24
WIDTH: Final = 80
MARK: Final = ">>"
INDENT: Final = "   "
GAP: Final = "  "


class Kind(Enum):
    """What a line is."""

    PLAIN = "plain"
    TITLE = "title"
    HEAD = "head"  #: the names of a table's columns
    MARKED = "marked"  #: the first difference
    ASIDE = "aside"  #: the question, and what to do next


class Line(NamedTuple):
    """One line of a screen."""

    text: str
    kind: Kind = Kind.PLAIN


def blank() -> Line:
    """An empty line."""
    return Line("")


def paragraph(text: str, kind: Kind = Kind.PLAIN) -> list[Line]:
    """Running text."""
    words = " ".join(text.split())
    return [Line(line, kind) for line in textwrap.wrap(words, WIDTH, break_long_words=False)]


def labelled(label: str, text: str, kind: Kind = Kind.ASIDE) -> list[Line]:
    """Running text behind a word that says what it is."""
    margin = " " * 10
    head = f"{label:<10}"
    words = " ".join(text.split())
    lines = textwrap.wrap(words, WIDTH, initial_indent=head, subsequent_indent=margin)
    return [Line(line, kind) for line in lines]


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], marked: Iterable[int] = ()
) -> list[Line]:
    """Rows below their column names; those numbered in `marked` (from 0) stand out."""
    cells = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    found = {number + 1 for number in marked}
    lines = []
    for number, row in enumerate(cells):
        text = GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        kind = Kind.HEAD if number == 0 else Kind.MARKED if number in found else Kind.PLAIN
        margin = MARK.ljust(len(INDENT)) if kind is Kind.MARKED else INDENT
        lines.append(Line((margin + text).rstrip(), kind))
    return lines
