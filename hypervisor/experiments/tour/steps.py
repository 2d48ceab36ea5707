"""A piece of a guest's source, followed line by line while it runs, on any machine.

The problem: to see two techniques side by side, both must be stopped at the same places. Guest time
is the same under every technique, so the ticks of a bare machine's run are places in all others.
A source has the labels `show` and `show_end` around the piece that is followed: it begins at the
tick at which the bare machine first gets there, and then each machine is stopped at every tick.
What runs between two lines of the piece, in a routine of the library, counts for the line that
called it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Generic, TypeVar

from emulator import Machine
from emulator.result import Result
from emulator.result import Stop as End
from guests import LIB
from hypervisor.experiments.observe import MachineRun
from hypervisor.vm import VirtualMachine
from isa import Program, assemble
from isa.exceptions import EXCEPTIONS

RAM: Final = "2M"
#: Ticks by which a stop's guest must be at the place that is shown, and done with it.
TICKS: Final = 20_000
IF: Final = 1 << 9
IOPL_SHIFT: Final = 12
COMMENT: Final = ";"

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Step(Generic[Seen]):
    """A line of the source that has run."""

    number: int  #: of the line, from 1
    tick: int  #: when it began to run
    seen: Seen  #: what `look` saw when the next line was about to run


@dataclass(frozen=True, slots=True)
class Walk(Generic[Seen]):
    """All lines of the piece, in the order in which they ran, and how the run ended."""

    steps: tuple[Step[Seen], ...]
    result: Result
    events: tuple[str, ...]  #: delivered within the piece


@cache
def build(source: str, paravirt: str | None = None, define: str = "") -> Program:
    """Assemble a stop's source; `define` is NAME=VALUE."""
    name, _, value = define.partition("=")
    defines = {name: value} if name else {}
    return assemble(source, name="tour.asm", include=[LIB], defines=defines, paravirt=paravirt)


def bare() -> Machine:
    """The bare machine, which is what the others are held against."""
    return Machine(ram=RAM)


def piece(program: Program) -> range:
    """Addresses of what is shown."""
    return range(program.symbols["show"].value, program.symbols["show_end"].value)


def first_tick(program: Program) -> int:
    """When the bare machine gets to what is shown."""
    machine, place = bare(), piece(program)
    machine.load(program)
    for tick in range(TICKS):
        machine.run(max_ticks=tick)
        if machine.cpu.state.eip in place:
            return tick
    raise AssertionError(f"not shown within {TICKS} ticks")


def walk(
    machine: Machine, program: Program, look: Callable[[Machine], Seen], start: int | None = None
) -> Walk[Seen]:
    """Follow the piece from tick `start`, by default the bare machine's first in it, to its end."""
    place = piece(program)
    run = MachineRun(machine, program)
    tick = first_tick(program) if start is None else start
    result = run.run(tick)
    look(machine)  # what was before does not count
    run.observe()
    before = len(run.recorder.events)
    steps: list[Step[Seen]] = []
    line: tuple[int, int] | None = None
    while tick < TICKS:
        eip = machine.cpu.state.eip
        ended = result.stop is not End.OUT_OF_TICKS
        if ended or eip in place or eip == place.stop:
            if line is not None:
                steps.append(Step(*line, look(machine)))
            if ended or eip == place.stop:
                break
            line = _line_of(program, eip), tick
        tick += 1
        result = run.run(tick)
    machine.drain_trace()
    events = run.recorder.events[before:]
    return Walk(tuple(steps), result, tuple(event_name(e.vector) for e in events))


def event_name(vector: int) -> str:
    """``#PF``, or what else a vector is called."""
    known = EXCEPTIONS[vector].mnemonic if vector < len(EXCEPTIONS) else ""
    return known or f"vector {vector:#x}"


def _line_of(program: Program, address: int) -> int:
    found = program.source_line(address)
    assert found is not None, hex(address)
    return found[1]


def text_of(program: Program, number: int) -> str:
    """A line of the source as it is shown: without its label and its comment."""
    line = program.source.splitlines()[number - 1].partition(COMMENT)[0]
    label, colon, rest = line.partition(":")
    return " ".join((rest if colon and " " not in label.strip() else line).split())


# -- What to look at -------------------------------------------------------------------------------


def flags(machine: Machine) -> str:
    """IF and IOPL, as the guest has them."""
    eflags = machine.cpu.state.eflags
    return f"IF={int(bool(eflags & IF))} IOPL={eflags >> IOPL_SHIFT & 3}"


class Exits:
    """The exits of a virtual machine since one last looked, in order."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._new: list[str] = []
        self.total = 0
        count = vm.count

        def record(reason: str) -> None:
            count(reason)
            self._new.append(reason)

        vars(vm).update(count=record)  # a machine that nobody listens to shall pay nothing for it

    def __call__(self, machine: Machine) -> str:
        del machine
        text = ", ".join(self._new) or "-"
        self.total += len(self._new)
        self._new.clear()
        return text


def first_unequal(left: list[str], right: list[str]) -> Iterator[int]:
    """The first index at which two columns differ, if there is one."""
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            yield number
            return
