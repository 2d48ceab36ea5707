"""Conditional assembly: %if and its kin, %elif, %else, %endif.

A branch is skipped, live, or done (a live one went before it); nested conditions of a skipped
branch are only counted. Used by `preprocess.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from isa.assembler.defines import STRING, WORD, split_arguments
from isa.assembler.diagnostics import Location, Reporter, SourceError
from isa.assembler.macros import BodyLine, parse_header

if TYPE_CHECKING:
    from isa.assembler.preprocess import Preprocessor

_NAME: Final = re.compile(r"(if|elif)(n?)(def|macro|idn|idni|num|str|id|empty|token|ctx)?$")
_TOKENS: Final = re.compile(rf"{STRING}|{WORD}|[0-9][\w.]*|\S")
_NUMBER: Final = re.compile(r"[-+]?\s*\$?[0-9][0-9A-Za-z_]*")


@dataclass(slots=True)
class Branch:
    """An open %if: whether the lines now are live, and whether a branch already was."""

    location: Location
    written: str
    live: bool
    taken: bool
    enabled: bool  #: the lines around the %if are live
    ended: bool = False  #: %else has been


@dataclass
class Conditions:
    preprocessor: Preprocessor
    stack: list[Branch] = field(default_factory=list)

    @property
    def active(self) -> bool:
        return not self.stack or self.stack[-1].live

    def handle(self, name: str, rest: str, line: BodyLine) -> bool:
        """Act on a directive if it is a condition's; False if it is not."""
        match = _NAME.match(name)
        if match is not None:
            if match[1] == "if":
                self._open(match, rest, line)
            else:
                self._elif(match, rest)
        elif name == "else":
            branch = self._top("%else")
            branch.live = branch.enabled and not branch.taken
            branch.taken = branch.ended = True
        elif name == "endif":
            self._top("%endif", may_have_ended=True)
            self.stack.pop()
        else:
            return False
        return True

    def check_closed(self, depth: int, reporter: Reporter) -> None:
        """Report every condition opened since `depth`, and close it."""
        for branch in self.stack[depth:]:
            message = "expected '%endif' for this condition, found the end"
            reporter.error(branch.location, 0, message, branch.written)
        del self.stack[depth:]

    def _top(self, name: str, *, may_have_ended: bool = False) -> Branch:
        if not self.stack:
            raise SourceError(f"'{name}' without '%if'")
        branch = self.stack[-1]
        if branch.ended and not may_have_ended:
            raise SourceError(f"'{name}' after '%else'")
        return branch

    def _open(self, match: re.Match[str], rest: str, line: BodyLine) -> None:
        enabled = self.active
        branch = Branch(line.location, line.written, False, not enabled, enabled)
        self.stack.append(branch)
        if enabled:
            branch.taken = True  # until the condition is known to be sound
            branch.live = branch.taken = self._holds(match, rest)

    def _elif(self, match: re.Match[str], rest: str) -> None:
        branch = self._top("%elif")
        branch.live = False
        if branch.enabled and not branch.taken:
            branch.taken = True
            branch.live = branch.taken = self._holds(match, rest)

    def _holds(self, match: re.Match[str], rest: str) -> bool:
        kind = match[3] or "true"
        result: bool = getattr(self, f"_is_{kind}")(rest.strip())
        return result != (match[2] == "n")

    def _is_true(self, text: str) -> bool:
        return self.preprocessor.evaluate(self.preprocessor.defines.expand(text)) != 0

    def _is_def(self, text: str) -> bool:
        return any(name in self.preprocessor.defines for name in text.split())

    def _is_macro(self, text: str) -> bool:
        wanted = parse_header(text)
        macros = self.preprocessor.macros.find(wanted.name)
        if not re.search(r"\s\d", text):
            return bool(macros)
        return any(m.low <= wanted.high and wanted.low <= m.high for m in macros)

    def _sides(self, text: str) -> tuple[list[str], list[str]]:
        expanded = self.preprocessor.defines.expand(text)
        sides = split_arguments(expanded)
        if len(sides) != 2:
            raise SourceError("expected two texts with ',' between them")
        left, right = ([_unquote(t) for t in _TOKENS.findall(side)] for side in sides)
        # Amounts of blanks do not count, but NASM counts a blank before the comma as a token.
        if re.search(rf"\s,\s*{re.escape(sides[1])}\s*$", expanded):
            left.append(" ")
        return left, right

    def _is_idn(self, text: str) -> bool:
        left, right = self._sides(text)
        return left == right

    def _is_idni(self, text: str) -> bool:
        left, right = self._sides(text)
        return [t.lower() for t in left] == [t.lower() for t in right]

    def _is_ctx(self, text: str) -> bool:
        contexts = self.preprocessor.contexts
        return bool(contexts) and contexts[-1][0] in text.split()

    def _expanded(self, text: str) -> str:
        return self.preprocessor.defines.expand(text).strip()

    def _is_num(self, text: str) -> bool:
        return _NUMBER.fullmatch(self._expanded(text)) is not None

    def _is_id(self, text: str) -> bool:
        return re.fullmatch(WORD, self._expanded(text)) is not None

    def _is_str(self, text: str) -> bool:
        return re.fullmatch(STRING, self._expanded(text)) is not None

    def _is_empty(self, text: str) -> bool:
        return not self._expanded(text)

    def _is_token(self, text: str) -> bool:
        return len(_TOKENS.findall(self._expanded(text))) == 1


def _unquote(token: str) -> str:
    """A string without its kind of quotes: 'a' and "a" are the same."""
    return f'"{token[1:-1]}"' if len(token) > 1 and token[0] in "'\"" else token
