"""Any text at all: a program, or an `AssemblyError`; soon, and in bounded memory."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.assembler import assemble
from isa.errors import AssemblyError

#: Words that mean something, so that random lines reach past the first token.
SOUP = r"""
mov eax ebx al cx ds cr0 add jmp jz loop call ret push lea rep lock es movsb times db dw dd dq
resb resd equ align section .text .data .bss org bits struc endstruc istruc at iend incbin
global extern absolute x y .l x: .l: y: , : [ ] ( ) + - * / // % %% << >> ~ ! & | ^ && || =
< > ? $ $$ 0 1 2 5 255 0x1000 -1 'a' "str" `\n` byte word dword short near far strict
nosplit dup %define %assign %macro %endmacro %rep %endrep %if %ifdef %elif %else %endif
%include %1 %0 %%q %+ %[ %{ %rotate %undef %xdefine %exitrep %ifidn %strlen m n ; ' " ` \
"""
WORDS = SOUP.split()
lines = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
soups = st.lists(lines, max_size=14).map("\n".join)


def assemble_or_refuse(source: str) -> None:
    try:
        program = assemble(source)
    except AssemblyError:
        return
    program.flat()
    program.elf()
    program.listing()


@given(st.text(max_size=300))
def test_any_text(source: str) -> None:
    assemble_or_refuse(source)


@given(soups)
def test_any_words(source: str) -> None:
    assemble_or_refuse(source)


@given(lines, lines)
def test_any_words_in_a_macro(body: str, call: str) -> None:
    assemble_or_refuse(f"%macro m 0-*\n{body}\n%endmacro\nm {call}\n%rep 2\n{body}\n%endrep\n")


@given(lines)
def test_any_operands(operands: str) -> None:
    assemble_or_refuse(f"mov {operands}\ndd {operands}\n%if {operands}\n%endif")
    assemble_or_refuse(f"%define d {operands}\nd\n%assign a {operands}\ntimes {operands} nop")


NESTED = [
    ("dd " + "(" * 100_000 + "1" + ")" * 100_000, "too deeply nested"),
    ("dd " + "-" * 10_000 + "x", "too deeply nested"),
    ("x: dd " + "+".join(["x"] * 10_000), "too long or too deeply nested"),
    ("dd " + "1?" * 2000 + "1" + ":1" * 2000, "too long or too deeply nested"),
    ("dd " + "9" * 100_000, "too many digits"),
    ("times 1 << 60 db 0", "more than 64 MiB"),
    ("times 1 << 60 nop", "more than 64 MiB"),
    ("resb 1 << 60", "more than 64 MiB"),
    ("section .bss\nresb 1 << 60", "does not fit in 4 GiB"),
    ("db 1 << 40 dup (1)", "more than 64 MiB"),
    ("nop\nalign 1 << 40", "more than 64 MiB"),
    ("times 100000 jmp $", "at most 4096 times"),
    ("%rep 1 << 40\nnop\n%endrep", "the most is"),
    ("%rep 2000\n%rep 2000\n%endrep\n%endrep", "expand to more than"),
    ("%rmacro a 0\na\na\n%endmacro\na", "nested more than 64 deep"),
    ("%define a b\n%define b a\ndd a", "undefined symbol 'a'"),
    ("\n".join(f"%define d{i} d{i + 1} d{i + 1}" for i in range(40)) + "\ndd d0", "20000 macro"),
    ("\n".join(f"%define d{i} d{i + 1}" for i in range(500)) + "\ndd d0", "100 deep"),
    ("%define s 'x'\n%rep 64\n%strcat s s,s\n%endrep", "more than 65536 characters"),
    ("section .a start=0xffffffff\ndb 1, 2", "ends beyond 4 GiB"),
    ("nop\nsection .a start=0xf0000000\ndb 1", "would take"),
]


@pytest.mark.parametrize(("source", "message"), NESTED, ids=[message for _, message in NESTED])
def test_bounded(source: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(AssemblyError, match=message.replace("(", r"\(")):
        assemble(source).flat()
    assert time.process_time() - started < 10


def test_an_include_of_itself(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    path = tmp_path / "self.inc"
    path.write_text('%include "self.inc"\n', encoding="utf-8")
    with pytest.raises(AssemblyError, match="included more than 64 deep"):
        assemble('%include "self.inc"', include=[tmp_path])


def test_three_thousand_lines_in_two_seconds() -> None:
    """Processor time, of a source whose lines hardly repeat; the first run pays for the grammar."""
    assemble("nop")
    source = "\n".join(
        f"l{i}: mov eax, [ebx + ecx * 4 + {i}]\n    cmp eax, {i}\n    jz l{(i * 7) % 1000}"
        for i in range(1000)
    )
    started = time.process_time()
    assemble(source)
    assert time.process_time() - started < 2
