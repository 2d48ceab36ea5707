"""From the text of a line to tokens for the grammar.

A name's meaning depends on where it stands: `loop` is an instruction, but `loop:` a label, and a
name after the instruction is never one. So words are looked up here, by position, and the grammar
stays free of them. Mnemonics come from the instruction table. The numbers and strings of NASM are
read here too. Used by `parser.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from lark import Token
from lark.lexer import Lexer

from isa.assembler.diagnostics import SourceError
from isa.encoder import Prefixes
from isa.registers import BY_NAME
from isa.table import ALIASES, CONDITION_NAMES, ROWS

PREFIXES: Final[dict[str, Prefixes]] = {
    "rep": Prefixes(repeat=0xF3), "repe": Prefixes(repeat=0xF3), "repz": Prefixes(repeat=0xF3),
    "repne": Prefixes(repeat=0xF2), "repnz": Prefixes(repeat=0xF2), "lock": Prefixes(lock=True),
    "o16": Prefixes(operand_size=16), "o32": Prefixes(operand_size=32),
    "a16": Prefixes(address_size=16), "a32": Prefixes(address_size=32),
}  # fmt: skip
SIZES: Final = {"byte": 8, "word": 16, "dword": 32, "qword": 64}
#: Words that begin a statement, with the kind of token each is.
DIRECTIVES: Final[dict[str, str]] = {
    word: kind
    for kind, words in {
        "TIMES": "times", "DATA": "db dw dd dq", "RESERVE": "resb resw resd resq", "EQU": "equ",
        "INCBIN": "incbin", "ALIGN": "align alignb", "SECTION": "section segment",
        "SYMBOLS": "global extern static common", "NUMERIC": "bits org absolute",
        "IGNORED": "cpu default use32", "STRUC": "struc", "ENDSTRUC": "endstruc",
        "ISTRUC": "istruc", "AT": "at", "IEND": "iend",
    }.items()
    for word in words.split()
}  # fmt: skip
#: After these a statement may still begin.
_STILL_AT_HEAD: Final = frozenset({"TIMES", "ALIGN", "AT", "PREFIX"})
#: Words with a meaning among operands.
OPERAND_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(SIZES, "SIZE"),
    "strict": "STRICT", "short": "DISTANCE", "near": "DISTANCE", "far": "DISTANCE",
    "nosplit": "ADDRESSING", "abs": "ADDRESSING", "rel": "ADDRESSING",
    **dict.fromkeys(BY_NAME, "REGISTER"),
}  # fmt: skip
_PUNCTUATION: Final[dict[str, str]] = {
    ",": "_COMMA", ":": "_COLON", "(": "_LEFT", ")": "_RIGHT", "[": "_OPEN", "]": "_CLOSE",
    "?": "QUESTION", "+": "SIGN", "-": "SIGN", "~": "UNARY", "!": "UNARY", "=": "ASSIGN",
    "$": "HERE", "$$": "START",
}  # fmt: skip

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<STRING>"[^"]*"|'[^']*'|`(?:\\.|[^`\\])*`)
  | (?P<NUMBER>\$?[0-9][0-9A-Za-z_]*(?:\.[0-9A-Za-z_]*)?)
  | (?P<WORD>\$?(?:[A-Za-z_.]|\.\.@|\?\?)[A-Za-z0-9_.?@\$\#~]*)
  | (?P<OPERATOR><<<|>>>|<<|>>|<=|>=|==|!=|<>|&&|\|\||\^\^|//|%%|\$\$|[-+*/%&|^~!<>=():,\[\]?\$])
  )""",
    re.VERBOSE,
)
_NUMBER_FORMS: Final = (
    (re.compile(r"(?:0[xXhH]|\$)([0-9A-Fa-f_]+)"), 16),
    (re.compile(r"([0-9][0-9A-Fa-f_]*)[hHxX]"), 16),
    (re.compile(r"0[bByY]([01_]+)"), 2),
    (re.compile(r"([01][01_]*)[bByY]"), 2),
    (re.compile(r"0[oOqQ]([0-7_]+)"), 8),
    (re.compile(r"([0-7][0-7_]*)[oOqQ]"), 8),
    (re.compile(r"0[dDtT]([0-9_]+)"), 10),
    (re.compile(r"([0-9][0-9_]*)[dDtT]?"), 10),
)
_ESCAPES: Final[dict[str, int]] = {
    "a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "e": 27, "'": 39, '"': 34,
    "`": 96, "\\": 92, "?": 63,
}  # fmt: skip
_ESCAPE: Final = re.compile(
    r"\\(?:x(?P<hex>[0-9A-Fa-f]{1,2})|(?P<octal>[0-7]{1,3})|u(?P<u>[0-9A-Fa-f]{4})"
    r"|U(?P<U>[0-9A-Fa-f]{8})|(?P<other>.))",
    re.DOTALL,
)
MAXIMUM_NESTING: Final = 200


@cache
def mnemonics() -> frozenset[str]:
    """Every spelling of every instruction in the table."""
    names = set(ALIASES)
    for row in ROWS:
        if row.parsed.low == "cc":
            stem = row.mnemonic.removesuffix("cc")
            names |= {stem + suffix for suffixes in CONDITION_NAMES for suffix in suffixes}
        else:
            names.add(row.mnemonic)
    return frozenset(names)


def read_number(text: str, column: int) -> int:
    """A number in any of NASM's notations."""
    for form, base in _NUMBER_FORMS:
        match = form.fullmatch(text)
        if match:
            digits = match.group(1).replace("_", "")
            if len(digits) > 4000:
                raise SourceError("this number has too many digits", column)
            return int(digits or "0", base)
    if re.fullmatch(r"[0-9_]+(\.[0-9_]*)?([eE][0-9_]+)?", text):
        raise SourceError("floating-point constants are not supported", column)
    raise SourceError(f"malformed number '{text}'", column)


def read_string(text: str, column: int) -> bytes:
    """The bytes of a quoted string; only backquotes know escapes."""
    if text[0] != "`":
        return text[1:-1].encode("utf-8", "surrogateescape")
    data, position, body = bytearray(), 0, text[1:-1]
    for match in _ESCAPE.finditer(body):
        data += body[position : match.start()].encode("utf-8", "surrogateescape")
        position = match.end()
        if match["hex"]:
            data.append(int(match["hex"], 16))
        elif match["octal"]:
            data.append(int(match["octal"], 8) & 0xFF)
        elif match["u"] or match["U"]:
            point = int(match["u"] or match["U"], 16)
            if point > 0x10FFFF or 0xD800 <= point < 0xE000:
                raise SourceError(f"no such character: {match.group()}", column)
            data += chr(point).encode()
        elif match["other"] in _ESCAPES:
            data.append(_ESCAPES[match["other"]])
        else:
            data += match["other"].encode("utf-8", "surrogateescape")
    return bytes(data + body[position:].encode("utf-8", "surrogateescape"))


def tokens_of(text: str, *, head: bool = True) -> list[Token]:
    """The tokens of one line, or of operands (`head` false); `SourceError` at what is none.

    A token's value is a word, a number, a string's bytes or, of a label, its name and whether a
    colon followed.
    """
    tokens: list[Token] = []
    position, nesting, length = 0, 0, len(text.rstrip())
    while position < length:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _unexpected(text, position)
        kind = match.lastgroup
        word = match.group(kind)
        start = match.start(kind)
        position = match.end()
        value: Any = word
        if kind == "WORD":
            kind, value = _classify(word, head, not tokens, text, position)
            if kind == "LABEL":
                colon = text[position:].lstrip().startswith(":")
                value = (value, colon)
                position = text.index(":", position) + 1 if colon else position
            head = head and (kind in _STILL_AT_HEAD or kind not in _HEAD_KINDS)
            if kind == "IGNORED":
                position = length
        elif kind == "NUMBER":
            value = read_number(word, start + 1)
        elif kind == "STRING":
            value = read_string(word, start + 1)
        else:
            kind = _PUNCTUATION.get(word, "BINARY")
            nesting += word == "("
            if nesting > MAXIMUM_NESTING:
                raise SourceError("this expression is too deeply nested", start + 1)
        token = Token(kind, value, start, 1, start + 1, 1, position + 1, position)
        tokens.append(token)
    return tokens


#: Kinds that end the head of a line: what follows them are operands.
_HEAD_KINDS: Final = frozenset(DIRECTIVES.values()) | {"MNEMONIC"}


def _classify(word: str, head: bool, first: bool, text: str, end: int) -> tuple[str, str]:
    """The kind of a word, and the word as the grammar's actions want it."""
    if word[0] == "$":
        escaped = word[1:]
        return ("LABEL" if head and first else "NAME"), escaped
    lower = word.lower()
    if head:
        is_label = first and text[end : end + 20].lstrip()[:1] == ":"
        if not is_label or lower in ("es", "cs", "ss", "ds", "fs", "gs"):
            if lower in mnemonics():
                return "MNEMONIC", lower
            if lower in DIRECTIVES:
                return DIRECTIVES[lower], lower
            if lower in PREFIXES:
                return "PREFIX", lower
            register = BY_NAME.get(lower)
            if register is not None and hasattr(register, "prefix") and not is_label:
                return ("PREFIX", lower)
        if first and lower not in OPERAND_WORDS:
            return "LABEL", word
    if lower in OPERAND_WORDS:
        return OPERAND_WORDS[lower], lower
    if lower == "dup" and not head:
        return "DUP", lower
    return "NAME", word


def _unexpected(text: str, position: int) -> SourceError:
    start = position + len(text[position:]) - len(text[position:].lstrip())
    found = text[start]
    if found in "\"'`":
        return SourceError(f"this string has no closing {found}", start + 1)
    shown = found if found.isprintable() else f"character {ord(found)}"
    return SourceError(f"unexpected {shown}", start + 1)


class LineLexer(Lexer):
    """The lexer as Lark wants it."""

    def __init__(self, lexer_conf: Any) -> None:
        pass

    def lex(self, data: Any) -> Iterator[Token]:  # type: ignore[override]
        return iter(data)
