"""Every guest under qemu-system-i386 prints what the manifest says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guests import GUESTS, Guest

if TYPE_CHECKING:
    from conftest import Run

each_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


@each_guest
def test_prints_and_exits_as_the_manifest_says(
    guest: Guest,
    build_elf: Callable[[Guest], Path],
    run_qemu: Run,
) -> None:
    outcome = run_qemu(build_elf(guest), guest.input)
    assert outcome.status == guest.status
    if guest.qemu:
        # A deviation that is gone is an entry to delete.
        assert outcome.output != guest.prints, f"QEMU no longer deviates: {guest.qemu}"
    else:
        assert outcome.output.decode("ascii") == guest.prints.decode("ascii")


@each_guest
def test_flat_binary_does_the_same(
    guest: Guest,
    build_flat: Callable[[Guest], Path],
    build_elf: Callable[[Guest], Path],
    flat_loader: Path,
    run_qemu: Run,
) -> None:
    flat = run_qemu(flat_loader, guest.input, "-initrd", str(build_flat(guest)))
    assert flat == run_qemu(build_elf(guest), guest.input)
