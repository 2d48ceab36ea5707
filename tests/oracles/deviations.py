"""Where an oracle cannot be believed about IA-32, or cannot be asked: one table, with reasons.

What the architecture leaves undefined is not here: that is the `undefined` column of isa/table.py,
and nowhere else. Here is what an oracle does although the SDM says otherwise, or what stands
between us and it. A deviation of silicon holds for one vendor of CPU, as /proc/cpuinfo spells it,
or for all (""): what a 64-bit Linux makes of its host holds on every host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isa.row import Row
from tests.oracles.case import RF, Case, Fault, Outcome

AMD: Final = "AuthenticAMD"
GENERAL_PROTECTION: Final = 13
PAGE_FAULT: Final = 14
STACK_FAULTS: Final = (12, PAGE_FAULT, 17)
#: Bits of a page fault's error code (SDM 3A, 4.7).
WRITE: Final = 1 << 1
INSTRUCTION_FETCH: Final = 1 << 4


@dataclass(frozen=True, slots=True)
class Unasked:
    """A row which an oracle is never asked about."""

    oracle: str
    mnemonic: str
    reason: str
    opcode: str = ""
    """Of one row; empty for all of the mnemonic."""
    locked: bool = False
    """Only with a LOCK prefix."""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked, and the two outcomes. `row` and `case` are None for a program."""

    row: Row | None
    case: Case | None
    theirs: Outcome
    ours: Outcome


@dataclass(frozen=True, slots=True)
class Deviation:
    """A correction to what an oracle answers."""

    oracle: str
    vendor: str
    correct: Callable[[Answers], Answers]
    """Makes of the oracle's outcome what IA-32 without the deviation would have answered, or takes
    out of both outcomes what the oracle cannot see."""
    reason: str


_UMIP: Final = "Linux sets CR4.UMIP and answers in the processor's place, with made-up values"
_ALIAS: Final = "raises #UD for the undocumented alias, which every processor executes"
_OWN: Final = "the answer describes the processor that gives it"

UNASKED: Final = (
    *(Unasked("silicon", name, _UMIP) for name in ("sgdt", "sidt", "sldt", "smsw", "str")),
    *(Unasked("silicon", name, _OWN) for name in ("cpuid", "rdtsc")),
    Unasked("silicon", "verw", "executes LOCK VERW, which must raise #UD", locked=True, vendor=AMD),
    Unasked("unicorn", "cpuid", _OWN),
    Unasked("unicorn", "cmpxchg8b", "Unicorn 2.1 loses the flags that it must keep"),
    Unasked("unicorn", "neg", "Unicorn 2.1 takes SF, ZF and PF from the old value", locked=True),
    *(Unasked("unicorn", "test", _ALIAS, opcode) for opcode in ("F6 /1 ib", "F7 /1 iz")),
)


def _without_error_bit(outcome: Outcome, bit: int) -> Outcome:
    fault = outcome.fault
    if fault is None or fault.vector != PAGE_FAULT:
        return outcome
    return replace(outcome, fault=Fault(PAGE_FAULT, fault.error & ~bit, fault.address))


def _no_fetch_bit(answers: Answers) -> Answers:
    return replace(answers, theirs=_without_error_bit(answers.theirs, INSTRUCTION_FETCH))


def _no_write_bit(answers: Answers) -> Answers:
    theirs, ours = (_without_error_bit(o, WRITE) for o in (answers.theirs, answers.ours))
    return replace(answers, theirs=theirs, ours=ours)


def _no_resume_flag(answers: Answers) -> Answers:
    theirs, ours = (replace(o, eflags=o.eflags & ~RF) for o in (answers.theirs, answers.ours))
    return replace(answers, theirs=theirs, ours=ours)


def _undo_pushes(answers: Answers) -> Answers:
    """Where the instruction faulted, take its writes below the stack pointer back."""
    row, case, theirs = answers.row, answers.case, answers.theirs
    if row is None or case is None or theirs.fault is None or theirs.eip != case.eip:
        return answers
    if not (row.mnemonic == "pusha" or (row.mnemonic == "call" and row.cost == "far")):
        return answers
    top = case.stack_offset
    if top is None:
        return answers
    window = slice(max(0, top - 32), top)
    memory = theirs.memory[: window.start] + case.memory[window] + theirs.memory[top:]
    return replace(answers, theirs=replace(theirs, memory=memory))


def _undo_pops(answers: Answers) -> Answers:
    """Where POPA faulted, take its changes to registers back."""
    row, case, theirs = answers.row, answers.case, answers.theirs
    if row is None or case is None or row.mnemonic != "popa" or theirs.fault is None:
        return answers
    if theirs.eip != case.eip:
        return answers
    return replace(answers, theirs=replace(theirs, registers=case.registers))


def _outer_stack_first(answers: Answers) -> Answers:
    """Where RETF or IRET must refuse the selector's RPL, forgive a fault of the stack behind it."""
    row, theirs, ours = answers.row, answers.theirs.fault, answers.ours.fault
    returns = row is not None and row.mnemonic in ("retf", "iret")
    if not returns or theirs is None or ours is None:
        return answers
    if ours.vector != GENERAL_PROTECTION or theirs.vector not in STACK_FAULTS:
        return answers
    return replace(answers, theirs=replace(answers.theirs, fault=ours))


def _push_first(answers: Answers) -> Answers:
    """Where CALL must refuse its target, forgive a fault of the push."""
    row, theirs, ours = answers.row, answers.theirs.fault, answers.ours.fault
    if row is None or row.mnemonic != "call" or theirs is None or ours is None:
        return answers
    if ours.vector != GENERAL_PROTECTION or theirs.vector not in STACK_FAULTS:
        return answers
    return replace(answers, theirs=replace(answers.theirs, fault=ours))


def _either_operand_first(answers: Answers) -> Answers:
    """Where both of CMPSB's operands may fault, forgive that the other one was reported."""
    row, theirs, ours = answers.row, answers.theirs.fault, answers.ours.fault
    if row is None or row.mnemonic != "cmpsb" or theirs is None or ours is None:
        return answers
    if not {theirs.vector, ours.vector} <= {GENERAL_PROTECTION, *STACK_FAULTS}:
        return answers
    return replace(answers, theirs=replace(answers.theirs, fault=ours))


DEVIATIONS: Final = (
    Deviation(
        "silicon",
        "",
        _no_fetch_bit,
        "a 64-bit kernel's page tables have execute-disable, and then a failing fetch says so in "
        "the error code; without PAE or SMEP the bit is always clear",
    ),
    Deviation(
        "silicon",
        AMD,
        _undo_pushes,
        "PUSHA and far CALL that fault leave what they have already pushed below the stack "
        "pointer; far CALL even if EIP is beyond the limit, which the SDM checks before it pushes",
    ),
    Deviation(
        "silicon",
        AMD,
        _undo_pops,
        "POPA that faults leaves the registers that it has already popped",
    ),
    Deviation(
        "silicon",
        AMD,
        _outer_stack_first,
        "RETF and IRET to an RPL other than CPL read the outer SS:ESP before they look at the "
        "selector, so its fault precedes the #GP for a null selector or an RPL below CPL",
    ),
    Deviation(
        "silicon",
        AMD,
        _push_first,
        "CALL finds out that it cannot push before it finds its target beyond the limit; the SDM "
        "has these the other way round",
    ),
    Deviation(
        "silicon",
        "",
        _either_operand_first,
        "processors with fast short REP CMPSB read DS:ESI before ES:EDI there, and all others the "
        "other way round; the SDM does not say",
    ),
    Deviation(
        "unicorn",
        "",
        _no_resume_flag,
        "exceptions are seen before they are delivered, and delivery is what sets RF in the image",
    ),
    Deviation("unicorn", "", _no_write_bit, "a read-modify-write that faults is called a read"),
)


def never_asked(row: Row, oracle: str = "silicon", locked: bool = False) -> str:
    """Why an oracle is not asked about a row (with a LOCK prefix or not); empty if it is."""
    for unasked in UNASKED:
        same_row = unasked.mnemonic == row.mnemonic and unasked.opcode in ("", row.opcode)
        same_oracle = unasked.oracle == oracle and unasked.vendor in ("", vendor())
        if same_oracle and same_row and locked >= unasked.locked:
            return unasked.reason
    return ""


def comparable(oracle: str, answers: Answers) -> tuple[Outcome, Outcome]:
    """The oracle's outcome and ours, with the oracle's known deviations taken out."""
    for deviation in DEVIATIONS:
        if deviation.oracle == oracle and deviation.vendor in ("", vendor()):
            answers = deviation.correct(answers)
    return answers.theirs, answers.ours


@functools.cache
def vendor() -> str:
    """The host CPU's vendor string, for instance AuthenticAMD or GenuineIntel."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "vendor_id":
            return value.strip()
    return "unknown"
