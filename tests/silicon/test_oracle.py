"""Does the silicon oracle itself tell the truth? Cases about which the SDM leaves no doubt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracles.case import (
    AC,
    AREA,
    CF,
    CODE,
    DATA,
    DF,
    EAX,
    ECX,
    EDI,
    ESI,
    ESP,
    FLAGS_AT_START,
    ID,
    LOW,
    NT,
    OF,
    RF,
    SF,
    TF,
    USER_CS,
    USER_DS,
    ZF,
    Case,
    Descriptor,
    Fault,
    Kind,
    Outcome,
    ldt_selector,
)
from tests.silicon.oracle import Silicon, SiliconError, enters_kernel

STATUS = CF | ZF | SF | OF


def registers(**named: int) -> tuple[int, ...]:
    """Eight registers, those not named zero; ESP in the middle of the data pages."""
    order = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    return tuple(named.get(name, DATA + 0x1000 if name == "esp" else 0) for name in order)


def run(silicon: Silicon, code: str, **fields: Any) -> Outcome:
    """The outcome of one case whose code is given in hex."""
    fields.setdefault("registers", registers())
    (outcome,) = silicon.run_batch([Case(bytes.fromhex(code), **fields)])
    return outcome


def selectors(**named: int) -> tuple[int, ...]:
    """Flat selectors but for those named."""
    flat = {"es": USER_DS, "cs": USER_CS, "ss": USER_DS, "ds": USER_DS, "fs": 0, "gs": 0}
    return tuple((flat | named).values())


def test_add(silicon: Silicon) -> None:
    outcome = run(silicon, "01 d8", registers=registers(eax=1, ebx=0x7FFFFFFF))
    assert outcome.registers[EAX] == 0x80000000
    assert outcome.eflags & STATUS == SF | OF
    assert outcome.eip == CODE + 0x802
    assert outcome.fault is None
    assert outcome.taken == 1


def test_store_reaches_memory(silicon: Silicon) -> None:
    memory = bytes(range(256)) * (AREA // 256)
    outcome = run(silicon, "89 07", registers=registers(eax=0xAABBCCDD, edi=DATA), memory=memory)
    assert outcome.memory == bytes.fromhex("ddccbbaa") + memory[4:]


def test_a_case_starts_from_its_own_state(silicon: Silicon) -> None:
    """Nothing of one case is left for the next: neither memory, flags, selectors nor code."""
    dirty = Case(bytes.fromhex("fd 8e e0 89 07"), registers(eax=USER_DS, edi=DATA), steps=3)
    clean = Case(b"\x90", registers())
    _, outcome, again = silicon.run_batch([dirty, clean, clean])
    assert outcome == again
    assert outcome.selectors == selectors()
    assert not outcome.eflags & DF
    assert not any(outcome.memory)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("f7 f1", Fault(0)),
        ("cc", Fault(3)),
        ("0f 0b", Fault(6)),
        ("f4", Fault(13)),
        ("fa", Fault(13)),
        ("e4 10", Fault(13)),
        ("cd 21", Fault(13, 0x21 << 3 | 2)),
        ("f0 01 d8", Fault(6)),
        ("a1 00 20 60 00", Fault(14, 4, DATA + AREA)),
        ("a1 fd 1f 60 00", Fault(14, 4, DATA + AREA)),
        ("a3 00 00 40 00", Fault(14, 7, CODE)),
        ("a3 fc ff 5f 00", Fault(14, 6, DATA - 4)),
    ],
)
def test_fault(silicon: Silicon, code: str, fault: Fault) -> None:
    outcome = run(silicon, code)
    assert outcome.fault == fault
    assert outcome.taken == 0


def test_fault_leaves_eip_on_the_instruction_and_sets_rf(silicon: Silicon) -> None:
    outcome = run(silicon, "f7 f1")
    assert outcome.eip == CODE + 0x800
    assert outcome.eflags & RF


def test_into(silicon: Silicon) -> None:
    assert run(silicon, "ce", eflags=FLAGS_AT_START | OF).fault == Fault(4)
    assert run(silicon, "ce").fault is None


def test_alignment_check(silicon: Silicon) -> None:
    fields = registers(esi=DATA + 1)
    assert run(silicon, "8b 06", registers=fields, eflags=FLAGS_AT_START | AC).fault == Fault(17)
    assert run(silicon, "8b 06", registers=fields).fault is None


def test_fetch_beyond_the_code_pages(silicon: Silicon) -> None:
    outcome = run(silicon, "b8", address=CODE + AREA - 1)
    assert outcome.fault is not None
    assert (outcome.fault.vector, outcome.fault.address) == (14, CODE + AREA)


def test_wild_jump_stops_at_its_target(silicon: Silicon) -> None:
    target = 0x10000000
    code = "e9" + (target - (CODE + 0x805)).to_bytes(4, "little").hex()
    assert run(silicon, code).eip == target
    two = run(silicon, code, steps=2)
    assert two.fault is not None
    assert two.fault.address == target
    assert two.taken == 1


def test_popf_may_clear_tf_and_set_what_is_the_users(silicon: Silicon) -> None:
    cleared = run(silicon, "9d")
    assert cleared.eflags == FLAGS_AT_START
    assert cleared.fault is None
    everything = run(silicon, "9d", memory=b"\xff" * AREA)
    assert everything.eflags == 0x244FD7  # not IOPL, VM, RF, VIF, VIP


def test_flags_which_signal_frames_cannot_carry(silicon: Silicon) -> None:
    plain, special = (
        run(silicon, "9c", eflags=FLAGS_AT_START | flags) for flags in (0, NT | ID | AC)
    )
    assert plain.eflags == FLAGS_AT_START | TF
    assert special.eflags == FLAGS_AT_START | TF | NT | ID | AC
    assert special.memory[0xFFC:0x1000] == special.eflags.to_bytes(4, "little")


def test_rep_traps_after_each_iteration(silicon: Silicon) -> None:
    start = registers(ecx=3, esi=DATA, edi=DATA + 0x100)
    memory = b"abcd" + bytes(AREA - 4)
    outcome = run(silicon, "f3 a4", registers=start, memory=memory, steps=2)
    assert outcome.registers[ECX] == 1
    assert outcome.eip == CODE + 0x800
    assert outcome.memory[0x100:0x103] == b"ab\0"
    free = run(silicon, "f3 a4", registers=start, memory=memory, steps=0)
    assert free.memory[0x100:0x104] == b"abc\0"
    assert free.fault == Fault(3)
    assert free.eip == CODE + 0x803


def test_string_ops_with_df(silicon: Silicon) -> None:
    start = registers(esi=DATA + 4, edi=DATA + 0x20)
    outcome = run(silicon, "a5", registers=start, eflags=FLAGS_AT_START | DF)
    assert outcome.registers[ESI] == DATA
    assert outcome.registers[EDI] == DATA + 0x1C


def test_any_esp_will_do(silicon: Silicon) -> None:
    outcome = run(silicon, "50", registers=registers(esp=0))
    assert outcome.registers[ESP] == 0
    assert outcome.fault == Fault(14, 6, 0xFFFFFFFC)
    across_the_top = run(silicon, "50", registers=registers(esp=2))
    assert across_the_top.fault == Fault(12)


def test_mov_ss_lets_the_next_instruction_run(silicon: Silicon) -> None:
    outcome = run(silicon, "8e d0 90", registers=registers(eax=USER_DS))
    assert outcome.eip == CODE + 0x803
    assert outcome.taken == 1


def test_low_is_data(silicon: Silicon) -> None:
    if not silicon.low_mapped:
        pytest.skip("vm.mmap_min_addr forbids mapping LOW")
    outcome = run(silicon, "67 c6 06 34 80 5a")
    assert outcome.fault is None
    assert outcome.memory[0x8034 - LOW] == 0x5A


LDT = (
    Descriptor(base=DATA, limit=0xFFF, pages=False),
    Descriptor(limit=DATA >> 12, kind=Kind.EXPAND_DOWN),
    Descriptor(base=CODE, limit=0x1FFF, kind=Kind.CODE, pages=False),
    Descriptor(present=False),
    Descriptor(base=DATA, limit=0xFFFF, big=False, pages=False),
    Descriptor(accessible=False),
    Descriptor(kind=Kind.CODE, accessible=False),
)
SMALL, DOWN, SHORT_CODE, ABSENT, STACK16, READ_ONLY, EXECUTE_ONLY = map(ldt_selector, range(7))


@pytest.mark.parametrize(
    ("selector", "offset", "fault"),
    [
        (SMALL, 0xFFC, None),
        (SMALL, 0xFFD, Fault(13)),
        (DOWN, DATA + 0x1000, None),
        (DOWN, DATA + 0xFFF, Fault(13)),
        (READ_ONLY, DATA, None),
        (SHORT_CODE, 0x1FFC, None),
        (SHORT_CODE, 0x1FFD, Fault(13)),
        (0, DATA, Fault(13)),
    ],
)
def test_segment_limit(silicon: Silicon, selector: int, offset: int, fault: Fault | None) -> None:
    outcome = run(
        silicon,
        "8b 06",
        registers=registers(esi=offset),
        selectors=selectors(ds=selector),
        ldt=LDT,
    )
    assert outcome.fault == fault


def test_stack_limit_is_ss_fault(silicon: Silicon) -> None:
    fields = {"selectors": selectors(ss=SMALL), "ldt": LDT}
    assert run(silicon, "58", registers=registers(esp=0xFFD), **fields).fault == Fault(12)
    assert run(silicon, "58", registers=registers(esp=0xFFC), **fields).fault is None


def test_write_to_read_only_segment(silicon: Silicon) -> None:
    for selector in (READ_ONLY, SHORT_CODE):
        outcome = run(silicon, "89 06", selectors=selectors(ds=selector), ldt=LDT)
        assert outcome.fault == Fault(13)


@pytest.mark.parametrize(
    ("code", "selector", "fault"),
    [
        ("8e d8", ABSENT, Fault(11, ABSENT & ~3)),
        ("8e d0 90", ABSENT, Fault(12, ABSENT & ~3)),
        ("8e d0 90", READ_ONLY, Fault(13, READ_ONLY & ~3)),
        ("8e d8", EXECUTE_ONLY, Fault(13, EXECUTE_ONLY & ~3)),
        ("8e d8", 0x107, Fault(13, 0x104)),
        ("8e d8", SMALL, None),
        ("8e d8", 0, None),
        ("8e d0 90", 0, Fault(13)),
    ],
)
def test_segment_load(silicon: Silicon, code: str, selector: int, fault: Fault | None) -> None:
    outcome = run(silicon, code, registers=registers(eax=selector), ldt=LDT)
    assert outcome.fault == fault


def test_stack_of_16_bits(silicon: Silicon) -> None:
    start = registers(eax=0x1234, esp=0xABCD0010)
    outcome = run(silicon, "50", registers=start, selectors=selectors(ss=STACK16), ldt=LDT)
    assert outcome.registers[ESP] == 0xABCD000C
    assert outcome.memory[0xC:0x10] == bytes.fromhex("34120000")


def test_code_segment_with_base_and_limit(silicon: Silicon) -> None:
    fields = {"selectors": selectors(cs=SHORT_CODE), "ldt": LDT}
    assert run(silicon, "eb 10", **fields).eip == 0x812
    assert run(silicon, "e9 00 20 00 00", **fields).fault == Fault(13)


def test_far_jump(silicon: Silicon) -> None:
    code = "ea 10 00 00 00" + SHORT_CODE.to_bytes(2, "little").hex()
    outcome = run(silicon, code, ldt=LDT)
    assert outcome.selectors == selectors(cs=SHORT_CODE)
    assert outcome.eip == 0x10


def test_lar_sees_the_descriptor_as_encoded(silicon: Silicon) -> None:
    for index, descriptor in enumerate(LDT):
        start = registers(eax=ldt_selector(index))
        outcome = run(silicon, "0f 02 c8", registers=start, ldt=LDT)
        high = int.from_bytes(descriptor.encode()[4:], "little")
        assert outcome.eflags & ZF
        assert outcome.registers[ECX] & 0xFFF0FFFF == high & 0x00F0FF00  # 19:16 are undefined


def test_descriptor_table_ends_at_its_limit(silicon: Silicon) -> None:
    table = (None,) * 31 + LDT[:1]
    inside, outside = (
        run(silicon, "0f 00 e0", registers=registers(eax=ldt_selector(index)), ldt=table)
        for index in (31, 32)
    )
    assert inside.eflags & ZF
    assert not outside.eflags & ZF


@pytest.mark.parametrize("code", ["cd 80", "0f 05", "0f 34", "66 f3 cd 80"])
def test_system_calls_are_refused(silicon: Silicon, code: str) -> None:
    assert enters_kernel(bytes.fromhex(code))
    with pytest.raises(ValueError, match="kernel"):
        run(silicon, code)


def test_system_calls_behind_a_jump_are_caught(silicon: Silicon) -> None:
    """EAX=1 is exit: were it to reach the kernel, the helper would end."""
    with pytest.raises(SiliconError, match="reached the host's kernel"):
        run(silicon, "eb 01 90 cd 80", registers=registers(eax=1), steps=2)
    assert run(silicon, "90").fault is None


def test_endless_loops_end(silicon: Silicon) -> None:
    with pytest.raises(SiliconError, match="did not end"):
        run(silicon, "eb fe", steps=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"address": CODE - 1}, "leave the code area"),
        ({"address": CODE + AREA}, "leave the code area"),
        ({"memory": b""}, "memory must be"),
        ({"selectors": selectors(ss=0)}, "cannot hold 0x0"),
        ({"selectors": selectors(ds=ABSENT), "ldt": LDT}, "cannot hold"),
        ({"selectors": selectors(cs=SMALL), "ldt": LDT}, "cannot hold"),
        ({"selectors": selectors(ds=0x33)}, "cannot hold 0x33"),
        ({"ldt": (Descriptor(kind=Kind.CONFORMING),)}, "conforming"),
    ],
)
def test_states_that_cannot_be_entered_are_refused(
    silicon: Silicon, fields: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(silicon, "90", **fields)


def test_many_cases_with_alternating_tables(silicon: Silicon) -> None:
    cases = [
        Case(bytes([0x83, 0xC0, i & 0x7F]), registers(eax=i), ldt=LDT[: i % 3]) for i in range(1000)
    ]
    for i, outcome in enumerate(silicon.run_batch(cases)):
        assert outcome.registers[EAX] == i + (i & 0x7F)
