"""`seventeen blocks`: what the translator makes of a program, as a table and as a drawing."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from hypervisor.cli.complete import complete_programs
from hypervisor.cli.files import write_file
from hypervisor.cli.options import TICKS, Number

ON_TERMINAL = 12  #: blocks in the table
ON_PAGE = 40


@click.command(short_help="Draw a program's translated blocks.")
@click.argument("program", metavar="PROGRAM", shell_complete=complete_programs)
@click.option(
    *("-o", "output"),
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write the graph as a page.",
)
@click.option("--max-ticks", type=TICKS, metavar="N", help="Stop after N guest instructions.")
@click.option(
    "--most",
    type=Number(10_000),
    metavar="N",
    help=f"Show the N hottest blocks ({ON_TERMINAL} in the table, {ON_PAGE} on the page).",
)
@click.option("--user", is_flag=True, help="Translate what runs in ring 3 as well.")
def command(
    program: str, output: Path | None, max_ticks: int | None, most: int | None, user: bool
) -> None:
    """Run PROGRAM under translate, and count how often each translated block runs.

    Prints the hottest blocks; with -o, writes a page that draws them with the ways between them,
    and has each block's guest code beside its translation. Counting steps the machine, and takes
    some hundred times as long as running; --max-ticks cuts it short.
    """
    from hypervisor.cli.subjects import find
    from hypervisor.cli.tables import print_table
    from hypervisor.experiments import blocks_page
    from hypervisor.experiments.blocks import record

    gc.enable()
    if most == 0:
        raise click.UsageError("--most: expected at least 1, found 0")
    if output:
        write_file(output, b"")  # better to hear now than after the run that it cannot be
    subjects = find([program])
    assert subjects is not None
    graph = record(subjects[0], max_ticks=max_ticks, user=user)
    count = most or ON_TERMINAL
    print_table(blocks_page.COLUMNS, blocks_page.rows(graph, count), right=blocks_page.NUMBERS)
    for line in blocks_page.summary(graph, count):
        click.echo(line)
    if output:
        write_file(output, blocks_page.as_page(graph, most or ON_PAGE).encode())
