"""On a terminal: every key is the guest's, Ctrl-A is ours, and the terminal is always put back."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor.cli.terminal import Keys, QuitRequest
from tests.cli.support import COMMAND, ROOT, TIME_LIMIT, environment, write_source

#: Prints R when it runs, then each byte that it receives, in hexadecimal.
SHOW_BYTES = """
        mov al, 'R'
        call send
next:   mov dx, 0x3FD
ready:  in al, dx
        test al, 1
        jz ready
        mov dx, 0x3F8
        in al, dx
        mov bl, al
        shr al, 4
        call digit
        mov al, bl
        and al, 15
        call digit
        jmp next
digit:  cmp al, 10
        sbb al, 0x69
        das
send:   mov dx, 0x3F8
        out dx, al
        ret
"""
#: The same start, then no more interest in the world.
SPIN = "mov dx, 0x3F8\nmov al, 'R'\nout dx, al\njmp $"


#: Waits for a receive interrupt (IRQ 4, open in PIC and UART), which only a key for it would bring.
HALT = """
        mov dx, 0x3F8
        mov al, 'R'
        out dx, al
        mov al, 0x11
        out 0x20, al
        mov al, 0x20
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xEF
        out 0x21, al
        mov dx, 0x3FC
        mov al, 8
        out dx, al
        mov dx, 0x3F9
        mov al, 1
        out dx, al
        sti
        hlt
"""


class Session:
    """`seventeen run` on a terminal of its own."""

    def __init__(self, source: Path, *options: str, path: str = "") -> None:
        """path: a folder that Python looks for modules in, too."""
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [*COMMAND, "run", *options, str(source)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment(PYTHONPATH=f"{ROOT}:{path}"),
            start_new_session=True,
        )
        self.seen = b""

    def expect(self, text: bytes) -> None:
        """Read until `text` has come."""
        limit = time.monotonic() + TIME_LIMIT
        while text not in self.seen:
            left = limit - time.monotonic()
            assert left > 0, self.seen
            assert select.select([self.master], [], [], left)[0], self.seen
            self.seen += os.read(self.master, 1024)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def wait(self) -> int:
        return self.process.wait(TIME_LIMIT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def session(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session with the guest that the test names, once it runs."""
    text = getattr(request, "param", SHOW_BYTES)
    opened = Session(write_source(tmp_path, text))
    try:
        opened.expect(b"R")
        yield opened
    finally:
        opened.close()


def test_keys_reach_the_guest_at_once_and_are_not_echoed(session: Session) -> None:
    session.type(b"a")
    session.expect(b"61")
    assert b"a" not in session.seen


def test_control_keys_are_the_guests(session: Session) -> None:
    session.type(b"\x03\x1a\x1c\x04\x13\x11\r")  # Ctrl-C, Z, backslash, D, S, Q, Enter
    session.expect(b"031A1C0413110D")
    assert session.process.poll() is None


def test_ctrl_a_ctrl_a_sends_one(session: Session) -> None:
    session.type(b"\x01\x01b")
    session.expect(b"0162")


def test_ctrl_a_h_helps(session: Session) -> None:
    session.type(b"\x01h")
    session.expect(b"Ctrl-A X")


def test_ctrl_a_x_ends_the_run(session: Session) -> None:
    assert session.settings != session.before
    session.type(b"\x01x")
    assert session.wait() == 71
    assert session.settings == session.before


@pytest.mark.parametrize("session", [SPIN, HALT], indirect=True, ids=["spin", "halt"])
def test_ctrl_a_x_ends_a_guest_that_listens_to_nobody(session: Session) -> None:
    session.type(b"\x01x")
    assert session.wait() == 71
    assert session.settings == session.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("session", [SPIN, SHOW_BYTES], indirect=True, ids=["spin", "listen"])
def test_a_signal_ends_the_run_and_puts_the_terminal_back(
    session: Session, number: signal.Signals
) -> None:
    assert session.settings != session.before
    session.process.send_signal(number)
    assert session.wait() == -number
    assert session.settings == session.before


def test_keys_typed_in_pieces() -> None:
    keys = Keys()
    assert keys.filter(b"a\x01") == b"a"
    assert keys.filter(b"\x01b") == b"\x01b"
    assert keys.filter(b"\x01q\x01") == b""
    with pytest.raises(QuitRequest):
        keys.filter(b"X")


def test_ctrl_a_x_ends_the_wait_for_gdb(tmp_path: Path) -> None:
    """The guest has not begun, and nobody else reads what is typed."""
    opened = Session(write_source(tmp_path, SPIN), "--gdb", "0")
    try:
        opened.expect(b"waiting for gdb on 127.0.0.1:")
        opened.type(b"\x01x")
        assert opened.wait() == 71
        assert opened.settings == opened.before
        opened.expect(b"ended by Ctrl-A X")
    finally:
        opened.close()
