"""Build guests and run them under QEMU: the second opinion on what a guest prints.

The fixtures skip, with the reason, where NASM, GNU ld or QEMU is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from guests import Guest

#: Wall seconds; the longest guest needs about one.
TIME_LIMIT = 30

QEMU = [
    *("qemu-system-i386", "-nodefaults", "-m", "16", "-display", "none", "-no-reboot"),
    *("-serial", "stdio", "-monitor", "none"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what COM1 wrote, and the byte written to port 0xF4 (None: it never was)."""

    output: bytes
    status: int | None


def need(*tools: str) -> None:
    """Skip the test unless all of `tools` are installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def nasm(guest: Guest, form: str, target: Path) -> Path:
    """Assemble `guest` with NASM; warnings are failures, except those about its own macros."""
    include = [part for folder in guest.includes for part in ("-I", f"{folder}/")]
    command = ["nasm", "-Ox", "-Werror", "-f", form, *include, str(guest.source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def build_elf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Guest], Path]:
    """Returns a function from a guest to its multiboot ELF."""
    need("nasm", "ld")
    folder = tmp_path_factory.mktemp("elf")

    def build(guest: Guest) -> Path:
        target = folder / f"{guest.name}.elf"
        if not target.exists():
            unlinked = nasm(guest, "elf32", folder / f"{guest.name}.o")
            link = ["ld", "-m", "elf_i386", "-Ttext=0x100000", str(unlinked), "-o", str(target)]
            subprocess.run(link, check=True)
        return target

    return build


@pytest.fixture(scope="session")
def build_flat(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Guest], Path]:
    """Returns a function from a guest to its flat binary."""
    need("nasm")
    folder = tmp_path_factory.mktemp("flat")
    return lambda guest: nasm(guest, "bin", folder / f"{guest.name}.bin")


@pytest.fixture(scope="session")
def run_qemu() -> Callable[[Path, bytes], Outcome]:
    """Returns a function that runs a multiboot ELF with some input on COM1."""
    need("qemu-system-i386")

    def run(image: Path, typed: bytes) -> Outcome:
        done = subprocess.run(
            [*QEMU, "-kernel", str(image)],
            input=typed,
            stdout=subprocess.PIPE,
            timeout=TIME_LIMIT,
        )
        # isa-debug-exit ends QEMU with (value << 1) | 1; an even status is QEMU's own.
        value = done.returncode >> 1 if done.returncode & 1 else None
        return Outcome(done.stdout, value)

    return run
