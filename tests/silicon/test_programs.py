"""Programs of many instructions, run freely: against silicon, and against Unicorn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.oracles.native import Native
from tests.silicon.compare import agree_but_for, describe
from tests.silicon.oracle import Silicon
from tests.silicon.programs import Program, programs

SHOWN = 5


def batches(seed: int, count: int) -> list[list[Program]]:
    """`count` programs, 200 at a time."""
    return [list(programs(seed + at, min(200, count - at))) for at in range(0, count, 200)]


def hold_against_silicon(silicon: Silicon, seed: int, count: int) -> None:
    """Fail with the programs whose outcome differs."""
    native = Native(silicon.low_mapped)
    wrong = []
    for batch in batches(seed, count):
        # Every fourth is stepped through under TF; both must come to the INT3 all the same.
        steps = [64 if number % 4 == 0 else 0 for number in range(len(batch))]
        cases = [replace(p.case, steps=n) for p, n in zip(batch, steps, strict=True)]
        outcomes = silicon.run_batch(cases), native.run_batch(cases)
        for program, theirs, ours in zip(batch, *outcomes, strict=True):
            if not agree_but_for("silicon", program.undefined_after(theirs), theirs, ours):
                wrong.append(describe(program.rows, program.case, theirs, ours))
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:SHOWN])


def hold_against_unicorn(seed: int, count: int) -> None:
    """Fail with the programs whose outcome differs."""
    pytest.importorskip("unicorn", reason="the unicorn package is not installed")
    from tests.oracles.unicorn import Unicorn

    unicorn, native = Unicorn(3), Native()
    wrong, asked = [], 0
    for batch in batches(seed, count):
        for program in batch:
            if program.unasked("unicorn"):
                continue
            asked += 1
            (theirs,), (ours,) = (who.run_batch([program.case]) for who in (unicorn, native))
            if not agree_but_for("unicorn", program.undefined_after(theirs), theirs, ours):
                wrong.append(describe(program.rows, program.case, theirs, ours))
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:SHOWN])
    assert asked > count // 2


def test_silicon(silicon: Silicon) -> None:
    hold_against_silicon(silicon, seed=3, count=4000)


def test_unicorn() -> None:
    hold_against_unicorn(seed=4, count=1000)


@pytest.mark.deep
def test_silicon_deep(silicon: Silicon) -> None:
    hold_against_silicon(silicon, seed=1_000_000, count=60_000)


@pytest.mark.deep
def test_unicorn_deep() -> None:
    hold_against_unicorn(seed=2_000_000, count=20_000)
