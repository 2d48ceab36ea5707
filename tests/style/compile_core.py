"""Compile the core with each compiler named, as it is built, every warning an error.

    python -m tests.style.compile_core gcc clang

`make lint` runs it. Some warnings come from the optimiser, so nothing less than the whole way to
the object file will do; a compiler that takes minutes over one file has failed too. Compilers that
are not installed are named and passed over.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from emulator import build_core
from tests.style.sources import ROOT

PATIENCE = 300  #: seconds for one file; execute.c takes gcc a minute


def commands(compiler: str, folder: Path) -> list[list[str]]:
    """One command a source of the core. `folder` has the headers, and is for the object files."""
    flags = [*build_core.flags()[0], "-Werror", "-I", str(ROOT / "csrc"), "-I", str(folder)]
    output = str(folder / "object.o")
    return [
        [compiler, *flags, "-c", str(ROOT / source), "-o", output] for source in build_core.SOURCES
    ]


def accepts(command: list[str]) -> bool:
    try:
        return subprocess.run(command, timeout=PATIENCE).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"no end after {PATIENCE} s: {' '.join(command)}")
        return False


def main(compilers: list[str]) -> int:
    """The number of sources that some compiler refused."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        build_core.write_headers(Path(folder))
        for compiler in compilers:
            if shutil.which(compiler) is None:
                print(f"{compiler} is not installed: left out")
                continue
            failures += sum(not accepts(command) for command in commands(compiler, Path(folder)))
    print(f"{failures} sources refused" if failures else "no warnings")
    return failures


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:] or ["gcc"]), 1))
