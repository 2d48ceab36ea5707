"""Disagreements with silicon that were found once, each by name, smallest case first."""

from __future__ import annotations

from typing import Any

import pytest

from isa.decoder import decode
from isa.errors import DecodeError
from isa.table import ROWS
from tests.oracles.case import (
    AC,
    AREA,
    CODE,
    CS,
    DATA,
    DS,
    FLAGS_AT_START,
    FLAT,
    SS,
    ZF,
    Case,
    Descriptor,
    Kind,
    ldt_selector,
)
from tests.oracles.native import Native
from tests.silicon.compare import agree, describe
from tests.silicon.oracle import Silicon

LDT = (
    Descriptor(CODE, 0x1FFF, Kind.CODE, pages=False),
    Descriptor(DATA + 0x100),
    Descriptor(DATA, 0x1001, pages=False),
)
SHORT_CODE, BASED, ENDING = map(ldt_selector, range(3))
ALIGNED = FLAGS_AT_START | AC
TOP = 0xFFFFFFFE


def registers(**named: int) -> tuple[int, ...]:
    """Eight registers, those not named zero; ESP in the middle of the data pages."""
    order = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    return tuple(named.get(name, DATA + 0x1000 if name == "esp" else 0) for name in order)


def using(segment: int, selector: int) -> dict[str, Any]:
    """Fields of a case that has `selector` in one segment register and flat ones elsewhere."""
    return {"selectors": (*FLAT[:segment], selector, *FLAT[segment + 1 :]), "ldt": LDT}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "call of 16 bits pushes 16 bits": ("66 e8 00 00", {}),
    "lock needs a memory destination": ("f0 12 06", {"registers": registers(esi=DATA)}),
    "load over the end of a flat segment": ("8b 06", {"registers": registers(esi=TOP)}),
    "update over the end of a flat segment": ("01 06", {"registers": registers(esi=TOP)}),
    "store over the end of a flat segment": ("89 45 00", {"registers": registers(ebp=TOP)}),
    "push over the end of a flat segment": ("50", {"registers": registers(esp=2)}),
    "pop over the end of a flat segment": ("58", {"registers": registers(esp=TOP)}),
    "pop over the end of a flat segment, to another": (
        "64 8f 00",
        {"registers": registers(esp=TOP, eax=DATA)},
    ),
    "leave over the end of a flat segment": ("c9", {"registers": registers(ebp=TOP)}),
    "enter over the end of a flat segment": ("c8 00 00 00", {"registers": registers(esp=2)}),
    "load over the end of a segment of 4 GiB with a base": (
        "8b 06",
        {"registers": registers(esi=TOP), **using(DS, BASED)},
    ),
    "pusha reports its first push": ("60", {"registers": registers(esp=DATA)}),
    "pusha reports the push that crosses": ("60", {"registers": registers(esp=DATA + 6)}),
    "pusha over the end of a flat segment": ("60", {"registers": registers(esp=1)}),
    "a trap comes before the fault of falling off the code segment": (
        "90",
        {"address": CODE + AREA - 1, **using(CS, SHORT_CODE)},
    ),
    "far call reports its first push": (
        "9a 00 00 40 00 23 00",
        {"registers": registers(esp=DATA)},
    ),
    "far return reads the selector first": ("cb", {"registers": registers(esp=0)}),
    "iret reads the flags first": ("cf", {"registers": registers(esp=0)}),
    "cmps reads ES:EDI first": ("a7", {"registers": registers(esi=0x1000, edi=0x2000)}),
    "les reads the offset before the selector's limit counts": (
        "c4 06",
        {"registers": registers(esi=0xFFE), **using(DS, ENDING)},
    ),
    "les of an unmapped offset at the end of its segment": (
        "c4 06",
        {"registers": registers(esi=TOP - 2)},
    ),
    "loopz not taken does not look at its target": (
        "e1 7c",
        {"address": CODE + AREA - 2, "registers": registers(ecx=2), **using(CS, SHORT_CODE)},
    ),
    "loopz taken does": (
        "e1 7c",
        {
            "address": CODE + AREA - 2,
            "registers": registers(ecx=2),
            "eflags": FLAGS_AT_START | ZF,
            **using(CS, SHORT_CODE),
        },
    ),
    "alignment check of a load": (
        "8b 06",
        {"registers": registers(esi=DATA + 2), "eflags": ALIGNED},
    ),
    "alignment check comes before the page fault": (
        "8b 06",
        {"registers": registers(esi=2), "eflags": ALIGNED},
    ),
    "alignment check comes after the limit": (
        "8b 06",
        {"registers": registers(esi=0xFFF), "eflags": ALIGNED, **using(DS, ENDING)},
    ),
    "alignment check of a push": ("50", {"registers": registers(esp=DATA + 6), "eflags": ALIGNED}),
    "alignment check of a far pointer is by parts": (
        "c5 06",
        {"registers": registers(esi=DATA + 4), "eflags": ALIGNED},
    ),
    "alignment check of cmpxchg8b is of 8 bytes": (
        "0f c7 0e",
        {"registers": registers(esi=DATA + 4), "eflags": ALIGNED},
    ),
    "alignment check of a far call": (
        "9a 00 00 40 00 23 00",
        {"registers": registers(esp=DATA + 0x102), "eflags": ALIGNED},
    ),
    "alignment check of a stack with a base": (
        "58",
        {"registers": registers(esp=0x102), "eflags": ALIGNED, **using(SS, BASED)},
    ),
}


@pytest.mark.parametrize("steps", [1, 0])
@pytest.mark.parametrize("name", CASES)
def test_agrees(silicon: Silicon, name: str, steps: int) -> None:
    code, fields = CASES[name]
    case = Case(bytes.fromhex(code), **{"registers": registers(), "steps": steps} | fields)
    (theirs,), (ours,) = (who.run_batch([case]) for who in (silicon, Native(silicon.low_mapped)))
    try:
        row = decode(case.code, case.eip).row
    except DecodeError:
        row = next(row for row in ROWS if row.mnemonic == "ud2")
    assert agree(row, case, theirs, ours), describe(row, case, theirs, ours)
