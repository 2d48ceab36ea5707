"""Translation units: a run of guest instructions, and what it has become.

Each guest instruction is a *site*: one instruction of the cache, or several *steps*, of which one
counts (isa/sites.py explains steps). For each instruction of the cache a `Place` says where the
guest would be if it stood there: that is how a fault, an interrupt or the hypervisor finds the
guest's own state in the middle of a translation.

A unit's ways out are *links*: jumps that lead to a stub at first - `int OWN_VECTOR`, behind the
code - and once the successor is translated, to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from isa.row import Row
from isa.site_forms import Lost


class Context(NamedTuple):
    """What the meaning of a guest's code depends on beside its bytes: its ring, and CS."""

    user: bool  #: ring 3
    selector: int
    base: int
    limit: int
    whole: bool = False  #: ring 3's code is translated as well as the kernel's


class Space:
    """The units of one context, by guest EIP."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.active: dict[int, Unit] = {}  #: by the EIP that a unit begins at
        self.asleep: dict[tuple[int, int], Unit] = {}  #: by EIP and first guest page
        self.inside: dict[int, tuple[Unit, int]] = {}  #: by each EIP: unit, and offset in it
        self.targets: dict[int, Unit] = {}  #: number in its targets' table -> unit it leads to

    def find(self, eip: int) -> tuple[Unit, int] | None:
        """The unit that an EIP is in, and the offset where it is entered; None if there is none."""
        unit = self.active.get(eip)
        return self.inside.get(eip) if unit is None else (unit, unit.body)

    def find_jumped(self, eip: int) -> tuple[Unit, int] | None:
        """The same for a jump. Not within a unit that was cut: what is jumped to may be a loop, and
        should lie in one."""
        found = self.find(eip)
        if found is not None and found[0].cut and found[0].eip != eip:
            return None
        return found


class Site(NamedTuple):
    """A guest instruction."""

    eip: int
    original: bytes  #: empty if its bytes are no instruction
    row: Row | None

    @property
    def name(self) -> str:
        """What its exits are counted as."""
        return "undecodable" if self.row is None else self.row.mnemonic

    @property
    def end(self) -> int:
        """EIP of the next instruction."""
        return (self.eip + len(self.original)) & 0xFFFF_FFFF


class Link:
    """A way out of a unit, to a guest EIP known when it was made."""

    __slots__ = ("displacement", "eip", "stub", "target", "unit")

    unit: Unit

    def __init__(self, displacement: int, eip: int) -> None:
        self.displacement = displacement  #: offset in the unit of the jump's rel32
        self.eip = eip
        self.stub = 0  #: offset of its stub
        self.target: Unit | None = None


class Place(NamedTuple):
    """An instruction of the cache: where the guest is before it, and what it is part of."""

    eip: int
    site: Site | None = None  #: whose steps it belongs to, if that is not simply itself
    lost: frozenset[Lost] = frozenset()
    released: int = 0  #: bytes by which ESP is above where it was
    link: Link | None = None  #: a stub's
    target: bool = False  #: EIP is what WANTED holds, and ECX is saved
    gate: bool = False  #: within gate.py's exchange of GS
    revert: bool = False  #: an adaptive store that has no use any more
    check: bool = False  #: within the check of a unit that checks itself (check.py)


@dataclass(eq=False, slots=True)
class Unit:
    """A translation: where it is, where it came from, and its ways in and out."""

    eip: int
    pages: tuple[int, ...]  #: guest pages that its code lies in
    source: bytes  #: the guest's bytes
    instructions: int
    code: bytes
    body: int  #: offset where it is entered directly; before that, where TARGETS leads
    places: dict[int, Place]  #: by offset
    weightless: tuple[int, ...]  #: offsets of instructions that take no tick
    inside: dict[int, int]  #: guest EIP of each instruction -> offset where it begins
    links: tuple[Link, ...]
    cut: bool = False  #: its code goes on, but it was long enough
    is_gate: bool = False  #: it is what a gate leads to, and of no code of the guest's
    adaptive: frozenset[int] = frozenset()  #: EIPs of its stores that have become adaptive
    checked: bool = False  #: it looks whether its source has changed, each time
    start: int = 0  #: linear address in the cache; 0: not there (any more)
    incoming: list[Link] = field(default_factory=list)
    space: Space | None = None
    is_target: bool = False  #: its targets' table leads here
    active: bool = False  #: its source is where its EIP leads now

    @property
    def end(self) -> int:
        """Linear address behind it."""
        return self.start + len(self.code)

    @property
    def entry(self) -> int:
        """Linear address to enter it at."""
        return self.start + self.body
