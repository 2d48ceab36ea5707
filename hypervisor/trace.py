"""The -d traces of a virtual machine: the bare machine's words, and two of our own.

`in_asm`, `exec` and `int` are the core's (emulator/trace.py), taken from both CPUs: what the real
one runs in ring 1 or 3, what the virtual one interprets, and the events that the guest itself gets.
`exits` is a line for each exit of the real CPU, under the name it is counted by; `mmu` one for what
changes in the shadows. A run without -d never loads this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from emulator.errors import MachineError
from emulator.trace import KINDS, Tracer
from hypervisor.outcome import Counts

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

EXITS: Final = "exits"
MMU: Final = "mmu"
#: The words of -d that the bare machine does not know.
OWN_KINDS: Final = (EXITS, MMU)


class TracedCounts(Counts):
    """Exits by reason; each is reported when it is counted."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()
        self._report = report

    def __setitem__(self, reason: str, count: int) -> None:
        super().__setitem__(reason, count)
        self._report(reason)


class VirtualTracer:
    """Prints what a virtual machine does to `out`, a line at a time."""

    def __init__(self, vm: VirtualMachine, words: str, out: Callable[[str], object]) -> None:
        named = [word.strip() for word in words.split(",") if word.strip()]
        for word in named:
            if word not in (*KINDS, *OWN_KINDS):
                known = ", ".join((*KINDS, *OWN_KINDS))
                raise MachineError(f"trace {word!r}: expected {known}")
        self.core_kinds = sum(KINDS[word] for word in set(named) if word in KINDS)
        self._vm = vm
        self._out = out
        self._core = Tracer(out, vm.host.memory.read, lambda: vm.symbols)
        if EXITS in named:
            vm.counts = TracedCounts(self._exit)
        if MMU in named:
            vm.paging.report = self._change

    def render(self, records: Iterable[Any]) -> None:
        """Print records of the core's ring, oldest first."""
        self._core.render(records)

    def _exit(self, reason: str) -> None:
        self._vm.drain_trace()
        state = self._vm.real
        name = self._vm.symbols.name(state.eip)
        line = f"exit tick={state.tick} [{state.eip:08x}] ring {state.cpl} {reason}"
        self._out(f"{line}  {name}\n" if name else f"{line}\n")

    def _change(self, what: str) -> None:
        vm = self._vm
        tick = vm.real.tick if vm.world.entered else vm.cpu.state.tick
        self._out(f"mmu tick={tick} {what}\n")
