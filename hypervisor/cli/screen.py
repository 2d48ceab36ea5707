"""`seventeen run --screen`: the guest's 80 by 25 characters, live on a terminal, or at the end.

A thread looks at text memory twenty times a second and writes the rows that have changed; the guest
knows nothing of it. On a terminal the picture has a screen of its own, and what was there before
comes back; the last picture then stays, as text. Where stdout is no terminal, that is all there is.
emulator/screen.py says what is on the screen.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from emulator.screen import CHARACTERS, Screen, read_screen
from hypervisor.cli.console import STDOUT, write_all
from hypervisor.cli.ending import before_ending

if TYPE_CHECKING:
    from emulator.machine import Machine

INTERVAL: Final = 0.05  #: seconds
#: Pictures after which all is drawn again: something else may have written to the terminal.
FRESH: Final = 60
ENTER: Final = "\x1b[?1049h\x1b[2J"
LEAVE: Final = "\x1b[0m\x1b[?25h\x1b[?1049l"
#: The VGA's eight colours as a terminal numbers them: red and blue change places.
COLOURS: Final = (0, 4, 2, 6, 1, 5, 3, 7)


def style_of(attribute: int, blinks: bool) -> str:
    """The escape sequence for a cell's attribute."""
    ink = COLOURS[attribute & 7] + (90 if attribute & 8 else 30)
    ground = COLOURS[attribute >> 4 & 7] + 40
    if attribute & 0x80 and not blinks:
        ground += 60
    blink = ";5" if attribute & 0x80 and blinks else ""
    return f"\x1b[0;{ink};{ground}{blink}m"


def row_of(cells: bytes, blinks: bool) -> str:
    """A row of cells for a terminal."""
    pieces, style = [], -1
    for code, attribute in zip(cells[::2], cells[1::2], strict=True):
        if attribute != style:
            pieces.append(style_of(attribute, blinks))
            style = attribute
        pieces.append(CHARACTERS[code])
    return "".join(pieces)


class View:
    """What a terminal shows of a screen."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._cursor: tuple[int, int] | None = None
        self._left = 0  #: pictures until all is drawn again

    def update(self, screen: Screen, columns: int, lines: int) -> str:
        """What to write to a terminal of this size, so that it shows `screen`; perhaps nothing."""
        rows = [row_of(cells[: 2 * columns], screen.blinks) for cells in screen.rows[:lines]]
        if self._left == 0 or len(rows) != len(self._shown):
            self._shown, self._cursor, self._left = [""] * len(rows), None, FRESH
            start = "\x1b[0m\x1b[2J"
        else:
            start = ""
        self._left -= 1
        changed = [
            f"\x1b[{number};1H{row}"
            for number, (row, before) in enumerate(zip(rows, self._shown, strict=True), 1)
            if row != before
        ]
        if not changed and not start and screen.cursor == self._cursor:
            return ""
        self._shown, self._cursor = rows, screen.cursor
        return f"\x1b[?25l{start}{''.join(changed)}\x1b[0m{self._place(columns, lines)}"

    def _place(self, columns: int, lines: int) -> str:
        """The cursor's place, if it can be seen."""
        if self._cursor is None or self._cursor[0] >= lines or self._cursor[1] >= columns:
            return ""
        return f"\x1b[{self._cursor[0] + 1};{self._cursor[1] + 1}H\x1b[?25h"


def final_text(machine: Machine) -> bytes:
    """The screen as text, without the empty lines at its end."""
    return "".join(f"{line}\n" for line in _without_end(machine.screen())).encode()


def _without_end(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def write(text: bytes) -> None:
    """Write to stdout, unless nobody reads it any more."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        write_all(STDOUT, text)


@contextlib.contextmanager
def showing(machine: Machine) -> Iterator[None]:
    """Show a machine's screen until the block ends, and what it shows then for good."""
    try:
        if os.isatty(STDOUT):
            with _live(machine):
                yield
        else:
            yield
    finally:
        write(final_text(machine))


@contextlib.contextmanager
def _live(machine: Machine) -> Iterator[None]:
    view, done = View(), threading.Event()

    def loop() -> None:
        while not done.wait(INTERVAL):
            size = os.get_terminal_size(STDOUT)  # 0 by 0 if the terminal does not know
            screen = read_screen(machine.memory, machine.board.vga)
            write(view.update(screen, size.columns or 80, size.lines or 25).encode())

    def leave() -> None:
        if not done.is_set():
            done.set()
            if thread.is_alive():
                thread.join()
            write(LEAVE.encode())

    thread = threading.Thread(target=loop, daemon=True)
    try:
        with before_ending(leave):
            write(ENTER.encode())
            thread.start()
            yield
    finally:
        leave()
