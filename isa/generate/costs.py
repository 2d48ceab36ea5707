"""isa_cost.h: cycles of the events of the cost model, as COST_ names."""

from __future__ import annotations

from isa.cost import EVENT_CYCLES


def render() -> str:
    """The header's text."""
    lines = "\n".join(f"    COST_{key.upper()} = {n}," for key, n in EVENT_CYCLES.items())
    return f"""/* Generated from isa/cost.py by isa/generate/costs.py. */
#ifndef ISA_COST_H
#define ISA_COST_H
enum {{
{lines}
}};
#endif
"""
