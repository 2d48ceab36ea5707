"""The command line's own exit statuses, beside those of a machine (`emulator.result.Stop`).

0 to 63 are the guest's: what it wrote to port 0xF4. From 64 up they are ours; the table in
`seventeen run --help` is made of these rows and the machine's.
"""

from __future__ import annotations

from enum import IntEnum


class Stop(IntEnum):
    """Why a command ended early, apart from what the machine has to say."""

    USAGE = 64, "the command line is wrong"
    BAD_INPUT = 65, "bad input: a syntax error, a broken ELF, too little memory"
    MISSING = 66, "no such file, or it cannot be read"
    INTERNAL = 70, "a bug of ours"
    OUTPUT_CLOSED = 73, "standard output was closed"

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Stop:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class StopError(Exception):
    """Ends the command: one line for stderr, and the exit status."""

    def __init__(self, stop: Stop, message: str) -> None:
        super().__init__(message)
        self.stop = stop


class QuitRequest(Exception):
    """Ctrl-A X was typed: ends the run, wherever in it the key was seen."""
