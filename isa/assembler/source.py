"""Source files and their logical lines: continuation joined, comments cut.

A logical line keeps its columns: a comment is cut off the end, never taken out of the middle, so a
diagnostic's caret stands under what the author wrote. `preprocess.py` reads these lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isa.assembler.diagnostics import SourceError

#: A string, or the start of a comment.
_QUOTED_OR_COMMENT: Final = re.compile(r"\"[^\"]*\"|'[^']*'|`(?:\\.|[^`\\])*`|;")
MAXIMUM_FILE_SIZE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class RawLine:
    """A logical line: its number, its text without comment, and its text as written."""

    number: int
    text: str
    written: str


def cut_comment(line: str) -> str:
    """The line up to the semicolon that begins its comment."""
    if ";" not in line:
        return line
    for match in _QUOTED_OR_COMMENT.finditer(line):
        if match.group() == ";":
            return line[: match.start()]
    return line


def logical_lines(source: str) -> Iterator[RawLine]:
    """The logical lines of a text; one ending in a backslash goes on in the next."""
    pending, start = "", 0
    lines = source.removesuffix("\n").split("\n")
    for number, physical in enumerate(lines, 1):
        line = physical.rstrip("\r")
        if pending or line.endswith("\\"):
            start = start or number
            if line.endswith("\\") and number < len(lines):
                pending += line[:-1]
                continue
            line, number = pending + line, start
            pending, start = "", 0
        yield RawLine(number, cut_comment(line).replace("\0", " "), line)


def read_text(path: Path) -> str:
    """The text of a source file; `SourceError` if it cannot be had."""
    try:
        if path.stat().st_size > MAXIMUM_FILE_SIZE:
            raise SourceError(f"'{path}' is larger than {MAXIMUM_FILE_SIZE >> 20} MiB")
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"cannot read '{path}': {reason}") from None


@dataclass(frozen=True, slots=True)
class SearchPath:
    """Where included files are looked for.

    Beside the file that names them, beside the source being assembled, then in order.
    """

    directories: Sequence[Path]
    source: str = ""

    def find(self, name: str, includer: str) -> Path:
        """The file called `name`; `SourceError` if there is none."""
        candidates = [Path(includer).parent, Path(self.source).parent, *self.directories]
        for directory in candidates:
            try:
                if (directory / name).is_file():
                    return directory / name
            except (OSError, ValueError):
                continue
        raise SourceError(f"cannot find '{name}'")
