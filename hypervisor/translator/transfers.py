"""Jumps, calls and returns: where control goes next, in a translation.

A target that is known becomes a link. Any other is looked up by the cache's own code: the EIP goes
to the area, its low bits to ECX, and TARGETS says where to go on: at the head of a unit that
compares what is wanted with its own EIP, for another place may have the same low bits. All without
touching a flag or the guest's stack, and with one register:

    ret:    mov [save_ecx], ecx            head:  mov ecx, [wanted]
            pop ecx                               lea ecx, [ecx - EIP]
            mov [wanted], ecx                     jecxz here
            movzx ecx, cx                         int OWN_VECTOR       ; another: find it
            jmp [targets + ecx * 4]        here:  mov ecx, [save_ecx]
                                                  ...                  ; the unit's code

(`pop [wanted]` would be one less, but the core takes longer for it than for two plain ones.)

Return addresses on the guest's stack are the guest's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypervisor.translator.layout import R_CX, R_ECX, TARGET_OPERANDS, WANTED, area_operand
from hypervisor.translator.unit import Place
from hypervisor.translator.writer import (
    CALL_OUT,
    JUMP_LENGTH,
    RESTORE_ECX,
    UnitWriter,
    encoded,
)
from isa.operands import ECX, ESP, GENERAL, Immediate, Memory, Operand, Register, Relative
from isa.paravirt import SAVE_ECX
from isa.site_forms import Lost

if TYPE_CHECKING:
    from isa.decoder import Instruction

SHORT_JUMP: Final = 2  #: bytes
_LOW: Final = area_operand(WANTED, 16)  #: the bits that choose a target
_LOAD_WANTED: Final = encoded("mov", R_ECX, area_operand(WANTED))
#: Their displacement or immediate is to be filled in.
_COMPARE: Final = encoded("lea", R_ECX, Memory(ECX, None, 1, 0, displacement_size=32))
_PUSH: Final = encoded("push", Immediate(0, 0, full=True))
_WORD: Final = 4


def _with_last_word(code: bytes, value: int) -> bytes:
    return code[:-_WORD] + (value & 0xFFFF_FFFF).to_bytes(_WORD, "little")


def write_head(w: UnitWriter, eip: int) -> None:
    """Where TARGETS leads: is it this unit that is wanted?"""

    def glue(code: bytes) -> None:
        w.places[len(w.data)] = Place(eip, target=True)
        w.weightless.append(len(w.data))
        w.data += code

    glue(_LOAD_WANTED)
    glue(_with_last_word(_COMPARE, -eip))
    here = SHORT_JUMP + len(CALL_OUT)
    glue(encoded("jecxz", Relative(here, 8)))
    glue(CALL_OUT)
    glue(RESTORE_ECX)


def _look_up(w: UnitWriter, low: Operand, *lost: Lost, released: int = 0) -> None:
    """Go where WANTED says, whose low 16 bits are in an operand."""
    w.do("movzx", R_ECX, low, lost=lost, released=released)
    target = TARGET_OPERANDS[w.context.user]
    w.do("jmp", target, lost=(Lost.ECX, *lost), weight=1, released=released)


def look_up_behind(w: UnitWriter) -> None:
    """The same where the guest is there already: ECX is WANTED, and what it was is saved."""
    for code in (encoded("movzx", R_ECX, R_CX), encoded("jmp", TARGET_OPERANDS[w.context.user])):
        w.places[len(w.data)] = Place(0, target=True)
        w.weightless.append(len(w.data))
        w.data += code


def _want(w: UnitWriter, source: Operand) -> tuple[Operand, tuple[Lost, ...]]:
    """Save ECX, and put a jump's operand into WANTED: where its low bits are, and what is lost."""
    w.do("mov", w.field(SAVE_ECX), R_ECX)
    if isinstance(source, Register):
        w.do("mov", w.field(WANTED), source)
        return _LOW if source.number == ESP else GENERAL[16][source.number], ()
    w.do("mov", R_ECX, source)
    w.do("mov", w.field(WANTED), R_ECX, lost={Lost.ECX})
    return R_CX, (Lost.ECX,)


def _push(w: UnitWriter, value: int, *lost: Lost) -> None:
    w.step(_with_last_word(_PUSH, value), lost)


def _target(instruction: Instruction) -> int:
    target = instruction.operands[0]
    assert isinstance(target, Relative)
    return target.target


def translate_ret(w: UnitWriter, instruction: Instruction) -> None:
    """The return address is the guest's: look it up."""
    released = _WORD
    w.do("mov", w.field(SAVE_ECX), R_ECX)
    w.do("pop", R_ECX)
    w.do("mov", w.field(WANTED), R_ECX, lost={Lost.ECX}, released=released)
    for operand in instruction.operands:
        assert isinstance(operand, Immediate)
        stack = Memory(ESP, None, 1, operand.value)
        w.do("lea", GENERAL[32][ESP], stack, lost={Lost.ECX}, released=released)
        released += operand.value
    _look_up(w, R_CX, Lost.ECX, released=released)


def translate_jmp(w: UnitWriter, instruction: Instruction) -> None:
    w.link("jmp", _target(instruction))


def translate_call(w: UnitWriter, instruction: Instruction) -> None:
    _push(w, w.site.end)
    w.link("jmp", _target(instruction), lost={Lost.ESP})


def translate_jmp_indirect(w: UnitWriter, instruction: Instruction) -> None:
    low, lost = _want(w, instruction.operands[0])
    _look_up(w, low, *lost)


def translate_call_indirect(w: UnitWriter, instruction: Instruction) -> None:
    low, lost = _want(w, instruction.operands[0])
    _push(w, w.site.end, *lost)
    _look_up(w, low, Lost.ESP, *lost)


def translate_jcc(w: UnitWriter, instruction: Instruction) -> None:
    """Not taken, the unit goes on."""
    w.link(instruction.mnemonic, _target(instruction))


def _by_counter(w: UnitWriter, instruction: Instruction) -> None:
    """LOOP and JECXZ reach a few bytes only: a jump to a jump."""
    operands: list[Operand] = [Relative(0, 8)]
    if instruction.address_size == 16:
        operands.append(GENERAL[16][ECX])
    code = encoded(instruction.mnemonic, *operands)
    w.step(code[:-1] + bytes([SHORT_JUMP]), weight=1)
    w.glue(encoded("jmp", Relative(SHORT_JUMP + JUMP_LENGTH, 8)), w.site.end)
    w.go_on(_target(instruction))


translate_loop = translate_loopz = translate_loopnz = translate_jecxz = _by_counter
