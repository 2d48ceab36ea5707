"""Hold one outcome against another, and forgive only what the table calls undefined.

Most outcomes are equal as they stand, which costs nothing to see. Only where they differ is the
instruction decoded and the conditions of its `undefined` column worked out. A deviation of the
oracle (tests/oracles/deviations.py) is applied in one place, `comparable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from isa.decoder import Instruction, decode
from isa.operands import Immediate, Memory, Operand, Register
from isa.row import FLAG_BITS, Row
from tests.oracles.case import AREA, DATA, ECX, LOW, ZF, Case, Outcome
from tests.oracles.deviations import Answers, comparable

REGISTER_NAMES: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")


@dataclass(frozen=True, slots=True)
class Undefined:
    """What of an outcome says nothing: EFLAGS bits, and an operand of the instruction."""

    flags: int = 0
    destination: Operand | None = None


def flag_mask(letters: str) -> int:
    """The EFLAGS bits of the table's letters."""
    return sum(1 << FLAG_BITS[letter] for letter in letters if letter != "*")


def _count(instruction: Instruction, case: Case) -> int:
    last = instruction.operands[-1] if instruction.operands else None
    if isinstance(last, Immediate):
        return last.value & 31
    return case.registers[ECX] & 31


def _size(instruction: Instruction) -> int:
    first = instruction.operands[0]
    assert isinstance(first, Register | Memory)
    return first.size


def _holds(condition: str, instruction: Instruction, case: Case, outcome: Outcome) -> bool:
    if condition == "always":
        return True
    if condition == "source=0":
        return bool(outcome.eflags & ZF)
    if condition == "size=16":
        return instruction.operand_size == 16
    count, size = _count(instruction, case), _size(instruction)
    return {
        "count!=0": count != 0,
        "count>1": count > 1,
        "count>size": count > size,
        "count>=size": count >= size,
    }[condition]


def undefined_of(row: Row, case: Case, outcome: Outcome) -> Undefined:
    """What the table's `undefined` column says of this outcome of a single instruction."""
    if not row.undefined or (outcome.fault and outcome.eip == case.eip):
        return Undefined()
    instruction = decode(case.code, case.eip)
    flags, destination = 0, None
    for entry in row.undefined:
        if _holds(entry.condition, instruction, case, outcome):
            flags |= flag_mask(entry.what)
            if "*" in entry.what:
                destination = instruction.operands[0]
    return Undefined(flags, destination)


def _forget(outcome: Outcome, undefined: Undefined, case: Case) -> Outcome:
    """The outcome with everything undefined set to zero."""
    registers, memory = outcome.registers, outcome.memory
    destination = undefined.destination
    if isinstance(destination, Register):
        mask = (1 << destination.size) - 1
        number = destination.number
        cleared = registers[number] & ~mask
        registers = (*registers[:number], cleared, *registers[number + 1 :])
    elif isinstance(destination, Memory):
        start = linear_address(destination, case) % AREA
        size = destination.size // 8
        memory = memory[:start] + bytes(size) + memory[start + size :]
    eflags = outcome.eflags & ~undefined.flags
    return replace(outcome, registers=registers, memory=memory, eflags=eflags)


def linear_address(operand: Memory, case: Case) -> int:
    """Where a memory operand lay when the case began."""
    offset = operand.displacement
    if operand.base is not None:
        offset += case.registers[operand.base]
    if operand.index is not None:
        offset += case.registers[operand.index] * operand.scale
    return case.linear(operand.effective_segment, offset & ((1 << operand.address_size) - 1))


def agree(row: Row, case: Case, oracle: Outcome, ours: Outcome) -> bool:
    """Whether our outcome of a single instruction is what the oracle's allows."""
    if oracle == ours:
        return True
    oracle, ours = comparable("silicon", Answers(row, case, oracle, ours))
    undefined = undefined_of(row, case, oracle)
    return _forget(oracle, undefined, case) == _forget(ours, undefined, case)


def agree_but_for(name: str, flags: int, oracle: Outcome, ours: Outcome) -> bool:
    """Whether our outcome of a program is that of the oracle `name`, `flags` of EFLAGS aside."""
    undefined, case = Undefined(flags), Case(b"")
    oracle, ours = comparable(name, Answers(None, None, oracle, ours))
    return _forget(oracle, undefined, case) == _forget(ours, undefined, case)


def describe(row: Row | Sequence[Row], case: Case, oracle: Outcome, ours: Outcome) -> str:
    """A disagreement, for the person who has to mend it."""
    title = str(row) if isinstance(row, Row) else "; ".join(map(str, row))
    lines = [f"{title}: {case.code.hex(' ')} at {case.address:#x}, steps {case.steps}"]
    before = zip(REGISTER_NAMES, case.registers, strict=True)
    lines.append("  before  " + " ".join(f"{name}={value:08x}" for name, value in before))
    lines.append(f"          eflags={case.eflags:08x} " + _segments(case.selectors))
    for index, descriptor in enumerate(case.ldt):
        if descriptor is not None and (index << 3 | 7) in case.selectors:
            lines.append(f"          ldt[{index}] {descriptor}")
    for field in ("eip", "eflags", "fault", "taken"):
        theirs, own = getattr(oracle, field), getattr(ours, field)
        if theirs != own:
            lines.append(f"  {field}: oracle {_hex(theirs)}, ours {_hex(own)}")
    for name, theirs, own in zip(REGISTER_NAMES, oracle.registers, ours.registers, strict=True):
        if theirs != own:
            lines.append(f"  {name}: oracle {theirs:08x}, ours {own:08x}")
    for name, theirs, own in zip(SEGMENT_NAMES, oracle.selectors, ours.selectors, strict=True):
        if theirs != own:
            lines.append(f"  {name}: oracle {theirs:04x}, ours {own:04x}")
    lines += _memory_lines(case.memory, oracle.memory, ours.memory)
    return "\n".join(lines)


def _hex(value: object) -> str:
    return f"{value:08x}" if isinstance(value, int) else str(value)


def _segments(selectors: Sequence[int]) -> str:
    pairs = zip(SEGMENT_NAMES, selectors, strict=True)
    return " ".join(f"{name}={value:04x}" for name, value in pairs)


def _memory_lines(before: bytes, oracle: bytes, ours: bytes) -> list[str]:
    different = [i for i in range(AREA) if oracle[i] != ours[i]]
    if not different:
        return []
    first, last = different[0], min(different[-1], different[0] + 31) + 1
    where = f"  memory at {DATA + first:#x} (and {LOW + first:#x})"
    return [
        f"{where}: before {before[first:last].hex(' ')}",
        f"    oracle {oracle[first:last].hex(' ')}",
        f"    ours   {ours[first:last].hex(' ')}",
    ]
