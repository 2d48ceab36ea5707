"""The tests of fidelity and isolation can fail: each mutant of the hypervisor falls to one of them.

mutants.py says what a mutant is, killers.py what a check is, killers.txt which kills which. A
mutant that nothing can notice has a reason in its row; then nothing may notice it. Killers are
hints: where one does not kill any more, because the generated kernels have become others, the
rest is tried before a mutant is said to have survived.
"""

from __future__ import annotations

from typing import Final

import pytest

from emulator.core import SEGMENTS, ffi
from hypervisor.emulate import EMULATED
from hypervisor.exits import EVENTS, EXITS
from tests.hypervisor.find_killers import MUTANTS, SUITE, written
from tests.hypervisor.killers import Killer, notices
from tests.hypervisor.mutants import Mutant
from tests.hypervisor.mutants_state import COPIED, NOT_CARRIED
from tests.hypervisor.survivors import SURVIVORS as REASONS

KILLERS: Final = SUITE.read()
#: What a mutant that is to survive is held to; the deep tier takes more.
SAMPLE: Final = (
    *(Killer("trap", str(seed)) for seed in range(6)),
    *(Killer("paravirt", str(seed)) for seed in range(2)),
    Killer("shared", "0"),
)
MUST_DIE: Final = [m for m in MUTANTS if not m.survives]
EACH: Final = {"trap": 60, "interpret": 10, "paravirt": 20, "unruly trap": 20, "shared": 20,
                "tables": 10}  # fmt: skip


def applied(mutant: Mutant, killer: Killer) -> str:
    """What a killer notices of a mutant."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.change(patch)
        return notices(killer)


@pytest.mark.parametrize("killer", sorted({*KILLERS.values(), *SAMPLE}), ids=str)
def test_killers_notice_nothing_else(killer: Killer) -> None:
    assert notices(killer) == ""


@pytest.mark.parametrize("mutant", MUST_DIE, ids=lambda m: m.name)
def test_mutants_are_killed(mutant: Mutant) -> None:
    killer = KILLERS.get(mutant.name)
    assert (killer and applied(mutant, killer)) or SUITE.find(mutant, []), "nothing notices"


SURVIVORS: Final = [mutant for mutant in MUTANTS if mutant.survives]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=lambda m: m.name)
def test_mutants_with_a_reason_can_be_made(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.change(monkeypatch)


@pytest.mark.deep
@pytest.mark.parametrize("mutant", SURVIVORS, ids=lambda m: m.name)
def test_mutants_with_a_reason_survive(mutant: Mutant) -> None:
    killers = [*written()]
    for kind, count in EACH.items():
        killers += [Killer(kind, str(seed)) for seed in range(count)]
    assert {str(k): found for k in killers if (found := applied(mutant, k))} == {}


# -- Nothing is left out ---------------------------------------------------------------------------


def test_names_are_unique_and_killers_are_of_mutants() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
    assert set(KILLERS) == {mutant.name for mutant in MUST_DIE}
    assert set(names) >= set(REASONS)


def test_every_handler_has_mutants() -> None:
    names = " ".join(mutant.name for mutant in MUTANTS)
    for reason in EXITS:
        assert f"no handler of {type(reason)(reason).name}" in names
    for vector in EVENTS:
        assert f"event {vector} is reflected" in names
    for mnemonic in EMULATED:
        assert f"{mnemonic} is interpreted" in names
        assert f"{mnemonic} has no effect" in names


def test_every_field_of_the_state_is_carried_or_said_not_to_be() -> None:
    carried = {place.split()[0] for place in COPIED}
    fields = {name for name, _ in ffi.typeof("CpuState").fields}
    assert fields == carried | set(NOT_CARRIED)
    assert not carried & set(NOT_CARRIED)
    parts = {place.split()[1] for place in COPIED if place.startswith("seg ")}
    assert parts == {str(number) for number in range(len(SEGMENTS))}
