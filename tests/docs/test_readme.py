"""Every command in README.md is run here, and prints what README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.readme import README, Command, commands, matches

ROOT = README.parent
#: Commands that would run these very tests, or install things: here only their targets are checked,
#: they are run by .ci/run. Reasons stand beside them.
ELSEWHERE = {
    "make demo": "builds; .ci/run does",
    "make test": "these tests are part of it",
    "make deep": "takes hours with the tests that are part of it",
    "make bench": "wants the machine for itself",
    "make lint": "installs its tools",
    "pip install . && seventeen run hello": "installs; .ci/run installs a wheel",
    "pip install -e '.[test]' && pytest": "installs, and these tests are part of it",
}
#: Commands that want a kernel which is not ours.
FOREIGN = ("kernel", "kernelmemfs", "bzImage")
#: Programs that a command wants beside ours; without them it is left out.
TOOLS = ("gdb",)
COMMANDS = commands()
CODE_LIMIT = 2000  # lines of the reading order, comments and blank lines not counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder like a clone's root, so that files a command writes do no harm."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("guests", "tests"):
        (place / name).symlink_to(ROOT / name)
    tools = place / ".bin"
    tools.mkdir()
    for name, arguments in {"seventeen": "-m hypervisor", "python": ""}.items():
        script = f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" {arguments} "$@"\n'
        (tools / name).write_text(script, encoding="utf-8")
        (tools / name).chmod(0o755)
    return place


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would; stdout and stderr in one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "80"}
    environment["PATH"] = f"{folder / '.bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 8


def is_left_out(command: Command) -> bool:
    """Does it run elsewhere, or want what is not installed?"""
    missing = [tool for tool in TOOLS if f"; {tool} " in command.text and not shutil.which(tool)]
    if missing:
        print(f"left out, for {missing[0]} is not installed: {command.text}")
    foreign = command.text.split()[-1] in FOREIGN
    if foreign:
        print(f"left out, for that kernel is not ours: {command.text}")
    return bool(missing) or foreign or command.text in ELSEWHERE


def test_the_commands_do_what_readme_shows(folder: Path) -> None:
    wrong = []
    for command in COMMANDS:
        if is_left_out(command):
            continue
        done = run(command.text, folder)
        if not matches(command.output, done.stdout):
            wrong.append(f"$ {command.text}\nshown:\n{command.output}printed:\n{done.stdout}")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("text", sorted(set(ELSEWHERE) & {c.text for c in COMMANDS}))
def test_commands_run_elsewhere_exist(text: str) -> None:
    if not text.startswith("make "):
        assert (ROOT / "pyproject.toml").exists()
        return
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-n", *text.split()[1:]], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_library_examples_run_verbatim(folder: Path) -> None:
    """Each prints what its comments say, or the block below it."""
    examples = r"^```python\n(.*?)^```$\n(?:\n```text\n(.*?)^```$)?"
    found = re.findall(examples, README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert any("# 42\n" in program for program, _ in found)
    for program, block in found:
        comments = re.findall(r"^print\(.*\) +# (.*\n)", program, re.MULTILINE)
        promised = block or "".join(comments)
        (folder / "example.py").write_text(program, encoding="utf-8")
        assert promised
        assert run("python example.py", folder).stdout == promised


def test_inline_commands_are_known() -> None:
    """`seventeen WORD` in running text names a command that exists."""
    from hypervisor.cli import COMMANDS as KNOWN

    words = set(re.findall(r"`seventeen ([a-z]+)", README.read_text(encoding="utf-8")))
    assert words <= set(KNOWN)


def test_files_that_readme_names_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def section(title: str) -> str:
    """A section of README, up to the next."""
    text = README.read_text(encoding="utf-8")
    part = text[text.index(f"## {title}\n") :]
    return part[: part.index("\n## ", 4)]


def lecture_notes() -> list[list[str]]:
    """The rows of the table: heading, Italian, file, command, test."""
    rows = [line for line in section("From the lecture notes").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_what_the_lecture_notes_speak_of_is_there_or_not_yet() -> None:
    rows = lecture_notes()
    assert len(rows) >= 14
    assert all(len(row) == 5 and row[0] and row[1] for row in rows)
    built = [row for row in rows if row[2] != "not yet"]
    assert all(not row[3] and not row[4] for row in rows if row not in built)
    link = r"\[([^]]+)\]\(([^)]+)\)"
    for _, _, file, command, test in built:
        assert re.fullmatch(r"`seventeen [^`]+`", command), command
        for cell in (file, test):
            found = re.fullmatch(link, cell)
            assert found is not None, cell
            assert found[2].rstrip("/").endswith(found[1].rstrip("/"))
        assert "](tests/" in test


@pytest.mark.parametrize("command", [row[3].strip("`") for row in lecture_notes() if row[3]])
def test_commands_of_the_lecture_notes_work(command: str, folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 0, done.stdout
    assert done.stdout


def reading_order() -> list[Path]:
    """The files of README's reading order."""
    part = section("Reading order")
    return [ROOT / name for name in re.findall(r"^\d+\. \[[^]]*\]\(([^)]+)\)", part, re.MULTILINE)]


def lines_of_code(path: Path) -> int:
    """Lines less blank ones and comments; docstrings and block comments are comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = re.sub(r'^\s*"""(?:.|\n)*?"""', "", text, flags=re.MULTILINE)
    text = re.sub(r"/\*(?:.|\n)*?\*/", "", text)
    marks = {".py": "#", ".asm": ";", ".inc": ";"}.get(path.suffix, "//")
    return sum(1 for line in text.split("\n") if line.strip() and line.strip()[0] not in marks)


def test_the_reading_order_is_short_enough_to_read() -> None:
    lengths = {path.name: lines_of_code(path) for path in reading_order()}
    assert len(lengths) >= 8
    assert sum(lengths.values()) < CODE_LIMIT, lengths


def test_elision() -> None:
    assert matches("a\n...\nz", "a\nb\nc\nz\n")
    assert matches("a\n...\nz", "a\nz\n")
    assert matches("tick ... of 9", "tick 5 of 9")
    assert not matches("a\nz", "a\nb\nz\n")
    assert not matches("a", "a\nb")
    assert Command("x", "").output == ""


def test_what_operations_cost_is_what_compare_says() -> None:
    """The cells of the table; a dash where the technique is not faithful."""
    from hypervisor.experiments.compare import compare
    from hypervisor.experiments.fidelity import Column

    lines = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in section("What it costs, beside the paper").splitlines()
        if line.startswith("| ")
    ]
    head, *rows = lines[: next(i for i, line in enumerate(lines) if line[0] == "the paper")]
    columns = [Column(words, mmu=mmu or None) for words, _, mmu in
               (name.partition(" --mmu ") for name in head[2:])]  # fmt: skip
    quick = [row for row in rows if row[0] not in ("forkwait", "switch", "calls")]
    found = compare([row[0] for row in quick], columns, repeat=1)
    for name, *shown in quick:
        assert shown == [f"{row.each(row.cycles):,.0f}" for row in found.of(name)], name
