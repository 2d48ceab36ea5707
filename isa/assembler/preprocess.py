"""The preprocessor: everything that begins with %, and the lines that are left for the assembler.

Files, macro bodies and repetitions are frames on one stack; the top one yields the next line. The
first pass of the assembler takes lines from here one by one, so that an %if may ask for a symbol
defined above it. Conditions are in `conditions.py`, macros in `defines.py` and `macros.py`; read
`parser.py` next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isa.assembler.conditions import Conditions
from isa.assembler.defines import STRING, WORD, Defines, split_arguments
from isa.assembler.diagnostics import Call, Location, Reporter, SourceError
from isa.assembler.lexer import DIRECTIVES, PREFIXES, mnemonics, read_string
from isa.assembler.macros import BodyLine, Invocation, Macro, Macros, parse_header
from isa.assembler.source import SearchPath, logical_lines, read_text

MAXIMUM_LINES: Final = 400_000
MAXIMUM_DEPTH: Final = 64
_DIRECTIVE: Final = re.compile(r"\s*%([A-Za-z]\w*)(?![\w(])\s*(.*)$", re.DOTALL)
_DEFINE: Final = re.compile(rf"({WORD})(\(([^)]*)\))?\s*(.*)$", re.DOTALL)
_CALL: Final = re.compile(rf"\s*(?:({WORD})\s*(:)?\s*)?", re.DOTALL)
_MACRO_OPENERS: Final = frozenset({"macro", "imacro", "rmacro", "irmacro"})
_CONTEXT_LOCAL: Final = re.compile(r"%(\$+)([A-Za-z_.?@][\w.?@#~]*)")
_COLLECTING: Final = {"macro": "endmacro", "rep": "endrep"}
Evaluator = Callable[[str, Location], int]


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line for the assembler: as expanded, and as it was written."""

    text: str
    written: str
    location: Location
    user: bool = False  #: marked as code of ring 3: `%pragma seventeen user`


@dataclass(eq=False, slots=True)
class Frame:
    """Something lines come from."""

    kind: str  #: file | macro | rep
    lines: Iterator[BodyLine]
    invocation: Invocation | None
    conditions: int  #: how many were open when the frame began
    calls: tuple[Call, ...] = ()
    body: tuple[BodyLine, ...] = ()
    repeats: int = 0  #: how often a rep's body is still to come


@dataclass(slots=True)
class Collection:
    """A body being collected, of a macro or of a repetition."""

    opener: str
    location: Location
    written: str
    macro: Macro | None
    repeats: int
    fold: bool = False
    body: list[BodyLine] | None = None
    nesting: int = 1


class Preprocessor:
    """Turns sources into the lines the assembler sees."""

    def __init__(self, reporter: Reporter, search: SearchPath, evaluate: Evaluator) -> None:
        self.reporter = reporter
        self.search = search
        self._evaluate = evaluate
        self.defines = Defines()
        self.macros = Macros()
        self.frames: list[Frame] = []
        self.conditions = Conditions(self)
        self.location = Location("", 0)
        self.user = False  #: lines are code of ring 3 from here on
        self.contexts: list[tuple[str, int]] = []  #: name and number, the innermost last
        self._collection: Collection | None = None
        self._budget = MAXIMUM_LINES
        self._stopped = False

    def predefine(self, defines: Mapping[str, str]) -> None:
        for name, body in defines.items():
            self.defines.define(name, None, body)

    def run(self, name: str, source: str) -> Iterator[SourceLine]:
        """The assembler's lines of a source; errors go to the reporter."""
        self._push_file(name, source)
        while self.frames and not self._stopped:
            line = self._next()
            if line is None:
                continue
            self.location = line.location
            try:
                yield from self._line(line)
            except SourceError as error:
                self.reporter.error(line.location, error.column, error.message, line.written)
        if self._collection is not None:
            opener = self._collection.opener
            message = f"expected '%{_COLLECTING[opener]}' for this '%{opener}', found the end"
            self.reporter.error(self._collection.location, 0, message, self._collection.written)
        self.conditions.check_closed(0, self.reporter)

    def evaluate(self, text: str) -> int:
        return self._evaluate(text, self.location)

    def _push_file(self, name: str, source: str) -> None:
        lines = (
            BodyLine(raw.text, raw.written, Location(name, raw.number))
            for raw in logical_lines(source)
        )
        self.frames.append(Frame("file", lines, None, len(self.conditions.stack)))

    def _next(self) -> BodyLine | None:
        """The next line of the top frame, parameters put in; None if the frame ended."""
        frame = self.frames[-1]
        line = next(frame.lines, None)
        self._budget -= 1
        if self._budget < 0:
            self._stopped = True
            message = f"macros and repetitions expand to more than {MAXIMUM_LINES} lines"
            self.reporter.error(self.location, 0, message)
            return None
        if line is None:
            frame.repeats -= 1
            if frame.kind == "rep" and frame.repeats > 0:
                frame.lines = iter(frame.body)
            else:
                self._pop()
            return None
        invocation = frame.invocation
        if invocation is not None and self._collection is None:
            location = Location(line.location.file, line.location.line, frame.calls)
            text = line.text
            if "%" in text:
                self.location = location
                try:
                    text = invocation.substitute(text)
                except SourceError as error:
                    self.reporter.error(location, error.column, error.message, line.written)
                    return None
            return BodyLine(text, text.rstrip(), location)
        return line

    def _pop(self) -> None:
        frame = self.frames.pop()
        if frame.kind != "rep":
            self.conditions.check_closed(frame.conditions, self.reporter)

    def _line(self, line: BodyLine) -> Iterator[SourceLine]:
        text = line.text
        if "%$" in text and self._collection is None:
            text = _CONTEXT_LOCAL.sub(self._context_local, text)
            line = BodyLine(text, line.written, line.location)
        match = _DIRECTIVE.match(text) if "%" in text else None
        if match is None and self._collection is None and self.conditions.active and text.strip():
            yield from self._statement(line)
            return
        yield SourceLine("", line.written, line.location)  # for the listing
        if self._collection is not None:
            self._collect(line, match)
        elif match is not None:
            self._directive(match[1].lower(), match[2], match.start(1), line)

    def _context_local(self, match: re.Match[str]) -> str:
        """The name a context-local one (``%$name``) stands for."""
        depth = len(match[1])
        if depth > len(self.contexts):
            raise SourceError(f"'{match.group()}' needs {depth} contexts", match.start() + 1)
        return f"..@{self.contexts[-depth][1]}.{match[2]}"

    def _statement(self, line: BodyLine) -> Iterator[SourceLine]:
        if "__LINE__" in line.text or "__?LINE?__" in line.text:
            self.predefine({n: str(line.location.line) for n in ("__LINE__", "__?LINE?__")})
        text = self.defines.expand(line.text)
        call = self._find_call(text)
        if call is None:
            written = line.written if text == line.text else text
            yield SourceLine(text, written, line.location, self.user)
            return
        label, invocation = call
        yield SourceLine(label, line.written, line.location, self.user)
        self._enter(invocation, line)

    def _find_call(self, text: str) -> tuple[str, Invocation] | None:
        """The label and the macro call a line consists of, if it does."""
        if not self.macros.exact and not self.macros.folded:
            return None
        busy = {f.invocation.macro for f in self.frames if f.invocation is not None}
        first = _CALL.match(text)
        assert first is not None
        word, colon = first[1], first[2]
        if word is None:
            return None
        if colon is None:
            invocation = self.macros.call(word, text[first.end() :], busy)
            if invocation is not None:
                return "", invocation
            lower = word.lower()
            if lower in mnemonics() or lower in DIRECTIVES or lower in PREFIXES:
                return None
            if any(macro in busy for macro in self.macros.find(word)):
                column = first.start(1) + 1
                raise SourceError(f"macro '{word}' calls itself: only an %rmacro may", column)
        second = _CALL.match(text, first.end())
        assert second is not None
        if second[1] is None or second[2] is not None:
            return None
        invocation = self.macros.call(second[1], text[second.end() :], busy)
        if invocation is None:
            return None
        invocation.label = word
        return text[: first.end()].rstrip().removesuffix(":") + ":", invocation

    def _enter(self, invocation: Invocation, line: BodyLine) -> None:
        if len(self.frames) >= MAXIMUM_DEPTH:
            raise SourceError(f"macros and files are nested more than {MAXIMUM_DEPTH} deep")
        location = line.location
        call = Call(invocation.macro.name, location.file, location.line)
        body = tuple(invocation.macro.body)
        calls = (call, *location.calls)
        depth = len(self.conditions.stack)
        self.frames.append(Frame("macro", iter(body), invocation, depth, calls))

    # -- Bodies of %macro and %rep ---------------------------------------------------------------

    def _collect(self, line: BodyLine, match: re.Match[str] | None) -> None:
        collection = self._collection
        assert collection is not None
        assert collection.body is not None
        name = match[1].lower() if match else ""
        is_macro = collection.opener == "macro"
        if name == "rep" if not is_macro else name.endswith("macro") and name in _MACRO_OPENERS:
            collection.nesting += 1
        elif name == _COLLECTING[collection.opener] or (is_macro and name == "endm"):
            collection.nesting -= 1
        if collection.nesting:
            collection.body.append(line)
            return
        self._collection = None
        if not self.conditions.active:
            return
        if collection.macro is not None:
            collection.macro.body.extend(collection.body)
            self.macros.add(collection.macro, fold=collection.fold)
        elif collection.repeats > 0:
            self._repeat(collection.body, collection.repeats)

    def _repeat(self, body: list[BodyLine], repeats: int) -> None:
        if len(self.frames) >= MAXIMUM_DEPTH:
            raise SourceError(f"repetitions are nested more than {MAXIMUM_DEPTH} deep")
        outer = self.frames[-1]
        lines = tuple(body)
        self.frames.append(
            Frame("rep", iter(lines), outer.invocation, len(self.conditions.stack), outer.calls,
                  lines, repeats)
        )  # fmt: skip

    # -- Directives ------------------------------------------------------------------------------

    def _directive(self, name: str, rest: str, column: int, line: BodyLine) -> None:
        if self.conditions.handle(name, rest, line):
            return
        if not self.conditions.active:
            return
        handler = getattr(self, f"_do_{_SYNONYMS.get(name, name)}", None)
        if handler is None:
            raise SourceError(f"unknown preprocessor directive '%{name}'", column)
        handler(name, rest.strip(), line)

    def _do_macro(self, name: str, rest: str, line: BodyLine) -> None:
        collection = Collection("macro", line.location, line.written, None, 0, body=[])
        self._collection = collection  # a bad header's body is skipped all the same
        collection.macro = parse_header(self._indirect(rest))
        collection.macro.recursive = "r" in name.removesuffix("macro")
        collection.fold = name.startswith("i")

    def _do_unmacro(self, name: str, rest: str, line: BodyLine) -> None:
        header = parse_header(rest)
        self.macros.remove(header.name, header.low, header.high)

    def _do_rep(self, name: str, rest: str, line: BodyLine) -> None:
        collection = Collection("rep", line.location, line.written, None, 0, body=[])
        self._collection = collection  # a bad count's body is skipped all the same
        repeats = self.evaluate(self.defines.expand(rest.removesuffix(".nolist")))
        if repeats > MAXIMUM_LINES:
            raise SourceError(f"cannot repeat {repeats} times: the most is {MAXIMUM_LINES}")
        collection.repeats = repeats

    def _do_exitrep(self, name: str, rest: str, line: BodyLine) -> None:
        self._leave("rep", "'%exitrep' outside of '%rep'")

    def _do_exitmacro(self, name: str, rest: str, line: BodyLine) -> None:
        self._leave("macro", "'%exitmacro' outside of a macro")

    def _leave(self, kind: str, message: str) -> None:
        if not any(frame.kind == kind for frame in self.frames):
            raise SourceError(message)
        while True:
            frame = self.frames.pop()
            del self.conditions.stack[frame.conditions :]
            if frame.kind == kind:
                return

    def _do_rotate(self, name: str, rest: str, line: BodyLine) -> None:
        invocation = self.frames[-1].invocation
        if invocation is None:
            raise SourceError("'%rotate' outside of a macro")
        invocation.rotate(self.evaluate(self.defines.expand(rest)))

    def _do_include(self, name: str, rest: str, line: BodyLine) -> None:
        quoted = self.defines.expand(rest).strip()
        if len(quoted) < 2 or quoted[0] not in "\"'`" or quoted[-1] != quoted[0]:
            raise SourceError("expected a quoted file name after '%include'")
        if len(self.frames) >= MAXIMUM_DEPTH:
            raise SourceError(f"files are included more than {MAXIMUM_DEPTH} deep")
        path = self.search.find(quoted[1:-1], line.location.file)
        self._push_file(str(path), read_text(path))

    def _do_define(self, name: str, rest: str, line: BodyLine) -> None:
        match = _DEFINE.match(self._indirect(rest))
        if match is None:
            raise SourceError(f"expected a macro name after '%{name}'")
        parameters = None
        if match[2] is not None:
            parameters = tuple(p.strip().lstrip("=&") for p in match[3].split(",") if p.strip())
        body = match[4].rstrip()
        if "x" in name:
            body = self.defines.expand(body)
        self.defines.define(match[1], parameters, body, fold=name.startswith("i"))

    def _indirect(self, text: str) -> str:
        """The text with only its %[...] expanded."""
        if "%[" not in text:
            return text
        return Defines().expand(re.sub(
            r"%\[([^\]]*)\]", lambda m: self.defines.expand(m[1]), text))  # fmt: skip

    def _do_undef(self, name: str, rest: str, line: BodyLine) -> None:
        self.defines.undefine(rest)

    def _named(self, name: str, rest: str) -> tuple[str, str]:
        """The macro name a line begins with, and the rest of it, expanded."""
        match = re.match(rf"({WORD})\s*(.*)$", self._indirect(rest), re.DOTALL)
        if match is None:
            raise SourceError(f"expected a macro name after '%{name}'")
        return match[1], self.defines.expand(match[2]).strip()

    def _do_assign(self, name: str, rest: str, line: BodyLine) -> None:
        target, text = self._named(name, rest)
        self.defines.define(target, None, str(self.evaluate(text)), fold=name.startswith("i"))

    def _do_strlen(self, name: str, rest: str, line: BodyLine) -> None:
        target, text = self._named(name, rest)
        self.defines.define(target, None, str(len(self._string(text))))

    def _do_strcat(self, name: str, rest: str, line: BodyLine) -> None:
        target, text = self._named(name, rest)
        joined = b"".join(map(self._string, split_arguments(text)))
        self.defines.define(target, None, _quote(joined))

    def _do_substr(self, name: str, rest: str, line: BodyLine) -> None:
        target, text = self._named(name, rest)
        match = re.match(rf"({STRING})\s*,?\s*(.*)$", text)
        if match is None:
            raise SourceError("expected a quoted string after '%substr'")
        data = self._string(match[1])
        first, *more = [self.evaluate(piece) for piece in split_arguments(match[2])]
        count = more[0] if more else 1
        start = max(first - 1, 0)
        end = start + count if count >= 0 else len(data) + count + 1
        self.defines.define(target, None, _quote(data[start : max(end, 0)]))

    def _do_defstr(self, name: str, rest: str, line: BodyLine) -> None:
        target, text = self._named(name, rest)
        self.defines.define(target, None, _quote(text.encode("utf-8", "surrogateescape")))

    def _string(self, text: str) -> bytes:
        if not re.fullmatch(STRING, text.strip()):
            raise SourceError(f"expected a quoted string, found '{text.strip()}'")
        return read_string(text.strip(), 0)

    def _do_push(self, name: str, rest: str, line: BodyLine) -> None:
        self.macros.calls += 1
        self.contexts.append((rest, self.macros.calls))

    def _do_pop(self, name: str, rest: str, line: BodyLine) -> None:
        if not self.contexts or rest not in ("", self.contexts[-1][0]):
            raise SourceError("'%pop' without its '%push'")
        self.contexts.pop()

    def _do_repl(self, name: str, rest: str, line: BodyLine) -> None:
        if not self.contexts:
            raise SourceError("'%repl' without '%push'")
        self.contexts[-1] = (rest, self.contexts[-1][1])

    def _message(self, rest: str) -> str:
        text = self.defines.expand(rest).strip()
        quoted = re.fullmatch(STRING, text)
        return read_string(text, 0).decode("utf-8", "replace") if quoted else text

    def _do_error(self, name: str, rest: str, line: BodyLine) -> None:
        raise SourceError(self._message(rest) or "%error")

    def _do_fatal(self, name: str, rest: str, line: BodyLine) -> None:
        self._stopped = True
        raise SourceError(self._message(rest) or "%fatal")

    def _do_warning(self, name: str, rest: str, line: BodyLine) -> None:
        self.reporter.warning(line.location, 0, self._message(rest), line.written)

    def _do_pragma(self, name: str, rest: str, line: BodyLine) -> None:
        """Ours says whose code follows; those of others are not for us (nor ours for NASM)."""
        facility, *words = rest.lower().split() or [""]
        if facility != "seventeen":
            return
        if words not in (["user"], ["kernel"]):
            found = " ".join(words) or "end of line"
            raise SourceError(
                f"expected 'user' or 'kernel' after '%pragma seventeen', found {found}"
            )
        self.user = words == ["user"]

    def _do_nothing(self, name: str, rest: str, line: BodyLine) -> None:
        pass

    def _do_end(self, name: str, rest: str, line: BodyLine) -> None:
        raise SourceError(f"'%{name}' without its beginning")


def _quote(data: bytes) -> str:
    """A string constant of these bytes, for a macro's body."""
    if all(32 <= byte < 127 and byte not in b"\\`" for byte in data):
        return "`" + data.decode() + "`"
    return "`" + "".join(f"\\x{byte:02x}" for byte in data) + "`"


_SYNONYMS: Final = {
    "imacro": "macro", "rmacro": "macro", "irmacro": "macro", "xdefine": "define",
    "idefine": "define", "ixdefine": "define", "iassign": "assign",
    "line": "nothing", "use": "nothing", "endmacro": "end", "endm": "end", "endrep": "end",
    "unimacro": "unmacro", "idefstr": "defstr",
}  # fmt: skip
