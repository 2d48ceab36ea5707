"""Build guests and run them under QEMU: the second opinion on what a guest prints.

The fixtures skip, with the reason, where NASM or QEMU is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from guests import Guest
from isa import assemble_file

#: Wall seconds; the longest guest needs about one.
TIME_LIMIT = 30

#: Where flat_loader.asm lies, out of the guests' way.
LOADER_ADDRESS = 0x200000

#: Everything but the program and the amount of memory.
QEMU = [
    *("qemu-system-i386", "-nodefaults", "-display", "none", "-no-reboot"),
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


def nasm(source: Path, includes: tuple[Path, ...], form: str, target: Path) -> Path:
    """Assemble `source` with NASM; warnings are failures."""
    include = [part for folder in includes for part in ("-I", f"{folder}/")]
    command = ["nasm", "-Ox", "-Werror", "-f", form, *include, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def build_elf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Guest], Path]:
    """Returns a function from a guest to the multiboot ELF our assembler makes of it."""
    folder = tmp_path_factory.mktemp("elf")

    def build(guest: Guest) -> Path:
        target = folder / f"{guest.name}.elf"
        if not target.exists():
            target.write_bytes(assemble_file(guest.source, include=guest.includes).elf())
        return target

    return build


@pytest.fixture(scope="session")
def build_flat(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Guest], Path]:
    """Returns a function from a guest to the flat binary NASM makes of it."""
    need("nasm")
    folder = tmp_path_factory.mktemp("flat")
    return lambda guest: nasm(guest.source, guest.includes, "bin", folder / f"{guest.name}.bin")


@pytest.fixture(scope="session")
def flat_loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiboot ELF that starts the flat binary it is given as a module."""
    target = tmp_path_factory.mktemp("loader") / "flat_loader.elf"
    source = Path(__file__).with_name("flat_loader.asm")
    target.write_bytes(assemble_file(source, origin=LOADER_ADDRESS).elf())
    return target


@pytest.fixture(scope="session")
def qemu_command() -> list[str]:
    """QEMU without program and memory, for tests that talk to it while it runs."""
    need("qemu-system-i386")
    return QEMU


class Run(Protocol):
    """How to call `run_qemu`."""

    def __call__(self, image: Path, typed: bytes, *options: str, ram: str = "16M") -> Outcome: ...


@pytest.fixture(scope="session")
def run_qemu(qemu_command: list[str]) -> Run:
    """Returns a function that runs a multiboot ELF with some input on COM1."""

    def run(image: Path, typed: bytes, *options: str, ram: str = "16M") -> Outcome:
        command = [*qemu_command, "-m", ram, "-kernel", str(image), *options]
        done = subprocess.run(command, input=typed, stdout=subprocess.PIPE, timeout=TIME_LIMIT)
        # isa-debug-exit ends QEMU with (value << 1) | 1; an even status is QEMU's own.
        value = done.returncode >> 1 if done.returncode & 1 else None
        return Outcome(done.stdout, value)

    return run
