"""isa_decode.h: opcode bytes to rows, and how each row's operands are read.

`opcode_rows` is indexed by operand size (0: 32 bits, 1: 16), map and opcode byte. Its entry is 0
(undefined), a row's number plus one, or GROUP_BIT with the number of a group: then ModRM.reg
chooses among eight such entries.
"""

from __future__ import annotations

from isa.generate.slots import SEGMENT_REGISTERS, bits, kind, slots
from isa.row import Row
from isa.table import ROWS

GROUP_BIT = 0x8000
IMMEDIATES = {"ib": "IB", "iw": "IW", "iz": "IZ", "cb": "CB", "cz": "CZ", "cp": "CP", "mo": "MO"}


def opcode_maps() -> tuple[list[list[int]], list[list[int]]]:
    """The two opcode maps (512 entries for 32, then for 16 bits) and the groups."""
    maps = [[0] * 512, [0] * 512]
    groups: list[list[int]] = []
    wide = [row for row in ROWS if row.parsed.low]
    narrow = [row for row in ROWS if not row.parsed.low and not row.parsed.repeat]
    for row in wide + narrow:  # a row of one byte stands over a row of eight
        parsed = row.parsed
        for index, size in enumerate((32, 16)):
            if parsed.operand_size not in (None, size):
                continue
            for byte in parsed.bytes_covered:
                at = byte + 256 * parsed.two_byte
                if parsed.digit is None:
                    maps[index][at] = row.id + 1
                    continue
                if not maps[index][at] & GROUP_BIT:
                    groups.append([0] * 8)
                    maps[index][at] = GROUP_BIT | (len(groups) - 1)
                groups[maps[index][at] & ~GROUP_BIT][parsed.digit] = row.id + 1
    return maps, groups


def _width(row: Row, slot: str) -> str:
    """Width of the register in a slot: its bits, or 0 for "operand size"."""
    for operand, name in zip(row.operands, slots(row), strict=True):
        if name == slot and kind(operand) != "M":
            small, large = bits(operand, 16), bits(operand, 32)
            return str(small) if small == large else "0"
    return "0"


def _facts(row: Row) -> str:
    kinds = [kind(o) for o in row.operands]
    flags = {
        "DECODE_MODRM": row.parsed.modrm,
        "DECODE_MEMORY": "M" in kinds,
        "DECODE_REGISTER": "R" in kinds,
        "DECODE_ENDS": row.ends,
        "DECODE_LOCK": row.lock and row.operands[0][0] in "EM",
        "DECODE_REPEAT": bool(row.rep),
        "DECODE_OPCODE_REG": row.parsed.low == "r",
        "DECODE_CC": row.parsed.low == "cc",
        "DECODE_SREG": "S" in kinds,
        "DECODE_SREG_LOAD": bool(kinds) and kinds[0] == "S",
        "DECODE_CR": "C" in kinds,
        "DECODE_DR": "D" in kinds,
        "DECODE_NUMBER": "number" in slots(row),
        "DECODE_ONE": "1" in kinds,
        "DECODE_SIGNED": any(o == "Ibs" for o in row.operands),
    }
    fixed = [SEGMENT_REGISTERS.index(k) for k in kinds if k in SEGMENT_REGISTERS]
    first, second = ([IMMEDIATES[i] for i in row.parsed.immediates] + ["NONE", "NONE"])[:2]
    text = " | ".join(name for name, is_set in flags.items() if is_set) or "0"
    return (
        f"    {{{text}, IMMEDIATE_{first}, IMMEDIATE_{second}, "
        f"{_width(row, 'rm')}, {_width(row, 'reg')}, {fixed[0] if fixed else 0}}}, "
        f"/* {row.id}: {row} */"
    )


def _array(values: list[int]) -> str:
    lines = (values[i : i + 16] for i in range(0, len(values), 16))
    return ",\n     ".join(", ".join(str(v) for v in line) for line in lines)


def render() -> str:
    """The header's text."""
    maps, groups = opcode_maps()
    immediates = ", ".join(f"IMMEDIATE_{name}" for name in ("NONE", *IMMEDIATES.values()))
    facts = "\n".join(_facts(row) for row in ROWS)
    group_lines = ",\n    ".join("{" + ", ".join(map(str, group)) + "}" for group in groups)
    return f"""/* Generated from the instruction table by isa/generate/decode.py. */
#ifndef ISA_DECODE_H
#define ISA_DECODE_H
#include "isa_rows.h"
enum {{ GROUP_BIT = {GROUP_BIT:#x} }};
enum immediate {{ {immediates} }};
enum decode_flag {{
    DECODE_MODRM = 1, DECODE_MEMORY = 2, DECODE_REGISTER = 4, DECODE_ENDS = 8, DECODE_LOCK = 16,
    DECODE_REPEAT = 32, DECODE_OPCODE_REG = 64, DECODE_CC = 128, DECODE_SREG = 256,
    DECODE_SREG_LOAD = 512, DECODE_CR = 1024, DECODE_DR = 2048, DECODE_NUMBER = 4096,
    DECODE_ONE = 8192, DECODE_SIGNED = 16384
}};
typedef struct {{
    uint16_t flags;           /* enum decode_flag */
    uint8_t immediate, immediate2; /* enum immediate */
    uint8_t rm_bits, reg_bits; /* register widths; 0: operand size */
    uint8_t number;           /* a fixed segment register */
}} RowDecode;
static const RowDecode row_decode[ROW_COUNT] = {{
{facts}
}};
static const uint16_t opcode_rows[2][512] = {{
    {{{_array(maps[0])}}},
    {{{_array(maps[1])}}}
}};
static const uint16_t opcode_groups[][8] = {{
    {group_lines}
}};
#endif
"""
