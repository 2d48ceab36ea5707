"""A debugger without gdb: what gdb does to a machine, called directly.

`Driver` steps and continues a recorded run as hypervisor/gdb/server.py does, and keeps what is seen
at each stop. `script` draws what to do from a number: the same run, natively and under a technique,
must stop at the same places with the same registers.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final, NamedTuple

from emulator.result import Result, Stop
from hypervisor.experiments.observe import MachineRun, NativeRun, Observation, read_registers
from hypervisor.gdb.machine import MachineTarget
from hypervisor.gdb.target import Point
from tests.hypervisor.kernel_guests import MAX_TICKS

SLICE: Final = 5000
MOST_ORDERS: Final = 60
TRACED: Final = 1500  #: ticks in which places for breakpoints are looked for
LINEAR: Final = 0xFFFF_FFFF
ESP: Final = 4
CS: Final = 1


class Seen(NamedTuple):
    """One stop."""

    why: str
    tick: int
    halted: bool
    registers: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.why} at {dict(self.registers)['eip']:#x}, tick {self.tick}"


class Driver:
    """A run with a debugger."""

    def __init__(self, run: MachineRun, limit: int = MAX_TICKS) -> None:
        self.run, self.machine, self._limit = run, run.machine, limit
        self.target = MachineTarget(self.machine)
        self.target.attach()
        self.seen: list[Seen] = []
        self.end: Result | None = None

    @property
    def state(self) -> Any:
        return self.machine.cpu.state

    def step(self) -> Seen:
        """One instruction."""
        return self._go(stepping=True)

    def go_on(self) -> Seen:
        """To the next stop, or the end."""
        return self._go(stepping=False)

    def _go(self, *, stepping: bool) -> Seen:
        machine = self.machine
        self.target.resume(stepping=stepping)
        while True:
            waits = machine.halted
            until = machine.ticks + (1 if stepping and not waits else SLICE)
            result = self.run.run(min(until, self._limit))
            if result.stop is not Stop.OUT_OF_TICKS or result.ticks >= self._limit:
                break
            if stepping and not (waits and machine.halted):
                break
        self.target.suspend()
        paused = result.stop in (Stop.OUT_OF_TICKS, Stop.REQUESTED, Stop.BREAKPOINT)
        if not paused or result.ticks >= self._limit:
            self.end = result
        why = self.target.reason or ("" if paused else result.stop.name)
        self.seen.append(Seen(why, result.ticks, machine.halted, read_registers(self.state)))
        return self.seen[-1]

    def finish(self) -> Observation:
        """Go away, and let the guest run to its end."""
        self.target.detach()
        if self.end is None:
            self.run.run(self._limit)
        return self.run.observe()


def places_of(run: NativeRun) -> list[int]:
    """Linear addresses of the instructions that a run executes, in order."""
    found, machine = [], run.machine
    for tick in range(TRACED):
        result = machine.run(tick)
        state = machine.cpu.state
        found.append((state.seg[CS].base + state.eip) & LINEAR)
        if result.stop is not Stop.OUT_OF_TICKS:
            break
    return found


def script(
    run: MachineRun, seed: int, places: list[int], kinds: tuple[Point, ...] = ()
) -> tuple[list[Seen], Observation]:
    """Steps, breakpoints at places, watchpoints of some kinds on the stack, and looks at memory."""
    driver, rng = Driver(run), Random(f"gdb {seed}")
    target = driver.target
    known = sorted(set(places))
    breaks = set(rng.sample(known, min(len(known), rng.randint(1, 6))))
    for place in sorted(breaks):
        target.insert(Point.HARDWARE, place, 1)
    for _ in range(MOST_ORDERS):
        if driver.end is not None:
            break
        dice = rng.random()
        if dice < 0.5:
            driver.step()
        elif dice < 0.9:
            driver.go_on()
        elif dice < 0.95:
            place = rng.choice(places)
            (target.remove if place in breaks else target.insert)(Point.HARDWARE, place, 1)
            breaks ^= {place}
        else:
            offset, size = rng.randint(-16, 16), rng.choice((1, 2, 4, 8))
            if kinds:
                at = driver.state.gpr[ESP] + offset & LINEAR
                target.insert(rng.choice(kinds), at, size)
            target.read_memory(rng.choice(places), 64)
    return driver.seen, driver.finish()
