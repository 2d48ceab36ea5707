"""isa_rows.h: facts about rows that the core asks for while it decodes and runs."""

from __future__ import annotations

from isa.cost import INSTRUCTION_CYCLES
from isa.row import FLAG_BITS, Row
from isa.table import ROWS

#: Privilege column -> the C enumerator.
PRIVILEGES = {"": "NONE", "cpl0": "CPL0", "iopl": "IOPL", "io": "IO", "tsd": "TSD"}


def flag_mask(letters: str) -> int:
    """EFLAGS bits of flag letters; IOPL is two bits wide."""
    mask = 0
    for letter in letters:
        mask |= (3 if letter == "l" else 1) << FLAG_BITS[letter]
    return mask


def _purity(row: Row) -> str:
    """Whether the row can fault or exit; what reaches the stack does, though no operand says so."""
    if not row.inline or row.ends or row.cost == "stack":
        return "IMPURE"
    return "PURE" if "a" in row.access or not row.operands else "PURE_REGISTER"


def _stores(row: Row) -> bool:
    """Whether the row writes its memory operand, if it has one."""
    return any(
        operand[0] in "EM" and access not in "ra"
        for operand, access in zip(row.operands, row.access, strict=True)
    )


def _line(row: Row) -> str:
    return (
        f"    {{{flag_mask(row.writes):#x}, {flag_mask(row.reads):#x}, "
        f"{flag_mask(row.reads if row.counted is None else row.counted):#x}, "
        f"{INSTRUCTION_CYCLES[row.cost]}, PRIVILEGE_{PRIVILEGES[row.privilege]}, "
        f"{_purity(row)}, {int(_stores(row))}}}, /* {row.id}: {row} */"
    )


def render(fingerprint: str) -> str:
    """The header's text."""
    names = ", ".join(f"PRIVILEGE_{name}" for name in PRIVILEGES.values())
    lines = "\n".join(_line(row) for row in ROWS)
    return f"""/* Generated from the instruction table by isa/generate/rows.py. */
#ifndef ISA_ROWS_H
#define ISA_ROWS_H
#include <stdint.h>
#define ISA_FINGERPRINT "{fingerprint}"
enum {{ ROW_COUNT = {len(ROWS)} }};
enum privilege {{ {names} }};
/* It may fault or exit; only with a memory operand; never. */
enum purity {{ IMPURE, PURE_REGISTER, PURE }};
typedef struct {{
    uint32_t flags_written, flags_read; /* EFLAGS bits */
    uint32_t flags_read_counted; /* those read if an immediate count is not zero */
    uint16_t cycles;
    uint8_t privilege; /* enum privilege */
    uint8_t pure;      /* enum purity */
    uint8_t stores;    /* it writes its operand, should that be memory */
}} RowFacts;
static const RowFacts row_facts[ROW_COUNT] = {{
{lines}
}};
#endif
"""
