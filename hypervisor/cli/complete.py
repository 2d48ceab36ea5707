"""What a shell offers for an argument: names of ours, and files where files may stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

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
    """Techniques, and what they are as their classes say it."""
    from click.shell_completion import CompletionItem

    from hypervisor.techniques import NATIVE, TECHNIQUES, find_technique

    about = {NATIVE: "ring 0 of the bare machine"}
    for name in TECHNIQUES:
        about[name] = (type(find_technique(name)).__doc__ or "").splitlines()[0].rstrip(".")
    return [
        CompletionItem(name, help=text)
        for name, text in about.items()
        if name.startswith(incomplete)
    ]


def complete_memories(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Memory virtualizations."""
    from click.shell_completion import CompletionItem

    from hypervisor.memory import MEMORIES

    return [CompletionItem(name) for name in MEMORIES if name.startswith(incomplete)]


def complete_machines(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Machines."""
    from click.shell_completion import CompletionItem

    from emulator.machine import MACHINES

    return [CompletionItem(name) for name in MACHINES if name.startswith(incomplete)]


def complete_stops(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Stops of the tour, by number."""
    from click.shell_completion import CompletionItem

    from hypervisor.experiments.tour import TOUR

    stops = [(str(number), stop.title) for number, stop in enumerate(TOUR, 1)]
    return [
        CompletionItem(number, help=title)
        for number, title in stops
        if number.startswith(incomplete)
    ]
