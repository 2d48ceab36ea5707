"""Where a row's operands are kept in a decoded instruction of the C core.

csrc/cpu.h's Insn has one place for each role: `rm` (ModRM.rm, a register in the opcode, or the
accumulator), `reg` (ModRM.reg, or the accumulator beside a memory offset), `immediate`,
`immediate2`. decode.py fills them, execute.py reads them, and both ask here.
"""

from __future__ import annotations

from isa.row import FIXED_OPERANDS, Row

SEGMENT_REGISTERS = ("ES", "CS", "SS", "DS", "FS", "GS")


def kind(operand: str) -> str:
    """The operand's kind letter, or a fixed operand's name."""
    return operand if operand in FIXED_OPERANDS else operand[0]


def slots(row: Row) -> tuple[str, ...]:
    """Per operand: rm | reg | imm | imm2 | cl | seg | number | none."""
    kinds = [kind(o) for o in row.operands]
    beside = any(k in ("E", "Z", "O", "M") for k in kinds)
    names: list[str] = []
    for k in kinds:
        if k in ("AL", "eAX"):
            names.append("reg" if beside else "rm")
        elif k in ("E", "M", "R", "Z", "O"):
            names.append("rm")
        elif k == "G":
            names.append("reg")
        elif k in ("S", "C", "D", *SEGMENT_REGISTERS):
            names.append("number")
        elif k in ("I", "J", "A", "1", "3"):
            names.append("imm2" if "imm" in names else "imm")
        elif k == "CL":
            names.append("cl")
        else:
            names.append("none")
    return tuple(names)


def bits(operand: str, size: int) -> int:
    """Bits of an operand at operand size 16 or 32."""
    if operand in ("AL", "CL", "1"):
        return 8
    if operand in FIXED_OPERANDS:
        return size
    return {"b": 8, "w": 16, "d": 32}.get(operand[1:], size)


def row_bits(row: Row, size: int) -> int:
    """The size in bits that the row's body works in."""
    widths = [bits(o, size) for o in row.operands if kind(o) not in ("CL", "DX", "1", "I")]
    if row.operands and kind(row.operands[0]) in ("I", "DX") and len(row.operands) > 1:
        return widths[-1] if widths else size
    return widths[0] if widths else size


def has_memory_form(row: Row) -> bool:
    """Whether an operand may be in memory by ModRM or moffs."""
    return any(kind(o) in ("E", "M", "O") for o in row.operands)


def has_register_form(row: Row) -> bool:
    """Whether the row occurs without a memory operand."""
    return not any(kind(o) in ("M", "O") for o in row.operands)
