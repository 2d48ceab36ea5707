"""How many of a guest's instructions the virtual CPU may take: one in a hundred.

A nanobenchmark does little else than what it is about. There each operation may take so many more.
"""

from __future__ import annotations

from typing import Final

from guests import Guest

MOST_INTERPRETED: Final = 0.01
OPERATIONS: Final = 1000  #: guests/lib/nano.inc, DEFAULT_COUNT
#: Where it is not one: INT and IRET; two stores to page tables, a fault's IRET, and the loop around.
AN_OPERATION: Final = {"nano_syscall": 2, "nano_touch": 4}


def most_interpreted(guest: Guest, ticks: int) -> float:
    """Of a run of so many instructions."""
    most = MOST_INTERPRETED * ticks
    if guest.name.startswith("nano_"):
        most += OPERATIONS * AN_OPERATION.get(guest.name, 1)
    return most
