"""Instructions that load, store and look at descriptor tables: exact results and faults."""

from __future__ import annotations

import struct

import pytest

from tests.core.lab import (
    CONFORMING,
    DATA,
    FREE,
    FREE2,
    GDT_ENTRIES,
    GP,
    LDT_SELECTOR,
    NP,
    READABLE,
    TSS_SELECTOR,
    WRITABLE,
    Lab,
    descriptor,
    dpl,
)

BEYOND = GDT_ENTRIES * 8  #: the first selector outside the GDT


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_sgdt_stores_32_bits_of_base_at_any_operand_size(lab: Lab) -> None:
    lab.state.gdtr.base, lab.state.gdtr.limit = 0x12345678, 0x9ABC
    lab.run("sgdt [DATA]\no16 sgdt [DATA+8]\nhlt")
    assert lab.memory.read(DATA, 6) == struct.pack("<HI", 0x9ABC, 0x12345678)
    assert lab.memory.read(DATA + 8, 6) == struct.pack("<HI", 0x9ABC, 0x12345678)


def test_lgdt_lidt_take_24_bits_at_operand_size_16(lab: Lab) -> None:
    lab.memory.write(DATA, struct.pack("<HI", 0x0FFF, 0x12345678))
    lab.run("lgdt [DATA]\no16 lidt [DATA]\nhlt")
    assert (lab.state.gdtr.base, lab.state.gdtr.limit) == (0x12345678, 0xFFF)
    assert (lab.state.idtr.base, lab.state.idtr.limit) == (0x345678, 0xFFF)


@pytest.mark.parametrize("name", ["lgdt", "lidt", "lldt", "ltr", "lmsw", "invlpg"])
def test_table_loads_are_privileged(lab: Lab, name: str) -> None:
    lab.ring(3)
    operand = "[DATA]" if name in ("lgdt", "lidt", "invlpg") else "ax"
    assert lab.run(f"{name} {operand}").fault == (GP, 0)


def test_store_words(lab: Lab) -> None:
    lab.ring(3)
    lab.put32(DATA, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    source = "sldt [DATA]\nstr [DATA+4]\nsmsw [DATA+8]\nsldt eax\nstr ebx\nsmsw ecx\nint 0x80"
    assert lab.run(source).vector == 0x80
    assert lab.get32(DATA) == 0xFFFF0000 | LDT_SELECTOR
    assert lab.get32(DATA + 4) == 0xFFFF0000 | TSS_SELECTOR
    assert lab.get32(DATA + 8) == 0xFFFF0000 | lab.cpu["cr0"]
    assert [lab.cpu[r] for r in ("eax", "ebx", "ecx")] == [
        LDT_SELECTOR, TSS_SELECTOR, lab.cpu["cr0"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "access", "expected"),
    [
        (FREE, 0x89, None),
        (FREE, 0x81, None),
        (0, 0x89, (GP, 0)),
        (FREE, 0x8B, (GP, FREE)),  # busy
        (FREE, 0x82, (GP, FREE)),
        (FREE, 0x09, (NP, FREE)),
        (FREE, 0x99, (GP, FREE)),
        (FREE | 4, 0x89, (GP, FREE | 4)),
        (BEYOND, 0x89, (GP, BEYOND)),
    ],
)
def test_ltr(lab: Lab, selector: int, access: int, expected: tuple[int, int] | None) -> None:
    lab.set_gdt(FREE, descriptor(0x9000, 0x67, access, big=False))
    outcome = lab.run(f"mov ax, {selector}\nltr ax\nhlt")
    assert outcome.fault == expected
    if expected is None:
        assert lab.access(FREE) == access | 2
        assert (lab.state.tr.selector, lab.state.tr.base, lab.state.tr.limit) == (
            FREE,
            0x9000,
            0x67,
        )
    else:
        assert lab.state.tr.selector == TSS_SELECTOR


@pytest.mark.parametrize(
    ("selector", "access", "expected"),
    [
        (FREE, 0x82, None),
        (0, 0x82, None),
        (FREE, 0x89, (GP, FREE)),
        (FREE, 0x02, (NP, FREE)),
        (FREE | 4, 0x82, (GP, FREE | 4)),
    ],
)
def test_lldt(lab: Lab, selector: int, access: int, expected: tuple[int, int] | None) -> None:
    lab.set_gdt(FREE, descriptor(0x9000, 0x17, access, big=False))
    assert lab.run(f"mov ax, {selector}\nlldt ax\nhlt").fault == expected
    assert lab.state.ldtr.selector == (LDT_SELECTOR if expected else selector)


#: System types for which LAR and LSL set ZF (SDM vol. 2).
LAR_TYPES = {1, 2, 3, 4, 5, 9, 11, 12}
LSL_TYPES = {1, 2, 3, 9, 11}


@pytest.mark.parametrize("kind", range(32))
def test_lar_lsl_verr_verw_by_type(lab: Lab, kind: int) -> None:
    lab.set_gdt(FREE, descriptor(0, 0x12345, PRESENT_DPL3 | kind, pages=False))
    ordinary, code = bool(kind & 16), bool(kind & 8)
    expected = (
        ordinary or kind in LAR_TYPES,
        ordinary or kind in LSL_TYPES,
        ordinary and (not code or bool(kind & 2)),
        ordinary and not code and bool(kind & 2),
    )
    lab.run(
        """
        mov ecx, FREE
        mov eax, -1
        mov ebx, -1
        lar eax, ecx
        setz dl
        lsl ebx, ecx
        setz dh
        verr cx
        setz [DATA]
        verw cx
        setz [DATA+1]
        hlt
        """
    )
    edx, found = lab.cpu["edx"], lab.memory.read(DATA, 2)
    assert (edx & 1, edx >> 8 & 1, *found) == expected
    rights = (PRESENT_DPL3 | kind) << 8 | 1 << 16 | 4 << 20
    assert lab.cpu["eax"] == (rights if expected[0] else 0xFFFFFFFF)
    assert lab.cpu["ebx"] == (0x12345 if expected[1] else 0xFFFFFFFF)


PRESENT_DPL3 = 0xE0


@pytest.mark.parametrize(
    ("access", "rpl", "cpl", "visible"),
    [
        (dpl(WRITABLE, 0), 0, 0, True),
        (dpl(WRITABLE, 0), 3, 0, False),
        (dpl(WRITABLE, 0), 0, 3, False),
        (dpl(WRITABLE, 3), 3, 3, True),
        (dpl(WRITABLE, 2), 1, 1, True),
        (dpl(CONFORMING, 0), 3, 3, True),
        (dpl(READABLE, 0), 0, 3, False),
    ],
)
def test_lar_looks_at_privilege(lab: Lab, access: int, rpl: int, cpl: int, visible: bool) -> None:
    lab.set_gdt(FREE, descriptor(access=access))
    lab.ring(cpl)
    lab.run(f"mov ecx, {FREE | rpl}\nlar eax, ecx\nsetz dl\nverr cx\nsetz dh\nint 0x80")
    assert lab.cpu["edx"] & 0x101 == (0x101 if visible else 0)


@pytest.mark.parametrize("selector", [0, 3, BEYOND, 4 | 32])
def test_lar_of_no_descriptor_clears_zf(lab: Lab, selector: int) -> None:
    lab.run(f"mov ecx, {selector}\nxor eax, eax\nlar eax, ecx\nsetz dl\nverw cx\nsetz dh\nhlt")
    assert lab.cpu["edx"] & 0x101 == 0
    assert lab.cpu["eax"] == 0


def test_lsl_16_bits_keeps_the_upper_half(lab: Lab) -> None:
    lab.set_gdt(FREE2, descriptor(0, 0xFFFFFFFF))
    lab.run("mov ecx, FREE2\nmov eax, 0xAAAA0000\nlsl ax, cx\nmov ebx, 0xBBBB0000\nlar bx, cx\nhlt")
    assert lab.cpu["eax"] == 0xAAAAFFFF
    assert lab.cpu["ebx"] == 0xBBBB9200
