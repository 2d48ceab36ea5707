"""A guest's disk driver sees the same disk under every technique, and wherever a REP is cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from emulator import Machine
from emulator.disk import Disk
from emulator.result import Stop
from hypervisor.experiments.observe import NativeRun, Observation, compare
from hypervisor.experiments.virtual import VirtualRun
from tests.hypervisor.disk_guest import AFTERWARDS, IMAGE, PROGRAM, SECTORS

TICKS = 10_000_000
TECHNIQUES: list[tuple[str, dict[str, Any]]] = [
    ("translate", {}),
    ("patch", {}),
    ("hardware", {}),
    ("trap", {"virtualizable": True}),
    ("interpret", {}),
]


def native() -> tuple[Observation, bytes]:
    run = NativeRun(PROGRAM, disks=[IMAGE], ram="8M")
    run.run(TICKS)
    return run.observe(), contents(run.machine)


def contents(machine: Machine) -> bytes:
    """Of the first disk."""
    disk = machine.disks[0]
    assert disk is not None
    return disk.read(0, SECTORS)


def test_a_driver_works_natively() -> None:
    observation, disk = native()
    assert (observation.ending.stop, observation.ending.status) == ("POWERED_OFF", 0)
    assert disk == AFTERWARDS
    data = [access for access in observation.accesses if access.address == 0x1F0]
    assert len(data) == 128 + 128 + 256 + 256 + 512
    assert all(b.tick > a.tick for a, b in itertools.pairwise(data))


@pytest.mark.parametrize(("technique", "options"), TECHNIQUES, ids=[name for name, _ in TECHNIQUES])
def test_a_driver_works_as_natively(technique: str, options: dict[str, Any]) -> None:
    run = VirtualRun(PROGRAM, technique, disks=[IMAGE], ram="8M", **options)
    run.run(TICKS)
    ours, disk = native()
    assert compare(ours, run.observe(), name=technique) is None
    assert contents(run.machine) == disk


@pytest.mark.parametrize("technique", ["translate", "patch", "trap"])
def test_a_sector_takes_few_exits(technique: str) -> None:
    """One a page, not one an element."""
    run = VirtualRun(PROGRAM, technique, disks=[IMAGE], ram="8M", virtualizable=technique == "trap")
    run.run(TICKS)
    assert 1 <= run.machine.counts["insd"] <= 3
    assert 1 <= run.machine.counts["outsd"] <= 2


@pytest.mark.parametrize("step", [1, 97, 4999])
def test_cutting_a_run_changes_nothing(step: int) -> None:
    """Nor does a snapshot at each cut, disk and all."""
    ours, disk = native()
    run, tick, stop = NativeRun(PROGRAM, disks=[IMAGE], ram="8M"), 0, Stop.OUT_OF_TICKS
    while stop is Stop.OUT_OF_TICKS:
        tick = run.machine.ticks + (step if run.machine.ticks > 5000 else 5000)
        if step == 1:  # one element at a time, but not for hours
            tick = run.machine.ticks + (1 if run.machine.ticks % 5003 < 300 else 4700)
        stop = run.run(tick).stop
    assert compare(ours, run.observe(), name="cut") is None
    assert contents(run.machine) == disk


def test_a_snapshot_has_the_disk_that_is_in_memory() -> None:
    run = Machine(ram="8M", disks=[IMAGE])
    run.load(PROGRAM)
    ticks = run.run(TICKS).ticks
    first = Machine(ram="8M", disks=[IMAGE])
    first.load(PROGRAM)
    first.run(ticks - 8000)  # both sectors are written, and perhaps being read
    other = Machine(ram="8M", disks=[IMAGE])
    other.restore(first.save())
    assert other.run(TICKS).ticks == ticks
    assert other.run(TICKS).status == 0
    assert contents(other) == AFTERWARDS


def test_an_image_file_is_written_to(tmp_path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    with Disk(path) as disk:
        machine = Machine(ram="8M", disks=[disk])
        machine.load(PROGRAM)
        assert machine.run(TICKS).status == 0
        assert path.read_bytes() == AFTERWARDS
