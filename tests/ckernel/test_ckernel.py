"""A kernel in C that checks its machine, natively, under every technique, and on QEMU.

What it claims (kernel/) must hold on the bare machine; what it prints must be the same everywhere.
Watched, every access is on record, and all records must be equal. Nobody watching, the core and the
hypervisor take shorter ways with a local APIC, which must lead to the same end.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from emulator import Machine
from emulator.result import Result, Stop
from hypervisor.experiments.observe import MachineRun, NativeRun, compare
from hypervisor.experiments.qemu import COMMAND
from hypervisor.vm import VirtualMachine
from tests.ckernel.build import build, missing

SECTORS: Final = 64
IMAGE: Final = bytes(n * 7 + n // 512 & 0xFF for n in range(512 * SECTORS))
TICKS: Final = 20_000_000  #: a run takes a fifth
QEMU_SECONDS: Final = 60
WAYS: Final[dict[str, dict[str, Any]]] = {
    "interpret": {"technique": "interpret"},
    "trap": {"technique": "trap", "virtualizable": True},
    "translate": {"technique": "translate"},
    "patch": {"technique": "patch"},
    "nested": {"technique": "hardware", "mmu": "nested"},
    "shadow": {"technique": "hardware", "mmu": "shadow"},
}
NO_SVR: Final = "a local APIC that software has disabled keeps what is in its vector table"
NO_LATCH: Final = "ESR is read as it is, and writing to it does not clear it"
NO_ILLEGAL: Final = "vectors below 16 are sent and delivered like others"
NO_ERROR: Final = "errors are noted, but raise no interrupt"
#: Claims that do not hold on QEMU 7.2, and why.
DEVIATIONS: Final = {
    "apic: software disables it": NO_SVR,
    "apic: entries stay masked": NO_SVR,
    "apic: enabled, still": NO_SVR,
    "errors: told once": NO_LATCH,
    "errors: an illegal vector": NO_ILLEGAL,
    "errors: goes nowhere": NO_ILLEGAL,
    "errors: by interrupt": NO_ERROR,
    "errors: of a load, too": NO_ERROR,
    "edges: none while it is up": "to the I/O APIC each request of a device is an edge",
}

each_way = pytest.mark.parametrize("way", WAYS)


def options() -> dict[str, Any]:
    return {"ram": "16M", "machine": "apic", "disks": [IMAGE]}


def virtual(way: str) -> VirtualMachine:
    return VirtualMachine(**options(), **WAYS[way])


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel; skips, with the reason, where it cannot be compiled."""
    if reason := missing():
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("ckernel") / "kernel.elf")


def run(machine: Machine, kernel: Path, words: str = "timed") -> Result:
    machine.load(kernel.read_bytes(), kernel_args=words)
    return machine.run(TICKS)


@pytest.fixture(scope="module")
def native(kernel: Path) -> Result:
    return run(Machine(**options()), kernel)


@pytest.fixture(scope="module")
def watched(kernel: Path) -> NativeRun:
    found = NativeRun(kernel.read_bytes(), kernel_args="timed", **options())
    found.run(TICKS)
    return found


def claims(output: bytes) -> dict[str, bool]:
    """What was claimed, and whether it held; a claim made twice must hold twice."""
    found: dict[str, bool] = {}
    for line in output.decode().splitlines():
        verdict, _, name = line.partition(" ")
        name = name.partition(": found ")[0]
        found[name] = verdict == "ok" and found.get(name, True)
    return found


def test_all_claims_hold(native: Result) -> None:
    assert len(claims(native.output)) > 130
    assert [name for name, holds in claims(native.output).items() if not holds] == []
    assert (native.stop, native.status) == (Stop.POWERED_OFF, 0), native.reason


def test_being_watched_changes_nothing(native: Result, watched: NativeRun) -> None:
    result = watched.result
    assert result is not None
    assert (result.output, result.ticks, result.registers) == (
        native.output, native.ticks, native.registers,
    )  # fmt: skip


@each_way
def test_nobody_watching_it_comes_to_the_same_end(way: str, native: Result, kernel: Path) -> None:
    result = run(virtual(way), kernel)
    assert result.output.decode() == native.output.decode()
    assert (result.stop, result.status) == (native.stop, native.status), result.reason
    assert (result.ticks, result.registers) == (native.ticks, native.registers)


@each_way
def test_every_access_and_event_is_the_same(way: str, watched: NativeRun, kernel: Path) -> None:
    seen = MachineRun(virtual(way), kernel.read_bytes(), kernel_args="timed")
    seen.run(TICKS)
    assert compare(watched.observe(), seen.observe(), name=way) is None


@pytest.mark.parametrize("at", range(250_000, 4_000_000, 750_001))
@pytest.mark.parametrize("way", ["native", "translate", "nested"])
def test_saved_and_restored_it_goes_on_alike(
    way: str, at: int, native: Result, kernel: Path
) -> None:
    first, second = (Machine(**options()) if way == "native" else virtual(way) for _ in range(2))
    first.load(kernel.read_bytes(), kernel_args="timed")
    before = first.run(at)
    second.load(kernel.read_bytes(), kernel_args="timed")
    second.restore(first.save())
    result = second.run(TICKS)
    assert before.output + result.output == native.output
    assert (result.status, result.ticks) == (native.status, native.ticks)


def test_what_it_claims_holds_on_qemu(kernel: Path, tmp_path: Path) -> None:
    """But for what is listed; claims about time are not made there."""
    if shutil.which(COMMAND[0]) is None:
        pytest.skip(f"{COMMAND[0]} is not installed")
    (tmp_path / "disk.img").write_bytes(IMAGE)
    drive = f"file={tmp_path / 'disk.img'},format=raw,if=ide"
    command = [*COMMAND, "-m", "16M", "-kernel", str(kernel), "-drive", drive]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=QEMU_SECONDS
    )
    ours, theirs = claims(run(Machine(**options()), kernel, "").output), claims(done.stdout)
    assert list(ours) == list(theirs)
    assert [name for name, holds in theirs.items() if not holds] == list(DEVIATIONS)
    assert done.returncode == 2 * len(DEVIATIONS) + 1
