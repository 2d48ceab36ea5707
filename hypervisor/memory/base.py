"""What a memory virtualization has to say to a virtual machine.

Read shadow.py, shared.py and nested.py for the three of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypervisor.guest_memory import GuestMemory
    from hypervisor.host import Host


class GuestPaging:
    """How one guest's addresses become machine addresses."""

    #: The guest's own tables are used by the hardware, and its physical addresses go through ours.
    nested: bool = False
    #: Each guest page is the machine page of the same number.
    direct: bool = False

    def __init__(self, host: Host, memory: GuestMemory) -> None:
        self._host, self._memory = host, memory
        self.fills = self.drops = 0  #: entries made, entries taken back
        self.report: Callable[[str], None] | None = None  #: wants to hear of every change, in words
        self.stale = False  #: the real TLB may hold more than the tables allow

    def _say(self, form: str, *values: object) -> None:
        if self.report is not None:
            self.report(form % values)

    def root(self) -> int:
        """Machine address of the directory that the real CPU shall use now."""
        raise NotImplementedError

    def runner(self, run: Callable[[int], int]) -> Callable[[int], int]:
        """How the real CPU is run until a tick, given how it is run at all."""
        return run

    def trace(self, page: int, owner: str = "") -> None:
        """Have stores to a guest page reported, if there is a way to see them."""

    def untrace(self, page: int, owner: str = "") -> None:
        """An owner needs to know of stores to a guest page no more."""

    def is_traced(self, page: int) -> bool:
        """Are stores to a guest page reported?"""
        del page
        return False

    def written(self, page: int) -> None:
        """A traced guest page has been written to."""

    def clear(self) -> None:
        """Drop all that was made."""
        raise NotImplementedError
