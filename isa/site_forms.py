"""What a site is made of: forms, their steps under a hypervisor, and their padded twins.

A form is a kind of site; which one an instruction gets follows from its row. `isa/sites.py` says
what sites are for and what a hypervisor does with them; this module writes their code, by the
encoder, so that no byte of it is spelled out. `isa/paravirt.py` has the memory they work on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final

from isa.decoder import Instruction, decode
from isa.encoder import encode
from isa.errors import DecodeError, SiteError
from isa.operands import (
    CS,
    DS,
    EAX,
    EBX,
    ECX,
    ESP,
    GENERAL,
    SEGMENT_PREFIXES,
    SS,
    Immediate,
    Memory,
    Operand,
    Register,
    Relative,
    SegmentRegister,
)
from isa.paravirt import (
    FLAGS_BASE,
    HYPERCALL_VECTOR,
    HYPERVISOR,
    IF_FLAG,
    IF_WORD,
    SAVE_EAX,
    SAVE_ECX,
    SAVE_FLAGS,
    SAVE_IF,
    Field,
)
from isa.row import FLAG_BITS, Row

MAXIMUM_LENGTH: Final = 15
INT_LENGTH: Final = 2


class Lost(Enum):
    """Guest state that a site has overwritten, and where it is."""

    EAX = "eax"  #: in SAVE_EAX
    ECX = "ecx"  #: in SAVE_ECX
    EDX = "edx"  #: in SAVE_EDX
    ESP = "esp"  #: four bytes below where it was: add 4
    FLAGS = "flags"  #: SF ZF AF PF CF and OF, in SAVE_FLAGS
    IF = "if"  #: if_word, in SAVE_IF


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a site."""

    offset: int  #: from the site's start, bytes
    code: bytes
    weight: int  #: ticks of guest time when it retires: 0 or 1
    lost: frozenset[Lost] = frozenset()  #: what differs from the site's start when it begins
    released: int = 0  #: bytes by which ESP is above where it was

    @property
    def length(self) -> int:
        return len(self.code)


class Writer:
    """A site's steps, being written.

    What a site reaches its memory by, and how it asks for its original, is a paravirtual kernel's
    here; whoever else can use the same code says otherwise (hypervisor/translator/writer.py).
    """

    #: Put before the IRET that leaves the kernel.
    before_iret: bytes = b""

    def __init__(self) -> None:
        self.data = b""
        self.steps: list[Step] = []

    def field(self, field: Field) -> Memory:
        """A word of the vCPU area, as an operand."""
        # Through SS: a kernel has one at all times, of its own; DS may be a program's.
        return Memory(None, None, 1, field.address, field.size * 8, SS)

    def step(self, code: bytes, lost: Iterable[Lost] = (), *, weight: int = 0) -> None:
        self.steps.append(Step(len(self.data), code, weight, frozenset(lost)))
        self.data += code

    def do(self, mnemonic: str, *operands: Operand, lost: Iterable[Lost] = ()) -> None:
        self.step(encode(mnemonic, operands, address=len(self.data)).data, lost)

    def hypercall(self, original: bytes, lost: Iterable[Lost] = ()) -> None:
        """The exit, and the instruction it asks for, which is never reached."""
        self.do("int", Immediate(HYPERCALL_VECTOR, 0), lost=lost)
        self.data += original

    def hypercall_size(self, original: bytes) -> int:
        """Bytes that `hypercall` takes."""
        return INT_LENGTH + len(original)

    def last_counts(self) -> None:
        """Give the last step weight 1."""
        last = self.steps.pop()
        self.steps.append(replace(last, weight=1))


_EAX, _ECX, _AL = GENERAL[32][EAX], GENERAL[32][ECX], GENERAL[8][EAX]


def _stack(offset: int, size: int) -> Memory:
    return Memory(ESP, None, 1, offset, size)


#: Where `_load` has the RPL: bits 30 and 31 of ECX.
_RPL: Final = 30


def _number(value: int) -> Immediate:
    return Immediate(value, 0)


def flag_mask(letters: str) -> int:
    """EFLAGS bits by the letters of `isa/row.py`; IOPL has two."""
    return sum((3 if letter == "l" else 1) << FLAG_BITS[letter] for letter in letters)


# -- What each form is under a hypervisor ----------------------------------------------------------


def _generic(code: Writer, original: bytes) -> None:
    code.hypercall(original)


def _load(code: Writer, original: bytes) -> None:
    """DS, ES, FS or GS is loaded as it stands, unless it is with RPL 1 or 2.

    Such a selector may name no descriptor of DPL 0, but ring 1 has only seen those raised to DPL 1.
    The two bits are moved to the top of ECX, by what changes no flag: then RPL 0 is zero there, and
    RPL 3 becomes zero by adding one more.
    """
    read, selector = _selector(original)
    code.do("mov", code.field(SAVE_ECX), _ECX)
    if read is not None:
        code.do("mov", _ECX, read)
    lost = {Lost.ECX}
    code.do("movzx", _ECX, selector, lost=lost)
    code.do("bswap", _ECX, lost=lost)
    code.do("lea", _ECX, Memory(None, ECX, 8, 0), lost=lost)
    code.do("lea", _ECX, Memory(None, ECX, 8, 0), lost=lost)
    again = encode("lea", (_ECX, Memory(ECX, None, 1, 1 << _RPL))).data
    fast = len(code.data) + 2 + len(again) + 2 + code.hypercall_size(original)
    code.do("jecxz", Relative(fast, 8), lost=lost)
    code.step(again, lost)
    code.do("jecxz", Relative(fast, 8), lost=lost)
    code.hypercall(original, lost)
    code.do("mov", _ECX, code.field(SAVE_ECX), lost=lost)
    code.step(original, weight=1)


def _selector(original: bytes) -> tuple[Register | None, Operand]:
    """Where a load's selector has its low byte; first, what must be moved to ECX to have one."""
    source = decode(original).operands[-1]
    if isinstance(source, Memory):
        return None, replace(source, size=8)
    if isinstance(source, SegmentRegister):  # POP
        return None, _stack(0, 8)
    assert isinstance(source, Register)
    if source.number <= EBX:
        return None, GENERAL[8][source.number]
    return GENERAL[32][source.number], GENERAL[8][ECX]


def _may_load(instruction: Instruction) -> bool:
    """Can a load of a segment register be done in ring 1? SS must have the real ring."""
    operands = instruction.operands
    memory = next((o for o in operands if isinstance(o, Memory)), None)
    free = memory is None or ECX not in (memory.base, memory.index)
    return free and not _shows_ring(instruction)


def _cli(code: Writer, original: bytes) -> None:
    code.do("mov", code.field(IF_FLAG), _number(0))
    code.last_counts()


def _sti(code: Writer, original: bytes) -> None:
    code.do("mov", code.field(IF_FLAG), _number(1))
    code.last_counts()


def _pushf(code: Writer, original: bytes) -> None:
    """No flag may change, so sums are LEA's. Only the first two steps can fault."""
    code.do("mov", code.field(SAVE_EAX), _EAX)
    code.step(original)
    code.do("mov", code.field(SAVE_ECX), _ECX, lost={Lost.ESP})
    code.do("mov", _EAX, code.field(IF_WORD), lost={Lost.ESP})
    code.do("mov", _ECX, code.field(FLAGS_BASE), lost={Lost.ESP, Lost.EAX})
    both = {Lost.EAX, Lost.ECX}
    code.do("lea", _ECX, Memory(ECX, EAX, 2, 0), lost={Lost.ESP, *both})
    code.do("pop", _EAX, lost={Lost.ESP, *both})
    code.do("lea", _EAX, Memory(EAX, ECX, 1, 0), lost=both)
    code.do("push", _EAX, lost=both)
    code.do("mov", _EAX, code.field(SAVE_EAX), lost={Lost.ESP, *both})
    code.do("mov", _ECX, code.field(SAVE_ECX), lost={Lost.ESP, Lost.ECX})
    code.last_counts()


def _popf(code: Writer, original: bytes) -> None:
    """Flags and the virtual IF may change, for all that do are popped in the end: nothing is lost.

    The first step reads all that POPF will, so no other faults on guest memory.
    """
    code.do("test", _stack(0, 32), _number(flag_mask("tln")))
    fast = len(code.data) + 2 + code.hypercall_size(original)
    code.do("jz", Relative(fast, 8))
    code.hypercall(original)
    code.do("bt", _stack(0, 32), _number(FLAG_BITS["i"]))
    code.do("setc", code.field(IF_FLAG))
    code.step(original, weight=1)


def _iret(code: Writer, original: bytes) -> None:
    """To ring 3 with IF = 1 and nothing unusual, without an exit; else a hypercall."""
    write_iret_to_ring_3(code, original)
    code.hypercall(original, {Lost.FLAGS})


def write_iret_to_ring_3(code: Writer, original: bytes) -> None:
    """IRET if it is to ring 3 with IF = 1 and nothing unusual; else on with what is written next.

    There flags are lost, and SAVE_IF has IF. RF, which the frame of a fault has, is loaded in every
    ring. The real IRET may still fault, with flags and virtual IF as before: hence the saving.
    """
    eax, flags = Lost.EAX, Lost.FLAGS
    unusual, ring = flag_mask("tlnv"), 3
    code.do("mov", code.field(SAVE_EAX), _EAX)
    code.do("lahf")
    code.do("seto", _AL, lost={eax})
    code.do("mov", code.field(SAVE_FLAGS), _EAX, lost={eax})
    code.do("mov", _EAX, code.field(IF_WORD), lost={eax})
    code.do("mov", code.field(SAVE_IF), _EAX, lost={eax})
    code.do("mov", _EAX, _stack(8, 32), lost={eax})
    code.do("mov", _AL, _stack(4, 8), lost={eax})
    code.do("and", _EAX, _number(unusual | flag_mask("i") | ring), lost={eax})
    code.do("cmp", _EAX, _number(flag_mask("i") | ring), lost={eax, flags})
    code.do("mov", _EAX, code.field(SAVE_EAX), lost={eax, flags})
    fast_size = len(encode("mov", (code.field(IF_FLAG), _number(1))).data)
    fast_size += len(code.before_iret) + len(original)
    code.do("jnz", Relative(len(code.data) + 2 + fast_size, 8), lost={flags})
    code.do("mov", code.field(IF_FLAG), _number(1), lost={flags})
    if code.before_iret:
        code.step(code.before_iret, {flags, Lost.IF})
    code.step(original, {flags, Lost.IF}, weight=1)


# -- Forms -----------------------------------------------------------------------------------------


class Twin(Enum):
    """How the native variant pads the original."""

    PREFIXES = "prefixes"  #: one instruction
    #: The original, then no-operations, of which the last counts; no interrupt is taken between
    #: them, for what is padded so lets none in that was not taken before it.
    FIRST = "first"
    #: The original, then bytes that are never reached.
    ONLY = "only"
    #: No-operations, then the original: POPF may let an interrupt in, which must find EIP behind
    #: the site.
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of site."""

    number: int  #: in a note
    name: str
    write: Callable[[Writer, bytes], None]
    twin: Twin
    opcode: bytes | None = None  #: the only bytes it can stand for; None: any
    room: int = MAXIMUM_LENGTH  #: the longest original it can stand for, bytes


GENERIC: Final = Form(1, "hypercall", _generic, Twin.PREFIXES, room=MAXIMUM_LENGTH - 2)
LOAD: Final = Form(2, "load", _load, Twin.FIRST)
FORMS: Final = (
    GENERIC,
    LOAD,
    Form(3, "cli", _cli, Twin.PREFIXES, b"\xfa"),
    Form(4, "sti", _sti, Twin.PREFIXES, b"\xfb"),
    Form(5, "pushf", _pushf, Twin.FIRST, b"\x9c"),
    Form(6, "popf", _popf, Twin.LAST, b"\x9d"),
    Form(7, "iret", _iret, Twin.ONLY, b"\xcf"),
)
FORM_BY_NAME: Final = {form.name: form for form in FORMS}
FORM_BY_NUMBER: Final = {form.number: form for form in FORMS}

#: Forms by a row's body, where it is not GENERIC. INT3 and INTO leave ring 1 by gates of the
#: hypervisor's own; that of INT n may lead to the guest, and then its frame shows ring 1.
_FORM_OF_BODY: Final[dict[str, Form | None]] = {
    **{name: FORM_BY_NAME[name] for name in ("cli", "sti", "pushf", "popf", "iret")},
    **dict.fromkeys(("mov_to_sreg", "pop_sreg"), LOAD),
    **dict.fromkeys(("int3", "into")),
}
#: What shows a selector. DS, ES, FS and GS hold the guest's own even in ring 1.
_SHOWS_SELECTOR: Final = frozenset({"mov_from_sreg", "push_sreg"})
#: Privileges that ring 1 has not. RDTSC's depends on CR4.TSD, which the hypervisor can set.
_REFUSED: Final = frozenset({"cpl0", "iopl", "io"})


def replaced(row: Row) -> bool:
    """Whether kernel code cannot execute a row in ring 1 as in ring 0, with some operands."""
    sensitive = row.unsafe or row.privilege in _REFUSED
    return sensitive and _FORM_OF_BODY.get(row.body, GENERIC) is not None


def _shows_ring(instruction: Instruction) -> bool:
    """Is an operand CS or SS, whose selectors have the real ring?"""
    segments = [o.number for o in instruction.operands if isinstance(o, SegmentRegister)]
    return CS in segments or SS in segments


@lru_cache(maxsize=1 << 12)
def form_of(original: bytes) -> Form | None:
    """The form of the site that replaces an instruction; None where none is needed.

    `SiteError` if the instruction is too long to be replaced.
    """
    try:
        instruction = decode(original)
    except DecodeError:
        return None  # it raises #UD in every ring
    row = instruction.row
    if not replaced(row) or (row.body in _SHOWS_SELECTOR and not _shows_ring(instruction)):
        return None
    form = _FORM_OF_BODY.get(row.body, GENERIC) or GENERIC
    if row.body == "int" and original[-1] == HYPERCALL_VECTOR:
        return None  # the kernel speaks to its hypervisor
    if form.opcode is not None and form.opcode != original:
        form = GENERIC  # with a prefix, PUSHF and its like mean something else
    if form is LOAD and not _may_load(instruction):
        form = GENERIC
    if len(original) > form.room:
        raise SiteError(
            f"an instruction of {len(original)} bytes cannot be replaced: at most {form.room}"
        )
    return form


def _padding_prefix(original: bytes) -> int:
    """The prefix that, put before an instruction, changes nothing: its own segment's."""
    instruction = decode(original)
    segment = instruction.prefixes.segment
    memory = next((o for o in instruction.operands if isinstance(o, Memory)), None)
    if segment is None:
        segment = DS if memory is None else memory.default_segment
    return SEGMENT_PREFIXES[segment]


def _no_operations(size: int) -> list[bytes]:
    """As few no-operations as fill so many bytes."""
    longest = bytes.fromhex("660f1f840000000000")
    shorter = [
        b"\x90", b"\x66\x90", bytes.fromhex("0f1f00"), bytes.fromhex("0f1f4000"),
        bytes.fromhex("0f1f440000"), bytes.fromhex("660f1f440000"),
        bytes.fromhex("0f1f8000000000"), bytes.fromhex("0f1f840000000000"),
    ]  # fmt: skip
    count, rest = divmod(size, len(longest))
    return [longest] * count + ([shorter[rest - 1]] if rest else [])


def _twin(form: Form, original: bytes, size: int) -> Writer:
    code = Writer()
    padding = size - len(original)
    if form.twin is Twin.PREFIXES:
        code.step(bytes([_padding_prefix(original)]) * padding + original, weight=1)
        return code
    fill = _no_operations(padding)
    order = [*fill, original] if form.twin is Twin.LAST else [original, *fill]
    for piece in order:
        code.step(piece, weight=1 if form.twin is Twin.ONLY and piece is original else 0)
    if form.twin is not Twin.ONLY:
        code.last_counts()
    return code


@lru_cache(maxsize=1 << 12)
def _written(variant: str, form: Form, original: bytes) -> Writer:
    code = Writer()
    form.write(code, original)
    return code if variant == HYPERVISOR else _twin(form, original, len(code.data))


def code_of(variant: str, form: Form, original: bytes) -> bytes:
    """The bytes of a site."""
    return _written(variant, form, original).data


def steps_of(variant: str, form: Form, original: bytes) -> tuple[Step, ...]:
    """Its instructions."""
    return tuple(_written(variant, form, original).steps)
