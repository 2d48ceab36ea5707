"""`seventeen run --gdb`: stock gdb, driving a guest natively and under every technique.

One session does what a person does: breaks, steps, looks, sets, watches, goes away. It must show
the same whoever runs the guest, for what gdb sees is the guest's. The protocol itself is tested
without gdb in tests/hypervisor.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.support import COMMAND, TIME_LIMIT, environment, seventeen, write_source

GDB: Final = shutil.which("gdb")
if GDB is None:
    pytest.skip("gdb is not installed", allow_module_level=True)

#: Unsafe instructions, so that the translator has work and the patcher sites; a frame for `bt`.
SOURCE: Final = """\
        section .multiboot
        align 4
        dd 0x1BADB002, 0, -0x1BADB002

        section .text
        global start
start:
        mov esp, 0x80000
        mov ebp, esp
        pushf
        popf
        mov ecx, 3
.loop:
        call outer
        dec ecx
        jnz .loop
        mov esi, total
        mov edi, 0x90000
        mov edx, ecx
        mov ecx, 4
        rep movsb
finish: mov al, [status]
        out 0xF4, al
        hlt

outer:
        push ebp
        mov ebp, esp
        call inner
        pop ebp
        ret

inner:
        push ebp
        mov ebp, esp
        pushf
        pop eax
        cli
        add [total], ecx
        pop ebp
        ret

        section .data
        align 4
total:  dd 0
status: dd 5
"""
TECHNIQUES: Final = (
    "native", "interpret", "trap --virtualizable", "translate", "translate --user",
    "translate --link-back", "patch", "patch --strict", "paravirt", "hardware",
    "hardware --mmu shadow",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program as an ELF with symbols, plain and paravirtual."""
    folder = tmp_path_factory.mktemp("gdb")
    source = write_source(folder, SOURCE)
    found = {}
    for name, more in (("plain", ()), ("paravirt", ("--paravirt",))):
        found[name] = folder / f"{name}.elf"
        done = seventeen("asm", "-f", "elf", *more, "-o", found[name], source)
        assert done.status == 0, done.errors
    return found


class Guest:
    """`seventeen run --gdb 0` in a process of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "run", "--gdb", "0", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.fullmatch(r"waiting for gdb on 127\.0\.0\.1:(\d+)\n", line)
        assert found is not None, line + self.process.stderr.read()
        self.port = found[1]

    def gdb(self, image: Path | None, *commands: str) -> str:
        """What gdb prints, after it has connected."""
        words = [str(GDB), "-q", "-nx", "-batch", "-ex", "set architecture i386"]
        words += ["-ex", "set confirm off", "-ex", f"target remote :{self.port}"]
        for command in commands:
            words += ["-ex", command]
        words += [] if image is None else [str(image)]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=TIME_LIMIT,
        )  # fmt: skip
        return done.stdout

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=TIME_LIMIT)
        assert "Traceback" not in errors, errors
        return self.process.returncode, output, errors


@contextlib.contextmanager
def guest(*arguments: str | Path) -> Iterator[Guest]:
    started = Guest(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def run_of(technique: str, images: dict[str, Path]) -> tuple[Path, list[str | Path]]:
    """The image, and the arguments of a run."""
    image = images["paravirt" if technique == "paravirt" else "plain"]
    name, *more = technique.split()
    return image, [*(["--technique", name] if name != "native" else []), *more, image]


SESSION: Final = (
    "tbreak inner",
    "continue",
    "backtrace 3",
    "print/x $cs",
    "info symbol $pc",
    "stepi 3",  # behind PUSHF
    "print/x *(int *)$esp & 0x200",
    "nexti",
    "print/x $eax & 0x3200",
    "step",
    "next",
    "hbreak inner if $ecx == 1",
    "continue",
    "print $ecx",
    "watch *(int *)&total",
    "continue",
    "print *(int *)&total",
    "set {int}&status = 9",
    "set $edx = 0x1234",
    "print/x $edx",
    "delete",
    "rwatch *(int *)&status",
    "continue",
    "info registers eax eip eflags cr0",
    "x/4xb &total",
    "x/4xb 0x90000",
    "monitor ticks",
    "delete",
    "continue",
)


def shown(text: str) -> str:
    """Without what is another image's: addresses, and ticks."""
    return re.sub(r"0x10[0-9a-f]{4}", "ADDRESS", text)


@pytest.fixture(scope="module")
def natively(images: dict[str, Path]) -> str:
    image, arguments = run_of("native", images)
    with guest(*arguments) as started:
        text = started.gdb(image, *SESSION)
        assert started.end()[0] == 9
    return text


def test_a_session(natively: str) -> None:
    lines = natively.splitlines()
    for expected in (
        "Temporary breakpoint 1, inner \\(\\) at .*guest.asm:34",
        "#1  .* in outer \\(\\) at .*guest.asm:29",
        "#2  .* in start.* at .*guest.asm:14",
        "\\$1 = 0x8",
        "inner in section \\.text",
        "\\$2 = 0x0",
        "\\$3 = 0x0",
        "Breakpoint 2, inner \\(\\) at .*guest.asm:34",
        "\\$4 = 1",
        "Hardware watchpoint 3: \\*\\(int \\*\\)&total",
        "Old value = 5",
        "New value = 6",
        "\\$5 = 6",
        "\\$6 = 0x1234",
        "Hardware read watchpoint 4: \\*\\(int \\*\\)&status",
        "Value = 9",
        "eax +0x9 .*",
        "eflags +0x46 .*\\[ PF ZF \\]",
        "cr0 +0x11 .*\\[ PE ET \\]",
        "0x90000:\t0x06\t0x00\t0x00\t0x00",
        "\\[Inferior 1 \\(Remote target\\) exited with code 011\\]",
    ):
        assert any(re.fullmatch(expected, line) for line in lines), f"{expected}\n{natively}"


@pytest.mark.parametrize("technique", TECHNIQUES[1:])
def test_a_session_is_the_same_under_every_technique(
    technique: str, images: dict[str, Path], natively: str
) -> None:
    image, arguments = run_of(technique, images)
    with guest(*arguments) as started:
        text = started.gdb(image, *SESSION)
        status, _, errors = started.end()
    assert status == 9, errors
    if technique == "paravirt":  # its sensitive instructions are other code
        assert "Breakpoint 2, inner ()" in text
        assert "Old value = 5\nNew value = 6" in text
    else:
        assert shown(text) == shown(natively)


def test_what_a_guest_is_told_is_what_gdb_shows(images: dict[str, Path]) -> None:
    """PUSHF in ring 1, unrepaired: the guest is shown the real IF, its own is 0."""
    image, arguments = run_of("trap", images)
    with guest(*arguments) as started:
        text = started.gdb(
            image, "break inner", "continue", "stepi 3", "print/x *(int *)$esp & 0x200",
            "print/x $eflags & 0x200", "kill",
        )  # fmt: skip
        started.end()
    assert re.search(r"\$1 = 0x200\n\$2 = 0x0\n", text), text


@pytest.mark.parametrize("technique", ["native", "translate"])
def test_detach_and_come_back(technique: str, images: dict[str, Path], tmp_path: Path) -> None:
    loop = write_source(tmp_path, "again: inc dword [0x180000]\njmp again\n", "loop.asm")
    _, arguments = run_of(technique, images)
    with guest(*arguments[:-1], loop) as started:
        assert "[Inferior 1 (Remote target) detached]" in started.gdb(None, "detach")
        text = started.gdb(None, "monitor info", "print *(int *)0x180000 > 1000", "kill")
        assert f"technique: {technique}" in text
        assert "$1 = 1" in text
        status, _, errors = started.end()
    assert status == 71
    assert errors == f"seventeen: {loop}: ended by gdb\n"


def test_a_guest_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in gdb: it sends SIGINT to itself, and the stub a byte."""
    loop = write_source(tmp_path, "again: inc dword [0x180000]\njmp again\n", "loop.asm")
    with guest(loop) as started:
        text = started.gdb(
            None,
            "python import threading, os, signal",
            "python threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
            "continue",
            "info program",
            "kill",
        )
        assert "Program received signal SIGINT" in text
        assert started.end()[0] == 71


def test_a_triple_fault_is_looked_at(tmp_path: Path) -> None:
    source = write_source(tmp_path, "mov eax, 0x77\nud2\n")
    with guest("--technique", "trap", source) as started:
        text = started.gdb(None, "continue", "print/x $eax", "x/i $pc", "continue")
        assert "Program received signal SIGSEGV" in text
        assert "$1 = 0x77" in text
        assert "ud2" in text
        assert "exited with code 0103]" in text
        assert started.end()[0] == 67


def test_what_the_monitor_says(images: dict[str, Path]) -> None:
    image, arguments = run_of("patch", images)
    with guest(*arguments) as started:
        asked = ("help", "info", "segments", "debug", "nonsense x")
        words = [f"monitor {command}" for command in asked]
        text = started.gdb(image, "break finish", "continue", *words, "kill")
        started.end()
    for expected in (
        "ticks     guest time", "technique: patch, mmu: shadow", "cs   0008 base 00000000",
        "dr7 00000400", "no command 'nonsense x'; there are help,",
    ):  # fmt: skip
        assert expected in text


def test_the_description_needs_no_architecture(images: dict[str, Path]) -> None:
    with guest(images["plain"]) as started:
        words = [str(GDB), "-q", "-nx", "-batch", "-ex", f"target remote :{started.port}",
                 "-ex", "info registers", "-ex", "kill"]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIME_LIMIT)
        started.end()
    names = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert {"eax", "gs", "fs_base", "cr0", "cr2", "cr3", "cr4"} <= set(names)


# -- The option ---------------------------------------------------------------------------------


def test_wrong_ports() -> None:
    for port in ("x", "-1", "65536"):
        done = seventeen("run", "--gdb", port, "hello")
        assert done.status == 64
        assert len(done.error_lines) == 1


def test_one_program(tmp_path: Path) -> None:
    done = seventeen("run", "--technique", "trap", "--gdb", "0", "hello", "hello")
    assert done.status == 64
    assert done.error_lines == ["seventeen: --gdb goes with one PROGRAM (try seventeen run --help)"]


def test_a_port_that_is_taken() -> None:
    with guest("hello") as started:
        done = seventeen("run", "--gdb", started.port, "hello")
        assert done.status == 64
        assert done.error_lines == [f"seventeen: --gdb {started.port}: Address already in use"]


def test_the_guest_prints_as_ever() -> None:
    with guest("--stats", "hello") as started:
        reader = threading.Thread(target=started.gdb, args=(None, "continue"))
        reader.start()
        status, output, _ = started.end()
        reader.join()
    assert (status, output) == (0, "Hello from ring 0.\n")
