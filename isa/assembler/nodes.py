"""The statements of the assembler, as `parser.py` makes them from lines.

Lines of the same text share one statement, so nothing here knows where it stands; columns (from 1)
are of the text. `passes.py` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from isa.assembler.expressions import Expression
from isa.encoder import Encoding, Prefixes


@dataclass(frozen=True, slots=True)
class OperandNode:
    """An operand as written. Sizes are in bits, 0 where none was written."""

    column: int
    expression: Expression
    memory: bool = False
    size: int = 0
    strict: bool = False
    distance: str = ""  #: "" | short | near | far
    segment: Expression | None = None  #: of a memory operand, or the selector of a far pointer
    address_words: tuple[str, ...] = ()  #: byte, word, dword, nosplit ... inside the brackets


@dataclass(slots=True)
class Instruction:
    mnemonic: str
    operands: tuple[OperandNode, ...]
    prefixes: Prefixes
    column: int
    constant: bool  #: no operand depends on a symbol or on where it stands
    encoding: Encoding | None = field(default=None)  #: of a constant one, once it is known


@dataclass(frozen=True, slots=True)
class LonePrefix:
    prefixes: Prefixes
    column: int


@dataclass(frozen=True, slots=True)
class Times:
    count: Expression
    body: Statement
    column: int


@dataclass(frozen=True, slots=True)
class Item:
    """A datum: a value, space (no value), or a repeated list."""

    value: Expression | None
    column: int
    repeated: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Data:
    width: int  #: bytes
    items: tuple[Item, ...]
    column: int
    constant: bool


@dataclass(frozen=True, slots=True)
class Reserve:
    width: int  #: bytes
    count: Expression
    column: int


@dataclass(frozen=True, slots=True)
class Equ:
    value: Expression
    column: int


@dataclass(frozen=True, slots=True)
class Incbin:
    name: str
    skip: Expression | None
    length: Expression | None
    column: int


@dataclass(frozen=True, slots=True)
class Align:
    boundary: Expression
    fill: Statement | None  #: None: nop for align, reserved space for alignb
    reserve: bool
    column: int


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    value: Expression | None
    column: int


@dataclass(frozen=True, slots=True)
class SectionChange:
    name: str
    attributes: tuple[Attribute, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Symbols:
    """global, extern, common, static."""

    kind: str
    names: tuple[tuple[str, int], ...]  #: name and column
    column: int


@dataclass(frozen=True, slots=True)
class Numeric:
    """bits, org, absolute."""

    kind: str
    value: Expression
    column: int


@dataclass(frozen=True, slots=True)
class Ignored:
    column: int


@dataclass(frozen=True, slots=True)
class Struc:
    name: str
    offset: Expression | None
    column: int


@dataclass(frozen=True, slots=True)
class EndStruc:
    column: int


@dataclass(frozen=True, slots=True)
class Istruc:
    name: str
    column: int


@dataclass(frozen=True, slots=True)
class At:
    field: Expression
    body: Statement | None
    column: int


@dataclass(frozen=True, slots=True)
class Iend:
    column: int


Statement = (
    Instruction
    | LonePrefix
    | Times
    | Data
    | Reserve
    | Equ
    | Incbin
    | Align
    | SectionChange
    | Symbols
    | Numeric
    | Ignored
    | Struc
    | EndStruc
    | Istruc
    | At
    | Iend
)


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    column: int
    orphan: bool  #: alone on its line and without a colon: perhaps a misspelt instruction


@dataclass(frozen=True, slots=True)
class Line:
    label: Label | None
    statement: Statement | None
