"""Expressions: their nodes, and their values in NASM's arithmetic.

A value is a signed 64-bit integer, or a `Linear`: a constant plus multiples of things not known as
numbers yet - the base of a section, a register, a symbol defined further down. That is all an
effective address or a relocation can be; every other operator wants plain numbers. As in NASM,
`/ % >>` are unsigned and `// %% >>>` signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from isa.assembler.diagnostics import SourceError
from isa.operands import Register
from isa.registers import AnyRegister

MASK: Final = (1 << 64) - 1
MAXIMUM_DEPTH: Final = 300


def wrap(value: int) -> int:
    """Cut to signed 64 bits."""
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return value
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


class Unknown:
    """Stands for a symbol not yet defined, in the first pass."""

    def __repr__(self) -> str:
        return "an undefined symbol"


UNKNOWN: Final = Unknown()


class Base(Protocol):
    """What a relocatable value counts from: a section."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> int: ...


Term = Base | AnyRegister | Unknown


@dataclass(frozen=True, slots=True)
class Linear:
    """constant + the sum of coefficient * term; no coefficient is zero."""

    constant: int
    terms: tuple[tuple[Term, int], ...]

    @property
    def unknown(self) -> bool:
        return any(term is UNKNOWN for term, _ in self.terms)

    @property
    def has_register(self) -> bool:
        return any(not is_base(term) for term, _ in self.terms if term is not UNKNOWN)


Value = int | Linear
UNDEFINED: Final = Linear(0, ((UNKNOWN, 1),))


def is_base(term: Term) -> bool:
    return hasattr(term, "address")


@dataclass(slots=True)
class Hint:
    """What an address expression says about base and index beyond its sum, as NASM reads it."""

    register: AnyRegister | None = None
    kind: str = ""  #: "" | base | not base | summed


class Scope(Protocol):
    """What an expression may ask about: symbols and the current place."""

    hint: Hint | None

    def symbol(self, name: str, column: int) -> Value: ...

    def here(self) -> Value:
        """What ``$`` is."""
        ...

    def place(self) -> Value:
        """Where the next byte goes: not ``$`` within `times`."""
        ...

    def section_start(self) -> Value: ...


def known(value: Value) -> bool:
    return isinstance(value, int) or not value.unknown


def parts(value: Value) -> tuple[int, tuple[tuple[Term, int], ...]]:
    return (value, ()) if isinstance(value, int) else (value.constant, value.terms)


def add(left: Value, right: Value, hint: Hint | None = None) -> Value:
    """The sum of two values."""
    if isinstance(left, int) and isinstance(right, int):
        return wrap(left + right)
    constant, terms = parts(left)
    other_constant, other_terms = parts(right)
    sums = dict(terms)
    for term, coefficient in other_terms:
        if term in sums and hint is not None and isinstance(term, Register):
            hint.kind = "summed"
        sums[term] = sums.get(term, 0) + coefficient
    kept = tuple((term, c) for term, c in sums.items() if c or term is UNKNOWN)
    total = wrap(constant + other_constant)
    return Linear(total, kept) if kept else total


def scale(value: Value, factor: int) -> Value:
    """A value times a number."""
    if isinstance(value, int):
        return wrap(value * factor)
    kept = tuple((term, wrap(c * factor)) for term, c in value.terms if c * factor)
    constant = wrap(value.constant * factor)
    return Linear(constant, kept) if kept else constant


def absolute(value: Value) -> int:
    """The number a relocatable value stands for once sections have their addresses."""
    if isinstance(value, int):
        return value
    total = value.constant
    for term, coefficient in value.terms:
        total += coefficient * getattr(term, "address", 0)
    return wrap(total)


def _unsigned_divide(a: int, b: int) -> int:
    return (a & MASK) // (b & MASK)


def _signed_divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


#: Operators on plain numbers. Shift counts count modulo 64, as the processor NASM runs on does it.
OPERATORS: Final[dict[str, Callable[[int, int], int]]] = {
    "||": lambda a, b: int(bool(a) or bool(b)),
    "^^": lambda a, b: int(bool(a) != bool(b)),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "=": lambda a, b: int(a == b),
    "==": lambda a, b: int(a == b),
    "<>": lambda a, b: int(a != b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(wrap(a - b) < 0),  # as NASM: by the sign of the difference
    "<=": lambda a, b: int(wrap(a - b) <= 0),
    ">": lambda a, b: int(wrap(a - b) > 0),
    ">=": lambda a, b: int(wrap(a - b) >= 0),
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "<<": lambda a, b: a << (b & 63),
    "<<<": lambda a, b: a << (b & 63),
    ">>": lambda a, b: (a & MASK) >> (b & 63),
    ">>>": lambda a, b: a >> (b & 63),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _unsigned_divide,
    "//": _signed_divide,
    "%": lambda a, b: (a & MASK) % (b & MASK),
    "%%": lambda a, b: a - b * _signed_divide(a, b),
}
#: How tightly an operator binds; all group from the left.
PRECEDENCE: Final[dict[str, int]] = {
    operator: level
    for level, operators in enumerate(
        ("||", "^^", "&&", "= == <> != < <= > >=", "|", "^", "&", "<< >> <<< >>>", "+ -",
         "* / // % %%")
    )
    for operator in operators.split()
}  # fmt: skip
DIVISIONS: Final = frozenset({"/", "//", "%", "%%"})
COMPARISONS: Final = frozenset({"=", "==", "<>", "!=", "<", "<=", ">", ">="})


def number(value: Value, column: int, what: str) -> int:
    """A plain number, or an error that says which one was wanted."""
    if isinstance(value, int):
        return value
    found = "an address" if not value.has_register else "a register"
    raise SourceError(f"{what} must be a number, found {found}", column)


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    column: int
    depth: int = field(default=1, init=False)
    constant: bool = field(default=True, init=False)

    def evaluate(self, scope: Scope) -> Value:
        return self.value


@dataclass(frozen=True, slots=True)
class String:
    """A character constant; in an expression, the little-endian number of its bytes."""

    data: bytes
    column: int
    depth: int = field(default=1, init=False)
    constant: bool = field(default=True, init=False)

    def evaluate(self, scope: Scope) -> Value:
        return wrap(int.from_bytes(self.data[:8], "little"))


@dataclass(frozen=True, slots=True)
class RegisterName:
    register: AnyRegister
    column: int
    depth: int = field(default=1, init=False)
    constant: bool = field(default=True, init=False)

    def evaluate(self, scope: Scope) -> Value:
        hint = scope.hint
        if hint is not None and not hint.kind:
            hint.register, hint.kind = self.register, "base"
        return Linear(0, ((self.register, 1),))


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    column: int
    depth: int = field(default=1, init=False)
    constant: bool = field(default=False, init=False)

    def evaluate(self, scope: Scope) -> Value:
        return scope.symbol(self.name, self.column)


@dataclass(frozen=True, slots=True)
class Here:
    """``$``, or ``$$`` for the start of the section."""

    start: bool
    column: int
    depth: int = field(default=1, init=False)
    constant: bool = field(default=False, init=False)

    def evaluate(self, scope: Scope) -> Value:
        return scope.section_start() if self.start else scope.here()


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: Expression
    column: int
    depth: int
    constant: bool

    def evaluate(self, scope: Scope) -> Value:
        value = self.operand.evaluate(scope)
        if self.operator == "+":
            return value
        if self.operator == "-":
            return scale(value, -1)
        if not known(value):
            return UNDEFINED
        plain = number(value, self.operand.column, f"the operand of '{self.operator}'")
        return wrap(~plain) if self.operator == "~" else int(not plain)


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Expression
    right: Expression
    column: int
    depth: int
    constant: bool

    def evaluate(self, scope: Scope) -> Value:
        left = self.left.evaluate(scope)
        right = self.right.evaluate(scope)
        operator = self.operator
        if operator == "+":
            return add(left, right, scope.hint)
        if operator == "-":
            return add(left, scale(right, -1), scope.hint)
        if isinstance(left, int) and isinstance(right, int):
            return self.apply(left, right)
        if operator == "*":
            return self._multiply(left, right, scope.hint)
        if not known(left) or not known(right):
            return UNDEFINED
        if operator in COMPARISONS:
            difference = add(left, scale(right, -1))
            if isinstance(difference, int):
                return wrap(OPERATORS[operator](difference, 0))
        number(left, self.left.column, f"the left side of '{operator}'")
        number(right, self.right.column, f"the right side of '{operator}'")
        raise AssertionError

    def _multiply(self, left: Value, right: Value, hint: Hint | None) -> Value:
        if isinstance(left, int):
            return scale(right, left)
        if isinstance(right, int):
            base = hint.register if hint is not None and hint.kind == "base" else None
            if hint is not None and base in [term for term, _ in left.terms]:
                hint.kind = "not base"
            return scale(left, right)
        if not known(left) or not known(right):
            return UNDEFINED
        raise SourceError("'*' needs a number on one side", self.column)

    def apply(self, left: int, right: int) -> int:
        if right == 0 and self.operator in DIVISIONS:
            raise SourceError("division by zero", self.right.column)
        return wrap(OPERATORS[self.operator](left, right))


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? yes : no``."""

    condition: Expression
    yes: Expression
    no: Expression
    column: int
    depth: int
    constant: bool

    def evaluate(self, scope: Scope) -> Value:
        condition = self.condition.evaluate(scope)
        if not known(condition):
            return UNDEFINED
        chosen = number(condition, self.condition.column, "the left side of '?'")
        return (self.yes if chosen else self.no).evaluate(scope)


Expression = Number | String | RegisterName | Name | Here | Unary | Binary | Choice


def _check_depth(depth: int, column: int) -> int:
    if depth > MAXIMUM_DEPTH:
        raise SourceError("this expression is too long or too deeply nested", column)
    return depth


def make_unary(operator: str, operand: Expression, column: int) -> Expression:
    if isinstance(operand, Number):
        plain = operand.value
        results = {"+": plain, "-": wrap(-plain), "~": wrap(~plain), "!": int(not plain)}
        return Number(results[operator], column)
    depth = _check_depth(operand.depth + 1, column)
    return Unary(operator, operand, column, depth, operand.constant)


def make_binary(operator: str, left: Expression, right: Expression, column: int) -> Expression:
    depth = max(left.depth, right.depth) + 1
    node = Binary(operator, left, right, column, depth, left.constant and right.constant)
    defined = operator not in DIVISIONS or right != Number(0, right.column)
    if isinstance(left, Number) and isinstance(right, Number) and defined:
        return Number(node.apply(left.value, right.value), left.column)
    _check_depth(depth, column)
    return node


def make_choice(condition: Expression, yes: Expression, no: Expression, column: int) -> Expression:
    depth = _check_depth(max(condition.depth, yes.depth, no.depth) + 1, column)
    constant = condition.constant and yes.constant and no.constant
    return Choice(condition, yes, no, column, depth, constant)
