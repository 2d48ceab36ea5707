"""The registers by name: one dictionary for whoever reads assembly text.

Names, numbers and sizes are those of `isa/operands.py`; this turns them round, from the name to the
operand. Used by `isa/assembler/`.
"""

from __future__ import annotations

from typing import Final

from isa.operands import (
    GENERAL_NAMES,
    SEGMENT_NAMES,
    ControlRegister,
    DebugRegister,
    Register,
    SegmentRegister,
)

AnyRegister = Register | SegmentRegister | ControlRegister | DebugRegister


def _every_register() -> dict[str, AnyRegister]:
    registers: list[AnyRegister] = []
    for size, names in GENERAL_NAMES.items():
        registers += [Register(number, size) for number in range(len(names))]
    registers += [SegmentRegister(number) for number in range(len(SEGMENT_NAMES))]
    registers += [ControlRegister(number) for number in range(8)]
    registers += [DebugRegister(number) for number in range(8)]
    return {register.name: register for register in registers}


#: Every register by its lower-case name.
BY_NAME: Final[dict[str, AnyRegister]] = _every_register()
