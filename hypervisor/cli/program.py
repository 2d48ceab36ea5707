"""From the word PROGRAM on a command line to something a machine loads.

A file is what its first bytes say: an ELF by its magic, a source by its suffix .asm, else a flat
binary. A word that names no file is the name of a guest. Sources are assembled on the way; guests
take a while to assemble, so what came of them is kept in the user's cache directory, under a name
made of all their text and of ours: a change to either makes a new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hypervisor.cli.files import read_file
from hypervisor.cli.status import Stop, StopError

if TYPE_CHECKING:
    from pathlib import Path

    from isa.assembler import Program

SOURCE_SUFFIXES = (".asm", ".s", ".nasm")
CACHE_LIMIT = 200  # files; a guest's is some kilobytes
MULTIBOOT_HEADER = bytes.fromhex("02b0ad1b")
HEADER_WITHIN = 8192


class Loadable(NamedTuple):
    """What `Machine.load` takes, and an image with symbols and lines for whoever asks."""

    name: str
    what: str | bytes | Program
    image: Callable[[], bytes]
    machine: str = "pc"  #: which of emulator.machine.MACHINES it is meant for


def find_program(word: str, include: Sequence[str] = (), variant: str | None = None) -> Loadable:
    """What PROGRAM stands for. StopError, or the packages' own errors, if it stands for nothing.

    variant: the paravirtual one that a source is assembled to (isa/paravirt.py).
    """
    _, suffix = os.path.splitext(word)
    if os.path.exists(word):
        if suffix.lower() in SOURCE_SUFFIXES:
            return assembled(word, include, variant)
        image = read_file(word)
        return Loadable(word, word, lambda: image)
    if os.sep in word or suffix:
        raise StopError(Stop.MISSING, f"{word}: No such file or directory")
    return guest_program(word, variant)


def assembled(name: str, include: Sequence[str], variant: str | None = None) -> Loadable:
    """A source as a program: an ELF if it has a multiboot header, as it is if it has none."""
    from pathlib import Path

    from hypervisor.cli.asm import assemble_program

    program = assemble_program(Path(name), [Path(folder) for folder in include], {}, variant)
    if MULTIBOOT_HEADER in program.flat()[:HEADER_WITHIN]:
        return Loadable(name, program.elf(), program.elf)
    return Loadable(name, program, program.elf)


def guest_program(name: str, variant: str | None = None) -> Loadable:
    """A guest by name, from the cache if it is there."""
    from hypervisor.cli.asm import assemble_program
    from hypervisor.cli.guests import find_guest

    guest = find_guest(name)
    key = fingerprint([guest.source.parent, *guest.includes])

    def assemble() -> bytes:
        return assemble_program(guest.source, guest.includes, {}, variant).elf()

    image = cached(f"{name}-{variant or 'plain'}-{key}.elf", assemble)
    return Loadable(name, image, lambda: image, guest.machine)


def fingerprint(folders: Sequence[Path]) -> str:
    """A hash of all sources in these folders and of the packages that assemble them."""
    import hashlib
    from pathlib import Path

    import isa

    home = Path(isa.__file__).parent
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    ours = {path for path in home.rglob("*") if path.suffix in (".py", ".lark")}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0".encode("utf-8", "surrogateescape") + path.read_bytes())
    for path in sorted(ours):  # by time and size: reading them all would take longer than it saves
        status = path.stat()
        digest.update(f"{path}\0{status.st_mtime_ns} {status.st_size}".encode())
    return digest.hexdigest()[:24]


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """The bytes kept as `name` in the cache directory, or else made and, if possible, kept."""
    from pathlib import Path

    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "seventeen"
    try:
        return (folder / name).read_bytes()
    except OSError:
        pass
    data = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in old[:-CACHE_LIMIT]:
            path.unlink()
        scratch = folder / f"{name}.{os.getpid()}"
        scratch.write_bytes(data)
        scratch.replace(folder / name)  # whole or not at all, whoever else runs
    except OSError:
        pass  # a cache is a help, not a need
    return data
