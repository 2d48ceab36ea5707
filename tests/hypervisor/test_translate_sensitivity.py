"""The tests of the translator can fail: each of its mutants falls to one of them."""

from __future__ import annotations

import pytest

from guests import find
from hypervisor.experiments.observe import Difference, MachineRun, NativeRun, compare
from hypervisor.vm import VirtualMachine
from isa import assemble_file
from tests.hypervisor.mutants_translate import MUTANTS, TranslatorMutant
from tests.hypervisor.test_code_changes import WAYS, differs, random_changes
from tests.hypervisor.test_differential import translate, translate_user


def manifest(name: str) -> Difference | None:
    guest = find(name)
    program = assemble_file(guest.source, include=guest.includes)
    native = NativeRun(program, ram=guest.ram, console_in=guest.input)
    native.run(guest.ticks)
    vm = VirtualMachine(ram=guest.ram, technique="translate", console_in=guest.input)
    run = MachineRun(vm, program)
    run.run(guest.ticks)
    return compare(native.observe(), run.observe())


def notices(killer: str) -> bool:
    """Whether a run differs, or the hypervisor fails."""
    kind, _, number = killer.rpartition(" ")
    try:
        if kind in WAYS:
            return differs(random_changes(int(number)), kind) is not None
        if kind in ("kernel", "user"):
            return {"kernel": translate, "user": translate_user}[kind](int(number)) is not None
        return manifest(killer) is not None
    except Exception:
        return True  # an assertion, a place that is not there: it has noticed


@pytest.mark.parametrize("killer", sorted({mutant.killer for mutant in MUTANTS}))
def test_killers_notice_nothing_else(killer: str) -> None:
    assert not notices(killer)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_are_killed(mutant: TranslatorMutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.change(monkeypatch)
    assert notices(mutant.killer)
