"""The small operating system: sessions beyond the manifest's, natively and under QEMU."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emulator import Machine
from emulator.board import CONSOLE
from emulator.devices import uart
from emulator.result import Stop
from guests import Guest, find

if TYPE_CHECKING:
    from conftest import Run

#: Twice what the longest session here takes; most of it is programs that only spin.
TICKS = 500_000_000
READY = "os: ready, try help\n"
#: What stands before it where there are APICs.
APICS = find("os_apic").prints.decode().partition("\n")[0] + "\n"


@pytest.fixture(params=["native", "apic", "qemu"])
def session(
    request: pytest.FixtureRequest, build_elf: Callable[[Guest], Path]
) -> Callable[..., tuple[str, int | None]]:
    """Returns a function from what is typed to what is printed after the greeting, and status."""
    guest = find("os_apic" if request.param == "apic" else "os")
    image = build_elf(guest)

    def native(typed: bytes, ram: str) -> tuple[bytes, int | None]:
        machine = Machine(ram=ram, machine=guest.machine, console_in=typed)
        machine.load(image)
        result = machine.run(max_ticks=TICKS)
        assert result.stop == Stop.POWERED_OFF, result.reason
        return result.output, result.status

    def qemu(typed: bytes, ram: str) -> tuple[bytes, int | None]:
        run: Run = request.getfixturevalue("run_qemu")
        outcome = run(image, typed, ram=ram)
        return outcome.output, outcome.status

    play = qemu if request.param == "qemu" else native

    def session(typed: str, ram: str = "16M") -> tuple[str, int | None]:
        output, status = play(typed.encode(), ram)
        return output.decode().removeprefix(APICS).removeprefix(READY), status

    return session


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
    command = [*qemu_command, "-m", "16M", "-kernel", str(build_elf(find("os")))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdin
        assert qemu.stdout
        qemu.stdin.write(b"cat\nhere\n")
        qemu.stdin.flush()
        heard = b""
        while not heard.endswith(b"here\nhere\n"):  # typed, and said again by cat
            heard += qemu.stdout.read(1)
        try:
            rest, _ = qemu.communicate(b"\x03exit 9\n", timeout=20)
        finally:
            qemu.kill()  # or leaving the block would wait for it
    assert rest == b"shell: exit status 160\n$ exit 9\n"
    assert qemu.returncode >> 1 == 9


def test_what_follows_control_c_is_never_read_by_the_killed_program(
    build_elf: Callable[[Guest], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was doing, even about to read; the bytes come at once, as QEMU lets them."""
    monkeypatch.setattr(uart, "BYTE_TICKS", 1)
    machine = Machine(console_in=b"cat\nhere\n")
    machine.load(build_elf(find("os")))
    while b"here\nhere" not in machine.run(max_ticks=machine.ticks + 20).output:
        assert machine.ticks < TICKS
    before = machine.save()
    for tick in range(machine.ticks, machine.ticks + 400, 4):
        machine.restore(before)
        machine.run(max_ticks=tick)
        machine.board.devices[CONSOLE].receive(b"\x03exit 9\n")
        result = machine.run(max_ticks=tick + 50_000_000)
        assert (result.stop, result.status) == (Stop.POWERED_OFF, 9), f"Ctrl-C at tick {tick}"


def test_small_memory_runs_out_and_comes_back(session: Session) -> None:
    printed, status = session("crash memory\nforktest\nexit\n", ram="3M")
    assert "crash: killed: out of memory\n" in printed
    assert "no frame was lost\n" in printed
    assert status == 0


def test_too_little_memory_is_said(build_elf: Callable[[Guest], Path], run_qemu: Run) -> None:
    """Our own machine has 2 MiB at least."""
    outcome = run_qemu(build_elf(find("os")), b"", ram="1536K")
    assert outcome.output == b"os: panic: 2 MiB of memory are needed\n"
    assert outcome.status == 60
