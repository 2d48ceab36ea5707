"""Ask Unicorn: run multi-instruction programs on QEMU's translator, as packaged by unicorn-engine.

It takes the cases of case.py and gives back the same outcomes, in ring 3 or ring 0, paging off. Its
memory map stands in for page tables: a touch outside LOW, CODE and DATA is reported as the page
fault which paging would have given. Unicorn checks no segment limits and has no host kernel behind
it, so it is asked programs with flat segments; tests/oracles/deviations.py lists where it is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import unicorn as uc
from unicorn import x86_const as x86

from tests.oracles.case import (
    AREA,
    CODE,
    CS,
    DATA,
    DS,
    ES,
    FLAGS_AT_START,
    FLAT,
    FS,
    GS,
    INT3,
    LOW,
    PAGE,
    SS,
    USER_CS,
    Case,
    Fault,
    Outcome,
)

_REGISTERS = (
    *(x86.UC_X86_REG_EAX, x86.UC_X86_REG_ECX, x86.UC_X86_REG_EDX, x86.UC_X86_REG_EBX),
    *(x86.UC_X86_REG_ESP, x86.UC_X86_REG_EBP, x86.UC_X86_REG_ESI, x86.UC_X86_REG_EDI),
)
_SELECTORS = (
    *(x86.UC_X86_REG_ES, x86.UC_X86_REG_CS, x86.UC_X86_REG_SS),
    *(x86.UC_X86_REG_DS, x86.UC_X86_REG_FS, x86.UC_X86_REG_GS),
)
_GDT = 0xD0000000
_FLAT_CODE, _FLAT_DATA = 0x00CF9B000000FFFF, 0x00CF93000000FFFF
_DPL3 = 3 << 45
_USER, _WRITE, _PRESENT = 4, 2, 1
_WRITES = (uc.UC_MEM_WRITE_UNMAPPED, uc.UC_MEM_WRITE_PROT)
_PROTECTED = (uc.UC_MEM_WRITE_PROT, uc.UC_MEM_READ_PROT, uc.UC_MEM_FETCH_PROT)


class UnicornError(Exception):
    """Unicorn itself failed: it says nothing about the case."""


class Unicorn:
    """One Unicorn engine, reused from case to case."""

    def __init__(self, ring: int = 3) -> None:
        """`ring`: the CPL in which cases run, 0 or 3."""
        self._ring = ring
        self._fault: Fault | None = None
        self._engine = engine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_32)
        engine.mem_map(LOW, AREA, uc.UC_PROT_ALL)
        engine.mem_map(CODE, AREA, uc.UC_PROT_READ | uc.UC_PROT_EXEC)
        engine.mem_map(DATA, AREA, uc.UC_PROT_ALL)
        engine.mem_map(_GDT, PAGE, uc.UC_PROT_ALL)
        engine.mem_write(CODE, bytes([INT3]) * AREA)
        self._enter_ring()
        engine.hook_add(uc.UC_HOOK_INTR, self._on_interrupt)
        engine.hook_add(uc.UC_HOOK_INSN_INVALID, self._on_invalid)
        engine.hook_add(uc.UC_HOOK_MEM_INVALID, self._on_memory)

    def run_batch(self, cases: Iterable[Case]) -> list[Outcome]:
        """The outcome of each case, in order; LOW is not an alias of DATA here."""
        return [self._run(case) for case in cases]

    def _run(self, case: Case) -> Outcome:
        case.check()
        if case.selectors != FLAT:
            raise ValueError("Unicorn is asked programs with flat segments only")
        engine = self._engine
        self._fault = None
        self._enter(case)
        try:
            engine.emu_start(case.eip, 0xFFFFFFFF, count=case.steps)
        except uc.UcError as error:
            if self._fault is None:
                raise UnicornError(f"{case.code.hex(' ')}: {error}") from error
        outcome = Outcome(
            registers=tuple(engine.reg_read(register) for register in _REGISTERS),
            eip=engine.reg_read(x86.UC_X86_REG_EIP),
            eflags=engine.reg_read(x86.UC_X86_REG_EFLAGS),
            selectors=tuple(engine.reg_read(register) for register in _SELECTORS),
            memory=bytes(engine.mem_read(DATA, AREA)),
            fault=self._fault,
            taken=case.steps,
        )
        engine.mem_write(case.address, bytes([INT3]) * len(case.code))
        engine.ctl_remove_cache(CODE, CODE + AREA)
        return outcome

    def _enter_ring(self) -> None:
        """Load flat segments of the ring by IRET: a register write cannot lower the privilege."""
        engine, rpl = self._engine, self._ring
        level = _DPL3 if rpl == 3 else 0
        kernel_cs, kernel_ds = 0x08, 0x10
        gdt = struct.pack(
            "<6Q", 0, _FLAT_CODE, _FLAT_DATA, 0, _FLAT_CODE | level, _FLAT_DATA | level
        )
        engine.mem_write(_GDT, gdt)
        engine.reg_write(x86.UC_X86_REG_GDTR, (0, _GDT, len(gdt) - 1, 0))
        engine.reg_write(x86.UC_X86_REG_CS, kernel_cs)
        engine.reg_write(x86.UC_X86_REG_SS, kernel_ds)
        self._flat = tuple(selector & ~3 | rpl if selector else 0 for selector in FLAT)
        iret, stack = _GDT + 0x100, _GDT + 0x200
        frame = struct.pack("<5I", CODE, self._flat[CS], FLAGS_AT_START, DATA, self._flat[SS])
        engine.mem_write(iret, b"\xcf")
        engine.mem_write(stack, frame)
        engine.reg_write(x86.UC_X86_REG_ESP, stack)
        engine.emu_start(iret, 0xFFFFFFFF, count=1)
        self._fresh = engine.context_save()

    def _enter(self, case: Case) -> None:
        engine = self._engine
        engine.mem_write(case.address, case.code)
        engine.mem_write(DATA, case.memory)
        engine.ctl_remove_cache(DATA, DATA + AREA)
        # Also forgets the last case's exception, which would make the next one a double fault.
        engine.context_restore(self._fresh)
        for index in (ES, SS, DS, FS, GS):
            engine.reg_write(_SELECTORS[index], self._flat[index])
        for register, value in zip(_REGISTERS, case.registers, strict=True):
            engine.reg_write(register, value)
        engine.reg_write(x86.UC_X86_REG_EFLAGS, case.eflags)

    def _on_interrupt(self, engine: Any, vector: int, data: object) -> None:
        del data
        self._fault = Fault(vector)
        engine.emu_stop()

    def _on_invalid(self, engine: Any, data: object) -> bool:
        del engine, data
        self._fault = Fault(6)
        return False

    def _on_memory(
        self, engine: Any, access: int, address: int, size: int, value: int, data: object
    ) -> bool:
        del engine, size, value, data
        error = _USER if self._ring == 3 else 0
        error |= _WRITE if access in _WRITES else 0
        error |= _PRESENT if access in _PROTECTED else 0
        self._fault = Fault(14, error, address)
        return False


assert USER_CS >> 3 == 4, "the GDT above has user code in entry 4"
