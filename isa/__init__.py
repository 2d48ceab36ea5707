"""The instruction set: one table and all that is derived from it.

Start with `isa/row.py` (what a row is) and `isa/table.py` (the rows). The names below are what
other packages use; they are loaded when first asked for, so that a program which never assembles
does not pay for the assembler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from isa.assembler import Program, assemble, assemble_file
    from isa.decoder import decode
    from isa.errors import AssemblyError
    from isa.table import ROWS

_HOMES: Final = {
    "Program": "isa.assembler", "assemble": "isa.assembler", "assemble_file": "isa.assembler",
    "decode": "isa.decoder", "AssemblyError": "isa.errors", "ROWS": "isa.table",
}  # fmt: skip

__all__ = ["ROWS", "AssemblyError", "Program", "assemble", "assemble_file", "decode"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'isa' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
