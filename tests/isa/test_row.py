"""Every diagnostic of the table's validation, one test each."""

from __future__ import annotations

from typing import Any

import pytest

from isa.errors import TableError
from isa.row import Row, Undefined, check_row, check_rows, parse_opcode


def row(opcode: str = "01 /r", operands: str = "Ev,Gv", **columns: Any) -> Row:
    names = tuple(operands.split(",")) if operands else ()
    given: dict[str, Any] = {"id": 0, "mnemonic": "probe", "access": "r" * len(names), "title": ""}
    return Row(opcode=opcode, operands=names, **(given | columns))


def test_a_sound_row_passes() -> None:
    check_row(row())
    check_rows((row("01 /r"), row("03 /r"), row("0F 01 /0"), row("0F 01 /1")))


# -- Opcode strings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "message"),
    [
        ("", "no opcode byte"),
        ("0F", "no opcode byte"),
        ("81 82", "unexpected '82'"),
        ("50+x", r"expected \+r or \+cc, found \+x"),
        ("81 0F", "unexpected '0F'"),
    ],
)
def test_malformed_opcode(opcode: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        parse_opcode(opcode)


def test_opcode_strings() -> None:
    parsed = parse_opcode("o16 0F C8+r ib iw")
    assert (parsed.operand_size, parsed.two_byte, parsed.byte, parsed.low) == (16, True, 0xC8, "r")
    assert parsed.immediates == ("ib", "iw")
    assert parsed.bytes_covered == range(0xC8, 0xD0)
    assert parse_opcode("70+cc cb").bytes_covered == range(0x70, 0x80)
    assert parse_opcode("F3 90").repeat
    assert parse_opcode("81 /5 iz").digit == 5
    assert parse_opcode("89 /r").digit is None


# -- One row -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"operands": "Ev,Gv", "access": "r"}, "one letter per operand"),
        ({"operands": "Ev", "access": "x"}, "letters are r w u a c"),
        ({"operands": "Qv"}, "unknown operand code 'Qv'"),
        ({"operands": "Ek"}, "unknown operand code 'Ek'"),
        ({"opcode": "01", "operands": "Ev"}, "a ModRM operand needs /r"),
        ({"opcode": "8E", "operands": "Sw"}, "a ModRM operand needs /r"),
        ({"writes": "y"}, "unknown flag letter in 'y'"),
        ({"reads": "?"}, "unknown flag letter in"),
        ({"undefined": (Undefined("o", "sometimes"),)}, "unknown condition 'sometimes'"),
        ({"undefined": (Undefined("q", "always"),)}, "unknown flag in 'q'"),
        ({"privilege": "cpl3"}, "unknown privilege 'cpl3'"),
        ({"sensitive": "very"}, "unknown sensitivity 'very'"),
        ({"order": "random"}, "unknown order 'random'"),
        ({"sensitive": "control"}, "exactly the unsafe rows say what they leak"),
        ({"leaks": "everything"}, "exactly the unsafe rows say what they leak"),
        (
            {"sensitive": "both", "privilege": "cpl0", "leaks": "nothing: it traps"},
            "exactly the unsafe rows",
        ),
    ],
)
def test_a_row_that_breaks_a_rule(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        check_row(row(**columns))


# -- Two rows ----------------------------------------------------------------------------------


def two_rows(one: str, other: str) -> tuple[Row, Row]:
    first, second = (row(o, "Ev" if "/" in o else "", mnemonic=o) for o in (one, other))
    return first, second


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("01 /r", "01 /r"),
        ("81 /0 iz", "81 /r iz"),
        ("81 /0 iz", "81 /0 ib"),
        ("50+r", "50+r"),
        ("70+cc cb", "75 cb"),
        ("o16 98", "98"),
        ("0F 90+cc /r", "0F 9F /r"),
        ("F3 90", "F3 90"),
    ],
)
def test_two_rows_that_overlap(one: str, other: str) -> None:
    with pytest.raises(TableError, match="claim the same encoding"):
        check_rows(two_rows(one, other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("01 /r", "0F 01 /r"),
        ("81 /0 iz", "81 /1 iz"),
        ("o16 98", "o32 98"),
        ("90", "F3 90"),
        ("90+r", "90"),
    ],
)
def test_two_rows_that_do_not_overlap(one: str, other: str) -> None:
    check_rows(two_rows(one, other))
