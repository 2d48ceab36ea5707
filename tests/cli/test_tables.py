"""Tables on a terminal: whatever its width, no number is cut and no name is shortened."""

from __future__ import annotations

import io
import re
from functools import cache

import pytest

from hypervisor.cli.tables import parts, print_table
from hypervisor.experiments.compare import compare
from hypervisor.experiments.compare_report import COLUMNS, NUMBERS, rows

WIDTHS = (60, 80, 100, 120, 250)


class Terminal(io.StringIO):
    """What a person would see."""

    def isatty(self) -> bool:
        return True


@cache
def table() -> list[tuple[str, ...]]:
    return rows(compare(["pgfault", "quicksort"], repeat=1))


def shown(monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    print_table(COLUMNS, table(), right=NUMBERS, stream=terminal)
    return re.sub("\x1b\\[[0-9;]*m", "", terminal.getvalue())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_is_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = shown(monkeypatch, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for row in table():
        for name, cell in zip(COLUMNS, row, strict=True):
            if name in NUMBERS:
                assert set(cell.split()) <= set(words), (name, cell)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_each_row_has_its_names_on_one_line(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = [" ".join(line.split()) for line in shown(monkeypatch, width).splitlines()]
    for program, technique, executed, *_ in table():
        assert any(line.startswith(f"{program} {technique} {executed} ") for line in lines)


def test_a_wide_terminal_has_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 250).count("workload") == 1
    assert shown(monkeypatch, 80).count("workload") == 2


def test_columns_go_into_as_many_tables_as_there_must_be() -> None:
    assert parts([4, 4, 4, 4], 1, 100) == [[0, 1, 2, 3]]
    assert parts([4, 4, 4, 4], 1, 16) == [[0, 1, 2], [0, 3]]
    assert parts([4, 4, 4], 2, 5) == [[0, 1, 2]]
    assert parts([4, 40, 4], 1, 16) == [[0, 1], [0, 2]]
