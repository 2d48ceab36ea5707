"""The streams of a run: COM1 on stdin and stdout, port 0xE9 and traces on stderr or in a file.

Nothing is buffered between the guest and stdout: what it has written is there, however it ends.
With --serial COM1's output goes to a file; with --screen, to nowhere else.
terminal.py takes over when stdin is a person's.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from hypervisor.cli.status import QuitRequest, Stop, StopError

if TYPE_CHECKING:
    from emulator.result import Result

STDIN, STDOUT, STDERR = 0, 1, 2


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, also to a pipe that is set not to block."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Runner(Protocol):
    """A machine, or what runs one."""

    @property
    def ticks(self) -> int: ...
    def run(self, max_ticks: int | None = None) -> Result: ...


class Console:
    """Where a run's bytes come from and go to; `with` puts a terminal in raw mode and back."""

    def __init__(self, trace_file: str | None = None, serial: str | None = None) -> None:
        """serial: the file for what the guest sends on COM1; stdout if not given."""
        self._trace_file, self._serial_file = trace_file, serial
        self._serial = STDOUT
        self._trace: TextIO = sys.stderr
        self._stack = ExitStack()
        self.source: Any = None
        self.is_terminal = False  #: a person types

    def __enter__(self) -> Console:
        if self._trace_file is not None:
            self._trace = self._open(self._trace_file)
        if self._serial_file is not None:
            self._serial = self._open(self._serial_file).fileno()
        self.source = self._open_source()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _open(self, name: str) -> TextIO:
        """A file to be written to until the run ends."""
        try:
            return self._stack.enter_context(open(name, "w", encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StopError(Stop.BAD_INPUT, f"{name}: cannot write: {error}") from None

    def _open_source(self) -> Any:
        from emulator.console import BytesInput, StreamInput

        try:
            terminal = os.isatty(STDIN)
            os.fstat(STDIN)
        except OSError:  # closed
            return BytesInput()
        self.is_terminal = terminal
        if terminal:
            from hypervisor.cli.terminal import Terminal

            return self._stack.enter_context(Terminal(STDIN))
        return StreamInput(STDIN)

    def write(self, data: bytes) -> None:
        """What the guest sent on COM1."""
        try:
            write_all(self._serial, data)
        except BrokenPipeError:
            raise StopError(Stop.OUTPUT_CLOSED, "standard output was closed") from None

    def write_debug(self, data: bytes) -> None:
        """What the guest wrote to port 0xE9."""
        write_all(STDERR, data)

    def write_trace(self, text: str) -> None:
        """A piece of a -d trace."""
        self._trace.write(text)

    def run(self, machine: Runner, max_ticks: int | None) -> Result:
        """Run the machine to its end, or until Ctrl-A X."""
        try:
            return machine.run(max_ticks)
        except QuitRequest:
            from emulator.result import Stop as MachineStop

            # The request came while a device was being asked: nothing more is to run.
            result = machine.run(machine.ticks)
            stop = MachineStop.REQUESTED
            return result._replace(stop=stop, status=stop.status, reason="ended by Ctrl-A X")
