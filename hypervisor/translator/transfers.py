"""Jumps, calls and returns: where control goes next, in a translation.

A target that is known becomes a link. Any other is looked up by the cache's own code: the EIP goes
to EAX, its low bits to ECX, and TARGETS says where to go on: at the head of a unit that compares
EAX with its own EIP, for another place may have the same low bits. All without touching a flag or
the guest's stack:

    ret:    mov [save_eax], eax            head:  lea ecx, [eax - EIP]
            mov [save_ecx], ecx                   jecxz here
            mov eax, [esp]                        int OWN_VECTOR       ; another: find it
            movzx ecx, ax                  here:  mov eax, [save_eax]
            lea esp, [esp + 4]                    mov ecx, [save_ecx]
            jmp [targets + ecx * 4]               ...                  ; the unit's code

Return addresses on the guest's stack are the guest's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypervisor.translator.layout import R_AX, R_EAX, R_ECX, TARGET_OPERANDS
from hypervisor.translator.unit import Place
from hypervisor.translator.writer import (
    CALL_OUT,
    JUMP_LENGTH,
    RESTORE_EAX,
    RESTORE_ECX,
    UnitWriter,
    encoded,
)
from isa.operands import EAX, ECX, ESP, GENERAL, Immediate, Memory, Operand, Relative
from isa.paravirt import SAVE_EAX, SAVE_ECX
from isa.site_forms import Lost

if TYPE_CHECKING:
    from isa.decoder import Instruction

SHORT_JUMP: Final = 2  #: bytes
_BOTH: Final = (Lost.EAX, Lost.ECX)
#: Their displacement or immediate is to be filled in.
_COMPARE: Final = encoded("lea", R_ECX, Memory(EAX, None, 1, 0, displacement_size=32))
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

    glue(_with_last_word(_COMPARE, -eip))
    here = SHORT_JUMP + len(CALL_OUT)
    glue(encoded("jecxz", Relative(here, 8)))
    glue(CALL_OUT)
    glue(RESTORE_EAX)
    glue(RESTORE_ECX)


def _look_up(w: UnitWriter, *lost: Lost, released: int = 0) -> None:
    """Go where EAX says."""
    w.do("movzx", R_ECX, R_AX, lost=(Lost.EAX, *lost))
    if released:
        stack = Memory(ESP, None, 1, released)
        w.do("lea", GENERAL[32][ESP], stack, lost=(*_BOTH, *lost))
    w.do("jmp", TARGET_OPERANDS[w.context.user], lost=(*_BOTH, *lost), weight=1, released=released)


def _save(w: UnitWriter) -> None:
    w.do("mov", w.field(SAVE_EAX), R_EAX)
    w.do("mov", w.field(SAVE_ECX), R_ECX)


def _push(w: UnitWriter, value: int, *lost: Lost) -> None:
    w.step(_with_last_word(_PUSH, value), lost)


def _target(instruction: Instruction) -> int:
    target = instruction.operands[0]
    assert isinstance(target, Relative)
    return target.target


def translate_ret(w: UnitWriter, instruction: Instruction) -> None:
    """The return address is the guest's: look it up."""
    released = 4
    for operand in instruction.operands:
        assert isinstance(operand, Immediate)
        released += operand.value
    _save(w)
    w.do("mov", R_EAX, Memory(ESP, None, 1, 0, 32))
    _look_up(w, released=released)


def translate_jmp(w: UnitWriter, instruction: Instruction) -> None:
    w.link("jmp", _target(instruction))


def translate_call(w: UnitWriter, instruction: Instruction) -> None:
    _push(w, w.site.end)
    w.link("jmp", _target(instruction), lost={Lost.ESP})


def translate_jmp_indirect(w: UnitWriter, instruction: Instruction) -> None:
    _save(w)
    w.do("mov", R_EAX, instruction.operands[0])
    _look_up(w)


def translate_call_indirect(w: UnitWriter, instruction: Instruction) -> None:
    _save(w)
    w.do("mov", R_EAX, instruction.operands[0])
    _push(w, w.site.end, Lost.EAX)
    _look_up(w, Lost.ESP)


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
