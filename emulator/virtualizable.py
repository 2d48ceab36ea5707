"""The CPU's knob for a world in which unsafe instructions trap: which rows it is about.

Read machine.py for where they are set.
"""

from __future__ import annotations

from collections.abc import Iterable

from emulator.errors import MachineError


def unsafe_rows(wanted: bool | Iterable[str]) -> list[int]:
    """Ids of the rows of the unsafe mnemonics wanted, all for True; MachineError if one is none."""
    if wanted is False:
        return []
    from isa.table import ROWS

    unsafe = {row.mnemonic for row in ROWS if row.unsafe}
    names = unsafe if wanted is True else set(wanted)
    if names - unsafe:
        unknown = ", ".join(sorted(names - unsafe))
        raise MachineError(f"virtualizable {unknown}: expected some of {', '.join(sorted(unsafe))}")
    return [row.id for row in ROWS if row.unsafe and row.mnemonic in names]
