"""Units that check themselves: for pages that hold code and what is written all the time.

A page whose stores are interpreted, for it holds code, is slow if it holds a stack as well. After
MOST_STORES of them its units are made anew: each compares its source with what it was made of, by
loads that change no flag, whenever it is entered, and ends where it may have stored. Then stores to
the page need no watching at all. The source is reached through SS, which must
reach it all (engine.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypervisor.translator.layout import R_ECX, area_operand
from hypervisor.translator.unit import Place
from hypervisor.translator.writer import CALL_OUT, RESTORE_ECX, UnitWriter, encoded
from isa.encoder import encode
from isa.operands import ECX, SS, Memory, Relative
from isa.paravirt import SAVE_ECX
from isa.row import Row
from isa.site_forms import Lost
from isa.table import ROWS

if TYPE_CHECKING:
    from isa.decoder import Instruction

#: Stores to a page of code that are interpreted before its units check themselves.
MOST_STORES: Final = 8
#: Their instructions: the check costs four of its own for each four bytes.
MOST_CHECKED: Final = 12
WORD: Final = 4


def write_check(w: UnitWriter, eip: int, linear: int, source: bytes) -> None:
    """Compare the source, at a linear address, with what it was; a difference calls out."""

    def glue(code: bytes, *lost: Lost) -> None:
        w.places[len(w.data)] = Place(eip, lost=frozenset(lost), check=True)
        w.weightless.append(len(w.data))
        w.data += code

    glue(encoded("mov", area_operand(SAVE_ECX), R_ECX))
    for at, size in _pieces(len(source)):
        place = Memory(None, None, 1, (linear + at) & 0xFFFF_FFFF, size * 8, SS)
        expected = int.from_bytes(source[at : at + size], "little")
        glue(encode("mov" if size == WORD else "movzx", (R_ECX, place)).data, Lost.ECX)
        difference = Memory(ECX, None, 1, -expected & 0xFFFF_FFFF)
        glue(encoded("lea", R_ECX, difference), Lost.ECX)
        glue(encoded("jecxz", Relative(2 + len(CALL_OUT), 8)), Lost.ECX)
        glue(CALL_OUT, Lost.ECX)
    glue(RESTORE_ECX, Lost.ECX)


def _pieces(size: int) -> list[tuple[int, int]]:
    """Offsets and sizes of 4, 2 and 1 bytes that cover so many."""
    pieces, at = [], 0
    while at < size:
        step = next(step for step in (WORD, 2, 1) if step <= size - at)
        pieces.append((at, step))
        at += step
    return pieces


def _may_store(row: Row) -> bool:
    if row.translation != "identical" or row.cost in ("stack", "stack_all", "enter", "string"):
        return True
    return any(
        operand[0] in "EMOY" and access not in "ra"
        for operand, access in zip(row.operands, row.access, strict=True)
    )


#: After these a checked unit ends; the others change no memory.
_ENDING: Final = frozenset(row.id for row in ROWS if _may_store(row) and row.body != "jcc")


def ends_checked(instruction: Instruction) -> bool:
    """Must a checked unit end after an instruction?"""
    return instruction.row.id in _ENDING
