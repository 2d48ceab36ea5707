"""All rows, or those asked for: the experiment, the witnesses, and the repairs.

`classify` is the library call behind `seventeen classify`:

    survey = classify(["popf"])
    print(survey.findings[0].witness)

With `virtualizable` the unsafe rows of the mnemonics named are made to raise #GP(0) above CPL 0, as
`Machine(virtualizable=...)` does, and classified again. Which rows are unsafe is what the
experiment has found, not what the table says. Read theorems.py next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hypervisor.errors import ExperimentError
from hypervisor.experiments.classify.states import Bench
from hypervisor.experiments.classify.verdicts import Verdict, examine
from hypervisor.experiments.classify.witness import Witness, find_witness
from isa.row import Row
from isa.table import ROWS, rows_of

#: The classes, in the order of the lecture notes, and what they mean.
CLASSES: Final = {
    "safe": "the same in every ring, wherever things lie",
    "privileged": "traps above CPL 0 and not at CPL 0",
    "sensitive": "sensitive, and privileged",
    "unsafe": "sensitive, and not privileged",
}
#: Called with how many rows are done, of how many, and the row that comes next.
Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Finding:
    """A row's verdict; and if it is unsafe, a witness."""

    verdict: Verdict
    witness: Witness | None = None

    @property
    def row(self) -> Row:
        return self.verdict.row


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found, in the table's order."""

    findings: tuple[Finding, ...]
    complete: bool  #: all rows of the table
    repaired: tuple[str, ...] = ()  #: mnemonics

    def of(self, name: str) -> tuple[Finding, ...]:
        """The findings of a class."""
        return tuple(finding for finding in self.findings if finding.verdict.name == name)

    @property
    def sensitive(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict.sensitive)


def mnemonics(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The mnemonics of findings, each once."""
    return tuple(dict.fromkeys(finding.row.mnemonic for finding in findings))


def select(rows: Sequence[Row], names: Iterable[str]) -> list[Row]:
    """The rows of mnemonics or aliases; ExperimentError for a name that the table has not."""
    wanted: set[int] = set()
    for name in names:
        found = {row.id for row in rows_of(name.lower())}
        if not found:
            raise ExperimentError(f"no instruction {name!r}")
        wanted |= found
    return [row for row in rows if row.id in wanted]


def classify(
    names: Iterable[str] = (),
    *,
    virtualizable: bool | Iterable[str] = False,
    rows: Sequence[Row] = ROWS,
    witnesses: bool = True,
    progress: Progress = lambda done, total, name: None,
) -> Survey:
    """Classify the rows of some mnemonics, of all if none is named; ExperimentError."""
    asked = list(names)
    chosen = select(rows, asked) if asked else list(rows)
    repairs = [] if isinstance(virtualizable, bool) else list(virtualizable)
    extra = [row for row in select(rows, repairs) if row not in chosen]
    work = [*chosen, *extra]
    bench = Bench()
    verdicts = {}
    for done, row in enumerate(work):
        progress(done, len(work), row.mnemonic)
        verdicts[row.id] = examine(bench, row)
    wanted = None if virtualizable is True else set(mnemonic_names(repairs))
    repaired = _repair(bench, verdicts, wanted) if virtualizable else ()
    findings = []
    for row in chosen:
        verdict = verdicts[row.id]
        seek = witnesses and verdict.unsafe
        findings.append(Finding(verdict, find_witness(bench, verdict) if seek else None))
    progress(len(work), len(work), "")
    return Survey(tuple(findings), not asked and len(rows) == len(ROWS), repaired)


def mnemonic_names(names: Iterable[str]) -> list[str]:
    """The table's mnemonics for spellings of them."""
    return sorted({row.mnemonic for name in names for row in rows_of(name.lower())})


def _repair(bench: Bench, verdicts: dict[int, Verdict], wanted: set[str] | None) -> tuple[str, ...]:
    """Make unsafe rows trap, those of the mnemonics wanted or all, and classify them again."""
    unsafe = {v.row.mnemonic for v in verdicts.values() if v.unsafe}
    names = unsafe if wanted is None else wanted
    if names - unsafe:
        raise ExperimentError(
            f"virtualizable {', '.join(sorted(names - unsafe))}: expected unsafe instructions"
        )
    rows = [v.row for v in verdicts.values() if v.unsafe and v.row.mnemonic in names]
    bench.repair(frozenset(row.id for row in rows))
    for row in rows:
        verdicts[row.id] = examine(bench, row, repaired=True)
    return tuple(dict.fromkeys(row.mnemonic for row in rows))
