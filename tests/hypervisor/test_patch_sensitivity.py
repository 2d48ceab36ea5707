"""The tests of the patcher can fail: each of its mutants falls to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from guests import find
from tests.hypervisor.hidden_reads import HIDDEN_READS, OTHER_SPACES
from tests.hypervisor.killers import bounded
from tests.hypervisor.mutants_patch import MUTANTS, PatcherMutant
from tests.hypervisor.patched_sources import SOURCES
from tests.hypervisor.test_code_changes import differs, random_changes
from tests.hypervisor.test_differential import patch_strict
from tests.hypervisor.test_fuzz import TICKS, draw
from tests.hypervisor.test_patch import difference, manifest_difference
from tests.hypervisor.twins import run_twins
from tests.hypervisor.written_kernels import KERNELS, written_kernel

STRICT: Final = "patch --strict"
KERNELS_OF_OURS: Final = {**SOURCES, **HIDDEN_READS, **OTHER_SPACES}
BY_DEFAULT: Final = "by default "
KINDS: Final[dict[str, Callable[[int], Any]]] = {
    "kernel": patch_strict,
    "changes": lambda seed: differs(random_changes(seed), STRICT),
    "unruly": lambda seed: run_twins(draw(seed), STRICT, TICKS, timer=seed % 3 == 0),
}
#: What a mutant that is to survive is held to.
SAMPLE: Final = ("kernel 4", "changes 0", "changes 2", "selfmod")


def notices(killer: str) -> bool:
    """Whether a run differs, or the hypervisor fails, or gets nowhere."""
    kind, _, number = killer.rpartition(" ")
    with bounded():
        try:
            if killer in KERNELS_OF_OURS:
                return difference(KERNELS_OF_OURS[killer], STRICT) is not None
            if kind in KINDS:
                return bool(KINDS[kind](int(number)))
            by_default = killer.startswith(BY_DEFAULT)
            name, technique = killer.removeprefix(BY_DEFAULT), "patch" if by_default else STRICT
            if name in KERNELS:
                return differs(written_kernel(name), technique) is not None
            return manifest_difference(find(name), technique) is not None
        except Exception:
            return True  # an assertion, a place that is not there: it has noticed


@pytest.mark.parametrize("killer", sorted({*SAMPLE, *(m.killer for m in MUTANTS if m.killer)}))
def test_killers_notice_nothing_else(killer: str) -> None:
    assert not notices(killer)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_are_killed(mutant: PatcherMutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those with a reason, which nothing may notice."""
    assert bool(mutant.killer) != bool(mutant.survives)
    mutant.change(monkeypatch)
    if mutant.killer:
        assert notices(mutant.killer)
    else:
        assert not [killer for killer in SAMPLE if notices(killer)]
