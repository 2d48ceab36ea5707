"""Does the Unicorn wrapper report outcomes in the words of case.py?"""

from __future__ import annotations

import pytest

pytest.importorskip("unicorn", reason="the unicorn package is not installed")

from tests.oracles.case import (
    CODE,
    DATA,
    EAX,
    ECX,
    FLAGS_AT_START,
    FLAT,
    OF,
    ZF,
    Case,
    Fault,
)
from tests.oracles.unicorn import Unicorn

START = (5, 3, 0, 0, DATA + 0x1000, 0, DATA + 16, DATA + 0x100)


@pytest.mark.parametrize("ring", [0, 3])
def test_program_runs_to_its_end(ring: int) -> None:
    loop = Case(bytes.fromhex("01c8 49 75fb"), START, steps=0)  # add eax, ecx; dec ecx; jnz
    (outcome,) = Unicorn(ring).run_batch([loop])
    assert outcome.registers[EAX] == 5 + 3 + 2 + 1
    assert outcome.registers[ECX] == 0
    assert outcome.eflags & ZF
    assert outcome.fault == Fault(3)
    assert outcome.eip == CODE + 0x806


def test_steps_are_counted() -> None:
    (outcome,) = Unicorn().run_batch([Case(b"\x40" * 10, START, steps=4)])
    assert outcome.registers[EAX] == 9
    assert outcome.fault is None


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("0f0b", Fault(6)),
        ("fa", Fault(13)),
        ("f7f2", Fault(0)),
        ("a100006100", Fault(14, 4, 0x610000)),
        ("a300004000", Fault(14, 7, CODE)),
        ("a3fcff5f00", Fault(14, 6, DATA - 4)),
    ],
)
def test_fault(code: str, fault: Fault) -> None:
    """Twice: the first exception must not make the second a double fault."""
    case = Case(bytes.fromhex(code), START)
    for outcome in Unicorn(3).run_batch([case, case]):
        assert outcome.fault == fault
        assert outcome.eip == CODE + 0x800


def test_ring_0_may_what_ring_3_may_not() -> None:
    (outcome,) = Unicorn(0).run_batch([Case(b"\xfa", START)])
    assert outcome.fault is None
    assert not outcome.eflags & 0x200


def test_a_case_starts_from_its_own_state() -> None:
    dirty = Case(bytes.fromhex("fd 8907"), START, FLAGS_AT_START | OF, steps=2)
    clean = Case(b"\x90", START)
    _, outcome, again = Unicorn().run_batch([dirty, clean, clean])
    assert outcome == again
    assert outcome.eflags == FLAGS_AT_START
    assert not any(outcome.memory)


def test_only_flat_segments() -> None:
    with pytest.raises(ValueError, match="flat"):
        Unicorn().run_batch([Case(b"\x90", START, selectors=(0, *FLAT[1:]))])
