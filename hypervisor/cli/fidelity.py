"""`seventeen fidelity`: guests under techniques, and the instruction behind every difference."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hypervisor.cli.complete import complete_programs, complete_techniques
from hypervisor.cli.files import write_file
from hypervisor.cli.options import BareOptionCommand
from hypervisor.cli.progress import progress_bar

if TYPE_CHECKING:
    from hypervisor.experiments.fidelity import Column, Matrix

#: Exit status if the matrix is not what the instruction table leads to expect.
SURPRISED = 1
MOST_EXPLAINED = 100  #: lines of a kind


@click.command(
    cls=BareOptionCommand, short_help="Compare guests under techniques with the bare machine."
)
@click.argument("guests", nargs=-1, metavar="[GUEST]...", shell_complete=complete_programs)
@click.option(
    "--technique",
    "techniques",
    multiple=True,
    metavar="T",
    shell_complete=complete_techniques,
    help="A technique; repeatable. All, if none is given.",
)
@click.option(
    "--virtualizable",
    metavar="[=LIST]",
    help="Each technique also on a CPU whose unsafe instructions, all or those named, trap.",
)
@click.option(
    "--json", type=click.Path(path_type=Path), metavar="FILE", help="Write the matrix as JSON."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write it as a page.")
def command(
    guests: tuple[str, ...],
    techniques: tuple[str, ...],
    virtualizable: str | None,
    json: Path | None,
    html: Path | None,
) -> int:
    """Run every GUEST natively and under every technique, and compare all that the guest can tell:
    device accesses, events, and at the end registers and memory, by guest ticks.

    Where two runs differ, the instruction after which they do is found and named. Without
    arguments: all guests of the manifest. The exit status is 1 if a cross is no instruction that
    the table calls unsafe.
    """
    from hypervisor.cli.subjects import find
    from hypervisor.experiments.fidelity import fidelity
    from hypervisor.experiments.fidelity_check import surprises

    gc.enable()
    columns = choose_columns(techniques, virtualizable)
    for path in filter(None, (json, html)):
        write_file(path, b"")  # better to hear now than after the run that it cannot be
    with progress_bar("fidelity") as progress:
        matrix = fidelity(find(guests), columns, progress=progress)
    show(matrix)
    write(matrix, json, html)
    return SURPRISED if surprises(matrix) else 0


def choose_columns(
    techniques: tuple[str, ...], virtualizable: str | None
) -> tuple[Column, ...] | None:
    """What the options ask for; None for the experiment's own choice. UsageError."""
    from hypervisor.cli.subjects import check_unsafe, columns_of
    from hypervisor.experiments.fidelity import Column
    from hypervisor.techniques import TECHNIQUES

    columns = columns_of(techniques)
    if virtualizable is None:
        return tuple(columns) or None
    named = tuple(name for name in virtualizable.lower().split(",") if name)
    if not named:
        raise click.UsageError("--virtualizable: expected mnemonics, or all")
    repaired = True if named == ("all",) else named
    check_unsafe(repaired)
    pairs = dict.fromkeys((c.technique, c.mmu) for c in columns or map(Column, TECHNIQUES))
    return tuple(Column(name, way, mmu) for name, mmu in pairs for way in (False, repaired))


def show(matrix: Matrix) -> None:
    """Print matrix, reasons and the check."""
    from hypervisor.cli.tables import print_table
    from hypervisor.experiments import fidelity_report as report
    from hypervisor.experiments.fidelity_check import summary, surprises

    print_table(report.columns(matrix), report.rows(matrix))
    click.echo(f"\n{report.LEGEND}")
    for title, lines in (
        ("Crosses: the instruction after which a guest can tell", report.cross_lines(matrix)),
        ("Refused", report.refusal_lines(matrix)),
        ("Rescued: these exit only by a shadow structure", report.rescue_lines(matrix)),
        ("Not what the instruction table says", surprises(matrix)),
    ):
        if lines:
            click.echo(f"\n{title}")
        for line in lines[:MOST_EXPLAINED]:
            click.echo(f"  {line}")
        if len(lines) > MOST_EXPLAINED:
            click.echo(f"  and {len(lines) - MOST_EXPLAINED} more: --json has them all")
    if summary(matrix):
        click.echo(f"\n{summary(matrix)}")


def write(matrix: Matrix, json: Path | None, html: Path | None) -> None:
    """The files that were asked for."""
    from hypervisor.experiments import fidelity_report as report

    if json:
        from json import dumps

        write_file(json, f"{dumps(report.as_json(matrix), indent=2)}\n".encode())
    if html:
        write_file(html, report.as_page(matrix).encode())
