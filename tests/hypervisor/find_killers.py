"""Find a killer for each mutant: python -m tests.hypervisor.find_killers [--write] [WORD...]

Those of killers.txt come first, then whatever has killed another mutant, then all; each attempt has
a process of its own. --write keeps what was found. Words choose the mutants whose names hold one of
them. Read killers.py for what a killer is. find_killers_translate.py does it for the translator.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from tests.hypervisor import killers
from tests.hypervisor.attempt import first_to_notice
from tests.hypervisor.killers import SPECIAL, Killer
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


AT_ONCE: Final = 60  #: attempts that are prepared together


class Suite(NamedTuple):
    """Mutants, and what is to kill them."""

    file: Path  #: with the known killer of each
    mutants: Sequence[Mutant]
    everything: Callable[[], Iterator[Killer]]
    parse: Callable[[str], Killer]
    prepare: Callable[[Killer], None]
    notices: Callable[[Killer], str]

    def read(self) -> dict[str, Killer]:
        """The known killer of each mutant, by its name."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        pairs = [line.split(" | ", 1) for line in lines if line and not line.startswith("#")]
        return {name: self.parse(killer.strip()) for killer, name in pairs}

    def write(self, known: dict[str, Killer]) -> None:
        """Keep them, in the order of the mutants."""
        lines = [f"{known[m.name]!s:<20} | {m.name}" for m in self.mutants if m.name in known]
        module = Path(sys.argv[0]).stem
        head = f"# Which check kills which mutant: python -m tests.hypervisor.{module} --write"
        self.file.write_text("\n".join([head, *lines, ""]), encoding="utf-8")

    def find(self, mutant: Mutant, first: list[Killer]) -> tuple[Killer, str] | None:
        """Who kills it, and what was noticed."""
        waiting = dict.fromkeys((*first, *self.everything()))
        while waiting:
            some = list(islice(waiting, AT_ONCE))
            for killer in some:
                self.prepare(killer)
            found = first_to_notice(mutant.change, [partial(self.notices, k) for k in some])
            if found is None:
                waiting = dict.fromkeys(list(waiting)[len(some) :])
                continue
            number, words = found
            if not self.notices(some[number]):
                return some[number], words
            waiting = dict.fromkeys(list(waiting)[number + 1 :])
        return None


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


SUITE: Final = Suite(FILE, MUTANTS, everything, Killer.parse, killers.prepare, killers.notices)


def main(suite: Suite = SUITE) -> None:
    """Look for killers, and say who was found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="keep them in the list")
    parser.add_argument("--new", action="store_true", help="only mutants without a known killer")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    known = suite.read()
    for mutant in suite.mutants:
        if options.words and not any(word in mutant.name for word in options.words):
            continue
        if mutant.survives or (options.new and mutant.name in known):
            continue
        start = time.monotonic()
        common = [killer for killer, _ in Counter(known.values()).most_common()]
        own = [known[mutant.name]] if mutant.name in known else []
        found = suite.find(mutant, [*own, *common])
        known.pop(mutant.name, None)
        if found is not None:
            known[mutant.name] = found[0]
        words = f"{found[0]}: {found[1][:150]}" if found else "SURVIVES"
        print(f"{mutant.name}: {words} ({time.monotonic() - start:.1f} s)", flush=True)
        if options.write:
            suite.write(known)


if __name__ == "__main__":
    sys.exit(main())
