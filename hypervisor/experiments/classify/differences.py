"""Two outcomes held against each other, modulo what the two states differed in from the start.

A hypervisor holds some state otherwise than its guest believes. As long as an instruction leaves
such a field alone in both states, or sets it to the same value in both, the guest cannot tell. All
else is a difference. The rule works bit by bit in EFLAGS, CR0 and CR4. In CS and SS the RPL is the
ring itself; in descriptors as loaded, so is the DPL: neither counts. What an instruction changes of
the machine's configuration is here as well. Read verdicts.py next.
"""

from __future__ import annotations

from itertools import compress
from operator import ne
from typing import Final

from hypervisor.experiments.classify.states import INDEX, SEGMENTS, WORDS, Outcome

BITWISE: Final = frozenset({"eflags", "cr0", "cr4"})
RING: Final = frozenset({"cs", "ss"})
DPL: Final = 0x60
NUMBERS: Final = range(len(WORDS))
EFLAGS_CONTROL: Final = {"IF": 0x200, "IOPL": 0x3000}
#: What makes the configuration, beside IF, IOPL, the ring, segments, the TLB and devices: by name.
CONTROL: Final = {
    "CR0": ("cr0",), "CR2": ("cr2",), "CR3": ("cr3",), "CR4": ("cr4",),
    "GDTR": ("gdtr.base", "gdtr.limit"), "IDTR": ("idtr.base", "idtr.limit"),
    "LDTR": ("ldtr", "ldtr.base", "ldtr.limit"), "TR": ("tr", "tr.base", "tr.limit"),
    "debug registers": tuple(f"dr{n}" for n in range(8)),
    "segment registers": tuple(
        f"{s}{part}" for s in SEGMENTS[:6] for part in ("", ".attributes", ".base", ".limit")
    ),
}  # fmt: skip
_CONTROL: Final = {name: tuple(INDEX[word] for word in words) for name, words in CONTROL.items()}
_EFLAGS: Final = INDEX["eflags"]
_CPL: Final = INDEX["cpl"]  #: all that is configuration stands behind it

Pair = tuple[Outcome, Outcome]


def differing(believed: Pair, real: Pair) -> list[str]:
    """Names of what differs between two (before, after) pairs beyond what did so before."""
    (a0, a), (b0, b) = believed, real
    if a.trap != b.trap or a.stopped != b.stopped:
        return ["trap"]
    if not b.went_through:
        return []
    found = [] if a.words == b.words else _words(a0, a, b0, b)
    if a.visible != b.visible:
        found.append("memory")
    if (a.tables != a0.tables or b.tables != b0.tables) and _changed(a0, a) != _changed(b0, b):
        found.append("tables")
    for name in ("ports", "halted", "stamp", "event"):
        if getattr(a, name) != getattr(b, name):
            found.append(name)
    return found


def _changed(before: Outcome, after: Outcome) -> int:
    return int.from_bytes(before.tables, "little") ^ int.from_bytes(after.tables, "little")


def _words(a0: Outcome, a: Outcome, b0: Outcome, b: Outcome) -> list[str]:
    found = []
    for number in compress(NUMBERS, map(ne, a.words, b.words)):
        name, left, right = WORDS[number], a.words[number], b.words[number]
        kept_left, kept_right = left ^ a0.words[number], right ^ b0.words[number]
        wrong = left ^ right
        if name in BITWISE:
            wrong &= kept_left | kept_right
        elif not kept_left and not kept_right:
            continue
        elif name.endswith(".attributes"):
            wrong &= ~DPL
        elif name in RING and left & 3 == a["cpl"] and right & 3 == b["cpl"]:
            wrong &= ~3
        if wrong:
            found.append(name)
    return found


def reconfigured(before: Outcome, after: Outcome) -> list[str]:
    """What an instruction that went through changed of the machine's configuration.

    The delivery of a software interrupt is the machine's own trap sequence: what that does to the
    ring, the segments and IF is no doing of the instruction's.
    """
    found = [name for name, read in (("a device", after.ports), ("halts", after.halted)) if read]
    if after.stamp != before.stamp:
        found.append("time-stamp counter")
    if after.flushed:
        found.append("TLB")
    if after.event is None:
        changed = before.words[_EFLAGS] ^ after.words[_EFLAGS]
        found += [name for name, bits in EFLAGS_CONTROL.items() if changed & bits]
        if after.words[_CPL:] != before.words[_CPL:]:
            found += _registers(before.words, after.words)
    return found


def _registers(before: tuple[int, ...], after: tuple[int, ...]) -> list[str]:
    ring = ["the ring"] if before[_CPL] != after[_CPL] else []
    return ring + [
        name for name, words in _CONTROL.items() if any(before[n] != after[n] for n in words)
    ]
