"""Compile the core and the tests' C with each compiler named, every warning an error.

    python -m tests.style.compile_core gcc clang

`make lint` runs it. Compilers that are not installed are named and passed over.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from emulator import build_core
from tests.style.sources import ROOT

WARNINGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]


def commands(compiler: str, headers: Path) -> list[list[str]]:
    """One command a source of the core."""
    include = ["-I", str(ROOT / "csrc"), "-I", str(headers)]
    return [[compiler, *WARNINGS, *include, str(ROOT / source)] for source in build_core.SOURCES]


def main(compilers: list[str]) -> int:
    """The number of sources that some compiler refused."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        build_core.write_headers(Path(folder))
        for compiler in compilers:
            if shutil.which(compiler) is None:
                print(f"{compiler} is not installed: left out")
                continue
            for command in commands(compiler, Path(folder)):
                failures += subprocess.run(command).returncode != 0
    print(f"{failures} sources refused" if failures else "no warnings")
    return failures


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:] or ["gcc"]), 1))
