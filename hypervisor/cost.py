"""What a hypervisor's own work costs in machine time: a model, for `compare`.

The core charges what a guest's instructions cost, on the real CPU and on the virtual one. The
hypervisor is Python, whose time says nothing about a real one's; so its work is counted, and each
piece has a price here. A world switch is made of what the machine's own model charges for the same
instructions (isa/cost.py); for the rest no figure has been measured, and "estimate" says so: they
place an order of magnitude only, and were fixed before any comparison was made. Devices are
no part of it: an access is charged to the guest as it is natively, whoever makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from isa.cost import EVENT_CYCLES, INSTRUCTION_CYCLES, Cost

_ESTIMATE: Final = "estimate"
_SWITCH: Final = (
    EVENT_CYCLES["exception_delivery"]
    + INSTRUCTION_CYCLES["iret"]
    + 2 * EVENT_CYCLES["ring_change"]
)
_SEGMENTS: Final = 4  #: DS, ES, FS and GS; IRET loads CS and SS

#: The pieces of a hypervisor's work.
HYPERVISOR_COSTS: Final = (
    Cost(
        "world_switch",
        _SWITCH,
        "into ring 0 by an exception, and back by iret",
        "isa/cost.py: exception_delivery, iret, two ring changes",
    ),
    Cost(
        "save_and_load",
        2 * INSTRUCTION_CYCLES["stack_all"] + _SEGMENTS * INSTRUCTION_CYCLES["segment_load"],
        "general and segment registers at an exit and its return",
        "isa/cost.py: pusha, popa, four segment loads",
    ),
    Cost("handler", 200, "the exit's reason found, its handler called", _ESTIMATE),
    Cost("interpreted", 500, "an instruction fetched, decoded, checked and executed", _ESTIMATE),
    Cost("shadow_fill", 300, "a shadow entry made: the guest's tables walked", _ESTIMATE),
    Cost("injected", 400, "an event delivered to the guest: gate, stack and frame", _ESTIMATE),
    Cost("translated", 500, "a guest instruction decoded, and its translation written", _ESTIMATE),
    Cost("unit_found", 100, "a translation looked up by the guest's EIP", _ESTIMATE),
    Cost("chained", 50, "a jump, or an entry of the targets' table, led to a unit", _ESTIMATE),
)

#: Cycles by piece.
HYPERVISOR_CYCLES: Final = {cost.key: cost.cycles for cost in HYPERVISOR_COSTS}
#: What every exit is charged.
PER_EXIT: Final = ("world_switch", "save_and_load", "handler")


def modelled_cycles(work: Mapping[str, int]) -> int:
    """Cycles of a hypervisor's work: how many `exits`, and how many of each other piece."""
    exits = work["exits"] * sum(HYPERVISOR_CYCLES[key] for key in PER_EXIT)
    return exits + sum(
        count * HYPERVISOR_CYCLES[key] for key, count in work.items() if key != "exits"
    )
