"""Does silicon trap in ring 3 where the experiment says so, and nowhere else?

Silicon can be asked of ring 3 alone, under Linux's tables: IOPL is 0 there and the I/O bitmap
closed, as in the experiment's real state. What of the operands must be Linux's - selectors,
addresses - is made anew here; the encodings are the experiment's own. A privileged row must raise
#GP whatever it finds; of any other row some case must go through, or fault for a reason of its own.
Rows that silicon is not asked about stand in tests/oracles/deviations.py, with reasons; beside
them, INT n: it is the host's IDT that decides which vectors ring 3 may raise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from hypervisor.experiments.classify.cases import Form, forms
from hypervisor.experiments.classify.verdicts import Verdict
from isa.operands import Memory
from isa.row import Row
from isa.sampling import aim
from tests.experiments.surveys import whole
from tests.oracles.case import AREA, CODE, DATA, FLAGS_AT_START, TF, USER_CS, USER_DS, Case, Outcome
from tests.oracles.deviations import never_asked
from tests.silicon.oracle import Silicon, enters_kernel, missing

TARGET = CODE + 0x100  #: INT3 is there
OPERAND, STACK, OUTER = DATA + 0x400, DATA + 0x800, DATA + 0x1000
FLAGS = FLAGS_AT_START | TF  #: an image for POPF and IRET under which single steps go on
#: What lies at the operand and on the stack.
FRAMES = (
    (0,) * 8,
    (USER_DS,) * 8,
    (1, USER_DS),
    (TARGET, USER_CS, FLAGS, OUTER, USER_DS),
    (FLAGS,) * 4,
)
VALUES = (1, USER_DS, FLAGS)  #: of registers that address nothing
GENERAL_PROTECTION = 13


@pytest.fixture(scope="module")
def silicon() -> Iterator[Silicon]:
    """The host's CPU."""
    reason = missing()
    if reason:
        pytest.skip(f"no silicon oracle: {reason}")
    with Silicon() as oracle:
        yield oracle


def not_asked(row: Row) -> str:
    """Why silicon is not asked about a row; empty if it is."""
    if row.operands == ("Ib",) and row.parsed.byte == 0xCD:
        return "the host's IDT decides"
    return never_asked(row)


def cases(form: Form) -> Iterator[Case]:
    """A form with Linux's selectors and the oracle's addresses."""
    code = _placed(form)
    size = 2 if form.narrow else 4
    for frame in FRAMES:
        words = b"".join(
            (word & (1 << 8 * size) - 1).to_bytes(size, "little") for word in frame
        ).ljust(32, b"\0")
        for value in VALUES:
            registers = [value] * 8
            registers[4] = registers[5] = STACK
            registers[6] = registers[7] = OPERAND
            for number, aimed in aim(form.instruction, OPERAND).items():
                registers[number] = aimed
            memory = bytearray(AREA)
            for at in (OPERAND - DATA, STACK - DATA):
                memory[at : at + 32] = words
            yield Case(code, tuple(registers), memory=bytes(memory))


def _placed(form: Form) -> bytes:
    """The encoding, its plain displacement at OPERAND and its far pointer at TARGET."""
    instruction = form.instruction
    code = instruction.bytes
    if instruction.row.parsed.immediates == ("cp",):
        size = 2 if form.narrow else 4
        target = (TARGET & (1 << 8 * size) - 1).to_bytes(size, "little")
        return code[: -2 - size] + target + struct.pack("<H", USER_CS)
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.base is None and operand.index is None:
            old = operand.displacement.to_bytes(4, "little")
            return code.replace(old, OPERAND.to_bytes(4, "little"))
    return code


def traps(case: Case, outcome: Outcome) -> bool:
    """Whether the instruction itself raised #GP."""
    fault = outcome.fault
    return fault is not None and fault.vector == GENERAL_PROTECTION and outcome.eip == case.eip


def ask(silicon: Silicon, row: Row) -> list[bool]:
    """Whether it trapped, case by case."""
    every = [case for form in forms(row)[::5] for case in cases(form)]
    every = [case for case in every if not enters_kernel(case.code)]
    outcomes = silicon.run_batch(every)
    return [traps(case, outcome) for case, outcome in zip(every, outcomes, strict=True)]


def asked() -> list[Verdict]:
    """The verdicts that silicon can have an opinion about."""
    verdicts = [finding.verdict for finding in whole().findings]
    return [v for v in verdicts if not not_asked(v.row) and "CR4.TSD" not in v.depends]


def test_ring_3_agrees_with_silicon(silicon: Silicon) -> None:
    wrong = []
    for verdict in asked():
        trapped = ask(silicon, verdict.row)
        assert trapped, verdict.row
        if verdict.privileged and not all(trapped):
            wrong.append(f"{verdict.row}: silicon lets some cases through")
        if not verdict.privileged and all(trapped):
            wrong.append(f"{verdict.row}: silicon raises #GP in every case")
    assert wrong == []


def test_nearly_all_rows_are_asked(silicon: Silicon) -> None:
    left_out = {f.row.mnemonic for f in whole().findings} - {v.row.mnemonic for v in asked()}
    assert left_out == {"sgdt", "sidt", "sldt", "smsw", "str", "cpuid", "rdtsc", "int"}


def test_silicon_can_contradict(silicon: Silicon) -> None:
    (popf,) = (v.row for v in asked() if v.row.mnemonic == "popf")
    (cli,) = (v.row for v in asked() if v.row.mnemonic == "cli")
    assert all(ask(silicon, cli))
    assert not any(ask(silicon, popf))
