"""The contract between a paravirtual kernel and its hypervisor: one vector and a few words.

A kernel built by ``seventeen asm --paravirt`` runs in ring 1 with the real IF = 1 and IOPL = 0. Its
sensitive instructions have become *sites* (`isa/sites.py`): some exit by `int HYPERCALL_VECTOR`,
most are plain code on the vCPU area, two pages at a fixed linear address. Both sides take every
number from here; `hypervisor/hypercalls.py` has what a kernel may ask for by name.

The pages differ in when the hypervisor lets ring 1 write them. A store that faults is an exit, and
the hypervisor then executes the site's original instruction for the guest: so a page made read-only
turns all sites that store to it into exits, and the hypervisor may do it whenever it is in doubt.

Ring 1 reaches the area through SS, which must have base 0 and a limit that lets it. In any other
segment the same offset would be another linear address, so the hypervisor must end stack segments
with another base below VCPU_PAGE: then the access faults, and the original is executed for the
guest. Segments of ring 3 never need to reach the area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: `int HYPERCALL_VECTOR`: at a site, "execute the instruction that follows for me"; anywhere else
#: a hypercall by number in EAX.
HYPERCALL_VECTOR: Final = 0x82

#: Linear address of the vCPU area, the first part of the monitor area; and its size in bytes.
VCPU_PAGE: Final = 0xFFC0_0000
VCPU_AREA_BYTES: Final = 2 * 4096


@dataclass(frozen=True, slots=True)
class Field:
    """A word of the vCPU area: linear address, and size in bytes."""

    name: str
    address: int
    size: int
    meaning: str


# The first page: read-only while an interrupt waits, and while the virtual IOPL is not 0 or the
# virtual TF is 1. Ring 1 may always read it.
IF_WORD: Final = Field(
    "if_word", VCPU_PAGE, 4, "if_flag in byte 1, zeros around it: twice the word is EFLAGS.IF"
)
IF_FLAG: Final = Field("if_flag", VCPU_PAGE + 1, 1, "the virtual IF: 0 or 1")

# The second page: always writable. What ring 1 leaves in it means something within a site only.
SAVE_EAX: Final = Field("save_eax", VCPU_PAGE + 0x1000, 4, "EAX as it was when the site began")
SAVE_ECX: Final = Field("save_ecx", VCPU_PAGE + 0x1004, 4, "ECX as it was when the site began")
SAVE_FLAGS: Final = Field(
    "save_flags", VCPU_PAGE + 0x1008, 4, "AH as LAHF left it; AL is OF (0 or 1)"
)
SAVE_IF: Final = Field("save_if", VCPU_PAGE + 0x100C, 4, "if_word as it was when the site began")
FLAGS_BASE: Final = Field(
    "flags_base", VCPU_PAGE + 0x1010, 4,
    "what PUSHF adds to the real EFLAGS beside the virtual IF: (virtual IOPL << 12) - 0x200",
)  # fmt: skip

SAVE_EDX: Final = Field("save_edx", VCPU_PAGE + 0x1014, 4, "EDX as it was when the site began")

FIELDS: Final = (IF_WORD, IF_FLAG, SAVE_EAX, SAVE_ECX, SAVE_EDX, SAVE_FLAGS, SAVE_IF, FLAGS_BASE)

#: The two images that are made of one source with equal layout: the one for a hypervisor, and its
#: twin for the bare machine, which is what the first is compared with.
HYPERVISOR: Final = "hypervisor"
NATIVE: Final = "native"
VARIANTS: Final = (HYPERVISOR, NATIVE)
