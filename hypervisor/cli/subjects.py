"""Words on the command line of an experiment: programs by name or path, and techniques."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hypervisor.cli.files import read_file
from hypervisor.cli.guests import find_guest
from hypervisor.cli.status import Stop, StopError

if TYPE_CHECKING:
    from hypervisor.experiments.subjects import Subject


def find(words: Sequence[str]) -> list[Subject] | None:
    """The programs named; None for none. StopError for what is neither file nor guest."""
    return [_find(word) for word in words] or None


def _find(word: str) -> Subject:
    from hypervisor.experiments.subjects import Subject, of_guest
    from isa.errors import AssemblyError

    if not os.path.exists(word) and os.sep not in word and not os.path.splitext(word)[1]:
        return of_guest(find_guest(word))
    read_file(word)  # says what is missing, with the status for it
    subject = Subject(os.path.basename(word), Path(word))
    if subject.has_source:
        try:
            subject.image()
        except AssemblyError as error:
            raise StopError(Stop.BAD_INPUT, str(error)) from None
    return subject


def check_techniques(names: Sequence[str]) -> None:
    """UsageError for a technique that is none."""
    from hypervisor.errors import HypervisorError
    from hypervisor.techniques import find_technique

    try:
        for name in names:
            find_technique(name)
    except HypervisorError as error:
        raise click.UsageError(str(error)) from None
