"""Delivery through the IDT: gates, stacks, frames, error codes, double and triple faults."""

from __future__ import annotations

import pytest

from emulator.core import EventKind, ExitReason, TraceKind, Unsupported, lib
from tests.core.lab import (
    BP,
    BR,
    CODE,
    CODE_OF,
    CONFORMING,
    DATA,
    DATA_OF,
    DE,
    DF,
    FLAG,
    FREE,
    FREE2,
    GDT_ENTRIES,
    GP,
    IDT,
    NP,
    OF,
    PF,
    READABLE,
    SS,
    STACK,
    STACKS,
    STUBS,
    TS,
    TSS,
    TSS_SELECTOR,
    UD,
    WRITABLE,
    Lab,
    descriptor,
    dpl,
    gate,
)

BEYOND = GDT_ENTRIES * 8
IF = FLAG["if"]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def stub(vector: int) -> int:
    return STUBS + vector * 16


def intercept(lab: Lab, *vectors: int) -> None:
    for vector in vectors:
        lab.state.intercepts.vectors[vector // 8] |= 1 << vector % 8


# -- Frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "vector", "error", "eip", "rf"),
    [
        ("xor ecx, ecx\ndiv ecx", DE, None, 2, True),
        ("int3", BP, None, 1, False),
        ("int 0x33", 0x33, None, 2, False),
        ("mov al, 0x7F\ninc al\ninto", OF, None, 5, False),
        ("bound eax, [DATA]", BR, None, 0, True),
        ("ud2", UD, None, 0, True),
        ("mov eax, 0x77\nmov ds, ax", GP, 0x74, 5, True),
    ],
)
def test_frame(lab: Lab, source: str, vector: int, error: int | None, eip: int, rf: bool) -> None:
    lab.put32(DATA, 1, 2)
    lab.cpu["eflags"] = IF | FLAG["df"] | 2
    outcome = lab.run(source)
    assert outcome.fault == (vector, error)
    frame = outcome.frame
    assert frame is not None
    assert (frame.eip - CODE, frame.cs) == (eip, CODE_OF[0])
    assert bool(frame.eflags & FLAG["rf"]) is rf
    assert frame.eflags & (IF | FLAG["df"]) == IF | FLAG["df"]
    assert lab.cpu["esp"] == STACK - 12 - (0 if error is None else 4)
    assert lab.cpu["eflags"] & (IF | FLAG["rf"] | FLAG["tf"] | FLAG["nt"]) == 0
    assert lab.cpu["eflags"] & FLAG["df"]  # delivery leaves it


def test_into_without_overflow_goes_on(lab: Lab) -> None:
    assert lab.run("xor eax, eax\ninto\nhlt").vector is None


@pytest.mark.parametrize("index", [-3, -2, 0, 5, 6])
def test_bound_is_signed(lab: Lab, index: int) -> None:
    lab.put32(DATA, -2 & 0xFFFFFFFF, 5)
    outcome = lab.run(f"mov eax, {index}\nbound eax, [DATA]\nhlt")
    assert outcome.vector == (None if -2 <= index <= 5 else BR)


def test_arithmetic_flags_in_the_frame_are_exact(lab: Lab) -> None:
    outcome = lab.run("mov al, 0x80\nadd al, 0x80\nud2")
    assert outcome.frame is not None
    assert (
        outcome.frame.eflags == FLAG["of"] | FLAG["zf"] | FLAG["pf"] | FLAG["cf"] | FLAG["rf"] | 2
    )


@pytest.mark.parametrize(("kind", "flag"), [(0xE, 0), (0xF, IF)])
def test_interrupt_gates_clear_if_and_trap_gates_do_not(lab: Lab, kind: int, flag: int) -> None:
    lab.set_idt(0x33, gate(CODE_OF[0], stub(0x33), kind))
    lab.cpu["eflags"] = IF | FLAG["nt"] | 2
    outcome = lab.run("int 0x33")
    assert lab.cpu["eflags"] & (IF | FLAG["nt"]) == flag
    assert outcome.frame is not None
    assert outcome.frame.eflags == IF | FLAG["nt"] | 2


@pytest.mark.parametrize("level", [1, 2, 3])
def test_stack_of_ring_0(lab: Lab, level: int) -> None:
    lab.ring(level)
    outcome = lab.run("mov eax, 0x77\nmov ds, ax")
    assert outcome.fault == (GP, 0x74)
    frame = outcome.frame
    assert frame is not None
    assert (frame.esp, frame.ss, frame.cs) == (
        STACK,
        DATA_OF[level] | level,
        CODE_OF[level] | level,
    )
    registers = lab.cpu.registers
    assert (registers.esp, registers.ss, registers.cs) == (STACKS[0] - 24, DATA_OF[0], CODE_OF[0])
    assert registers.ds == DATA_OF[level] | level  # delivery leaves data segments
    assert lab.state.cpl == 0
    assert lab.access(DATA_OF[0]) & 1  # marked accessed
    assert lab.access(CODE_OF[0]) & 1


def test_from_ring_3_to_ring_1(lab: Lab) -> None:
    lab.set_idt(0x80, gate(CODE_OF[1], 0x4800, 0xE, 3))
    lab.ring(3)
    outcome = lab.run("int 0x80")  # the stub's HLT is privileged there
    assert outcome.fault == (GP, 0)
    frame = outcome.frame
    assert frame is not None
    assert (frame.eip, frame.cs, frame.ss) == (0x4800, CODE_OF[1] | 1, DATA_OF[1] | 1)
    assert frame.esp == STACKS[1] - 20
    assert [lab.get32(STACKS[1] - 20 + 4 * i) for i in range(5)] == [
        CODE + 2, CODE_OF[3] | 3, 2, STACK, DATA_OF[3] | 3,
    ]  # fmt: skip


def test_conforming_handler_stays_in_its_ring(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(access=dpl(CONFORMING, 0)))
    lab.memory.write(DATA, b"\x0f\x0b")
    lab.set_idt(0x80, gate(FREE, DATA, 0xE, 3))
    lab.ring(3)
    outcome = lab.run("int 0x80")
    assert outcome.vector == UD
    assert outcome.frame is not None
    assert (outcome.frame.eip, outcome.frame.cs) == (DATA, FREE | 3)
    assert outcome.frame.esp == STACK - 12


# -- What may be wrong with a gate ----------------------------------------------------------------

V = 0x33
IDT_ERROR = V * 8 + 2


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (0, (GP, IDT_ERROR)),
        (gate(CODE_OF[0], 0, 0xC), (GP, IDT_ERROR)),
        (descriptor(access=READABLE), (GP, IDT_ERROR)),
        (gate(CODE_OF[0], 0, 0xE, present=False), (NP, IDT_ERROR)),
        (gate(TSS_SELECTOR, 0, 5, present=False), (NP, IDT_ERROR)),
        (gate(0, 0, 0xE), (GP, 0)),
        (gate(BEYOND, 0, 0xE), (GP, BEYOND)),
        (gate(DATA_OF[0], 0, 0xE), (GP, DATA_OF[0])),
        (gate(CODE_OF[3], 0, 0xE), (GP, CODE_OF[3])),  # less privileged
        (gate(FREE, 0, 0xE), (NP, FREE)),
        (gate(FREE2, 0x10000, 0xE), (GP, 0)),
    ],
)
@pytest.mark.parametrize("external", [False, True])
def test_gate(lab: Lab, entry: int, expected: tuple[int, int], external: bool) -> None:
    lab.set_idt(V, entry)
    lab.set_gdt(FREE, descriptor(access=0x1A))
    lab.set_gdt(FREE2, descriptor(0, 0xFFFF, READABLE))
    lab.load(f"int {V}")
    if external:
        assert lab.cpu.interrupt(V) == 0
        outcome = lab.go()
    else:
        outcome = lab.go()
    vector, error = expected
    assert outcome.fault == (vector, error | external)
    assert outcome.frame is not None
    assert outcome.frame.eip == CODE
    assert bool(outcome.frame.eflags & FLAG["rf"])


def test_idt_limit(lab: Lab) -> None:
    lab.state.idtr.limit = 0x40 * 8 - 1
    assert lab.run("int 0x40").fault == (GP, 0x40 * 8 + 2)
    lab.state.idtr.limit = 0x40 * 8 + 6
    assert lab.run("int 0x40").fault == (GP, 0x40 * 8 + 2)
    lab.state.idtr.limit = 0x40 * 8 + 7
    assert lab.run("int 0x40").vector == 0x40


@pytest.mark.parametrize(("level", "allowed"), [(0, False), (2, False), (3, True)])
def test_dpl_of_the_gate_binds_software_only(lab: Lab, level: int, allowed: bool) -> None:
    for vector in (V, BP, OF):
        lab.set_idt(vector, gate(CODE_OF[0], stub(vector), 0xE, level))
    lab.ring(3)
    for source, vector in ((f"int {V}", V), ("int3", BP), ("mov al, 0x7F\ninc al\ninto", OF)):
        outcome = lab.run(source)
        assert outcome.fault == ((vector, None) if allowed else (GP, vector * 8 + 2))
        lab.ring(3)
    assert lab.run("ud2").vector == UD  # whose gate has DPL 0


@pytest.mark.parametrize(
    ("entry", "detail"),
    [
        (gate(TSS_SELECTOR, 0, 5), Unsupported.TASK_GATE),
        (gate(CODE_OF[0], 0, 6), Unsupported.CODE16),
        (gate(CODE_OF[0], 0, 7), Unsupported.CODE16),
        (gate(FREE, 0, 0xE), Unsupported.CODE16),
    ],
)
def test_unsupported(lab: Lab, entry: int, detail: object) -> None:
    lab.set_gdt(FREE, descriptor(access=READABLE, big=False))
    lab.set_idt(V, entry)
    lab.load(f"nop\nint {V}")
    before = lab.snapshot()[1]
    assert lab.go().reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == detail
    assert lab.snapshot()[1] == before
    assert lab.cpu["eip"] == CODE + 1
    lab.set_idt(V, gate(CODE_OF[0], stub(V), 0xE))
    assert lab.go().vector == V


@pytest.mark.parametrize(
    ("ss", "access", "limit", "expected"),
    [
        (0, WRITABLE, 0xFFFFFFFF, (TS, 0)),
        (FREE | 3, WRITABLE, 0xFFFFFFFF, (TS, FREE)),
        (FREE, dpl(WRITABLE, 3), 0xFFFFFFFF, (TS, FREE)),
        (FREE, 0x90, 0xFFFFFFFF, (TS, FREE)),
        (FREE, 0x12, 0xFFFFFFFF, (SS, FREE)),
        (BEYOND, WRITABLE, 0xFFFFFFFF, (TS, BEYOND)),
        (FREE, WRITABLE, STACKS[0] - 2, (SS, FREE)),
    ],
)
@pytest.mark.parametrize("external", [False, True])
def test_stack_of_the_tss(
    lab: Lab, ss: int, access: int, limit: int, expected: tuple[int, int], external: bool
) -> None:
    lab.set_gdt(FREE, descriptor(0, limit, access, pages=limit > 0xFFFFF))
    lab.put32(TSS + 8, ss)
    lab.ring(3)
    intercept(lab, TS, SS)
    lab.load("int 0x80")
    before = lab.snapshot()
    if external:
        assert lab.cpu.interrupt(V) == ExitReason.EVENT
    else:
        assert lab.go().reason == ExitReason.EVENT
    vector, error = expected
    assert (lab.cpu.exit.vector, lab.cpu.exit.error) == (vector, error | external)
    assert lab.snapshot() == before


# -- External interrupts --------------------------------------------------------------------------


def test_external_interrupt(lab: Lab) -> None:
    lab.cpu["eflags"] = IF | FLAG["cf"] | 2
    lab.load("nop")
    assert lab.cpu.interrupt(0x20) == 0
    assert lab.cpu["eip"] == stub(0x20)
    outcome = lab.go()
    assert outcome.vector == 0x20
    assert outcome.frame is not None
    assert (outcome.frame.eip, outcome.frame.eflags) == (CODE, IF | FLAG["cf"] | 2)
    assert lab.state.tick == 1  # delivery is no instruction


def test_an_interrupt_on_an_exception_vector_pushes_no_error_code(lab: Lab) -> None:
    lab.load("nop")
    assert lab.cpu.interrupt(DF) == 0
    assert lab.cpu["esp"] == STACK - 12


# -- Double and triple faults --------------------------------------------------------------------


def test_serial_faults(lab: Lab) -> None:
    lab.set_idt(UD, 0)  # benign: the #GP that its delivery raises is delivered
    outcome = lab.run("ud2")
    assert outcome.fault == (GP, UD * 8 + 3)
    assert outcome.frame is not None
    assert outcome.frame.eip == CODE


@pytest.mark.parametrize("first", ["mov eax, 0x77\nmov ds, ax", "xor ecx, ecx\ndiv ecx"])
def test_two_contributory_faults_are_a_double_fault(lab: Lab, first: str) -> None:
    lab.set_idt(GP, 0)
    lab.set_idt(DE, gate(CODE_OF[0], 0, 0xE, present=False))
    lab.set_idt(NP, gate(CODE_OF[0], 0, 0xE, present=False))
    outcome = lab.run(first)
    assert outcome.fault == (DF, 0)
    assert outcome.frame is not None
    assert not outcome.frame.eflags & FLAG["rf"]


def test_software_interrupts_do_not_contribute(lab: Lab) -> None:
    lab.set_idt(GP, gate(CODE_OF[0], 0, 0xE, present=False))
    assert lab.run(f"int {GP}").fault == (NP, GP * 8 + 2)
    lab.load("nop")
    assert lab.cpu.interrupt(GP) == 0  # nor do external ones
    assert lab.go().fault == (NP, GP * 8 + 3)


def test_triple_fault(lab: Lab) -> None:
    lab.set_idt(GP, 0)
    lab.set_idt(DF, gate(CODE_OF[0], 0, 0xE, present=False))
    lab.load("mov eax, 0x77\nmov ds, ax")
    assert lab.go().reason == ExitReason.SHUTDOWN
    assert [(f.vector, f.error, f.eip) for f in lab.cpu.faults] == [
        (GP, 0x74, CODE + 5), (GP, GP * 8 + 3, CODE + 5), (NP, DF * 8 + 3, CODE + 5),
    ]  # fmt: skip
    assert lab.cpu.exit.eip == CODE + 5
    assert lab.cpu["esp"] == STACK
    lab.set_idt(GP, gate(CODE_OF[0], stub(GP), 0xE))  # as a debugger might: no trace of it is left
    assert lab.go().fault == (GP, 0x74)


def test_empty_idt_shuts_down(lab: Lab) -> None:
    lab.state.idtr.limit = 0
    assert lab.run("ud2").reason == ExitReason.SHUTDOWN
    # #UD, its #GP, that one's #GP (now a double fault), and the last; the second gives way.
    assert [f.vector for f in lab.cpu.faults] == [UD, GP, GP]


def paged(lab: Lab) -> None:
    """Identity pages for all memory; the tables lie at 0x300000."""
    directory, table = 0x300000, 0x301000
    lab.put32(directory, table | 7)
    for page in range(1024):
        lab.put32(table + page * 4, page << 12 | 7)
    lab.cpu["cr3"] = directory
    lab.cpu["cr0"] |= 0x80000000


def unmap(lab: Lab, page: int) -> None:
    lab.put32(0x301000 + page * 4, 0)
    lib.cpu_flush_tlb(lab.cpu.pointer)


def test_page_fault_while_a_page_fault_is_delivered(lab: Lab) -> None:
    paged(lab)
    unmap(lab, (STACK - 4) >> 12)
    unmap(lab, DATA >> 12)
    lab.put32(TSS + 4, STACKS[0])
    assert lab.run("mov eax, [DATA]").reason == ExitReason.SHUTDOWN
    assert [(f.vector, f.error) for f in lab.cpu.faults] == [(PF, 0), (PF, 2), (PF, 2)]
    assert lab.cpu["cr2"] == STACK - 4  # of the first push


def test_page_fault_while_a_contributory_fault_is_delivered_is_serial(lab: Lab) -> None:
    paged(lab)
    lab.ring(3)
    lab.put32(TSS + 4, STACKS[1])
    unmap(lab, (STACKS[1] - 4) >> 12)
    intercept(lab, PF)
    assert lab.run("mov eax, 0x77\nmov ds, ax").reason == ExitReason.EVENT
    assert (lab.cpu.exit.vector, lab.cpu.exit.error) == (PF, 2)
    assert lab.cpu.exit.linear & ~0xFFF == STACKS[1] - 0x1000
    assert lab.cpu["cr2"] == 0


def test_fault_on_the_idt_page(lab: Lab) -> None:
    paged(lab)
    unmap(lab, IDT >> 12)
    assert lab.run("ud2").reason == ExitReason.SHUTDOWN
    assert lab.cpu["cr2"] == IDT + DF * 8


def test_restart_after_a_page_fault_on_the_kernel_stack(lab: Lab) -> None:
    """A delivery that faults half-way has pushed nothing and changed nothing."""
    paged(lab)
    lab.ring(3)
    lab.put32(TSS + 4, STACKS[1] + 8)  # the frame crosses into an unmapped page
    lab.put32(STACKS[1], 0x11111111, 0x22222222)
    unmap(lab, (STACKS[1] - 4) >> 12)
    intercept(lab, PF)
    lab.load("int 0x80")
    before = lab.snapshot()
    assert lab.go().reason == ExitReason.EVENT
    assert lab.snapshot() == before
    assert (lab.get32(STACKS[1]), lab.get32(STACKS[1] + 4)) == (0x11111111, 0x22222222)
    lab.put32(0x301000 + ((STACKS[1] - 4) >> 12) * 4, STACKS[1] - 0x1000 | 7)
    assert lab.go().vector == 0x80
    assert lab.get32(STACKS[1] + 4) == DATA_OF[3] | 3


def test_an_endless_chain_of_faults_ends(lab: Lab) -> None:
    """A #UD whose handler is a #UD: ESP runs down to the limit of the stack."""
    lab.set_gdt(FREE, descriptor(0, 0xFFFF, 0x96))  # expand-down: offsets from 0x10000 up
    lab.set_segment("ss", FREE)
    lab.cpu["esp"] = 0x10400
    lab.memory.write(DATA, b"\x0f\x0b")
    lab.set_idt(UD, gate(CODE_OF[0], DATA, 0xE))
    assert lab.run("ud2").reason == ExitReason.SHUTDOWN
    assert [f.vector for f in lab.cpu.faults] == [UD, SS, SS]
    assert lab.state.tick == 0


def test_a_chain_of_faults_without_end_is_stopped(lab: Lab) -> None:
    """The same on a 16-bit stack, which wraps around: no tick would ever end it."""
    lab.set_gdt(FREE, descriptor(0x50000, 0xFFFF, WRITABLE, big=False))
    lab.set_segment("ss", FREE)
    lab.cpu["esp"] = 0
    lab.memory.write(DATA, b"\x0f\x0b")
    lab.set_idt(UD, gate(CODE_OF[0], DATA, 0xE))
    assert lab.run("ud2").reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == Unsupported.FAULT_LOOP
    assert lab.state.tick == 0


# -- Interception ---------------------------------------------------------------------------------


def test_intercepted_fault(lab: Lab) -> None:
    intercept(lab, GP)
    lab.load("nop\nmov eax, [cs:0]\nmov ds, [DATA]")
    lab.put32(DATA, 0x77)
    before_esp = lab.cpu["esp"]
    assert lab.go().reason == ExitReason.EVENT
    record = lab.cpu.exit
    assert (record.vector, record.error, record.has_error, record.kind) == (
        GP, 0x74, 1, EventKind.EXCEPTION,
    )  # fmt: skip
    assert (record.eip, record.length) == (CODE + 7, 6)
    assert lab.cpu["eip"] == CODE + 7
    assert lab.cpu["esp"] == before_esp
    assert lab.state.tick == 2


def test_intercepted_software_interrupt(lab: Lab) -> None:
    intercept(lab, 0x80, BP)
    assert lab.run("nop\nint 0x80").reason == ExitReason.EVENT
    record = lab.cpu.exit
    assert (record.vector, record.has_error, record.kind, record.length) == (
        0x80, 0, EventKind.SOFTWARE, 2,
    )  # fmt: skip
    assert lab.cpu["eip"] == CODE + 1
    assert lab.state.tick == 1
    assert lab.run("int3").reason == ExitReason.EVENT
    assert (lab.cpu.exit.vector, lab.cpu.exit.length) == (BP, 1)


def test_inject_delivers_what_is_intercepted(lab: Lab) -> None:
    intercept(lab, GP)
    lab.load("nop")
    assert lib.cpu_inject(lab.cpu.pointer, GP, EventKind.EXCEPTION, 1, 0x1234) == 0
    outcome = lab.go()
    assert outcome.fault == (GP, 0x1234)
    assert outcome.frame is not None
    assert outcome.frame.eflags & FLAG["rf"]
    assert outcome.frame.eip == CODE


def test_trace_of_events(lab: Lab) -> None:
    lab.state.trace = TraceKind.EVENT
    lab.ring(3)
    lab.run("nop\nint 0x80")
    (record,) = lab.cpu.take_trace()
    assert (record.kind, record.vector, record.event_kind, record.has_error) == (
        TraceKind.EVENT, 0x80, EventKind.SOFTWARE, 0,
    )  # fmt: skip
    assert (record.tick, record.eip, record.cs, record.esp) == (1, CODE + 3, CODE_OF[3] | 3, STACK)


def test_ticks_at_ring_0_are_counted(lab: Lab) -> None:
    lab.memory.write(DATA, b"\x90\x90\xcf")
    lab.set_idt(0x80, gate(CODE_OF[0], DATA, 0xE, 3))
    lab.ring(3)
    assert lab.run("nop\nint 0x80\nnop\nnop\nud2").vector == UD
    # In ring 3: nop, int, nop, nop. In ring 0: nop, nop, iret, and the stub's hlt.
    assert lab.state.tick == 8
    assert lab.state.retired_cpl0 == 4
