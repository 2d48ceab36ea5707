"""The ELF writer: what readers see in it, and its contents against NASM's objects after ld."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from isa.assembler import Program, assemble, assemble_file
from isa.assembler.elf import has_multiboot_header
from tests.assembler import nasm

ROOT = Path(__file__).resolve().parents[2]
GUESTS = sorted((ROOT / "guests").rglob("*.asm"))
LD = shutil.which("ld")
OBJDUMP = shutil.which("objdump")

SOURCE = """\
global start
answer equ 42
start:
    mov eax, answer
    mov [result], eax
.end:
    hlt
section .data
value: dd 1, 2, 3
section .bss
result: resd 4
"""


def read(program: Program) -> ELFFile:
    return ELFFile(io.BytesIO(program.elf()))


def test_header_and_segments() -> None:
    program = assemble("nop\n" + SOURCE)
    elf = read(program)
    assert elf.header["e_type"] == "ET_EXEC"
    assert elf.header["e_machine"] == "EM_386"
    assert elf.header["e_entry"] == 0x100001
    loads = [(s["p_paddr"], s["p_vaddr"], s.data(), s["p_memsz"]) for s in elf.iter_segments()]
    assert loads == [(s.address, s.address, s.data, s.memory_size) for s in program.segments]
    for segment in elf.iter_segments():
        assert segment["p_offset"] % segment["p_align"] == segment["p_vaddr"] % segment["p_align"]


def test_symbols() -> None:
    table = read(assemble(SOURCE)).get_section_by_name(".symtab")
    symbols = {s.name: s for s in table.iter_symbols()}
    assert symbols["start"]["st_info"]["bind"] == "STB_GLOBAL"
    assert symbols["start.end"]["st_info"]["bind"] == "STB_LOCAL"
    assert symbols["answer"]["st_shndx"] == "SHN_ABS"
    assert symbols["answer"]["st_value"] == 42
    locals_first = [s["st_info"]["bind"] for s in table.iter_symbols()]
    assert locals_first == sorted(locals_first, key=lambda bind: bind == "STB_GLOBAL")
    assert table["sh_info"] == locals_first.index("STB_GLOBAL")


def test_lines() -> None:
    elf = read(assemble(SOURCE, name="some.asm"))
    dwarf = elf.get_dwarf_info()
    (unit,) = dwarf.iter_CUs()
    assert unit.get_top_DIE().attributes["DW_AT_name"].value == b"some.asm"
    states = [e.state for e in dwarf.line_program_for_CU(unit).get_entries() if e.state]
    rows = [(state.address, state.line) for state in states if not state.end_sequence]
    assert rows == [(0x100000, 4), (0x100005, 5), (0x10000A, 7)]
    assert states[-1].end_sequence
    assert states[-1].address == 0x10000B


def test_a_macro_is_at_its_call() -> None:
    program = assemble("%macro two 0\nnop\nnop\n%endmacro\nhlt\ntwo\nhlt\n", name="m.asm")
    assert [program.source_line(0x100000 + n) for n in range(4)] == [
        ("m.asm", 5), ("m.asm", 6), ("m.asm", 6), ("m.asm", 7),
    ]  # fmt: skip


def test_symbol_at() -> None:
    program = assemble(SOURCE)
    assert program.symbol_at(0x100007) == ("start", 7)
    assert program.symbol_at(0x10000A) == ("start.end", 0)
    assert program.symbol_at(0) is None


def test_a_header_is_added_only_where_there_is_none() -> None:
    bare = read(assemble("hlt"))
    assert bare.get_section_by_name(".multiboot") is not None
    assert has_multiboot_header(assemble("hlt").elf())
    own = "hlt\nalign 4\ndd 0x1BADB002, 0, -0x1BADB002\n"
    assert read(assemble(own)).get_section_by_name(".multiboot") is None
    assert has_multiboot_header(assemble(own).elf())


@pytest.mark.parametrize(
    ("words", "found"),
    [((0x1BADB002, 2, -0x1BADB004), True), ((0x1BADB002, 2, 5), False), ((0, 0, 0), False)],
)
def test_what_a_header_is(words: tuple[int, ...], found: bool) -> None:
    data = struct.pack("<3I", *(word & 0xFFFFFFFF for word in words))
    assert has_multiboot_header(bytes(64) + data) is found
    assert not has_multiboot_header(b"\0" + data)  # not on a four-byte boundary
    assert not has_multiboot_header(bytes(8192) + data)


@pytest.mark.skipif(OBJDUMP is None, reason="objdump is not installed (binutils)")
def test_objdump_shows_lines_and_symbols(tmp_path: Path) -> None:
    assert OBJDUMP is not None
    path = tmp_path / "program.elf"
    path.write_bytes(assemble(SOURCE, name="some.asm").elf())
    command = [OBJDUMP, "-d", "-l", "-M", "intel", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "<start>:" in text
    assert "some.asm:5" in text
    assert "mov    eax,0x2a" in text


def linked(source: str, program: Program, folder: Path, include: list[Path]) -> ELFFile:
    """NASM's object of a source, linked by ld with each section where ours lies."""
    assert LD is not None
    theirs, said = nasm.run(source, output_format="elf32", include=include)
    assert theirs is not None, said
    (folder / "object.o").write_bytes(theirs)
    rows = [
        f"{segment.name} {segment.address:#x} : {{ *({segment.name}) }}"
        for segment in program.segments
    ]
    (folder / "script").write_text("SECTIONS {\n" + "\n".join(rows) + "\n}\n", encoding="utf-8")
    command = [LD, "-m", "elf_i386", "-T", "script", "-e", "0", "-o", "linked", "object.o"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ELFFile(io.BytesIO((folder / "linked").read_bytes()))


@pytest.mark.skipif(not nasm.available, reason=nasm.MISSING)
@pytest.mark.skipif(LD is None, reason="ld is not installed (binutils)")
@pytest.mark.parametrize("path", GUESTS, ids=lambda path: str(path.relative_to(ROOT / "guests")))
def test_sections_as_linked(path: Path, tmp_path: Path) -> None:
    library = ROOT / "guests/lib"
    program = assemble_file(path, include=[library])
    source = path.read_text(encoding="utf-8")
    theirs = linked(source, program, tmp_path, [path.parent, library])
    ours = read(program)
    for segment in program.segments:
        if not segment.data:
            continue
        wanted = theirs.get_section_by_name(segment.name).data()
        found = ours.get_section_by_name(segment.name).data()
        assert found.hex() == wanted.hex(), segment.name
