"""What a handler of an exit answers; exits.py says what becomes of it."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Outcome(Enum):
    """What becomes of the guest after an exit."""

    RESUME = "resume"
    REFLECT = "reflect"
    STOP = "stop"


#: The members, for what runs at every exit: until Python 3.12 `Outcome.RESUME` is a call.
RESUME: Final = Outcome.RESUME
REFLECT: Final = Outcome.REFLECT
STOP: Final = Outcome.STOP


class Counts(dict[str, int]):
    """How many, by reason; 0 of what has not been counted.

    A Counter takes twice as long, for every store to one is a call of Python.
    """

    def __missing__(self, reason: str) -> int:
        return 0


class Event(NamedTuple):
    """An exception that is the guest's own."""

    vector: int
    error: int | None = None
    address: int | None = None  #: CR2, of a page fault
