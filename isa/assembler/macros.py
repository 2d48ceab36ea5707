"""Multi-line macros: their definition, the call that fits them, and their parameters in a body.

A body stays text; parameters are put in line by line as it is read, because %rotate may turn them
between two lines. Used by `preprocess.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from isa.assembler.defines import STRING, closing
from isa.assembler.diagnostics import Location, SourceError
from isa.table import CONDITION_NAMES

UNLIMITED: Final = 1 << 30
_HEADER: Final = re.compile(
    r"\s*(?P<name>[^\s,]+)(?:\s+(?P<low>\d+)(?:\s*-\s*(?P<high>\d+|\*))?(?P<plus>\+)?)?"
    r"(?:\s*\.nolist)?(?:\s+(?P<defaults>.*))?$"
)
_PARAMETER: Final = re.compile(
    rf"(?P<string>{STRING})|%\{{(?P<braced>[^}}]*)\}}|%(?P<local>%[A-Za-z_.?@$][\w.?@$#~]*)"
    r"|%(?P<sign>[-+]?)(?P<number>\d+)"
)


@dataclass(frozen=True, slots=True)
class BodyLine:
    text: str
    written: str
    location: Location


@dataclass(eq=False, slots=True)
class Macro:
    """A multi-line macro for calls with `low` to `high` arguments."""

    name: str
    low: int
    high: int
    greedy: bool  #: the last parameter takes the rest of the line, commas included
    defaults: tuple[str, ...]
    body: list[BodyLine] = field(default_factory=list)
    recursive: bool = False

    def takes(self, count: int) -> bool:
        return self.low <= count and (count <= self.high or (self.greedy and self.high > 0))


def parse_header(text: str) -> Macro:
    """The macro that the rest of a %macro line declares."""
    match = _HEADER.match(text)
    if match is None:
        raise SourceError("expected a macro name and a number of parameters")
    low = min(int(match["low"] or 0), UNLIMITED)
    high = low
    if match["high"] is not None:
        high = UNLIMITED if match["high"] == "*" else min(int(match["high"]), UNLIMITED)
    if high < low:
        raise SourceError(f"a macro cannot take {low} to {high} parameters")
    defaults = tuple(split_parameters(match["defaults"] or ""))
    return Macro(match["name"], low, high, match["plus"] is not None, defaults)


def split_parameters(text: str, limit: int = UNLIMITED) -> list[str]:
    """The arguments of a macro call: split at commas, braces group; at most `limit` of them."""
    if not text.strip():
        return []
    pieces: list[str] = []
    position = start = 0
    marks = re.compile(rf"{STRING}|[,{{]")
    while len(pieces) + 1 < limit:
        match = marks.search(text, position)
        if match is None:
            break
        position = match.end()
        if match.group() == "{":
            end = closing(text, position, "{", "}")
            position = end + 1 if end >= 0 else len(text)
        elif match.group() == ",":
            pieces.append(text[start : match.start()])
            start = match.end()
    pieces.append(text[start:])
    if len(pieces) > 1 and not pieces[-1].strip():
        pieces.pop()  # as NASM: a comma at the end begins no argument
    return [_unbrace(piece.strip()) for piece in pieces]


def _unbrace(text: str) -> str:
    if text.startswith("{") and closing(text, 1, "{", "}") == len(text) - 1:
        return text[1:-1]
    return text


@dataclass(eq=False, slots=True)
class Invocation:
    """One expansion of a macro: its arguments now, and the number of its local labels."""

    macro: Macro
    arguments: list[str]
    label: str
    number: int

    def rotate(self, count: int) -> None:
        if self.arguments:
            count %= len(self.arguments)
            self.arguments[:] = self.arguments[count:] + self.arguments[:count]

    def argument(self, number: int) -> str:
        return self.arguments[number - 1] if 0 < number <= len(self.arguments) else ""

    def substitute(self, text: str) -> str:
        """A body line with parameters and local labels put in."""
        return _PARAMETER.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        if match["string"] is not None:
            return match["string"]
        if match["local"] is not None:
            return self._local(match["local"])
        if match["braced"] is not None:
            return self._braced(match["braced"], match.group())
        return self._numbered(match["sign"], match["number"])

    def _local(self, name: str) -> str:
        return f"..@{self.number}.{name[1:]}"

    def _braced(self, inside: str, whole: str) -> str:
        if inside.startswith("%"):
            return self._local(inside)
        match = re.fullmatch(r"([-+]?)(\d+)", inside)
        if match:
            return self._numbered(match[1], match[2])
        span = re.fullmatch(r"(-?\d+):(-?\d+)", inside)
        if span:
            return self._span(int(span[1][:9]), int(span[2][:9]))
        return whole

    def _span(self, first: int, last: int) -> str:
        count = len(self.arguments)
        first, last = (n + count + 1 if n < 0 else n for n in (first, last))
        step = 1 if last >= first else -1
        low, high = max(min(first, last), 1), min(max(first, last), count)
        numbers = range(low, high + 1)[::step]
        return ",".join(self.argument(n) for n in numbers)

    def _numbered(self, sign: str, digits: str) -> str:
        if digits == "00":
            return self.label
        number = int(digits[:9])
        if number == 0:
            return str(len(self.arguments))
        value = self.argument(number)
        if not sign:
            return value
        for code, names in enumerate(CONDITION_NAMES):
            if value.lower() in names:
                return value if sign == "+" else CONDITION_NAMES[code ^ 1][0]
        raise SourceError(f"macro argument '{value}' is not a condition code")


@dataclass
class Macros:
    """All multi-line macros by name."""

    exact: dict[str, list[Macro]] = field(default_factory=dict)
    folded: dict[str, list[Macro]] = field(default_factory=dict)
    calls: int = 0

    def add(self, macro: Macro, *, fold: bool) -> None:
        table = self.folded if fold else self.exact
        name = macro.name.lower() if fold else macro.name
        overloads = table.setdefault(name, [])
        if any(m.low == macro.low and m.high == macro.high for m in overloads):
            raise SourceError(f"macro '{macro.name}' is already defined with these parameters")
        overloads.append(macro)

    def remove(self, name: str, low: int, high: int) -> None:
        for table in (self.exact, self.folded):
            for key in (name, name.lower()):
                kept = [m for m in table.get(key, ()) if (m.low, m.high) != (low, high)]
                if kept:
                    table[key] = kept
                else:
                    table.pop(key, None)

    def find(self, name: str) -> list[Macro]:
        if not self.exact and not self.folded:
            return []
        return self.exact.get(name, []) + self.folded.get(name.lower(), [])

    def call(self, name: str, rest: str, busy: set[Macro]) -> Invocation | None:
        """The expansion a line asks for, or None: it is no macro's call after all."""
        for macro in self.find(name):
            limit = macro.high if macro.greedy else UNLIMITED
            arguments = split_parameters(rest, max(limit, 1))
            if not macro.takes(len(arguments)) or (macro in busy and not macro.recursive):
                continue
            missing = macro.high - len(arguments)
            if missing > 0 and macro.defaults:
                start = len(arguments) - macro.low
                arguments += macro.defaults[max(start, 0) :]
            self.calls += 1
            return Invocation(macro, arguments, "", self.calls)
        return None
