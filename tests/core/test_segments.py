"""Segment loads, limits and types, descriptor-table instructions: exact faults, by the SDM."""

from __future__ import annotations

import struct

import pytest

from emulator.core import ExitReason
from tests.core.lab import (
    CODE,
    CODE_OF,
    CONFORMING,
    DATA,
    DATA_OF,
    EXECUTE_ONLY,
    EXPAND_DOWN,
    EXPAND_DOWN_RO,
    FREE,
    GDT_ENTRIES,
    GP,
    NP,
    READ_ONLY,
    READABLE,
    SS,
    STACK,
    WRITABLE,
    Lab,
    descriptor,
    dpl,
    gate,
)

BEYOND = GDT_ENTRIES * 8  #: the first selector outside the GDT


@pytest.fixture
def lab() -> Lab:
    return Lab()


def load(lab: Lab, register: str, selector: int) -> tuple[int, int | None] | None:
    """MOV to a segment register at the present ring, ended by INT 0x80."""
    outcome = lab.run(f"mov eax, {selector}\nmov {register}, ax\nint 0x80")
    return None if outcome.vector == 0x80 else outcome.fault


DATA_CASES = [
    # access byte, RPL, CPL, the fault's vector (error: the selector) or None
    (dpl(WRITABLE, 0), 0, 0, None),
    (dpl(WRITABLE, 3), 3, 0, None),
    (dpl(WRITABLE, 3), 3, 3, None),
    (dpl(WRITABLE, 3), 0, 3, None),
    (dpl(WRITABLE, 2), 2, 1, None),
    (dpl(WRITABLE, 0), 3, 0, GP),  # RPL above DPL
    (dpl(WRITABLE, 0), 0, 3, GP),  # CPL above DPL
    (dpl(WRITABLE, 1), 2, 0, GP),
    (dpl(READ_ONLY, 3), 3, 3, None),
    (dpl(EXPAND_DOWN, 3), 3, 3, None),
    (dpl(READABLE, 3), 3, 3, None),
    (dpl(READABLE, 0), 3, 3, GP),
    (dpl(EXECUTE_ONLY, 3), 3, 3, GP),
    (dpl(CONFORMING, 0), 3, 3, None),  # conforming code: any privilege
    (dpl(0x9C, 0), 0, 0, GP),  # conforming, but not readable
    (0x82, 0, 0, GP),  # a system descriptor
    (0x12, 0, 0, NP),
    (0x12 | 3 << 5, 3, 3, NP),
    (0x18, 0, 0, GP),  # the type is checked before presence
]


@pytest.mark.parametrize("register", ["ds", "es", "fs", "gs"])
@pytest.mark.parametrize(("access", "rpl", "cpl", "expected"), DATA_CASES)
def test_data_segment_load(
    lab: Lab, register: str, access: int, rpl: int, cpl: int, expected: int | None
) -> None:
    lab.set_gdt(FREE, descriptor(0x1234, 0xFFF, access))
    lab.ring(cpl)
    before = lab.snapshot()[1]
    fault = load(lab, register, FREE | rpl)
    assert fault == (None if expected is None else (expected, FREE))
    if expected is None:
        loaded = lab.state.seg[["es", "cs", "ss", "ds", "fs", "gs"].index(register)]
        if register in ("fs", "gs") or cpl == 0:
            assert (loaded.selector, loaded.base, loaded.limit) == (FREE | rpl, 0x1234, 0xFFF)
        assert lab.access(FREE) == access | 1
    else:
        assert lab.access(FREE) == access
        assert lab.snapshot()[1][4:6] == before[4:6]


STACK_CASES = [
    (dpl(WRITABLE, 0), 0, 0, None),
    (dpl(WRITABLE, 3), 3, 3, None),
    (dpl(WRITABLE, 3), 3, 0, GP),
    (dpl(WRITABLE, 0), 1, 0, GP),
    (dpl(WRITABLE, 3), 2, 3, GP),
    (dpl(WRITABLE, 2), 3, 3, GP),
    (dpl(READ_ONLY, 0), 0, 0, GP),
    (dpl(READABLE, 0), 0, 0, GP),
    (dpl(EXPAND_DOWN, 0), 0, 0, None),
    (0x12, 0, 0, SS),
    (0x10, 0, 0, GP),  # not writable counts before not present
]


@pytest.mark.parametrize(("access", "rpl", "cpl", "expected"), STACK_CASES)
def test_stack_segment_load(
    lab: Lab, access: int, rpl: int, cpl: int, expected: int | None
) -> None:
    limit = 0x1000 if access & 4 else 0xFFFFFFFF
    lab.set_gdt(FREE, descriptor(0, limit, access))
    lab.ring(cpl)
    assert load(lab, "ss", FREE | rpl) == (None if expected is None else (expected, FREE))


@pytest.mark.parametrize("selector", [0, 1, 2, 3])
def test_null_selectors(lab: Lab, selector: int) -> None:
    assert load(lab, "ss", selector) == (GP, 0)
    assert load(lab, "fs", selector) is None
    assert lab.state.seg[4].selector == selector
    assert lab.run("mov eax, [fs:0]").fault == (GP, 0)
    assert lab.run("mov [fs:0], eax").fault == (GP, 0)


@pytest.mark.parametrize("register", ["ds", "ss"])
def test_selector_outside_its_table(lab: Lab, register: str) -> None:
    assert load(lab, register, BEYOND) == (GP, BEYOND)
    assert load(lab, register, BEYOND | 3) == (GP, BEYOND)
    assert load(lab, register, 32 | 4) == (GP, 36)
    lab.state.gdtr.limit = FREE + 6  # one byte short
    lab.set_gdt(FREE, descriptor())
    assert load(lab, register, FREE) == (GP, FREE)
    lab.state.gdtr.limit = FREE + 7
    assert load(lab, register, FREE) is None


def test_ldt_selector(lab: Lab) -> None:
    lab.set_ldt(8, descriptor(0x5000, 0xFFFF))
    assert load(lab, "fs", 8 | 4) is None
    assert lab.state.seg[4].base == 0x5000
    assert lab.access(8 | 4) == WRITABLE | 1
    assert lab.run("xor eax, eax\nlldt ax\nhlt").reason == ExitReason.HALT
    assert load(lab, "fs", 8 | 4) == (GP, 8 | 4)


# -- Limits and types ---------------------------------------------------------------------------


def access_fs(lab: Lab, offset: int, size: int, write: bool, value: int) -> bool:
    """Access FS at an offset; whether it went through. Any fault must be #GP(0)."""
    lab.set_gdt(FREE, value)
    name = {1: "byte", 2: "word", 4: "dword"}[size]
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    lab.load_hidden(lab.state.seg[4], FREE)
    operand = f"{name} [fs:{offset:#x}]"
    outcome = lab.run(f"mov {operand}, {register}" if write else f"mov {register}, {operand}\nhlt")
    if outcome.vector is None:
        return True
    assert outcome.fault == (GP, 0)
    return False


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    ("offset", "size", "allowed"),
    [
        (0, 4, True),
        (0xFFC, 4, True),
        (0xFFD, 4, False),
        (0xFFE, 2, True),
        (0xFFF, 2, False),
        (0xFFF, 1, True),
        (0x1000, 1, False),
        (0xFFFFFFFF, 1, False),
        (0xFFFFFFFE, 4, False),  # wraps into the segment
    ],
)
def test_limit(lab: Lab, offset: int, size: int, allowed: bool, write: bool) -> None:
    assert access_fs(lab, offset, size, write, descriptor(DATA, 0xFFF)) is allowed


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("offset", "size", "allowed"),
    [
        (0, 1, (False, False)),
        (0xFFF, 1, (False, False)),
        (0xFFF, 4, (False, False)),
        (0x1000, 1, (True, True)),
        (0xFFFC, 4, (True, True)),
        (0xFFFD, 4, (False, True)),
        (0x10000, 1, (False, True)),
        (0xFFFFFFFC, 4, (False, True)),
        (0xFFFFFFFD, 4, (False, False)),
    ],
)
def test_expand_down(
    lab: Lab, offset: int, size: int, allowed: tuple[bool, bool], big: bool
) -> None:
    # Base so that every allowed offset reaches memory: 4 GiB wrap around.
    value = descriptor(DATA, 0xFFF, EXPAND_DOWN, big=big)
    assert access_fs(lab, offset, size, True, value) is allowed[big]


@pytest.mark.parametrize(
    ("access", "readable", "writable"),
    [
        (READ_ONLY, True, False),
        (WRITABLE, True, True),
        (EXPAND_DOWN_RO, True, False),
        (READABLE, True, False),
        (CONFORMING, True, False),
        (EXECUTE_ONLY, False, False),
    ],
)
def test_types(lab: Lab, access: int, readable: bool, writable: bool) -> None:
    limit = 0xFFF if access & 0xC == 4 else 0xFFFF
    value = descriptor(DATA, limit, access)
    assert access_fs(lab, 0x2000, 4, False, value) is readable
    assert access_fs(lab, 0x2000, 4, True, value) is writable


def test_stack_faults_are_ss(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(0, STACK - 1, WRITABLE, pages=False))
    lab.set_segment("ss", FREE)
    lab.set_idt(SS, gate(CODE_OF[0], 0x4000 + SS * 16, 0xE))
    lab.cpu["esp"] = STACK
    assert lab.run("push eax\npop eax\nhlt").vector is None
    assert lab.run("mov eax, [esp]").fault == (SS, 0)
    lab.cpu["esp"] = STACK - 100
    assert lab.run("mov eax, [ebp+0x7FFFFFFF]").fault == (SS, 0)
    lab.cpu["esp"] = STACK - 100
    assert lab.run("mov eax, [ds:ebp+0x7FFFFFFF]\nhlt").vector is None


def test_base_is_added(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(DATA + 0x100, 0xFFFF))
    lab.put32(DATA + 0x108, 0xCAFEF00D)
    lab.set_segment("gs", FREE)
    lab.run("mov eax, [gs:8]\nmov ebx, 0x11223344\nmov [gs:12], bx\nhlt")
    assert lab.cpu["eax"] == 0xCAFEF00D
    assert lab.get32(DATA + 0x10C) == 0x3344


@pytest.mark.parametrize("source", ["mov eax, [0xFFFFFFFE]", "mov [edi-2], eax", "add [edi-1], ax"])
def test_a_flat_segment_ends_too(lab: Lab, source: str) -> None:
    assert lab.run(f"xor edi, edi\n{source}\nhlt").fault == (GP, 0)
    assert lab.run("mov eax, [0xFFFFFFFC]\nhlt").vector is None
    assert lab.cpu["eax"] == 0xFFFFFFFF  # nothing there: all ones


def code_segment(lab: Lab, limit: int) -> None:
    """Run from a code segment whose base is the program's start."""
    lab.set_gdt(FREE, descriptor(CODE, limit, READABLE))
    lab.set_segment("cs", FREE)
    lab.cpu["eip"] = 0


def test_code_limit(lab: Lab) -> None:
    assert lab.load("nop\nnop\nnop\nmov eax, 1\nhlt") == 9
    code_segment(lab, 6)
    outcome = lab.go()
    assert outcome.fault == (GP, 0)  # the last byte of the MOV is beyond the limit
    assert outcome.frame is not None
    assert outcome.frame.eip == 3
    assert lab.cpu["eax"] == 0
    code_segment(lab, 8)
    assert lab.go().vector is None
    assert lab.cpu["eip"] == 9


def test_running_into_the_code_limit(lab: Lab) -> None:
    lab.load("nop\nnop\nnop\nhlt")
    code_segment(lab, 2)
    outcome = lab.go()
    assert outcome.fault == (GP, 0)
    assert outcome.frame is not None
    assert outcome.frame.eip == 3


@pytest.mark.parametrize(
    "source",
    ["jmp near $+0x1000", "jmp eax", "call eax", "call near $+0x1000", "push eax\nret",
     "jmp short $+0x71"],
)  # fmt: skip
def test_jump_beyond_code_limit_faults_at_the_jump(lab: Lab, source: str) -> None:
    lab.load(f"nop\n{source}")
    code_segment(lab, 0x70)
    lab.cpu["eax"] = 0x1001
    outcome = lab.go()
    assert outcome.fault == (GP, 0)
    assert outcome.frame is not None
    assert outcome.frame.eip == (2 if "ret" in source else 1)
    assert outcome.frame.cs == FREE
    # Nothing was pushed or popped but by PUSH, and by the event.
    assert lab.cpu["esp"] == STACK - 16 - (4 if "ret" in source else 0)


# -- Far pointers, push and pop -----------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), [("lds", 3), ("les", 0), ("lfs", 4), ("lgs", 5)])
def test_far_pointer_loads(lab: Lab, name: str, index: int) -> None:
    lab.memory.write(DATA, struct.pack("<IH", 0x12345678, DATA_OF[3] | 3))
    assert lab.run(f"{name} edx, [DATA]\nhlt").vector is None
    assert lab.cpu["edx"] == 0x12345678
    assert lab.state.seg[index].selector == DATA_OF[3] | 3


def test_far_pointer_fault_keeps_the_register(lab: Lab) -> None:
    lab.memory.write(DATA, struct.pack("<IH", 0x12345678, BEYOND))
    lab.cpu["edx"] = 7
    assert lab.run("lfs edx, [DATA]").fault == (GP, BEYOND)
    assert lab.cpu["edx"] == 7


def test_lss_16_bits(lab: Lab) -> None:
    lab.memory.write(DATA, struct.pack("<HH", 0x5678, DATA_OF[0]))
    lab.cpu["edx"] = 0xAAAA0000
    assert lab.run("lss dx, [DATA]\nhlt").vector is None
    assert lab.cpu["edx"] == 0xAAAA5678
    assert lab.state.interrupt_shadow == 0


def test_push_and_pop_segment(lab: Lab) -> None:
    lab.put32(STACK - 8, 0xFFFFFFFF, 0xFFFFFFFF)
    assert lab.run(f"push ds\npush word {DATA_OF[1]}\no16 pop fs\npush cs\nhlt").vector is None
    assert lab.get32(STACK - 4) == DATA_OF[0]
    assert lab.state.seg[4].selector == DATA_OF[1]
    assert lab.get32(STACK - 8) == CODE_OF[0]
    assert lab.cpu["esp"] == STACK - 8


def test_failed_pop_keeps_esp(lab: Lab) -> None:
    outcome = lab.run(f"push dword {BEYOND}\npop es")
    assert outcome.fault == (GP, BEYOND)
    assert lab.cpu["esp"] == STACK - 4 - 16


def test_mov_from_segment_writes_16_bits_of_memory_and_32_of_a_register(lab: Lab) -> None:
    lab.put32(DATA, 0xFFFFFFFF)
    lab.cpu["ecx"] = lab.cpu["edx"] = 0xFFFFFFFF
    lab.run("mov [DATA], ds\nmov ecx, ds\nmov dx, ds\nhlt")
    assert lab.get32(DATA) == 0xFFFF0000 | DATA_OF[0]
    assert lab.cpu["ecx"] == DATA_OF[0]
    assert lab.cpu["edx"] == 0xFFFF0000 | DATA_OF[0]


def test_stack_of_16_bits_moves_sp_only(lab: Lab) -> None:
    lab.set_gdt(FREE, descriptor(DATA, 0xFFFF, WRITABLE, big=False))
    lab.set_segment("ss", FREE)
    lab.cpu["esp"] = 0x12340002
    lab.run("push dword 0x11223344\nhlt")
    # Offset 0xFFFE for four bytes is beyond the limit: #SS, whose frame wraps the same way.
    assert lab.cpu["eip"] != 0x100006
    lab.cpu["esp"] = 0x12340000
    assert lab.run("push dword 0x11223344\nhlt").vector is None
    assert lab.cpu["esp"] == 0x1234FFFC
    assert lab.get32(DATA + 0xFFFC) == 0x11223344
