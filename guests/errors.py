"""What can go wrong with guests: being asked for one that does not exist."""

from __future__ import annotations


class GuestError(Exception):
    """A name that is no guest's."""
