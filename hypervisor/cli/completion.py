"""`seventeen completion SHELL`: the script that lets a shell complete our command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  source <(seventeen completion bash)
    zsh:   source <(seventeen completion zsh)
    fish:  seventeen completion fish | source
    """
    from hypervisor.cli import seventeen

    completion = get_completion_class(shell)
    assert completion is not None  # SHELLS are those that click knows
    click.echo(completion(seventeen, {}, "seventeen", "_SEVENTEEN_COMPLETE").source())
