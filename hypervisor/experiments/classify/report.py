"""A survey in words and as plain data; hypervisor/cli/classify.py prints it, html.py draws it.

Everything people read is put into words here once: when an instruction traps, what it changes, by
what it tells states apart.
"""

from __future__ import annotations

from typing import Any, Final

from hypervisor.experiments.classify.check import disagreements
from hypervisor.experiments.classify.survey import CLASSES, Finding, Survey, mnemonics
from hypervisor.experiments.classify.theorems import Theorem, count_note, theorems
from hypervisor.experiments.classify.verdicts import Verdict

#: When a privileged instruction traps, by what that depends on beside CPL.
TRAPS: Final = {
    (): "CPL > 0",
    ("IOPL",): "CPL > IOPL",
    ("IOPL", "the I/O bitmap"): "CPL > IOPL, I/O bitmap denies",
    ("CR4.TSD",): "CPL > 0, if CR4.TSD=1",
}
#: What a behaviour-sensitive instruction tells apart.
DIFFERS: Final = {
    "CPL": "CPL",
    "tables": "GDT, IDT bases",
    "frames": "page frames",
    "slots": "descriptor slots",
    "CR0": "CR0",
    "CR4": "CR4",
    "DR": "debug registers",
    "IF": "IF",
    "IOPL": "IOPL",
    "time": "time",
    "device": "device",
}
COLUMNS: Final = ("instruction", "opcode", "class", "traps if", "changes", "depends on")


def label(finding: Finding) -> str:
    """A row as people write it: mnemonic and operand codes."""
    row = finding.row
    return f"{row.mnemonic} {','.join(row.operands)}".strip()


def traps(verdict: Verdict) -> str:
    """When a privileged instruction traps; "" for others."""
    if not verdict.privileged:
        return ""
    words = TRAPS.get(verdict.depends, f"CPL > 0, by {' and '.join(verdict.depends)}")
    return f"{words} (repaired)" if verdict.repaired else words


def cells(finding: Finding) -> tuple[str, ...]:
    """A finding as a line of a table, by `COLUMNS`."""
    verdict = finding.verdict
    return (
        label(finding),
        finding.row.opcode,
        verdict.name,
        traps(verdict),
        ", ".join(verdict.control),
        ", ".join(DIFFERS[name] for name in verdict.behaviour),
    )


def ordered(survey: Survey) -> list[Finding]:
    """What there is to show, class by class, the worst first; safe rows only of a selection."""
    classes = list(reversed(CLASSES))
    if survey.complete:
        classes.remove("safe")
    return [finding for name in classes for finding in survey.of(name)]


def witness_lines(survey: Survey) -> list[str]:
    """One line for each unsafe row."""
    return [str(finding.witness) for finding in survey.findings if finding.witness]


def summary(survey: Survey) -> str:
    """How many rows there are of each class."""
    counts = ", ".join(f"{len(survey.of(name))} {name}" for name in CLASSES)
    return f"{len(survey.findings)} rows: {counts}"


def theorem_line(theorem: Theorem) -> str:
    """A theorem, its verdict, and what stands against it."""
    verdict = "holds" if theorem.holds else "fails"
    line = f"Theorem {theorem.number} {verdict}. {theorem.statement} Here {theorem.because}."
    return f"{line} Against it: {', '.join(theorem.against)}." if theorem.against else line


def check_lines(survey: Survey) -> list[str]:
    """What the last check against the table's own columns says."""
    found = disagreements(survey)
    if not found:
        number = sum(not finding.verdict.repaired for finding in survey.findings)
        return [f"The table says the same of {'all ' * (number > 1)}{number} rows."]
    return [f"The table disagrees. {each}" for each in found]


def remaining(survey: Survey) -> str:
    """With some instructions repaired: what still keeps a guest from fidelity."""
    unsafe = mnemonics(survey.of("unsafe"))
    left = f"still unsafe: {', '.join(unsafe)}" if unsafe else "nothing unsafe is left"
    return f"Repaired: {', '.join(survey.repaired)}; {left}."


def as_json(survey: Survey) -> dict[str, Any]:
    """Plain data for `json.dumps`."""
    data: dict[str, Any] = {
        "counts": {name: len(survey.of(name)) for name in CLASSES},
        "virtualizable": list(survey.repaired),
        "rows": [_row(finding) for finding in survey.findings],
        "disagreements": [str(each) for each in disagreements(survey)],
    }
    if survey.complete:
        data["theorems"] = [
            {
                "number": t.number, "statement": t.statement, "holds": t.holds,
                "because": t.because, "against": list(t.against),
            }
            for t in theorems(survey)
        ]  # fmt: skip
        data["count"] = count_note(survey)
    return data


def _row(finding: Finding) -> dict[str, Any]:
    verdict, witness = finding.verdict, finding.witness
    return {
        "id": finding.row.id,
        "mnemonic": finding.row.mnemonic,
        "operands": list(finding.row.operands),
        "opcode": finding.row.opcode,
        "class": verdict.name,
        "privileged": verdict.privileged,
        "sensitive": verdict.sensitive,
        "traps_if": traps(verdict),
        "trap_depends_on": list(verdict.depends),
        "changes": list(verdict.control),
        "depends_on": list(verdict.behaviour),
        "in_user_mode": list(verdict.user),
        "repaired": verdict.repaired,
        "cases": verdict.cases,
        "witness": witness
        and {
            "text": str(witness),
            "code": witness.code.hex(),
            "instruction": witness.instruction,
            "cpl": witness.cpl,
            "differs": witness.differs,
            "real": witness.real,
            "believed": witness.believed,
        },
    }
