"""Errors of the hypervisor package: one base class; a message says what was expected and found."""

from __future__ import annotations


class HypervisorError(Exception):
    """Base of every error this package raises for bad input."""


class ImageError(HypervisorError):
    """A file that says it is an ELF32 for IA-32 and is not."""


class ExperimentError(HypervisorError):
    """An experiment was asked for something that there is not."""
