"""The techniques by which a guest can be run, by name."""

from __future__ import annotations

#: Name -> what it is, for help and completion.
TECHNIQUES = {"native": "ring 0 of the bare machine"}
