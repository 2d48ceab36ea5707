"""The guest instruction behind a difference: both runs once more, side by side.

`compare` (observe.py) says that two runs differ, and in what; but a wrong flag may show itself
thousands of instructions after it arose. Runs are deterministic and stop at an exact tick. So both
are started anew and stopped at the same ticks, where all that the guest can tell is compared; the
interval from the last equal stop to the first unequal one is then cut again, down to one
instruction: the one that was about to run when all was still equal.

A difference that has healed before a stop is not seen there. Intervals that are short enough are
therefore walked tick by tick from their beginning. Read observe.py for what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from emulator.result import Result
from hypervisor.experiments.observe import TICKS, Difference, NativeRun, Observation, compare
from isa.decoder import decode
from isa.disassembler import format_instruction
from isa.errors import DecodeError

#: Stops within one interval.
STOPS: Final = 16
#: Intervals up to this many ticks are walked tick by tick.
WALK: Final = 256
LONGEST: Final = 15  #: bytes of an instruction


class Run(Protocol):
    """A run that can be stopped: `NativeRun`, or one of a virtual machine."""

    def run(self, max_ticks: int) -> Result: ...
    def observe(self) -> Observation: ...


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two runs part: the instruction that ran at `tick`, and what it made different."""

    tick: int
    eip: int
    code: bytes  #: the instruction's; empty if none was to run
    text: str  #: the instruction in NASM's syntax
    place: str  #: symbol and source line, as far as they are known
    difference: Difference

    def __str__(self) -> str:
        place = f" in {self.place}" if self.place else ""
        return f"tick {self.tick}: {self.text} at {self.eip:#x}{place}: {self.difference}"


def first_difference(
    native: Callable[[], NativeRun],
    other: Callable[[], Run],
    *,
    max_ticks: int = TICKS,
    sites: Sequence[range] = (),
    name: str = "other",
) -> Divergence | None:
    """Find the instruction after which two runs first differ; None if they are equal.

    native, other: start a new run, always the same one. sites, name: as `compare` has them.
    Raises RuntimeError if a difference does not come again, for then a run is not deterministic.
    """

    def advance(runs: tuple[NativeRun, Run], tick: int) -> Difference | None:
        for run in runs:
            run.run(tick)
        ours, theirs = (run.observe() for run in runs)
        return compare(ours, theirs, sites=sites, name=name)

    runs: tuple[NativeRun, Run] = (native(), other())
    difference = advance(runs, max_ticks)
    if difference is None:
        return None
    # What differs only in how the run stopped differs after the last tick.
    ends = [run.observe().ending.tick for run in runs]
    low, high = 0, min(max_ticks, max(ends) + 1)
    if difference.tick is not None:
        high = min(high, difference.tick + 1)
    while high - low > 1:
        step = 1 if high - low <= WALK else -(-(high - low) // STOPS)
        runs = native(), other()
        for run in runs:
            run.run(low)
        for tick in [*range(low + step, high, step), high]:
            found = advance(runs, tick)
            if found is not None:
                high, difference = tick, found
                break
            low = tick
        else:
            raise RuntimeError("the runs differed and now do not: one is not deterministic")
    return _name(native(), low, difference)


def _name(run: NativeRun, tick: int, difference: Difference) -> Divergence:
    """The instruction that a native run executes at a tick."""
    run.run(tick)
    machine = run.machine
    state = machine.cpu.state
    linear = (state.seg[1].base + state.eip) & 0xFFFF_FFFF
    code = machine.cpu.read_linear(linear, LONGEST)
    place = " ".join(filter(None, (machine.symbols.name(linear), machine.symbols.line(linear))))
    text = "halted"
    if machine.halted:
        code = b""
    else:
        try:
            instruction = decode(code, state.eip)
            code, text = code[: instruction.length], format_instruction(instruction)
        except DecodeError:
            code, text = code[:1], "(no instruction)"
    return Divergence(tick, state.eip, code, text, place, difference)
