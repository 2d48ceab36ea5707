"""The -d traces of a virtual machine: the bare machine's words, and three of our own.

`in_asm`, `exec` and `int` are the core's (emulator/trace.py), taken from both CPUs: what the real
one runs in ring 1 or 3, what the virtual one interprets, and the events that the guest itself gets.
Where a technique makes code, `in_asm` shows the guest's in the pieces that it is translated in, and
`out_asm` what has become of each piece (translator/listing.py).
`exits` is a line for each exit of the real CPU, under the name it is counted by; `mmu` one for what
changes in the shadows. A run without -d never loads this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from emulator.core import TraceKind
from emulator.errors import MachineError
from emulator.trace import KINDS, Tracer
from hypervisor.outcome import Counts
from hypervisor.techniques import TECHNIQUES, find_technique

if TYPE_CHECKING:
    from hypervisor.translator.unit import Unit
    from hypervisor.vm import VirtualMachine

EXITS: Final = "exits"
MMU: Final = "mmu"
IN_ASM: Final = "in_asm"
OUT_ASM: Final = "out_asm"
#: The words of -d that the bare machine does not know.
OWN_KINDS: Final = (OUT_ASM, EXITS, MMU)


def techniques_for(word: str) -> list[str]:
    """The techniques that one of our own words goes with."""
    return [n for n in TECHNIQUES if word != OUT_ASM or find_technique(n).generates_code]


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
        self._guest, self._code = IN_ASM in named, OUT_ASM in named
        if self._code and not vm.technique.generates_code:
            able, name = ", ".join(techniques_for(OUT_ASM)), vm.technique.name
            raise MachineError(
                f"-d {OUT_ASM} goes with a technique that makes code, {able}: {name} makes none"
            )
        self.core_kinds = sum(KINDS[word] for word in set(named) if word in KINDS)
        self._vm = vm
        self._out = out
        self._core = Tracer(out, vm.host.memory.read, lambda: vm.symbols)
        if self._guest or self._code:
            vm.technique.on_code(self._unit)
        if EXITS in named:
            vm.counts = TracedCounts(self._exit)
        if MMU in named:
            vm.paging.report = self._change

    def render(self, records: Iterable[Any]) -> None:
        """Print records of the core's ring, oldest first."""
        holds = self._vm.technique.holds
        self._core.render(
            record for record in records if record.kind != TraceKind.BLOCK or not holds(record.eip)
        )

    def _unit(self, unit: Unit) -> None:
        from hypervisor.translator.listing import text_of

        self._vm.drain_trace()
        name = self._vm.symbols.name
        self._out(text_of(unit, name, guest=self._guest, code=self._code))

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
