"""What the verdicts come to: Popek and Goldberg's three theorems, and the count of seventeen.

G. J. Popek and R. P. Goldberg, "Formal requirements for virtualizable third generation
architectures" (1974). The theorems give conditions that suffice; where one fails, a hypervisor must
do more than trap and emulate. The `cite` column is read here alone, for the comparison with Robin
and Irvine's list. Read check.py next.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor.experiments.classify.survey import Finding, Survey, mnemonics
from isa.row import Row


@dataclass(frozen=True, slots=True)
class Theorem:
    """A theorem's condition on this ISA."""

    number: int
    statement: str
    holds: bool
    because: str
    against: tuple[str, ...] = ()  #: mnemonics: the counterexamples


def theorems(survey: Survey) -> tuple[Theorem, ...]:
    """The three theorems, for a survey of the whole table."""
    first = _virtualizable(survey)
    return first, _recursively(survey, first), _hybrid(survey)


def _virtualizable(survey: Survey) -> Theorem:
    unsafe, sensitive = survey.of("unsafe"), survey.sensitive
    return Theorem(
        1,
        "A virtual machine monitor can be built if every sensitive instruction is privileged.",
        not unsafe,
        f"{len(unsafe)} of {len(sensitive)} sensitive rows are not privileged"
        if unsafe
        else f"all {len(sensitive)} sensitive rows are privileged",
        mnemonics(unsafe),
    )


def _recursively(survey: Survey, first: Theorem) -> Theorem:
    timed = [finding for finding in survey.findings if _tells_time(finding)]
    loose = [finding for finding in timed if not finding.verdict.privileged]
    names = ", ".join(mnemonics(timed)) or "none"
    because = f"what depends on time ({names}) can be made to trap"
    if loose:
        because = "some of what depends on time does not trap"
    elif not first.holds:
        because = f"{because}, but the first theorem's condition fails already"
    return Theorem(
        2,
        "It can run under itself if it can be built without timing dependencies.",
        first.holds and not loose,
        because,
        mnemonics(loose),
    )


def _tells_time(finding: Finding) -> bool:
    verdict = finding.verdict
    return "time" in verdict.behaviour or "time-stamp counter" in verdict.control


def _hybrid(survey: Survey) -> Theorem:
    against = [f for f in survey.findings if f.verdict.user and not f.verdict.privileged]
    shows = [f for f in against if set(f.verdict.user) - set(f.verdict.control)]
    because = "no instruction that is sensitive in ring 3 goes through there"
    if against:
        because = (
            f"{len(against)} rows are sensitive in ring 3 and do not trap there; "
            f"{len(shows)} of them show where they are, the rest only load what the guest's own "
            "tables allow"
        )
    return Theorem(
        3,
        "A hybrid monitor, which interprets the kernel and runs users directly, can be built if "
        "every instruction that is sensitive in user mode is privileged.",
        not against,
        because,
        mnemonics(against),
    )


# -- Seventeen ------------------------------------------------------------------------------------


def cited(row: Row) -> str:
    """The name under which Robin and Irvine have a row; empty if they have not."""
    name = row.cite.partition(" ")[2]
    return name.partition(" (")[0]


def count_note(survey: Survey) -> str:
    """Why the number of unsafe instructions is another than the paper's; "" of a repaired ISA."""
    if survey.repaired:
        return ""
    unsafe = survey.of("unsafe")
    names = mnemonics(unsafe)
    theirs = dict.fromkeys(cited(f.row) for f in unsafe if f.row.cite)
    aliases = dict.fromkeys(
        f"{f.row.mnemonic} (as {cited(f.row)})"
        for f in unsafe
        if f.row.cite and cited(f.row).split()[0].lower() != f.row.mnemonic
    )
    uncited = mnemonics(f for f in unsafe if not f.row.cite)
    parts = [
        f"{len(unsafe)} rows are unsafe, under {len(names)} mnemonics. Robin and Irvine (2000) "
        f"speak of seventeen instructions; the names in their lists that are unsafe here are "
        f"{len(theirs)}: {', '.join(theirs)}.",
        "A row is one encoding, and most mnemonics have several; some are unsafe in a few of their "
        "forms only (mov, push and pop with a segment register, jmp and call to another segment).",
    ]
    if aliases:
        parts.append(f"Counted by us under a name of their own: {', '.join(aliases)}.")
    if uncited:
        parts.append(f"Not in their lists: {', '.join(uncited)}.")
    return " ".join(parts)
