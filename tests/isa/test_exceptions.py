"""The exception table against the SDM (vol. 3, tables 6-1, 6-4 and 6-5)."""

from __future__ import annotations

import pytest

from isa.exceptions import EXCEPTIONS, VECTORS, Contribution, Kind, combine


def test_one_row_a_vector() -> None:
    assert [row.vector for row in EXCEPTIONS] == list(range(32))
    assert all((row.mnemonic == "") <= (row.kind in (Kind.RESERVED, Kind.INTERRUPT))
               for row in EXCEPTIONS)  # fmt: skip


def test_vectors_by_mnemonic() -> None:
    assert (VECTORS["DE"], VECTORS["UD"], VECTORS["GP"], VECTORS["PF"]) == (0, 6, 13, 14)
    assert len(VECTORS) == 17


def test_which_push_an_error_code() -> None:
    assert {row.vector for row in EXCEPTIONS if row.error_code} == {8, 10, 11, 12, 13, 14, 17}


def test_which_are_contributory() -> None:
    found = {r.vector for r in EXCEPTIONS if r.contribution is Contribution.CONTRIBUTORY}
    assert found == {0, 10, 11, 12, 13}


def test_which_are_no_faults() -> None:
    kinds = {row.vector: row.kind for row in EXCEPTIONS if row.vector < 20}
    assert {v for v, kind in kinds.items() if kind is Kind.TRAP} == {3, 4}
    assert {v for v, kind in kinds.items() if kind is Kind.ABORT} == {8, 18}
    assert {v for v, kind in kinds.items() if kind is Kind.FAULT_OR_TRAP} == {1}
    assert {v for v, kind in kinds.items() if kind is Kind.INTERRUPT} == {2}
    assert {v for v, kind in kinds.items() if kind is Kind.RESERVED} == {9, 15}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (13, 13, 8),
        (13, 14, 14),
        (14, 13, 8),
        (14, 14, 8),
        (0, 11, 8),
        (6, 13, 13),
        (6, 14, 14),
        (13, 6, 6),
        (14, 6, 6),
        (8, 13, None),
        (8, 14, None),
        (8, 8, None),
        (8, 6, 6),
        (32, 13, 13),
        (0x80, 14, 14),
        (2, 13, 13),
    ],
)
def test_a_second_exception(first: int, second: int, outcome: int | None) -> None:
    assert combine(first, second) == outcome
