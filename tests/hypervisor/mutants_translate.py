"""Mutants of the translator: what keeps translations true, disabled one at a time.

mutants.py says what a mutant is. What kills these are runs under `translate`, named here beside
each: ``kernel 17`` and ``user 17`` are generated kernels (test_differential.py), ``plain 3``,
``adaptive 3`` and so on code that changes, followed in that way (test_code_changes.py), and a bare
name is a guest of the manifest. test_translate_sensitivity.py runs them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from hypervisor.translator.area import put_registers_back
from hypervisor.translator.cache import Cache
from hypervisor.translator.codepages import CodePages
from hypervisor.translator.coherence import Coherence
from hypervisor.translator.engine import Translator
from tests.hypervisor.mutants import Change, edit, value


class TranslatorMutant(NamedTuple):
    """What is disabled, and which run shows it."""

    name: str
    change: Change
    killer: str


def _nothing(*given: Any) -> None:
    del given


def _kept(cache: Cache, link: Any) -> None:
    del cache
    link.target = None


MUTANTS: Final = [
    TranslatorMutant(
        "coherence: units whose source has changed are kept",
        edit(Coherence.written, "self._source(unit) != unit.source", "False"),
        "selfmod",
    ),
    TranslatorMutant(
        "coherence: code that has moved stays", value(Coherence, "check", _nothing), "plain 4"
    ),
    TranslatorMutant(
        "engine: control registers are not looked at",
        value(Translator, "_check_controls", _nothing),
        "plain 4",
    ),
    TranslatorMutant(
        "engine: code is translated while TF is set",
        edit(Translator._can_translate, "EFLAGS_TF | EFLAGS_RF", "EFLAGS_RF"),
        "kernel 4",
    ),
    TranslatorMutant(
        "engine: code is translated while it is watched",
        edit(Translator._can_translate, " or state.dr[7] & DR7_ENABLED", ""),
        "kernel 4",
    ),
    TranslatorMutant(
        "cache: what leads to a sleeping unit still does",
        value(Cache, "_unchain", _kept),
        "plain 4",
    ),
    TranslatorMutant(
        "cache: all instructions count", value(CodePages, "set_weights", _nothing), "rings"
    ),
    TranslatorMutant(
        "cache: targets outlive their unit", value(Cache, "_forget_target", _nothing), "selfmod"
    ),
    TranslatorMutant(
        "area: registers are not put back",
        edit(put_registers_back, "if not place.lost and not place.released:", "if True:"),
        "plain 4",
    ),
]
