"""The statements that are no instructions: data, space, sections, alignment, structures.

`Directives` is the part of an `Assembly` (`passes.py`) that runs them; each `_do_` method is one
statement, in every pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from isa.assembler import nodes
from isa.assembler.diagnostics import SourceError
from isa.assembler.expressions import (
    Expression,
    Hint,
    String,
    Value,
    absolute,
    known,
    number,
    parts,
)
from isa.assembler.preprocess import SourceLine
from isa.assembler.sections import Section, new_section
from isa.assembler.source import SearchPath
from isa.encoder import Encoding, encode
from isa.operands import Operand
from isa.registers import AnyRegister
from isa.site_forms import Form

MAXIMUM_DATA: Final = 64 << 20
MAXIMUM_SPACE: Final = 1 << 32
MAXIMUM_JUMPS: Final = 1 << 12
_TYPES: Final = {"progbits": False, "nobits": True}
_FLAGS: Final = {
    "write": ("writable", True), "nowrite": ("writable", False), "exec": ("executable", True),
    "noexec": ("executable", False),
}  # fmt: skip


@dataclass(slots=True)
class Memo:
    """The last encoding at a place, and the operands it was of."""

    operands: tuple[Operand, ...] = ()
    encoding: Encoding | None = None


@dataclass(slots=True)
class Placed:
    """A source line in its place, over all passes."""

    source: SourceLine
    line: nodes.Line
    memo: Memo = field(default_factory=Memo)


@dataclass(frozen=True, slots=True)
class Replacement:
    """What stands in a paravirtual image for an instruction (`isa/sites.py`)."""

    form: Form
    original: bytes
    code: bytes


class Directives(ABC):
    """Runs statements. What it needs of the passes is abstract here."""

    sections: dict[str, Section]
    section: Section
    final: bool  #: this is the pass that makes the bytes
    hint: Hint | None
    times_start: Value | None  #: what ``$`` is within `times`
    placed_now: Placed | None  #: the line being run

    @abstractmethod
    def symbol(self, name: str, column: int) -> Value: ...

    @abstractmethod
    def here(self) -> Value: ...

    @abstractmethod
    def place(self) -> Value: ...

    @abstractmethod
    def section_start(self) -> Value: ...

    @abstractmethod
    def full_name(self, name: str) -> str: ...

    @abstractmethod
    def define(self, name: str, value: Value, column: int) -> None: ...

    @abstractmethod
    def warn(self, column: int, message: str) -> None: ...

    @abstractmethod
    def instruction(self, node: nodes.Instruction) -> Encoding: ...

    @abstractmethod
    def replacement(self, encoding: Encoding) -> Replacement | None: ...

    @abstractmethod
    def check_encoding(self, node: nodes.Instruction, encoding: Encoding) -> None: ...

    @abstractmethod
    def emit(self, data: bytes, site: Replacement | None = None) -> None: ...

    @abstractmethod
    def reserve(self, count: int) -> None: ...

    def __init__(self, search: SearchPath, origin: int) -> None:
        self.search = search
        self.default_origin = origin
        self.origin = origin
        self.sections = {".text": new_section(".text")}
        self.section = self.sections[".text"]
        self.scope = ""
        self.exports: set[str] = set()
        self.externals: set[str] = set()
        self.used = {".text"}
        self._org: int | None = None
        self._files: dict[str, bytes] = {}
        self._prefixed: tuple[Section, int] | None = None  #: where a lone prefix ended
        self._structure: tuple[str, Section, str] | None = None
        self._instance: tuple[str, int] | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            kind: getattr(self, f"_do_{kind.__name__.lower()}") for kind in nodes.Statement.__args__
        }

    def begin(self) -> None:
        """Go back to the start for another pass."""
        for section in self.sections.values():
            section.offset = 0
            section.data.clear()
        self.section = self.sections[".text"]
        self.scope = ""
        self._org = self._structure = self._instance = self._prefixed = None

    def unfinished(self) -> str | None:
        """What was begun and never ended."""
        if self._structure is not None:
            return f"expected 'endstruc' for structure '{self._structure[0]}', found the end"
        if self._instance is not None:
            return f"expected 'iend' for 'istruc {self._instance[0]}', found the end"
        return None

    def statement(self, node: nodes.Statement) -> None:
        self._handlers[type(node)](node)

    def _number(self, node: Expression, what: str, unknown: int = 0) -> int:
        """The plain number an expression is; `unknown` while it is not known."""
        value = node.evaluate(self)
        return number(value, node.column, what) if known(value) else unknown

    def check_room(self, count: int) -> int:
        """The count, if a section may grow by so many bytes of contents."""
        if count < 0 or self.section.offset + count > MAXIMUM_DATA:
            raise SourceError(f"a section cannot hold more than {MAXIMUM_DATA >> 20} MiB")
        return count

    def check_space(self, count: int) -> None:
        if self.section.offset + count > MAXIMUM_SPACE:
            raise SourceError("this much space does not fit in 4 GiB")

    # -- Instructions and data -------------------------------------------------------------------

    def _do_instruction(self, node: nodes.Instruction) -> None:
        encoding = self.instruction(node)
        if self.final:
            self.check_encoding(node, encoding)
        self._put(node, encoding)

    def _put(self, node: nodes.Instruction, encoding: Encoding, count: int = 1) -> None:
        """Emit an instruction so many times, or what replaces it."""
        site = self.replacement(encoding)
        if site is None:
            self._emit_times(encoding.data, count)
            return
        if self._prefixed == (self.section, self.section.offset):
            raise SourceError(f"'{node.mnemonic}' is replaced: its prefix must stand on its line")
        self.check_room(len(site.code) * count)
        for _ in range(count):
            self.emit(site.code, site)

    def _do_loneprefix(self, node: nodes.LonePrefix) -> None:
        self.emit(self._prefix_alone(node))
        self._prefixed = self.section, self.section.offset

    def _prefix_alone(self, node: nodes.LonePrefix) -> bytes:
        # A prefix before nop is nop's bytes after the prefix's.
        return encode("nop", (), prefixes=node.prefixes).data[:-1]

    def _do_data(self, node: nodes.Data) -> None:
        self.emit(self._data(node))

    def _data(self, node: nodes.Data) -> bytes:
        data = bytearray()
        for item in node.items:
            data += self._item(item, node.width)
            self.check_room(len(data))
        return bytes(data)

    def _item(self, item: nodes.Item, width: int) -> bytes:
        if item.repeated:
            assert item.value is not None
            count = self._number(item.value, "the count of 'dup'")
            body = b"".join(self._item(inner, width) for inner in item.repeated)
            if count < 0:
                raise SourceError(f"'dup' cannot repeat {count} times", item.column)
            self.check_room(count * len(body))
            return body * count
        if item.value is None:
            return bytes(width)
        if isinstance(item.value, String):
            text = item.value.data
            return text + bytes(-len(text) % width)
        return self._datum(item.value.evaluate(self), width, item.column)

    def _datum(self, value: Value, width: int, column: int) -> bytes:
        if any(isinstance(term, AnyRegister) for term, _ in parts(value)[1]):
            raise SourceError("expected a number or an address, found a register", column)
        plain = absolute(value)
        bits = width * 8
        if isinstance(value, int) and not -(1 << bits - 1) <= value < 1 << bits:
            self.warn(column, f"value {value} does not fit in {bits} bits; its low bits are used")
        return (plain & ((1 << bits) - 1)).to_bytes(width, "little")

    def _do_reserve(self, node: nodes.Reserve) -> None:
        self.reserve(self._space(node))

    def _space(self, node: nodes.Reserve) -> int:
        count = self._number(node.count, "the amount of space")
        if count < 0:
            raise SourceError(f"cannot reserve {count} units of space", node.column)
        return count * node.width

    def _do_incbin(self, node: nodes.Incbin) -> None:
        self.emit(self._included(node))

    def _included(self, node: nodes.Incbin) -> bytes:
        assert self.placed_now is not None
        data = self._files.get(node.name)
        if data is None:
            try:
                path = self.search.find(node.name, self.placed_now.source.location.file)
                if path.stat().st_size > MAXIMUM_DATA:
                    raise SourceError(f"'{node.name}' is larger than {MAXIMUM_DATA >> 20} MiB")
                data = path.read_bytes()
            except (OSError, ValueError) as error:
                raise SourceError(f"cannot read '{node.name}': {error}", node.column) from None
            except SourceError as error:
                raise SourceError(error.message, node.column) from None
            self._files[node.name] = data
        skip = 0 if node.skip is None else self._number(node.skip, "the bytes to skip")
        length = len(data)
        if node.length is not None:
            length = self._number(node.length, "the length")
        if skip < 0 or length < 0:
            raise SourceError("'incbin' cannot take or skip less than nothing", node.column)
        return data[skip : skip + length]

    def _do_times(self, node: nodes.Times) -> None:
        count = self._number(node.count, "the count of 'times'")
        if count < 0:
            raise SourceError(f"'times' cannot repeat {count} times", node.column)
        self._repeat(node.body, count)

    def _repeat(self, body: nodes.Statement, count: int) -> None:
        """Run a statement so many times; `$` stays where the first began, as in NASM."""
        if isinstance(body, nodes.Reserve):
            self.reserve(self._space(body) * count)
        elif isinstance(body, nodes.Data):
            self._emit_times(self._data(body), count)
        elif isinstance(body, nodes.Incbin):
            self._emit_times(self._included(body), count)
        elif isinstance(body, nodes.LonePrefix):
            self._emit_times(self._prefix_alone(body), count)
        elif isinstance(body, nodes.Instruction):
            self._repeat_instruction(body, count)
        else:
            raise SourceError("only instructions and data can be repeated", body.column)

    def _emit_times(self, data: bytes, count: int) -> None:
        self.check_room(len(data) * count)
        self.emit(data * count)

    def _repeat_instruction(self, body: nodes.Instruction, count: int) -> None:
        if count == 0:
            return
        encoding = self.instruction(body)
        if not self._is_relative(encoding):
            if self.final:
                self.check_encoding(body, encoding)
            self._put(body, encoding, count)
            return
        if count > MAXIMUM_JUMPS:
            raise SourceError(f"a jump can be repeated at most {MAXIMUM_JUMPS} times", body.column)
        start = self.here()
        for _ in range(count):
            self.times_start = start
            try:
                encoding = self.instruction(body)
            finally:
                self.times_start = None
            if self.final:
                self.check_encoding(body, encoding)
            self.emit(encoding.data)

    @staticmethod
    def _is_relative(encoding: Encoding) -> bool:
        return any(code[0] == "J" for code in encoding.row.operands)

    # -- Alignment -------------------------------------------------------------------------------

    def _do_align(self, node: nodes.Align) -> None:
        boundary = self._number(node.boundary, "the alignment", 1)
        if boundary < 1 or boundary & (boundary - 1):
            raise SourceError(f"{boundary} is not a power of two", node.column)
        section = self.section
        section.align = max(section.align, min(boundary, 1 << 20))
        start = section.address if section.absolute else 0
        padding = -(section.offset - start) % boundary
        if isinstance(node.fill, nodes.Instruction):
            self._fill(node.fill, padding)
        elif node.fill is not None:
            self._repeat(node.fill, padding)
        elif node.reserve or section.nobits or section.absolute:
            self.reserve(padding)
        else:
            self._emit_times(encode("nop").data, padding)

    def _fill(self, body: nodes.Instruction, count: int) -> None:
        """Fill with an instruction, which is never replaced: its size is what matters."""
        encoding = self.instruction(body)
        if self._is_relative(encoding):
            self._repeat_instruction(body, count)
        else:
            self._emit_times(encoding.data, count)

    # -- Sections and symbols --------------------------------------------------------------------

    def _do_sectionchange(self, node: nodes.SectionChange) -> None:
        section = self.sections.get(node.name)
        if section is None:
            section = self.sections[node.name] = new_section(node.name)
        for attribute in node.attributes:
            self._attribute(section, attribute)
        self.section = section

    def _attribute(self, section: Section, attribute: nodes.Attribute) -> None:
        name = attribute.name
        if attribute.value is None:
            if name in _TYPES:
                section.nobits = _TYPES[name]
            elif name in _FLAGS:
                flag, state = _FLAGS[name]
                setattr(section, flag, state)
            elif name not in ("alloc", "noalloc", "code", "data", "bss"):
                raise SourceError(f"unknown section attribute '{name}'", attribute.column)
            return
        if name not in ("align", "start", "vstart"):
            raise SourceError(f"unknown section attribute '{name}='", attribute.column)
        value = self._number(attribute.value, f"'{name}'", 1)
        if name == "align":
            if value < 1 or value & (value - 1) or value > 1 << 20:
                raise SourceError(f"{value} is not an alignment", attribute.column)
            section.align = value
        elif not 0 <= value < MAXIMUM_SPACE:
            raise SourceError(f"{value} is not an address", attribute.column)
        else:
            setattr(section, "start" if name == "start" else "virtual", value)

    def _do_symbols(self, node: nodes.Symbols) -> None:
        names = {self.full_name(name) for name, _ in node.names}
        if node.kind == "global":
            self.exports |= names
        elif node.kind == "extern":
            self.externals |= names
        elif node.kind == "common":
            raise SourceError("'common' is not supported: reserve the space in .bss", node.column)

    def _do_numeric(self, node: nodes.Numeric) -> None:
        value = self._number(node.value, f"'{node.kind}'")
        if node.kind == "bits":
            if value != 32:
                raise SourceError(f"only 32-bit code is supported, found {value}", node.column)
        elif node.kind == "org":
            if self._org is not None and self._org != value:
                raise SourceError("the origin is already set", node.column)
            if not 0 <= value < MAXIMUM_SPACE:
                raise SourceError(f"{value} is not an address", node.column)
            self._org = self.origin = value
        else:
            self.section = Section("absolute", absolute=True, address=value, offset=value)

    def _do_equ(self, node: nodes.Equ) -> None:
        if self.placed_now is None or self.placed_now.line.label is None:
            raise SourceError("'equ' needs a label before it", node.column)

    def _do_ignored(self, node: nodes.Ignored) -> None:
        return

    # -- Structures ------------------------------------------------------------------------------

    def _do_struc(self, node: nodes.Struc) -> None:
        if self._structure is not None:
            raise SourceError("a structure cannot be inside another", node.column)
        start = 0 if node.offset is None else self._number(node.offset, "the offset")
        self._structure = (node.name, self.section, self.scope)
        self.section = Section("absolute", absolute=True, address=start, offset=start)
        self.scope = node.name
        self.define(node.name, start, node.column)

    def _do_endstruc(self, node: nodes.EndStruc) -> None:
        if self._structure is None:
            raise SourceError("'endstruc' without 'struc'", node.column)
        name, outer, _ = self._structure
        size = self.section.offset - self.section.address
        self._structure = None
        self.section = outer
        self.define(f"{name}_size", size, node.column)

    def _do_istruc(self, node: nodes.Istruc) -> None:
        if self._instance is not None:
            raise SourceError("a structure cannot be inside another", node.column)
        self._instance = (node.name, self.section.offset)

    def _pad_to(self, offset: int, column: int) -> None:
        assert self._instance is not None
        padding = self._instance[1] + offset - self.section.offset
        if padding < 0:
            raise SourceError(f"this place is already {-padding} bytes behind", column)
        self._emit_times(b"\0", padding)

    def _do_at(self, node: nodes.At) -> None:
        if self._instance is None:
            raise SourceError("'at' without 'istruc'", node.column)
        outer, self.scope = self.scope, self._instance[0]  # .field is the structure's
        try:
            field = self._number(node.field, "the offset")
            start = self.symbol(self._instance[0], node.column)
            field -= start if isinstance(start, int) else 0
        finally:
            self.scope = outer
        self._pad_to(field, node.column)
        if node.body is not None:
            self._repeat(node.body, 1)

    def _do_iend(self, node: nodes.Iend) -> None:
        if self._instance is None:
            raise SourceError("'iend' without 'istruc'", node.column)
        size = self.symbol(f"{self._instance[0]}_size", node.column)
        if isinstance(size, int):
            self._pad_to(size, node.column)
        self._instance = None
