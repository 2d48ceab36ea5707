"""The contract between a device and whatever it is plugged into.

A device is a state machine on ports: `read` and `write` are its registers, `wake` its clock. Its
`State` is plain data, so saving it takes nothing but copying. It sees the outside only through a
`Platform`: the machine is one, a virtual machine another, a test a third. It never sees a CPU,
memory or wall time. Read pic.py next, then any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from emulator.bus import Claim


class Platform(Protocol):
    """What a device may ask of its surroundings."""

    @property
    def now(self) -> int:
        """Guest time in ticks."""

    def schedule(self, device: str, tag: str, tick: int) -> None:
        """Call `device`'s `wake(tag)` at `tick`; replaces the wake-up of that device and tag."""

    def cancel(self, device: str, tag: str) -> None:
        """Forget that wake-up."""

    def set_irq(self, line: int, level: bool) -> None:
        """Drive interrupt line 0 to 15."""

    def set_interrupt(self, level: bool) -> None:
        """Drive the CPU's own interrupt line: for interrupt controllers."""

    def send_message(
        self, *, destination: int, logical: bool, mode: int, vector: int, level: bool
    ) -> bool:
        """Send an interrupt to the local APICs that are meant; whether one has taken it."""

    def request_input(self, device: str) -> None:
        """Ask the outside for bytes; what is there comes at once, through `receive`."""

    def power_off(self, status: int) -> None:
        """Stop the machine after this instruction; `status` (0-63) becomes its exit status."""


class State:
    """What a device remembers: attributes set in `__init__` to numbers, strings, bytes and lists.

    Plain classes: a dataclass takes half a millisecond to make, and every start makes all devices.
    """

    def save(self) -> dict[str, Any]:
        """The attributes as plain data."""
        return {name: _copy(value) for name, value in vars(self).items()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take back what `save` returned; it may be used again."""
        for name, value in saved.items():
            setattr(self, name, _copy(value))


def _copy(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


class Device:
    """A device on ports or pages of machine addresses, or both.

    Subclasses give `name`, `ports`, `pages` and the four methods they need.
    """

    name: ClassVar[str]
    ports: ClassVar[tuple[tuple[int, int], ...]] = ()  #: ranges (first, count)
    pages: ClassVar[tuple[tuple[int, int], ...]] = ()  #: ranges (address, bytes), whole pages
    width: ClassVar[int] = 1  #: bytes it takes at once; the bus splits what is wider
    state: Any  #: a `State`

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def claims(self) -> list[Claim]:
        """Its entries in the bus's table: one a range, unless it has more to say of some port."""
        return self._claims(self.ports)

    def page_claims(self) -> list[Claim]:
        """The same for its pages."""
        return self._claims(self.pages)

    def _claims(self, ranges: Iterable[tuple[int, int]]) -> list[Claim]:
        return [
            Claim(self.name, first, count, self.read, self.write, self.width)
            for first, count in ranges
        ]

    def read(self, port: int, size: int = 1) -> int:
        """IN from `port` (absolute), or a load from a machine address.

        `size` is more than 1 byte only if `width` is.
        """
        return (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of `size` bytes to `port` (absolute), or a store to a machine address."""

    def wake(self, tag: str) -> None:
        """A wake-up is due."""
        raise ValueError(f"{self.name} knows no wake-up {tag!r}")

    def receive(self, data: bytes) -> None:
        """Bytes from outside have come; none of them: the input has ended."""
        del data

    def save(self) -> dict[str, Any]:
        """The state as plain data: numbers, strings, bytes, lists and dicts."""
        saved: dict[str, Any] = self.state.save()
        return saved

    def load(self, saved: dict[str, Any]) -> None:
        """Take back what `save` returned. Lines are not driven anew: their owners saved them."""
        self.state.load(saved)
