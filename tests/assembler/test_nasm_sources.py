"""Bytes against NASM: whole sources, random programs of jumps, random expressions, every guest."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from isa.assembler import assemble, assemble_file
from isa.assembler.expressions import OPERATORS
from tests.assembler import nasm

pytestmark = pytest.mark.skipif(not nasm.available, reason=nasm.MISSING)

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT / "tests/assembler/sources.txt").read_text(encoding="utf-8").split("\n---\n")
GUESTS = sorted((ROOT / "guests").rglob("*.asm"))


def compare(source: str, tmp_path: Path) -> None:
    theirs, said = nasm.run(source)
    assert theirs is not None, f"nasm refuses this source:\n{said}"
    path = tmp_path / "source.asm"
    path.write_text(source, encoding="utf-8")
    ours = assemble(source, name=str(path), origin=0).flat()
    assert ours.hex() == theirs.hex(), source


@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_source(number: int, tmp_path: Path) -> None:
    compare("bits 32\n" + SOURCES[number], tmp_path)


def jump_program(rng: random.Random) -> str:
    """Labels, jumps to them near the limits of a short jump, and sizes that depend on them."""
    count = rng.randrange(5, 60)
    lines = ["bits 32"]
    for number in range(count):
        lines.append(f"l{number}:")
        target = f"l{rng.randrange(count)}"
        near = f"l{max(0, min(count - 1, number + rng.randrange(-6, 7)))}"
        statement = rng.choice(
            [
                f"jmp {near}", f"jz {near}", f"jnae {near}", f"call {target}", f"jmp {target}",
                f"times {rng.randrange(40)} nop", f"times {rng.randrange(20)} db 1",
                f"push {near} - l0", f"add eax, {near} - {target}", f"push {near} - l{number}",
                f"mov [ebx + {near} - l{number}], eax", f"cmp ecx, {near}",
                f"align {1 << rng.randrange(6)}",
                f"mov eax, [{target}]", f"imul eax, ecx, {near} - l{number}", f"jmp near {near}",
                f"lea edx, [{target} + ecx * 4]", f"jecxz l{number}", f"dd {target}, {near} - $$",
            ]
        )  # fmt: skip
        lines.append("    " + statement)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(40))
def test_jumps(seed: int, tmp_path: Path) -> None:
    compare(jump_program(random.Random(seed)), tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("start", range(100, 1100, 100))
def test_more_jumps(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 100):
        compare(jump_program(random.Random(seed)), tmp_path)


def expression(rng: random.Random, depth: int) -> str:
    """An expression whose operators all have defined results."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(
            [str(rng.randrange(300)), hex(rng.randrange(1 << 32)), "0b1011", "'ab'", "17q",
             f"-{rng.randrange(9)}", "five", "(b - a)", "0ffh", "1_000"]
        )  # fmt: skip
    kind = rng.randrange(8)
    inner = expression(rng, depth - 1)
    if kind == 0:
        return f"{rng.choice('-~!+')}({inner})"
    if kind == 1:
        return f"({inner})"
    if kind == 2:
        return f"({inner} ? {expression(rng, depth - 1)} : {expression(rng, depth - 1)})"
    operator = rng.choice(sorted(OPERATORS))
    right = expression(rng, depth - 1)
    if operator in ("/", "//", "%", "%%"):
        right = str(rng.randrange(1, 50))
    elif "<<" in operator or ">>" in operator:
        right = str(rng.randrange(64))
    return f"{inner} {operator} {right}"


def expressions_program(seed: int) -> str:
    rng = random.Random(seed)
    lines = ["bits 32", "five equ 5", "a: times 7 nop", "b:"]
    lines += [f"    dq {expression(rng, 4)}" for _ in range(100)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(12))
def test_expressions(seed: int, tmp_path: Path) -> None:
    compare(expressions_program(seed), tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("start", range(100, 300, 50))
def test_more_expressions(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 50):
        compare(expressions_program(seed), tmp_path)


@pytest.mark.parametrize("path", GUESTS, ids=lambda path: str(path.relative_to(ROOT / "guests")))
def test_guest(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    library = ROOT / "guests/lib"
    theirs, said = nasm.run(source, include=[path.parent, library])
    assert theirs is not None, said
    ours = assemble_file(path, include=[library])
    assert ours.flat().hex() == theirs.hex()
