"""ModRM, SIB and displacement: how a register or a place in memory is encoded.

The shortest displacement wins unless the operand says otherwise. Reference: SDM volume 2, 2.1.5.
Used by `isa/encoder.py`; `isa/decoder.py` is the way back.
"""

from __future__ import annotations

from typing import Final

from isa.errors import EncodeError
from isa.operands import EBP, ESP, Memory, Operand, Register

#: ModRM.rm of 16-bit addressing by the registers added (SDM volume 2, table 2-1).
RM16: Final[dict[frozenset[int], int]] = {
    frozenset(registers): rm
    for rm, registers in enumerate(((3, 6), (3, 7), (5, 6), (5, 7), (6,), (7,), (5,), (3,)))
}


def _displacement(operand: Memory, *, can_omit: bool) -> tuple[int, bytes]:
    """ModRM.mod and the displacement bytes of a based memory operand."""
    bits = operand.address_size
    value = operand.displacement & ((1 << bits) - 1)
    wanted = operand.displacement_size
    if value == 0 and can_omit and wanted in (None, 0):
        return 0, b""
    fits_byte = (value + 128) & ((1 << bits) - 1) <= 255
    if wanted == 8 or (fits_byte and wanted in (None, 0)):
        return 1, bytes([value & 0xFF])
    return 2, value.to_bytes(bits // 8, "little")


def _address32(operand: Memory, reg: int) -> bytes:
    """ModRM, SIB and displacement of 32-bit addressing (SDM volume 2, tables 2-2 and 2-3)."""
    base, index = operand.base, operand.index
    displacement = (operand.displacement & 0xFFFFFFFF).to_bytes(4, "little")
    if index == ESP:
        raise EncodeError("esp cannot be an index")
    if index is None and base is None:
        return bytes([reg << 3 | 5]) + displacement
    if index is None and base is not None and base != ESP:
        mod, tail = _displacement(operand, can_omit=base != EBP)
        return bytes([mod << 6 | reg << 3 | base]) + tail
    scale = {1: 0, 2: 1, 4: 2, 8: 3}[operand.scale]
    index_bits = 4 if index is None else index
    if base is None:
        return bytes([reg << 3 | 4, scale << 6 | index_bits << 3 | 5]) + displacement
    mod, tail = _displacement(operand, can_omit=base != EBP)
    return bytes([mod << 6 | reg << 3 | 4, scale << 6 | index_bits << 3 | base]) + tail


def _address16(operand: Memory, reg: int) -> bytes:
    """ModRM and displacement of 16-bit addressing."""
    registers = frozenset(r for r in (operand.base, operand.index) if r is not None)
    if not registers:
        return bytes([reg << 3 | 6]) + (operand.displacement & 0xFFFF).to_bytes(2, "little")
    if registers not in RM16 or operand.scale != 1:
        raise EncodeError("16-bit addressing adds bx or bp to si or di, and nothing else")
    rm = RM16[registers]
    mod, tail = _displacement(operand, can_omit=rm != 6)
    return bytes([mod << 6 | reg << 3 | rm]) + tail


def modrm_bytes(operand: Operand, reg: int) -> bytes:
    """ModRM and what follows it, for a register or memory operand and ModRM.reg."""
    if isinstance(operand, Memory):
        return _address16(operand, reg) if operand.address_size == 16 else _address32(operand, reg)
    assert isinstance(operand, Register)
    return bytes([0xC0 | reg << 3 | operand.number])
