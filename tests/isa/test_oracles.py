"""The decoder against capstone, objdump and ndisasm: every row, forms drawn by a fixed seed.

What an oracle sees is brought into one form by `views.py`; what still differs must be named in
`deviations.py`.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isa.decoder import Instruction, decode
from isa.sampling import random_instruction
from isa.table import ROWS
from tests.isa.deviations import DEVIATIONS, deviation
from tests.isa.views import (
    SLOT,
    View,
    capstone_views,
    ndisasm_lengths,
    objdump_views,
    ours,
    settle,
)

FAST, DEEP = 40, 1000  # instructions per row


def draw(seed: int, per_row: int) -> list[Instruction]:
    """`per_row` instructions of each row; number n is decoded at address n * SLOT."""
    rng = random.Random(seed)
    found: list[Instruction] = []
    for row in ROWS:
        for _ in range(per_row):
            code = random_instruction(rng, row)
            instruction = decode(code, len(found) * SLOT)
            assert instruction.row is row, f"{code.hex()}: drawn as {row}, is {instruction.row}"
            assert instruction.bytes == code
            found.append(instruction)
    return found


def _relax(view: View, how: str) -> View:
    if how == "length":
        return View("", (), view.length)
    if how == "all but prefixes":
        return replace(view, prefixes=frozenset())
    if how == "target modulo 2**16":
        targets = tuple((kind, int(str(value)) & 0xFFFF) for kind, value in view.operands)
        return replace(view, operands=targets)
    assert how == "register numbers", how
    names = tuple(
        (kind, str(rest[0]).removeprefix("e"), *rest[1:]) for kind, *rest in view.operands
    )
    return replace(view, operands=names)


def compare(oracle: str, instructions: list[Instruction], views: list[View | None]) -> None:
    """Fail with every difference that no deviation excuses."""
    differences = []
    for instruction, found in zip(instructions, views, strict=True):
        mine = ours(instruction)
        theirs = None if found is None else settle(found, instruction)
        excuse = deviation(oracle, instruction)
        if excuse is not None and excuse.relaxed == "nothing":
            continue
        if excuse is not None and theirs is not None:
            mine, theirs = _relax(mine, excuse.relaxed), _relax(theirs, excuse.relaxed)
        if mine != theirs:
            differences.append(f"{instruction.bytes.hex()}: ours {mine}, {oracle}'s {theirs}")
    assert not differences, f"{len(differences)} differ\n" + "\n".join(differences[:20])


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def against_capstone(instructions: list[Instruction], folder: Path) -> None:
    cases = [(i.bytes, i.address) for i in instructions]
    compare("capstone", instructions, capstone_views(cases))


def against_objdump(instructions: list[Instruction], folder: Path) -> None:
    need("objdump")
    cases = [(i.bytes, i.address) for i in instructions]
    compare("objdump", instructions, objdump_views(cases, folder))


def against_ndisasm(instructions: list[Instruction], folder: Path) -> None:
    need("ndisasm")
    cases = [(i.bytes, i.address) for i in instructions]
    lengths = ndisasm_lengths(cases, folder)
    differences = [
        f"{i.bytes.hex()}: {length} bytes"
        for i, length in zip(instructions, lengths, strict=True)
        if length != i.length and deviation("ndisasm", i) is None
    ]
    assert not differences, f"{len(differences)} differ\n" + "\n".join(differences[:20])


ORACLES = pytest.mark.parametrize("against", [against_capstone, against_objdump, against_ndisasm])


@ORACLES
def test_decode_as_the_oracle(
    against: Callable[[list[Instruction], Path], None], tmp_path: Path
) -> None:
    against(draw(17, FAST), tmp_path)


@pytest.mark.deep
@ORACLES
def test_decode_as_the_oracle_deep(
    against: Callable[[list[Instruction], Path], None], tmp_path: Path
) -> None:
    for seed in range(10):
        against(draw(1700 + seed, DEEP // 10), tmp_path)


def test_every_deviation_is_met() -> None:
    """A deviation no instruction needs is an excuse in waiting."""
    met: Counter[str] = Counter()
    for instruction in draw(17, FAST):
        for candidate in DEVIATIONS:
            met[candidate.reason] += candidate.excuses(instruction)
    assert not [d.reason for d in DEVIATIONS if not met[d.reason]]


def test_a_wrong_view_is_noticed() -> None:
    """The comparison itself can fail: a wrong length, operand or mnemonic is a difference."""
    (instruction,) = [decode(bytes.fromhex("83c005"))]
    right = ours(instruction)
    compare("capstone", [instruction], [right])
    for wrong in (
        replace(right, mnemonic="sub"),
        replace(right, length=2),
        replace(right, operands=(("reg", "eax"), ("imm", 6))),
        replace(right, prefixes=frozenset({"lock"})),
        None,
    ):
        with pytest.raises(AssertionError, match="1 differ"):
            compare("capstone", [instruction], [wrong])
