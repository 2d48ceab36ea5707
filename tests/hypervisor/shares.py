"""What techniques do not give every guest of the manifest.

The virtual CPU may take one in a hundred of a guest's instructions. A nanobenchmark does little
else than what it is about; there each operation may take so many more. And some ring-3 probes see
what is real wherever ring 3 runs as it is.
"""

from __future__ import annotations

from typing import Final

from guests import Guest

MOST_INTERPRETED: Final = 0.01
OPERATIONS: Final = 1000  #: guests/lib/nano.inc, DEFAULT_COUNT
#: Where it is not one: INT and IRET; two stores to page tables, a fault's IRET, the loop around.
AN_OPERATION: Final = {"nano_syscall": 2, "nano_touch": 4}


#: Print what is real where ring 3's code is run as it is.
LEAKS: Final = frozenset(f"probe_{name}" for name in ("sgdt", "sidt", "sldt", "str", "lar", "lsl"))


def most_interpreted(guest: Guest, ticks: int) -> float:
    """Of a run of so many instructions."""
    most = MOST_INTERPRETED * ticks
    if guest.name.startswith("nano_"):
        most += OPERATIONS * AN_OPERATION.get(guest.name, 1)
    return most
