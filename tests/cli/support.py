"""Start `seventeen` as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "hypervisor"]
TIME_LIMIT = 60  # wall seconds


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.output.decode()

    @property
    def error_lines(self) -> list[str]:
        return self.errors.splitlines()


def environment(**more: str) -> dict[str, str]:
    """Ours, with the tree on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def seventeen(
    *arguments: str | Path, typed: bytes = b"", cwd: Path | None = None, **more: str
) -> Outcome:
    """Run one command line with `typed` on stdin; `more` goes to its environment."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=typed,
        capture_output=True,
        timeout=TIME_LIMIT,
        cwd=cwd,
        env=environment(**more),
    )
    errors = done.stderr.decode(errors="replace")
    assert "Traceback" not in errors, errors
    assert "a bug of ours" not in errors, errors
    return Outcome(done.returncode, done.stdout, errors)


def write_source(folder: Path, text: str, name: str = "guest.asm") -> Path:
    """A source file in `folder`."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def leave_with(status: int) -> str:
    """Source that ends the run with an exit status."""
    return f"mov al, {status}\nout 0xF4, al\n"
