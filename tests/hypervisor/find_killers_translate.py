"""Find killers of the translator's mutants: python -m tests.hypervisor.find_killers_translate

With the options of find_killers.py: --new --write for those that have none. Read
killers_translate.py for what a killer is.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.hypervisor import killers_translate, mutants_translate, mutants_translation
from tests.hypervisor.find_killers import Suite, main
from tests.hypervisor.survivors_translate import SURVIVORS

SUITE: Final = Suite(
    Path(__file__).with_name("killers_translate.txt"),
    tuple(
        replace(mutant, survives=SURVIVORS.get(mutant.name, mutant.survives))
        for mutant in (*mutants_translate.MUTANTS, *mutants_translation.MUTANTS)
    ),
    killers_translate.everything,
    killers_translate.parse,
    killers_translate.prepare,
    killers_translate.notices,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
