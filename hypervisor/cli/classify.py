"""`seventeen classify`: decides by experiment which instructions are sensitive, which unsafe."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hypervisor.cli.complete import complete_mnemonics
from hypervisor.cli.files import write_file
from hypervisor.cli.options import BareOptionCommand
from hypervisor.cli.status import Stop, StopError

if TYPE_CHECKING:
    from hypervisor.experiments.classify import Survey

#: Exit status if table and experiment disagree.
DISAGREE = 1
WIDTH = 100  #: columns of running text


@click.command(
    cls=BareOptionCommand, short_help="Decide by experiment which instructions are unsafe."
)
@click.argument("mnemonics", nargs=-1, metavar="[MNEMONIC]...", shell_complete=complete_mnemonics)
@click.option(
    "--virtualizable",
    metavar="[=LIST]",
    help="Let unsafe instructions, all or those named, raise #GP(0) above CPL 0; what is left?",
)
@click.option(
    "--json", type=click.Path(path_type=Path), metavar="FILE", help="Write the result as JSON."
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write it as a page, drawn."
)
def command(
    mnemonics: tuple[str, ...], virtualizable: str | None, json: Path | None, html: Path | None
) -> int:
    """Run every instruction, or those of some MNEMONICs, in pairs of states that differ only in
    what a guest must not notice: the ring, where things lie, what the hypervisor keeps otherwise.

    Safe instructions do the same in both. Privileged ones trap above CPL 0. Sensitive ones change
    the machine's configuration or depend on it; unsafe are those that are sensitive and do not
    trap: each with a witness. The exit status is 1 if the instruction table says otherwise.
    """
    gc.enable()
    check_names(mnemonics)
    for path in filter(None, (json, html)):
        write_file(path, b"")  # better to hear now than after the run that it cannot be
    survey = run(mnemonics, virtualizable)
    show(survey)
    write(survey, json, html)
    from hypervisor.experiments.classify.check import disagreements

    return DISAGREE if disagreements(survey) else 0


def check_names(names: tuple[str, ...]) -> None:
    """StopError, with what was perhaps meant, for a name that the table has not."""
    from isa.table import rows_of

    for name in names:
        if not rows_of(name.lower()):
            from hypervisor.cli import suggest
            from hypervisor.cli.isa import known_mnemonics

            hint = suggest(name.lower(), known_mnemonics(), "`seventeen isa` prints the card")
            raise StopError(Stop.BAD_INPUT, f"no instruction {name!r}; {hint}")


def run(mnemonics: tuple[str, ...], virtualizable: str | None) -> Survey:
    """The survey, with a progress bar where a person waits for it."""
    from hypervisor.experiments.classify import classify

    named = [name for name in (virtualizable or "").lower().split(",") if name]
    if virtualizable is not None and not named:
        raise click.UsageError("--virtualizable: expected mnemonics, or all")
    repaired = True if named == ["all"] else named
    if repaired is not True:
        check_names(tuple(named))
    with progress_bar() as progress:
        return classify(mnemonics, virtualizable=repaired, progress=progress)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], object]]:
    """A bar on stderr if that is a terminal, and nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("classify")
        yield lambda done, total, name: progress.update(
            task, completed=done, total=total, description=name or "done"
        )


def show(survey: Survey) -> None:
    """Print what was found: of the whole table all but the safe rows."""
    from hypervisor.cli.tables import print_table
    from hypervisor.experiments.classify import report

    print_table(report.COLUMNS, [report.cells(finding) for finding in report.ordered(survey)])
    witnesses = report.witness_lines(survey)
    if witnesses:
        click.echo("\nWitnesses: what each unsafe instruction shows, without a trap")
    for line in witnesses:
        click.echo(f"  {line}")
    click.echo(f"\n{report.summary(survey)}")
    if survey.repaired:
        click.echo(report.remaining(survey))
    if survey.complete:
        show_theorems(survey)
    for line in report.check_lines(survey):
        click.echo(line)


def show_theorems(survey: Survey) -> None:
    """Print the theorems and the count."""
    import textwrap

    from hypervisor.experiments.classify.report import theorem_line
    from hypervisor.experiments.classify.theorems import count_note, theorems

    for text in filter(None, (*map(theorem_line, theorems(survey)), count_note(survey))):
        click.echo(f"\n{textwrap.fill(text, WIDTH)}")
    click.echo()


def write(survey: Survey, json: Path | None, html: Path | None) -> None:
    """The files that were asked for."""
    if json:
        from json import dumps

        from hypervisor.experiments.classify.report import as_json

        write_file(json, f"{dumps(as_json(survey), indent=2)}\n".encode())
    if html:
        from hypervisor.experiments.classify.html import page

        write_file(html, page(survey).encode())
