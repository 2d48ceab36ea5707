"""What the instruction table as a whole must keep."""

from __future__ import annotations

import re

import pytest

from isa.cost import INSTRUCTION_CYCLES
from isa.table import ALIASES, CONDITION_NAMES, ROWS, condition_number, rows_of

#: The slice of the specification; conditional mnemonics stand for sixteen.
SLICE = """
    mov movzx movsx lea push pop pusha popa xchg cmovcc cdq cwde cbw cwd bswap xlat lahf sahf
    cmpxchg cmpxchg8b xadd lds les lss lfs lgs enter leave
    add adc sub sbb cmp inc dec neg mul imul div idiv daa das aaa aas aam aad
    and or xor not test shl shr sar rol ror rcl rcr shld shrd bt bts btr btc bsf bsr setcc
    jcc jmp call ret loop loopz loopnz jecxz int int3 into bound ud2 nop retf iret
    movsb movsw movsd stosb stosw stosd lodsb lodsw lodsd scasb scasw scasd cmpsb cmpsw cmpsd
    insb insw insd outsb outsw outsd cld std clc stc cmc
    lgdt lidt lldt ltr lmsw clts invlpg hlt cli sti in out cpuid rdtsc rdmsr wrmsr wbinvd
    sgdt sidt sldt smsw str pushf popf lar lsl verr verw
"""
#: Robin and Irvine's names (sections 3.2.1 and 3.2.2), as our mnemonics.
ROBIN_AND_IRVINE = {
    "3A": {"sgdt", "sidt", "sldt", "smsw", "pushf", "popf"},
    "3B": {"lar", "lsl", "verr", "verw", "pop", "push", "call", "jmp", "int", "retf", "str", "mov"},
}


def test_the_slice_is_whole() -> None:
    mnemonics = {row.mnemonic for row in ROWS}
    assert set(SLICE.split()) - mnemonics == set()
    assert mnemonics - set(SLICE.split()) == {"pause", "hint_nop55", "wait"}


def test_the_number_of_rows() -> None:
    assert 300 <= len(ROWS) <= 360


def test_ids_are_positions() -> None:
    assert [row.id for row in ROWS] == list(range(len(ROWS)))


def test_rows_are_told_apart_by_their_text() -> None:
    assert len({(row.opcode, row.operands) for row in ROWS}) == len(ROWS)


def test_the_tour_is_small() -> None:
    """About forty instructions, as a newcomer counts them: movsb and movsd are one."""
    names = {re.sub(r"^(movs|stos|lods)[bwd]$", r"\1", r.mnemonic) for r in ROWS if r.tour}
    assert 35 <= len(names) <= 50
    assert {"mov", "add", "jcc", "int", "popf", "cli", "hlt"} <= names


def test_the_unsafe_rows_are_robin_and_irvines() -> None:
    """Each of their names is an unsafe row citing the right section, and every row cites one."""
    for section, names in ROBIN_AND_IRVINE.items():
        cited = {r.mnemonic for r in ROWS if r.unsafe and r.cite.startswith(section)}
        assert names <= cited, names - cited
    assert [str(r) for r in ROWS if r.unsafe and not re.match(r"3[AB] [A-Z]+", r.cite)] == []
    theirs = set().union(*ROBIN_AND_IRVINE.values())
    ours = {r.mnemonic for r in ROWS if r.unsafe}
    assert ours - theirs == {"int3", "into", "iret", "lds", "les", "lss", "lfs", "lgs"}


def test_only_unsafe_rows_are_cited() -> None:
    assert [str(row) for row in ROWS if row.cite and not row.unsafe] == []


@pytest.mark.parametrize(
    ("mnemonic", "verdict"),
    [("add", "safe"), ("popf", "unsafe"), ("cli", "sensitive"), ("wrmsr", "sensitive")],
)
def test_verdicts(mnemonic: str, verdict: str) -> None:
    assert {row.verdict for row in rows_of(mnemonic)} == {verdict}


def test_every_cost_has_cycles() -> None:
    assert {row.cost for row in ROWS} <= set(INSTRUCTION_CYCLES)


def test_what_is_undefined_is_written() -> None:
    """A flag can be undefined only where the row may write it."""
    for row in ROWS:
        for undefined in row.undefined:
            assert set(undefined.what) - {"*"} <= set(row.writes), row


def test_lock_is_for_rows_that_write_memory() -> None:
    for row in ROWS:
        if row.lock and row.operands[0][0] in "EM":
            assert row.access[0] in "uc", row


def test_aliases_name_rows() -> None:
    for alias, (name, size) in ALIASES.items():
        assert rows_of(alias) == rows_of(name) != (), alias
        assert size in (None, 16, 32)
        assert not any(row.mnemonic == alias for row in ROWS), alias


def test_condition_names() -> None:
    assert len(CONDITION_NAMES) == 16
    spellings = [name for names in CONDITION_NAMES for name in names]
    assert len(set(spellings)) == len(spellings) == 30
    assert condition_number("nz") == 5
    assert condition_number("q") is None


def test_rows_of_any_spelling() -> None:
    assert {row.mnemonic for row in rows_of("jnge")} == {"jcc"}
    assert {row.mnemonic for row in rows_of("setc")} == {"setcc"}
    assert {row.mnemonic for row in rows_of("pushfd")} == {"pushf"}
    assert {row.mnemonic for row in rows_of("jecxz")} == {"jecxz"}
    assert rows_of("fadd") == ()
