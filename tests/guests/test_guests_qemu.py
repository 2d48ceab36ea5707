"""Every guest under qemu-system-i386 prints what the manifest says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guests import GUESTS, Guest

if TYPE_CHECKING:
    from conftest import Outcome, Run

each_guest = pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)


def check(guest: Guest, outcome: Outcome) -> None:
    """Assert that a run did what the manifest says of QEMU."""
    assert outcome.status == guest.status
    if guest.qemu:
        # A deviation that is gone is an entry to delete.
        assert outcome.output != guest.prints, f"QEMU no longer deviates: {guest.qemu}"
    else:
        assert outcome.output.decode("ascii") == guest.prints.decode("ascii")


@each_guest
def test_our_elf_does_what_the_manifest_says(
    guest: Guest, build_elf: Callable[[Guest], Path], run_qemu: Run
) -> None:
    check(guest, run_qemu(build_elf(guest), guest.input))


@each_guest
def test_nasms_flat_binary_does_the_same(
    guest: Guest, build_flat: Callable[[Guest], Path], flat_loader: Path, run_qemu: Run
) -> None:
    check(guest, run_qemu(flat_loader, guest.input, "-initrd", str(build_flat(guest))))
