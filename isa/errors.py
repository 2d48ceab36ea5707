"""Errors of the isa package: one base class; a message says what was expected and found."""

from __future__ import annotations

from typing import Any


class IsaError(Exception):
    """Base of every error this package raises for bad input."""


class TableError(IsaError):
    """A row of the instruction table breaks a rule of `isa/row.py`."""


class MnemonicError(IsaError):
    """No row of the table has this mnemonic."""


class DecodeError(IsaError):
    """Bytes that are no instruction of the slice.

    `vector` is the exception the processor raises for them: 6 (#UD), or 13 (#GP) for more than
    15 bytes; None where the bytes ended too early to say.
    """

    def __init__(self, message: str, vector: int | None = 6) -> None:
        super().__init__(message)
        self.vector = vector


class EncodeError(IsaError):
    """No row encodes this mnemonic with these operands."""


class SiteError(IsaError):
    """A sensitive instruction that cannot be replaced, or a broken list of those that were."""


class AssemblyError(IsaError):
    """A source with errors; its text is the full report, one paragraph an error."""

    def __init__(self, report: str, diagnostics: tuple[Any, ...] = ()) -> None:
        super().__init__(report)
        self.diagnostics = diagnostics  #: isa.assembler.diagnostics.Diagnostic, in order
