"""Machines and CPUs made, used and dropped in every order: what the leak detector is set on.

Run as a program by tests/core/sanitize.py, in a process of its own.
"""

from __future__ import annotations

import gc
from random import Random

from emulator.core import Cpu, TraceKind, lib
from emulator.memory import Memory

SIZE = 2 << 20
#: inc eax; ud2, with no IDT: a triple fault, traced. Or a loop. Or a breakpoint.
CODES = (b"\x40\x0f\x0b", b"\x40\xeb\xfd", b"\xcc", b"\xf4")


def churn(rounds: int, seed: int = 1) -> None:
    rng = Random(seed)
    for _ in range(rounds):
        memory = Memory(SIZE)
        cpus = [Cpu(memory.machine) for _ in range(rng.randrange(4))]
        for cpu in cpus:
            memory.write(0x1000, rng.choice(CODES))
            cpu.state.trace = int(rng.choice((0, TraceKind.EXEC, TraceKind.EVENT)))
            cpu["eip"] = 0x1000
            cpu.run(100)
            cpu.take_trace(rng.randrange(1, 50))
            cpu.load(cpu.save())
            lib.cpu_set_breakpoint(cpu.pointer, 0x1000)
            cpu.run(200)
        if rng.randrange(2):
            del memory
            gc.collect()
        rng.shuffle(cpus)
        while cpus:
            cpus.pop()
        gc.collect()


if __name__ == "__main__":
    churn(30)
