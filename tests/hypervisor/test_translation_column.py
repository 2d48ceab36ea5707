"""What becomes of an instruction is a column of the table: it is so, and each kind is timed."""

from __future__ import annotations

from hypervisor.translator import forms
from isa.table import ROWS
from tests.bench.translated import NOT_TIMED, timed


def test_the_column_says_what_the_translator_does() -> None:
    special = {"identical": forms.identical, "callout": forms.call_out}
    for row in ROWS:
        form = forms.FORMS[row.id]
        assert form is special.get(row.translation, form), row
        assert (form in special.values()) is (row.translation in special), row


def test_all_that_is_translated_is_timed() -> None:
    translated = {row.mnemonic for row in ROWS if row.translation != "identical"}
    assert translated - timed() == set(NOT_TIMED)
