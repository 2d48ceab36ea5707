"""The tests of guest mode can fail: each of its mutants falls to one of them."""

from __future__ import annotations

import pytest

from tests.hypervisor.mutants_hardware import MUTANTS, HardwareMutant
from tests.hypervisor.test_differential import hardware, hardware_on_shadows, unmodified
from tests.hypervisor.test_fuzz import TICKS, draw
from tests.hypervisor.twins import OnShadows, run_twins
from tests.hypervisor.written_kernels import KERNELS, written_kernel


def notices(killer: str) -> bool:
    """Whether a run differs, or the hypervisor fails."""
    kind, _, name = killer.partition(": ")
    try:
        if name in KERNELS:
            return unmodified(written_kernel(name), technique="hardware", mmu=kind) is not None
        seed = int(name)
        if kind in ("nested", "shadow"):
            return {"nested": hardware, "shadow": hardware_on_shadows}[kind](seed) is not None
        technique = {"nested fuzz": "hardware", "shadow fuzz": OnShadows}[kind]
        return bool(run_twins(draw(seed), technique, TICKS, timer=seed % 3 == 0))
    except Exception:
        return True  # an assertion, a page that is not there: it has noticed


@pytest.mark.parametrize("killer", sorted({m.killer for m in MUTANTS if m.killer}))
def test_killers_notice_nothing_else(killer: str) -> None:
    assert not notices(killer)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_are_killed(mutant: HardwareMutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.change(monkeypatch)
    if not mutant.killer:
        assert mutant.survives
        return
    assert notices(mutant.killer)
