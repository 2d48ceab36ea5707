"""Far jumps, calls and returns, call gates, IRET: targets, stacks, exact faults, by the SDM."""

from __future__ import annotations

import pytest

from emulator.core import ExitReason, Unsupported
from tests.core.lab import (
    CODE,
    CODE_OF,
    CONFORMING,
    DATA,
    DATA_OF,
    EXECUTE_ONLY,
    FREE,
    FREE2,
    GDT_ENTRIES,
    GP,
    LDT_SELECTOR,
    NP,
    READABLE,
    SS,
    STACK,
    STACKS,
    TARGET,
    TS,
    TSS,
    TSS_SELECTOR,
    WRITABLE,
    Lab,
    arrived,
    descriptor,
    dpl,
    faults_cleanly,
    gate,
)

BEYOND = GDT_ENTRIES * 8


@pytest.fixture
def lab() -> Lab:
    lab = Lab()
    lab.memory.write(TARGET, b"\xcd\x80")
    return lab


DIRECT_CASES = [
    # access byte, RPL, CPL, fault or None
    (dpl(READABLE, 0), 0, 0, None),
    (dpl(EXECUTE_ONLY, 0), 0, 0, None),
    (dpl(READABLE, 3), 3, 3, None),
    (dpl(READABLE, 3), 0, 3, None),
    (dpl(READABLE, 0), 1, 0, GP),  # RPL above CPL
    (dpl(READABLE, 0), 0, 3, GP),
    (dpl(READABLE, 3), 3, 0, GP),  # outwards only by a return
    (dpl(CONFORMING, 0), 0, 3, None),
    (dpl(CONFORMING, 0), 3, 1, None),
    (dpl(CONFORMING, 3), 3, 1, GP),
    (dpl(WRITABLE, 0), 0, 0, GP),
    (0x1A, 0, 0, NP),
    (0x80, 0, 0, GP),  # reserved system types
    (0x8E, 0, 0, GP),
    (0x82, 0, 0, GP),
]


@pytest.mark.parametrize("how", ["jmp", "call"])
@pytest.mark.parametrize(("access", "rpl", "cpl", "expected"), DIRECT_CASES)
def test_direct(lab: Lab, how: str, access: int, rpl: int, cpl: int, expected: int | None) -> None:
    lab.set_gdt(FREE, descriptor(access=access))
    lab.ring(cpl)
    source = f"{how} {FREE | rpl}:{TARGET}"
    if expected is not None:
        assert faults_cleanly(lab, source) == (expected, FREE)
        assert lab.access(FREE) == access
        return
    outcome = lab.run(source)
    assert arrived(outcome)
    assert outcome.frame is not None
    assert outcome.frame.cs == FREE | cpl
    assert lab.access(FREE) == access | 1
    if how == "call":
        stack = outcome.frame.esp if outcome.frame.esp is not None else lab.cpu["esp"] + 12
        assert stack == STACK - 8
        assert lab.get32(STACK - 4) == CODE_OF[cpl] | cpl
        assert lab.get32(STACK - 8) == CODE + 7


@pytest.mark.parametrize("how", ["jmp", "call"])
def test_target_selector_and_offset(lab: Lab, how: str) -> None:
    assert faults_cleanly(lab, f"{how} 0:{TARGET}") == (GP, 0)
    assert faults_cleanly(lab, f"{how} 3:{TARGET}") == (GP, 0)
    assert faults_cleanly(lab, f"{how} {BEYOND}:{TARGET}") == (GP, BEYOND)
    lab.set_gdt(FREE, descriptor(0, 0xFFFF, READABLE))
    assert faults_cleanly(lab, f"{how} {FREE}:0x10000") == (GP, 0)
    assert lab.access(FREE) == READABLE


@pytest.mark.parametrize("how", ["jmp", "call"])
def test_memory_operand(lab: Lab, how: str) -> None:
    lab.put32(DATA, TARGET, CODE_OF[0])
    assert arrived(lab.run(f"{how} far [DATA]"))
    lab.put32(DATA + 8, 0x2000 | CODE_OF[0] << 16)
    lab.memory.write(0x2000 - 0x2000 + 0xB000, b"\xf4")
    lab.put32(DATA + 8, 0xB000 | CODE_OF[0] << 16)
    assert lab.run(f"{how} far word [DATA+8]").reason == ExitReason.HALT
    assert lab.cpu["eip"] == 0xB001


def test_call_of_16_bits_pushes_words(lab: Lab) -> None:
    lab.memory.write(0xB000, b"\xf4")
    lab.run(f"o16 call {CODE_OF[0]}:0xB000\n")
    assert lab.cpu["eip"] == 0xB001
    assert lab.cpu["esp"] == STACK - 4
    assert lab.get32(STACK - 4) == CODE_OF[0] << 16 | (CODE + 6) & 0xFFFF


def test_call_without_room(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(0, STACK - 1, WRITABLE))
    lab.set_gdt(FREE2, descriptor(0, 0x1000, WRITABLE))
    lab.set_segment("ss", FREE)
    lab.cpu["esp"] = STACK + 8
    # The fault's own frame does not fit either: a double fault, then shutdown.
    assert lab.run(f"call {CODE_OF[0]}:{TARGET}").reason == ExitReason.SHUTDOWN
    assert [(f.vector, f.error, f.eip) for f in lab.cpu.faults] == [
        (SS, 0, CODE), (SS, 1, CODE), (SS, 1, CODE),
    ]  # fmt: skip


# -- Unsupported kinds ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["jmp", "call"])
@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (descriptor(TSS, 0x67, 0x89, big=False), Unsupported.TASK_SWITCH),
        (gate(TSS_SELECTOR, 0, 5), Unsupported.TASK_GATE),
        (gate(CODE_OF[0], TARGET, 4), Unsupported.CODE16),
        (descriptor(access=READABLE, big=False), Unsupported.CODE16),
    ],
)
def test_unsupported(lab: Lab, how: str, value: int, detail: object) -> None:
    lab.set_gdt(FREE, value)
    lab.load(f"{how} FREE:{TARGET}")
    before = lab.snapshot()
    assert lab.go().reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == detail
    assert lab.snapshot() == before


@pytest.mark.parametrize("how", ["jmp", "call"])
def test_busy_tss_faults(lab: Lab, how: str) -> None:
    assert faults_cleanly(lab, f"{how} TSS_SELECTOR:0") == (GP, TSS_SELECTOR)
    assert faults_cleanly(lab, f"{how} LDT_SELECTOR:0") == (GP, LDT_SELECTOR)


# -- Call gates -----------------------------------------------------------------------------------

GATE_CASES = [
    # gate DPL, gate RPL, CPL, code access, jmp's fault, call's fault: vector and selector
    (0, 0, 0, dpl(READABLE, 0), None, None),
    (3, 3, 3, dpl(READABLE, 3), None, None),
    (3, 0, 3, dpl(CONFORMING, 0), None, None),
    (3, 3, 3, dpl(READABLE, 0), (GP, FREE2), None),
    (2, 0, 3, dpl(READABLE, 3), (GP, FREE), (GP, FREE)),
    (0, 1, 0, dpl(READABLE, 0), (GP, FREE), (GP, FREE)),
    (3, 3, 0, dpl(READABLE, 3), (GP, FREE2), (GP, FREE2)),  # code less privileged
    (3, 3, 3, dpl(WRITABLE, 3), (GP, FREE2), (GP, FREE2)),
    (3, 3, 3, dpl(0x1A, 3), (NP, FREE2), (NP, FREE2)),
]


@pytest.mark.parametrize("how", ["jmp", "call"])
@pytest.mark.parametrize(("level", "rpl", "cpl", "access", "jmp", "call"), GATE_CASES)
def test_gate(
    lab: Lab,
    how: str,
    level: int,
    rpl: int,
    cpl: int,
    access: int,
    jmp: tuple[int, int] | None,
    call: tuple[int, int] | None,
) -> None:
    lab.set_gdt(FREE, gate(FREE2, TARGET, 0xC, level))
    lab.set_gdt(FREE2, descriptor(access=access))
    lab.ring(cpl)
    source, expected = f"{how} {FREE | rpl}:0x1234", jmp if how == "jmp" else call
    if expected is not None:
        assert faults_cleanly(lab, source) == expected
    else:
        assert arrived(lab.run(source))


def test_gate_without_target(lab: Lab) -> None:
    lab.set_gdt(FREE, gate(0, TARGET, 0xC))
    assert faults_cleanly(lab, "call FREE:0") == (GP, 0)
    lab.set_gdt(FREE, gate(BEYOND, TARGET, 0xC))
    assert faults_cleanly(lab, "call FREE:0") == (GP, BEYOND)
    lab.set_gdt(FREE, gate(CODE_OF[0], TARGET, 0xC, present=False))
    assert faults_cleanly(lab, "call FREE:0") == (NP, FREE)
    lab.set_gdt(FREE2, descriptor(0, 0xFFFF, READABLE))
    lab.set_gdt(FREE, gate(FREE2, 0x10000, 0xC))
    assert faults_cleanly(lab, "call FREE:0") == (GP, 0)


@pytest.mark.parametrize("inner", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 31])
def test_gate_to_inner_ring_copies_parameters(lab: Lab, inner: int, count: int) -> None:
    lab.set_gdt(FREE, gate(CODE_OF[inner], TARGET, 0xC, 3, count))
    lab.set_idt(0x80, gate(CODE_OF[inner], 0x4800, 0xE, 3))
    lab.ring(3)
    parameters = [0x1000 + i for i in range(count)]
    lab.put32(STACK - 0x100, *parameters)
    lab.cpu["esp"] = STACK - 0x100
    lab.memory.write(TARGET, b"\xf4")  # privileged: #GP from an inner ring, HLT from ring 0
    length = lab.load("call FREE+3:0")
    outcome = lab.go()
    top = STACKS[inner]
    if inner == 0:
        assert outcome.vector is None
        assert (lab.cpu["cs"], lab.cpu["ss"]) == (CODE_OF[0], DATA_OF[0])
        esp = lab.cpu["esp"]
    else:
        assert outcome.frame is not None
        assert outcome.fault == (GP, 0)
        assert (outcome.frame.cs, outcome.frame.ss) == (
            CODE_OF[inner] | inner,
            DATA_OF[inner] | inner,
        )
        assert outcome.frame.esp is not None
        esp = outcome.frame.esp
    assert esp == top - 16 - 4 * count
    words = [lab.get32(esp + 4 * i) for i in range(count + 4)]
    assert words == [
        CODE + length, CODE_OF[3] | 3, *parameters, STACK - 0x100, DATA_OF[3] | 3,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ss", "access", "limit", "expected"),
    [
        (0, WRITABLE, 0xFFFFFFFF, (TS, 0)),
        (FREE2, dpl(WRITABLE, 1), 0xFFFFFFFF, (TS, FREE2)),
        (FREE2 | 1, WRITABLE, 0xFFFFFFFF, (TS, FREE2)),
        (FREE2, 0x90, 0xFFFFFFFF, (TS, FREE2)),
        (FREE2, READABLE, 0xFFFFFFFF, (TS, FREE2)),
        (FREE2, 0x12, 0xFFFFFFFF, (SS, FREE2)),
        (FREE2, WRITABLE, STACKS[0] - 2, (SS, FREE2)),
        (BEYOND, WRITABLE, 0xFFFFFFFF, (TS, BEYOND)),
        (FREE2, WRITABLE, STACKS[0] - 1, None),
    ],
)
def test_stack_of_the_tss(
    lab: Lab, ss: int, access: int, limit: int, expected: tuple[int, int] | None
) -> None:
    """To ring 0 by a gate whose events have a stack of their own: the fault handler runs in ring 0
    too, so its stack must stay good; only the level under test is changed."""
    lab.set_gdt(FREE2, descriptor(0, limit, access, pages=limit > 0xFFFFF))
    lab.set_gdt(FREE, gate(CODE_OF[0], TARGET, 0xC, 3))
    lab.put32(TSS + 8, ss)
    lab.ring(3)
    lab.cpu.state.intercepts.vectors[TS // 8] |= 1 << TS % 8
    lab.cpu.state.intercepts.vectors[SS // 8] |= 1 << SS % 8
    lab.memory.write(TARGET, b"\xf4")
    lab.load("call FREE+3:0")
    before = lab.snapshot()
    outcome = lab.go()
    if expected is None:
        assert outcome.reason == ExitReason.HALT
        assert lab.cpu["esp"] == STACKS[0] - 16
        return
    assert outcome.reason == ExitReason.EVENT
    assert (lab.cpu.exit.vector, lab.cpu.exit.error) == expected
    assert lab.snapshot() == before
    assert lab.cpu.exit.length == 7


@pytest.mark.parametrize(("limit", "faults"), [(8, True), (9, False)])
def test_limit_of_the_tss(lab: Lab, limit: int, faults: bool) -> None:
    lab.set_gdt(FREE, gate(CODE_OF[0], TARGET, 0xC, 3))
    lab.ring(3)
    lab.state.tr.limit = limit
    lab.cpu.state.intercepts.vectors[TS // 8] |= 1 << TS % 8
    lab.memory.write(TARGET, b"\xf4")
    outcome = lab.run("call FREE+3:0")
    assert outcome.reason == (ExitReason.EVENT if faults else ExitReason.HALT)
    if faults:
        assert (lab.cpu.exit.vector, lab.cpu.exit.error) == (TS, TSS_SELECTOR)


# -- RETF -----------------------------------------------------------------------------------------


def test_return_to_the_same_ring(lab: Lab) -> None:
    outcome = lab.run(f"push dword 0x55\npush dword {CODE_OF[0]}\npush dword {TARGET}\nretf 4")
    assert arrived(outcome)
    assert lab.cpu["esp"] == STACK - 12


def test_return_of_16_bits(lab: Lab) -> None:
    lab.memory.write(0xB000, b"\xf4")
    lab.run(f"push word {CODE_OF[0]}\npush word 0xB000\no16 retf")
    assert lab.cpu["eip"] == 0xB001
    assert lab.cpu["esp"] == STACK


RETURN_CASES = [
    # access of CS, its RPL, CPL, fault
    (dpl(READABLE, 0), 0, 1, GP),  # inwards
    (dpl(READABLE, 3), 2, 0, GP),  # DPL is not RPL
    (dpl(READABLE, 2), 3, 0, GP),
    (dpl(CONFORMING, 3), 2, 0, GP),
    (dpl(WRITABLE, 0), 0, 0, GP),
    (dpl(0x1A, 0), 0, 0, NP),
    (0x89, 0, 0, GP),
]


@pytest.mark.parametrize("how", ["retf", "iret"])
@pytest.mark.parametrize(("access", "rpl", "cpl", "expected"), RETURN_CASES)
def test_return_checks(lab: Lab, how: str, access: int, rpl: int, cpl: int, expected: int) -> None:
    lab.set_gdt(FREE, descriptor(access=access))
    lab.ring(cpl)
    lab.cpu["esp"] = STACK - 0x40
    lab.put32(STACK - 0x40, TARGET, FREE | rpl, 0x202, STACK, DATA_OF[3] | 3)
    assert faults_cleanly(lab, how) == (expected, FREE)


@pytest.mark.parametrize("how", ["retf", "iret"])
@pytest.mark.parametrize(
    ("cs", "ss", "access", "expected"),
    [
        (0, 0, 0, (GP, 0)),
        (BEYOND, 0, 0, (GP, BEYOND)),
        (CODE_OF[3] | 3, 0, 0, (GP, 0)),
        (CODE_OF[3] | 3, BEYOND | 3, 0, (GP, BEYOND)),
        (CODE_OF[3] | 3, FREE | 2, dpl(WRITABLE, 3), (GP, FREE)),
        (CODE_OF[3] | 3, FREE | 3, dpl(WRITABLE, 2), (GP, FREE)),
        (CODE_OF[3] | 3, FREE | 3, dpl(0x90, 3), (GP, FREE)),
        (CODE_OF[3] | 3, FREE | 3, dpl(0x12, 3), (SS, FREE)),
    ],
)
def test_return_selectors(
    lab: Lab, how: str, cs: int, ss: int, access: int, expected: tuple[int, int]
) -> None:
    lab.set_gdt(FREE, descriptor(access=access))
    lab.cpu["esp"] = STACK - 0x40
    flags = [0x202] if how == "iret" else []
    lab.put32(STACK - 0x40, TARGET, cs, *flags, STACK, ss)
    assert faults_cleanly(lab, how) == expected


@pytest.mark.parametrize("release", [0, 8])
def test_return_to_an_outer_ring(lab: Lab, release: int) -> None:
    lab.set_segment("es", CODE_OF[0])  # dropped
    lab.set_gdt(FREE, descriptor(access=dpl(CONFORMING, 0)))
    lab.set_segment("fs", FREE)  # conforming: stays
    lab.set_segment("gs", DATA_OF[3])  # stays
    lab.state.seg[3].selector, lab.state.seg[3].attributes = 3, 0x10000  # a null selector
    lab.put32(STACK - 0x40, TARGET, CODE_OF[3] | 3, *[0] * (release // 4), 0x60000, DATA_OF[3] | 3)
    lab.cpu["esp"] = STACK - 0x40
    outcome = lab.run(f"retf {release}")
    assert arrived(outcome)
    assert outcome.frame is not None
    assert (outcome.frame.cs, outcome.frame.ss) == (CODE_OF[3] | 3, DATA_OF[3] | 3)
    assert outcome.frame.esp == 0x60000 + release
    registers = lab.cpu.registers
    assert (registers.es, registers.fs, registers.gs, registers.ds) == (0, FREE, DATA_OF[3], 0)
    assert lab.state.seg[0].attributes & 0x10000


def test_return_limit(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(0, 0xFFF, READABLE))
    lab.cpu["esp"] = STACK - 8
    lab.put32(STACK - 8, 0x1000, FREE)
    assert faults_cleanly(lab, "retf") == (GP, 0)


def test_outer_stack_of_16_bits_takes_sp_only(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(0, 0xFFFF, dpl(WRITABLE, 3), big=False))
    lab.put32(STACK - 0x40, TARGET, CODE_OF[3] | 3, 0x12345678, FREE | 3)
    lab.cpu["esp"] = STACK - 0x40
    outcome = lab.run("retf")
    assert outcome.frame is not None
    assert outcome.frame.esp == (STACK - 0x40) & 0xFFFF0000 | 0x5678
