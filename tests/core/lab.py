"""A bare CPU with descriptor tables, for tests of what the processor does with them.

`Lab` lays out a GDT, an LDT, an IDT and a TSS in machine memory. Every vector leads to a HLT of its
own, so where the CPU halts says which event was delivered, and the stack holds its frame. A test
changes descriptors as it likes, runs a few lines of assembly at some ring, and reads the `Outcome`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from emulator.core import Cpu, ExitReason, Registers
from emulator.memory import Memory
from isa import assemble

MEMORY = 4 << 20
GDT, LDT, IDT, TSS = 0x1000, 0x1800, 0x2000, 0x3000
STUBS = 0x4000  #: 16 bytes a vector; each begins with HLT
CODE = 0x100000  #: where `run` puts the program
TARGET = CODE + 0x100  #: where far transfers lead; a test puts `int 0x80` there: arrival
DATA = 0x200000  #: 64 KiB for the program to use
STACK = 0x70000  #: top of the program's stack
STACKS = (0x80000, 0x90000, 0xA0000)  #: tops of the stacks of rings 0-2 in the TSS

#: Access bytes.
PRESENT, CODE_DATA = 0x80, 0x10
READ_ONLY, WRITABLE, EXPAND_DOWN, EXPAND_DOWN_RO = 0x90, 0x92, 0x96, 0x94
EXECUTE_ONLY, READABLE, CONFORMING = 0x98, 0x9A, 0x9E

#: Selectors without RPL: code and data of ring n are CODE_OF[n], DATA_OF[n]; FREE is for tests.
CODE_OF = (0x08, 0x18, 0x28, 0x38)
DATA_OF = (0x10, 0x20, 0x30, 0x40)
TSS_SELECTOR, LDT_SELECTOR, FREE, FREE2 = 0x48, 0x50, 0x58, 0x60
GDT_ENTRIES = 16
LDT_ENTRIES = 4

FLAG = {"cf": 1, "pf": 4, "af": 16, "zf": 64, "sf": 128, "tf": 256, "if": 512, "df": 1024,
        "of": 2048, "nt": 0x4000, "rf": 0x10000, "vm": 0x20000, "ac": 0x40000,
        "id": 0x200000}  # fmt: skip

DE, DB, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF = 0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14
HAS_ERROR = {DF, TS, NP, SS, GP, PF}


def dpl(access: int, level: int) -> int:
    """An access byte at a privilege level."""
    return access | level << 5


def descriptor(base: int = 0, limit: int = 0xFFFFFFFF, access: int = WRITABLE, big: bool = True,
               pages: bool | None = None) -> int:  # fmt: skip
    """The 64 bits of a segment descriptor; a limit above 1 MiB is counted in pages."""
    in_pages = limit > 0xFFFFF if pages is None else pages
    limit = limit >> 12 if in_pages else limit
    flags = (8 if in_pages else 0) | (4 if big else 0)
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | flags << 52
        | (base >> 24) << 56
    )


def gate(selector: int, offset: int, kind: int, level: int = 0, count: int = 0,
         present: bool = True) -> int:  # fmt: skip
    """The 64 bits of a gate: kind 0xC call, 0xE interrupt, 0xF trap, 5 task."""
    access = kind | level << 5 | (PRESENT if present else 0)
    return offset & 0xFFFF | selector << 16 | count << 32 | access << 40 | (offset >> 16) << 48


@dataclass(frozen=True)
class Frame:
    """What an event pushed. esp and ss are None where the privilege level stayed."""

    eip: int
    cs: int
    eflags: int
    error: int | None = None
    esp: int | None = None
    ss: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the exit, and the event if it halted in a vector's stub."""

    reason: Any
    vector: int | None = None
    frame: Frame | None = None

    @property
    def fault(self) -> tuple[int, int | None] | None:
        """Vector and error code, or None."""
        return None if self.vector is None or not self.frame else (self.vector, self.frame.error)


class Lab:
    """A CPU in ring 0 with flat segments, its tables loaded."""

    def __init__(self) -> None:
        self.memory = Memory(MEMORY)
        self.cpu = Cpu(self.memory.machine)
        self.state = self.cpu.state
        for level in range(4):
            self.set_gdt(CODE_OF[level], descriptor(access=dpl(READABLE, level)))
            self.set_gdt(DATA_OF[level], descriptor(access=dpl(WRITABLE, level)))
        self.set_gdt(TSS_SELECTOR, descriptor(TSS, 0x67, 0x8B, big=False))
        self.set_gdt(LDT_SELECTOR, descriptor(LDT, LDT_ENTRIES * 8 - 1, 0x82, big=False))
        for vector in range(256):
            self.memory.write(STUBS + vector * 16, b"\xf4")
            self.set_idt(vector, gate(CODE_OF[0], STUBS + vector * 16, 0xE))
        self.set_idt(0x80, gate(CODE_OF[0], STUBS + 0x80 * 16, 0xE, level=3))
        for level, top in enumerate(STACKS):
            self.put32(TSS + 4 + level * 8, top)
            self.put32(TSS + 8 + level * 8, DATA_OF[level] | level)
        self.state.gdtr.base, self.state.gdtr.limit = GDT, GDT_ENTRIES * 8 - 1
        self.state.idtr.base, self.state.idtr.limit = IDT, 256 * 8 - 1
        self.load_hidden(self.state.tr, TSS_SELECTOR)
        self.load_hidden(self.state.ldtr, LDT_SELECTOR)
        self.cpu["esp"] = STACK
        self.ring(0)

    # -- Memory --------------------------------------------------------------------------------

    def put32(self, address: int, *values: int) -> None:
        self.memory.write(address, struct.pack(f"<{len(values)}I", *values))

    def get32(self, address: int) -> int:
        return self.memory.u32(address)

    def set_gdt(self, selector: int, value: int) -> None:
        self.memory.write(GDT + (selector & ~7), struct.pack("<Q", value))

    def set_ldt(self, selector: int, value: int) -> None:
        self.memory.write(LDT + (selector & ~7), struct.pack("<Q", value))

    def set_idt(self, vector: int, value: int) -> None:
        self.memory.write(IDT + vector * 8, struct.pack("<Q", value))

    def entry(self, selector: int) -> int:
        """A descriptor as it stands in its table."""
        table = LDT if selector & 4 else GDT
        low, high = self.get32(table + (selector & ~7)), self.get32(table + (selector & ~7) + 4)
        return low | high << 32

    def access(self, selector: int) -> int:
        """The access byte of a descriptor in its table."""
        return self.entry(selector) >> 40 & 0xFF

    # -- Registers -----------------------------------------------------------------------------

    def load_hidden(self, segment: Any, selector: int) -> None:
        """Load a segment register with what the table says, without checks."""
        value = self.entry(selector)
        limit = value & 0xFFFF | (value >> 48 & 15) << 16
        segment.selector = selector
        segment.attributes = value >> 40 & 0xF0FF
        segment.base = value >> 16 & 0xFFFFFF | value >> 56 << 24
        segment.limit = limit << 12 | 0xFFF if value >> 55 & 1 else limit

    def set_segment(self, name: str, selector: int) -> None:
        self.load_hidden(self.state.seg[["es", "cs", "ss", "ds", "fs", "gs"].index(name)], selector)

    def ring(self, level: int) -> None:
        """Continue at a privilege level, with flat segments of it."""
        self.state.cpl = level
        self.set_segment("cs", CODE_OF[level] | level)
        for name in ("ss", "ds", "es", "fs", "gs"):
            self.set_segment(name, DATA_OF[level] | level)

    # -- Running -------------------------------------------------------------------------------

    def load(self, source: str) -> int:
        """Assemble a program to CODE and point EIP at it; returns its length."""
        names = "".join(f"{name} equ {value}\n" for name, value in CONSTANTS.items())
        program = assemble(f"bits 32\norg {CODE}\n{names}{source}\n")
        self.memory.write(CODE, program.flat())
        self.cpu["eip"] = CODE
        return len(program.flat())

    def go(self, ticks: int = 1000) -> Outcome:
        """Run on until an exit, at most so many ticks."""
        reason = ExitReason(self.cpu.run(self.state.tick + ticks))
        return Outcome(reason, *self.event(reason))

    def run(self, source: str, ticks: int = 1000) -> Outcome:
        self.load(source)
        return self.go(ticks)

    def event(self, reason: Any) -> tuple[int, Frame] | tuple[()]:
        """The event in whose stub the CPU halted."""
        offset = self.cpu["eip"] - 1 - STUBS
        if reason != ExitReason.HALT or not 0 <= offset < 256 * 16 or offset % 16:
            return ()
        vector, esp = offset // 16, self.cpu["esp"] + self.state.seg[2].base
        error = self.get32(esp) if vector in HAS_ERROR else None
        esp += 4 if vector in HAS_ERROR else 0
        eip, cs, eflags = (self.get32(esp + i * 4) for i in range(3))
        outer = (None, None)
        if (cs & 3) > self.state.cpl:
            outer = (self.get32(esp + 12), self.get32(esp + 16))  # type: ignore[assignment]
        return vector, Frame(eip, cs, eflags, error, *outer)

    def snapshot(self) -> tuple[Registers, tuple[object, ...]]:
        """All registers that a program can read, and the hidden parts of segments."""
        segments = tuple(
            (s.selector, s.attributes, s.base, s.limit)
            for s in (*self.state.seg, self.state.ldtr, self.state.tr)
        )
        return self.cpu.registers, segments


def arrived(outcome: Outcome) -> bool:
    """Whether a run ended in the `int 0x80` at TARGET."""
    return bool(outcome.vector == 0x80 and outcome.frame and outcome.frame.eip == TARGET + 2)


#: What delivery of an event leaves alone.
KEPT = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi", "ds", "es", "fs", "gs")


def faults_cleanly(lab: Lab, source: str) -> tuple[int, int | None] | None:
    """The fault of a program's one instruction; it must have changed nothing."""
    lab.load(source)
    before = lab.cpu.registers
    outcome = lab.go()
    after, frame = lab.cpu.registers, outcome.frame
    assert frame is not None
    assert [getattr(after, name) for name in KEPT] == [getattr(before, name) for name in KEPT]
    assert (frame.eip, frame.cs) == (before.eip, before.cs)
    if frame.esp is not None:
        assert (frame.esp, frame.ss) == (before.esp, before.ss)
    else:
        assert after.esp == before.esp - (12 if frame.error is None else 16)
    return outcome.fault


#: Names that programs may use.
CONSTANTS = {
    "DATA": DATA, "STACK": STACK, "FREE": FREE, "FREE2": FREE2, "GDT": GDT, "LDT": LDT, "IDT": IDT,
    "TSS": TSS, "TSS_SELECTOR": TSS_SELECTOR, "LDT_SELECTOR": LDT_SELECTOR,
    **{f"CODE{n}": CODE_OF[n] for n in range(4)}, **{f"DATA{n}": DATA_OF[n] for n in range(4)},
}  # fmt: skip
