"""Where the bytes come from that a guest reads on COM1.

A source is asked when the guest listens. Bytes that need nobody to type them (a file, a closed
pipe) are all there from the start, so a run with them is the same every time. A terminal, or a pipe
whose writer waits for the guest, is *live*: its bytes are stamped with the tick at which they came.
The UART (devices/uart.py) lets the bytes in at line rate; board.py asks and stamps.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol, runtime_checkable

#: How long an open, empty pipe may think before it is taken to be live, in seconds. Whoever writes
#: without waiting for an answer (`echo ls | seventeen run os`) has written by then.
PIPE_PATIENCE: Final = 0.2
CHUNK: Final = 4096

Sink = Callable[[bytes], object]  #: takes what a guest sends


@runtime_checkable
class InputSource(Protocol):
    """What the machine asks for input."""

    @property
    def live(self) -> bool:
        """Bytes may still come while the guest runs."""

    def read(self) -> bytes | None:
        """The next bytes; b"" at the end; None if there are none yet. Never blocks for long."""

    def wait(self, seconds: float | None) -> None:
        """Wait until there is something to read, or for so long; None: for ever."""


class BytesInput:
    """Input known beforehand."""

    live = False

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    def read(self) -> bytes | None:
        data, self._data = self._data[:CHUNK], self._data[CHUNK:]
        return data

    def wait(self, seconds: float | None) -> None:
        """Nothing more will come."""


class StreamInput:
    """Input from a file descriptor: a file, a pipe, a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ended = False
        self.live = os.isatty(descriptor)

    def read(self) -> bytes | None:
        if self._ended:
            return b""
        if not self._ready(0.0 if self.live else PIPE_PATIENCE):
            self.live = True
            return None
        try:
            data = os.read(self._descriptor, CHUNK)
        except OSError:
            data = b""  # the terminal went away
        if not data:
            self._ended = True
            self.live = False
        return data

    def wait(self, seconds: float | None) -> None:
        if not self._ended:
            self._ready(seconds)

    def _ready(self, seconds: float | None) -> bool:
        try:
            return bool(select.select([self._descriptor], [], [], seconds)[0])
        except (OSError, ValueError):
            return True  # closed, or not for select: reading tells


ConsoleIn = InputSource | BinaryIO | bytes | int | None
ConsoleOut = Sink | BinaryIO | None


def as_source(given: ConsoleIn) -> InputSource:
    """The source that was given, or one over what was: nothing, bytes, a file or descriptor."""
    if given is None:
        return BytesInput()
    if isinstance(given, (bytes, bytearray)):
        return BytesInput(bytes(given))
    if isinstance(given, int):
        return StreamInput(given)
    if isinstance(given, InputSource):
        return given
    return StreamInput(given.fileno())


def as_sink(given: ConsoleOut) -> Sink | None:
    """The sink that was given, or one that writes to the file that was."""
    if given is None or callable(given):
        return given
    stream = given

    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write
