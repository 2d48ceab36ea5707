"""Bad input gets one clear line on stderr and a status of its own, never a traceback."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.cli import COMMANDS, main
from tests.cli.support import seventeen, write_source

#: Arguments, the exit status, and what the line must say.
CASES = [
    ([], 64, "Missing command"),
    (["runn"], 64, "did you mean run?"),
    (["--nonsense"], 64, "--nonsense"),
    (["run"], 64, "expected a PROGRAM"),
    (["run", "hello", "echo"], 64, "one PROGRAM at a time"),
    (["run", "hello", "--technique", "magic"], 64, "no technique 'magic'; there is native"),
    (["run", "hello", "--technique", "trap", "--mmu", "magic"], 64, "there is shadow"),
    (["run", "hello", "--mmu", "shadow"], 64, "--mmu goes with a --technique"),
    (["run", "hello", "-d", "exits"], 64, "-d exits goes with a --technique"),
    (["run", "hello", "-d", "int, mmu"], 64, "-d mmu goes with a --technique"),
    (
        ["run", "hello", "--technique", "trap", "-d", "magic"],
        64,
        "in_asm, exec, int, out_asm, exits, mmu",
    ),
    (["run", "hello", "--technique", "trap", "--ram", "9G"], 64, "3G"),
    (["run", "hello", "echo", "--technique", "magic"], 64, "no technique 'magic'"),
    (["run", "hello", "helo", "--technique", "trap"], 66, "did you mean hello?"),
    (["run", "hello", "--machine", "mac"], 64, "pc"),
    (["run", "hello", "--ram", "lots"], 64, "64M"),
    (["run", "hello", "--ram", "4K"], 64, "2M"),
    (["run", "hello", "--ram", "9G"], 64, "3G"),
    (["run", "hello", "--max-ticks", "many"], 64, "expected a number"),
    (["run", "hello", "--max-ticks", "-1"], 64, "expected 0 to"),
    (["run", "hello", "--rtc", "yesterday"], 64, "yesterday"),
    (["run", "hello", "-d", "magic"], 64, "in_asm"),
    (["run", "hello", "--virtualizable=add"], 64, "add"),
    (["run", "helo"], 66, "did you mean hello?"),
    (["run", "no/such/file.elf"], 66, "No such file"),
    (["run", "missing.asm"], 66, "No such file"),
    (["run", "hello", "--module", "missing"], 66, "missing"),
    (["run", "/"], 66, "directory"),
    (["run", "hello", "-D", "no/such/folder/trace"], 65, "cannot write"),
    (["run", "hello", "--json", "no/such/folder/file"], 65, "cannot write"),
    (["asm"], 64, "SOURCE"),
    (["asm", "missing.asm"], 66, "No such file"),
    (["asm", "{source}", "-o", "no/such/folder/x"], 65, "cannot write"),
    (["asm", "{source}", "-o", "{source}"], 64, "overwrite"),
    (["asm", "{source}", "-f", "coff"], 64, "coff"),
    (["asm", "{source}", "-D", "1=2"], 64, "NAME"),
    (["disasm"], 64, "FILE"),
    (["disasm", "missing"], 66, "No such file"),
    (["disasm", "{elf}"], 65, "ELF"),
    (["disasm", "{source}", "--origin", "here"], 64, "here"),
    (["isa", "popff"], 65, "did you mean popf"),
    (["isa", "qqq"], 65, "qqq"),
    (["guests", "--show", "helo"], 66, "did you mean hello?"),
    (["guests", "--copy", "hello", "{source}"], 65, "already"),
    (["guests", "--copy", "hello", "no/such/folder/x"], 66, "No such file"),
    (["completion", "tcsh"], 64, "tcsh"),
    (["run", "{elf}"], 65, "ELF"),
    (["run", "{empty}"], 65, "empty"),
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files that the cases name."""
    elf, empty = tmp_path / "broken.elf", tmp_path / "empty.bin"
    elf.write_bytes(b"\x7fELF and no more")
    empty.write_bytes(b"")
    source = write_source(tmp_path, "nop\n")
    return {"source": str(source), "elf": str(elf), "empty": str(empty)}


@pytest.mark.parametrize(("arguments", "status", "words"), CASES, ids=lambda case: str(case)[:60])
def test_one_line_and_a_status(
    arguments: list[str], status: int, words: str, files: dict[str, str], tmp_path: Path
) -> None:
    done = seventeen(*(word.format_map(files) for word in arguments), cwd=tmp_path)
    assert len(done.error_lines) == 1, done.errors
    assert done.error_lines[0].startswith("seventeen: ")
    assert words in done.error_lines[0]
    assert done.status == status
    assert done.output == b""


def test_a_syntax_error_shows_the_place(tmp_path: Path) -> None:
    source = write_source(tmp_path, "nop\nmov eax, [ebx\n    mvo eax, 1\n")
    for command in ("run", "asm"):
        done = seventeen(command, source)
        assert done.status == 65
        assert f"{source}:2:" in done.errors
        assert f"{source}:3:5: error" in done.errors
        assert "mvo eax, 1" in done.errors
        assert done.error_lines[-1].endswith("2 errors")


def test_more_than_the_memory_holds(tmp_path: Path) -> None:
    source = write_source(tmp_path, "nop\ntimes 3 << 20 nop\n")
    done = seventeen("run", source, "--ram", "2M")
    assert done.status == 65
    assert len(done.error_lines) == 1
    assert "memory" in done.errors


WORDS = st.one_of(
    st.sampled_from(["hello", "-", "--", "=", "-o", "-f", "elf", "-l", "--json", "--origin", "-d"]),
    st.sampled_from(["--max-ticks", "1000", "--ram", "2M", "--show", "popf", "--virtualizable"]),
    st.text(max_size=12).filter(lambda text: "\0" not in text and "/" not in text),
)


#: What keeps a command short that would run for ever, or take all guests if none is named.
SHORT = {
    "run": ["--max-ticks", "100000"],
    "fidelity": ["hello"],
    "compare": ["--repeat", "1", "hello"],
    "classify": ["popf"],
    "tour": ["1"],
}


def call(arguments: list[str]) -> int:
    """Run in this process; the exit status."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(command=st.sampled_from(sorted(COMMANDS)), words=st.lists(WORDS, max_size=4))
def test_random_command_lines(
    command: str, words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with contextlib.chdir(tmp_path):
        status = call([command, *SHORT.get(command, ()), *words])
    errors = capfd.readouterr().err
    assert status in {0, *range(64, 74)}
    assert "Traceback" not in errors
    assert "a bug of ours" not in errors


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    command=st.sampled_from(["run", "disasm", "asm"]),
    head=st.sampled_from([b"", b"\x7fELF", b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\0\x03\0"]),
    body=st.binary(max_size=300),
    suffix=st.sampled_from([".asm", ".bin", ".elf"]),
)
def test_random_files(
    command: str,
    head: bytes,
    body: bytes,
    suffix: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    file = tmp_path / f"file{suffix}"
    file.write_bytes(head + body)
    more = {"run": ["--max-ticks", "10000"], "disasm": [], "asm": ["-o", str(tmp_path / "out")]}
    status = call([command, str(file), *more[command]])
    errors = capfd.readouterr().err
    assert 0 <= status < 64 or status in range(64, 74)
    assert "Traceback" not in errors
    assert "a bug of ours" not in errors
