"""`seventeen compare`: programs under techniques, and what each technique cost."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from hypervisor.cli.complete import complete_memories, complete_programs, complete_techniques
from hypervisor.cli.files import write_file
from hypervisor.cli.options import Number
from hypervisor.cli.progress import progress_bar
from isa.cost import DEFAULT_MODEL, MODELS, find_model
from isa.errors import TableError

if TYPE_CHECKING:
    from hypervisor.experiments.compare import Comparison
    from hypervisor.experiments.fidelity import Column
    from hypervisor.experiments.sweeps import Sweep
    from hypervisor.experiments.workloads import Workload

WIDTH = 100  #: columns of running text


@click.command(short_help="Compare what techniques cost.")
@click.argument("programs", nargs=-1, metavar="[PROGRAM]...", shell_complete=complete_programs)
@click.option(
    "--technique",
    "techniques",
    multiple=True,
    metavar="T",
    shell_complete=complete_techniques,
    help="A technique; repeatable. All, if none is given.",
)
@click.option(
    "--mmu",
    "memories",
    multiple=True,
    metavar="M",
    shell_complete=complete_memories,
    help="Only techniques with this memory virtualization; repeatable. Each pair there is, if not.",
)
@click.option(
    "--cost-model",
    default=DEFAULT_MODEL,
    metavar="NAME",
    help=f"The processor whose cycles are counted: {', '.join(m.name for m in MODELS)}.",
)
@click.option(
    "--repeat", type=Number(1000), metavar="N", help="Runs of each, for the wall time (3)."
)
@click.option(
    "--json", type=click.Path(path_type=Path), metavar="FILE", help="Write the result as JSON."
)
@click.option(
    "--csv", type=click.Path(path_type=Path), metavar="FILE", help="Write it for a spreadsheet."
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write it as a page, drawn."
)
def command(
    programs: tuple[str, ...],
    techniques: tuple[str, ...],
    memories: tuple[str, ...],
    cost_model: str,
    repeat: int | None,
    json: Path | None,
    csv: Path | None,
    html: Path | None,
) -> None:
    """Run every PROGRAM natively and under every technique, and say what it cost.

    PROGRAM is also the name of an operation: syscall, in, cr8wr, callret, pgfault, divzero, ptemod,
    forkwait, switch, calls, collatz, recursion. The cycles that the guest's instructions take are
    measured, those of the hypervisor's own work are modelled; both are the same in every run.
    Without PROGRAM: all operations and some programs; without --technique: all techniques, and
    QEMU beside them, where it is installed.
    """
    gc.enable()
    if repeat == 0:
        raise click.UsageError("--repeat: expected at least 1, found 0")
    check_model(cost_model)
    columns = find_columns(techniques, memories)
    chosen = find_workloads(programs)
    for path in filter(None, (json, csv, html)):
        write_file(path, b"")  # better to hear now than after the run that it cannot be
    question = Question(chosen, columns, cost_model, repeat, whole=not programs)
    comparison, curves = answer(question, outside=not techniques and not memories)
    show(comparison)
    write(comparison, curves, json, csv, html)


class Question(NamedTuple):
    """What is compared; None for workloads or columns: all."""

    workloads: list[Workload] | None
    columns: list[Column] | None
    cost_model: str
    repeat: int | None
    whole: bool  #: the curves as well


def check_model(name: str) -> None:
    """UsageError for a cost model that is none."""
    try:
        find_model(name)
    except TableError as error:
        raise click.UsageError(str(error)) from None


def find_workloads(words: Sequence[str]) -> list[Workload] | None:
    """The workloads named; None for none. StopError for what is no workload, file or guest."""
    from hypervisor.cli.subjects import find_one
    from hypervisor.experiments.workloads import COUNTED, of_subject

    found = [COUNTED[w].workload() if w in COUNTED else of_subject(find_one(w)) for w in words]
    return found or None


def find_columns(techniques: Sequence[str], memories: Sequence[str]) -> list[Column] | None:
    """The pairs named; None for all. UsageError for a name that is none, or no pair at all."""
    from hypervisor.cli.subjects import check_memories, columns_of
    from hypervisor.experiments.fidelity import Column, default_columns
    from hypervisor.techniques import NATIVE, kind_of

    named = columns_of([name for name in techniques if name != NATIVE])  # which is always there
    check_memories(memories)
    if not techniques and not memories:
        return None
    if not memories:
        return named
    wanted = named if techniques else default_columns()
    both = {  # of the default ones, which have each memory in turn, each pair once
        Column(column.technique, column.virtualizable, mmu): None
        for column in wanted
        for mmu in memories
        if mmu in kind_of(column.technique.split()[0]).memories
        and (not named or column.mmu in {None, mmu})
    }
    columns = list(both)
    if not columns:
        raise click.UsageError(f"no technique named goes with --mmu {', '.join(memories)}")
    return columns


def answer(question: Question, *, outside: bool) -> tuple[Comparison, tuple[Sweep, ...]]:
    """Run all of it, with a progress bar for each part."""
    from hypervisor.experiments import qemu
    from hypervisor.experiments.compare import REPEAT, compare
    from hypervisor.experiments.sweeps import sweeps

    repeat = question.repeat or REPEAT
    curves: tuple[Sweep, ...] = ()
    with progress_bar("compare") as progress:
        comparison = compare(
            question.workloads,
            question.columns,
            repeat=repeat,
            cost_model=question.cost_model,
            progress=progress,
        )
    if question.whole:
        with progress_bar("curves") as progress:
            curves = sweeps(question.columns, cost_model=question.cost_model, progress=progress)
    if outside and qemu.is_installed():
        with progress_bar(qemu.NAME) as progress:
            beside = qemu.beside(comparison, repeat=repeat, progress=progress)
        comparison = replace(comparison, outside=beside)
    return comparison, curves


def show(comparison: Comparison) -> None:
    """Print the table and its notes."""
    import textwrap

    from hypervisor.cli.tables import print_table
    from hypervisor.experiments import compare_report as report

    print_table(report.COLUMNS, report.rows(comparison), right=report.NUMBERS)
    for line in report.notes(comparison):
        click.echo(f"\n{textwrap.fill(line, WIDTH)}")
    claims = report.verdict_rows(comparison)
    if claims:
        click.echo()
        print_table(report.VERDICT_COLUMNS, claims)


def write(
    comparison: Comparison,
    curves: tuple[Sweep, ...],
    json: Path | None,
    csv: Path | None,
    html: Path | None,
) -> None:
    """The files that were asked for."""
    from hypervisor.experiments import compare_report as report

    if json:
        from json import dumps

        write_file(json, f"{dumps(report.as_json(comparison, curves), indent=2)}\n".encode())
    if csv:
        write_file(csv, report.as_csv(comparison).encode())
    if html:
        from hypervisor.experiments.compare_page import as_page

        write_file(html, as_page(comparison, curves).encode())
        click.echo(f"\nThe report: {html}")
