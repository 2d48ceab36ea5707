"""Adaptive stores: what a store becomes that keeps writing to page tables.

A guest's page tables are write-protected, for shadows follow them; each store costs an exit. But an
entry that has no shadow may change without anybody being told. So such a store looks for itself:
ALIASES tells whether the page it writes to is a table in a window, and then the entry's shadow says
whether there is one. If not, the store is done through the window.

    eax, ecx, edx and flags are saved
    lea  edx, [where]                       ; offset in the segment
    ecx = number of its alias               ; from bits 12 to 17 of the offset
    the alias's page is that of edx, edx is aligned, its selector is that of the segment,
    and the entry's shadow is 0?            ; else restore all, and the store as it stands
    edx += alias's distance
    flags, eax and ecx are restored
    mov  [gs:edx], what                     ; this counts
    edx is restored

It returns to what it was when many in a row have found no alias: PATIENCE.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hypervisor.translator import layout
from hypervisor.translator.layout import AREA, R_EAX, area_operand
from hypervisor.translator.unit import Place
from hypervisor.translator.writer import CALL_OUT, UnitWriter, encoded
from isa.operands import (
    CS,
    EAX,
    ECX,
    EDX,
    GENERAL,
    GS,
    SEGMENTS,
    Immediate,
    Memory,
    Operand,
    Register,
    Relative,
)
from isa.paravirt import SAVE_EAX, SAVE_ECX, SAVE_EDX, SAVE_FLAGS, Field
from isa.site_forms import Lost

if TYPE_CHECKING:
    from isa.decoder import Instruction

MOST_PATIENCE: Final = 1000
_ALIAS_SIZE: Final = 16  #: bytes: page, window, shadow, selector
PAGE_PART, WINDOW_PART, SHADOW_PART, SELECTOR_PART = range(0, _ALIAS_SIZE, 4)
_MOVES: Final = frozenset({"mov"})
#: They leave all arithmetic flags, and need none.
_COMPUTES: Final = frozenset({"or", "and", "add", "sub", "xor"})
_SAVES: Final[dict[int, tuple[Field, Lost]]] = {
    EAX: (SAVE_EAX, Lost.EAX), ECX: (SAVE_ECX, Lost.ECX), EDX: (SAVE_EDX, Lost.EDX),
}  # fmt: skip
_AL: Final = GENERAL[8][EAX]


def can_adapt(instruction: Instruction) -> bool:
    """Is it a store that can be made adaptive?"""
    if instruction.row.body not in _MOVES | _COMPUTES or len(instruction.operands) != 2:
        return False
    to = instruction.operands[0]
    if not isinstance(to, Memory) or to.size != 32 or to.address_size != 32:
        return False
    return to.effective_segment not in (CS, GS) and not instruction.prefixes.lock


def alias_number(page: int) -> int:
    """Which alias a linear address has."""
    return page >> 12 & layout.WINDOW_COUNT - 1


def alias_address(number: int) -> int:
    """Linear address of an alias."""
    return layout.ALIASES + _ALIAS_SIZE * number


class _Store:
    """The steps of one adaptive store."""

    def __init__(self, w: UnitWriter, instruction: Instruction) -> None:
        self._w, self._instruction = w, instruction
        to, what = instruction.operands
        assert isinstance(to, Memory)
        self._to, self._what = to, what
        is_edx = isinstance(what, Register) and what.number == EDX
        self._pointer, self._number = (ECX, EDX) if is_edx else (EDX, ECX)
        self._lost: set[Lost] = set()
        self._to_slow: list[int] = []  #: offsets of the displacements of jumps to the slow path

    def write(self) -> None:
        self._find_alias()
        self._check_alias()
        self._store()
        self._slow_path()

    def _do(self, mnemonic: str, *operands: Operand, lose: Lost | None = None) -> None:
        """A step; after it `lose` is lost."""
        self._w.do(mnemonic, *operands, lost=self._lost)
        if lose is not None:
            self._lost.add(lose)

    def _register(self, number: int) -> Register:
        return GENERAL[32][number]

    def _alias(self, part: int) -> Memory:
        return Memory(self._number, None, 1, layout.ALIASES - AREA + part, 32, GS)

    def _find_alias(self) -> None:
        w, pointer, number = self._w, self._register(self._pointer), self._register(self._number)
        for register, (field, _) in _SAVES.items():
            self._do("mov", w.field(field), self._register(register))
        where = replace(self._to, segment=None, size=0)
        self._do("lea", pointer, where, lose=_SAVES[self._pointer][1])
        self._do("lahf", lose=Lost.EAX)
        self._do("seto", _AL)
        self._do("mov", w.field(SAVE_FLAGS), R_EAX)
        self._do("mov", number, pointer, lose=_SAVES[self._number][1])
        # Twelve bits of offset go, and four come back: an alias's size.
        self._do("shr", number, Immediate(8, 0), lose=Lost.FLAGS)
        mask = (layout.WINDOW_COUNT - 1) * _ALIAS_SIZE
        self._do("and", number, Immediate(mask, 0))

    def _check_alias(self) -> None:
        pointer = self._register(self._pointer)
        self._do("mov", R_EAX, pointer)
        self._do("and", R_EAX, Immediate(0xFFFF_F003, 0))
        self._unless("cmp", R_EAX, self._alias(PAGE_PART))
        self._do("mov", R_EAX, SEGMENTS[self._to.effective_segment])
        self._unless("cmp", R_EAX, self._alias(SELECTOR_PART))
        self._do("mov", R_EAX, self._alias(SHADOW_PART))
        shadow = Memory(EAX, self._pointer, 1, 0, 32, GS)
        self._unless("cmp", shadow, Immediate(0, 0))

    def _unless(self, *comparison: Operand | str) -> None:
        """Unless the two are equal: the slow path."""
        mnemonic, *operands = comparison
        self._do(str(mnemonic), *operands)  # type: ignore[arg-type]
        self._w.step(encoded("jnz", Relative(0, 8)), self._lost)
        self._to_slow.append(len(self._w.data) - 1)

    def _store(self) -> None:
        w, pointer = self._w, self._register(self._pointer)
        self._do("add", pointer, self._alias(WINDOW_PART))
        self._do("mov", area_operand(layout.PATIENCE), Immediate(MOST_PATIENCE, 0))
        if self._instruction.row.body in _MOVES:
            self._restore_flags()
        self._restore(EAX)
        self._restore(self._number)
        target = Memory(self._pointer, None, 1, 0, 32, GS)
        row = self._instruction.row.mnemonic
        w.do(row, target, self._what, lost=self._lost, weight=1)
        # The guest is behind the store now; only the pointer is not its own yet.
        field, lost = _SAVES[self._pointer]
        w.places[len(w.data)] = Place(w.site.end, lost=frozenset({lost}))
        w.weightless.append(len(w.data))
        w.data += encoded("mov", pointer, w.field(field))

    def _restore_flags(self) -> None:
        self._do("mov", R_EAX, self._w.field(SAVE_FLAGS))
        self._do("add", _AL, Immediate(127, 0))  # OF from AL, which is 0 or 1
        self._do("sahf")
        self._lost.discard(Lost.FLAGS)

    def _restore(self, number: int) -> None:
        field, lost = _SAVES[number]
        self._do("mov", self._register(number), self._w.field(field))
        self._lost.discard(lost)

    def _slow_path(self) -> None:
        w = self._w
        w.glue(encoded("jmp", Relative(0, 8)), w.site.end)
        over = len(w.data) - 1
        for place in self._to_slow:
            w.data[place] = len(w.data) - place - 1
        self._lost = {lost for _, lost in _SAVES.values()} | {Lost.FLAGS}
        self._do("sub", area_operand(layout.PATIENCE), Immediate(1, 0))
        self._w.step(encoded("jns", Relative(2 + len(CALL_OUT), 8)), self._lost)
        w.step(CALL_OUT, self._lost)
        asked = len(w.data) - len(CALL_OUT)
        w.places[asked] = w.places[asked]._replace(revert=True)
        self._restore_flags()
        for number in _SAVES:
            self._restore(number)
        w.identical(self._instruction.bytes)
        w.data[over] = len(w.data) - over - 1


def translate_store(w: UnitWriter, instruction: Instruction) -> None:
    """An adaptive store."""
    _Store(w, instruction).write()
