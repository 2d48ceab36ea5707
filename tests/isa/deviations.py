"""Where the decoding oracles differ from us, and why that is their business.

`SPELLINGS` is notation. A `Deviation` is a difference in substance: it says who differs, on which
instructions, how the answers are compared all the same, and the reason. Each is met by the fast
tests (a stale one fails them); nothing else is excused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isa.decoder import Instruction
from isa.operands import Register

#: Mnemonics of capstone and objdump for ours: AT&T's suffixes, and l for far.
SPELLINGS: Final = {
    "pushal": "pusha", "popal": "popa", "pushaw": "pusha", "popaw": "popa",
    "pushw": "push", "popw": "pop", "enterw": "enter", "leavew": "leave",
    "callw": "call", "jmpw": "jmp", "retw": "ret", "retfw": "retf", "iretw": "iret",
    "ljmp": "jmp", "lcall": "call", "ljmpw": "jmp", "lcallw": "call", "lret": "retf",
    "lretw": "retf", "sgdtd": "sgdt", "sidtd": "sidt", "lgdtd": "lgdt", "lidtd": "lidt",
    "sgdtw": "sgdt", "sidtw": "sidt", "lgdtw": "lgdt", "lidtw": "lidt",
}  # fmt: skip

#: What only NASM has a name for.
OURS: Final = {"hint_nop55": "nop"}

#: objdump writes a string instruction's size in its operands.
STRING_MNEMONICS: Final = frozenset({"movs", "stos", "lods", "cmps", "scas", "ins", "outs"})


@dataclass(frozen=True)
class Deviation:
    """`excuses` picks instructions; `relaxed` is what is still compared of them."""

    oracles: frozenset[str]
    excuses: Callable[[Instruction], bool]
    relaxed: str  #: length | nothing | target modulo 2**16 | register numbers | all but prefixes
    reason: str


def _oracles(names: str) -> frozenset[str]:
    return frozenset(names.split())


DEVIATIONS: Final = (
    Deviation(
        _oracles("capstone objdump"),
        lambda i: i.prefixes.operand_size and i.row.operands in (("Jb",), ("Jz",)),
        "target modulo 2**16",
        "with 66 a jump cuts EIP to 16 bits (SDM vol. 2, JMP, Jcc, LOOP: 'if OperandSize = 16 "
        "then EIP := tempEIP AND 0000FFFFH'); they print the whole sum",
    ),
    Deviation(
        _oracles("capstone"),
        lambda i: i.prefixes.address_size and i.row.operands == ("Jz",),
        "target modulo 2**16",
        "with 67 capstone sign-extends a near jump's displacement from its low 16 bits where bit "
        "15 is set; the prefix concerns the addresses of memory operands only",
    ),
    Deviation(
        _oracles("capstone objdump"),
        lambda i: (
            i.row.operands in (("Gv", "Ew"), ("Sw", "Ew"))
            and i.row.sensitive != ""
            and isinstance(i.operands[1], Register)
        ),
        "register numbers",
        "a selector's register is printed with 32 bits, though only the low 16 are read",
    ),
    Deviation(
        _oracles("capstone"),
        lambda i: i.row.mnemonic == "pause" and i.prefixes.operand_size,
        "nothing",
        "capstone does not decode 66 F3 90; processors pause",
    ),
    Deviation(
        _oracles("capstone"),
        lambda i: i.row.mnemonic == "movsd" and i.prefixes.repeat == 0xF2,
        "all but prefixes",
        "capstone drops the prefix of F2 A5; it repeats, as F3 does",
    ),
    Deviation(
        _oracles("capstone objdump"),
        lambda i: i.row.mnemonic == "hint_nop55" and isinstance(i.operands[0], Register),
        "nothing",
        "with a register they know ENDBR32, RDSSP and nothing else where P6 has a NOP",
    ),
    Deviation(
        _oracles("objdump"),
        lambda i: i.row.mnemonic == "nop" and i.prefixes.operand_size and not i.operands,
        "length",
        "66 90 is printed as xchg ax,ax, which is what a nop is",
    ),
    Deviation(
        _oracles("objdump"),
        lambda i: i.row.mnemonic == "wbinvd" and i.prefixes.operand_size,
        "nothing",
        "objdump does not decode 66 0F 09; the prefix means nothing there",
    ),
    Deviation(
        _oracles("objdump"),
        lambda i: i.row.opcode in ("FF /4", "FF /2") and i.prefixes.segment == 3,
        "length",
        "3E before an indirect jump or call is printed as notrack (CET), not as DS",
    ),
    Deviation(
        _oracles("ndisasm"),
        lambda i: i.row.parsed.digit == 1 and i.row.mnemonic == "test",
        "nothing",
        "NASM does not know the /1 alias of test",
    ),
    Deviation(
        _oracles("ndisasm"),
        lambda i: i.row.parsed.digit == 6 and i.row.mnemonic == "shl",
        "nothing",
        "NASM does not know the /6 alias of shl",
    ),
    Deviation(
        _oracles("ndisasm"),
        lambda i: i.row.mnemonic == "setcc",
        "nothing",
        "NASM takes setcc with ModRM.reg = 0 only; processors ignore the field",
    ),
    Deviation(
        _oracles("ndisasm"),
        lambda i: (
            i.row.operands == ("Gv", "Ew") and not i.row.sensitive and i.prefixes.operand_size
        ),
        "nothing",
        "NASM has no movzx or movsx from 16 to 16 bits",
    ),
    Deviation(
        _oracles("ndisasm"),
        lambda i: i.row.mnemonic == "wait",
        "nothing",
        "ndisasm takes WAIT for a prefix of what follows",
    ),
    Deviation(
        _oracles("ndisasm"),
        lambda i: i.row.mnemonic == "bswap" and i.prefixes.operand_size,
        "nothing",
        "NASM has no bswap of 16 bits; its result is undefined",
    ),
)


def deviation(oracle: str, instruction: Instruction) -> Deviation | None:
    """The first deviation that excuses `oracle` on this instruction."""
    for candidate in DEVIATIONS:
        if oracle in candidate.oracles and candidate.excuses(instruction):
            return candidate
    return None
