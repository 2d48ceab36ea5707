"""Mutants that no check can notice, and why.

Some only cost time; some take away what another rule holds as well. test_sensitivity.py holds that
they do survive: who makes one noticeable has to take it out of here.
"""

from __future__ import annotations

from typing import Final

_LENGTH: Final = "the length of three bytes leaves no other operand"
_VIRTUAL: Final = "the virtual CPU alone changes it, for the instruction is privileged"
_DELIVERED: Final = "the core ends them too where it delivers the event"
_INTERPRETED: Final = "performance only: a fault in the monitor area is interpreted, whoever had it"
_NO_LDT: Final = "the limit of an LDTR that names no table is 0, which says the same"
_NO_STACK: Final = "performance only: the INT faults for its stack, and the virtual CPU does it"

#: By the mutant's name.
SURVIVORS: Final[dict[str, str]] = {
    "exits: event 11 is reflected": "a shadow descriptor is present or of no type: no #NP arises",
    "vcpu_area: is writable while TF is 1":
        "a site is stepped over as a whole, whether it stores to the area or asks",
    "exits: the virtual CPU is old when a gate is opened":
        "ring 3 with other virtual flags is entered through the virtual CPU, which is then up to "
        "date in these; what is old can only refuse a gate",
    "emulate: INVLPG of any operand": _LENGTH,
    "emulate: INVLPG of a SIB byte or displacement": _LENGTH,
    "emulate: INVLPG through a null selector": "INVLPG checks no segment, and the base is 0",
    "emulate: INVLPG through an expand-down segment": "INVLPG checks no segment",
    "vm: a fault keeps the STI shadow": _DELIVERED,
    "vm: a fault keeps the debug shadow": _DELIVERED,
    "vm: a retired instruction leaves the debug shadow":
        "whatever could trap is interpreted, and not emulated",
    "vm: interpretation takes one exit":
        "the instruction traps again, and finds what it has read already",
    "world: DR0 is not carried back": _VIRTUAL,
    "world: DR1 is not carried back": _VIRTUAL,
    "world: DR2 is not carried back": _VIRTUAL,
    "world: DR3 is not carried back": _VIRTUAL,
    "world: DR7 is not carried back": _VIRTUAL,
    "world: tsc_offset is not carried back": _VIRTUAL,
    "world: CR0.NE is not carried": "no instruction of the slice computes with x87",
    "world: CR4.DE is not carried":
        "moves to and from DR4 and DR5 are privileged, and so are ports: the virtual CPU does both",
    "descriptors: ldtr.attributes is not checked": _NO_LDT,
    "descriptors: an LDT that is none is read": _NO_LDT,
    "descriptors: filled though not of memory":
        "a load of a system descriptor faults, and the virtual CPU does it",
    "descriptors: filled though not present":
        "a load of an absent descriptor faults, and the virtual CPU does it",
    "descriptors: filled over the monitor's own":
        "the real TR and LDTR are never loaded from the table",
    "gates: gates that are not for users":
        "the shadow gate has the guest's DPL: the INT faults, and the virtual CPU does it",
    "gates: gates that are not present":
        "the shadow gate is not present either: the INT faults, and the virtual CPU does it",
    "gates: tr.attributes is not checked": "LTR makes them those of a busy 32-bit TSS, always",
    "gates: conforming code segments":
        "conforming code has ring 3's rights there, on the real CPU as well",
    "gates: data segments": "the INT faults, and the virtual CPU does it",
    "gates: any TSS": "reset and LTR make it a 32-bit TSS, always",
    "gates: the kernel's stack is not loaded": _NO_STACK,
    "gates: the kernel's stack keeps its RPL": _NO_STACK,
    "gates: a null stack is none": "a selector of 0 is null with any RPL",
    "segments: cut ones keep bytes":
        "what is left of a segment of bytes is less than a mebibyte",
    "world: null selectors are segments": "a segment that is cut stays unusable",
    "world: CS and SS keep their RPL":
        "only an unsafe instruction reads it, and none is executed as it is by these techniques",
    "shadow: the monitor area is not mapped": _INTERPRETED,
    "shadow: the monitor's entry goes with the guest's": _INTERPRETED,
    "exits: TRACE does nothing": "a run that is traced drains the ring after each exit as well",
    "segments: DPL 0 stays":
        "performance only: a load of it in ring 1 faults, and the virtual CPU does it",
}  # fmt: skip
