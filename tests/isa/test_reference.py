"""The reference page is fresh, and card and descriptions say what the table says."""

from __future__ import annotations

import re

import pytest

from isa.errors import MnemonicError
from isa.exceptions import EXCEPTIONS
from isa.reference import (
    FLAG_NAMES,
    PAGE,
    SECTIONS,
    TRAPS,
    WIDTH,
    card,
    describe,
    flag_names,
    main,
    render,
    spell_operand,
)
from isa.row import FLAG_BITS, PRIVILEGES
from isa.table import ALIASES, ROWS


def test_the_page_is_fresh() -> None:
    stale = "isa/REFERENCE.md is stale: run `make reference`"
    assert PAGE.read_text(encoding="utf-8") == render(), stale


def test_the_page_has_every_row() -> None:
    lines = [line for line in render().splitlines() if line.startswith("|")]
    for row in ROWS:
        operands = " ".join(["`" + ",".join(row.operands) + "`"] * bool(row.operands))
        assert any(f"`{row.opcode}` | {operands} | {row.title} |" in line for line in lines), row
    for exception in EXCEPTIONS[:20]:
        start = f"| {exception.vector} | {exception.mnemonic} |"
        assert any(line.startswith(start) for line in lines), exception


def test_the_unsafe_list_has_every_unsafe_row() -> None:
    _, _, unsafe = render().partition("## The unsafe instructions")
    unsafe, _, _ = unsafe.partition("## Exceptions")
    for row in ROWS:
        if row.unsafe:
            assert f"`{row.opcode}`" in unsafe, row
            assert row.leaks in unsafe, row
            assert row.cite.split()[0] in SECTIONS, row


def test_main_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == render()


def test_the_card_fits_a_terminal() -> None:
    lines = card().splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= 36


def test_the_card_has_the_tour_and_nothing_else() -> None:
    text = card()
    for row in ROWS:
        name = re.sub(r"^(movs|stos|lods)[bd]$", r"\1b/d", row.mnemonic)
        if row.tour:
            assert re.search(rf"(^|\s){name} ", text), row
    assert not re.search(r"\brdtsc\b|\baaa\b", text)


def test_the_card_sorts_by_class() -> None:
    safe, _, rest = card().partition("Sensitive, and trap")
    trapping, _, unsafe = rest.partition("Unsafe:")
    assert "add " in safe
    assert "lgdt " in trapping
    assert "popf " in unsafe


def test_describe_an_unsafe_one() -> None:
    text = describe("popf")
    assert "9D" in text
    assert "unsafe (control- and behaviour-sensitive)" in text
    assert "silently" in text
    assert "no privilege check" in text
    assert "Robin and Irvine 2000, 3.2.1" in text


@pytest.mark.parametrize(
    ("mnemonic", "expected"),
    [
        ("cli", "#GP(0) if CPL > IOPL"),
        ("in", "bitmap"),
        ("rdtsc", "CR4.TSD = 1"),
        ("lgdt", "#GP(0) if CPL > 0"),
        ("shl", "CF if count>=size"),
        ("add", "LOCK where the destination is memory"),
        ("cmpsb", "REPZ REPNZ"),
        ("jge", "nl/ge"),
        ("PUSHFD", "pushf: push EFLAGS"),
        ("xlatb", "xlat: "),
    ],
)
def test_describe_others(mnemonic: str, expected: str) -> None:
    assert expected in describe(mnemonic)


def test_describe_every_spelling() -> None:
    for name in {row.mnemonic for row in ROWS} | set(ALIASES):
        text = describe(name)
        assert max(map(len, text.splitlines())) <= WIDTH, name


def test_describe_nothing() -> None:
    with pytest.raises(
        MnemonicError, match="no instruction 'pofp' in the table; did you mean pop, popf"
    ):
        describe("pofp")


def test_vocabularies_are_complete() -> None:
    assert set(FLAG_NAMES) == set(FLAG_BITS)
    assert set(TRAPS) == PRIVILEGES - {""}
    assert flag_names("cpazso") == "OF SF ZF AF PF CF"
    for row in ROWS:
        for code in row.operands:
            assert re.fullmatch(r"[a-z0-9/&:(). \[\]]+", spell_operand(code)), code
            assert not re.fullmatch(r"[emgzs][bwvdq]", spell_operand(code)), code
