"""The cycle-cost model: what instructions and events cost in machine time.

Guest time counts instructions; machine time counts cycles, and is what techniques are compared by.
A row of the instruction table names a key of `INSTRUCTION_CYCLES`; what happens besides - delivery
of an exception, a page walk - is an event with a cost of its own, added where it happens, so that
nothing is charged twice: ``int 0x80`` costs its row, one delivery and one ring change.

The model is deliberately plain. There are no caches, no branch prediction and no overlap; a figure
is what a warm, dependent instruction takes. Figures are approximate: they are rounded from the
sources named beside them, and those marked "estimate" only place an order of magnitude between
neighbours that are known. Only ratios between techniques should be read from them.

The first preset is the Pentium 4 (Prescott, 3.8 GHz) because K. Adams and O. Agesen, "A Comparison
of Software and Hardware Techniques for x86 Virtualization" (ASPLOS 2006), measured on it; the
second is a core of today. Only primitives have a price: no figure is taken from, or fitted to, the
result of a nanobenchmark, for these are what the model is to say. Where a figure has no source it
is a round estimate, and was fixed before any comparison was made with it. No figure has been
measured again here. `check_model` holds each preset to the same keys; `isa/REFERENCE.md` prints
the tables, hypervisor/cost.py adds what a hypervisor's own work costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from isa.errors import TableError
from isa.row import Row
from isa.table import ROWS

_FOG: Final = "Agner Fog, Instruction tables, Prescott"
_INTEL: Final = "Intel, IA-32 Optimization Reference Manual, appendix C"
_ISA: Final = "the ISA bus: an I/O cycle takes about 1 us"
_FOG_NEW: Final = "Agner Fog, Instruction tables, Ice Lake"
_INTEL_NEW: Final = "Intel 64 and IA-32 Architectures Optimization Reference Manual"
_ESTIMATE: Final = "estimate"


@dataclass(frozen=True, slots=True)
class Cost:
    """One figure: `key` names it, `what` says what is charged, `source` where it comes from."""

    key: str
    cycles: int
    what: str
    source: str


@dataclass(frozen=True, slots=True)
class CostModel:
    """A processor to charge for: the cost of each kind of instruction, and of each event."""

    name: str
    title: str
    instructions: tuple[Cost, ...]
    events: tuple[Cost, ...]

    @property
    def instruction_cycles(self) -> dict[str, int]:
        """Cycles by a row's `cost` column."""
        return {cost.key: cost.cycles for cost in self.instructions}

    @property
    def event_cycles(self) -> dict[str, int]:
        """Cycles by event name, in the order the C core numbers events."""
        return {cost.key: cost.cycles for cost in self.events}


PENTIUM4: Final = CostModel(
    "pentium4",
    "Pentium 4 672 (Prescott, 3.8 GHz)",
    instructions=(
        Cost("alu", 1, "moves, arithmetic and logic, operands in the first-level cache", _FOG),
        Cost("shift", 1, "shifts, rotates, bit scans", _FOG),
        Cost("load", 4, "an instruction that is mostly a load", _INTEL),
        Cost("stack", 2, "push, pop, leave, pushf", _FOG),
        Cost("stack_all", 19, "pusha, popa", _FOG),
        Cost("xchg", 2, "exchange; with memory the lock event is added", _FOG),
        Cost("locked", 8, "compare and exchange; the lock event is added where it is locked", _FOG),
        Cost("enter", 26, "enter at level 0", _FOG),
        Cost("mul", 11, "multiplication", _FOG),
        Cost("div", 76, "division of 64 by 32 bits", _FOG),
        Cost("branch", 1, "a predicted near jump", _INTEL),
        Cost("call", 4, "near call or return, predicted", _FOG),
        Cost("string", 4, "a string instruction; repeats add the iteration event", _FOG),
        Cost("flags", 50, "popf, cli, sti", _FOG),
        Cost("segment_read", 4, "a selector to a register or memory", _FOG),
        Cost("segment_load", 40, "a selector and its descriptor, checked", _ESTIMATE),
        Cost("far", 120, "far jump, call or return; a ring change is added", _FOG),
        Cost("interrupt", 4, "int n, int3, into without the delivery", _ESTIMATE),
        Cost("iret", 300, "return from an interrupt; a ring change is added", _ESTIMATE),
        Cost("io", 60, "in, out, ins, outs without the device", _ESTIMATE),
        Cost("cr_read", 30, "control or debug register to general register", _ESTIMATE),
        Cost("cr_write", 300, "serialising; loading CR3 adds the flush event", _ESTIMATE),
        Cost("invlpg", 500, "one TLB entry dropped, serialising", _ESTIMATE),
        Cost("msr", 250, "rdmsr, wrmsr", _ESTIMATE),
        Cost("cpuid", 350, "serialising; Fog gives 200 to 500", _FOG),
        Cost("system", 60, "descriptor-table registers, lar, rdtsc and their like", _ESTIMATE),
    ),
    events=(
        Cost("exception_delivery", 400, "through a gate of the same ring; int n alike", _ESTIMATE),
        Cost("interrupt_delivery", 450, "the same for an interrupt, acknowledged", _ESTIMATE),
        Cost("ring_change", 100, "a stack switch, or a return to an outer ring", _ESTIMATE),
        Cost("page_fault", 200, "added when the exception is #PF", _ESTIMATE),
        Cost("call_gate", 80, "added when a far call goes through a gate", _ESTIMATE),
        Cost("walk_step", 30, "one page-table entry read after a TLB miss", _ESTIMATE),
        Cost(
            "tlb_flush", 200, "a non-global TLB emptied: refill is charged by walk steps", _ESTIMATE
        ),
        Cost("lock", 100, "a locked read-modify-write", _FOG),
        Cost(
            "iteration", 2, "each element of a repeated string instruction after the first", _INTEL
        ),
        Cost("port_access", 3800, "a device's register through a port, on its bus", _ISA),
        Cost("mmio_access", 800, "a device's register through memory, on its bus", _ESTIMATE),
    ),
)

CURRENT: Final = CostModel(
    "current",
    "A core of today (after Ice Lake, 4 GHz)",
    instructions=(
        Cost("alu", 1, "moves, arithmetic and logic, operands in the first-level cache", _FOG_NEW),
        Cost("shift", 1, "shifts, rotates, bit scans", _FOG_NEW),
        Cost("load", 5, "an instruction that is mostly a load", _INTEL_NEW),
        Cost("stack", 1, "push, pop, leave, pushf", _FOG_NEW),
        Cost("stack_all", 10, "pusha, popa", _FOG_NEW),
        Cost("xchg", 2, "exchange; with memory the lock event is added", _FOG_NEW),
        Cost("locked", 5, "compare and exchange; the lock event is added where it is", _FOG_NEW),
        Cost("enter", 12, "enter at level 0", _FOG_NEW),
        Cost("mul", 3, "multiplication", _FOG_NEW),
        Cost("div", 12, "division of 64 by 32 bits", _FOG_NEW),
        Cost("branch", 1, "a predicted near jump", _FOG_NEW),
        Cost("call", 2, "near call or return, predicted", _FOG_NEW),
        Cost("string", 3, "a string instruction; repeats add the iteration event", _FOG_NEW),
        Cost("flags", 10, "popf, cli, sti", _FOG_NEW),
        Cost("segment_read", 1, "a selector to a register or memory", _FOG_NEW),
        Cost("segment_load", 14, "a selector and its descriptor, checked", _FOG_NEW),
        Cost("far", 60, "far jump, call or return; a ring change is added", _FOG_NEW),
        Cost("interrupt", 2, "int n, int3, into without the delivery", _ESTIMATE),
        Cost("iret", 200, "return from an interrupt; a ring change is added", _ESTIMATE),
        Cost("io", 50, "in, out, ins, outs without the device", _ESTIMATE),
        Cost("cr_read", 10, "control or debug register to general register", _ESTIMATE),
        Cost("cr_write", 100, "serialising; loading CR3 adds the flush event", _ESTIMATE),
        Cost("invlpg", 130, "one TLB entry dropped, serialising", _ESTIMATE),
        Cost("msr", 100, "rdmsr, wrmsr", _ESTIMATE),
        Cost("cpuid", 150, "serialising; Fog gives 100 to 250", _FOG_NEW),
        Cost("system", 30, "descriptor-table registers, lar, rdtsc and their like", _ESTIMATE),
    ),
    events=(
        Cost("exception_delivery", 300, "through a gate of the same ring; int n alike", _ESTIMATE),
        Cost("interrupt_delivery", 350, "the same for an interrupt, acknowledged", _ESTIMATE),
        Cost("ring_change", 50, "a stack switch, or a return to an outer ring", _ESTIMATE),
        Cost("page_fault", 100, "added when the exception is #PF", _ESTIMATE),
        Cost("call_gate", 40, "added when a far call goes through a gate", _ESTIMATE),
        Cost("walk_step", 12, "one page-table entry read after a TLB miss", _ESTIMATE),
        Cost(
            "tlb_flush", 100, "a non-global TLB emptied: refill is charged by walk steps", _ESTIMATE
        ),
        Cost("lock", 18, "a locked read-modify-write", _FOG_NEW),
        Cost(
            "iteration",
            1,
            "each element of a repeated string instruction after the first",
            _FOG_NEW,
        ),
        Cost("port_access", 4000, "a device's register through a port, on its bus", _ISA),
        Cost("mmio_access", 800, "a device's register through memory, on its bus", _ESTIMATE),
    ),
)

#: All presets; the first is the default.
MODELS: Final = (PENTIUM4, CURRENT)
DEFAULT_MODEL: Final = PENTIUM4.name

#: The events that are a device's answer on its bus.
BUS_EVENTS: Final = ("port_access", "mmio_access")
#: The default preset's cycles by a row's `cost` column, and by event.
INSTRUCTION_CYCLES: Final = PENTIUM4.instruction_cycles
EVENT_CYCLES: Final = PENTIUM4.event_cycles


def find_model(name: str) -> CostModel:
    """The preset of that name; `TableError` if there is none."""
    for model in MODELS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in MODELS)
    raise TableError(f"no cost model {name!r}; there is {known}")


@lru_cache(maxsize=16)
def without_bus(model: CostModel) -> CostModel:
    """The same where devices are virtual: an access goes to the hypervisor's memory, not to a bus.

    What the hypervisor then does is its own work (hypervisor/cost.py).
    """
    events = tuple(
        replace(cost, cycles=0) if cost.key in BUS_EVENTS else cost for cost in model.events
    )
    return replace(model, events=events)


def check_model(model: CostModel, rows: Iterable[Row] = ROWS) -> None:
    """Raise `TableError` unless the model prices each row, and nothing twice or in vain."""
    used = {row.cost for row in rows}
    for costs in (model.instructions, model.events):
        keys = [cost.key for cost in costs]
        if len(set(keys)) != len(keys):
            raise TableError(f"cost model {model.name}: a key stands twice in {keys}")
        for cost in costs:
            if cost.cycles < 0 or not cost.source:
                raise TableError(f"cost model {model.name}: {cost.key} needs cycles and a source")
    missing = used - set(model.instruction_cycles)
    idle = set(model.instruction_cycles) - used
    if missing or idle:
        raise TableError(
            f"cost model {model.name}: no cycles for {sorted(missing)}, no row uses {sorted(idle)}"
        )
    if list(model.event_cycles) != list(PENTIUM4.event_cycles):
        raise TableError(f"cost model {model.name}: its events differ from {PENTIUM4.name}'s")


for _model in MODELS:
    check_model(_model)
