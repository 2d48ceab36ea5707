"""What a hypervisor's own work costs in machine time: a model, for `compare`.

The core charges what a guest's instructions cost, on the real CPU and on the virtual one. The
hypervisor is Python, whose time says nothing about a real one's; so its work is counted, and each
piece has a price here. A world switch is made of what the machine's own model charges for the same
instructions (isa/cost.py); hardware's guest mode has figures from the literature; the rest are
paths of software whose length nobody has measured, and "estimate" says so: they place an order of
magnitude only. All were fixed before any comparison was made with them. compare's report repeats
its orderings with these halved and doubled.

Natively a device answers on its bus, which takes a microsecond. Under a hypervisor it is a variable
of the hypervisor's: the guest is charged for the instruction alone, the answer is `device` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from isa.cost import CURRENT, MODELS, PENTIUM4, Cost, CostModel

_ESTIMATE: Final = "estimate"
_SEGMENTS: Final = 4  #: DS, ES, FS and GS; IRET loads CS and SS
_ADAMS: Final = "Adams and Agesen 2006, table 1: Pentium 4 672"
_AGESEN: Final = "Agesen et al., USENIX ATC 2012: Sandy Bridge, 784 there and back; split evenly"

#: What software does, in cycles of the Pentium 4.
SOFTWARE_COSTS: Final = (
    Cost("handler", 200, "the exit's reason found, its handler called", _ESTIMATE),
    Cost("interpreted", 500, "an instruction fetched, decoded, checked and executed", _ESTIMATE),
    Cost("shadow_fill", 300, "a shadow entry made: the guest's tables walked", _ESTIMATE),
    Cost("injected", 400, "an event delivered to the guest: gate, stack and frame", _ESTIMATE),
    Cost("translated", 500, "an instruction decoded, and what stands for it written", _ESTIMATE),
    Cost("unit_found", 100, "a translation looked up by the guest's EIP", _ESTIMATE),
    Cost("chained", 50, "a jump, or an entry of the targets' table, led to a unit", _ESTIMATE),
    Cost("device", 150, "a virtual device's register read or written", _ESTIMATE),
)
#: By model: by how much the same path of software is shorter there than on the Pentium 4. About one
#: instruction a cycle then, and three now (estimate).
SOFTWARE_SPEED: Final = {PENTIUM4.name: 1, CURRENT.name: 3}

#: By model: what the processor takes for its guest mode.
HARDWARE_COSTS: Final = {
    PENTIUM4.name: (
        Cost("vm_entry", 2409, "into guest mode", _ADAMS),
        Cost("vm_exit", 1931, "out of guest mode", _ADAMS),
        Cost("control_block", 4 * 178 + 2 * 171, "four fields read at an exit, two set", _ADAMS),
    ),
    CURRENT.name: (
        Cost("vm_entry", 392, "into guest mode", _AGESEN),
        Cost("vm_exit", 392, "out of guest mode", _AGESEN),
        Cost("control_block", 6 * 20, "four fields read at an exit, two set", _ESTIMATE),
    ),
}


def _switch_costs(model: CostModel) -> tuple[Cost, ...]:
    """The world switch of a hypervisor in ring 0, from what the model charges for instructions."""
    cycles, events = model.instruction_cycles, model.event_cycles
    return (
        Cost(
            "world_switch",
            events["exception_delivery"] + cycles["iret"] + 2 * events["ring_change"],
            "into ring 0 by an exception, and back by iret",
            "isa/cost.py: exception_delivery, iret, two ring changes",
        ),
        Cost(
            "save_and_load",
            2 * cycles["stack_all"] + _SEGMENTS * cycles["segment_load"],
            "general and segment registers at an exit and its return",
            "isa/cost.py: pusha, popa, four segment loads",
        ),
    )


def hypervisor_costs(model: CostModel = PENTIUM4) -> tuple[Cost, ...]:
    """The pieces of a hypervisor's work, and what each takes on a processor of this model."""
    speed = SOFTWARE_SPEED[model.name]
    software = tuple(
        Cost(cost.key, -(-cost.cycles // speed), cost.what, cost.source) for cost in SOFTWARE_COSTS
    )
    return _switch_costs(model) + HARDWARE_COSTS[model.name] + software


#: The default model's.
HYPERVISOR_COSTS: Final = hypervisor_costs()
#: Cycles by piece.
HYPERVISOR_CYCLES: Final = {cost.key: cost.cycles for cost in HYPERVISOR_COSTS}
#: What every exit is charged, and every exit from hardware's guest mode.
PER_EXIT: Final = ("world_switch", "save_and_load", "handler")
PER_GUEST_EXIT: Final = ("vm_exit", "control_block", "handler", "vm_entry")
#: Work that is made of several pieces.
COMPOSED: Final = {"exits": PER_EXIT, "guest_exits": PER_GUEST_EXIT}


@lru_cache(maxsize=len(MODELS))
def prices(model: CostModel = PENTIUM4) -> dict[str, int]:
    """Cycles by kind of work: of `COMPOSED`, and of each single piece."""
    cycles = {cost.key: cost.cycles for cost in hypervisor_costs(model)}
    return cycles | {kind: sum(map(cycles.__getitem__, of)) for kind, of in COMPOSED.items()}


def modelled_cycles(work: Mapping[str, int], model: CostModel = PENTIUM4) -> int:
    """Cycles of a hypervisor's work: how many `exits`, and how many of each other piece."""
    price = prices(model)
    return sum(count * price[key] for key, count in work.items())
