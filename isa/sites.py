"""Sites: what stands in a paravirtual image where its source has a sensitive instruction.

A site has a form, chosen by the instruction's row, and one size in both variants of the image:

    hypervisor  code that does in ring 1 what the original does in ring 0 (isa/paravirt.py says on
                what memory), or `int HYPERCALL_VECTOR` with the original's bytes behind it
    native      the original, padded: where that makes an instruction of at most 15 bytes, by a
                segment prefix, repeated, that changes nothing; so the site is one instruction

Steps have a retire weight, so that a site counts as one guest instruction however it is made, and
the interrupts of both variants are taken at the same places. `int` has weight 0: the hypervisor
counts the instruction it executes.

What the hypervisor does about a fault (or `int`) inside a site is the same for all of them. A fault
of its own making, such as a missing shadow page, it repairs and resumes. Else it puts back what the
step's `lost` says, executes the original for the guest, and goes on behind the site; should that
fault, the guest sees the fault at `Site.restart`, where the twin's original stands.

`isa/site_forms.py` makes their code and `isa/assembler/passes.py` puts them into images; `Site` is
how everybody else sees them. A list of them goes with an image as an ELF note.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from isa.decoder import decode
from isa.errors import DecodeError, SiteError
from isa.paravirt import (
    HYPERVISOR,
    SAVE_EAX,
    SAVE_ECX,
    SAVE_EDX,
    SAVE_FLAGS,
    SAVE_IF,
    VARIANTS,
    Field,
)
from isa.row import Row
from isa.site_forms import (
    FORM_BY_NAME,
    FORM_BY_NUMBER,
    Form,
    Lost,
    Step,
    Twin,
    code_of,
    flag_mask,
    form_of,
    steps_of,
)


@dataclass(frozen=True, slots=True)
class Site:
    """A sensitive instruction of the source, and what stands for it in the image."""

    address: int  #: of its first byte, an offset in CS: what its label says
    form: str  #: a name of FORMS
    original: bytes
    variant: str = HYPERVISOR

    @property
    def code(self) -> bytes:
        return code_of(self.variant, FORM_BY_NAME[self.form], self.original)

    @property
    def size(self) -> int:
        return len(self.code)

    @property
    def end(self) -> int:
        """Where the guest goes on."""
        return self.address + self.size

    @property
    def steps(self) -> Sequence[Step]:
        """Its instructions in order of address; bytes behind an `int` are no step."""
        return steps_of(self.variant, FORM_BY_NAME[self.form], self.original)

    @property
    def weightless(self) -> tuple[int, ...]:
        """Offsets of the steps of retire weight 0."""
        return tuple(step.offset for step in self.steps if step.weight == 0)

    @property
    def restart(self) -> int:
        """Where the guest sees its original instruction: the EIP of a fault that it raises.

        A guest that goes there wants the instruction executed: the hypervisor takes it to
        `address`, which is the same place but for `popf`.
        """
        last = FORM_BY_NAME[self.form].twin is Twin.LAST
        return self.end - len(self.original) if last else self.address

    @property
    def row(self) -> Row:
        """The original's row."""
        return decode(self.original).row

    @property
    def mnemonic(self) -> str:
        return decode(self.original).mnemonic

    def step_at(self, eip: int) -> Step | None:
        """The step that begins at an address; None if none does."""
        return next((step for step in self.steps if self.address + step.offset == eip), None)


#: EFLAGS that LAHF takes, and OF, which it does not.
_LAHF: Final = flag_mask("szapc")
_OVERFLOW: Final = flag_mask("o")


def put_back(step: Step, esp: int, eflags: int, read: Callable[[Field], int]) -> dict[str, int]:
    """What must be set for the guest to stand at its site's start, when it stands at a step.

    `esp` and `eflags` are the real ones, `read` reads the vCPU area. The keys are of `eax`, `ecx`,
    `edx`, `esp`, `eflags` and `if_word`.
    """
    values: dict[str, int] = {}
    if Lost.EAX in step.lost:
        values["eax"] = read(SAVE_EAX)
    if Lost.ECX in step.lost:
        values["ecx"] = read(SAVE_ECX)
    if Lost.EDX in step.lost:
        values["edx"] = read(SAVE_EDX)
    if Lost.ESP in step.lost or step.released:
        lower = 4 if Lost.ESP in step.lost else 0
        values["esp"] = (esp + lower - step.released) & 0xFFFFFFFF
    if Lost.FLAGS in step.lost:
        saved = read(SAVE_FLAGS)
        flags = eflags & ~(_LAHF | _OVERFLOW) | saved >> 8 & _LAHF
        values["eflags"] = flags | (_OVERFLOW if saved & 1 else 0)
    if Lost.IF in step.lost:
        values["if_word"] = read(SAVE_IF) & 0x100
    return values


# -- The list that goes with an image --------------------------------------------------------------

NOTE_SECTION: Final = ".note.seventeen.sites"
NOTE_OWNER: Final = b"Seventeen\0"
NOTE_TYPE: Final = 17
_NOTE: Final = struct.Struct("<III")  #: sizes of name and description, type
_HEAD: Final = struct.Struct("<II")  #: variant (index in VARIANTS), number of sites
_SITE: Final = struct.Struct("<IBB15s")  #: address, form, length of the original, its bytes


def _aligned(size: int) -> int:
    return -(-size // 4) * 4


def write_note(variant: str, sites: Sequence[Site]) -> bytes:
    """The ELF note that says which variant an image is, and where its sites are."""
    body = _HEAD.pack(VARIANTS.index(variant), len(sites))
    for site in sites:
        number = FORM_BY_NAME[site.form].number
        body += _SITE.pack(site.address, number, len(site.original), site.original)
    name = NOTE_OWNER.ljust(_aligned(len(NOTE_OWNER)), b"\0")
    note = _NOTE.pack(len(NOTE_OWNER), len(body), NOTE_TYPE) + name + body
    return note.ljust(_aligned(len(note)), b"\0")


def read_note(data: bytes) -> tuple[str, tuple[Site, ...]] | None:
    """Variant and sites from the notes of an ELF; None if none of them is ours.

    `SiteError` if one is, and broken.
    """
    position = 0
    while position + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, position)
        position += _NOTE.size
        name = data[position : position + name_size]
        position += _aligned(name_size)
        if name == NOTE_OWNER and kind == NOTE_TYPE:
            return _read_list(data[position : position + size], size)
        position += _aligned(size)
    return None


def _read_list(body: bytes, size: int) -> tuple[str, tuple[Site, ...]]:
    if len(body) < size or size < _HEAD.size:
        raise SiteError(f"the list of sites ends early: expected {size} bytes, found {len(body)}")
    index, count = _HEAD.unpack_from(body)
    if index >= len(VARIANTS) or size != _HEAD.size + count * _SITE.size:
        raise SiteError("the list of sites has a broken head")
    variant = VARIANTS[index]
    sites = []
    for address, number, length, data in _SITE.iter_unpack(body[_HEAD.size :]):
        original = data[:length]
        form = FORM_BY_NUMBER.get(number)
        if form is None or not _fits(form, original):
            raise SiteError(f"the site at {address:#x} is none that this version makes")
        sites.append(Site(address, form.name, original, variant))
    return variant, tuple(sites)


def _fits(form: Form, original: bytes) -> bool:
    try:
        return form_of(original) is form and decode(original).length == len(original)
    except (DecodeError, SiteError):
        return False
