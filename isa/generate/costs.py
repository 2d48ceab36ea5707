"""isa_cost.h: the events of the cost model, as COST_ names for what the machine charges for each.

The figures are data of the machine (`machine_set_costs`), for there are several presets. Those of
the default are what a machine begins with.
"""

from __future__ import annotations

from isa.cost import EVENT_CYCLES


def render() -> str:
    """The header's text."""
    names = ", ".join(f"EVENT_{key.upper()}" for key in EVENT_CYCLES)
    lines = "\n".join(
        f"#define COST_{key.upper()} (cpu->machine->event_cycles[EVENT_{key.upper()}])"
        for key in EVENT_CYCLES
    )
    figures = ", ".join(map(str, EVENT_CYCLES.values()))
    return f"""/* Generated from isa/cost.py by isa/generate/costs.py. */
#ifndef ISA_COST_H
#define ISA_COST_H
enum cost_event {{ {names}, COST_EVENTS }};
/* Cycles that the machine of `cpu` charges. */
{lines}
#define DEFAULT_EVENT_CYCLES {{ {figures} }}
#endif
"""
