"""The small operating system: sessions beyond the manifest's, under QEMU."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guests import Guest, find

if TYPE_CHECKING:
    from conftest import Run

READY = "os: ready, try help\n"


@pytest.fixture
def session(
    build_elf: Callable[[Guest], Path], run_qemu: Run
) -> Callable[..., tuple[str, int | None]]:
    """Returns a function from what is typed to what is printed after the greeting, and status."""
    image = build_elf(find("os"))

    def play(typed: str, ram: str = "16") -> tuple[str, int | None]:
        outcome = run_qemu(image, typed.encode(), ram=ram)
        text = outcome.output.decode()
        return text.removeprefix(READY), outcome.status

    return play


Session = Callable[..., tuple[str, int | None]]


@pytest.mark.parametrize(
    ("typed", "printed", "status"),
    [
        ("exit\n", "$ exit\n", 0),
        ("exit 7\n", "$ exit 7\n", 7),
        ("\x04", "$ \n", 0),
        ("  exit  3  \n", "$   exit  3  \n", 3),
        ("ehco\b\b\b\b\x7fexit\r", "$ ehco" + "\b \b" * 4 + "exit\n", 0),
        ("hello&\x7f\nexit\n", "$ hello&\b \b\nhello from process 2\n$ exit\n", 0),
        ("&\nexit\n", "$ &\n$ exit\n", 0),
        ("hell\nexit\n", "$ hell\nshell: no such program: hell\n$ exit\n", 0),
        ("hellos\nexit\n", "$ hellos\nshell: no such program: hellos\n$ exit\n", 0),
        ("kill 1\nexit\n", "$ kill 1\nkill: no such process\nshell: exit status 1\n$ exit\n", 0),
    ],
)
def test_shell(session: Session, typed: str, printed: str, status: int) -> None:
    assert session(typed) == (printed, status)


def test_line_longer_than_the_shell_reads_is_cut_not_lost(session: Session) -> None:
    words = "z" * 300
    printed, status = session(f"echo {words}\nexit\n")
    # 127 bytes are a line; the rest is read as further commands, which do not exist.
    assert printed.count("z") == 300 + 122 + 127 + 51
    assert printed.count("shell: no such program: ") == 2
    assert status == 0


def test_much_typed_ahead_is_neither_lost_nor_reordered(session: Session) -> None:
    commands = [f"echo line {number}" for number in range(300)]
    printed, status = session("\n".join([*commands, "exit 1\n"]))
    expected = "".join(f"$ {command}\n{command[5:]}\n" for command in commands)
    assert (printed, status) == (expected + "$ exit 1\n", 1)


def test_many_processes_at_once(session: Session) -> None:
    spinners = 12
    typed = "spin &\n" * spinners + "forktest\n"
    typed += "".join(f"kill {pid}\n" for pid in range(2, 2 + spinners)) + "forktest\nexit\n"
    printed, status = session(typed)
    # Sixteen records less shell, spinners and forktest leave two: not the five it wants.
    assert "$ forktest\nfork failed\nshell: exit status 1\n" in printed
    assert printed.endswith("there is room for 14 children\nno frame was lost\n$ exit\n")
    assert status == 0


def test_control_c_ends_the_program_in_the_foreground(
    build_elf: Callable[[Guest], Path], qemu_command: list[str]
) -> None:
    command = [*qemu_command, "-m", "16", "-kernel", str(build_elf(find("os")))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdin
        assert qemu.stdout
        qemu.stdin.write(b"cat\nhere\n")
        qemu.stdin.flush()
        heard = b""
        while not heard.endswith(b"here\nhere\n"):  # typed, and said again by cat
            heard += qemu.stdout.read(1)
        rest, _ = qemu.communicate(b"\x03exit 9\n", timeout=20)
    assert rest == b"shell: exit status 160\n$ exit 9\n"
    assert qemu.returncode >> 1 == 9


def test_small_memory_runs_out_and_comes_back(session: Session) -> None:
    printed, status = session("crash memory\nforktest\nexit\n", ram="3")
    assert "crash: killed: out of memory\n" in printed
    assert "no frame was lost\n" in printed
    assert status == 0


def test_too_little_memory_is_said(session: Session) -> None:
    assert session("", ram="2") == ("os: panic: 2 MiB of memory are needed\n", 60)
