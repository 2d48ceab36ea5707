"""Every guest on the bare machine: assembled by our assembler, run by our core."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emulator import Machine
from emulator.result import Result, Stop
from guests import GUESTS, Guest, find
from guests.manifest import TICKS
from isa import assemble_file

each_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


def run(guest: Guest, program: Path | bytes, virtualizable: bool = False) -> Result:
    """A run of `program`, which is some form of `guest`, within the manifest's ticks."""
    machine = Machine(**guest.options, virtualizable=virtualizable)
    machine.load(program)
    return machine.run(max_ticks=guest.ticks)


@each_guest
def test_assembles_to_nasms_bytes(guest: Guest, build_flat: Callable[[Guest], Path]) -> None:
    ours = assemble_file(guest.source, include=guest.includes).flat()
    assert ours == build_flat(guest).read_bytes()


@each_guest
def test_prints_and_exits_as_the_manifest_says(
    guest: Guest, build_elf: Callable[[Guest], Path]
) -> None:
    result = run(guest, build_elf(guest))
    assert result.stop == Stop.POWERED_OFF, result.reason
    assert result.output.decode("ascii") == guest.prints.decode("ascii")
    assert result.status == guest.status
    # A limit of a guest's own that lies far above what it takes would catch nothing.
    assert result.ticks < guest.ticks
    assert guest.ticks == TICKS or guest.ticks < 10 * result.ticks


@each_guest
def test_flat_form_prints_the_same(guest: Guest) -> None:
    program = assemble_file(guest.source, include=guest.includes)
    result = run(guest, program.flat())
    assert result.output == guest.prints
    assert result.status == guest.status


@pytest.mark.parametrize(
    "name", [g.name for g in GUESTS if g.name.startswith("probe_") and "far" not in g.name]
)
def test_virtualizable_makes_probes_trap(name: str, build_elf: Callable[[Guest], Path]) -> None:
    guest = find(name)
    result = run(guest, build_elf(guest), virtualizable=True)
    assert b"in ring 3: trapped, vector 13, error 0." in result.output
