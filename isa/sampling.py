"""Random instructions from the table, by a seeded generator: the fast half of the strategies.

`random_instruction` writes an encoding of a given row byte by byte: any addressing form, operand
size, interesting immediates, and prefixes where they have a meaning. It uses neither encoder nor
decoder, so it can test both. `aim` finds register values with which an instruction's memory
operands lie where a test wants them. `isa/strategies.py` wraps both for Hypothesis; read it next.

Left out on purpose: F2 and F3 on rows where they mean nothing (later processors have made other
instructions of some of these), and repeated prefixes of one group.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from isa.decoder import Instruction
from isa.operands import EBP, ESP, SEGMENTS, Memory
from isa.row import FIXED_OPERANDS, Row
from isa.table import ROWS

#: Values at the edges of the operand sizes, cut to the size where they are used.
INTERESTING: Final = (
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 0x7F, 0x80, 0x81, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFF7F,
    0xFF80, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFF8000, 0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFFFF,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a row's encodings can vary in, worked out once."""

    opcode: bytes  #: REP of pause, map and first opcode byte
    low: int  #: how many values the low opcode bits take
    sizes: tuple[bool, ...]  #: operand-size prefix: absent, present
    rep: tuple[int, ...]  #: repeat prefixes that mean something
    addresses: bool  #: some operand is in memory, so address size and segment can matter
    modrm: bool
    forms: str  #: "r" registers only, "m" memory only, "rm" both
    reg: tuple[int, ...]  #: the values ModRM.reg takes
    lock: bool  #: LOCK is legal where ModRM is memory
    tail: tuple[str, ...]  #: immediates: of OPCODE_TOKENS


def _plan(row: Row) -> _Plan:
    parsed = row.parsed
    kinds = {code[0] for code in row.operands if code not in FIXED_OPERANDS}
    reg: tuple[int, ...] = tuple(range(8)) if parsed.digit is None else (parsed.digit,)
    if "S" in kinds:
        reg = tuple(n for n in range(len(SEGMENTS)) if n != 1 or row.operands[0] != "Sw")
    elif "C" in kinds:
        reg = (0, 2, 3, 4)
    head = b"\xf3" * parsed.repeat + b"\x0f" * parsed.two_byte + bytes([parsed.byte])
    return _Plan(
        opcode=head,
        low={"": 1, "r": 8, "cc": 16}[parsed.low],
        sizes=(False, True) if parsed.operand_size is None else (parsed.operand_size == 16,),
        rep={"": (), "rep": (0xF3, 0xF2), "repz": (0xF3, 0xF2)}[row.rep],
        addresses=bool(kinds & set("EMOXYJ")) or row.cost == "load",  # xlat has no operand
        modrm=parsed.modrm,
        forms="r" if "R" in kinds else "m" if "M" in kinds else "rm",
        reg=reg,
        lock=row.lock and bool(row.operands) and row.operands[0][0] in "EM",
        tail=parsed.immediates,
    )


_PLANS: Final = tuple(_plan(row) for row in ROWS)


def random_value(rng: Random, bits: int) -> int:
    """An unsigned value of `bits` bits, half the time one of `INTERESTING`."""
    if rng.getrandbits(1):
        return rng.getrandbits(bits)
    return INTERESTING[rng.getrandbits(8) % len(INTERESTING)] & ((1 << bits) - 1)


def _memory_tail(rng: Random, mod: int, rm: int, address_16: bool) -> bytes:
    """SIB and displacement bytes of a ModRM that names memory."""
    if address_16:
        size = 2 if mod == 2 or (mod == 0 and rm == 6) else mod
        return random_value(rng, 8 * size).to_bytes(size, "little") if size else b""
    sib = b""
    base = rm
    if rm == ESP:
        byte = rng.getrandbits(8)
        sib, base = bytes([byte]), byte & 7
    size = 4 if mod == 2 or (mod == 0 and base == EBP) else mod
    return sib + random_value(rng, 8 * size).to_bytes(size, "little") if size else sib


def _immediates(rng: Random, tokens: tuple[str, ...], operand_16: bool, address_16: bool) -> bytes:
    tail = b""
    for token in tokens:
        if token in ("ib", "cb"):
            size = 1
        elif token == "iw":
            size = 2
        elif token == "mo":
            size = 2 if address_16 else 4
        elif token == "cp":
            size = 4 if operand_16 else 6
        else:
            size = 2 if operand_16 else 4
        tail += random_value(rng, 8 * size).to_bytes(size, "little")
    return tail


def random_instruction(
    rng: Random, row: Row, *, prefixes: bool = True, address_16: bool = True
) -> bytes:
    """One encoding of `row`, always a legal one that decodes to it (at most 15 bytes).

    `prefixes` False leaves out all that the row does not demand; `address_16` False only the
    address-size prefix. Costs about 5 us.
    """
    plan = _PLANS[row.id]
    dice = rng.getrandbits(32) if prefixes else 0
    operand_16 = plan.sizes[dice & 3 == 3] if len(plan.sizes) == 2 else plan.sizes[0]
    address_size = address_16 and plan.addresses and dice >> 2 & 7 == 7
    found = [0x66] if operand_16 else []
    if address_size:
        found.append(0x67)
    if plan.addresses and dice >> 5 & 3 == 3:
        found.append(SEGMENTS[(dice >> 8 & 0xFF) % len(SEGMENTS)].prefix)
    if plan.rep and dice >> 16 & 1:
        found.append(plan.rep[dice >> 17 & 1])
    body = plan.opcode
    if plan.low > 1:
        body = body[:-1] + bytes([body[-1] + _low_bits(rng, row, plan)])
    if plan.modrm:
        modrm = rng.getrandbits(8)
        mod = modrm >> 6
        if plan.forms != "rm":
            mod = 3 if plan.forms == "r" else mod % 3
        rm = modrm & 7
        reg = plan.reg[(modrm >> 3 & 7) % len(plan.reg)]
        body += bytes([mod << 6 | reg << 3 | rm])
        if mod != 3:
            body += _memory_tail(rng, mod, rm, address_size)
            if plan.lock and dice >> 18 & 7 == 7:
                found.append(0xF0)
    if plan.tail:
        body += _immediates(rng, plan.tail, operand_16, address_size)
    if len(found) > 1 and dice >> 21 & 1:
        found.reverse()
    return bytes(found) + body


def _low_bits(rng: Random, row: Row, plan: _Plan) -> int:
    """A condition, or a register; not the one of 90 (xchg eax,eax), which is the row of nop."""
    low = rng.getrandbits(4) % plan.low
    return low or 1 if row.parsed.byte == 0x90 and not row.parsed.two_byte else low


def aim(instruction: Instruction, target: int, scratch: int = 1) -> dict[int, int]:
    """Values of general registers with which memory operands lie at `target` or just above.

    The offset reached is at most 8 bytes off `target`, because an index is scaled; `scratch` is
    the value given to an index that stands beside a base. Nothing can be done for a plain
    displacement or 16-bit addressing: then the answer lacks an operand, or is empty.
    """
    values: dict[int, int] = {}
    for operand in instruction.operands:
        if not isinstance(operand, Memory) or operand.address_size != 32:
            continue
        base, index, scale = operand.base, operand.index, operand.scale
        rest = (target - operand.displacement) & 0xFFFFFFFF
        if base is not None and base == index:
            values[base] = rest // (1 + scale)
        elif base is not None and index is not None:
            values[index] = scratch
            values[base] = (rest - scratch * scale) & 0xFFFFFFFF
        elif base is not None:
            values[base] = rest
        elif index is not None:
            values[index] = rest // scale
    return values


def user_rows(rows: Iterable[Row] = ROWS) -> tuple[Row, ...]:
    """Rows a user-mode program may use freely: neither sensitive nor privileged, no transfers."""
    return tuple(row for row in rows if row.verdict == "safe" and not row.ends)


def jump_rows(rows: Iterable[Row] = ROWS) -> tuple[Row, ...]:
    """Rows that jump, or call, by a displacement."""
    return tuple(row for row in rows if row.operands and row.operands[0] in ("Jb", "Jz"))
