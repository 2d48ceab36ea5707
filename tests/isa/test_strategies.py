"""The generators draw what they promise: legal encodings, all forms, programs that end."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from isa.decoder import Instruction, decode
from isa.operands import Immediate, Memory, Register, Relative
from isa.row import Row
from isa.sampling import aim, jump_rows, random_instruction, user_rows
from isa.strategies import (
    EFLAGS_FIXED,
    Program,
    Window,
    eflags,
    instructions,
    programs,
    random_program,
    registers,
)
from isa.table import ROWS

WINDOW = Window(0x200000, 0x2000)


def place_of(instruction: Instruction) -> Memory | None:
    return next((o for o in instruction.operands if isinstance(o, Memory)), None)


def address_of(place: Memory, values: dict[int, int]) -> int:
    """The offset a 32-bit memory operand reaches."""
    offset = place.displacement
    if place.base is not None:
        offset += values[place.base]
    if place.index is not None:
        offset += values[place.index] * place.scale
    return offset & 0xFFFFFFFF


@pytest.fixture(scope="module")
def drawn() -> dict[Row, list[Instruction]]:
    rng = random.Random(17)
    found: dict[Row, list[Instruction]] = defaultdict(list)
    for row in ROWS:
        for _ in range(150):
            found[row].append(decode(random_instruction(rng, row)))
    return found


def test_every_instruction_is_of_its_row(drawn: dict[Row, list[Instruction]]) -> None:
    for row, found in drawn.items():
        assert {instruction.row for instruction in found} == {row}


def test_both_operand_sizes(drawn: dict[Row, list[Instruction]]) -> None:
    for row, found in drawn.items():
        sizes = {16, 32} if row.parsed.operand_size is None else {row.parsed.operand_size}
        assert {instruction.operand_size for instruction in found} == sizes, row


def test_registers_and_memory(drawn: dict[Row, list[Instruction]]) -> None:
    """Where ModRM may name either, both are drawn, with each displacement size and SIB."""
    for row, found in drawn.items():
        if not row.parsed.modrm or not any(code[0] == "E" for code in row.operands):
            continue
        places = [place for i in found if (place := place_of(i))]
        assert 0 < len(places) < len(found), row
        assert {0, 8, 16, 32} == {place.displacement_size for place in places}, row
        assert any(p.index is not None and p.address_size == 32 for p in places), row


def test_prefixes_that_mean_something(drawn: dict[Row, list[Instruction]]) -> None:
    for row, found in drawn.items():
        repeats = {i.prefixes.repeat for i in found} - ({0xF3} if row.parsed.repeat else set())
        assert repeats - {None} == ({0xF2, 0xF3} if row.rep else set()), row
        locks = any(i.prefixes.lock for i in found)
        assert locks == (row.lock and row.operands[0][0] in "EM"), row


def test_conditions_and_register_numbers(drawn: dict[Row, list[Instruction]]) -> None:
    for row, found in drawn.items():
        if row.parsed.low == "cc":
            assert {i.condition for i in found} == set(range(16)), row


def test_without_prefixes_none_is_drawn() -> None:
    rng = random.Random(1)
    for row in ROWS:
        prefixes = decode(random_instruction(rng, row, prefixes=False)).prefixes
        needed = row.parsed.repeat + (row.parsed.operand_size == 16)
        assert prefixes.count == needed, row


def test_a_seed_fixes_everything() -> None:
    one, other = random.Random(9), random.Random(9)
    assert [random_instruction(one, row) for row in ROWS] == [
        random_instruction(other, row) for row in ROWS
    ]
    assert random_program(one, WINDOW) == random_program(other, WINDOW)


# -- Under Hypothesis --------------------------------------------------------------------------


@given(instructions())
def test_instructions_decode(code: bytes) -> None:
    assert decode(code).bytes == code


@given(instructions(user_rows()))
def test_user_rows_are_safe(code: bytes) -> None:
    row = decode(code).row
    assert row.verdict == "safe"
    assert not row.ends


def test_instructions_shrink() -> None:
    code = find(instructions(), lambda code: place_of(decode(code)) is not None)
    assert len(code) <= 3


@given(registers(), eflags("oszapc"))
def test_states(values: tuple[int, ...], flags: int) -> None:
    assert len(values) == 8
    assert all(0 <= value < 1 << 32 for value in values)
    assert flags & ~0x8D5 == EFLAGS_FIXED


@given(instructions(address_16=False), st.integers(0x1000, 0xFFFF0000))
def test_aim_reaches_the_target(code: bytes, target: int) -> None:
    instruction = decode(code)
    place = place_of(instruction)
    if place is None or (place.base is None and place.index is None):
        return
    if len([o for o in instruction.operands if isinstance(o, Memory)]) > 1:
        return
    reached = address_of(place, aim(instruction, target))
    assert (target - reached) % (1 << 32) <= 8


@given(programs(WINDOW))
def test_programs_only_go_forward(program: Program) -> None:
    found = program.instructions
    starts = {i.address for i in found}
    for instruction in found:
        for operand in instruction.operands:
            if isinstance(operand, Relative):
                assert operand.target in starts
                assert operand.target > instruction.address
    assert found[-1].bytes == program.terminator
    assert {i.row for i in found[:-1]} <= {*user_rows(), *jump_rows()}


@settings(max_examples=50)
@given(programs(WINDOW, jumps=False))
def test_programs_address_the_window(program: Program) -> None:
    """Each plain memory operand lies in the window, by the moves that stand right before it."""
    values: dict[int, int] = {}
    for instruction in program.instructions:
        place = place_of(instruction)
        if instruction.row.opcode == "B8+r iz" and not instruction.prefixes.operand_size:
            register, value = instruction.operands
            assert isinstance(register, Register)
            assert isinstance(value, Immediate)
            values[register.number] = value.value
            continue
        if place is not None and instruction.row.operands[0] != "M":
            reached = address_of(place, values)
            assert WINDOW.start <= reached < WINDOW.start + WINDOW.length, instruction
