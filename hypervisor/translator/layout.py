"""Where the translator keeps things in the monitor area, and what a translation may touch there.

    CODE         the translation cache: read-only to ring 1, in reach of its CS alone, which is
                 execute-only and ends with it. Data segments end below it.
    AREA         the vCPU area (isa/paravirt.py has its words), in reach of the translator's GS
    TARGETS      behind it in the same segment, read-only: for the low 16 bits of an EIP, where
                 the translation of such a place is entered (transfers.py)

A translation runs with CS and GS the translator's, and all other segment registers the guest's.
"""

from __future__ import annotations

from typing import Final

from hypervisor import segments
from hypervisor.monitor import MONITOR
from hypervisor.segments import Segment
from isa.operands import EAX, ECX, GENERAL, GS, Memory
from isa.paravirt import VCPU_AREA_BYTES, VCPU_PAGE, Field

PAGE: Final = 4096
CODE: Final = MONITOR + 0x40000
MOST_CODE: Final = 0x280000  #: bytes of cache that there is room for
AREA: Final = MONITOR + 0x300000
TARGETS: Final = AREA + VCPU_AREA_BYTES
TARGET_BITS: Final = 16  #: of an EIP, that choose its entry in TARGETS
TARGETS_BYTES: Final = 4 << TARGET_BITS
AREA_SELECTOR: Final = 0xFFE0
CODE_SELECTOR: Final = 0xFFE8
#: `int OWN_VECTOR` in a translation asks for the hypervisor. A guest's INT is never executed there.
OWN_VECTOR: Final = 0x83

_KERNEL: Final = (
    segments.ACCESSED | segments.MEMORY | segments.PRESENT | segments.KERNEL_RING << 5
)  # fmt: skip
AREA_SEGMENT: Final = Segment(
    _KERNEL | segments.WRITABLE | segments.BIG, AREA, VCPU_AREA_BYTES + TARGETS_BYTES - 1
)


def code_segment(size: int) -> Segment:
    """The CS of a cache of so many bytes."""
    big = segments.BIG | segments.GRANULARITY
    return Segment(_KERNEL | segments.CODE | big, 0, CODE + size - 1)


#: Words that translations read beside those of isa/paravirt.py; the hypervisor writes them.
_SECOND: Final = VCPU_PAGE + PAGE


def _word(number: int, name: str, meaning: str) -> Field:
    return Field(name, _SECOND + 0x40 + 4 * number, 4, meaning)


GS_SELECTOR: Final = _word(0, "gs_selector", "the guest's GS")
GS_NEGATED: Final = _word(
    1, "gs_negated", "minus the selector that is in GS already, if loading it changes nothing"
)
SS_SELECTOR: Final = _word(2, "ss_selector", "the guest's SS")
LDTR_SELECTOR: Final = _word(3, "ldtr_selector", "the guest's LDTR")
TR_SELECTOR: Final = _word(4, "tr_selector", "the guest's TR")
CONTROL: Final = {
    number: _word(5 + number, f"cr{number}", f"the guest's CR{number}") for number in (0, 2, 3, 4)
}
OWN_FIELDS: Final = (
    GS_SELECTOR, GS_NEGATED, SS_SELECTOR, LDTR_SELECTOR, TR_SELECTOR, *CONTROL.values()
)  # fmt: skip
NO_SELECTOR: Final = 0x10000  #: equal to none


def area_operand(field: Field, size: int | None = None) -> Memory:
    """A word of the area, as an operand of a translation; size in bits."""
    bits = field.size * 8 if size is None else size
    return Memory(None, None, 1, field.address - VCPU_PAGE, bits, GS)


def linear(field: Field) -> int:
    """Where the translator has a word of the area."""
    return AREA + field.address - VCPU_PAGE


#: The entry of TARGETS whose number is in ECX.
TARGET_OPERAND: Final = Memory(None, ECX, 4, TARGETS - AREA, 32, GS)
R_EAX, R_ECX, R_AX, R_CX = (
    GENERAL[32][EAX], GENERAL[32][ECX], GENERAL[16][EAX], GENERAL[16][ECX]
)  # fmt: skip
