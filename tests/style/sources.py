"""The files that the style tests look at: what git would track, less what is not text of ours."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("isa", "guests", "emulator", "hypervisor")


@functools.cache
def tracked() -> tuple[Path, ...]:
    """All files of the project: git's list, or in an unpacked archive whatever lies there."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = done.stdout.splitlines() if done.returncode == 0 else _all_names()
    others = _environments()
    kept = (name for name in sorted(names) if Path(name).parts[0] not in others)
    return tuple(path for name in kept if (path := ROOT / name).is_file())


def _environments() -> set[str]:
    """Virtual environments that somebody has made here."""
    return {path.parent.name for path in ROOT.glob("*/pyvenv.cfg")}


def _all_names() -> list[str]:
    hidden = {".venv", ".git", "build", "dist", "__pycache__"}
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
    return [str(path) for path in paths if not hidden & set(path.parts)]


def named(*suffixes: str, below: tuple[str, ...] = ()) -> list[Path]:
    """Files with one of these suffixes, in one of these top-level folders (default: anywhere)."""
    return [
        path
        for path in tracked()
        if path.suffix in suffixes and (not below or path.relative_to(ROOT).parts[0] in below)
    ]


def relative(path: Path) -> str:
    """The path as a test's id."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))
