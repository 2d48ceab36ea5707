"""The type of one row of the instruction table, and the rules every row must keep.

A row is one encoding in the words of the SDM (volume 2, "Instruction Format" and appendix A.2):
its opcode string (``81 /0 iz``), its operand codes (``Ev,Iz``) and the columns from which
everything else follows. `isa/table.py` holds the rows; `isa/decoder.py`, `isa/encoder.py` and
`isa/generate/` derive from them. Read `table.py` next.

Opcode strings are made of

    o16 o32    only with that operand size (where the mnemonic depends on it, as cbw/cwde)
    F3         only with a REP prefix (pause)
    0F         the two-byte map
    81         the opcode byte; ``50+r`` a register in its low bits, ``70+cc`` a condition
    /r /0../7  a ModRM byte; a digit extends the opcode
    ib iw iz   immediates of 8, 16, operand-size bits; cb cz: displacements relative to the next
               instruction; cp: a far pointer; mo: an address-size memory offset

Operand codes are a kind and a width. Kinds: E register or memory by ModRM, M memory only, R
register only, G register by ModRM.reg, Z register in the opcode, S segment register, C control
register, D debug register, I immediate, J relative target, A far pointer, O memory offset,
X the string source at DS:ESI, Y the string destination at ES:EDI. Widths: b 8, w 16, d 32, q 64,
v operand size (16 or 32), z immediate of operand size, bs byte sign-extended to operand size,
vw operand size in a register but 16 bits in memory, p far pointer in memory (16 bits of selector
after an offset of operand size), s the 6-byte pseudo-descriptor, a the pair of bounds. Fixed
operands stand as themselves: AL eAX CL DX 1 3 and the segment registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from isa.errors import TableError

#: EFLAGS bit numbers by the letter that the flag columns use (SDM vol. 1, 3.4.3).
FLAG_BITS: Final = {
    "c": 0, "p": 2, "a": 4, "z": 6, "s": 7, "t": 8, "i": 9, "d": 10, "o": 11,
    "l": 12, "n": 14, "r": 16, "v": 17, "k": 18, "x": 21,
}  # fmt: skip

#: Conditions under which a row's flags (or destination) are undefined. ``count`` is the masked
#: shift or rotate count, ``size`` the operand size in bits, ``source`` the source operand.
CONDITIONS: Final = frozenset(
    {"always", "count!=0", "count>1", "count>size", "count>=size", "source=0", "size=16"}
)
PRIVILEGES: Final = frozenset({"", "cpl0", "iopl", "io", "tsd"})
#: What becomes of a guest kernel's instruction in a translation: itself, code, or a callout.
TRANSLATIONS: Final = frozenset({"identical", "code", "callout"})
SENSITIVITIES: Final = frozenset({"", "control", "behaviour", "both"})
OPCODE_TOKENS: Final = frozenset({"ib", "iw", "iz", "cb", "cz", "cp", "mo"})
FIXED_OPERANDS: Final = frozenset(
    {"AL", "eAX", "CL", "DX", "1", "3", "ES", "CS", "SS", "DS", "FS", "GS"}
)
OPERAND_KINDS: Final = frozenset("EMRGZSCDIJAOXY")
OPERAND_WIDTHS: Final = frozenset({"", "b", "w", "d", "q", "v", "vw", "z", "bs", "p", "s", "a"})


@dataclass(frozen=True, slots=True)
class Undefined:
    """Flags (letters of `FLAG_BITS`), or the destination (``*``), undefined under a condition."""

    what: str
    condition: str


@dataclass(frozen=True, slots=True)
class Opcode:
    """An opcode string, parsed."""

    operand_size: int | None  #: 16 or 32 where the row exists for that size only
    repeat: bool  #: only with a REP prefix
    two_byte: bool
    byte: int
    low: str  #: "" | "r" (register) | "cc" (condition): what the low opcode bits hold
    modrm: bool
    digit: int | None  #: ModRM.reg as an opcode extension
    immediates: tuple[str, ...]  #: of OPCODE_TOKENS, in order

    @property
    def bytes_covered(self) -> range:
        """The opcode bytes this row takes in its map."""
        return range(self.byte, self.byte + {"": 1, "r": 8, "cc": 16}[self.low])


def parse_opcode(text: str) -> Opcode:
    """Parse an opcode string as the module docstring describes it; `TableError` if malformed."""
    size: int | None = None
    two_byte = repeat = False
    byte: int | None = None
    low, modrm, digit = "", False, None
    immediates: list[str] = []
    for token in text.split():
        if token in ("o16", "o32"):
            size = int(token[1:])
        elif token in OPCODE_TOKENS:
            immediates.append(token)
        elif token.startswith("/"):
            modrm = True
            digit = None if token == "/r" else int(token[1:])
        elif token == "F3" and byte is None:
            repeat = True
        elif token == "0F" and byte is None and not two_byte:
            two_byte = True
        elif byte is None:
            head, _, low = token.partition("+")
            byte = int(head, 16)
        else:
            raise TableError(f"opcode {text!r}: unexpected {token!r}")
    if byte is None:
        raise TableError(f"opcode {text!r}: no opcode byte")
    if low not in ("", "r", "cc"):
        raise TableError(f"opcode {text!r}: expected +r or +cc, found +{low}")
    return Opcode(size, repeat, two_byte, byte, low, modrm, digit, tuple(immediates))


@dataclass(frozen=True, slots=True)
class Row:
    """One encoding. Columns hold facts only; what uses them is elsewhere."""

    id: int  #: position in the table; the C core knows rows by it
    mnemonic: str  #: NASM's spelling; "jcc", "setcc", "cmovcc" stand for sixteen conditions
    opcode: str
    operands: tuple[str, ...]
    access: str  #: per operand: r reads, w writes, u reads and writes, a address only, c custom
    title: str  #: what it does, in a few words
    writes: str = ""  #: EFLAGS letters it may write
    reads: str = ""  #: EFLAGS letters its result depends on
    counted: str | None = None  #: of shifts: what it reads if the masked count is not zero
    undefined: tuple[Undefined, ...] = ()
    privilege: str = ""  #: cpl0 | iopl | io (IOPL, then bitmap) | tsd (CPL 0 if CR4.TSD)
    sensitive: str = ""  #: control | behaviour | both
    leaks: str = ""  #: an unsafe row: what it leaks or silently drops at CPL > 0
    cite: str = ""  #: an unsafe row: its place in Robin and Irvine (2000)
    ends: bool = False  #: ends a pre-decoded block
    cost: str = "alu"  #: a key of isa.cost.INSTRUCTION_CYCLES
    tour: bool = False  #: on the newcomer's card
    lock: bool = False  #: LOCK is legal when the destination is memory
    rep: str = ""  #: "" | rep | repz: which repeat prefixes have a meaning
    inline: bool = False  #: hot: the executor has a case of its own for each form
    translation: str = ""  #: of TRANSLATIONS; empty: identical if it is safe, else a callout
    fuses: bool = False  #: with a conditional jump right after it: one case for both
    body: str = ""  #: the C body is op_<body>; the mnemonic where empty
    omitted: int | None = None  #: what its immediate operand is when none is written (aam, aad)
    order: str = ""  #: "" | any | reversed: operands may be written in either order; reversed:
    #: and of two registers NASM puts the first into ModRM.reg
    memory_only: bool = field(default=False, init=False)
    parsed: Opcode = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parsed", parse_opcode(self.opcode))
        object.__setattr__(self, "body", self.body or self.mnemonic)
        usual = "callout" if self.sensitive or self.privileged else "identical"
        object.__setattr__(self, "translation", self.translation or usual)
        object.__setattr__(self, "memory_only", any(o[0] == "M" for o in self.operands))

    @property
    def privileged(self) -> bool:
        """Traps when executed without privilege (IOPL- and TSD-conditional rows included)."""
        return self.privilege != ""

    @property
    def unsafe(self) -> bool:
        """Sensitive and not privileged: what breaks Popek and Goldberg's first theorem."""
        return self.sensitive != "" and not self.privileged

    @property
    def verdict(self) -> str:
        """safe | privileged | sensitive (and privileged) | unsafe."""
        if self.unsafe:
            return "unsafe"
        if self.sensitive:
            return "sensitive"
        return "privileged" if self.privileged else "safe"

    def __str__(self) -> str:
        return f"{self.mnemonic} {','.join(self.operands)} ({self.opcode})"


def check_row(row: Row) -> None:
    """Raise `TableError` where a row's columns contradict each other or the vocabulary."""

    def expect(condition: bool, message: str) -> None:
        if not condition:
            raise TableError(f"row {row}: {message}")

    expect(len(row.access) == len(row.operands), f"access {row.access!r}: one letter per operand")
    expect(set(row.access) <= set("rwuac"), f"access {row.access!r}: letters are r w u a c")
    for operand in row.operands:
        known = operand in FIXED_OPERANDS or (
            operand[0] in OPERAND_KINDS and operand[1:] in OPERAND_WIDTHS
        )
        expect(known, f"unknown operand code {operand!r}")
    needs_modrm = any(o[0] in "EMRGSCD" for o in row.operands if o not in FIXED_OPERANDS)
    expect(needs_modrm <= row.parsed.modrm, "a ModRM operand needs /r or /digit in the opcode")
    for letters in (row.writes, row.reads):
        expect(set(letters) <= set(FLAG_BITS), f"unknown flag letter in {letters!r}")
    for undefined in row.undefined:
        expect(undefined.condition in CONDITIONS, f"unknown condition {undefined.condition!r}")
        expect(set(undefined.what) <= {*FLAG_BITS, "*"}, f"unknown flag in {undefined.what!r}")
    expect(row.privilege in PRIVILEGES, f"unknown privilege {row.privilege!r}")
    expect(row.sensitive in SENSITIVITIES, f"unknown sensitivity {row.sensitive!r}")
    expect(row.translation in TRANSLATIONS, f"unknown translation {row.translation!r}")
    same = row.translation == "identical"
    expect(not (same and row.unsafe), "an unsafe instruction cannot be translated to itself")
    expect(row.order in ("", "any", "reversed"), f"unknown order {row.order!r}")
    expect(row.unsafe == bool(row.leaks), "exactly the unsafe rows say what they leak")


def check_rows(rows: tuple[Row, ...]) -> None:
    """Validate every row, and refuse two rows that claim the same bytes; `TableError`.

    A row of one opcode byte may stand inside the eight of a ``+r`` row: nop is xchg eax,eax.
    """
    claimed: dict[tuple[int | bool | str, ...], Row] = {}
    for row in rows:
        check_row(row)
        parsed = row.parsed
        digits = range(8) if parsed.digit is None else (parsed.digit,)
        for size in (16, 32) if parsed.operand_size is None else (parsed.operand_size,):
            for byte in parsed.bytes_covered:
                for digit in digits:
                    key = (size, parsed.repeat, parsed.two_byte, byte, digit, parsed.low == "r")
                    other = claimed.setdefault(key, row)
                    if other is not row:
                        raise TableError(f"rows {other} and {row} claim the same encoding")
