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
    from hypervisor.experiments.fidelity import Column
    from hypervisor.experiments.subjects import Subject


def find(words: Sequence[str]) -> list[Subject] | None:
    """The programs named; None for none. StopError for what is neither file nor guest."""
    return [find_one(word) for word in words] or None


def find_one(word: str) -> Subject:
    """The program named; StopError for what is neither file nor guest."""
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


def check_memories(names: Sequence[str]) -> None:
    """UsageError for a memory virtualization that is none."""
    from hypervisor.memory import MEMORIES

    for name in names:
        if name not in MEMORIES:
            known = ", ".join(MEMORIES)
            raise click.UsageError(f"no memory virtualization {name!r}; there is {known}")


def columns_of(names: Sequence[str]) -> list[Column]:
    """Techniques as a table's head has them, `trap --virtualizable`; UsageError for one that is
    none."""
    from hypervisor.errors import HypervisorError
    from hypervisor.experiments.fidelity import Column
    from hypervisor.memory import choose_memory
    from hypervisor.techniques import find_technique

    columns = [Column.parse(name) for name in dict.fromkeys(names)]
    try:
        for column in columns:
            choose_memory(column.mmu, find_technique(column.technique))
            check_unsafe(column.virtualizable)
    except HypervisorError as error:
        raise click.UsageError(str(error)) from None
    return columns


def check_unsafe(names: bool | tuple[str, ...]) -> None:
    """UsageError unless the CPU can be repaired for all these; the machine knows which."""
    from emulator import Machine
    from emulator.errors import MachineError

    try:
        Machine(ram="2M", virtualizable=names)
    except MachineError as error:
        raise click.UsageError(str(error)) from None
