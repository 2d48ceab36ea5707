"""Ask our own core: the cases of case.py, run natively under a minimal ring-0 environment.

Segments, page tables, IDT and TSS are laid out as Linux has them where user mode can tell. Every
vector has a gate to an HLT in ring 0; the outcome is read from the stack frame that delivery left
there, so delivery is under test as well. All this lies in the linear zone which silicon's helper
keeps for itself.

This is the side under test: the oracles are tests/silicon/oracle.py and unicorn.py.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from typing import Any, Final

from emulator import _core
from tests.oracles.case import (
    AREA,
    CODE,
    CS,
    DATA,
    EAX,
    ESP,
    INT3,
    LDT_SIZE,
    LOW,
    PAGE,
    SS,
    TF,
    USER_CS,
    USER_DS,
    ZONE,
    Case,
    Descriptor,
    Fault,
    Outcome,
)

ffi: Any = _core.ffi
lib: Any = _core.lib

KERNEL: Final = ZONE
"""Linear address of machine address 0, for ring 0 only."""

# Machine addresses.
_DIRECTORY, _TABLE_LOW, _TABLE_CODE, _TABLE_KERNEL = 0x0000, 0x1000, 0x2000, 0x3000
_GDT, _TSS, _LDT, _IDT, _HANDLERS, _STACK_TOP = 0x4000, 0x4800, 0x5000, 0x6000, 0x7000, 0x9000
_CODE, _DATA, _SIZE = 0x10000, 0x12000, 0x14000

_KERNEL_CS, _KERNEL_DS, _TSS_SELECTOR, _LDT_SELECTOR = 0x08, 0x18, 0x40, 0x50
_GDT_LIMIT, _TSS_LIMIT = 0x7F, 0x67
_FLAT_CODE, _FLAT_DATA, _DPL3 = 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 3 << 45
_GATE, _GATE_DPL3 = 0x8E00, 0xEE00
_OPEN_VECTORS: Final = (3, 4, 0x80)
"""What Linux lets user mode raise by INT n; silicon is never asked 0x80."""
_HAS_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
_PRESENT, _WRITABLE, _USER = 1, 2, 4
_CR0: Final = 0x80050033  # PG AM WP NE ET MP PE
_HLT: Final = b"\xf4"
_TICKS: Final = 1 << 22
NOT_DELIVERED: Final = 0x100
"""Fault.vector less the exit reason, where the core stopped without delivering an exception."""

_REGISTERS_AT: Final = ffi.offsetof("CpuState", "gpr")
_EIP_AT: Final = ffi.offsetof("CpuState", "eip")  # EFLAGS follows
_SEGMENTS_AT: Final = ffi.offsetof("CpuState", "seg")
_EIGHT: Final = struct.Struct("<8I")
_TWO: Final = struct.Struct("<2I")
_FRAME: Final = struct.Struct("<5I")
_SEGMENT: Final = struct.Struct("<4I")
_SEGMENTS: Final = struct.Struct("<24I")


def _segment(selector: int, descriptor: int) -> tuple[int, int, int, int]:
    """Selector, attributes, base and limit as the core keeps them."""
    low, high = descriptor & 0xFFFFFFFF, descriptor >> 32
    attributes = high >> 8 & 0xF0FF
    limit = (low & 0xFFFF) | (high & 0xF0000)
    if attributes & lib.ATTR_GRANULARITY:
        limit = limit << 12 | 0xFFF
    base = low >> 16 | (high & 0xFF) << 16 | (high & 0xFF000000)
    return selector, attributes, base, limit


class Native:
    """A machine with one CPU, reused from case to case."""

    def __init__(self, low_mapped: bool = True) -> None:
        """`low_mapped`: whether LOW is there, as it may not be on silicon."""
        self._memory = mmap.mmap(-1, _SIZE)
        self._pointer = ffi.from_buffer("uint8_t[]", self._memory)
        self._machine = ffi.gc(lib.machine_new(self._pointer, _SIZE), lib.machine_free)
        self._cpu = ffi.gc(lib.cpu_new(self._machine), lib.cpu_free)
        self._state = lib.cpu_state(self._cpu)
        self._bytes = ffi.buffer(self._state)
        self._exit = lib.cpu_exit(self._cpu)
        self._ldt: tuple[Descriptor | None, ...] | None = None
        self._write(_CODE, bytes([INT3]) * AREA)
        self._lay_out_paging(low_mapped)
        self._lay_out_tables()
        self._enter_ring_3()
        self._template = bytes(self._bytes)

    def _write(self, address: int, data: bytes) -> None:
        lib.machine_write(self._machine, address, data, len(data))

    def _lay_out_paging(self, low_mapped: bool) -> None:
        def entry(table: int, linear: int, machine: int, rights: int) -> None:
            index = linear >> 12 & 0x3FF if table else linear >> 22
            self._write(table + 4 * index, struct.pack("<I", machine | rights | _PRESENT))

        entry(_DIRECTORY, LOW, _TABLE_LOW, _WRITABLE | _USER)
        entry(_DIRECTORY, CODE, _TABLE_CODE, _WRITABLE | _USER)
        entry(_DIRECTORY, KERNEL, _TABLE_KERNEL, _WRITABLE)
        for page in range(0, AREA, PAGE):
            entry(_TABLE_CODE, CODE + page, _CODE + page, _USER)
            entry(_TABLE_CODE, DATA + page, _DATA + page, _USER | _WRITABLE)
            if low_mapped:
                entry(_TABLE_LOW, LOW + page, _DATA + page, _USER | _WRITABLE)
        for page in range(0, _CODE, PAGE):
            entry(_TABLE_KERNEL, KERNEL + page, page, _WRITABLE)

    def _lay_out_tables(self) -> None:
        self._gdt = [0] * (_GDT_LIMIT // 8 + 1)
        self._gdt[_KERNEL_CS >> 3] = self._gdt[_KERNEL_CS + 8 >> 3] = _FLAT_CODE
        self._gdt[_KERNEL_DS >> 3] = _FLAT_DATA
        self._gdt[USER_CS >> 3] = _FLAT_CODE | _DPL3
        self._gdt[USER_DS >> 3] = _FLAT_DATA | _DPL3
        self._write(_GDT, struct.pack("<16Q", *self._gdt))
        tss = bytearray(_TSS_LIMIT + 1)
        struct.pack_into("<II", tss, 4, KERNEL + _STACK_TOP, _KERNEL_DS)
        struct.pack_into("<H", tss, 102, 0xFFFF)  # no I/O bitmap: every port faults
        self._write(_TSS, bytes(tss))
        self._write(_HANDLERS, _HLT * 256)
        idt = bytearray()
        for vector in range(256):
            handler = KERNEL + _HANDLERS + vector
            gate = _GATE_DPL3 if vector in _OPEN_VECTORS else _GATE
            idt += struct.pack("<HHHH", handler & 0xFFFF, _KERNEL_CS, gate, handler >> 16)
        self._write(_IDT, bytes(idt))

    def _enter_ring_3(self) -> None:
        lib.cpu_reset(self._cpu)
        state = self._state
        state.cr0, state.cr3, state.cr4 = _CR0, _DIRECTORY, 0
        state.gdtr.base, state.gdtr.limit = KERNEL + _GDT, _GDT_LIMIT
        state.idtr.base, state.idtr.limit = KERNEL + _IDT, 0x7FF
        self._set_system_segment(state.ldtr, _LDT_SELECTOR, 0x82, _LDT, 8 * LDT_SIZE - 1)
        self._set_system_segment(state.tr, _TSS_SELECTOR, 0x8B, _TSS, _TSS_LIMIT)
        state.cpl = 3

    @staticmethod
    def _set_system_segment(to: Any, selector: int, attributes: int, at: int, limit: int) -> None:
        to.selector, to.attributes, to.base, to.limit = selector, attributes, KERNEL + at, limit

    def run_batch(self, cases: Iterable[Case]) -> list[Outcome]:
        """The outcome of each case, in order. Raises ValueError for one that cannot be entered."""
        return [self._run(case) for case in cases]

    def _run(self, case: Case) -> Outcome:
        case.check()
        if case.ldt is not self._ldt:
            self._install(case.ldt)
        where = case.address - CODE + _CODE
        self._write(where, case.code)
        self._write(_DATA, case.memory)
        self._load(case)
        outcome = self._go(case)
        self._write(where, bytes([INT3]) * len(case.code))
        return outcome

    def _install(self, ldt: tuple[Descriptor | None, ...]) -> None:
        entries = [descriptor.encode() if descriptor else bytes(8) for descriptor in ldt]
        self._write(_LDT, b"".join(entries).ljust(8 * LDT_SIZE, b"\0"))
        self._ldt = ldt

    def _load(self, case: Case) -> None:
        to = self._bytes
        to[:] = self._template
        _EIGHT.pack_into(to, _REGISTERS_AT, *case.registers)
        flags = case.eflags | (TF if case.steps else 0)
        _TWO.pack_into(to, _EIP_AT, case.eip, flags)
        fields: list[int] = []
        for selector in case.selectors:
            fields += self._loaded(selector, case)
        _SEGMENTS.pack_into(to, _SEGMENTS_AT, *fields)

    def _loaded(self, selector: int, case: Case) -> tuple[int, int, int, int]:
        if selector < 4:
            return selector, lib.ATTR_UNUSABLE, 0, 0
        if selector & 4:
            descriptor = case.ldt[selector >> 3]
            assert descriptor is not None
            return _segment(selector, int.from_bytes(descriptor.encode(), "little"))
        return _segment(selector, self._gdt[selector >> 3])

    def _go(self, case: Case) -> Outcome:
        taken = 0
        while True:
            reason = lib.cpu_run(self._cpu, self._state.tick + _TICKS)
            if reason != lib.EXIT_HALT:
                return self._outcome(Fault(NOT_DELIVERED + reason), None, taken)
            vector = self._state.eip - 1 - KERNEL - _HANDLERS
            frame_at = self._state.gpr[ESP] - KERNEL + 4 * (vector in _HAS_ERROR_CODE)
            frame = _FRAME.unpack_from(self._memory, frame_at)
            if vector != 1 or case.steps == 0:
                return self._outcome(self._fault(vector, frame_at), frame, taken)
            taken += 1
            if taken == case.steps:
                return self._outcome(None, frame, taken)
            self._resume(case, frame)

    def _resume(self, case: Case, frame: tuple[int, ...]) -> None:
        """Go on from a trap, TF set. Not by IRET: to a 16-bit stack it would return SP alone."""
        state = self._state
        state.eip, cs, eflags, state.gpr[ESP], ss = frame
        state.eflags = eflags | TF
        state.cpl = 3
        for segment, selector in ((CS, cs & 0xFFFF), (SS, ss & 0xFFFF)):
            at = _SEGMENTS_AT + 16 * segment
            _SEGMENT.pack_into(self._bytes, at, *self._loaded(selector, case))

    def _fault(self, vector: int, frame_at: int) -> Fault:
        if vector not in _HAS_ERROR_CODE:
            return Fault(vector)
        error = int.from_bytes(self._memory[frame_at - 4 : frame_at], "little")
        return Fault(vector, error, self._state.cr2 if vector == 14 else None)

    def _outcome(self, fault: Fault | None, frame: tuple[int, ...] | None, taken: int) -> Outcome:
        registers = list(_EIGHT.unpack_from(self._bytes, _REGISTERS_AT))
        selectors = list(_SEGMENTS.unpack_from(self._bytes, _SEGMENTS_AT)[::4])
        eip, eflags = _TWO.unpack_from(self._bytes, _EIP_AT)
        if frame is not None:
            eip, selectors[CS], eflags, registers[ESP], selectors[SS] = frame
            selectors[CS] &= 0xFFFF
            selectors[SS] &= 0xFFFF
        memory = self._memory[_DATA : _DATA + AREA]
        return Outcome(tuple(registers), eip, eflags, tuple(selectors), memory, fault, taken)


assert EAX == 0, "Registers are in the core's order"
assert DATA >> 22 == CODE >> 22, "one page table holds both"
