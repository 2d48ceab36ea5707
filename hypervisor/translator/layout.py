"""Where the translator keeps things in the monitor area, and what a translation may touch there.

    CODE         the translation cache: read-only to ring 1, in reach of its CS alone, which is
                 execute-only and ends with it. Data segments end below it.
    AREA         the vCPU area (isa/paravirt.py has its words), in reach of the translator's GS
    TARGETS      behind it in the same segment, read-only: for the low 16 bits of an EIP, where
                 the translation of such a place is entered (transfers.py); one for the kernel's
                 code, one for ring 3's

A translation runs with CS and GS the translator's, and all other segment registers the guest's.
"""

from __future__ import annotations

from typing import Final

from hypervisor import segments
from hypervisor.monitor import GDT, MONITOR
from hypervisor.segments import KERNEL_RING, Segment
from hypervisor.world import USER
from isa.operands import EAX, ECX, GENERAL, GS, Memory
from isa.paravirt import VCPU_AREA_BYTES, VCPU_PAGE, Field

PAGE: Final = 4096
CODE: Final = MONITOR + 0x40000
MOST_CODE: Final = 0x240000  #: bytes of cache that there is room for
AREA: Final = MONITOR + 0x2C0000
TARGET_BITS: Final = 16  #: of an EIP, that choose its entry in TARGETS
TARGETS_BYTES: Final = 4 << TARGET_BITS
KERNEL_TARGETS: Final = AREA + VCPU_AREA_BYTES
USER_TARGETS: Final = KERNEL_TARGETS + TARGETS_BYTES
#: Pages of tables that adaptive stores may write (stores.py), by the low bits of their linear page:
#: ALIASES says which they are, WINDOWS has them, SHADOWS their shadows, read-only.
WINDOW_COUNT: Final = 64
ALIASES: Final = USER_TARGETS + TARGETS_BYTES
WINDOWS: Final = ALIASES + PAGE
SHADOWS: Final = WINDOWS + WINDOW_COUNT * PAGE
AREA_END: Final = SHADOWS + WINDOW_COUNT * PAGE
assert CODE + MOST_CODE <= AREA < AREA_END <= GDT
#: Selectors of the shadow GDT; the RPL is that of the ring.
AREA_SELECTOR: Final = 0xFFE0
CODE_SELECTORS: Final = {KERNEL_RING: 0xFFE8, USER: 0xFFD8}
#: `int OWN_VECTOR` in a translation asks for the hypervisor. A guest's INT is never executed there.
OWN_VECTOR: Final = 0x83


def _memory(ring: int) -> int:
    used = segments.ACCESSED | segments.MEMORY | segments.PRESENT | segments.BIG
    return used | ring << segments.DPL_SHIFT


def area_segment(ring: int) -> Segment:
    """The GS of translations, down to a ring."""
    kind = _memory(ring) | segments.WRITABLE | segments.GRANULARITY
    return Segment(kind, AREA, AREA_END - AREA - 1)


def code_segment(ring: int, size: int) -> Segment:
    """The CS of those in a cache of so many bytes."""
    kind = _memory(ring) | segments.CODE | segments.GRANULARITY
    return Segment(kind, 0, CODE + size - 1)


#: Words that translations use beside those of isa/paravirt.py. All but PATIENCE and WANTED are
#: written by the hypervisor alone.
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
PATIENCE: Final = _word(
    10, "patience", "how many adaptive stores in a row may still find no alias; less than 0: none"
)
WANTED: Final = _word(11, "wanted", "the EIP that is looked for in TARGETS")
SAME_CS: Final = _word(12, "same_cs", "the guest's CS, if loading it changes nothing")
OWN_FIELDS: Final = (
    PATIENCE, WANTED, SAME_CS,
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


#: The entry whose number is in ECX, of the kernel's targets and of ring 3's.
TARGET_OPERANDS: Final = {
    user: Memory(None, ECX, 4, table - AREA, 32, GS)
    for user, table in ((False, KERNEL_TARGETS), (True, USER_TARGETS))
}
R_EAX, R_ECX, R_CX = GENERAL[32][EAX], GENERAL[32][ECX], GENERAL[16][ECX]
