"""From one line of text to one statement: the grammar's actions, and its errors in human words.

A line means the same wherever it stands, so each distinct text is parsed once and its nodes are
shared. Expressions of the preprocessor are parsed by the same grammar.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from lark import Lark, Token, UnexpectedToken

from isa.assembler import nodes
from isa.assembler.diagnostics import SourceError
from isa.assembler.expressions import (
    PRECEDENCE,
    Expression,
    Here,
    Name,
    Number,
    RegisterName,
    String,
    make_binary,
    make_choice,
    make_unary,
    wrap,
)
from isa.assembler.lexer import PREFIXES, SIZES, LineLexer, tokens_of
from isa.encoder import NO_PREFIXES, Prefixes
from isa.operands import SegmentRegister
from isa.registers import BY_NAME

_WIDTHS: Final = {"b": 1, "w": 2, "d": 4, "q": 8}
Children = list[Any]


def _merge(first: Prefixes, second: Prefixes) -> Prefixes:
    """Both sets of prefixes; of two of a kind the first counts."""
    return Prefixes(
        first.repeat if first.repeat is not None else second.repeat,
        first.lock or second.lock,
        first.segment if first.segment is not None else second.segment,
        first.operand_size or second.operand_size,
        first.address_size or second.address_size,
    )


def _prefix(word: str) -> Prefixes:
    if word in PREFIXES:
        return PREFIXES[word]
    register = BY_NAME[word]
    assert isinstance(register, SegmentRegister)
    return Prefixes(segment=register.number)


class _Operators:
    """Arranges a chain of terms and operators by precedence."""

    def __init__(self, chain: Children) -> None:
        self.chain = chain
        self.position = 1

    def climb(self, left: Expression, floor: int) -> Expression:
        """The expression from here on whose operators bind at least as tightly as `floor`."""
        chain = self.chain
        while self.position < len(chain):
            token = chain[self.position]
            level = PRECEDENCE[token.value]
            if level < floor:
                break
            right = chain[self.position + 1]
            self.position += 2
            while self.position < len(chain) and PRECEDENCE[chain[self.position].value] > level:
                right = self.climb(right, level + 1)
            left = make_binary(token.value, left, right, left.column)
        return left


class _Expressions:
    """The grammar's actions for expressions."""

    def number(self, children: Children) -> Expression:
        return Number(wrap(children[0].value), children[0].column)

    def string(self, children: Children) -> Expression:
        return String(children[0].value, children[0].column)

    def name(self, children: Children) -> Expression:
        return Name(children[0].value, children[0].column)

    def register(self, children: Children) -> Expression:
        return RegisterName(BY_NAME[children[0].value], children[0].column)

    def here(self, children: Children) -> Expression:
        return Here(False, children[0].column)

    def start(self, children: Children) -> Expression:
        return Here(True, children[0].column)

    def atom(self, children: Children) -> Expression:
        inner: Expression = children[0]
        return inner

    def unary(self, children: Children) -> Expression:
        return make_unary(children[0].value, children[1], children[0].column)

    def chain(self, children: Children) -> Expression:
        return _Operators(children).climb(children[0], 0)

    def choice(self, children: Children) -> Expression:
        condition, _, yes, no = children
        return make_choice(condition, yes, no, condition.column)


def _modifiers(children: Children) -> dict[str, Any]:
    """What the words before an operand say."""
    said: dict[str, Any] = {}
    for token in children:
        if token.type == "SIZE":
            said["size"] = SIZES[token.value]
        elif token.type == "STRICT":
            said["strict"] = True
        else:
            said["distance"] = token.value
    return said


class _Operands(_Expressions):
    """The grammar's actions for operands."""

    def plain(self, children: Children) -> nodes.OperandNode:
        *words, expression = children
        return nodes.OperandNode(expression.column, expression, **_modifiers(words))

    def far(self, children: Children) -> nodes.OperandNode:
        words = [child for child in children if isinstance(child, Token)]
        selector, offset = (child for child in children if not isinstance(child, Token))
        return nodes.OperandNode(selector.column, offset, segment=selector, **_modifiers(words))

    def memory(self, children: Children) -> tuple[tuple[str, ...], Children]:
        words = tuple(c.value for c in children if isinstance(c, Token))
        return words, [c for c in children if not isinstance(c, Token)]

    def address(self, children: Children) -> nodes.OperandNode:
        *words, (address_words, expressions) = children
        segment = expressions[0] if len(expressions) == 2 else None
        expression = expressions[-1]
        return nodes.OperandNode(
            expressions[0].column, expression, memory=True, segment=segment,
            address_words=address_words, **_modifiers(words),
        )  # fmt: skip

    def override(self, children: Children) -> nodes.OperandNode:
        *words, segment, (address_words, expressions) = children
        if len(expressions) == 2:
            raise SourceError("this operand already has a segment", expressions[0].column)
        return nodes.OperandNode(
            segment.column, expressions[0], memory=True, segment=segment,
            address_words=address_words, **_modifiers(words),
        )  # fmt: skip


def _is_constant(operand: nodes.OperandNode) -> bool:
    segment = operand.segment
    return operand.expression.constant and (segment is None or segment.constant)


class _Actions(_Operands):
    """The grammar's actions for statements and lines."""

    def label(self, children: Children) -> nodes.Line:
        return nodes.Line(_label(children[0], alone=True), None)

    def labelled(self, children: Children) -> nodes.Line:
        return nodes.Line(_label(children[0], alone=False), children[1])

    def unlabelled(self, children: Children) -> nodes.Line:
        return nodes.Line(None, children[0])

    def empty(self, children: Children) -> nodes.Line:
        return nodes.Line(None, None)

    def lone_prefix(self, children: Children) -> nodes.Statement:
        return nodes.LonePrefix(_prefix(children[0].value), children[0].column)

    def prefixed(self, children: Children) -> nodes.Statement:
        token, statement = children
        if isinstance(statement, nodes.Instruction):
            statement.prefixes = _merge(_prefix(token.value), statement.prefixes)
            return statement
        if isinstance(statement, nodes.LonePrefix):
            merged = _merge(_prefix(token.value), statement.prefixes)
            return nodes.LonePrefix(merged, token.column)
        raise SourceError("a prefix can only stand before an instruction", token.column)

    def times(self, children: Children) -> nodes.Statement:
        return nodes.Times(children[1], children[2], children[1].column)

    def instruction(self, children: Children) -> nodes.Statement:
        mnemonic, *operands = children
        constant = all(map(_is_constant, operands))
        return nodes.Instruction(
            mnemonic.value, tuple(operands), NO_PREFIXES, mnemonic.column, constant
        )

    def item(self, children: Children) -> nodes.Item:
        return nodes.Item(children[0], children[0].column)

    def uninitialised(self, children: Children) -> nodes.Item:
        return nodes.Item(None, children[0].column)

    def duplicate(self, children: Children) -> nodes.Item:
        count, _, *items = children
        return nodes.Item(count, count.column, tuple(items))

    def data(self, children: Children) -> nodes.Statement:
        token, *items = children
        constant = all(item.value is not None and not item.repeated and item.value.constant
                       for item in items)  # fmt: skip
        return nodes.Data(_WIDTHS[token.value[1]], tuple(items), token.column, constant)

    def reserve(self, children: Children) -> nodes.Statement:
        return nodes.Reserve(_WIDTHS[children[0].value[3]], children[1], children[1].column)

    def equ(self, children: Children) -> nodes.Statement:
        return nodes.Equ(children[1], children[1].column)

    def incbin(self, children: Children) -> nodes.Statement:
        _, name, *rest = children
        text = name.value.decode("utf-8", "surrogateescape")
        skip, length = [*rest, None, None][:2]
        return nodes.Incbin(text, skip, length, name.column)

    def align(self, children: Children) -> nodes.Statement:
        token, boundary, *fill = children
        reserve = token.value == "alignb"
        return nodes.Align(boundary, fill[0] if fill else None, reserve, boundary.column)

    def attribute(self, children: Children) -> nodes.Attribute:
        value = children[2] if len(children) == 3 else None
        return nodes.Attribute(children[0].value.lower(), value, children[0].column)

    def section(self, children: Children) -> nodes.Statement:
        _, name, *attributes = children
        return nodes.SectionChange(name.value, tuple(attributes), name.column)

    def symbol(self, children: Children) -> tuple[str, int]:
        return children[0].value, children[0].column

    def symbols(self, children: Children) -> nodes.Statement:
        token, *names = children
        return nodes.Symbols(token.value, tuple(names), token.column)

    def numeric(self, children: Children) -> nodes.Statement:
        return nodes.Numeric(children[0].value, children[1], children[1].column)

    def ignored(self, children: Children) -> nodes.Statement:
        return nodes.Ignored(children[0].column)

    def struc(self, children: Children) -> nodes.Statement:
        _, name, *offset = children
        return nodes.Struc(name.value, offset[0] if offset else None, name.column)

    def endstruc(self, children: Children) -> nodes.Statement:
        return nodes.EndStruc(children[0].column)

    def istruc(self, children: Children) -> nodes.Statement:
        return nodes.Istruc(children[1].value, children[1].column)

    def at(self, children: Children) -> nodes.Statement:
        _, field, *body = children
        return nodes.At(field, body[0] if body else None, field.column)

    def iend(self, children: Children) -> nodes.Statement:
        return nodes.Iend(children[0].column)


def _label(token: Token, *, alone: bool) -> nodes.Label:
    name, colon = token.value
    return nodes.Label(name, token.column or 0, alone and not colon)


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer=LineLexer,
        start=["line", "expression"],
        transformer=_Actions(),
    )


_TERM: Final = {"NUMBER", "STRING", "NAME", "REGISTER", "HERE", "START", "_LEFT", "UNARY"}
_STATEMENT: Final = {"MNEMONIC", "PREFIX"}
_WORDS: Final = {
    "_COMMA": "','", "_COLON": "':'", "_CLOSE": "']'", "_RIGHT": "')'", "BINARY": "an operator",
    "$END": "end of line", "STRING": "a string", "NAME": "a name",
}  # fmt: skip


def _expected(terminals: set[str]) -> str:
    """What a set of terminals means to a reader."""
    words = []
    if terminals >= _STATEMENT:
        words.append("an instruction or directive")
        terminals = terminals & {"$END"}
    if terminals >= _TERM:
        words.append("an operand" if "_OPEN" in terminals else "an expression")
        terminals = terminals - _TERM - {"SIGN", "_OPEN"}
    words += [word for terminal, word in _WORDS.items() if terminal in terminals]
    if not words:
        return "something else"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _complain(error: UnexpectedToken, text: str, tokens: list[Token]) -> SourceError:
    token = error.token
    first = tokens[0] if tokens else token
    if first.type == "LABEL" and not first.value[1] and len(tokens) > 1 and token is tokens[1]:
        return SourceError(f"unknown instruction '{first.value[0]}'", first.column or 0)
    expected = _expected(set(error.accepts or error.expected))
    if token.type == "$END":
        return SourceError(f"expected {expected}, found end of line", len(text.rstrip()) + 1)
    start = (token.column or 1) - 1
    found = text[start : token.end_pos].strip() or text[start:].strip()
    return SourceError(f"expected {expected}, found '{found}'", start + 1)


def _parse(text: str, start: str) -> Any:
    tokens = tokens_of(text, head=start == "line")
    try:
        return _lark().parse(tokens, start=start)
    except UnexpectedToken as error:
        raise _complain(error, text, tokens) from None


@lru_cache(maxsize=1 << 16)
def parse_line(text: str) -> nodes.Line:
    """The label and statement of a line without comment; `SourceError` if it is malformed."""
    stripped = text.strip()
    if stripped.startswith("[") and stripped.endswith("]"):
        # The primitive form of a directive. Blanks for brackets keep the columns.
        start = text.index("[")
        text = text[:start] + " " + text[start + 1 : text.rindex("]")]
    line: nodes.Line = _parse(text, "line")
    return line


@lru_cache(maxsize=1 << 12)
def parse_expression(text: str) -> Expression:
    """A lone expression; `SourceError` if it is malformed."""
    expression: Expression = _parse(text, "expression")
    return expression
