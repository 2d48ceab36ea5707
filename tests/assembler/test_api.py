"""The assembler as a library: origins, defines, includes, entries, and what a program says."""

from __future__ import annotations

from pathlib import Path

import pytest

import isa
from isa.assembler import Program, assemble, assemble_file


def test_the_example_of_the_readme() -> None:
    program = isa.assemble("mov eax, 6\nimul eax, 7\nhlt")
    assert program.flat().hex() == "b8060000006bc007f4"
    assert program.entry == program.origin == 0x100000


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("nop", 0x100000),
        ("nop\nstart: nop", 0x100001),
        ("nop\nstart: nop\n_start: hlt", 0x100002),
        ("start equ 5\nnop", 0x100000),
        ("org 0x7c00\nnop\nstart: nop", 0x7C01),
    ],
)
def test_entry(source: str, entry: int) -> None:
    assert assemble(source).entry == entry


def test_origin() -> None:
    source = "x: dd x"
    assert assemble(source).flat().hex() == "00001000"
    assert assemble(source, origin=0).flat().hex() == "00000000"
    assert assemble("org 0x7c00\n" + source, origin=0).flat().hex() == "007c0000"


def test_defines() -> None:
    source = "%ifdef FAST\ndb FAST\n%else\ndb 0\n%endif"
    assert assemble(source, defines={"FAST": "7"}).flat() == b"\x07"
    assert assemble(source).flat() == b"\0"


def test_includes_are_looked_for_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for number, folder in enumerate((first, second), 1):
        folder.mkdir()
        (folder / "part.inc").write_text(f"db {number}\n", encoding="utf-8")
    main = tmp_path / "main.asm"
    main.write_text('%include "part.inc"\n', encoding="utf-8")
    assert assemble_file(main, include=[first, second]).flat() == b"\1"
    assert assemble_file(main, include=[second, first]).flat() == b"\2"
    (tmp_path / "part.inc").write_text("db 3\n", encoding="utf-8")
    assert assemble_file(main, include=[first]).flat() == b"\3"


def test_segments_and_symbols() -> None:
    program = assemble("start: nop\n.in: nop\nsection .data\nd: dd 5\nsection .bss\nb: resb 9")
    assert [(s.name, s.address, s.data, s.memory_size) for s in program.segments] == [
        (".text", 0x100000, b"\x90\x90", 2),
        (".data", 0x100004, b"\5\0\0\0", 4),
        (".bss", 0x100008, b"", 9),
    ]
    assert {name: symbol.value for name, symbol in program.symbols.items()} == {
        "start": 0x100000, "start.in": 0x100001, "d": 0x100004, "b": 0x100008,
    }  # fmt: skip
    assert program.flat() == b"\x90\x90\0\0\5\0\0\0"


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("a: add ecx, 131 - (b - a)\nb:", "81c17d000000"),
        ("a: mov eax, [ebx + 131 - (b - a)]\nb:", "8b837d000000"),
        ("a: push 130 - (b - a)\nb:", "687d000000"),
    ],
)
def test_sizes_that_chase_each_other_settle_on_the_longer(source: str, data: str) -> None:
    """Short, the value is too large for a byte; long, it is not. NASM gives up on these."""
    assert assemble(source).flat().hex() == data


def test_the_same_source_twice_is_the_same_program() -> None:
    source = "%macro m 0\n%%l: jmp %%l\n%endmacro\nm\nm\ndb 'x'"
    first, second = assemble(source), assemble(source)
    assert first == second
    assert first.elf() == second.elf()
    assert isinstance(first, Program)
