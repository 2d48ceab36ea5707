"""A person's terminal as COM1: raw mode while the guest runs, and the keys that are for us.

Every key goes to the guest, Ctrl-C too; Ctrl-A begins a command to us, as in QEMU. Whatever ends
the run, the terminal is put back: by leaving the `with`, at exit, or on SIGTERM and SIGHUP. Output
keeps the terminal's newline translation, so a guest that prints bare line feeds reads well.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import termios
import time
from types import FrameType, TracebackType
from typing import Any, Final

from hypervisor.cli.status import QuitRequest

ESCAPE: Final = 0x01  # Ctrl-A
HELP: Final = """\
Ctrl-A H  this help
Ctrl-A X  end the run
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""
CHUNK: Final = 1024
_INPUT_OFF = (
    *(termios.IGNBRK, termios.BRKINT, termios.PARMRK, termios.ISTRIP),
    *(termios.INLCR, termios.IGNCR, termios.ICRNL, termios.IXON),
)
_LOCAL_OFF = (termios.ECHO, termios.ECHONL, termios.ICANON, termios.IEXTEN, termios.ISIG)


class Keys:
    """Takes Ctrl-A commands out of a stream of bytes."""

    def __init__(self) -> None:
        self._escaped = False

    def filter(self, data: bytes) -> bytes:
        """What of `data` is for the guest; QuitRequest on Ctrl-A X, help on stderr on Ctrl-A H."""
        kept = bytearray()
        for byte in data:
            if not self._escaped:
                self._escaped = byte == ESCAPE
                if not self._escaped:
                    kept.append(byte)
                continue
            self._escaped = False
            self._command(byte, kept)
        return bytes(kept)

    def _command(self, byte: int, kept: bytearray) -> None:
        key = chr(byte).lower()
        if key == "x":
            raise QuitRequest
        if byte == ESCAPE:
            kept.append(ESCAPE)
        elif key in "h?":
            sys.stderr.write(HELP)
            sys.stderr.flush()


class Terminal:
    """An `emulator.console.InputSource`; raw mode is on inside `with`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._keys = Keys()
        self._saved: list[Any] | None = None
        self.live = True

    def __enter__(self) -> Terminal:
        self._saved = termios.tcgetattr(self._descriptor)
        atexit.register(self.restore)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        raw = termios.tcgetattr(self._descriptor)
        for bit in _INPUT_OFF:
            raw[0] &= ~bit
        for bit in _LOCAL_OFF:
            raw[3] &= ~bit
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, raw)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the terminal back as it was found; harmless if it already is."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        with contextlib.suppress(termios.error):  # it may be gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, saved)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def read(self) -> bytes | None:
        """Keys typed since the last call, less our own commands; None if there were none."""
        if not self._ready(0.0):
            return None
        try:
            data = os.read(self._descriptor, CHUNK)
        except OSError:
            data = b""
        if not data:  # hung up
            self.live = False
            return b""
        return self._keys.filter(data) or None

    def wait(self, seconds: float | None) -> float:
        """Sleep until a key is typed, or for so long (None: for ever); returns seconds slept."""
        start = time.monotonic()
        self._ready(seconds)
        return time.monotonic() - start

    def _ready(self, seconds: float | None) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])
