"""`seventeen run A B C`: one machine, several guests, and lines that say whose they are."""

from __future__ import annotations

import json
from pathlib import Path

from guests import find
from hypervisor.cli.several import LONGEST, Lines, Writer
from tests.cli.support import leave_with, seventeen, write_source


def behind(name: str, output: bytes) -> list[bytes]:
    return [name.encode() + b" | " + line for line in output.splitlines(keepends=True)]


def test_each_line_says_whose_it_is() -> None:
    done = seventeen("run", "hello", "rings", "--technique", "trap", "--virtualizable")
    lines = done.output.splitlines(keepends=True)
    assert [line for line in lines if line.startswith(b"hello")] == behind(
        "hello", find("hello").prints
    )
    assert [line for line in lines if line.startswith(b"rings")] == behind(
        "rings", find("rings").prints
    )
    assert done.status == 0
    assert done.error_lines == [
        "seventeen: hello: powered off with status 0",
        "seventeen: rings: powered off with status 0",
    ]


def test_equal_names_are_numbered() -> None:
    done = seventeen("run", "hello", "hello", "--technique", "trap")
    assert sorted(line.split(b" | ")[0] for line in done.output.splitlines()) == [
        b"hello-1",
        b"hello-2",
    ]


def test_stdin_goes_to_the_first() -> None:
    echo = find("echo")
    done = seventeen("run", "echo", "hello", "--technique", "trap", typed=echo.input)
    lines = done.output.splitlines(keepends=True)
    assert b"".join(line[8:] for line in lines if line.startswith(b"echo ")) == echo.prints


def test_the_first_status_that_is_not_0(tmp_path: Path) -> None:
    sources = [
        write_source(tmp_path, leave_with(status), f"{name}.asm")
        for name, status in (("a", 0), ("b", 5), ("c", 3))
    ]
    done = seventeen("run", *sources, "--technique", "trap")
    assert done.status == 5
    assert done.error_lines[1] == "seventeen: b: powered off with status 5"


def test_one_that_dies_takes_nobody_along(tmp_path: Path) -> None:
    bad = write_source(tmp_path, "ud2", "bad.asm")
    loop = write_source(tmp_path, "cli\njmp $", "loop.asm")
    done = seventeen(*("run", bad, "hello", loop, "--technique", "trap", "--max-ticks", "100_000"))
    assert done.output == b"hello | " + find("hello").prints
    assert done.status == 67
    assert done.error_lines[0].startswith("seventeen: bad: triple fault: #UD")
    assert done.error_lines[-2:] == [
        "seventeen: hello: powered off with status 0",
        "seventeen: loop: out of ticks",
    ]


def test_a_line_without_an_end_is_ended(tmp_path: Path) -> None:
    text = "mov dx, 0x3F8\nmov al, '?'\nout dx, al\n" + leave_with(0)
    source = write_source(tmp_path, text, "one.asm")
    done = seventeen("run", source, source, "--technique", "trap")
    assert sorted(done.output.splitlines()) == [b"one-1 | ?", b"one-2 | ?"]


def test_traces_say_whose_they_are(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    done = seventeen(
        *("run", "hello", "rings", "--technique", "trap", "-d", "exits,mmu", "-D", trace)
    )
    assert done.status == 0
    lines = trace.read_text().splitlines()
    assert {line.split(" | ")[0] for line in lines} == {"hello", "rings"}
    assert any(" | exit tick=" in line for line in lines)


def test_json_has_them_all(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    seventeen("run", "hello", "rings", "--technique", "trap", "--json", file, "--stats")
    result = json.loads(file.read_text())
    assert [machine["program"] for machine in result["machines"]] == ["hello", "rings"]
    assert all(machine["technique"] == "trap" for machine in result["machines"])
    assert result["wall"]["seconds"] > 0


def test_all_their_memory_has_to_be_there() -> None:
    done = seventeen("run", "hello", "hello", "--technique", "trap", "--ram", "2G")
    assert done.status == 64
    assert len(done.error_lines) == 1
    assert "2 times --ram" in done.errors


# -- Lines -----------------------------------------------------------------------------------------


def test_a_line_is_written_when_it_is_whole() -> None:
    written: list[bytes] = []
    lines = Lines(written.append)
    a, b = Writer(lines, b"a | "), Writer(lines, b"b | ")
    a.write(b"on")
    b.write(b"two\nthr")
    a.write(b"e\n\n")
    b.close()
    assert written == [b"b | two\n", b"a | one\n", b"a | \n", b"b | thr\n"]


def test_what_a_person_types_to_is_shown_at_once() -> None:
    written = bytearray()
    lines = Lines(written.extend)
    a, b = Writer(lines, b"a | ", live=True), Writer(lines, b"b | ")
    a.write(b"$ ")
    b.write(b"hello\n")
    a.write(b"ls\nx")
    a.close()
    assert written == b"a | $ \nb | hello\na | $ ls\na | x\n"


def test_a_line_that_never_ends_is_broken() -> None:
    written: list[bytes] = []
    writer = Writer(Lines(written.append), b"a | ")
    writer.write(b"x" * LONGEST)
    assert written == [b"a | " + b"x" * LONGEST + b"\n"]
