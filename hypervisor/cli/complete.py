"""What a shell offers for an argument: names of ours, and files where files may stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hypervisor.cli.techniques import TECHNIQUES

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_guests(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Guest names."""
    from click.shell_completion import CompletionItem

    from guests import GUESTS

    return [
        CompletionItem(guest.name, help=guest.about)
        for guest in GUESTS
        if guest.name.startswith(incomplete)
    ]


def complete_programs(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Guest names while they fit, and files."""
    from click.shell_completion import CompletionItem

    guests = complete_guests(ctx, parameter, incomplete)
    return [*guests, CompletionItem(incomplete, type="file")]


def complete_mnemonics(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Mnemonics of the table."""
    from click.shell_completion import CompletionItem

    from isa.table import ROWS

    names = sorted({row.mnemonic for row in ROWS})
    return [CompletionItem(name) for name in names if name.startswith(incomplete.lower())]


def complete_techniques(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Techniques."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=about)
        for name, about in TECHNIQUES.items()
        if name.startswith(incomplete)
    ]
