"""The fidelity matrix in words, as plain data and as a page; cli/fidelity.py prints it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any, Final

from hypervisor.experiments import page
from hypervisor.experiments.fidelity import (
    CROSS,
    EQUAL,
    REFUSED,
    Cell,
    Matrix,
    rescues_by_column,
)
from hypervisor.experiments.fidelity_check import summary, surprises
from hypervisor.experiments.lockstep import Divergence

LEGEND: Final = "=  equal to native    x  differs, after this instruction    -  refused"


def columns(matrix: Matrix) -> tuple[str, ...]:
    """The heads of the table."""
    return ("guest", *map(str, matrix.columns))


def rows(matrix: Matrix) -> list[tuple[str, ...]]:
    """The table, a row for each guest."""
    return [
        (guest, *(mark(matrix.cell(guest, column)) for column in matrix.columns))
        for guest in matrix.guests
    ]


def mark(cell: Cell) -> str:
    """What stands in a cell."""
    if cell.verdict == CROSS:
        return f"x {mnemonic(cell)}"
    return {EQUAL: "=", REFUSED: "-"}[cell.verdict]


def mnemonic(cell: Cell) -> str:
    """The mnemonic of the instruction behind a cross."""
    return cell.cross.text.split(" ")[0] if cell.cross else "its end"


def place(cross: Divergence) -> str:
    """Where the instruction stands: symbol, file and line."""
    symbol, _, line = cross.place.partition(" ")
    return f"{symbol} ({Path(line).name})" if line else symbol


def difference(cross: Divergence) -> str:
    """What it made different, in one line."""
    return cross.difference.reason.replace(" at the end:", ":")


def cross_lines(matrix: Matrix) -> list[str]:
    """A line for each cross."""
    return [f"{cell.guest}, {cell.column}: {explain(cell)}" for cell in matrix.crosses]


def explain(cell: Cell) -> str:
    """The reason for a cross, or a refusal, in one line."""
    if cell.cross is None:
        return cell.reason or "differs at its end, but at no tick before"
    cross = cell.cross
    where = f" in {place(cross)}" if cross.place else ""
    why = f" ({cell.reason})" if cell.reason else ""
    return f"{cross.text} at {cross.eip:#x}{where}, tick {cross.tick}: {difference(cross)}{why}"


def refusal_lines(matrix: Matrix) -> list[str]:
    """A line for each refusal, those with the same reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in matrix.cells:
        if cell.verdict == REFUSED:
            found.setdefault((str(cell.column), cell.reason), []).append(cell.guest)
    return [
        f"{column}: {reason} ({guests[0] if len(guests) == 1 else f'{len(guests)} guests'})"
        for (column, reason), guests in found.items()
    ]


def rescue_lines(matrix: Matrix) -> list[str]:
    """What exits only because a shadow structure makes it: a line per column and instruction."""
    return [
        f"{column}: {rescue.mnemonic}, by {rescue.structure}: "
        f"{_count(rescue.times, 'time')} in {_count(guests, 'guest')}"
        for column, rescue, guests in rescues_by_column(matrix)
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def as_json(matrix: Matrix) -> dict[str, Any]:
    """The whole matrix as plain data."""
    return {
        "columns": [str(column) for column in matrix.columns],
        "guests": list(matrix.guests),
        "cells": [_cell_json(cell) for cell in matrix.cells],
        "surprises": list(surprises(matrix)),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    cross = cell.cross
    found: dict[str, Any] = {
        "guest": cell.guest,
        "technique": cell.column.technique,
        "virtualizable": cell.column.virtualizable,
        "verdict": cell.verdict,
        "ticks": cell.ticks,
        "rescues": [rescue._asdict() for rescue in cell.rescues],
    }
    if cell.reason:
        found["reason"] = cell.reason
    if cross is not None:
        found["cross"] = {
            "tick": cross.tick,
            "eip": cross.eip,
            "code": cross.code.hex(),
            "instruction": cross.text,
            "mnemonic": mnemonic(cell),
            "place": place(cross),
            "what": cross.difference.what,
            "difference": difference(cross),
        }
    return found


def as_page(matrix: Matrix) -> str:
    """The whole matrix as one HTML page; every cross leads to its reason."""
    return page.page("seventeen fidelity", _parts(matrix))


def _parts(matrix: Matrix) -> Iterable[str]:
    yield "<h1>Fidelity: which technique can a guest tell from the bare machine?</h1>"
    yield (
        "<p>Two runs are equal when every device access, every event delivered to the guest, and "
        "at the end registers and memory are, compared on guest ticks. A cross names the guest "
        "instruction after which they part.</p>"
    )
    yield f"<p><b>{escape(summary(matrix))}</b></p>"
    yield page.table(columns(matrix), (_row(matrix, guest) for guest in matrix.guests))
    if matrix.crosses:
        yield "<h2>The crosses</h2>"
        yield page.table(
            ("guest", "technique", "instruction", "where", "tick", "what differs"),
            (_reason(matrix, cell) for cell in matrix.crosses),
        )
    for title, lines in (
        ("Refused", refusal_lines(matrix)),
        ("Rescued: exits that only a shadow structure causes", rescue_lines(matrix)),
        ("What the instruction table did not expect", surprises(matrix)),
    ):
        if lines:
            yield f"<h2>{title}</h2>"
            yield "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _anchor(matrix: Matrix, cell: Cell) -> str:
    return f"{cell.guest}-{matrix.columns.index(cell.column)}"


def _row(matrix: Matrix, guest: str) -> str:
    cells = (matrix.cell(guest, column) for column in matrix.columns)
    marks = "".join(
        page.cell(mark(c), c.verdict, target=_anchor(matrix, c) if c.verdict == CROSS else "")
        for c in cells
    )
    return f"<tr>{page.cell(guest)}{marks}</tr>"


def _reason(matrix: Matrix, cell: Cell) -> str:
    cross, anchor = cell.cross, escape(_anchor(matrix, cell))
    if cross is None:
        texts = ("", "", "", explain(cell))
    else:
        why = f" ({cell.reason})" if cell.reason else ""
        texts = (cross.text, place(cross), str(cross.tick), difference(cross) + why)
    cells = "".join(map(page.cell, (cell.guest, str(cell.column), *texts)))
    return f'<tr id="{anchor}">{cells}</tr>'
