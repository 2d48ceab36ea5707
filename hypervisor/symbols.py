"""What is at an address: symbol and offset, and the line of the source it comes from.

Made from an ELF image, read only when the first question is asked: most runs ask none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from emulator.symbols import Symbols

if TYPE_CHECKING:
    from hypervisor.elf import Section, Symbol
    from hypervisor.lines import Line

#: How far past a symbol of unknown size its name is still of use, in bytes.
REACH = 0x10000


class ImageSymbols(Symbols):
    """Names for the linear addresses of an ELF image; `read` gives its bytes when needed."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        super().__init__()
        self._read = read

    @cached_property
    def sections(self) -> list[Section]:
        """The sections of the image; none where it is no ELF."""
        from hypervisor.elf import read_sections
        from hypervisor.errors import ImageError

        try:
            return read_sections(self._read())
        except (ImageError, OSError):
            return []

    @cached_property
    def _symbols(self) -> list[Symbol]:
        from hypervisor.elf import read_symbols

        # Of several names for a place the first is kept; labels with a dot are local to one before.
        names: dict[int, Symbol] = {}
        for symbol in read_symbols(self.sections):
            names.setdefault(symbol.address, symbol)
        return sorted(names.values(), key=lambda symbol: symbol.address)

    @cached_property
    def addresses(self) -> list[int]:
        """Where symbols stand, in order."""
        return [symbol.address for symbol in self._symbols]

    @cached_property
    def _lines(self) -> list[Line]:
        from hypervisor.lines import read_lines

        return read_lines(self.sections)

    @cached_property
    def _line_addresses(self) -> list[int]:
        return [line.address for line in self._lines]

    def exact(self, address: int) -> str | None:
        """The symbol at just this address, or None."""
        index = bisect_right(self.addresses, address) - 1
        if index < 0 or self.addresses[index] != address:
            return None
        return self._symbols[index].name

    def name(self, address: int) -> str:
        """``symbol+0x12``: the last symbol at or before the address; empty if none is near."""
        index = bisect_right(self.addresses, address) - 1
        if index < 0:
            return ""
        symbol = self._symbols[index]
        offset = address - self.addresses[index]
        if offset >= max(symbol.size, 1) and (symbol.size or offset >= REACH):
            return ""
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name

    def line(self, address: int) -> str:
        """``file:line`` of the instruction at the address; empty if it is not known."""
        index = bisect_right(self._line_addresses, address) - 1
        if index < 0 or self._lines[index].line is None:
            return ""
        return f"{self._lines[index].file}:{self._lines[index].line}"

    def describe(self, address: int) -> str:
        """``symbol+0x12 (file:line)``, as much of it as is known; empty if nothing is."""
        name, line = self.name(address), self.line(address)
        return f"{name} ({line})" if name and line else name or line
