"""`seventeen run --screen`: text on a terminal as it changes, and as text where there is none."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.screen import Screen
from guests import find
from hypervisor.cli.screen import View, row_of, style_of
from tests.cli.support import leave_with, seventeen, write_source
from tests.cli.test_terminal import Session

#: Shows A to Z for ever, the scan codes that come in the second line, and says R.
ALIVE = """
        mov al, 'R'
        mov edx, 0x3F8
        out dx, al
        mov edi, 0xB8000 + 160
        mov ah, 0x2F
        mov bl, 'A'
next:   mov bh, 0x07
        mov [0xB8000], bx
        inc bl
        cmp bl, 'Z'
        jbe look
        mov bl, 'A'
look:   in al, 0x64
        test al, 1
        jz next
        in al, 0x60
        test al, 0x80
        jnz next
        stosw
        jmp next
"""
TYPED = b"hello, screen.\n"


# -- without a terminal -----------------------------------------------------------------------


def test_the_last_picture_is_printed_as_text() -> None:
    done = seventeen("run", "screen", "--screen", typed=TYPED)
    assert (done.status, done.text, done.errors) == (0, "Type a line: hello, screen.\n", "")


@pytest.mark.parametrize("technique", ["trap", "translate", "patch", "paravirt", "hardware"])
def test_it_is_the_same_under_a_technique(technique: str) -> None:
    done = seventeen("run", "screen", "--screen", "--technique", technique, typed=TYPED)
    assert (done.status, done.text, done.errors) == (0, "Type a line: hello, screen.\n", "")


def test_com1_goes_to_a_file(tmp_path: Path) -> None:
    serial = tmp_path / "serial"
    seventeen("run", "screen", "--screen", "--serial", serial, typed=TYPED)
    assert serial.read_bytes() == b"14 keys.\n"
    done = seventeen("run", "hello", "--serial", serial)
    assert (done.output, serial.read_bytes()) == (b"", find("hello").prints)


def test_an_empty_screen_is_no_text(tmp_path: Path) -> None:
    done = seventeen("run", write_source(tmp_path, leave_with(5)), "--screen")
    assert (done.status, done.output) == (5, b"")


def test_characters_that_ascii_lacks(tmp_path: Path) -> None:
    text = "mov dword [0xB8000], 0x07B107DB\n" + leave_with(0)
    assert seventeen("run", write_source(tmp_path, text), "--screen").text == "█▒\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["echo", "--technique", "trap", "--screen"], "--screen go with one PROGRAM"),
        (["--screen", "--watch"], "both have the terminal"),
        (["--serial", "no/such/folder/file"], "cannot write"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str) -> None:
    done = seventeen("run", "hello", *arguments)
    assert len(done.error_lines) == 1
    assert words in done.errors
    assert done.status in (64, 65)


# -- on a terminal ----------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    opened = Session(write_source(tmp_path, ALIVE), "--screen")
    try:
        opened.expect(b"\x1b[?1049h")
        yield opened
    finally:
        opened.close()


def test_the_picture_changes_while_the_guest_runs(session: Session) -> None:
    for letter in b"ABC":
        session.expect(b"\x1b[1;1H\x1b[0;37;40m%c" % letter)
    assert b"R" not in re.sub(rb"\x1b\[1;1H\S+", b"", session.seen)  # COM1 is not shown


def test_keys_are_the_keyboards(session: Session) -> None:
    session.type(b"y")  # its scan code is 0x15
    session.expect("§".encode())
    session.type(b"\x1b[A")  # 0xE0 is not below 0x80; 0x48 is H
    session.expect(b"H")


def test_ctrl_a_x_leaves_the_last_picture(session: Session) -> None:
    session.expect(b"\x1b[1;1H")
    session.type(b"\x01x")
    session.expect(b"\x1b[?1049l")
    session.expect(b"\r\n")
    assert session.wait() == 71
    assert session.settings == session.before
    assert re.search(rb"\x1b\[\?1049l[A-Z]\r\n", session.seen), session.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back(session: Session, number: signal.Signals) -> None:
    session.process.send_signal(number)
    session.expect(b"\x1b[?25h\x1b[?1049l")
    assert session.wait() == -number
    assert session.settings == session.before


# -- drawing ----------------------------------------------------------------------------------


def picture(*rows: bytes, cursor: tuple[int, int] | None = None) -> Screen:
    """A screen of these rows, each as long as the first, light grey on black."""
    cells = b"".join(bytes((byte, 7)) for row in rows for byte in row)
    return Screen(len(rows[0]), cells, cursor, blinks=True)


@pytest.mark.parametrize(
    ("attribute", "blinks", "style"),
    [
        (0x07, True, "0;37;40"),
        (0x1E, True, "0;93;44"),
        (0x4C, True, "0;91;41"),
        (0x87, True, "0;37;40;5"),
        (0x9F, False, "0;97;104"),
    ],
)
def test_colours(attribute: int, blinks: bool, style: str) -> None:
    assert style_of(attribute, blinks) == f"\x1b[{style}m"


def test_a_row_changes_its_style_only_where_it_changes() -> None:
    row = row_of(b"a\x07b\x07c\x1f", True)
    assert row == "\x1b[0;37;40mab\x1b[0;97;44mc"


def test_only_rows_that_have_changed_are_written() -> None:
    view = View()
    first = view.update(picture(b"one", b"two"), 80, 25)
    assert "one" in first
    assert "two" in first
    assert view.update(picture(b"one", b"two"), 80, 25) == ""
    second = view.update(picture(b"one", b"TWO"), 80, 25)
    assert "\x1b[2;1H" in second
    assert "one" not in second


def test_the_cursor_is_put_where_it_is_or_hidden() -> None:
    view = View()
    assert view.update(picture(b"abc", cursor=(0, 2)), 80, 25).endswith("\x1b[1;3H\x1b[?25h")
    moved = view.update(picture(b"abc", cursor=(0, 1)), 80, 25)
    assert moved == "\x1b[?25l\x1b[0m\x1b[1;2H\x1b[?25h"
    assert view.update(picture(b"abc"), 80, 25) == "\x1b[?25l\x1b[0m"


def test_a_small_terminal_shows_a_corner() -> None:
    shown = View().update(picture(b"abc", b"def", cursor=(1, 2)), 2, 1)
    assert "ab" in shown
    assert "c" not in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", shown)
    assert "d" not in shown
    assert not shown.endswith("\x1b[?25h")


def test_all_is_drawn_again_from_time_to_time() -> None:
    view, screen = View(), picture(b"abc")
    drawn = [bool(view.update(screen, 80, 25)) for _ in range(130)]
    assert drawn.count(True) == 3
