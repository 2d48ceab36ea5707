"""One source, two images: under paravirt, and its native twin on the bare machine.

What tests of paravirt compare. The twin is the reference: it has each original instruction where
the hypervisor's image has a site, so both must do the same at the same ticks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from guests.manifest import LIB
from hypervisor.experiments.observe import (
    Difference,
    MachineRun,
    NativeRun,
    Observation,
    compare,
)
from hypervisor.variants import set_weights
from hypervisor.vm import VirtualMachine
from isa import Program, assemble
from isa.paravirt import HYPERVISOR, NATIVE

RAM: Final = "6M"
TICKS: Final = 1_000_000
FIRST_SOFTWARE: Final = 0x80  #: guests here use vectors from this one up for INT alone


@dataclass(frozen=True)
class Pair:
    """The two images."""

    image: Program
    twin: Program

    def address(self, name: str) -> int:
        """What a label says in both."""
        value: int = self.image.symbols[name].value
        return value


def pair_of(source: str) -> Pair:
    """Assemble a source, which may include the guests' library, twice."""
    image, twin = (
        assemble(source, include=[LIB], paravirt=variant) for variant in (HYPERVISOR, NATIVE)
    )
    return Pair(image, twin)


class Both:
    """A pair, loaded into a virtual and a bare machine. `words`: memory to set, by label; `mmu`:
    the virtual one's memory virtualization."""

    def __init__(
        self,
        pair: Pair,
        words: dict[str, int] | None = None,
        mmu: str | None = None,
        **options: Any,
    ) -> None:
        options = {"ram": RAM} | options
        self.pair = pair
        self.vm = VirtualMachine(technique="paravirt", mmu=mmu, **options)
        self._virtual = MachineRun(self.vm, pair.image)
        self._native = NativeRun(pair.twin, **options)
        set_weights(self._native.machine.memory, pair.twin.sites)
        for label, value in (words or {}).items():
            for machine in (self.vm, self._native.machine):
                machine.memory.write(pair.address(label), value.to_bytes(4, "little"))

    def run(self, ticks: int = TICKS) -> Difference | None:
        """Run both to the end; the first difference, which may be in the real CPU's ring."""
        theirs, ours = self._native.run(ticks), self._virtual.run(ticks)
        assert self.vm.host.cpu.state.retired_cpl0 == 0
        self.native: Observation = self._native.observe()
        self.virtual: Observation = self._virtual.observe()
        # The reason of a triple fault ends with the bytes at EIP, which are other ones at a site.
        same = theirs.reason.split(", bytes")[0] == ours.reason.split(", bytes")[0]
        assert same, (theirs.reason, ours.reason)
        assert (theirs.details, theirs.output) == (ours.details, ours.output)
        if self.vm.counts["gate opened"]:
            self.native, self.virtual = _without_calls(self.native), _without_calls(self.virtual)
        sites = [range(site.address, site.end) for site in self.pair.image.sites]
        return compare(self.native, self.virtual, sites=sites, name="paravirt")

    def word(self, label: str, index: int = 0) -> int:
        """A doubleword of the virtual machine's memory."""
        return self.vm.memory.u32(self.pair.address(label) + 4 * index)


def _without_calls(seen: Observation) -> Observation:
    """What was seen, but for system calls of ring 3: those that the real CPU delivers leave no
    record.
    """
    events = (e for e in seen.events if e.vector < FIRST_SOFTWARE or e.cs & 3 != 3)
    return replace(seen, events=tuple(events))
