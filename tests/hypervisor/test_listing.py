"""Translations as they are shown: golden files of units, and `-d in_asm,out_asm`.

The files in listings/ hold what the instructions that matter are translated to; after a change of
the translator `pytest --accept` records them anew, and the difference is to be read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hypervisor.translator import layout
from hypervisor.translator.builder import FLAT_LIMIT, Source, build
from hypervisor.translator.gate import build_gate
from hypervisor.translator.listing import code_lines, guest_lines, text_of
from hypervisor.translator.unit import Context, Unit
from isa import assemble
from isa.decoder import decode
from tests.cli.support import leave_with, seventeen, write_source

GOLDEN = Path(__file__).parent / "listings"
ORIGIN = 0x100000
KERNEL = Context(False, 0x10, 0, FLAT_LIMIT)
#: File -> the guest's code.
SOURCES = {
    "cli": "cli",
    "sti": "sti",
    "pushf": "pushf",
    "popf": "popf",
    "iret": "iret",
    "ret": "ret",
    "ret-released": "ret 8",
    "call": "call $+0x100",
    "call-indirect": "call [ebx+8]",
    "jmp-indirect": "jmp eax",
    "jcc": "jz $+0x100\ninc eax",
    "loop": "loop $",
    "int": "int 0x80",
    "mov-ds": "mov ds, ax",
    "mov-gs": "mov gs, ax",
    "pop-es": "pop es",
    "push-cs": "push cs",
    "push-gs": "push gs",
    "mov-from-ss": "mov eax, ss",
    "smsw": "smsw ax",
    "smsw-memory": "smsw [eax]",
    "mov-from-cr0": "mov eax, cr0",
    "mov-to-cr0": "mov cr0, eax",
    "sgdt": "sgdt [ebx]",
    "str": "str ax",
    "hlt": "hlt",
    "out": "out 0x20, al",
    "identical": "mov eax, [ebx+4]\nadd eax, 6\nrep stosd",
    "undecodable": "db 0x0F, 0xFF",
}


def unit_of(source: str, *, checked: bool = False, adaptive: frozenset[int] = frozenset()) -> Unit:
    code = assemble(source, origin=ORIGIN).flat()
    unit = build(Source((ORIGIN >> 12,), code, b""), KERNEL, ORIGIN, checked, adaptive)
    assert unit is not None
    unit.start = layout.CODE
    return unit


def show(unit: Unit) -> str:
    return text_of(unit, lambda address: "start" if address == ORIGIN else "")


@pytest.mark.parametrize("name", SOURCES)
def test_an_instruction_becomes_what_was_recorded(name: str, golden: Any) -> None:
    golden.check(GOLDEN / f"{name}.txt", show(unit_of(SOURCES[name])))


def test_a_unit_that_checks_itself(golden: Any) -> None:
    golden.check(GOLDEN / "checked.txt", show(unit_of("inc eax\njmp $", checked=True)))


def test_an_adaptive_store(golden: Any) -> None:
    unit = unit_of("mov [ebx+4], esi", adaptive=frozenset({ORIGIN}))
    golden.check(GOLDEN / "adaptive.txt", show(unit))


def test_a_gate(golden: Any) -> None:
    unit = build_gate(KERNEL, ORIGIN)
    unit.start = layout.CODE
    golden.check(GOLDEN / "gate.txt", show(unit))


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {*SOURCES, "adaptive", "checked", "gate"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_listing_has_every_byte_once(name: str) -> None:
    unit = unit_of(SOURCES[name])
    for lines, code, start in (
        (guest_lines(unit), unit.source, unit.eip),
        (code_lines(unit), unit.code, unit.start),
    ):
        rows = [re.match(r"0x([0-9a-f]{8}):  ((?:[0-9a-f]{2} )+) ", line) for line in lines]
        found = {int(row[1], 16): bytes.fromhex(row[2]) for row in rows if row}
        assert b"".join(found.values()) == code
        assert min(found) == start


def test_every_exit_of_a_unit_is_explained() -> None:
    for source in SOURCES.values():
        unit = unit_of(source)
        for line in code_lines(unit):
            if "int 0x83" in line:
                assert ";" in line
    assert decode(bytes([0xCD, layout.OWN_VECTOR])).mnemonic == "int"


# -- The trace -------------------------------------------------------------------------------------


def test_units_are_shown_when_they_are_made(tmp_path: Path) -> None:
    source = write_source(tmp_path, "_start: cli\ncall f\n" + leave_with(3) + "f: ret\n")
    done = seventeen("run", source, "--technique", "translate", "-d", "in_asm,out_asm")
    assert done.status == 3
    parts = [line for line in done.error_lines if line.startswith(("IN:", "OUT:"))]
    assert parts[:2] == ["IN: _start", parts[1]]
    assert [part.split(":")[0] for part in parts].count("OUT") == 3
    assert "IN: f" in parts
    assert re.search(r"mov byte \[gs:1\], 0 +; if_flag$", done.errors, re.MULTILINE)
    assert re.search(r"; -> 0x0010[0-9a-f]{4} f$", done.errors, re.MULTILINE)


def test_guest_code_alone_is_the_guests() -> None:
    done = seventeen("run", "hello", "--technique", "translate", "-d", "in_asm")
    addresses = [int(line[2:10], 16) for line in done.error_lines if line.startswith("0x")]
    assert addresses
    assert max(addresses) < layout.CODE
    assert "OUT:" not in done.errors


@pytest.mark.parametrize("options", [(), ("--technique", "trap"), ("--technique", "paravirt")])
def test_only_who_makes_code_can_show_it(options: tuple[str, ...]) -> None:
    done = seventeen("run", "hello", *options, "-d", "out_asm")
    assert done.status == 64
    (line,) = done.error_lines
    assert "-d out_asm goes with a" in line
    assert "translate" in line
