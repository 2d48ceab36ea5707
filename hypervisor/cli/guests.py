"""`seventeen guests`: the programs that come along; guests/manifest.py is the list."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hypervisor.cli.complete import complete_guests
from hypervisor.cli.status import Stop, StopError
from hypervisor.cli.tables import print_table

if TYPE_CHECKING:
    from guests import Guest


def find_guest(name: str) -> Guest:
    """The guest of that name; StopError with close matches if there is none."""
    from guests import GUESTS
    from hypervisor.cli import suggest

    for guest in GUESTS:
        if guest.name == name:
            return guest
    names = [guest.name for guest in GUESTS]
    hint = suggest(name, names, "`seventeen guests` lists the guests")
    raise StopError(Stop.MISSING, f"no file and no guest is named {name!r}; {hint}")


def traits(guest: Guest) -> str:
    """What a guest needs beyond ring 0: for a column."""
    words = []
    if 3 in guest.rings:
        words.append("ring 3")
    if guest.paging:
        words.append("paging")
    if guest.interrupts:
        words.append("interrupts")
    if guest.machine != "pc":
        words.append(f"machine {guest.machine}")
    return ", ".join(words)


def as_json(guest: Guest) -> dict[str, Any]:
    """A guest's row as plain data."""
    return {
        "name": guest.name,
        "about": guest.about,
        "source": str(guest.source),
        "tour": guest.tour,
        "rings": list(guest.rings),
        "paging": guest.paging,
        "interrupts": guest.interrupts,
        "status": guest.status,
        "ram": guest.ram,
        "machine": guest.machine,
        "ticks": guest.ticks,
    }


def copy(guest: Guest, target: Path) -> None:
    """Copy a guest's source to a file that is not there yet."""
    if target.is_dir():
        target /= guest.source.name
    if target.exists():
        raise StopError(Stop.BAD_INPUT, f"{target}: there is a file of that name already")
    target.write_bytes(guest.source.read_bytes())
    hint = ""
    if guest.source.parent.name == guest.name:  # it comes with include files of its own
        hint = f" -I {guest.source.parent}"
    print(f"{target}: run it with: seventeen run{hint} {target}", file=sys.stderr)


@click.command(short_help="List, show or copy the guest programs that come along.")
@click.option(
    "--show", metavar="NAME", shell_complete=complete_guests, help="Print a guest's source."
)
@click.option(
    "--copy",
    "copied",
    type=(str, click.Path(path_type=Path)),
    metavar="NAME FILE",
    shell_complete=complete_guests,
    help="Copy a guest's source to FILE, to change it.",
)
@click.option("--json", "json_wanted", is_flag=True, help="Print the list as JSON.")
def command(show: str | None, copied: tuple[str, Path] | None, json_wanted: bool) -> None:
    """List the guest programs: `seventeen run NAME` runs one."""
    from guests import GUESTS

    if show:
        click.echo(find_guest(show).source.read_bytes(), nl=False)
    elif copied:
        copy(find_guest(copied[0]), copied[1])
    elif json_wanted:
        click.echo(json.dumps([as_json(guest) for guest in GUESTS], indent=2))
    else:
        rows = [(guest.name, guest.about, traits(guest)) for guest in GUESTS]
        print_table(("guest", "what it is", "needs"), rows)
