"""NASM as an oracle: what it makes of a source, and of many lines at once.

NASM is a Debian package and may be missing; `available` says so, and tests skip with that reason.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PATH: Final = shutil.which("nasm")
available: Final = PATH is not None
MISSING: Final = "nasm is not installed (apt-get install nasm)"
_ERROR: Final = re.compile(r"^[^\n]*?:(\d+): (?:error|fatal|panic)", re.MULTILINE)


def run(
    source: str, *, output_format: str = "bin", include: Sequence[Path] = ()
) -> tuple[bytes | None, str]:
    """The output of NASM for a source (None if it refused), and what it said."""
    assert PATH is not None, MISSING
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source.asm").write_text(source, encoding="utf-8", errors="surrogateescape")
        command = [PATH, "-Ox", "-f", output_format, "-o", "out", "-l", "listing"]
        for directory in include:
            command += ["-I", f"{directory.resolve()}/"]
        done = subprocess.run(
            [*command, "source.asm"], cwd=folder, capture_output=True, check=False, timeout=60
        )
        output = folder / "out"
        data = output.read_bytes() if done.returncode == 0 and output.exists() else None
        return data, done.stderr.decode("utf-8", "replace")


def assemble_lines(lines: Sequence[str]) -> list[bytes | None]:
    """What NASM makes of each of many instructions, None where it refuses one.

    They are assembled in one run, one behind the other, with a table of where each begins.
    """
    refused: set[int] = set()
    for _ in range(8):
        kept = [number for number in range(len(lines)) if number not in refused]
        source = ["bits 32"]
        for number in kept:
            source.append(f"line_{number}: {lines[number]}")
        source.append("line_end:")
        # The starts of all lines, as data in a section behind them.
        source.append("section .starts")
        source += [f"dd line_{number}" for number in kept]
        source.append("dd line_end")
        data, said = run("\n".join(source))
        wrong = {kept[int(row) - 2] for row in _ERROR.findall(said) if int(row) - 2 < len(kept)}
        if data is not None and not wrong:
            return _cut(data, kept, len(lines))
        assert wrong, said
        refused |= wrong
    raise AssertionError("nasm refuses other lines each time")


def _cut(data: bytes, kept: list[int], count: int) -> list[bytes | None]:
    table = len(kept) + 1
    starts = [
        int.from_bytes(data[at : at + 4], "little")
        for at in range(len(data) - 4 * table, len(data), 4)
    ]
    results: list[bytes | None] = [None] * count
    for number, start, end in zip(kept, starts, starts[1:], strict=False):
        results[number] = data[start:end]
    return results
