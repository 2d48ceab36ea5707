"""isa_exceptions.h: what delivery in the C core asks of a vector.

`is_fault` says that EFLAGS.RF is pushed set (SDM vol. 3, 17.3.1.1): so it is for every fault but
#DB, of which csrc/debug.c knows which kind it is. `contribution` decides double faults.
"""

from __future__ import annotations

from isa.exceptions import EXCEPTIONS, Contribution, Kind


def _enumerator(contribution: Contribution) -> str:
    return f"CONTRIBUTION_{contribution.name}"


def render() -> str:
    """The header's text."""
    names = ", ".join(_enumerator(c) for c in Contribution)
    lines = "\n".join(
        f"    {{{int(row.kind is Kind.FAULT)}, {_enumerator(row.contribution)}}}, "
        f"/* {row.vector}: {row} */"
        for row in EXCEPTIONS
    )
    return f"""/* Generated from isa/exceptions.py by isa/generate/exceptions.py. */
#ifndef ISA_EXCEPTIONS_H
#define ISA_EXCEPTIONS_H
#include <stdint.h>
enum {{ EXCEPTION_COUNT = {len(EXCEPTIONS)} }};
enum contribution {{ {names} }};
typedef struct {{
    uint8_t is_fault;
    uint8_t contribution; /* enum contribution */
}} ExceptionFacts;
static const ExceptionFacts exception_facts[EXCEPTION_COUNT] = {{
{lines}
}};
#endif
"""
