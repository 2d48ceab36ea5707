"""What the assembler says about bad sources: text in, exact text out."""

from __future__ import annotations

from pathlib import Path

import pytest

from isa.assembler import assemble, assemble_file
from isa.errors import AssemblyError


def report(source: str, **arguments: object) -> str:
    with pytest.raises(AssemblyError) as caught:
        assemble(source, name="t.asm", **arguments)  # type: ignore[arg-type]
    return str(caught.value)


#: A line, the column of the caret, and the message.
LINES = [
    ("mov eax,", 9, "expected an operand, found end of line"),
    ("mov eax 5", 9, "expected ',', ':', an operator or end of line, found '5'"),
    ("movv eax, 5", 1, "unknown instruction 'movv'"),
    ("mov eax, [ebx", 14, "expected ':' or ']', found end of line"),
    ("mov eax, [ebx + ]", 17, "expected an expression, found ']'"),
    ("mov eax, (1 + 2", 16, "expected ')', found end of line"),
    ("mov eax, nowhere", 10, "undefined symbol 'nowhere'"),
    ("mov eax, bx", 1, "mov: operand sizes do not go together: found 32 and 16 bits"),
    ("mov [ebx], 5", 1, "operation size not specified: expected byte, word or dword"),
    ("add eax", 1, "add takes 2 operands, found 1"),
    ("mov 5, eax", 1, "mov does not take these operands"),
    ("db 'abc", 4, "this string has no closing '"),
    ("dd 1 +", 7, "expected an expression, found end of line"),
    ("dd 5 / 0", 8, "division by zero"),
    ("dd 12a", 4, "malformed number '12a'"),
    ("dd 1.5", 4, "floating-point constants are not supported"),
    ("dd eax", 4, "expected a number or an address, found a register"),
    ("mov eax, #5", 10, "unexpected #"),
    ("mov eax, [eax + ebx + ecx]", 11, "an address has at most two registers"),
    ("mov eax, [esp * 2]", 11, "this address has no encoding"),
    ("mov eax, [eax + bx]", 11, "an address cannot mix 16-bit and 32-bit registers"),
    ("mov eax, [ax]", 11, "a 16-bit address is made of bx or bp and si or di"),
    ("mov eax, [cr0]", 11, "cr0 cannot be part of an address"),
    ("mov eax, ebx + ecx", 10, "registers can be added only inside '[' and ']'"),
    ("mov eax, short 5", 16, "'short' is only for jumps and calls"),
    ("jmp short $ + 200", 11, "short jump is out of range: 198 bytes, at most -128 to 127"),
    ("loop $ - 200", 6, "short jump is out of range: -202 bytes, at most -128 to 127"),
    ("times -1 nop", 7, "'times' cannot repeat -1 times"),
    ("times eax nop", 7, "the count of 'times' must be a number, found a register"),
    ("x: times x nop", 10, "the count of 'times' must be a number, found an address"),
    ("times 2 times 2 nop", 15, "only instructions and data can be repeated"),
    ("resb -1", 6, "cannot reserve -1 units of space"),
    ("align 3", 7, "3 is not a power of two"),
    ("equ 5", 5, "'equ' needs a label before it"),
    ("bits 16", 6, "only 32-bit code is supported, found 16"),
    ("rep db 1", 1, "a prefix can only stand before an instruction"),
    ("endstruc", 1, "'endstruc' without 'struc'"),
    ("incbin 'missing'", 8, "cannot find 'missing'"),
    ("section .x colour", 12, "unknown section attribute 'colour'"),
    ("x: dd x | 1", 7, "the left side of '|' must be a number, found an address"),
    ("call printf", 6, "undefined symbol 'printf'"),
    ("lock es mov eax, [fs:0]", 9, "two segment overrides contradict each other"),
    ("%frobnicate", 1, "unknown preprocessor directive '%frobnicate'"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "column", "message"), LINES, ids=[line[0] for line in LINES])
def test_line(line: str, column: int, message: str) -> None:
    expected = f"t.asm:2:{column}: error: {message}\n    {line}\n    {' ' * (column - 1)}^"
    assert report(f"nop\n{line}\nnop\n") == expected


def test_several_errors_in_one_run() -> None:
    assert report("mov eax,\nnop\n  jmp away ; there\ndd 1/0\n") == (
        "t.asm:1:9: error: expected an operand, found end of line\n"
        "    mov eax,\n"
        "            ^\n"
        "t.asm:3:7: error: undefined symbol 'away'\n"
        "      jmp away ; there\n"
        "          ^\n"
        "t.asm:4:6: error: division by zero\n"
        "    dd 1/0\n"
        "         ^"
    )


def test_diagnostics_are_data() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("nop\n mov eax,\n", name="t.asm")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.location.line, diagnostic.column) == (2, 10)
    assert diagnostic.location.file == "t.asm"
    assert diagnostic.message == "expected an operand, found end of line"


def test_tabs_before_the_caret() -> None:
    assert report("\tmov\teax, [\n").splitlines()[2] == "    \t   \t      ^"


def test_stops_after_twenty() -> None:
    lines = report("foo bar\n" * 100).splitlines()
    assert lines[-1] == "stopped after 20 errors"
    assert sum("error:" in line for line in lines) == 20


def test_a_macro_notes_its_calls() -> None:
    source = (
        "%macro inner 1\n  mov eax, %1\n%endmacro\n%macro outer 0\n  inner bx\n%endmacro\nouter\n"
    )
    assert report(source) == (
        "t.asm:2:3: error: mov: operand sizes do not go together: found 32 and 16 bits\n"
        "      mov eax, bx\n"
        "      ^\n"
        "t.asm:5: note: in the expansion of macro 'inner'\n"
        "t.asm:7: note: in the expansion of macro 'outer'"
    )


def test_an_included_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "part.inc").write_text("nop\nmov eax,\n", encoding="utf-8")
    main = tmp_path / "main.asm"
    main.write_text('%include "part.inc"\n', encoding="utf-8")
    with pytest.raises(AssemblyError) as caught:
        assemble_file(main)
    assert str(caught.value).startswith(f"{tmp_path / 'part.inc'}:2:9: error: expected an operand")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_file(tmp_path / "none.asm")
    assert str(caught.value).endswith("none.asm': No such file or directory")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("%macro m 0\nnop\n", 1, "expected '%endmacro' for this '%macro', found the end"),
        ("%rep 2\nnop\n", 1, "expected '%endrep' for this '%rep', found the end"),
        ("%if 1\nnop\n", 1, "expected '%endif' for this condition, found the end"),
        ("%else\n", 1, "'%else' without '%if'"),
        ("%endif\n", 1, "'%endif' without '%if'"),
        ("%if 1\n%else\n%else\n%endif\n", 3, "'%else' after '%else'"),
        ("%error this is wrong\n", 1, "this is wrong"),
        ('%include "none.inc"\n', 1, "cannot find 'none.inc'"),
        ("%include none\n", 1, "expected a quoted file name after '%include'"),
        ("%exitrep\n", 1, "'%exitrep' outside of '%rep'"),
        ("%if\n%endif\n", 1, "expected an expression, found end of line"),
        ("%if x\n%endif\n", 1, "'x' is not known here"),
        ("%ifidn a\n%endif\n", 1, "expected two texts with ',' between them"),
        ("a:\na:\n", 2, "'a' is already defined at t.asm:1"),
        ("a equ b\nb equ a\n", 1, "the value of 'a' depends on itself"),
        ("a: times 200 - (b - a) nop\nb: jmp a\n", 2,
         "sizes do not settle: 'b' moves in every pass"),
        ("struc s\n.x: resb 1\n", 2, "expected 'endstruc' for structure 's', found the end"),
        ("org 1\norg 2\n", 2, "the origin is already set"),
        ("%macro m 0\nm\n%endmacro\nm\n", 2, "macro 'm' calls itself: only an %rmacro may"),
        ("extern e\ncall e\n", 2, "external symbol 'e' is defined nowhere"),
    ],
)  # fmt: skip
def test_first_error(source: str, line: int, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(source, name="t.asm")
    first = caught.value.diagnostics[0]
    assert (first.location.line, first.message) == (line, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("db 256", "value 256 does not fit in 8 bits; its low bits are used"),
        ("mov al, 300", "value 300 does not fit in 8 bits; its low bits are used"),
        ("lock nop", "this instruction cannot be locked: it will raise #UD"),
        ("lonely", "'lonely' stands alone without ':': a label?"),
        ("%warning take care", "take care"),
    ],
)
def test_warning(line: str, message: str) -> None:
    (warning,) = assemble(line).warnings
    assert warning.message == message


@pytest.mark.parametrize("line", ["cmp eax, 0xFFFFFFFF", "add bx, 0xFFFE", "or ecx, -1"])
def test_no_warning_for_what_is_sign_extended(line: str) -> None:
    assert assemble(line).warnings == ()
