"""A state of the machine, and one instruction run in it.

`Conditions` is what a hypervisor could hold otherwise than its guest believes: the ring, the place
of frames, tables and descriptors, IF, IOPL, control and debug registers, the time, what a device
says. `Bench` puts the core into a state, runs one instruction, and records its `Outcome`. The
guest-visible layout is the same under all conditions; the rest of a state is a `Case` (cases.py).

Paging is on. Linear memory lies in one of two sets of page frames (`frames`), and the descriptor
tables at one of two linear addresses (`tables`); every descriptor stands twice in the GDT, so that
segment registers, LDTR and TR can name it by either (`slots`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emulator.core import Cpu, ExitReason, ffi, lib
from emulator.memory import Memory

# -- Layout: linear addresses ----------------------------------------------------------------------
CODE: Final = 0x10000
TARGET: Final = CODE + 0x100  #: where far transfers lead
DATA: Final = 0x20000  #: memory operands lie here
OPERAND: Final = DATA + 0x100
STACK: Final = DATA + 0x800  #: ESP
OUTER: Final = DATA + 0xC00  #: the stack pointer of an outer ring, in return frames
RING_STACKS: Final = (DATA + 0xE00, DATA + 0xF00, DATA + 0x1000)  #: in the TSS
VISIBLE: Final = range(DATA, DATA + 0x1000)  #: what is compared of memory
STUBS: Final = 0x28000  #: the IDT leads here, 16 bytes a vector
TABLES: Final = 0x30000  #: GDT; LDT, TSS and IDT stand behind it
LDT_AT, TSS_AT, IDT_AT, OPEN_AT = 0x400, 0x800, 0x1000, 0x4000
TABLES_USED: Final = 0x900  #: GDT, LDT and the head of the TSS: what may change
MOVED: Final = 0x8000  #: how far `tables` moves them
DIRECTORY: Final = 0x60000  #: page directory, and the table behind it
FRAMES: Final = 0x80000  #: how far `frames` moves everything
GDT_LIMIT, LDT_LIMIT = 0x1FF, 0x1F
TSS_LIMIT: Final = OPEN_AT - TSS_AT + 0x2000

# -- Selectors; those of KERNEL_* have the DPL of the ring in which the guest's kernel runs --------
KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA = 0x08, 0x10, 0x18, 0x20
TASK, LOCAL, CONFORMING, GATE, SMALL = 0x28, 0x30, 0x38, 0x40, 0x48
FREE_TASK, FREE_LOCAL = 0x50, 0x58
SLOT: Final = 0x80  #: the second of each descriptor stands so much higher

IF: Final = 0x200
CR0: Final = 0x8000_0011  #: PG, ET, PE
CR0_TS: Final = 8
CR4_TSD: Final = 4
CR4_DE: Final = 8
#: Exceptions that leave the core, so that an outcome is a trap: all but #DB, #BP and #OF.
TRAPS: Final = (0, 5, 6, 7, 8, 10, 11, 12, 13, 14, 17)
LATER: Final = 0x1000  #: ticks that `late` adds


class Conditions(NamedTuple):
    """What a guest must not notice. The defaults are the bare machine in ring 0."""

    cpl: int = 0
    kernel: int = 0  #: the ring of the guest's kernel: DPL of its segments
    iopl: int = 0
    masked: bool = False  #: IF = 0
    open_ports: bool = False  #: the I/O bitmap allows every port
    tsd: bool = True  #: CR4.TSD: RDTSC for CPL 0 only
    cr0: int = 0  #: CR0 bits beside PG, ET, PE
    cr4: int = 0  #: CR4 bits beside TSD
    debug: int = 0  #: DR0
    frames: bool = False
    tables: bool = False
    slots: bool = False
    late: bool = False  #: a thousand ticks have passed elsewhere
    device: int = 0x5A  #: what a port reads

    @property
    def shift(self) -> int:
        """Machine address less linear address."""
        return FRAMES if self.frames else 0

    @property
    def gdt(self) -> int:
        return TABLES + (MOVED if self.tables else 0)


class Case(NamedTuple):
    """One instruction, and what it finds: the guest's own part of a state."""

    code: bytes
    registers: tuple[int, ...]
    flags: int  #: EFLAGS bits beside IF and IOPL
    frame: bytes  #: what lies at ESP and at OPERAND


#: The head of CpuState as words, by name; see csrc/api.h.
SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
WORDS: Final = (
    "version", "size", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "none", "eip",
    "eflags", "cpl",
    *(f"{s}{part}" for s in SEGMENTS for part in ("", ".attributes", ".base", ".limit")),
    "gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit", "cr0", "cr2", "cr3", "cr4",
    *(f"dr{n}" for n in range(8)),
)  # fmt: skip
INDEX: Final = {name: number for number, name in enumerate(WORDS)}
_GENERAL: Final = struct.Struct("=8I")
_HEAD: Final = struct.Struct(f"={len(WORDS)}I")
_TLB_ENTRY: Final = ffi.sizeof("CpuState") + (DATA >> 12) * ffi.sizeof("Translation")


@dataclass(slots=True)
class Outcome:
    """What one instruction did. Before a run: the same of the state it began in."""

    words: tuple[int, ...]  #: by `WORDS`
    visible: bytes  #: of `VISIBLE`
    tables: bytes  #: descriptor tables and TSS
    started: int = 0  #: the tick at which the instruction began
    stamp: int = 0  #: what the time-stamp counter was set to, less the tick that was
    trap: tuple[int, int] | None = None  #: exception and error code
    stopped: str = ""  #: why the core could not go on, where it is outside the slice
    event: int | None = None  #: the vector of a software interrupt that was delivered
    ports: tuple[tuple[int, ...], ...] = ()  #: accesses to devices
    halted: bool = False
    flushed: bool = False  #: the TLB entry of the operand's page is gone
    entered: bool = False  #: a gate led into ring 0: the hypervisor's chance, as a trap is

    @property
    def went_through(self) -> bool:
        return self.trap is None and not self.stopped and not self.entered

    def __getitem__(self, name: str) -> int:
        return self.words[INDEX[name]]


def _descriptor(base: int, limit: int, access: int, flags: int = 0xC) -> int:
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | access << 40
        | (limit >> 16) << 48
        | flags << 52
        | (base >> 24) << 56
    )


def descriptors(conditions: Conditions) -> dict[int, int]:
    """The GDT: descriptor by selector."""
    level, gdt = conditions.kernel << 5, conditions.gdt
    gate = TARGET & 0xFFFF | KERNEL_CODE << 16 | 0xEC << 40 | TARGET >> 16 << 48
    first = {
        KERNEL_CODE: _descriptor(0, 0xFFFFF, 0x9B | level),
        KERNEL_DATA: _descriptor(0, 0xFFFFF, 0x93 | level),
        USER_CODE: _descriptor(0, 0xFFFFF, 0xFB),
        USER_DATA: _descriptor(0, 0xFFFFF, 0xF3),
        TASK: _descriptor(gdt + TSS_AT, TSS_LIMIT, 0x8B, 0),
        LOCAL: _descriptor(gdt + LDT_AT, LDT_LIMIT, 0x82, 0),
        CONFORMING: _descriptor(0, 0xFFFFF, 0x9F),
        GATE: gate,
        SMALL: _descriptor(DATA, 0xFFF, 0xF3, 4),
        FREE_TASK: _descriptor(TABLES + TSS_AT, 0x67, 0x89, 0),
        FREE_LOCAL: _descriptor(TABLES + LDT_AT, LDT_LIMIT, 0x82, 0),
    }
    return first | {selector + SLOT: value for selector, value in first.items()}


def _table_image(conditions: Conditions) -> bytes:
    """GDT, LDT and the head of the TSS."""
    image = bytearray(TABLES_USED)
    for selector, value in descriptors(conditions).items():
        struct.pack_into("<Q", image, selector, value)
    for ring, top in enumerate(RING_STACKS):
        struct.pack_into("<II", image, TSS_AT + 4 + ring * 8, top, KERNEL_DATA | ring)
    bitmap = OPEN_AT - TSS_AT if conditions.open_ports else 0xFFFF
    struct.pack_into("<H", image, TSS_AT + 102, bitmap)
    return bytes(image)


def _load(segment: Any, selector: int, table: dict[int, int]) -> None:
    """A segment register as if it had been loaded."""
    value = table[selector & ~7]
    limit = value & 0xFFFF | (value >> 48 & 15) << 16
    segment.selector, segment.attributes = selector, value >> 40 & 0xF0FF
    segment.base = value >> 16 & 0xFFFFFF | value >> 56 << 24
    segment.limit = limit << 12 | 0xFFF if value >> 55 & 1 else limit


class Bench:
    """A machine, used for one instruction after another."""

    def __init__(self) -> None:
        self._memory = Memory(2 * FRAMES)
        self._machine = self._memory.machine
        self._cpu = Cpu(self._machine)
        self._state = self._cpu.state
        self._raw = ffi.buffer(self._state)
        self._buffer = ffi.new("uint8_t[]", len(VISIBLE))
        self._states: dict[Conditions, tuple[bytes, bytes]] = {}
        self._repaired: frozenset[int] = frozenset()
        self._case: Case | None = None
        self._content = b""
        for shift in (0, FRAMES):
            for address, data in self._image(shift):
                self._memory.write(address + shift, data)

    def _image(self, shift: int) -> list[tuple[int, bytes]]:
        """What never changes: page tables, IDT, open bitmap, stubs."""
        places = {CODE, DATA, STUBS, *range(TABLES, TABLES + 2 * MOVED, 0x1000)}
        pages = struct.pack(
            "<128I", *(at | shift | 0x67 if at in places else 0 for at in range(0, FRAMES, 0x1000))
        )
        found = [(DIRECTORY, struct.pack("<I", DIRECTORY + 0x1000 + shift | 0x67)),
                 (DIRECTORY + 0x1000, pages), (STUBS, b"\xf4" * 4096)]  # fmt: skip
        for tables in (TABLES, TABLES + MOVED):
            found += [(tables + IDT_AT, _idt()), (tables + OPEN_AT + 0x2000, b"\xff")]
        return found

    def repair(self, rows: frozenset[int]) -> None:
        """Let rows raise #GP(0) above CPL 0, as `--virtualizable` does."""
        self._repaired = rows
        self._states.clear()

    def _prepared(self, conditions: Conditions) -> tuple[bytes, bytes]:
        """CpuState and descriptor tables under these conditions."""
        known = self._states.get(conditions)
        if known is None:
            self._cpu.reset()
            self._configure(conditions)
            known = self._states[conditions] = bytes(self._raw), _table_image(conditions)
        return known

    def _configure(self, now: Conditions) -> None:
        state, table, slot = self._state, descriptors(now), SLOT if now.slots else 0
        state.eip, state.cpl, state.eflags = CODE, now.cpl, 2 | now.iopl << 12
        state.eflags |= 0 if now.masked else IF
        code, data = KERNEL_CODE, KERNEL_DATA
        if now.cpl != now.kernel:
            code, data = USER_CODE, USER_DATA
        for number, name in enumerate(SEGMENTS[:6]):
            selector = {"cs": code | now.cpl, "ss": data | now.cpl}.get(name, USER_DATA | 3)
            _load(state.seg[number], selector + slot, table)
        _load(state.ldtr, LOCAL + slot, table)
        _load(state.tr, TASK + slot, table)
        state.gdtr.base, state.gdtr.limit = now.gdt, GDT_LIMIT
        state.idtr.base, state.idtr.limit = now.gdt + IDT_AT, 0x7FF
        state.cr0, state.cr3 = CR0 | now.cr0, DIRECTORY + now.shift
        state.cr4 = now.cr4 | (CR4_TSD if now.tsd else 0)
        state.dr[0] = now.debug
        state.tick = LATER if now.late else 0
        for vector in TRAPS:
            state.intercepts.vectors[vector >> 3] |= 1 << (vector & 7)
        for row in self._repaired:
            state.intercepts.gp_rows[row >> 3] |= 1 << (row & 7)

    def run(
        self, case: Case, now: Conditions, *, watch_tlb: bool = False
    ) -> tuple[Outcome, Outcome]:
        """The state before, and after one instruction of `case`."""
        state, tables = self._prepared(now)
        visible = self._write(case, now, tables)
        self._enter(state)
        lib.cpu_flush_tlb(self._cpu.pointer)
        if watch_tlb:
            self._touch_operand()
            self._enter(state)
        head = self._state
        ffi.buffer(head.gpr)[: _GENERAL.size] = _GENERAL.pack(*case.registers)
        head.eflags |= case.flags
        before = Outcome(_HEAD.unpack_from(self._raw), visible, tables)
        after = self._go(now)
        after.visible = self._read(VISIBLE.start + now.shift, len(VISIBLE))
        after.tables = self._read(now.gdt + now.shift, TABLES_USED)
        if watch_tlb:
            entry = struct.unpack_from("=I", self._cpu.save(), _TLB_ENTRY)[0]
            after.flushed = entry != DATA | head.space
        return before, after

    def _enter(self, state: bytes) -> None:
        """Take a prepared state, but for the TLB's address space: ids used before stay used."""
        space = self._state.space
        self._raw[:] = state
        self._state.space = space

    def _write(self, case: Case, now: Conditions, tables: bytes) -> bytes:
        """Put the case's bytes where they belong; returns the visible memory."""
        if case is not self._case:
            self._case, self._content = case, _visible(case)
        write, machine, shift = lib.machine_write, self._machine, now.shift
        write(machine, VISIBLE.start + shift, self._content, len(self._content))
        write(machine, now.gdt + shift, tables, TABLES_USED)
        write(machine, CODE + shift, case.code, len(case.code))
        return self._content

    def _read(self, address: int, size: int) -> bytes:
        lib.machine_read(self._machine, address, self._buffer, size)
        return bytes(ffi.buffer(self._buffer, size))

    def _touch_operand(self) -> None:
        """mov eax, [OPERAND]: fills the TLB."""
        code = b"\xa1" + struct.pack("<I", OPERAND)
        place = CODE + 0x800
        lib.machine_write(self._machine, place + self._state.cr3 - DIRECTORY, code, len(code))
        self._state.eip = place
        self._cpu.run(self._state.tick + 1)

    def _go(self, now: Conditions) -> Outcome:
        cpu, state = self._cpu, self._state
        start = state.tick
        ports: list[tuple[int, ...]] = []
        while True:
            reason = cpu.run(start + 1)
            if reason not in (ExitReason.PORT_READ, ExitReason.PORT_WRITE):
                break
            port, size, count, value = cpu.port_access()
            if reason == ExitReason.PORT_WRITE:
                ports.append((1, port, size, count, value))
                cpu.complete(0)
            else:
                ports.append((0, port, size, count))
                self._answer(now.device, size, count)
        after = Outcome(_HEAD.unpack_from(self._raw), b"", b"", start, ports=tuple(ports))
        if state.tsc_offset:
            after.stamp = state.tsc_offset + start & (1 << 64) - 1
        self._ended(reason, now.cpl, after)
        return after

    def _answer(self, value: int, size: int, count: int) -> None:
        data = value.to_bytes(size, "little") * count
        if count == 1:
            self._cpu.complete(value)
        else:
            self._cpu.complete_bytes(data)

    def _ended(self, reason: int, cpl: int, after: Outcome) -> None:
        after.halted = reason == ExitReason.HALT
        if self._state.tick != after.started:
            pass  # it retired; a fault in fetching the next instruction is not its own
        elif reason == ExitReason.EVENT:
            record = self._cpu.exit
            after.trap = record.vector, record.error
            if record.kind == lib.EVENT_SOFTWARE:  # INT with an exception's vector: not asked here
                after.trap, after.stopped = None, "software interrupt"
        else:
            after.stopped = ExitReason(reason).name.lower()
        eip = after["eip"]
        after.entered = cpl > 0 and self._state.cpl == 0
        if after.went_through and STUBS <= eip < STUBS + 0x1000:
            after.event = (eip - STUBS) // 16


def _visible(case: Case) -> bytes:
    visible, size = bytearray(len(VISIBLE)), len(case.frame)
    for at in (OPERAND - DATA, case.registers[4] - DATA):
        if 0 <= at <= len(VISIBLE) - size:
            visible[at : at + size] = case.frame
    return bytes(visible)


def _idt() -> bytes:
    """Gates into the guest's kernel; those of odd vectors from 0x20 up are its own alone."""
    gates = []
    for vector in range(256):
        at = STUBS + vector * 16
        access = 0x8E if vector >= 0x20 and vector & 1 else 0xEE
        gates.append(at & 0xFFFF | KERNEL_CODE << 16 | access << 40 | at >> 16 << 48)
    return struct.pack("<256Q", *gates)
