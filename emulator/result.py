"""How a run ended, in a form for people and for scripts.

Read machine.py for who decides it.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any, NamedTuple

from emulator.core import Fault, Registers


class Stop(Enum):
    """Why a machine stopped, and the exit status; statuses from 64 up are ours, not the guest's.

    64 (bad usage), 65 (bad input), 66 (no such file) and 73 up are the command line's own.
    """

    POWERED_OFF = ("powered off", 0)  #: the status is the guest's own
    HALTED = ("halted with interrupts off", 0)
    TRIPLE_FAULT = ("triple fault", 67)
    OUT_OF_TICKS = ("out of ticks", 68)
    UNSUPPORTED = ("outside the slice of IA-32", 69)
    IDLE = ("halted, and nothing left that could wake it", 72)
    REQUESTED = ("stopped on request", 71)
    BREAKPOINT = ("stopped at a breakpoint", 71)
    UNHANDLED = ("an exit that nothing on the bare machine handles", 70)

    def __init__(self, words: str, status: int) -> None:
        self.words = words
        self.status = status


class Result(NamedTuple):
    """What a run leaves behind. Ticks are guest time, cycles machine time."""

    stop: Stop
    status: int  #: the exit status
    reason: str  #: one line; for a guest's fault the vector, eip, error code and bytes
    details: tuple[str, ...]  #: further lines: the chain of faults, where in the program
    registers: Registers
    ticks: int
    cycles: int
    exits: Counter[str]  #: by reason
    output: bytes  #: what was printed on COM1, if no one else took it
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """The guest stopped of its own accord, with status 0."""
        return self.status == 0

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        return {
            "stop": self.stop.name.lower().replace("_", "-"),
            "status": self.status,
            "reason": self.reason,
            "details": list(self.details),
            "ticks": self.ticks,
            "cycles": self.cycles,
            "exits": dict(sorted(self.exits.items())),
            "registers": self.registers._asdict(),
            "faults": [fault._asdict() for fault in self.faults],
        }
