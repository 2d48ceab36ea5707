"""Segments for ring 1 and ring 3 that cannot reach the monitor area.

To paging, rings 0 to 2 are all supervisor: nothing but a segment's limit keeps a guest kernel in
ring 1 away from what ring 0 owns. So every segment that the real CPU loads for a guest is the
guest's own, cut to end below the monitor area (SDM vol. 3, 3.4.5). What a cut takes away from a
guest that was right to use it is given back by interpretation: the access faults, and the scratch
CPU makes it with the guest's own descriptor. Read descriptors.py for the tables.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from emulator.core import SEGMENTS, lib

ACCESSED: Final = lib.ATTR_ACCESSED
WRITABLE: Final = lib.ATTR_WRITABLE
EXPAND_DOWN: Final = lib.ATTR_EXPAND_DOWN
CODE: Final = lib.ATTR_CODE
READABLE: Final = lib.ATTR_READABLE  #: of code
CONFORMING: Final = lib.ATTR_CONFORMING
MEMORY: Final = lib.ATTR_CODE_OR_DATA
PRESENT: Final = lib.ATTR_PRESENT
BIG: Final = lib.ATTR_BIG
GRANULARITY: Final = lib.ATTR_GRANULARITY
UNUSABLE: Final = lib.ATTR_UNUSABLE
DPL_SHIFT: Final = 5
CS: Final = SEGMENTS.index("cs")
SS: Final = SEGMENTS.index("ss")
BYTE_LIMITS: Final = 1 << 20  #: limits below are stored in bytes, from here on in pages
KERNEL_RING: Final = 1  #: where a guest's ring 0 really runs


class Segment(NamedTuple):
    """A descriptor as a segment register holds it; `attributes` as csrc/api.h has them."""

    attributes: int
    base: int
    limit: int


def dpl(segment: Segment) -> int:
    """A descriptor's privilege level."""
    return segment.attributes >> DPL_SHIFT & 3


def parse(low: int, high: int) -> Segment:
    """The two doublewords of a descriptor."""
    limit = (low & 0xFFFF) | (high & 0xF0000)
    attributes = high >> 8 & 0xF0FF
    base = low >> 16 | (high & 0xFF) << 16 | (high & 0xFF00_0000)
    return Segment(attributes, base, limit << 12 | 0xFFF if attributes & GRANULARITY else limit)


def encode(segment: Segment) -> tuple[int, int]:
    """The descriptor that loads as this segment."""
    attributes, base, limit = segment
    stored = limit >> 12 if attributes & GRANULARITY else limit
    low = (stored & 0xFFFF) | (base & 0xFFFF) << 16
    high = (attributes & 0xF0FF) << 8 | stored & 0xF0000 | base >> 16 & 0xFF | base & 0xFF00_0000
    return low, high


def cut(segment: Segment, end: int) -> Segment | None:
    """The segment without linear addresses from `end` on; None if that leaves nothing sensible.

    Its DPL is at least 1, for ring 1 is where its kernel runs.
    """
    attributes, base, limit = segment
    if not dpl(segment):
        attributes |= KERNEL_RING << DPL_SHIFT
    if not attributes & CODE and attributes & EXPAND_DOWN:
        top = 0xFFFF_FFFF if attributes & BIG else 0xFFFF
        return Segment(attributes, base, limit) if base + top < end else None
    if base + limit < end:
        return Segment(attributes, base, limit)
    room = end - base  # bytes that remain
    if room <= 0:
        return None
    if room >= BYTE_LIMITS:
        attributes |= GRANULARITY
        room &= ~0xFFF
    else:
        attributes &= ~GRANULARITY
    return Segment(attributes, base, room - 1)


def nothing(segment: Segment) -> Segment:
    """A data segment of the same privilege, of which no offset is valid."""
    dpl = max(segment.attributes >> DPL_SHIFT & 3, KERNEL_RING)
    kind = ACCESSED | WRITABLE | EXPAND_DOWN | MEMORY | PRESENT | BIG | GRANULARITY
    return Segment(kind | dpl << DPL_SHIFT, 0, 0xFFFF_FFFF)
