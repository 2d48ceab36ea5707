"""Ties a built core to the table that it was built from, without reading the table at every start.

A fingerprint has two halves: a digest of the headers rendered from the table, and one of the source
files that they are rendered from. If the files are the same, so are the headers, and that is quick
to see; if they differ, perhaps in a comment, the headers decide. `isa/generate/` renders them,
`emulator/core.py` compares.
"""

from __future__ import annotations

import os
import zlib
from typing import Final

HERE: Final = os.path.dirname(os.path.realpath(__file__))
#: The modules of this package that the headers are made of (a test holds this list).
MODULES: Final = (
    *("__init__", "errors", "row", "operands", "registers", "table", "exceptions", "cost"),
    "fingerprint",
)
#: And the folders all of whose modules are.
FOLDERS: Final = ("rows", "generate")


def digest(text: bytes) -> str:
    """A short name for a text. Nobody means harm here, and hashlib takes 4 ms to load."""
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"


def of_sources() -> str:
    """The digest of the source files."""
    paths = [f"{name}.py" for name in MODULES]
    for folder in FOLDERS:
        names = sorted(os.listdir(os.path.join(HERE, folder)))
        paths += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return digest(b"\0".join(_read(path) for path in paths))


def _read(path: str) -> bytes:
    # Not by pathlib, which takes 3 ms to load.
    with open(os.path.join(HERE, path), "rb") as stream:
        return stream.read()


def fingerprint() -> str:
    """Both halves, for a core that is being built."""
    from isa import generate

    return f"{generate.fingerprint()}-{of_sources()}"


def matches(built: str) -> bool:
    """Whether a core with this fingerprint was built from the table as it is now."""
    headers, _, sources = built.partition("-")
    if sources == of_sources():
        return True
    from isa import generate

    return headers == generate.fingerprint()
