"""What experiments run: a program by name or path, assembled once in each variant it is wanted in.

A technique that needs a paravirtual image has the source assembled for itself; its reference is
then the native twin (isa/sites.py). A program without a source can only be what it is. Read
fidelity.py and compare.py for who uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from guests import GUESTS, LIB, Guest, find
from hypervisor.errors import HypervisorError
from hypervisor.symbols import ImageSymbols
from hypervisor.variants import sites_of
from isa.assembler import Program, assemble_file
from isa.paravirt import HYPERVISOR, NATIVE

SOURCE_SUFFIXES: Final = (".asm", ".s", ".nasm")
MULTIBOOT_MAGIC: Final = bytes.fromhex("02b0ad1b")
HEADER_WITHIN: Final = 8192
#: A program that is no guest of ours is given so many guest ticks.
TICKS: Final = 50_000_000
KEPT: Final = 256  #: assembled images: every guest's, in three variants

Image = bytes | Program


@dataclass(frozen=True)
class Subject:
    """One program: its source or its image, and the machine it is meant for."""

    name: str
    path: Path
    includes: tuple[Path, ...] = ()
    ram: str = "16M"
    ticks: int = TICKS  #: a run that takes more is cut there
    input: bytes = b""
    kernel_args: str = ""  #: the command line of a multiboot kernel
    machine: str = "pc"  #: which of emulator.machine.MACHINES

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for the machine that it is meant for, bare or virtual."""
        return {"ram": self.ram, "machine": self.machine, "console_in": self.input}

    @property
    def has_source(self) -> bool:
        """Whether other variants can be assembled."""
        return self.path.suffix.lower() in SOURCE_SUFFIXES

    def image(self, variant: str | None = None) -> Image:
        """What a machine loads; HypervisorError for a variant that nobody can make."""
        if self.has_source:
            return _assembled(self.path, self.includes, variant)
        found = self.path.read_bytes()
        if sites_of(found)[0] != variant:
            wanted = f"the {variant} variant" if variant else "a plain program"
            raise HypervisorError(
                f"{self.name}: expected {wanted} or a source, found another image"
            )
        return found

    def symbols(self, image: Image) -> ImageSymbols:
        """Names for an image's addresses."""
        return ImageSymbols(lambda: image if isinstance(image, bytes) else image.elf())


@lru_cache(maxsize=KEPT)
def _assembled(path: Path, includes: tuple[Path, ...], variant: str | None) -> Image:
    program = assemble_file(path, include=[*includes, LIB], paravirt=variant)
    is_kernel = MULTIBOOT_MAGIC in program.flat()[:HEADER_WITHIN]
    return program.elf() if is_kernel else program


def variants(technique: str) -> tuple[str | None, str | None]:
    """The variants of a program that a technique runs, and that its native reference is."""
    return (HYPERVISOR, NATIVE) if technique == "paravirt" else (None, None)


def of_guest(guest: Guest) -> Subject:
    """A guest of the manifest."""
    return Subject(
        guest.name,
        guest.source,
        guest.includes,
        guest.ram,
        guest.ticks,
        guest.input,
        machine=guest.machine,
    )


def find_subject(what: str | Path | Guest | Subject) -> Subject:
    """A subject from the name of a guest, a path, or what is one already; GuestError, OSError."""
    if isinstance(what, Subject):
        return what
    if isinstance(what, Guest):
        return of_guest(what)
    if isinstance(what, str) and what in {guest.name for guest in GUESTS}:
        return of_guest(find(what))
    path = Path(what)
    if path.suffix or path.exists():
        path.read_bytes()  # says what is wrong
        return Subject(path.name, path)
    return of_guest(find(str(what)))  # says what there is


def find_subjects(wanted: Sequence[str | Path | Guest | Subject] | None) -> tuple[Subject, ...]:
    """Those wanted; None: all guests of the manifest."""
    return tuple(map(find_subject, GUESTS if wanted is None else wanted))
