"""A witness: the smallest pair of states that an unsafe instruction tells apart, as one sentence.

The pair is found and shrunk by Hypothesis, without randomness of its own and without a database, so
it is the same in every run. The sentence says what the instruction found, what it really did, and
what it would have done where the guest believes to be. Read theorems.py next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from hypervisor.experiments.classify.cases import SIZES, Choice, case_of
from hypervisor.experiments.classify.differences import Pair, differing
from hypervisor.experiments.classify.states import (
    INDEX,
    OPERAND,
    SEGMENTS,
    STACK,
    VISIBLE,
    Bench,
    Case,
    Outcome,
)
from hypervisor.experiments.classify.verdicts import Telling, Verdict, tells
from isa.decoder import Instruction
from isa.disassembler import format_instruction
from isa.exceptions import EXCEPTIONS
from isa.operands import GENERAL_NAMES, Memory, Register
from isa.row import FLAG_BITS, Row

EXAMPLES: Final = 1_500  #: at most tried before Hypothesis gives up

#: What the guest believes, by the name of what differs.
BELIEFS: Final = {
    "CPL": "at CPL 0",
    "tables": "with the tables where the guest put them",
    "frames": "in the guest's own frames",
    "slots": "with the descriptors in the guest's slots",
    "CR0": "with the guest's CR0.TS=0",
    "CR4": "with the guest's CR4.DE=0",
    "DR": "with the guest's DR0",
    "IF": "with the guest's IF=0",
    "IOPL": "with the guest's IOPL=3",
    "time": "without the time that passed elsewhere",
    "device": "with the guest's device",
}
#: Flags by the SDM's name, as a sentence names them.
FLAGS: Final = {letter.upper() + "F": 1 << bit for letter, bit in FLAG_BITS.items() if letter
                in "cpazstidon"} | {"IOPL": 0x3000}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Witness:
    """One instruction in two states."""

    instruction: str
    code: bytes
    cpl: int
    differs: str  #: name of the distinction
    given: str  #: what it found
    real: str  #: what it did
    believed: str  #: what the guest was entitled to

    def __str__(self) -> str:
        given = f" with {self.given}" if self.given else ""
        where = BELIEFS[self.differs]
        return f"{self.instruction} at CPL {self.cpl}{given}: {self.real}; {where}: {self.believed}"


def find_witness(bench: Bench, verdict: Verdict) -> Witness | None:
    """The smallest witness against an unsafe row; None if there is nothing to be found."""
    if not verdict.telling:
        return None
    telling = verdict.telling[0]
    pair = telling.pair
    choice = _shrunk(bench, verdict.row, telling)
    case, instruction = case_of(verdict.row, choice)
    believed, real = bench.run(case, pair.believed), bench.run(case, pair.real)
    names = differing(believed, real)
    return Witness(
        format_instruction(instruction), case.code, pair.real.cpl, pair.name,
        given(case, instruction, real),
        effect(instruction, real, believed, names), effect(instruction, believed, real, names),
    )  # fmt: skip


def _shrunk(bench: Bench, row: Row, telling: Telling) -> Choice:
    """The smallest choice that shows the same.

    Good operands can be too rare to be met again by chance. Then each number may also be the one
    of the case that the experiment found, so that there is something to shrink.
    """
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    def is_witness(numbers: tuple[int, ...]) -> bool:
        case, _ = case_of(row, Choice(*numbers))
        real = bench.run(case, telling.pair.real)
        if not real[1].went_through:
            return False
        believed = bench.run(case, telling.pair.believed)
        return believed[1].went_through >= telling.silent and bool(tells(believed, real))

    free = [st.integers(0, size - 1) for size in SIZES]
    near = [st.one_of(one, st.just(n)) for one, n in zip(free, telling.choice, strict=True)]
    for numbers in (free, near):
        with contextlib.suppress(NoSuchExample):
            return _find(st.tuples(*numbers), is_witness)
    return telling.choice


def _find(numbers: Any, condition: Callable[[tuple[int, ...]], bool]) -> Choice:
    """What Hypothesis finds and shrinks, the same every time, and with nothing kept on disk."""
    import warnings

    from hypothesis import Phase, find, settings

    quiet = settings(
        max_examples=EXAMPLES, database=None, deadline=None, derandomize=True,
        phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Choice(*find(numbers, condition, settings=quiet, random=Random(0)))


# -- The sentence --------------------------------------------------------------------------------


def given(case: Case, instruction: Instruction, real: Pair) -> str:
    """What of registers, memory and stack the instruction went by."""
    before, after = real
    found = []
    for code, operand in zip(instruction.row.operands, instruction.operands, strict=True):
        if isinstance(operand, Register) and operand.size > 8:
            name = GENERAL_NAMES[32][operand.number]
            if before[name] == after[name]:
                value = before[name] & (1 << operand.size) - 1
                found.append(f"{operand.name}={value:#x}")
        elif isinstance(operand, Memory) and before.visible == after.visible:
            found.append(f"{_operand(case, code, instruction)} in memory")
    popped = _popped(case, instruction, real)
    if popped:
        found.append(f"{popped} on the stack")
    return ", ".join(found)


def _words(case: Case, size: int) -> list[int]:
    return [
        int.from_bytes(case.frame[i : i + size], "little") for i in range(0, len(case.frame), size)
    ]


def _operand(case: Case, code: str, instruction: Instruction) -> str:
    offset = instruction.operand_size // 8
    if code == "Mp":
        words = _words(case, offset)
        return f"{words[1] & 0xFFFF:#x}:{words[0]:#x}"
    return f"{_words(case, 2 if code[1:] in ('w', 'vw') else offset)[0]:#x}"


def _popped(case: Case, instruction: Instruction, real: Pair) -> str:
    before, after = real
    if before["esp"] == after["esp"] or after["esp"] < before["esp"]:
        return ""
    size = instruction.operand_size // 8
    words = _words(case, size)
    count = (after["esp"] - STACK) // size
    if not 0 < count <= len(words):
        count = len(words)
        while count > 1 and not words[count - 1]:
            count -= 1
    return " ".join(f"{word:#x}" for word in words[:count])


def effect(instruction: Instruction, of: Pair, other: Pair, names: list[str]) -> str:
    """What one run did where it differs from the other."""
    before, after = of
    if after.trap is not None:
        vector, error = after.trap
        return f"{EXCEPTIONS[vector]}({error:#x})"
    if names == ["trap"]:
        names = _notable(before, after)
    return ", ".join(_said(instruction, name, of, other) for name in names[:2])


def _notable(before: Outcome, after: Outcome) -> list[str]:
    """What to name of a run whose counterpart trapped: segments, or else the target."""
    changed = [name for name in SEGMENTS if before[name] != after[name]]
    return changed or ["eip"]


def _said(instruction: Instruction, name: str, of: Pair, other: Pair) -> str:
    before, after = of
    if name == "eflags":
        return _flags(of, other)
    if name == "memory":
        return _stored(instruction, of, other)
    if name == "event":
        return "nothing happened" if after.event is None else f"vector {after.event:#x} delivered"
    if name not in INDEX:
        return f"{name} {getattr(after, name)}"
    if name == "eip" and after["eip"] == before["eip"] + instruction.length:
        return "it went through"
    if name == "eip":
        return f"went to {after['cs']:#x}:{after['eip']:#x}"
    return f"{name} {'stayed' if before[name] == after[name] else 'became'} {after[name]:#x}"


def _flags(of: Pair, other: Pair) -> str:
    (before, after), (before2, after2) = of, other
    wrong = after["eflags"] ^ after2["eflags"]
    wrong &= (before["eflags"] ^ after["eflags"]) | (before2["eflags"] ^ after2["eflags"])
    found = []
    for name, bits in FLAGS.items():
        if wrong & bits:
            shift = bits.bit_length() - bits.bit_count()
            old, new = (o["eflags"] & bits for o in (before, after))
            found.append(f"{name} {'stayed' if old == new else 'became'} {new >> shift}")
    return ", ".join(found)


def _stored(instruction: Instruction, of: Pair, other: Pair) -> str:
    """The number written where the two runs' memory first differs."""
    after, after2 = of[1], other[1]
    at = next(i for i, b in enumerate(after.visible) if b != after2.visible[i])
    if "Ms" in instruction.row.operands:
        start = min(at, at - (at - OPERAND % len(VISIBLE)) % 8)
        limit = int.from_bytes(after.visible[start : start + 2], "little")
        base = int.from_bytes(after.visible[start + 2 : start + 6], "little")
        return f"stored base {base:#x}, limit {limit:#x}"
    size = instruction.operand_size // 8
    if any(isinstance(operand, Memory) for operand in instruction.operands):
        size = 2
    value = int.from_bytes(after.visible[at - at % size : at - at % size + size], "little")
    pushed = at < STACK - VISIBLE.start and at > OPERAND - VISIBLE.start + 0x100
    return f"{'pushed' if pushed else 'stored'} {value:#x}"
