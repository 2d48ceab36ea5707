"""From the operands of a line to the encoder's: immediates, targets and effective addresses.

The interesting part is which register becomes the base and which the index, and when a scaled
register is split in two (`[eax*3]` is eax+eax*2); the rules are NASM's, found by experiment and
held by tests. `passes.py` calls this for each instruction in each pass.
"""

from __future__ import annotations

from functools import cache

from isa.assembler.diagnostics import SourceError
from isa.assembler.expressions import (
    UNKNOWN,
    Hint,
    RegisterName,
    Scope,
    Value,
    absolute,
    is_base,
    parts,
)
from isa.assembler.nodes import Instruction, OperandNode
from isa.encoder import forms_of
from isa.operands import (
    EBP,
    ESP,
    FarPointer,
    Immediate,
    Memory,
    Operand,
    Register,
    Relative,
    SegmentRegister,
)
from isa.registers import AnyRegister

_SPLIT_SCALES = (3, 5, 9)
_MODES_16 = {frozenset(pair) for pair in ((3, 6), (3, 7), (5, 6), (5, 7), (6,), (7,), (5,), (3,))}


@cache
def only_short(mnemonic: str) -> bool:
    """Whether the table has no near form of this branch (loop, jecxz)."""
    return all(form.codes[0] == "Jb" for form in forms_of(mnemonic))


@cache
def takes_target(mnemonic: str) -> bool:
    """Whether a plain number after this mnemonic is a place to go to."""
    return any(form.codes and form.codes[0][0] == "J" for form in forms_of(mnemonic))


def _register(value: Value) -> AnyRegister | None:
    """The register a value is, if it is just that."""
    constant, terms = parts(value)
    if constant == 0 and len(terms) == 1 and terms[0][1] == 1:
        term = terms[0][0]
        if isinstance(term, AnyRegister):
            return term
    return None


def operand_of(node: OperandNode, instruction: Instruction, scope: Scope) -> Operand:
    """The typed operand a node stands for at this place, in this pass."""
    if node.memory:
        return _memory(node, instruction, scope)
    value = node.expression.evaluate(scope)
    if node.segment is not None:
        return _far_pointer(node, value, scope)
    register = _register(value)
    if register is not None:
        size = getattr(register, "size", 16)
        if node.size and node.size != size and not takes_target(instruction.mnemonic):
            raise SourceError(f"{register.name} is not {node.size} bits wide", node.column)
        return register
    if any(isinstance(term, AnyRegister) for term, _ in parts(value)[1]):
        raise SourceError("registers can be added only inside '[' and ']'", node.column)
    if takes_target(instruction.mnemonic):
        return _target(node, value, instruction, scope)
    if node.distance:
        raise SourceError(f"'{node.distance}' is only for jumps and calls", node.column)
    if isinstance(value, int):
        return Immediate(value, node.size, node.strict)
    if value.unknown:  # as NASM, hope for the shortest form until it is known
        return Immediate(1, node.size, node.strict)
    return Immediate(absolute(value), node.size, True)


def _far_pointer(node: OperandNode, offset: Value, scope: Scope) -> Operand:
    assert node.segment is not None
    selector = node.segment.evaluate(scope)
    if node.distance in ("near", "short", "far"):
        raise SourceError(f"'{node.distance}' does not go with a far pointer", node.column)
    for value in (selector, offset):
        if any(isinstance(term, AnyRegister) for term, _ in parts(value)[1]):
            raise SourceError("expected selector:offset, found a register", node.column)
    return FarPointer(absolute(selector), absolute(offset), node.size)


def _target(node: OperandNode, value: Value, instruction: Instruction, scope: Scope) -> Operand:
    """A relative target, as a distance from the start of the instruction."""
    size = {"short": 8, "near": 32}.get(node.distance, 0)
    if node.distance == "far":
        raise SourceError("expected selector:offset or memory after 'far'", node.column)
    if node.size == 8:
        raise SourceError("expected 'short' for a jump with a byte displacement", node.column)
    size = size or node.size or (32 if node.strict else 0)
    if only_short(instruction.mnemonic):
        size = 8
    elif instruction.prefixes.operand_size == 16 and size != 8:
        size = _with_o16(node, instruction.mnemonic, size)
    elif size == 32 and node.size == 16:
        size = 16
    here = scope.place()
    _, terms = parts(value)
    if any(term is UNKNOWN for term, _ in terms):
        return Relative(0, size)
    if terms != parts(here)[1] and not size:
        size = 32  # another section: how far it is may change with the layout
    return Relative(absolute(value) - absolute(here), size)


def _with_o16(node: OperandNode, mnemonic: str, size: int) -> int:
    """The displacement size of a jump behind o16: short or 16 bits.

    NASM puts 32 bits behind the 66 of any other, which the processor reads as two instructions.
    """
    if size == 16:
        return 16
    if size or all(form.codes[0] != "Jb" for form in forms_of(mnemonic)):
        raise SourceError("o16 needs a 'short' or a 'word' target", node.column)
    return 8


def _segment_number(node: OperandNode) -> int | None:
    if node.segment is None:
        return None
    if isinstance(node.segment, RegisterName):
        register = node.segment.register
        if isinstance(register, SegmentRegister):
            return register.number
    raise SourceError("expected a segment register before ':'", node.column)


def _memory(node: OperandNode, instruction: Instruction, scope: Scope) -> Memory:
    hint = Hint()
    scope.hint = hint
    try:
        value = node.expression.evaluate(scope)
    finally:
        scope.hint = None
    _, terms = parts(value)
    registers = [(term, c) for term, c in terms if isinstance(term, AnyRegister)]
    relocated = any(is_base(term) or term is UNKNOWN for term, _ in terms)
    size = _address_size(node, registers, instruction.prefixes.address_size)
    base, index, scale = None, None, 1
    if registers:
        arrange = _arrange_32 if size == 32 else _arrange_16
        base, index, scale = arrange(node, registers, hint)
    words = node.address_words
    displacement_size = None
    for word, bits in (("byte", 8), ("word", 16), ("dword", 32)):
        if word in words:
            displacement_size = bits
    if displacement_size not in (None, 8, size):
        displacement_size = size
    if relocated and displacement_size is None and registers:
        displacement_size = size
    return Memory(
        base, index, scale, absolute(value) & ((1 << size) - 1), node.size,
        _segment_number(node), size, displacement_size,
    )  # fmt: skip


def _address_size(node: OperandNode, registers: list[tuple[AnyRegister, int]], prefix: int) -> int:
    sizes = set()
    for register, _ in registers:
        if not isinstance(register, Register) or register.size == 8:
            raise SourceError(f"{register.name} cannot be part of an address", node.column)
        sizes.add(register.size)
    if len(sizes) > 1:
        raise SourceError("an address cannot mix 16-bit and 32-bit registers", node.column)
    if sizes:
        size = sizes.pop()
        if prefix not in (0, size):
            raise SourceError(f"a{prefix} contradicts an address of {size} bits", node.column)
        return size
    if "word" in node.address_words:
        return 16
    if "dword" in node.address_words:
        return 32
    return prefix or 32


Arrangement = tuple[int | None, int | None, int]


def _arrange_32(
    node: OperandNode, registers: list[tuple[AnyRegister, int]], hint: Hint
) -> Arrangement:
    """Base, index and scale of a 32-bit address."""
    if len(registers) > 2:
        raise SourceError("an address has at most two registers", node.column)
    base, index, scale = _roles(node, sorted(registers, key=lambda pair: pair[0].name))
    hinted = hint.register.number if isinstance(hint.register, Register) else None
    not_base = hint.kind == "not base"
    swap = hinted == base if not_base else hinted == index and hint.kind == "base"
    if swap and scale == 1 and base is not None and index is not None:
        base, index = index, base
    nosplit = "nosplit" in node.address_words
    if base is None and scale == 1 and not (nosplit and not_base and hinted == index):
        base, index = index, None
    if base is None and index is not None:
        double = scale == 2 and index != ESP and (not nosplit or hint.kind == "summed")
        if double or scale in _SPLIT_SCALES:
            base, scale = index, scale - 1
    elif index is None and base not in (None, ESP) and nosplit and not_base and hinted == base:
        base, index, scale = None, base, 1
    if scale == 1 and index == ESP:
        base, index = index, base
    if index == ESP or (index is not None and scale not in (1, 2, 4, 8)):
        raise SourceError("this address has no encoding", node.column)
    return base, index, scale


def _roles(node: OperandNode, registers: list[tuple[AnyRegister, int]]) -> Arrangement:
    """A first guess: an unscaled register is the base, another the index."""
    base: int | None = None
    index: int | None = None
    scale = 1
    for register, coefficient in registers:
        if base is None and coefficient == 1:
            base = register.number
        elif index is None:
            index, scale = register.number, coefficient
        else:
            raise SourceError("an address can scale only one register", node.column)
    return base, index, scale


def _arrange_16(
    node: OperandNode, registers: list[tuple[AnyRegister, int]], hint: Hint
) -> Arrangement:
    """Base and index of a 16-bit address: bx or bp, si or di."""
    numbers = [register.number for register, coefficient in registers]
    if frozenset(numbers) not in _MODES_16 or any(c != 1 for _, c in registers):
        message = "a 16-bit address is made of bx or bp and si or di"
        raise SourceError(message, node.column)
    numbers.sort(key=lambda number: number not in (3, EBP))
    return numbers[0], numbers[1] if len(numbers) > 1 else None, 1
