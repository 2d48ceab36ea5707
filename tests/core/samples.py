"""Setups for `World`: programs drawn from the table, and random bytes, by a seeded generator.

`program` makes code of any row at any ring, with memory operands that lie in plain memory, in the
code itself, across pages, on the device or in ROM. `bytes_setup` has no such manners.
"""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from isa.decoder import decode
from isa.operands import ECX, EDI, EDX, ESI, ESP, Memory
from isa.row import Row
from isa.sampling import INTERESTING, aim, random_instruction, random_value
from isa.strategies import set_register
from isa.table import ROWS
from tests.core.world import (
    ALIAS,
    CODE,
    CODE_OF,
    DATA,
    DATA_OF,
    DATA_SIZE,
    DEVICE,
    DIRECTORY,
    EFLAGS_IF,
    GDT,
    HIGH_TABLE,
    IDT,
    LDT,
    LOW_TABLE,
    ROM,
    SPARE,
    TSS,
    Setup,
)

TF, DF, IOPL, AC = 0x100, 0x400, 0x3000, 0x40000
EXISTING: Final = 0x257FD5  #: EFLAGS bits that are not fixed, less VM
CR0_AM, CR0_WP, CR0_TS = 1 << 18, 1 << 16, 8
#: Any row but those that change the tables' places: programs would end at once.
TABLE_ROWS: Final = frozenset({"lgdt", "lidt", "lldt", "ltr", "hlt"})
PROGRAM_ROWS: Final = tuple(row for row in ROWS if row.mnemonic not in TABLE_ROWS)
STRING_ROWS: Final = tuple(row for row in ROWS if row.rep)


def target(rng: Random, paging: bool) -> int:
    """An address that something interesting happens at."""
    kind = rng.randrange(12)
    if kind < 5:
        at = DATA + rng.randrange(DATA_SIZE)
    elif kind < 7:
        at = CODE + rng.randrange(0x140)
    elif kind < 9:
        at = DATA + 0x1000 * rng.randrange(1, 6) - rng.randrange(1, 9)
    else:
        at = rng.choice((DEVICE, DEVICE - 2, ROM, CODE + 0xFFE, ROM + 0xFFF)) + rng.randrange(3)
    return at + ALIAS if paging and rng.randrange(3) == 0 else at


def _aimed(rng: Random, code: bytes, paging: bool) -> bytes:
    """`code` behind what makes its memory operands lie at a target."""
    instruction = decode(code)
    wanted = aim(instruction, target(rng, paging))
    before = b""
    if instruction.row.rep:
        wanted |= {ESI: target(rng, paging), EDI: target(rng, paging)}
        if instruction.prefixes.repeat is not None:
            count = rng.choice((0, 1, 2, 3, 5, 9, 40, 1500))
            before += set_register(ECX, count)
    if instruction.row.mnemonic in ("in", "out", "ins", "outs"):
        before += set_register(EDX, rng.randrange(0x110))
    for number, value in wanted.items():
        if number != ESP or rng.randrange(8) == 0:
            before += set_register(number, value)
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.base is None and operand.index is None:
            old = operand.displacement.to_bytes(4, "little")
            code = code.replace(old, target(rng, paging).to_bytes(4, "little"))
    return before + code


def _instruction(rng: Random, row: Row, ring: int) -> bytes:
    """An encoding of `row`; jumps stay near, far pointers name our segments."""
    code = bytearray(random_instruction(rng, row, address_16=rng.randrange(8) == 0))
    short = 0x66 in code[:3]
    if row.operands and row.operands[0] in ("Jb", "Jz"):
        size = 1 if row.operands[0] == "Jb" else 2 if short else 4
        code[-size:] = rng.randrange(-40, 40).to_bytes(size, "little", signed=True)
    elif row.parsed.immediates == ("cp",):
        size = 2 if short else 4
        code[-2:] = (rng.choice(CODE_OF) | rng.randrange(4)).to_bytes(2, "little")
        offset = CODE + rng.randrange(0x100) & (1 << 8 * size) - 1
        code[-2 - size : -2] = offset.to_bytes(size, "little")
    return bytes(code)


def _pushes(rng: Random, row: Row, ring: int) -> bytes:
    """What a far return, POPF or POP of a segment register may find on the stack."""
    if row.mnemonic in ("iret", "retf"):
        outer = rng.randrange(ring, 4)
        frame = [DATA_OF[outer] | outer, DATA + 0x3000, flags(rng), CODE_OF[outer] | outer,
                 CODE + rng.randrange(0x100)]  # fmt: skip
        if row.mnemonic == "retf":
            del frame[2]
        frame = frame[2 if row.mnemonic == "iret" and outer == ring else 0 :]
    elif row.mnemonic == "popf":
        frame = [flags(rng)]
    elif row.mnemonic == "pop" and row.operands[0] in ("ES", "SS", "DS", "FS", "GS"):
        frame = [rng.choice((*DATA_OF, *CODE_OF, SPARE)) | rng.randrange(4)]
    else:
        return b""
    return b"".join(b"\x68" + struct.pack("<I", value) for value in frame)


def flags(rng: Random) -> int:
    value = rng.getrandbits(12) & ~(TF | EFLAGS_IF)
    value |= rng.choice((0, 0, EFLAGS_IF))
    value |= rng.choice((0, 0, 0, 0, TF)) | rng.choice((0, IOPL)) | rng.choice((0, 0, AC))
    return value & ~DF | rng.choice((0, 0, DF))


def program(rng: Random, rows: tuple[Row, ...] = PROGRAM_ROWS, length: int = 25) -> Setup:
    """A program of `length` drawn instructions, and what it runs under."""
    ring, paging = rng.choice((0, 0, 1, 3, 3)), rng.randrange(2) == 1
    code = b""
    for _ in range(rng.randrange(1, length)):
        row = rows[rng.randrange(len(rows))]
        code += _pushes(rng, row, ring) + _aimed(rng, _instruction(rng, row, ring), paging)
    code += b"\xe9" + struct.pack("<i", -len(code) - 5)
    entry = CODE if rng.randrange(3) else CODE + 0x1000 - rng.randrange(min(len(code), 0x100))
    return Setup(
        code=code,
        registers=(*(random_value(rng, 32) for _ in range(4)), DATA + 0x3000 - 4 * rng.randrange(4),
                   DATA + 0x3100, target(rng, paging), target(rng, paging)),
        memory=_extras(rng, paging),
        entry=entry, flags=flags(rng) & EXISTING, ring=ring, paging=paging,
        cr0=rng.choice((0, CR0_WP, CR0_WP, CR0_AM, CR0_AM | CR0_WP, CR0_TS)),
        cr4=rng.choice((0, 0, 4, 8, 16, 28)),
        debug=_debug(rng),
        segments=_segments(rng, ring),
        interrupts=tuple(sorted(rng.randrange(300) for _ in range(rng.randrange(4)))),
    )  # fmt: skip


def _debug(rng: Random) -> tuple[tuple[int, int], ...]:
    if rng.randrange(6):
        return ()
    places = ((n, rng.choice((CODE, DATA)) + rng.randrange(0x100)) for n in range(4))
    return (*places, (7, rng.getrandbits(32) & 0xFFFF00FF | 0x400))


def _segments(rng: Random, ring: int) -> tuple[tuple[int, int], ...]:
    """Now and then a data segment with a base or a limit, or a limited code segment."""
    if rng.randrange(4):
        return ()
    number = rng.choice((0, 1, 3, 3, 4, 5))
    return ((number, SPARE + 8 * (number == 1) | ring),)


def _extras(rng: Random, paging: bool) -> tuple[tuple[int, bytes], ...]:
    """Spare descriptors, data to read, and pages with other frames or rights than most."""
    ring = rng.randrange(4)
    base, limit = rng.choice((0, 0, 0x1000)), rng.choice((0xFFFFF, DATA + 0x2000, CODE + 0x60))
    spare = limit & 0xFFFF | base << 16 | (0x92 | ring << 5) << 40 | (4 << 4 | limit >> 16) << 48
    code = 0xFFFF | (0x9A | ring << 5) << 40 | 0x41 << 48  # 128 KiB, not flat
    extras = [(GDT + SPARE, struct.pack("<QQ", spare, code)),
              (DATA, rng.randbytes(0x200)), (DATA + 0x1F00, rng.randbytes(0x200))]  # fmt: skip
    if paging:
        for _ in range(rng.randrange(6)):
            page = rng.choice((DATA >> 12, CODE >> 12)) + rng.randrange(6)
            frame = rng.choice((DATA >> 12, CODE >> 12, DEVICE >> 12)) + rng.randrange(2)
            entry = frame << 12 | rng.choice((7, 7, 3, 5, 1, 0)) | 0x60
            table = rng.choice((LOW_TABLE, HIGH_TABLE, HIGH_TABLE))
            if table == LOW_TABLE and page < (DATA >> 12):
                continue  # the program itself stays where it is
            extras.append((table + page * 4, struct.pack("<I", entry)))
    return tuple(extras)


# -- No manners -----------------------------------------------------------------------------------


def bytes_setup(rng: Random) -> Setup:
    """Random bytes as code, some of them opcodes that the slice has; tables scribbled over."""
    ring, paging = rng.choice((0, 0, 1, 2, 3, 3)), rng.randrange(2) == 1
    code = b""
    while len(code) < rng.randrange(16, 400):
        if rng.randrange(3):
            code += rng.randbytes(rng.randrange(1, 8))
        else:
            code += random_instruction(rng, ROWS[rng.randrange(len(ROWS))])
    values = (*INTERESTING, CODE, DATA, DEVICE, GDT, IDT, TSS, LDT, DIRECTORY, LOW_TABLE)
    return Setup(
        code=code,
        registers=tuple(rng.choice(values) + rng.randrange(-4, 5) & 0xFFFFFFFF for _ in range(8)),
        memory=_scribbles(rng),
        entry=rng.choice((CODE, CODE + 0xFF0, 0x7FFF0 - len(code))),
        flags=rng.getrandbits(22) & EXISTING & ~0x14000 | rng.choice((0, TF, EFLAGS_IF)),
        ring=ring, paging=paging, cr0=rng.getrandbits(19) & 0x5002E, cr4=rng.getrandbits(5) & 28,
        debug=_debug(rng), segments=_any_segments(rng, ring),
        interrupts=tuple(sorted(rng.randrange(200) for _ in range(rng.randrange(3)))),
    )  # fmt: skip


def _any_segments(rng: Random, ring: int) -> tuple[tuple[int, int], ...]:
    """Data segments that random descriptors describe; as if they had been loaded before."""
    return tuple((n, SPARE + 8 * rng.randrange(8) | ring) for n in (0, 3, 4, 5) if rng.randrange(2))


def _descriptor(rng: Random) -> int:
    value = rng.getrandbits(64)
    if rng.randrange(3):  # present, and of a base and limit that reach memory
        value = value & 0x00FF_FF00_0003_FFFF | 0x00CF_8000_0000_0000
    return value


def _scribbles(rng: Random) -> tuple[tuple[int, bytes], ...]:
    found = [(GDT + SPARE + 8 * i, struct.pack("<Q", _descriptor(rng))) for i in range(8)]
    for _ in range(rng.randrange(4)):
        found.append((LDT + 8 * rng.randrange(16), struct.pack("<Q", _descriptor(rng))))
        gate = _descriptor(rng) & ~0xFFFF_FFFF | CODE_OF[0] << 16 | CODE & 0xFFFF
        found.append((IDT + 8 * rng.randrange(18), struct.pack("<Q", gate)))
    for _ in range(rng.randrange(3)):
        found.append((TSS + rng.randrange(0x68), rng.randbytes(4)))
        table = rng.choice((LOW_TABLE, HIGH_TABLE))
        found.append((table + 4 * rng.randrange(0x80), rng.randbytes(4)))
        found.append((DIRECTORY + 4 * rng.randrange(4), rng.randbytes(4)))
    found.append((DATA, rng.randbytes(0x100)))
    return tuple(found)
