"""`seventeen tour`: what the laboratory has to show, a screen at a time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from hypervisor.cli.complete import complete_stops

if TYPE_CHECKING:
    from hypervisor.experiments.tour import Line

#: On a terminal: a rich style for each kind of line (hypervisor/experiments/tour/screen.py).
STYLES: Final = {
    "plain": "",
    "title": "bold",
    "head": "dim",
    "marked": "bold yellow",
    "aside": "cyan",
}


@click.command(short_help="Show what the laboratory is for, one screen at a time.")
@click.argument("number", type=int, required=False, metavar="[N]", shell_complete=complete_stops)
@click.option("--source", is_flag=True, help="Print the stop's guest, to change and run it.")
def command(number: int | None, source: bool) -> None:
    """List the stops of the tour, or show stop N: a guest's source, its run natively and under a
    technique side by side, the first difference, a question, and what to try next.

    All of it is computed by running.
    """
    gc.enable()
    from hypervisor.experiments import tour

    if number is None:
        if source:
            raise click.UsageError("--source: expected the number of a stop")
        show_list()
    elif source:
        click.echo(tour.source_of(number), nl=False)
    else:
        show(tour.lines_of(number))


def show_list() -> None:
    """The stops by number."""
    from hypervisor.cli.tables import print_table
    from hypervisor.experiments.tour import TOUR

    rows = [(str(number), stop.title) for number, stop in enumerate(TOUR, 1)]
    print_table(("stop", "what it shows"), rows, right=frozenset({"stop"}))
    click.echo("`seventeen tour 1` begins.")


def show(lines: Sequence[Line]) -> None:
    """Print a screen, with colours where a person looks."""
    if not sys.stdout.isatty():
        click.echo("\n".join(line.text for line in lines))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    for line in lines:
        console.print(Text(line.text, style=STYLES[line.kind.value]))
