"""`seventeen compare`: programs under techniques, and what each technique cost."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hypervisor.cli.complete import complete_programs, complete_techniques
from hypervisor.cli.files import write_file
from hypervisor.cli.options import Number
from hypervisor.cli.progress import progress_bar

if TYPE_CHECKING:
    from hypervisor.experiments.compare import Comparison

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
    repeat: int | None,
    json: Path | None,
    csv: Path | None,
    html: Path | None,
) -> None:
    """Run every PROGRAM natively and under every technique, and say what it cost.

    The cycles that the guest's instructions take are measured, those of the hypervisor's own work
    are modelled; both are the same in every run. Without arguments: a few guests of each kind.
    """
    from hypervisor.cli.subjects import check_techniques, find
    from hypervisor.experiments.compare import REPEAT, compare

    gc.enable()
    if repeat == 0:
        raise click.UsageError("--repeat: expected at least 1, found 0")
    check_techniques(techniques)
    for path in filter(None, (json, csv, html)):
        write_file(path, b"")  # better to hear now than after the run that it cannot be
    with progress_bar("compare") as progress:
        comparison = compare(
            find(programs),
            tuple(dict.fromkeys(techniques)) or None,
            repeat=repeat or REPEAT,
            progress=progress,
        )
    show(comparison)
    write(comparison, json, csv, html)


def show(comparison: Comparison) -> None:
    """Print the table and its notes."""
    import textwrap

    from hypervisor.cli.tables import print_table
    from hypervisor.experiments import compare_report as report

    print_table(report.COLUMNS, report.rows(comparison), right=report.NUMBERS)
    for line in report.notes(comparison):
        click.echo(f"\n{textwrap.fill(line, WIDTH)}")


def write(comparison: Comparison, json: Path | None, csv: Path | None, html: Path | None) -> None:
    """The files that were asked for."""
    from hypervisor.experiments import compare_report as report

    if json:
        from json import dumps

        write_file(json, f"{dumps(report.as_json(comparison), indent=2)}\n".encode())
    if csv:
        write_file(csv, report.as_csv(comparison).encode())
    if html:
        write_file(html, report.as_page(comparison).encode())
