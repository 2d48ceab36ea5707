"""Text that should not be here: notes to ourselves, places on one machine, stray white space."""

from __future__ import annotations

import re

import pytest

from tests.style.sources import ROOT, relative, tracked

#: What is forbidden, spelled so that this file does not find itself.
FORBIDDEN = {
    "a note to ourselves": r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b",
    "a path of one machine": r"(?<![\w.])/(work|root|home|Users)/\w",
    "a merge conflict": r"(?m)^(<{7}|>{7}) ",
}
BINARY = {".bin", ".elf", ".png", ".gz"}
TEXTS = {
    relative(path): path.read_text(encoding="utf-8", errors="replace")
    for path in tracked()
    if path.suffix not in BINARY
}
#: What a program prints or reads, recorded: blanks at the ends of lines are part of it.
RECORDED = ("guests/prints/", "guests/input/")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_forbidden(what: str) -> None:
    found = {name: re.search(FORBIDDEN[what], text) for name, text in TEXTS.items()}
    assert not {name: match.group() for name, match in found.items() if match}


def test_white_space() -> None:
    trailing = {}
    for name, text in TEXTS.items():
        lines = [n for n, line in enumerate(text.split("\n"), 1) if line != line.rstrip()]
        if (lines or not text.endswith("\n")) and text and not name.startswith(RECORDED):
            trailing[name] = lines
    assert not trailing


def test_the_root_holds_only_what_belongs_there() -> None:
    folders = {"isa", "emulator", "hypervisor", "guests", "csrc", "tests"}
    files = {"setup.py", "README.md", "pyproject.toml", "MANIFEST.in", "Makefile", "LICENSE"}
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in top - folders - files if not name.startswith(".")} == set()


def test_tests_are_no_packages() -> None:
    assert not [name for name in TEXTS if re.fullmatch(r"tests/(.*/)?__init__\.py", name)]
