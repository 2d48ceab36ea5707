"""`seventeen run A B C`: several virtual machines on one machine, and their output in one stream.

They take turns by machine time (hypervisor/host.py). A line of output stands behind the name of its
machine, as docker compose shows those of containers, and is kept back until it is whole; only what
the machine prints that a person types to is shown at once. run.py has the options.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hypervisor.cli import report
from hypervisor.cli.console import Console
from hypervisor.cli.files import write_file
from hypervisor.cli.program import Loadable
from hypervisor.cli.run import Options, build_machine, load
from hypervisor.cli.status import QuitRequest, Stop, StopError

if TYPE_CHECKING:
    from emulator.result import Result
    from hypervisor.host import Host

PIECE: Final = re.compile(rb"[^\n]*\n|[^\n]+")  #: a line, or the beginning of one
LONGEST: Final = 16384  #: bytes; a line that does not end is broken here


class Lines:
    """One stream that several machines write lines to."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._shown = b""  #: of a line that has not ended yet

    def put(self, line: bytes) -> None:
        """Write a whole line, above one that is being shown."""
        if self._shown:
            self._write(b"\n" + line + self._shown)
        else:
            self._write(line)

    def show(self, prefix: bytes, data: bytes) -> None:
        """Write data as it comes; only one machine may do that."""
        for piece in PIECE.findall(data):
            start = b"" if self._shown else prefix
            self._write(start + piece)
            self._shown = b"" if piece.endswith(b"\n") else self._shown + start + piece

    def close(self) -> None:
        """End a line that is being shown."""
        if self._shown:
            self._write(b"\n")
            self._shown = b""


class Writer:
    """What one machine writes to: whole lines of it go to `lines`, behind `prefix`."""

    def __init__(self, lines: Lines, prefix: bytes, live: bool = False) -> None:
        self._lines, self._prefix, self._live = lines, prefix, live
        self._rest = bytearray()

    def write(self, data: bytes) -> None:
        """Take bytes."""
        if self._live:
            self._lines.show(self._prefix, data)
            return
        self._rest += data
        if b"\n" not in data and len(self._rest) < LONGEST:
            return
        *whole, rest = bytes(self._rest).split(b"\n")
        if len(rest) >= LONGEST:
            whole, rest = [*whole, rest], b""
        self._rest = bytearray(rest)
        for line in whole:
            self._lines.put(self._prefix + line + b"\n")

    def write_text(self, text: str) -> None:
        """Take text."""
        self.write(text.encode())

    def close(self) -> None:
        """End the last line."""
        if self._rest:
            self.write(b"\n")
        elif self._live:
            self._lines.close()


def names_of(programs: Sequence[Loadable]) -> list[str]:
    """A short name for each; numbered where several would have the same."""
    names = [os.path.splitext(os.path.basename(program.name))[0] for program in programs]
    count, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        if count[name] > 1:
            seen[name] += 1
            names[index] = f"{name}-{seen[name]}"
    return names


def run_several(options: Options, programs: Sequence[Loadable]) -> int:
    """Run programs side by side; the exit status is the first that is not 0."""
    if options.json is not None:
        write_file(options.json, b"")
    names = names_of(programs)
    with Console(options.trace_file, options.serial) as console:
        host = build_host(options, len(programs))
        streams = Streams(console, names)
        for name, program in zip(names, programs, strict=True):
            vm = build_machine(options, program, host=host, **streams.arguments(name))
            load(vm, options, program)
        gc.freeze()
        gc.enable()
        start = time.perf_counter()
        results = run_host(host, options.max_ticks)
        seconds = time.perf_counter() - start
        streams.close()
    outcomes = [
        report.Outcome(name, options.technique, result, report.facts_of(vm))
        for name, result, vm in zip(names, results, host.machines, strict=True)
    ]
    tell(options, outcomes, seconds)
    return next((result.status for result in results if result.status), 0)


def build_host(options: Options, count: int) -> Host:
    """A machine with the memory that so many programs asked for."""
    from emulator.errors import MachineError
    from emulator.memory import parse_size
    from hypervisor.host import Host
    from isa.cost import DEFAULT_MODEL

    try:
        wanted = options.cost_model or DEFAULT_MODEL
        return Host(parse_size(options.ram) * count, guests=count, cost_model=wanted)
    except MachineError as error:
        raise StopError(Stop.USAGE, f"{count} times --ram: {error}") from None


class Streams:
    """The console's streams, shared by machines."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._width = max(map(len, names))
        self._output = Lines(console.write)
        self._debug = Lines(console.write_debug)
        self._trace = Lines(lambda data: console.write_trace(data.decode()))
        self._writers: list[Writer] = []

    def arguments(self, name: str) -> dict[str, Any]:
        """A machine's arguments for its streams; stdin goes to the first."""
        prefix = f"{name:{self._width}} | ".encode()
        first = not self._writers
        output = Writer(self._output, prefix, live=first and self._console.is_terminal)
        debug, trace = Writer(self._debug, prefix), Writer(self._trace, prefix)
        self._writers += [output, debug, trace]
        return {
            "console_in": self._console.source if first else None,
            "console_out": output.write,
            "debug_out": debug.write,
            "trace_out": trace.write_text,
        }

    def close(self) -> None:
        """End lines that have no end."""
        for writer in self._writers:
            writer.close()


def run_host(host: Host, max_ticks: int | None) -> list[Result]:
    """Run all machines to their ends, or until Ctrl-A X."""
    from emulator.result import Stop as MachineStop

    try:
        return host.run(host.machines, max_ticks)
    except QuitRequest:
        stop = MachineStop.REQUESTED
        results = [vm.run(vm.ticks) for vm in host.machines]
        return [
            result._replace(stop=stop, status=stop.status, reason="ended by Ctrl-A X")
            if result.stop is MachineStop.OUT_OF_TICKS
            else result
            for result in results
        ]


def tell(options: Options, outcomes: Sequence[report.Outcome], seconds: float) -> None:
    """How each has ended."""
    for outcome in outcomes:
        report.print_end(outcome.result, outcome.name, always=True)
    if options.stats:
        for outcome in outcomes:
            print(f"{outcome.name}:", file=sys.stderr)
            report.print_stats(outcome, seconds)
    if options.json is not None:
        machines = [report.as_json(outcome, seconds) for outcome in outcomes]
        for machine in machines:
            del machine["wall"]  # they share it
        report.write_json(options.json, {"machines": machines, "wall": {"seconds": seconds}})
