"""Source lines over every row of the table and every form an operand can take.

From operand codes to texts, by the table alone; a row added to it is tested without a word here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Final

from isa.operands import GENERAL_NAMES, SEGMENT_NAMES
from isa.row import FIXED_OPERANDS, Row
from isa.table import ALIASES, CONDITION_NAMES, ROWS

ADDRESSES: Final = (
    "ebx", "ebp", "esp", "eax+5", "ebp-5", "esp+0x80", "ecx-0x80", "edx-0x81", "edi+0x12345678",
    "5", "0x12345678", "-1", "eax+ecx", "ecx+eax", "eax+eax", "eax*2", "eax*1", "2*eax", "eax*4",
    "eax*8", "eax*3", "eax*5+5", "eax*9-0x100", "esp+eax", "eax+esp", "esp+eax*4", "eax*4+esp",
    "ebp+eax*2", "eax*2+ebp", "ebp*2", "ebp*1+eax", "eax+ebp*1", "ebp+ebp", "ebp*3", "esi+edi*8+4",
    "edi*4+esi-4", "eax+ebx*2+0x7f", "ebx*4+0x1000", "eax*2+0", "nosplit eax*2", "nosplit eax*1",
    "nosplit eax+eax", "nosplit eax*3", "nosplit eax*2+ebx", "byte eax", "byte eax+5",
    "dword eax+5", "dword eax", "dword ebp+ecx*2", "byte ebp+ecx", "dword 5", "word 5",
    "eax+0xffffffff", "eax+0xffffff80", "eax+0xffffff7f", "bx", "bp", "si", "di", "bx+si", "si+bx",
    "bp+di", "di+bp-5", "bx+di+0x7f", "bp+si+0x80", "bp+0", "bx+0xffff", "word bx+5", "byte bx",
    "di+0x1234", "es:ebx", "ds:ebx", "ss:ebp+5", "cs:5", "fs:0", "gs:ecx*4+ebx", "fs:bx+si",
    "eax-(-5)", "eax+2*3-1", "eax+ecx-ecx", "ecx+eax*2-ecx", "(eax+5)*2", "(eax+ebx*2)*2+4",
    "eax*4-eax", "5+eax+5", "-5+ebp", "eax+ecx*1", "eax*1+ecx", "eax*1+ecx*1", "ecx*1+eax*1",
    "esp*1+eax", "eax*1+esp", "esp*1", "ebx+esp*1",
)  # fmt: skip
IMMEDIATES: Final = (
    "0", "1", "5", "-1", "127", "128", "-128", "-129", "255", "256", "0xff80", "0xffff",
    "0xffffff80", "0xffffffff", "0x7fffffff", "0x80000000", "'a'",
    "'ab'", "'abcd'", "1000", "byte 5",
    "byte -1", "word 5", "dword 5", "strict byte 5", "strict word 5", "strict dword 5", "strict 5",
    "word 0x1234", "dword 0x12345678", "dword -1", "byte 1", "strict 1", "2+3*4",
)  # fmt: skip
TARGETS: Final = (
    "$", "$+2", "$-126", "$+129", "$+130", "$-200", "short $", "near $", "dword $", "word $",
    "strict near $", "strict short $", "strict $",
)  # fmt: skip
FAR: Final = ("8:5", "0x10:0x12345678", "word 8:5", "dword 8:5", "8:-1")
SIZE_WORDS: Final = ("", "byte ", "word ", "dword ", "qword ")


def spellings(row: Row) -> list[str]:
    """Every mnemonic that can mean a row."""
    if row.parsed.low == "cc":
        stem = row.mnemonic.removesuffix("cc")
        names = [stem + suffix for suffixes in CONDITION_NAMES for suffix in suffixes]
    else:
        names = [row.mnemonic]
    return names + [alias for alias, (name, _) in ALIASES.items() if name == row.mnemonic]


def texts(code: str) -> list[str]:
    """Every text tried for an operand code: what it takes, and near misses in size."""
    if code in FIXED_OPERANDS:
        return {"eAX": ["eax", "ax"], "1": ["1"], "3": ["3"]}.get(code, [code.lower()])
    memory = [size + f"[{address}]" for address in ADDRESSES for size in SIZE_WORDS]
    registers = [name for names in GENERAL_NAMES.values() for name in names]
    kinds = {
        "E": [*memory, *registers], "M": memory, "R": registers, "G": registers, "Z": registers,
        "S": list(SEGMENT_NAMES), "C": [f"cr{n}" for n in (0, 2, 3, 4)],
        "D": [f"dr{n}" for n in range(8)], "I": list(IMMEDIATES), "J": list(TARGETS),
        "A": list(FAR), "O": memory, "X": [], "Y": [],
    }  # fmt: skip
    return kinds[code[0]]


def lines_of(row: Row, random_source: random.Random, count: int) -> Iterator[str]:
    """So many lines that could mean a row; every single operand text if `count` allows."""
    names = spellings(row)
    codes = [code for code in row.operands if code[0] not in "XY"]
    choices = [texts(code) for code in codes]
    if not codes:
        for name in names:
            yield name
            for prefix in ("rep", "repne", "lock", "o16", "a16", "es", "fs", "rep es"):
                yield f"{prefix} {name}"
        return
    if codes == ["Mp"] or codes == ["Ap"]:
        choices[0] = [*choices[0], *(f"far {text}" for text in choices[0])]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total * len(names) <= count:
        yield from (
            f"{name} {', '.join(combination)}"
            for name in names
            for combination in itertools.product(*choices)
        )
        return
    for _ in range(count):
        operands = ", ".join(random_source.choice(choice) for choice in choices)
        prefix = random_source.choice([""] * 12 + ["lock ", "es ", "o16 ", "a16 ", "rep ", "o32 "])
        yield f"{prefix}{random_source.choice(names)} {operands}"


def every_line(seed: int, per_row: int) -> list[str]:
    """Distinct lines over all rows, the same for the same seed."""
    random_source = random.Random(seed)
    found: dict[str, None] = {}
    for row in ROWS:
        found.update(dict.fromkeys(lines_of(row, random_source, per_row)))
    return list(found)
