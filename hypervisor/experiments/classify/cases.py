"""What is run: for every row, encodings from the table's operand codes, and operands worth trying.

`Forms` draws a row's encodings with isa/sampling.py and aims their memory operands at one place. A
`Choice` is a handful of small numbers that name a form and the values it finds in registers and
memory; the smaller the numbers the plainer the case, so that Hypothesis can shrink it (witness.py).
Nothing here depends on what an instruction is called: every row gets the same values. Read
differences.py next.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Final, NamedTuple

from hypervisor.experiments.classify.states import (
    CONFORMING,
    CR0,
    CR0_TS,
    DIRECTORY,
    FREE_LOCAL,
    FREE_TASK,
    GATE,
    IF,
    KERNEL_CODE,
    KERNEL_DATA,
    OPERAND,
    OUTER,
    SLOT,
    SMALL,
    STACK,
    TARGET,
    USER_CODE,
    USER_DATA,
    Case,
)
from isa.decoder import Instruction, decode
from isa.operands import EBP, EDI, ESI, ESP, Memory
from isa.row import Row
from isa.sampling import aim, random_instruction

FORMS: Final = 24  #: encodings drawn of a row
IOPL: Final = 0x3000
MSR_TSC: Final = 0x10

#: Values for code and stack segments, so that return frames are often good.
CODE_SELECTORS: Final = (
    *(KERNEL_CODE | rpl for rpl in (0, 1, 3)), USER_CODE | 3, CONFORMING, CONFORMING | 3, GATE | 3,
)  # fmt: skip
DATA_SELECTORS: Final = (
    *(KERNEL_DATA | rpl for rpl in (0, 1, 3)), USER_DATA | 3, SMALL | 3, USER_DATA | SLOT | 3, 0,
)  # fmt: skip
#: EFLAGS images. NT, VM and TF are left out: they lead out of the slice, or to a trap of their own.
IMAGES: Final = (0, IF, IOPL | IF, IOPL, IF | 0x8D5)
#: Status flags and DF at the start.
FLAGS: Final = (0, 0x8D5, 0x400)
#: What registers and memory hold.
VALUES: Final = (
    *(0, 1, 2, 8, MSR_TSC), *CODE_SELECTORS, *DATA_SELECTORS, FREE_LOCAL, FREE_TASK,
    *(IF, IOPL | IF, TARGET, OPERAND, 0x1F, 0x7F, 0x80, 0xFF, 0x8000, 0xFFFF),
    *(CR0, CR0 | CR0_TS, DIRECTORY, 0x7FFF_FFFF, 0xFFFF_FFFF),
)  # fmt: skip
LAYOUTS: Final = 6


class Choice(NamedTuple):
    """Numbers below `SIZES` that make a case of a row."""

    form: int
    value: int  #: of the first register; the next one's is `step` on
    step: int
    layout: int  #: what stands at ESP and at the memory operand
    code: int
    data: int
    image: int
    flags: int


#: How many of each there are.
SIZES: Final = (
    FORMS, len(VALUES), len(VALUES), LAYOUTS, len(CODE_SELECTORS), len(DATA_SELECTORS), len(IMAGES),
    len(FLAGS),
)  # fmt: skip


class Form(NamedTuple):
    """One encoding, and what it needs to find its memory operand."""

    instruction: Instruction
    aimed: dict[int, int]  #: registers by number
    narrow: bool  #: 16-bit operand size: words, not doublewords, on the stack


def _placed(code: bytes, rng: Random) -> bytes:
    """A plain displacement moved to OPERAND, a far pointer to TARGET."""
    instruction = decode(code)
    if instruction.row.parsed.immediates == ("cp",):
        size = 2 if instruction.operand_size == 16 else 4
        target = (TARGET & (1 << 8 * size) - 1).to_bytes(size, "little")
        return code[: -2 - size] + target + rng.choice(CODE_SELECTORS).to_bytes(2, "little")
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.base is None and operand.index is None:
            old = operand.displacement.to_bytes(4, "little")
            moved = code.replace(old, OPERAND.to_bytes(4, "little"))
            if decode(moved).row is instruction.row:
                return moved
    return code


@cache
def forms(row: Row) -> tuple[Form, ...]:
    """Encodings of a row, the plainest first; the same in every run, whatever the row's class."""
    rng = Random(f"{row.mnemonic} {row.opcode}")
    drawn = {
        _placed(random_instruction(rng, row, prefixes=turn % 3 == 2, address_16=False), rng)
        for turn in range(3 * FORMS)
    }
    # In even steps from the plainest: short encodings alone would miss operand sizes.
    ordered = sorted(drawn, key=lambda code: (decode(code).prefixes.count, len(code), code))
    count = min(FORMS, len(ordered))
    return tuple(_form(ordered[i * len(ordered) // count]) for i in range(count))


def _form(code: bytes) -> Form:
    instruction = decode(code)
    return Form(instruction, aim(instruction, OPERAND), instruction.operand_size == 16)


def _frame(choice: Choice, narrow: bool) -> bytes:
    value, image = VALUES[choice.value], IMAGES[choice.image]
    code, data = CODE_SELECTORS[choice.code], DATA_SELECTORS[choice.data]
    words = (
        (value, VALUES[(choice.value + choice.step) % len(VALUES)]),
        (data,),
        (image,),
        (TARGET, code, image, OUTER, data),
        (TARGET, code, OUTER, data),
        (0, data),
    )[choice.layout]
    size, letter = (0xFFFF, "H") if narrow else (0xFFFF_FFFF, "I")
    return struct.pack(f"<8{letter}", *(word & size for word in words), *(0,) * (8 - len(words)))


def case_of(row: Row, choice: Choice) -> tuple[Case, Instruction]:
    """The case that a choice names."""
    every = forms(row)
    form = every[choice.form % len(every)]
    registers = [VALUES[(choice.value + n * choice.step) % len(VALUES)] for n in range(8)]
    registers[ESP], registers[EBP] = STACK, STACK
    registers[ESI] = registers[EDI] = OPERAND
    for number, value in form.aimed.items():
        registers[number] = value
    case = Case(form.instruction.bytes, tuple(registers), FLAGS[choice.flags],
                _frame(choice, form.narrow))  # fmt: skip
    return case, form.instruction


def choices(row: Row, count: int) -> Iterator[Choice]:
    """`count` choices by a fixed seed: every form in turn, the rest at random."""
    rng = Random(f"{row.mnemonic} {row.opcode} operands")
    for turn in range(count):
        yield Choice(turn % FORMS, *(int(rng.random() * size) for size in SIZES[1:]))
