"""Decoder and encoder are inverses: what is decoded encodes to the same instruction again.

Not always to the same bytes, because the encoder chooses NASM's of several encodings; but never to
longer ones, and its own choice is a fixed point.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given

from isa.decoder import Instruction, decode
from isa.encoder import Prefixes, encode
from isa.operands import EAX, Immediate, Memory, Operand, Register, Relative
from isa.sampling import random_instruction
from isa.strategies import instructions
from isa.table import ROWS

ADDRESS = 0x7000


def written(instruction: Instruction) -> tuple[Operand, ...]:
    """The operands as one would write them: sizes left open where a size would choose a form, those
    of a string instruction left out, and two registers in the order NASM reads them."""
    row = instruction.row
    found: list[Operand] = []
    for operand, code in zip(instruction.operands, row.operands, strict=True):
        if (isinstance(operand, Relative) and code == "Jz") or (
            isinstance(operand, Immediate) and code == "1"
        ):
            found.append(replace(operand, size=0))
        elif code[0] not in "XY":
            found.append(operand)
    if row.order == "reversed" and all(isinstance(o, Register) for o in found):
        found.reverse()
    return tuple(found)


def encoded(instruction: Instruction) -> bytes:
    found = instruction.prefixes
    operands = written(instruction)
    places = any(isinstance(operand, Memory) for operand in operands)
    return encode(
        instruction.mnemonic,
        operands,
        prefixes=Prefixes(
            repeat=None if instruction.row.parsed.repeat else found.repeat,
            lock=found.lock,
            segment=None if places else found.segment,
            operand_size=16 if found.operand_size else 0,
            address_size=16 if found.address_size and not places else 0,
        ),
        far=instruction.row.operands in (("Mp",), ("Ap",)),
        address=instruction.address,
    ).data


def essence(instruction: Instruction) -> tuple[object, ...]:
    """What an instruction does, without how its operands were encoded."""
    operands: list[object] = []
    for operand in instruction.operands:
        if isinstance(operand, Memory):
            operands.append(replace(operand, displacement_size=None))
        elif isinstance(operand, Relative):
            operands.append(operand.target)
        else:
            operands.append(operand)
    if instruction.row.order:
        operands.sort(key=str)
    name = instruction.mnemonic
    return name, operands, replace(instruction.prefixes, count=0)


def is_nop(instruction: Instruction) -> bool:
    """xchg eax, eax, which NASM makes a nop."""
    return instruction.mnemonic == "xchg" and all(
        isinstance(o, Register) and o.number == EAX and o.size > 8 for o in instruction.operands
    )


def check(code: bytes) -> None:
    instruction = decode(code, ADDRESS)
    if is_nop(instruction):
        return
    again = decode(encoded(instruction), ADDRESS)
    what = f"{code.hex()} -> {again.bytes.hex()}"
    assert essence(again) == essence(instruction), what
    assert again.length <= instruction.length, what
    assert encoded(again) == again.bytes, what


def test_every_row_goes_round() -> None:
    rng = random.Random(17)
    for row in ROWS:
        for _ in range(20):
            check(random_instruction(rng, row))


@given(instructions())
def test_any_instruction_goes_round(code: bytes) -> None:
    check(code)
