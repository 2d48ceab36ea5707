"""The tests of the translator can fail: each of its mutants falls to one of them.

As test_sensitivity.py, of the translator: killers_translate.py says what a check is,
killers_translate.txt which kills which. A mutant that nothing can notice has a reason; then nothing
may notice it.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.hypervisor.attempt import first_to_notice
from tests.hypervisor.find_killers_translate import SUITE
from tests.hypervisor.killers import Killer
from tests.hypervisor.killers_translate import everything, notices, prepare
from tests.hypervisor.mutants import Mutant
from tests.hypervisor.mutants_translate import HANDLERS
from tests.hypervisor.survivors_translate import SURVIVORS as REASONS
from tests.hypervisor.translated_kernels import TRANSLATED

KILLERS: Final = SUITE.read()
KINDS: Final = ("kernel", "user", "link back", "mixed", "adaptive")
#: What a mutant that is to survive is held to; the deep tier takes more.
SAMPLE: Final = (
    *(
        Killer(kind, str(seed))
        for kind in ("kernel", "user", "storm", "plain")
        for seed in range(2)
    ),
)
EACH: Final = 15  #: of each kind, in the deep tier
MUST_DIE: Final = [m for m in SUITE.mutants if not m.survives]
SURVIVORS: Final = [m for m in SUITE.mutants if m.survives]


@pytest.mark.parametrize("name", TRANSLATED)
def test_written_kernels(name: str) -> None:
    for kind in KINDS:
        assert notices(Killer(kind, name)) == "", kind


@pytest.mark.parametrize("killer", sorted({*KILLERS.values(), *SAMPLE}), ids=str)
def test_killers_notice_nothing_else(killer: Killer) -> None:
    assert notices(killer) == ""


def noticed(mutant: Mutant, killers: list[Killer]) -> str:
    """What some killers notice of a mutant."""
    for killer in killers:
        prepare(killer)
    found = first_to_notice(mutant.change, [lambda k=k: notices(k) for k in killers])  # type: ignore[misc]
    return f"{killers[found[0]]}: {found[1]}" if found else ""


@pytest.mark.parametrize("mutant", MUST_DIE, ids=lambda m: m.name)
def test_mutants_are_killed(mutant: Mutant) -> None:
    known = [KILLERS[mutant.name]] if mutant.name in KILLERS else []
    assert noticed(mutant, known) or SUITE.find(mutant, []), "nothing notices"


@pytest.mark.parametrize("mutant", SURVIVORS, ids=lambda m: m.name)
def test_mutants_with_a_reason_can_be_made(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.change(monkeypatch)


@pytest.mark.deep
@pytest.mark.parametrize("mutant", SURVIVORS, ids=lambda m: m.name)
def test_mutants_with_a_reason_survive(mutant: Mutant) -> None:
    assert noticed(mutant, list(everything(EACH))) == ""


def test_names_are_unique_and_killers_are_of_mutants() -> None:
    names = [mutant.name for mutant in SUITE.mutants]
    assert len(names) == len(set(names))
    assert set(KILLERS) == {mutant.name for mutant in MUST_DIE}
    assert set(names) >= set(REASONS)


def test_every_handler_has_a_mutant() -> None:
    names = {mutant.name for mutant in SUITE.mutants}
    assert {f"translate: {name} does nothing" for name in HANDLERS} <= names
