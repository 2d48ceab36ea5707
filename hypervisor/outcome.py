"""What a handler of an exit answers; exits.py says what becomes of it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """What becomes of the guest after an exit."""

    RESUME = "resume"
    REFLECT = "reflect"
    STOP = "stop"


class Event(NamedTuple):
    """An exception that is the guest's own."""

    vector: int
    error: int | None = None
    address: int | None = None  #: CR2, of a page fault
