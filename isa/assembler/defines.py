"""Single-line macros: what %define and its kin define, and their expansion in a line.

Expansion works on text, not tokens, so a line that uses no macro passes untouched and keeps its
columns. As in NASM a macro is not expanded again within its own expansion. Work is bounded: text
that only grows is an error, not a hang. Used by `preprocess.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from isa.assembler.diagnostics import SourceError

STRING: Final = r"\"[^\"]*\"|'[^']*'|`(?:\\.|[^`\\])*`"
WORD: Final = r"[A-Za-z_.?@$][A-Za-z0-9_.?@$#~]*"
#: A string, a word, an indirection, a number (which hides the letters in it), or the paste sign.
_PIECES: Final = re.compile(
    rf"(?P<string>{STRING})|(?P<word>{WORD})|(?P<indirect>%\[)|(?P<number>[0-9][\w.]*)"
    r"|(?P<paste>\s*%\+\s*)"
)
_WORDS: Final = re.compile(WORD)
_PASTE: Final = re.compile(rf"({STRING})|\s*%\+\s*")
MAXIMUM_LENGTH: Final = 1 << 16
MAXIMUM_EXPANSIONS: Final = 20_000
MAXIMUM_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Define:
    """A single-line macro; `parameters` is None where it is used without parentheses."""

    name: str
    parameters: tuple[str, ...] | None
    body: str


def split_arguments(text: str) -> list[str]:
    """Split at commas outside strings, brackets and braces."""
    pieces, depth, start = [], 0, 0
    for match in re.finditer(rf"{STRING}|[,(){{}}]", text):
        mark = match.group()
        if mark in "({":
            depth += 1
        elif mark in ")}":
            depth -= 1
        elif mark == "," and depth == 0:
            pieces.append(text[start : match.start()].strip())
            start = match.end()
    pieces.append(text[start:].strip())
    return pieces


def closing(text: str, start: int, opening: str, end: str) -> int:
    """The position of the mark that closes the one just before `start`, or -1."""
    depth = 1
    for match in re.finditer(rf"{STRING}|[{re.escape(opening + end)}]", text[start:]):
        depth += (match.group() == opening) - (match.group() == end)
        if depth == 0:
            return start + match.start()
    return -1


@dataclass
class Defines:
    """All single-line macros, by name and number of parameters (-1: without parentheses)."""

    exact: dict[str, dict[int, Define]] = field(default_factory=dict)
    folded: dict[str, dict[int, Define]] = field(default_factory=dict)  #: case-insensitive ones
    _budget: int = 0

    def define(
        self, name: str, parameters: tuple[str, ...] | None, body: str, *, fold: bool = False
    ) -> None:
        table = self.folded if fold else self.exact
        count = -1 if parameters is None else len(parameters)
        overloads = table.setdefault(name.lower() if fold else name, {})
        if count == -1 or -1 in overloads:
            overloads.clear()
        overloads[count] = Define(name, parameters, body)

    def undefine(self, name: str) -> None:
        self.exact.pop(name, None)
        self.folded.pop(name.lower(), None)

    def find(self, name: str) -> dict[int, Define] | None:
        return self.exact.get(name) or (self.folded.get(name.lower()) if self.folded else None)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def expand(self, text: str) -> str:
        """The text with every single-line macro expanded; `SourceError` if there is no end."""
        if "%" not in text:
            words = _WORDS.findall(text)
            if self.exact.keys().isdisjoint(words) and not (
                self.folded and any(word.lower() in self.folded for word in words)
            ):
                return text
        self._budget = MAXIMUM_EXPANSIONS
        expanded = self._expand(text, frozenset(), 0)
        return _PASTE.sub(lambda m: m[1] or "", expanded) if "%+" in expanded else expanded

    def _expand(self, text: str, busy: frozenset[str], depth: int) -> str:
        if depth > MAXIMUM_DEPTH:
            raise SourceError(f"macros are nested more than {MAXIMUM_DEPTH} deep")
        result: list[str] = []
        position = length = 0
        while match := _PIECES.search(text, position):
            result.append(text[position : match.start()])
            piece, position = self._piece(match, text, busy, depth)
            result.append(piece)
            length += len(piece)
            if length > MAXIMUM_LENGTH:
                raise SourceError(f"this line expands to more than {MAXIMUM_LENGTH} characters")
        return "".join(result) + text[position:]

    def _piece(
        self, match: re.Match[str], text: str, busy: frozenset[str], depth: int
    ) -> tuple[str, int]:
        """What to put for one piece, and where to go on."""
        if match.lastgroup == "indirect":
            end = closing(text, match.end(), "[", "]")
            if end < 0:
                raise SourceError("expected ']' after '%['", match.start() + 1)
            return self._expand(text[match.end() : end], busy, depth + 1), end + 1
        name = match.group()
        overloads = self.find(name) if match.lastgroup == "word" and name not in busy else None
        if overloads is None:
            return name, match.end()
        self._budget -= 1
        if self._budget < 0:
            raise SourceError(f"this line needs more than {MAXIMUM_EXPANSIONS} macro expansions")
        if -1 in overloads:
            body = overloads[-1].body
            return self._expand(body, busy | {name}, depth + 1), match.end()
        return self._call(name, overloads, match.end(), text, busy, depth)

    def _call(
        self,
        name: str,
        overloads: dict[int, Define],
        start: int,
        text: str,
        busy: frozenset[str],
        depth: int,
    ) -> tuple[str, int]:
        opening = re.compile(r"\s*\(").match(text, start)
        end = closing(text, opening.end(), "(", ")") if opening else -1
        if opening is None or end < 0:
            return name, start
        inside = text[opening.end() : end]
        arguments = split_arguments(inside) if inside.strip() or 0 not in overloads else []
        define = overloads.get(len(arguments))
        if define is None or define.parameters is None:
            return name, start
        values = {
            parameter: self._expand(argument, busy, depth + 1)
            for parameter, argument in zip(define.parameters, arguments, strict=True)
        }
        body = _PIECES.sub(lambda m: values.get(m.group(), m.group()), define.body)
        if len(body) > MAXIMUM_LENGTH:
            raise SourceError(f"this line expands to more than {MAXIMUM_LENGTH} characters")
        return self._expand(body, busy | {name}, depth + 1), end + 1
