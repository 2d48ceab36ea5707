"""The fingerprint that ties a built core to the table sees every change that matters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isa import fingerprint

ROOT = Path(fingerprint.HERE).parent


def test_it_covers_every_module_that_the_headers_are_made_of() -> None:
    program = "import sys, isa.generate; isa.generate.headers(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    used = {name for name in done.stdout.split() if name.split(".")[0] == "isa"}
    covered = {"isa", *(f"isa.{name}" for name in fingerprint.MODULES)}
    folders = tuple(f"isa.{name}" for name in fingerprint.FOLDERS)
    assert {name for name in used - covered if not name.startswith(folders)} == set()


def test_a_core_built_from_these_files_matches() -> None:
    assert fingerprint.matches(fingerprint.fingerprint())


def test_a_comment_does_not_make_a_core_stale() -> None:
    headers, _, _ = fingerprint.fingerprint().partition("-")
    assert fingerprint.matches(f"{headers}-of other files")


def test_another_table_makes_a_core_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = fingerprint.fingerprint()
    monkeypatch.setattr(fingerprint, "of_sources", lambda: "changed")
    monkeypatch.setattr("isa.generate.fingerprint", lambda: "another")
    assert not fingerprint.matches(built)
