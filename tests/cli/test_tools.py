"""`seventeen asm`, `disasm`, `isa`, `guests`, `completion`, and the names they share."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guests import GUESTS, LIB, find
from hypervisor import __version__
from hypervisor.cli import COMMANDS
from isa.table import ROWS
from tests.cli.support import ROOT, environment, seventeen, write_source

SOURCE = """\
global _start
_start:
    mov eax, VALUE
.loop:
    dec eax
    jnz .loop
    ret
"""


def test_asm_writes_a_flat_binary_beside_the_source(tmp_path: Path) -> None:
    source = write_source(tmp_path, "mov eax, 1\nret\n")
    done = seventeen("asm", source)
    assert (done.status, done.output, done.errors) == (0, b"", "")
    assert source.with_suffix(".bin").read_bytes().hex() == "b801000000c3"


def test_asm_defines_and_includes(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    write_source(tmp_path / "lib", "db 0x55\n", "part.inc")
    source = write_source(tmp_path, 'db VALUE\n%include "part.inc"\n')
    output = tmp_path / "out.bin"
    options = ["-D", "VALUE=0xAA", "-I", tmp_path / "lib", "-o", output]
    assert seventeen("asm", source, *options).status == 0
    assert output.read_bytes() == b"\xaa\x55"


def test_asm_lists(tmp_path: Path) -> None:
    source, listing = write_source(tmp_path, SOURCE), tmp_path / "guest.lst"
    assert seventeen("asm", source, "-D", "VALUE=9", "-l", listing).status == 0
    text = listing.read_text()
    assert re.search(r"^ *3 [ 0-9A-F]*B809000000 +mov eax, 9$", text, re.MULTILINE)


def test_asm_writes_an_elf_that_disasm_reads_back(tmp_path: Path) -> None:
    elf = tmp_path / "guest.elf"
    assert seventeen("asm", write_source(tmp_path, SOURCE), "-D", "VALUE=9", "-o", elf).status == 0
    assert elf.read_bytes()[:4] == b"\x7fELF"
    text = seventeen("disasm", elf).text
    assert "_start:" in text
    assert re.search(r"b809000000 +mov eax, 9", text)
    assert re.search(r"_start\.loop:\n.* dec eax\n.* jnz (short )?_start\.loop", text)


def test_disasm_of_a_flat_binary(tmp_path: Path) -> None:
    binary = tmp_path / "code.bin"
    binary.write_bytes(bytes.fromhex("0f0b ebfc 0fff"))
    lines = seventeen("disasm", binary, "--origin", "0x1000").text.splitlines()
    assert [int(line.split()[0], 16) for line in lines] == [0x1000, 0x1002, 0x1004, 0x1005]
    assert lines[0].split(None, 2)[2] == "ud2"
    assert "0x1000" in lines[1]
    assert "db 0x0f" in lines[2]
    default = seventeen("disasm", binary).text
    assert default.startswith("00100000")


def test_disasm_knows_gccs_symbols(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    code = tmp_path / "code.c"
    code.write_text("int answer(void) { return 42; }\n")
    built = tmp_path / "code.o"
    command = ["gcc", "-m32", "-O2", "-fcf-protection=none", "-c", str(code), "-o", str(built)]
    subprocess.run(command, check=True)
    assert re.search(r"answer:\n.*mov eax, 0x2a", seventeen("disasm", built).text)


def test_isa_prints_the_card_on_one_screen() -> None:
    lines = seventeen("isa").text.splitlines()
    assert 20 < len(lines) <= 50
    assert max(map(len, lines)) <= 80
    tour = {row.mnemonic for row in ROWS if row.tour}
    words = set(re.findall(r"[a-z0-9]+", "\n".join(lines)))
    assert {"mov", "popf", "hlt"} <= tour & words


@pytest.mark.parametrize("mnemonic", ["popf", "SGDT", "add", "jcc"])
def test_isa_describes_one_instruction(mnemonic: str) -> None:
    text = seventeen("isa", mnemonic).text
    for row in ROWS:
        if row.mnemonic == mnemonic.lower():
            assert row.opcode in text
    assert "class" in text


def test_guests_lists_them_all() -> None:
    text = seventeen("guests").text
    for guest in GUESTS:
        assert re.search(rf"^{guest.name} +{re.escape(guest.about)}", text, re.MULTILINE)


def test_guests_as_json() -> None:
    rows = json.loads(seventeen("guests", "--json").text)
    assert [row["name"] for row in rows] == [guest.name for guest in GUESTS]
    assert all(Path(row["source"]).exists() for row in rows)


def test_guests_show_and_copy(tmp_path: Path) -> None:
    shown = seventeen("guests", "--show", "hello").output
    assert shown == find("hello").source.read_bytes()
    copy = tmp_path / "mine.asm"
    assert seventeen("guests", "--copy", "hello", copy).status == 0
    assert copy.read_bytes() == shown
    assert seventeen("run", copy).output == find("hello").prints


def test_a_copy_of_the_operating_system_says_where_its_parts_are(tmp_path: Path) -> None:
    copy = tmp_path / "os.asm"
    done = seventeen("guests", "--copy", "os", copy)
    words = done.error_lines[0].split("seventeen ", 1)[1].split()
    assert seventeen(*words, typed=b"exit 3\n").status == 3


def test_the_library_is_found_wherever_the_source_is(tmp_path: Path) -> None:
    assert (LIB / "guest.inc").exists()
    text = '%include "guest.inc"\nstart:\n    print_line "found"\n    exit 4\n'
    done = seventeen("run", write_source(tmp_path, text), cwd=tmp_path)
    assert (done.status, done.output) == (4, b"found\n")


def test_version() -> None:
    assert __version__ in seventeen("--version").text
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    done = seventeen(command, "--help")
    assert done.status == 0
    assert "Usage: seventeen " + command in done.text
    assert COMMANDS[command] in seventeen("--help").text


def test_help_of_run_lists_every_exit_status() -> None:
    text = seventeen("run", "--help").text
    listed = set(map(int, re.findall(r"^  (\d\d)  ", text, re.MULTILINE)))
    assert listed == set(range(64, 74))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(shell: str, tmp_path: Path) -> None:
    script = seventeen("completion", shell).text
    assert "_SEVENTEEN_COMPLETE" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script is only looked at")
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([shell, "-n", str(file)], check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("seventeen gu", {"guests"}),
        ("seventeen run hel", {"hello"}),
        ("seventeen run --technique n", {"native"}),
        ("seventeen isa pop", {"pop", "popa", "popf"}),
        ("seventeen guests --show quick", {"quicksort"}),
        ("seventeen completion z", {"zsh"}),
        ("seventeen tour 1", {"1"}),
    ],
)
def test_completion_offers(words: str, expected: set[str]) -> None:
    count = len(words.split()) - 1
    done = seventeen(COMP_WORDS=words, COMP_CWORD=str(count), _SEVENTEEN_COMPLETE="bash_complete")
    offered = {line.split(",", 1)[1] for line in done.text.splitlines() if line[:5] == "plain"}
    assert expected <= offered
    assert all(name.startswith(words.split()[-1]) for name in offered)


def imports(*arguments: str) -> set[str]:
    """The modules that a run of Python with these arguments loads."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), text=True
    )
    assert done.returncode == 0
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}


def test_a_built_program_loads_nothing_it_does_not_need(tmp_path: Path) -> None:
    elf = tmp_path / "hello.elf"
    seventeen("asm", find("hello").source, "-o", elf)
    # What click loads is its own affair, and differs from version to version.
    loaded = imports("-m", "hypervisor", "run", str(elf)) - imports("-c", "import runpy, click")
    assert "emulator.machine" in loaded
    unwanted = {"rich", "lark", "hypothesis", "elftools", "isa.assembler", "isa.disassembler"}
    slow = {"dataclasses", "pathlib", "json"}
    assert not loaded & {*unwanted, *slow, "guests", "hypervisor.elf", "hypervisor.lines"}


def test_a_broken_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m hypervisor guests --json | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, env=environment()
    )
    assert done.returncode in (0, 73)
    assert done.stderr == b""
    assert os.linesep.encode() in done.stdout
