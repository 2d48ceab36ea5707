"""The passes: from statements to bytes at a fixed point.

The size of a jump depends on distances, and distances on sizes. As `nasm -Ox` does, the first pass
assumes the best of everything not yet known, and each pass after it uses the symbols of the one
before, until none moves; then sections get their addresses and a last pass makes the bytes. Should
sizes chase each other for ever, from a certain pass on nothing may shrink. Statements that depend
on no symbol are encoded once. Directives are in `directives.py`; read it next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from isa.assembler import nodes
from isa.assembler.address import operand_of
from isa.assembler.diagnostics import Location, Reporter, SourceError
from isa.assembler.directives import Directives, Placed, Replacement
from isa.assembler.expressions import UNDEFINED, Hint, Linear, Value, known, number
from isa.assembler.parser import parse_expression, parse_line
from isa.assembler.preprocess import SourceLine
from isa.assembler.sections import Section, place
from isa.assembler.source import SearchPath
from isa.encoder import Encoding, encode
from isa.errors import EncodeError, SiteError
from isa.operands import Immediate, Memory, Operand, Relative
from isa.site_forms import code_of, form_of, replaced

MAXIMUM_PASSES: Final = 100
#: From this pass on no instruction shrinks any more.
GROWING_PASS: Final = 30


@dataclass(slots=True)
class SymbolState:
    value: Value
    location: Location
    text: str
    defined_in: int  #: the pass that last defined it


@dataclass(frozen=True, slots=True)
class Emission:
    """What a line put into a section in the last pass."""

    placed: Placed
    section: Section
    offset: int
    data: bytes
    reserved: int
    site: Replacement | None = None


class Assembly(Directives):
    """The state of one run over all passes."""

    def __init__(
        self, reporter: Reporter, search: SearchPath, origin: int, paravirt: str | None = None
    ) -> None:
        super().__init__(search, origin)
        self.reporter = reporter
        self.paravirt = paravirt
        self.listed: list[Placed] = []  #: every line, for the listing
        self.placed: list[Placed] = []  #: those that say something
        self.symbols: dict[str, SymbolState] = {}
        self.emissions: list[Emission] = []
        self.hint: Hint | None = None
        self.times_start: Value | None = None
        self.pass_number = 0
        self.final = False
        self.changed = False
        self.placed_now: Placed | None = None
        self._moved = ("", SourceLine("", "", Location("", 0)))
        self._begin_pass()

    # -- What expressions ask --------------------------------------------------------------------

    def full_name(self, name: str) -> str:
        """A name as the symbol table has it: a local one after its global one."""
        return self.scope + name if name[0] == "." and not name.startswith("..") else name

    def symbol(self, name: str, column: int) -> Value:
        full = self.full_name(name)
        state = self.symbols.get(full)
        if state is not None:
            return state.value
        if full in self.externals and self.pass_number > 1:
            raise SourceError(f"external symbol '{full}' is defined nowhere", column)
        if self.pass_number == 1 and not self.final:
            return UNDEFINED
        raise SourceError(f"undefined symbol '{full}'", column)

    def here(self) -> Value:
        return self.place() if self.times_start is None else self.times_start

    def place(self) -> Value:
        section = self.section
        if section.absolute:
            return section.offset
        return Linear(section.offset, ((section, 1),))

    def section_start(self) -> Value:
        section = self.section
        return section.address if section.absolute else Linear(0, ((section, 1),))

    def evaluate_text(self, text: str, location: Location) -> int:
        """The value of a preprocessor's expression, with the symbols defined so far."""
        if not text.strip():
            raise SourceError("expected an expression, found end of line")
        try:
            expression = parse_expression(text)
            value = expression.evaluate(self)
            if value == UNDEFINED:
                raise SourceError(f"'{text.strip()}' is not known here")
            return number(value, 0, "this expression")
        except SourceError as error:
            raise SourceError(error.message) from None

    # -- Passes ----------------------------------------------------------------------------------

    def run(self, lines: Iterable[SourceLine]) -> None:
        """Assemble; errors go to the reporter."""
        self.pass_number = 1
        for source in lines:
            placed = Placed(source, self._parse(source))
            self.listed.append(placed)
            if placed.line.label is not None or placed.line.statement is not None:
                self.placed.append(placed)
                self._execute(placed)
        self._end_pass()
        while self.pass_number < MAXIMUM_PASSES:
            self._begin_pass()
            self.pass_number += 1
            for placed in self.placed:
                self._execute(placed)
            if not self._end_pass():
                break
        else:
            self._report_moving()
            return
        try:
            place(self.sections.values(), self.origin)
        except SourceError as error:
            last = self.placed[-1].source
            self.reporter.error(last.location, 0, error.message)
            return
        self._begin_pass()
        self.pass_number += 1
        self.final = True
        for placed in self.placed:
            self._execute(placed)
        self._check_end()

    def _report_moving(self) -> None:
        """Say which symbol never comes to rest."""
        name, source = self._moved
        message = f"sizes do not settle: '{name}' moves in every pass"
        self.reporter.error(source.location, 0, message, source.written)

    def _begin_pass(self) -> None:
        self.begin()
        self.changed = False
        self.emissions.clear()

    def _end_pass(self) -> bool:
        """Whether anything moved in the pass just done."""
        for section in self.sections.values():
            self.changed |= section.size != section.offset
            section.size = section.offset
        return self.changed

    def _check_end(self) -> None:
        problem = self.unfinished()
        if problem is not None and self.placed:
            last = self.placed[-1].source
            self.reporter.error(last.location, 0, problem, last.written)

    def _parse(self, source: SourceLine) -> nodes.Line:
        try:
            return parse_line(source.text)
        except SourceError as error:
            self.reporter.error(source.location, error.column, error.message, source.written)
            label = source.text.partition(":")[0].strip() if ":" in source.text else ""
            if label.replace("_", "a").replace(".", "a").isalnum():
                return nodes.Line(nodes.Label(label, 1, False), None)
            return nodes.Line(None, None)

    def _execute(self, placed: Placed) -> None:
        self.placed_now = placed
        line = placed.line
        try:
            if line.label is not None:
                self._label(line.label, line.statement)
            if line.statement is not None:
                self.statement(line.statement)
        except SourceError as error:
            column = error.column or getattr(line.statement, "column", 0)
            self.complain(column, error.message)
        except (EncodeError, SiteError) as error:
            self.complain(getattr(line.statement, "column", 0), str(error))

    def complain(self, column: int, message: str) -> None:
        """Report an error, if it is there to stay: what precedes the last pass may be passing."""
        if self.final and self.placed_now is not None:
            source = self.placed_now.source
            self.reporter.error(source.location, column, message, source.written)

    def warn(self, column: int, message: str) -> None:
        if self.final and self.placed_now is not None:
            source = self.placed_now.source
            self.reporter.warning(source.location, column, message, source.written)

    # -- Symbols ---------------------------------------------------------------------------------

    def _label(self, label: nodes.Label, statement: nodes.Statement | None) -> None:
        if isinstance(statement, nodes.Equ):
            full = self.full_name(label.name)
            self.define(full, statement.value.evaluate(self), label.column)
            return
        if label.orphan:
            self.warn(label.column, f"'{label.name}' stands alone without ':': a label?")
        if label.name[0] != ".":
            self.scope = label.name
        self.define(self.full_name(label.name), self.here(), label.column)

    def define(self, name: str, value: Value, column: int) -> None:
        state = self.symbols.get(name)
        source = self.placed_now.source if self.placed_now else None
        assert source is not None
        if state is None:
            self.symbols[name] = SymbolState(
                value, source.location, source.written, self.pass_number
            )
            self.changed = True
            return
        if state.defined_in == self.pass_number:
            where = f"{state.location.file}:{state.location.line}"
            raise SourceError(f"'{name}' is already defined at {where}", column)
        if self.final and not known(value):
            raise SourceError(f"the value of '{name}' depends on itself", column)
        if state.value != value:
            if self.final:
                raise SourceError(f"the value of '{name}' does not settle", column)
            self.changed = True
            self._moved = (name, source)
            state.value = value
        state.defined_in = self.pass_number

    # -- Instructions ----------------------------------------------------------------------------

    def instruction(self, node: nodes.Instruction) -> Encoding:
        """The encoding of an instruction at the current place."""
        if node.encoding is not None:
            return node.encoding
        operands = tuple(operand_of(operand, node, self) for operand in node.operands)
        assert self.placed_now is not None
        memo = self.placed_now.memo
        if memo.encoding is not None and memo.operands == operands:
            return memo.encoding
        far = any(operand.distance == "far" for operand in node.operands)
        encoding = encode(node.mnemonic, operands, prefixes=node.prefixes, far=far)
        previous = memo.encoding
        shrinks = previous is not None and len(encoding.data) < len(previous.data)
        if shrinks and self.pass_number >= GROWING_PASS:
            operands = tuple(map(_widest, operands))
            encoding = encode(node.mnemonic, operands, prefixes=node.prefixes, far=far)
        memo.operands, memo.encoding = operands, encoding
        if node.constant and not any(isinstance(o, Relative) for o in operands):
            node.encoding = encoding
        return encoding

    def replacement(self, encoding: Encoding) -> Replacement | None:
        """What an instruction at the current place becomes; None: it stays as it is."""
        assert self.placed_now is not None
        if self.paravirt is None or self.placed_now.source.user or not replaced(encoding.row):
            return None
        form = form_of(encoding.data)
        if form is None:
            return None
        code = code_of(self.paravirt, form, encoding.data)
        return Replacement(form, encoding.data, code)

    def check_encoding(self, node: nodes.Instruction, encoding: Encoding) -> None:
        """In the last pass: say what is wrong with an instruction that has been encoded."""
        for warning in encoding.warnings:
            self.warn(node.column, warning)
        assert self.placed_now is not None
        operands = self.placed_now.memo.operands
        if encoding.row.operands[:1] == ("Jb",) and operands:
            target = operands[0]
            assert isinstance(target, Relative)
            distance = target.target - len(encoding.data)
            if not -128 <= distance <= 127:
                message = f"short jump is out of range: {distance} bytes, at most -128 to 127"
                self.complain(node.operands[0].column, message)

    def emit(self, data: bytes, site: Replacement | None = None) -> None:
        """Put bytes at the current place."""
        section = self.section
        if section.nobits or section.absolute:
            self.warn(0, f"section {section.name} has no contents: these bytes are only reserved")
            self.reserve(len(data))
            return
        self.check_room(len(data))
        if self.final:
            assert self.placed_now is not None
            self.emissions.append(
                Emission(self.placed_now, section, section.offset, bytes(data), 0, site)
            )
            section.data += data
        section.offset += len(data)

    def reserve(self, count: int) -> None:
        """Leave space at the current place; zeros where the section has contents."""
        section = self.section
        if not section.nobits and not section.absolute:
            self.emit(bytes(self.check_room(count)))
            return
        self.check_space(count)
        if self.final and self.placed_now is not None and count:
            self.emissions.append(Emission(self.placed_now, section, section.offset, b"", count))
        section.offset += count


def _widest(operand: Operand) -> Operand:
    """The same operand, with a form asked for that does not depend on its value."""
    if isinstance(operand, Relative) and operand.size == 0:
        return replace(operand, size=32)
    if isinstance(operand, Immediate):
        return replace(operand, full=True)
    if isinstance(operand, Memory) and operand.base is not None:
        return replace(operand, displacement_size=operand.address_size)
    return operand
