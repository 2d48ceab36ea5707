"""The only place where the experiment meets the table's class columns: do they say the same?

The table is written by hand from the manuals and the literature, the verdicts come from running the
core. Each can be wrong; so a difference is reported, not mended. Read report.py next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hypervisor.experiments.classify.survey import Survey
from hypervisor.experiments.classify.verdicts import Verdict

#: The `privilege` column, and on what the trap then depends beside CPL.
DEPENDS: Final[dict[str, tuple[str, ...]]] = {
    "cpl0": (),
    "iopl": ("IOPL",),
    "io": ("IOPL", "the I/O bitmap"),
    "tsd": ("CR4.TSD",),
}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Table and experiment differ on a row."""

    row: str
    column: str
    table: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.row}: the table's {self.column} is {self.table!r}, "
            f"the experiment's {self.found!r}"
        )


def disagreements(survey: Survey) -> tuple[Disagreement, ...]:
    """All differences; a repaired row is another machine's, and is left out."""
    found: list[Disagreement] = []
    for finding in survey.findings:
        if not finding.verdict.repaired:
            found += _differences(finding.verdict)
    return tuple(found)


def _differences(verdict: Verdict) -> Iterable[Disagreement]:
    row = verdict.row
    table = DEPENDS.get(row.privilege)
    found = verdict.depends if verdict.privileged else None
    if table != found:
        yield Disagreement(str(row), "privilege", row.privilege, _privilege(found))
    if row.sensitive != verdict.sensitive:
        yield Disagreement(str(row), "sensitivity", row.sensitive, verdict.sensitive)
    if bool(row.leaks) != verdict.unsafe:
        yield Disagreement(str(row), "leaks", row.leaks, "unsafe" if verdict.unsafe else "")


def _privilege(depends: tuple[str, ...] | None) -> str:
    if depends is None:
        return ""
    return next((name for name, on in DEPENDS.items() if on == depends), " and ".join(depends))
