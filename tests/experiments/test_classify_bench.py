"""The bench itself: what one run leaves must not reach the next, and equal states look equal."""

from __future__ import annotations

from random import Random

import pytest

from emulator.core import ffi
from hypervisor.experiments.classify.cases import case_of, choices, forms
from hypervisor.experiments.classify.differences import differing, reconfigured
from hypervisor.experiments.classify.states import (
    INDEX,
    KERNEL_CODE,
    OPERAND,
    STACK,
    WORDS,
    Bench,
    Case,
    Conditions,
)
from hypervisor.experiments.classify.verdicts import (
    DISTINCTIONS,
    KERNEL,
    LOWERED,
    USER,
    Distinction,
)
from isa import assemble
from isa.decoder import decode
from isa.table import ROWS


def case(source: str, *, flags: int = 0, frame: bytes = bytes(32), eax: int = 0) -> Case:
    """One instruction, with what it finds."""
    return Case(assemble(source).flat(), (eax, 0, 0, 0, STACK, 0, 0, 0), flags, frame)


def test_outcomes_do_not_depend_on_what_ran_before() -> None:
    every = [
        (case_of(row, choice)[0], now)
        for row in ROWS
        for choice, now in zip(choices(row, 3), (KERNEL, LOWERED[1], USER), strict=True)
    ]
    bench = Bench()
    first = [bench.run(*each) for each in every]
    order = list(range(len(every)))
    Random(3).shuffle(order)
    for number in order:
        assert bench.run(*every[number]) == first[number], every[number]


@pytest.mark.parametrize("pair", DISTINCTIONS, ids=lambda pair: f"{pair.name}-{pair.real.cpl}")
def test_a_nop_tells_nothing_apart(pair: Distinction) -> None:
    bench = Bench()
    believed, real = (bench.run(case("nop"), now) for now in (pair.believed, pair.real))
    assert pair.believed != pair.real
    assert believed[1].went_through
    assert real[1].went_through
    assert differing(believed, real) == []
    assert reconfigured(*real) == []


def test_a_state_is_what_its_conditions_say() -> None:
    before, _ = Bench().run(case("nop"), Conditions(cpl=1, kernel=1, tables=True, slots=True))
    assert before["cpl"] == 1
    assert before["cs"] == KERNEL_CODE + 0x80 | 1
    assert before["gdtr.base"] == 0x38000
    assert before["eflags"] == 0x202
    assert len(before.words) == len(WORDS)


@pytest.mark.parametrize(
    ("source", "now", "name"),
    [
        ("cli", KERNEL, "IF"),
        ("sti", Conditions(masked=True), "IF"),
        ("hlt", KERNEL, "halts"),
        ("in al, 0x40", KERNEL, "a device"),
        ("out 0x40, al", KERNEL, "a device"),
        ("lmsw ax", KERNEL, "CR0"),
        ("mov dr0, eax", KERNEL, "debug registers"),
        ("mov ds, ax", KERNEL, "segment registers"),
    ],
)
def test_what_is_changed_is_named(source: str, now: Conditions, name: str) -> None:
    assert name in reconfigured(*Bench().run(case(source, eax=0x1A), now))


def test_a_dropped_tlb_entry_is_noticed() -> None:
    bench = Bench()
    run = bench.run(case(f"invlpg [{OPERAND:#x}]"), KERNEL, watch_tlb=True)
    assert reconfigured(*run) == ["TLB"]
    run = bench.run(case(f"mov eax, [{OPERAND:#x}]"), KERNEL, watch_tlb=True)
    assert reconfigured(*run) == []


def test_words_stand_where_the_core_has_them() -> None:
    fields = {name: field.offset for name, field in ffi.typeof("CpuState").fields}
    for name in ("version", "eip", "eflags", "cpl", "cr0", "cr4"):
        assert INDEX[name] * 4 == fields[name]
    for name, field in (("eax", "gpr"), ("es", "seg"), ("ldtr", "ldtr"), ("tr", "tr"),
                        ("gdtr.base", "gdtr"), ("idtr.base", "idtr"), ("dr0", "dr")):  # fmt: skip
        assert INDEX[name] * 4 == fields[field]


def test_a_trap_is_no_effect() -> None:
    _, after = Bench().run(case("cli"), LOWERED[1])
    assert after.trap == (13, 0)
    assert not after.went_through


def test_a_gate_into_ring_0_is_the_hypervisors_chance() -> None:
    bench = Bench()
    _, user = bench.run(case("int 0x20"), USER)
    assert user.entered
    assert not user.went_through
    _, lowered = bench.run(case("int 0x20"), LOWERED[1])
    assert lowered.went_through
    assert lowered.event == 0x20


def test_forms_are_of_their_row_and_plainest_first() -> None:
    for row in ROWS:
        every = forms(row)
        assert all(decode(form.instruction.bytes).row is row for form in every)
        prefixes = [form.instruction.prefixes.count for form in every]
        assert prefixes == sorted(prefixes)
