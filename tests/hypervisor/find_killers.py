"""Find a killer for each mutant: python -m tests.hypervisor.find_killers [--write] [WORD...]

Those of killers.txt come first, then whatever has killed another mutant, then all. --write keeps
what was found. Words choose the mutants whose names hold one of them. Read killers.py for what a
killer is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.hypervisor.killers import SPECIAL, Killer, notices
from tests.hypervisor.mutants import Mutant
from tests.hypervisor.mutants_exits import EXIT_MUTANTS
from tests.hypervisor.mutants_memory import MEMORY_MUTANTS
from tests.hypervisor.mutants_shared import SHARED_MUTANTS
from tests.hypervisor.mutants_state import STATE_MUTANTS
from tests.hypervisor.survivors import SURVIVORS
from tests.hypervisor.written_kernels import (
    KERNELS,
    WITH_DESCRIPTORS,
    WITH_GATES,
)

FILE: Final = Path(__file__).with_name("killers.txt")
MUTANTS: Final[tuple[Mutant, ...]] = tuple(
    replace(mutant, survives=SURVIVORS.get(mutant.name, mutant.survives))
    for mutant in (*EXIT_MUTANTS, *STATE_MUTANTS, *MEMORY_MUTANTS, *SHARED_MUTANTS)
)
#: Beside those with descriptors, what ring 3 notices of a kernel that is interpreted.
WITH_INTERPRETED: Final = ("NT in ring 3", "gate", "changed while away, for a user")
#: How many of each kind are tried.
REACH: Final = {
    "trap": 20, "interpret": 10, "paravirt": 10, "unruly trap": 10, "unruly interpret": 5,
    "hostile trap": 10, "shared": 20, "tables": 20,
}  # fmt: skip


def read_killers() -> dict[str, Killer]:
    """The known killer of each mutant, by its name."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    pairs = [line.split(" | ", 1) for line in lines if line and not line.startswith("#")]
    return {name: Killer.parse(killer.strip()) for killer, name in pairs}


def write_killers(killers: dict[str, Killer]) -> None:
    """Keep them, in the order of the mutants."""
    lines = [f"{killers[m.name]!s:<20} | {m.name}" for m in MUTANTS if m.name in killers]
    head = "# Which check kills which mutant: python -m tests.hypervisor.find_killers --write"
    FILE.write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def everything() -> Iterator[Killer]:
    """All killers, the cheap ones first."""
    yield from (Killer(name, "trap") for name in SPECIAL)
    yield from written()
    for start in range(0, max(REACH.values()), 40):
        for kind, count in REACH.items():
            yield from (Killer(kind, str(n)) for n in range(start, min(start + 40, count)))


def written() -> Iterator[Killer]:
    """The kernels written for the purpose."""
    yield from (Killer("paravirt", name) for name in KERNELS)
    # No gate is ever passed but there.
    yield from (Killer("trap", name) for name in KERNELS if name not in WITH_GATES)
    yield from (Killer("interpret", name) for name in WITH_DESCRIPTORS)
    yield from (Killer("interpret", name) for name in WITH_INTERPRETED)


def find(mutant: Mutant, first: list[Killer]) -> tuple[Killer, str] | None:
    """Who kills it, and what was noticed."""
    tried = set()
    for killer in (*first, *everything()):
        if killer in tried:
            continue
        tried.add(killer)
        with pytest.MonkeyPatch.context() as patch:
            mutant.change(patch)
            found = notices(killer)
        if found and not notices(killer):
            return killer, found
    return None


def main() -> None:
    """Look for killers, and say who was found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="keep them in killers.txt")
    parser.add_argument("--new", action="store_true", help="only mutants without a known killer")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    killers = read_killers()
    for mutant in MUTANTS:
        if options.words and not any(word in mutant.name for word in options.words):
            continue
        if mutant.survives or (options.new and mutant.name in killers):
            continue
        start = time.monotonic()
        common = [killer for killer, _ in Counter(killers.values()).most_common()]
        known = [killers[mutant.name]] if mutant.name in killers else []
        found = find(mutant, [*known, *common])
        killers.pop(mutant.name, None)
        if found is not None:
            killers[mutant.name] = found[0]
        words = f"{found[0]}: {found[1][:150]}" if found else "SURVIVES"
        print(f"{mutant.name}: {words} ({time.monotonic() - start:.1f} s)", flush=True)
        if options.write:
            write_killers(killers)


if __name__ == "__main__":
    sys.exit(main())
