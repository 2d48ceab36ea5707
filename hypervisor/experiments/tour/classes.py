"""The first stop: what safe, privileged, sensitive and unsafe mean, decided by experiment."""

from __future__ import annotations

from typing import Final

from hypervisor.experiments.classify import classify
from hypervisor.experiments.classify.report import COLUMNS, cells, witness_lines
from hypervisor.experiments.classify.survey import CLASSES
from hypervisor.experiments.tour.screen import Line, blank, paragraph, table
from isa.table import ROWS

#: Rows that are run, by mnemonic and opcode.
CHOSEN: Final = (("mov", "89"), ("wbinvd", "0F 09"), ("hlt", "F4"), ("popf", "9D"))


def show() -> list[Line]:
    """One instruction of each class, and the witness against the unsafe one."""
    rows = [row for row in ROWS if (row.mnemonic, row.opcode.partition(" /")[0]) in CHOSEN]
    survey = classify([mnemonic for mnemonic, _ in CHOSEN], rows=rows)
    found = [cells(finding) for finding in survey.findings]
    unsafe = [n for n, finding in enumerate(survey.findings) if finding.verdict.unsafe]
    lines = paragraph(
        "Each of these instructions has just been run on the bare core, in pairs of states that "
        "differ only in what a guest must not notice: the ring, and where things lie."
    )
    lines += [blank(), *table(COLUMNS, found, unsafe), blank()]
    lines += [Line(f"   {name:<12}{meaning}") for name, meaning in CLASSES.items()]
    lines += [blank(), *paragraph("The witness, found and shrunk by Hypothesis:")]
    for witness in witness_lines(survey):
        lines += paragraph(witness)
    return lines
