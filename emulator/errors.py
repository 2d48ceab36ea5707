"""Errors of the emulator package: one base class; a message says what was expected and found."""

from __future__ import annotations


class EmulatorError(Exception):
    """Base of every error this package raises for bad input or a bad installation."""


class CoreError(EmulatorError):
    """The compiled core is missing, stale, or refuses what it was given."""


class LoadError(EmulatorError):
    """A program, module or command line that cannot be loaded."""


class MachineError(EmulatorError):
    """A machine that cannot be built or restored as asked."""


class DiskError(EmulatorError):
    """A disk image that cannot be opened, or sectors that the host cannot read or write."""
