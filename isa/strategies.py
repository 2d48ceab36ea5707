"""Hypothesis strategies over the table: instructions, registers, flags, user-mode programs.

Everything is drawn from the rows, so a new row is tested the day it is added. The building blocks
are small on purpose: kernel-mode programs are made of the same ones. Tests that need speed rather
than shrinking call `random_instruction` and `random_program` with a seeded `random.Random`; under
Hypothesis the very same functions draw from its choices. Needs no more than `isa/sampling.py`;
read `isa/row.py` for what a row says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from hypothesis import strategies as st

from isa.decoder import Instruction, decode
from isa.operands import EBP, ECX, ESP, Memory
from isa.row import FLAG_BITS, Row
from isa.sampling import (
    INTERESTING,
    aim,
    jump_rows,
    random_instruction,
    random_value,
    user_rows,
)
from isa.table import ROWS

__all__ = [
    "Program",
    "Window",
    "eflags",
    "instructions",
    "programs",
    "random_instruction",
    "random_program",
    "registers",
    "values",
]

#: EFLAGS bit 1 is always set (SDM vol. 1, 3.4.3).
EFLAGS_FIXED: Final = 0x2
#: What user code can set by itself without disturbing its test: the status flags and DF.
STATUS_FLAGS: Final = "oszapcd"

MOV_IMMEDIATE: Final = 0xB8  #: mov r32, imm32: B8+r
INT3: Final = b"\xcc"


@dataclass(frozen=True, slots=True)
class Window:
    """Memory that a program may use: guest-virtual start, and length in bytes."""

    start: int
    length: int

    def somewhere(self, rng: Random) -> int:
        """An address with room for any operand around it."""
        margin = 64
        return self.start + margin + rng.randrange(self.length - 2 * margin)


@dataclass(frozen=True, slots=True)
class Program:
    """Machine code for one address. `instructions` is the code decoded in order, as executed
    without jumps; its last byte is `terminator`."""

    address: int
    code: bytes
    terminator: bytes = INT3

    @property
    def instructions(self) -> list[Instruction]:
        found, offset = [], 0
        while offset < len(self.code):
            found.append(decode(self.code, self.address + offset, offset))
            offset += found[-1].length
        return found


def values(bits: int = 32) -> st.SearchStrategy[int]:
    """Unsigned values of `bits` bits, the interesting ones often."""
    mask = (1 << bits) - 1
    edges = sorted({value & mask for value in INTERESTING})
    return st.one_of(st.sampled_from(edges), st.integers(0, mask))


def registers() -> st.SearchStrategy[tuple[int, ...]]:
    """Values of the eight general registers, by number."""
    return st.tuples(*[values() for _ in range(8)])


def eflags(letters: str = STATUS_FLAGS) -> st.SearchStrategy[int]:
    """EFLAGS with any subset of `letters` (of `isa.row.FLAG_BITS`) set."""
    bits = [1 << FLAG_BITS[letter] for letter in letters]
    return st.sets(st.sampled_from(bits)).map(lambda chosen: EFLAGS_FIXED | sum(chosen))


def instructions(
    rows: Sequence[Row] = ROWS, *, prefixes: bool = True, address_16: bool = True
) -> st.SearchStrategy[bytes]:
    """Encodings of any of `rows`: all operand forms, meaningful prefixes, edge immediates."""
    return st.builds(
        lambda rng, row: random_instruction(rng, row, prefixes=prefixes, address_16=address_16),
        st.randoms(use_true_random=False),
        st.sampled_from(list(rows)),
    )


def programs(
    window: Window,
    *,
    address: int = 0x100000,
    rows: Sequence[Row] | None = None,
    maximum: int = 20,
    jumps: bool = True,
    terminator: bytes = INT3,
) -> st.SearchStrategy[Program]:
    """User-mode programs that run to `terminator` unless they fault; see `random_program`."""
    return st.builds(
        lambda rng, length: random_program(
            rng, window, address=address, rows=rows, length=length, jumps=jumps,
            terminator=terminator,
        ),
        st.randoms(use_true_random=False),
        st.integers(1, maximum),
    )  # fmt: skip


# -- Programs ----------------------------------------------------------------------------------


def set_register(number: int, value: int) -> bytes:
    """mov r32, imm32."""
    return bytes([MOV_IMMEDIATE + number]) + (value & 0xFFFFFFFF).to_bytes(4, "little")


def aimed(rng: Random, code: bytes, window: Window) -> bytes:
    """`code` preceded by what makes its memory operands lie in the window.

    A displacement alone is moved there instead. ECX is small before a repeated instruction; a
    program's stack pointer is left alone unless it is itself the base.
    """
    instruction = decode(code)
    before = b"".join(
        set_register(number, value)
        for number, value in aim(instruction, window.somewhere(rng)).items()
    )
    if instruction.row.rep and instruction.prefixes.repeat is not None:
        before += set_register(ECX, rng.randrange(8))
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.base is None and operand.index is None:
            code = _move_displacement(code, operand, window.somewhere(rng))
    return before + code


def _move_displacement(code: bytes, operand: Memory, target: int) -> bytes:
    """The encoding with another address of 32 bits in place of `operand`'s."""
    old = operand.displacement.to_bytes(4, "little")
    position = code.find(old)
    for start in range(position, len(code) - 3):
        changed = code[:start] + target.to_bytes(4, "little") + code[start + 4 :]
        if code[start : start + 4] == old and _addresses(changed, target):
            return changed
    return code


def _addresses(code: bytes, target: int) -> bool:
    return any(isinstance(o, Memory) and o.displacement == target for o in decode(code).operands)


def _forward_jump(rng: Random, row: Row, over: bytes) -> bytes:
    """An instruction of `row` whose target is the byte after `over`."""
    code = bytearray(random_instruction(rng, row, prefixes=False))
    size = 1 if row.operands[0] == "Jb" else 4
    code[-size:] = len(over).to_bytes(size, "little")
    return bytes(code)


def random_program(
    rng: Random,
    window: Window,
    *,
    address: int = 0x100000,
    rows: Sequence[Row] | None = None,
    length: int = 10,
    jumps: bool = True,
    terminator: bytes = INT3,
) -> Program:
    """A program of `length` drawn instructions over `rows` (default: all a user may run freely).

    Registers that address memory are set before they are used, and some instructions are jumped
    over, never backwards: a program executes at most its own length. It begins by setting ESP and
    EBP inside the window. It may still fault (a division, BOUND, a bit far off); that is a case
    too. `terminator` follows the last instruction.
    """
    choices = user_rows() if rows is None else rows
    forward = jump_rows() if jumps else ()
    middle = window.start + window.length // 2
    code = set_register(ESP, middle) + set_register(EBP, middle)
    for _ in range(length):
        row = choices[rng.randrange(len(choices))]
        block = aimed(rng, random_instruction(rng, row, address_16=False), window)
        if forward and rng.randrange(4) == 3:
            code += _forward_jump(rng, forward[rng.randrange(len(forward))], block)
        code += block
    return Program(address, code + terminator, terminator)


def register_file(rng: Random) -> list[int]:
    """Eight register values, the interesting ones often, by number."""
    return [random_value(rng, 32) for _ in range(8)]
