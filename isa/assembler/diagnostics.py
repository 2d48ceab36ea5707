"""What the assembler has to say about a source: where, what, and what was expected there.

Every stage reports to one `Reporter`; only the last step turns errors into an `AssemblyError`, so
that one run shows them all. A place inside a macro keeps the chain of its call sites.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from isa.errors import AssemblyError

MAXIMUM_ERRORS: Final = 20
#: A line longer than this is shown in part: generated text is no use to a reader.
SHOWN_WIDTH: Final = 200


@dataclass(frozen=True, slots=True)
class Call:
    """A macro being expanded, and where it was called."""

    macro: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Location:
    """A line of a source file, and the macro calls that led to it, innermost first."""

    file: str
    line: int
    calls: tuple[Call, ...] = ()

    @property
    def outermost(self) -> tuple[str, int]:
        """The place in the text a person wrote that led here: the call site, if in a macro."""
        return (self.calls[-1].file, self.calls[-1].line) if self.calls else (self.file, self.line)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning. `column` counts from 1; 0 where no place in the line is meant."""

    severity: str
    location: Location
    column: int
    message: str
    text: str = ""

    def __str__(self) -> str:
        where = f"{self.location.file}:{self.location.line}"
        column = f":{self.column}" if self.column else ""
        lines = [f"{where}{column}: {self.severity}: {self.message}"]
        if self.text:
            lines.append(f"    {self.text[:SHOWN_WIDTH]}")
            if 0 < self.column <= SHOWN_WIDTH:
                # Tabs before the caret keep it under its character whatever their width.
                lead = self.text[: self.column - 1].ljust(self.column - 1)
                lines.append("    " + "".join("\t" if c == "\t" else " " for c in lead) + "^")
        for call in self.location.calls[:8]:
            lines.append(f"{call.file}:{call.line}: note: in the expansion of macro '{call.macro}'")
        return "\n".join(lines)


class SourceError(Exception):
    """An error at a column of the line in hand (from 1; 0: the line as a whole)."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.column = column


class TooManyErrors(Exception):
    """Raised to end a run that would only repeat itself."""


@dataclass
class Reporter:
    """Collects diagnostics; the same one is kept once, however many passes find it."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    _seen: set[Diagnostic] = field(default_factory=set)

    def error(self, location: Location, column: int, message: str, text: str = "") -> None:
        self._add(Diagnostic("error", location, column, message, text))
        if len(self.errors) >= MAXIMUM_ERRORS:
            raise TooManyErrors

    def warning(self, location: Location, column: int, message: str, text: str = "") -> None:
        self._add(Diagnostic("warning", location, column, message, text))

    def _add(self, diagnostic: Diagnostic) -> None:
        if diagnostic not in self._seen:
            self._seen.add(diagnostic)
            self.diagnostics.append(diagnostic)

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.diagnostics if d.severity == "error"]

    @property
    def warnings(self) -> list[Diagnostic]:
        return [d for d in self.diagnostics if d.severity == "warning"]

    def raise_if_errors(self) -> None:
        """Raise the `AssemblyError` of all errors so far, if there are any."""
        errors = self.errors
        if not errors:
            return
        report = [str(error) for error in errors]
        if len(errors) >= MAXIMUM_ERRORS:
            report.append(f"stopped after {MAXIMUM_ERRORS} errors")
        raise AssemblyError("\n".join(report), tuple(errors))
