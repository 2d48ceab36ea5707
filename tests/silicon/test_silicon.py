"""Is every user-mode instruction what silicon makes of it?

The fast tier runs a fixed sample, the deep tier a million and more from other seeds. A failure
prints the first disagreements, one for each row; `describe` shows both outcomes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from isa.table import ROWS
from tests.oracles.case import CF, OF, ZONE, ZONE_END, Case, Fault, Outcome
from tests.oracles.deviations import never_asked
from tests.oracles.native import Native
from tests.silicon.compare import agree, describe
from tests.silicon.generator import Generator, Sample, asked_rows
from tests.silicon.oracle import Silicon

FAST = 60_000
DEEP = 1_200_000
SHOWN = 12


@pytest.fixture(scope="module")
def native(silicon: Silicon) -> Native:
    """Our core, in the surroundings that silicon has."""
    return Native(silicon.low_mapped)


def touches_the_oracle(outcome: Outcome) -> bool:
    """True if the case reached for the helper's own memory, where silicon has no fault to show."""
    fault = outcome.fault
    return fault is not None and fault.address is not None and ZONE <= fault.address < ZONE_END


def both(
    silicon: Silicon, native: Native, seed: int, count: int
) -> Iterator[tuple[Sample, Outcome, Outcome]]:
    """Samples of a seed, with silicon's outcome and ours.

    Ours comes first: a case that reaches for the helper's own memory must not run there.
    """
    for group in Generator(seed).groups(count):
        ours = native.run_batch(sample.case for sample in group)
        pairs = [(s, o) for s, o in zip(group, ours, strict=True) if not touches_the_oracle(o)]
        theirs = silicon.run_batch(sample.case for sample, _ in pairs)
        for (sample, own), outcome in zip(pairs, theirs, strict=True):
            yield sample, outcome, own


def hold_against_silicon(silicon: Silicon, native: Native, seed: int, count: int) -> None:
    """Fail with the disagreements of `count` samples."""
    wrong: Counter[int] = Counter()
    reports: dict[int, str] = {}
    ran: Counter[int] = Counter()
    asked = 0
    for sample, theirs, ours in both(silicon, native, seed, count):
        row = sample.row
        asked += 1
        if not agree(row, sample.case, theirs, ours):
            wrong[row.id] += 1
            reports.setdefault(row.id, describe(row, sample.case, theirs, ours))
        else:
            ran[row.id] += ours.fault is None or ours.fault.vector == 3
    shown = list(reports.values())[:SHOWN]
    total = wrong.total()
    assert not wrong, f"{total} of {count}, {len(wrong)} rows:\n" + "\n".join(shown)
    assert asked > count - count // 1000
    for row in asked_rows():
        assert ran[row.id] or row.privilege or row.mnemonic in ("int", "ud2"), f"{row} never ran"


def test_sample(silicon: Silicon, native: Native) -> None:
    hold_against_silicon(silicon, native, seed=17, count=FAST)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(100, 106))
def test_million(silicon: Silicon, native: Native, seed: int) -> None:
    hold_against_silicon(silicon, native, seed, DEEP // 6)


def test_every_user_mode_row_is_asked() -> None:
    left_out = {row.mnemonic for row in ROWS} - {row.mnemonic for row in asked_rows()}
    assert left_out == {"sgdt", "sidt", "sldt", "smsw", "str", "cpuid", "rdtsc"}
    assert all(never_asked(row) for row in ROWS if row.mnemonic in left_out)


def test_a_seed_gives_one_sequence() -> None:
    first, second = ([s.case for group in Generator(5).groups(300) for s in group] for _ in "ab")
    assert first == second


def test_comparison_forgives_the_undefined_alone(silicon: Silicon) -> None:
    """SHL by 2 leaves OF undefined, but not CF; SHL by 1 defines both."""
    row = next(row for row in ROWS if row.opcode == "C1 /4 ib")
    for count, undefined in ((2, OF), (1, 0)):
        case = Case(bytes((0xC1, 0xE0, count)), registers=(0x40000001,) + (0,) * 7)
        (outcome,) = silicon.run_batch([case])
        for flag in (OF, CF):
            other = replace(outcome, eflags=outcome.eflags ^ flag)
            assert agree(row, case, outcome, other) == (flag == undefined)
        assert not agree(row, case, outcome, replace(outcome, fault=Fault(13)))
        assert not agree(row, case, outcome, replace(outcome, memory=b"\1" + outcome.memory[1:]))
