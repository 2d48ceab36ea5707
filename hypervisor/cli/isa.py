"""`seventeen isa`: the newcomer's card, or all there is to know about one mnemonic."""

from __future__ import annotations

import click

from hypervisor.cli.complete import complete_mnemonics
from hypervisor.cli.status import Stop, StopError


def known_mnemonics() -> list[str]:
    """Every name that `describe` takes."""
    from isa.table import ROWS

    return sorted({row.mnemonic for row in ROWS})


@click.command(short_help="Show the instruction set, or one instruction.")
@click.argument("mnemonic", required=False, shell_complete=complete_mnemonics)
def command(mnemonic: str | None) -> None:
    """Print the card of the instructions a newcomer needs, or everything about MNEMONIC.

    That is: its encodings, its class, what it leaks or silently drops, whether and why it traps.
    """
    from isa import reference
    from isa.errors import IsaError

    if mnemonic is None:
        click.echo(reference.card().rstrip("\n"))
        return
    try:
        click.echo(reference.describe(mnemonic.lower()).rstrip("\n"))
    except (IsaError, KeyError):
        from hypervisor.cli import suggest

        otherwise = "`seventeen isa` prints the card"
        hint = suggest(mnemonic.lower(), known_mnemonics(), otherwise)
        raise StopError(Stop.BAD_INPUT, f"no instruction {mnemonic!r}; {hint}") from None
