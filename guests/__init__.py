"""Guest programs: assembly sources, their library, and the manifest of what each must print.

The problem: everything above needs programs whose behaviour is known. `GUESTS` lists them, `find`
gives one by name, `LIB` is where their %include files lie. Read `manifest.py` next, then
`hello.asm` and `lib/guest.inc`.
"""

from __future__ import annotations

from guests.errors import GuestError
from guests.manifest import GUESTS, LIB, Guest

__all__ = ["GUESTS", "LIB", "Guest", "GuestError", "find"]


def find(name: str) -> Guest:
    """The guest of that name. Raises GuestError, which says what names there are."""
    for guest in GUESTS:
        if guest.name == name:
            return guest
    names = ", ".join(guest.name for guest in GUESTS)
    raise GuestError(f"no guest is named {name!r}; there are {names}")
