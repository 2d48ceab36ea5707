"""Names for addresses, for the lines that say where a guest died and what a trace shows.

An assembled program brings its own; those of an ELF are hypervisor/symbols.py's to read.
"""

from __future__ import annotations

from typing import Protocol


class Symbols:
    """What is at a linear address. This one knows nothing; it is for images that bring no names."""

    def name(self, address: int) -> str:
        """``symbol+0x12``, or nothing."""
        del address
        return ""

    def line(self, address: int) -> str:
        """``file:line``, or nothing."""
        del address
        return ""


class LabelledProgram(Protocol):
    """What `isa.assemble` returns, as far as names go."""

    def symbol_at(self, address: int) -> tuple[str, int] | None: ...
    def source_line(self, address: int) -> tuple[str, int] | None: ...


class ProgramSymbols(Symbols):
    """The labels and lines of an assembled program."""

    def __init__(self, program: LabelledProgram) -> None:
        self._program = program

    def name(self, address: int) -> str:
        found = self._program.symbol_at(address)
        if found is None:
            return ""
        name, distance = found
        return f"{name}+{distance:#x}" if distance else name

    def line(self, address: int) -> str:
        found = self._program.source_line(address)
        return "" if found is None else f"{found[0]}:{found[1]}"
