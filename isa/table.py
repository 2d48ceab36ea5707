"""The instruction table: every encoding of the slice, one line each, and nothing listed twice.

The rows stand in `isa/rows/`, a module a subject, and are put together here. Each `group` names a
mnemonic, its title and the columns its encodings share; the lines below are its encodings: opcode,
operand codes, and ``*`` on the rows of the newcomer's card. `isa/row.py` says what the words mean.
Assembler, decoders, C tables, reference page and test generators are derived from this table; to
add an instruction, add a line there and its `op_` in csrc.

Where the slice departs from a whole IA-32 (SDM volume 2):

* protected mode with 32-bit code segments only: no real mode, V86 or 16-bit code;
* no x87, MMX, SSE: x87 opcodes raise #NM when CR0.EM or CR0.TS is set; else all raise #UD. WAIT is
  there, for compilers put it before x87 opcodes that a kernel emulates (Linux's math-emu);
* no hardware task switch: task gates, far transfers to a TSS and IRET with NT=1 stop the machine;
* CR4 has TSD, PSE and DE only; UMIP, PVI, VME and PGE are absent, CPUID says so;
* there are no caches: WBINVD does nothing, and so is privileged but not sensitive;
* an undocumented alias is a row where processors agree on it: SHL as /6, TEST as /1.

The unsafe rows - sensitive, not privileged - cite their place in J. S. Robin and C. E. Irvine,
"Analysis of the Intel Pentium's Ability to Support a Secure Virtual Machine Monitor" (2000):
"3A" is section 3.2.1, sensitive register instructions; "3B" section 3.2.2, protection system
references. They count SGDT SIDT SLDT SMSW PUSHF POPF | LAR LSL VERR VERW POP PUSH CALL JMP INT RET
STR MOV: seventeen or eighteen names, as one counts; IRET and MOV-from-segment come under the
same reasoning.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Final

from isa.row import Row, check_rows
from isa.rows import arithmetic, control, data, logic, strings, system

MODULES: Final = (data, arithmetic, logic, control, strings, system)

#: The table. Index is `Row.id`.
ROWS: Final[tuple[Row, ...]] = tuple(
    replace(row, id=number)
    for number, row in enumerate(chain.from_iterable(module.rows for module in MODULES))
)
check_rows(ROWS)

#: Condition codes by number (the low four opcode bits), with every spelling NASM takes; the first
#: is the disassembler's.
CONDITION_NAMES: Final[tuple[tuple[str, ...], ...]] = (
    ("o",), ("no",), ("b", "c", "nae"), ("nb", "nc", "ae"), ("z", "e"), ("nz", "ne"),
    ("be", "na"), ("a", "nbe"), ("s",), ("ns",), ("pe", "p"), ("po", "np"),
    ("l", "nge"), ("nl", "ge"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip

#: Other spellings: name -> (mnemonic of the table, operand size it forces or None).
ALIASES: Final[dict[str, tuple[str, int | None]]] = {
    "pushad": ("pusha", 32), "pushaw": ("pusha", 16), "popad": ("popa", 32),
    "popaw": ("popa", 16), "pushfd": ("pushf", 32), "pushfw": ("pushf", 16),
    "popfd": ("popf", 32), "popfw": ("popf", 16), "iretd": ("iret", 32), "iretw": ("iret", 16),
    "sal": ("shl", None), "xlatb": ("xlat", None), "loope": ("loopz", None),
    "loopne": ("loopnz", None), "retn": ("ret", None), "int03": ("int3", None),
    "jcxz": ("jecxz", None), "fwait": ("wait", None),
}  # fmt: skip

#: Spellings that force an address size in bits: the count is then in CX.
ADDRESS_SIZE_ALIASES: Final[dict[str, int]] = {"jcxz": 16}


def rows_of(mnemonic: str) -> tuple[Row, ...]:
    """The rows of a mnemonic, alias or conditional spelling (``jz``); empty if unknown."""
    name = ALIASES.get(mnemonic, (mnemonic, None))[0]
    for prefix in ("set", "cmov", "j"):
        if name.startswith(prefix) and condition_number(name[len(prefix) :]) is not None:
            name = prefix + "cc"
    return tuple(row for row in ROWS if row.mnemonic == name)


def condition_number(suffix: str) -> int | None:
    """The condition code a suffix names (``nz`` -> 5), or None."""
    for number, names in enumerate(CONDITION_NAMES):
        if suffix in names:
            return number
    return None
