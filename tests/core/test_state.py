"""How a run is cut makes no difference: registers, flags, memory, ticks, cycles, device accesses.

A block of many instructions, chained to the next, with dead flags removed and comparisons fused,
must do what its instructions do one at a time, each decoded afresh; and whoever stops a CPU, saves
it and loads it again must not be able to tell, at whatever tick or exit. Programs are drawn from
all rows of the table, see samples.py.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.core.samples import PROGRAM_ROWS, STRING_ROWS, bytes_setup, program
from tests.core.world import SINGLE, SINGLE_SAVED, WHOLE, Plan, Setup, World, flushed, ragged

TICKS = 400
FAST, DEEP = 60, 4000  #: setups for each kind of plan


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def check(world: World, setup: Setup, plan: Plan, ticks: int = TICKS) -> None:
    expected = world.run(setup, ticks, WHOLE)
    found = world.run(setup, ticks, plan)
    assert not expected.differences(found), f"{plan.name}: {setup}"


def plans(seed: int) -> tuple[Plan, ...]:
    return SINGLE, ragged(seed), flushed(seed)


DRAWS: dict[str, Callable[[Random], Setup]] = {
    "programs": program,
    "strings": lambda rng: program(rng, STRING_ROWS, 8),
    "short": lambda rng: program(rng, PROGRAM_ROWS, 4),
    "bytes": bytes_setup,
}


@pytest.mark.parametrize("kind", DRAWS)
def test_cuts_change_nothing(world: World, kind: str) -> None:
    for seed in range(FAST):
        setup = DRAWS[kind](Random(f"{kind} {seed}"))
        for plan in plans(seed):
            check(world, setup, plan)


@pytest.mark.parametrize("kind", DRAWS)
def test_snapshots_change_nothing(world: World, kind: str) -> None:
    for seed in range(FAST // 6):
        check(world, DRAWS[kind](Random(f"{kind} {seed}")), SINGLE_SAVED, TICKS // 4)


@pytest.mark.deep
@pytest.mark.parametrize("kind", DRAWS)
def test_cuts_change_nothing_deep(world: World, kind: str) -> None:
    for seed in range(FAST, DEEP):
        setup = DRAWS[kind](Random(f"{kind} {seed}"))
        check(world, setup, plans(seed)[seed % 3])
        if seed % 20 == 0:
            check(world, setup, SINGLE_SAVED, TICKS // 4)
