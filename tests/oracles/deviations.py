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
from tests.oracles.case import RF, Fault, Outcome

PAGE_FAULT: Final = 14
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


@dataclass(frozen=True, slots=True)
class Deviation:
    """A correction to what an oracle answers."""

    oracle: str
    vendor: str
    correct: Callable[[Outcome], Outcome]
    """Makes of its outcome what IA-32 without the deviation would have answered; or, if `blind`,
    takes out of both outcomes what the oracle cannot see."""
    blind: bool
    reason: str


_UMIP: Final = "Linux sets CR4.UMIP and answers in the processor's place, with made-up values"
_ALIAS: Final = "raises #UD for the undocumented alias, which every processor executes"
_OWN: Final = "the answer describes the processor that gives it"

UNASKED: Final = (
    *(Unasked("silicon", name, _UMIP) for name in ("sgdt", "sidt", "sldt", "smsw", "str")),
    *(Unasked("silicon", name, _OWN) for name in ("cpuid", "rdtsc")),
    Unasked("unicorn", "cpuid", _OWN),
    Unasked("unicorn", "cmpxchg8b", "Unicorn 2.1 loses the flags that it must keep"),
    Unasked("unicorn", "neg", "Unicorn 2.1 takes SF, ZF and PF from the old value", locked=True),
    *(Unasked("unicorn", "test", _ALIAS, opcode) for opcode in ("F6 /1 ib", "F7 /1 iz")),
)


def _no_fetch_bit(outcome: Outcome) -> Outcome:
    fault = outcome.fault
    if fault is None or fault.vector != PAGE_FAULT:
        return outcome
    fault = Fault(PAGE_FAULT, fault.error & ~INSTRUCTION_FETCH, fault.address)
    return replace(outcome, fault=fault)


def _no_resume_flag(outcome: Outcome) -> Outcome:
    return replace(outcome, eflags=outcome.eflags & ~RF)


def _no_write_bit(outcome: Outcome) -> Outcome:
    fault = outcome.fault
    if fault is None or fault.vector != PAGE_FAULT:
        return outcome
    fault = Fault(PAGE_FAULT, fault.error & ~WRITE, fault.address)
    return replace(outcome, fault=fault)


DEVIATIONS: Final = (
    Deviation(
        "silicon",
        "",
        _no_fetch_bit,
        False,
        "a 64-bit kernel's page tables have execute-disable, and then a failing fetch says so in "
        "the error code; without PAE or SMEP the bit is always clear",
    ),
    Deviation(
        "unicorn",
        "",
        _no_resume_flag,
        True,
        "exceptions are seen before they are delivered, and delivery is what sets RF in the image",
    ),
    Deviation(
        "unicorn",
        "",
        _no_write_bit,
        True,
        "a read-modify-write that faults is reported as a read",
    ),
)


def never_asked(row: Row, oracle: str = "silicon", locked: bool = False) -> str:
    """Why an oracle is not asked about a row (with a LOCK prefix or not); empty if it is."""
    for unasked in UNASKED:
        same_row = unasked.mnemonic == row.mnemonic and unasked.opcode in ("", row.opcode)
        if unasked.oracle == oracle and same_row and locked >= unasked.locked:
            return unasked.reason
    return ""


def comparable(oracle: str, theirs: Outcome, ours: Outcome) -> tuple[Outcome, Outcome]:
    """The two outcomes with the oracle's known deviations taken out."""
    for deviation in DEVIATIONS:
        if deviation.oracle == oracle and deviation.vendor in ("", vendor()):
            theirs = deviation.correct(theirs)
            ours = deviation.correct(ours) if deviation.blind else ours
    return theirs, ours


@functools.cache
def vendor() -> str:
    """The host CPU's vendor string, for instance AuthenticAMD or GenuineIntel."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "vendor_id":
            return value.strip()
    return "unknown"
