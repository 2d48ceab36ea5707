"""`seventeen patches`: what the in-place patcher makes of a program, site by site."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from hypervisor.cli.complete import complete_programs
from hypervisor.cli.files import write_file
from hypervisor.cli.options import TICKS


@click.command(short_help="List what the in-place patcher overwrites in a program.")
@click.argument("program", metavar="PROGRAM", shell_complete=complete_programs)
@click.option("--strict", is_flag=True, help="Indirect jumps, calls, returns are patched, too.")
@click.option("--max-ticks", type=TICKS, metavar="N", help="Stop after N guest instructions.")
@click.option(
    *("-v", "--verbose"), is_flag=True, help="Show the code in patch memory behind each site."
)
@click.option(
    "--json", type=click.Path(path_type=Path), metavar="FILE", help="Write the sites as JSON."
)
def command(
    program: str, strict: bool, max_ticks: int | None, verbose: bool, json: Path | None
) -> None:
    """Run PROGRAM under patch, and list each site: what stood there, what stands there now, how
    often it was executed so, and why it is no jump if it is none.

    Counting steps the machine, and takes some hundred times as long as running; --max-ticks cuts
    it short.
    """
    from hypervisor.cli.subjects import find
    from hypervisor.cli.tables import print_table
    from hypervisor.experiments import patches

    gc.enable()
    if json:
        write_file(json, b"")  # better to hear now than after the run that it cannot be
    subjects = find([program])
    assert subjects is not None
    found = patches.record(subjects[0], strict=strict, max_ticks=max_ticks)
    print_table(patches.COLUMNS, list(patches.rows(found, found.sites)), right=patches.NUMBERS)
    if verbose:
        for site in found.sites:
            for line in patches.code_of(found, site):
                click.echo(line)
    for line in patches.summary(found):
        click.echo(line)
    if json:
        from json import dumps

        write_file(json, f"{dumps(patches.as_json(found), indent=2)}\n".encode())
