"""Drawings for pages: SVG as text, with a title and a description for those who do not see it.

Colours are classes (`s0`, `s1` ...), to which page.py gives values for light and dark. Nothing is
told by colour alone. Sizes are those of the viewBox, in pixels at the width of a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final
from zlib import crc32

SERIES: Final = 10  #: how many colours there are
#: Of a character of a label, in the widest font that is usual for pages; and beside a label.
_CHARACTER, _GAP = 7.8, 6


def svg(title: str, description: str, width: float, height: float, body: Iterable[str]) -> str:
    """A drawing; title and description are read out in its place."""
    number = crc32(title.encode())  # a page has no two of the same title
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-labelledby="t{number} d{number}">'
        f'<title id="t{number}">{escape(title)}</title>'
        f'<desc id="d{number}">{escape(description)}</desc>{"".join(body)}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    """A rectangle, with words for whoever points at it."""
    inner = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{height:.1f}">{inner}</rect>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def room(labels: Iterable[str], least: int) -> float:
    """Width of a margin that the longest of these fits into."""
    longest = max(map(len, labels), default=0)
    return max(least, math.ceil(longest * _CHARACTER) + 2 * _GAP)


def powers(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten that an axis for these values reaches from and to."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low = math.floor(min(logs) + 1e-9)
    return low, max(low + 1, math.ceil(max(logs) - 1e-9))


def tick_name(power: int) -> str:
    """1, 10, 100, 1k ..."""
    for unit, at in (("G", 9), ("M", 6), ("k", 3)):
        if power >= at:
            return f"{10 ** (power - at)}{unit}"
    return f"{10.0**power:g}"


# -- Bars on a logarithmic axis --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what it reaches to, and a darker part that begins with it."""

    label: str
    value: float
    part: float
    note: str  #: behind it


_BAR_LEAST, _BAR_WIDTH, _BAR_LINE = 100, 230, 19


def bars(title: str, rows: Sequence[Bar], reference: float) -> str:
    """Horizontal bars; a line marks the reference."""
    low, high = powers([v for row in rows for v in (row.value, row.part)])
    height = _BAR_LINE * len(rows) + 22
    left = room((row.label for row in rows), _BAR_LEAST)
    right = room((row.note for row in rows), _BAR_LEAST)

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return left + _BAR_WIDTH * min(max(share, 0.0), 1.0)

    def body() -> Iterable[str]:
        step = math.ceil((high - low) / 5)
        for power in range(low, high + 1, step):
            yield line(x(10.0**power), 0, x(10.0**power), height - 18)
            yield text(x(10.0**power), height - 4, tick_name(power), "dim", "middle")
        for number, row in enumerate(rows):
            top = number * _BAR_LINE
            yield text(left - _GAP, top + 13, row.label, "", "end")
            yield box(left, top + 3, x(row.value) - left, 12, "modelled", row.note)
            yield box(left, top + 3, x(row.part) - left, 12, "executed", row.note)
        if reference > 0:
            yield line(x(reference), 0, x(reference), height - 18, "mark")
        for number, row in enumerate(rows):  # over the line, which it hides
            yield text(x(row.value) + 5, number * _BAR_LINE + 13, row.note, "dim")

    description = "; ".join(f"{row.label} {row.note}" for row in rows)
    return svg(title, description, left + _BAR_WIDTH + right, height, body())


# -- Shares ----------------------------------------------------------------------------------------

_SHARE_LEAST, _SHARE_WIDTH, _SHARE_LINE = 100, 270, 19


def stacks(
    title: str, rows: Sequence[tuple[str, Mapping[str, float], str]], order: Sequence[str]
) -> str:
    """Bars of equal length, divided by share; rows are label, parts, and a note behind the bar."""
    left = room((label for label, _, _ in rows), _SHARE_LEAST)
    right = room((note for _, _, note in rows), _SHARE_LEAST)

    def body() -> Iterable[str]:
        for number, (label, parts, note) in enumerate(rows):
            top, at, total = number * _SHARE_LINE, left, sum(parts.values())
            yield text(left - _GAP, top + 14, label, "", "end")
            for place, key in enumerate(order):
                width = _SHARE_WIDTH * parts.get(key, 0.0) / total if total > 0 else 0.0
                if width > 0:
                    yield box(at, top + 3, width, 14, f"s{place % SERIES}", f"{label}: {key}")
                    if width > 7.5 * len(key):
                        yield text(at + width / 2, top + 14, key, "on", "middle")
                at += width
            yield text(left + _SHARE_WIDTH + _GAP, top + 14, note, "dim")

    described = "; ".join(
        f"{label}: " + ", ".join(f"{key} {value:g}" for key, value in parts.items())
        for label, parts, _ in rows
    )
    width = left + _SHARE_WIDTH + right
    return svg(title, described, width, _SHARE_LINE * len(rows) + 4, body())


def legend(names: Mapping[str, int]) -> str:
    """What colours mean: names and the numbers of their series."""
    items = "".join(
        f'<span><i class="s{number % SERIES}"></i>{escape(name)}</span>'
        for name, number in names.items()
    )
    return f'<p class="legend">{items}</p>'


# -- Curves ----------------------------------------------------------------------------------------

_PLOT_LEFT, _PLOT_WIDTH, _PLOT_LEAST, _PLOT_HEIGHT = 70, 600, 100, 330
_LEADER: Final = 14  #: length of the line from a curve's end to its name


def curves(
    title: str, axes: tuple[str, str], points: Sequence[int], values: Mapping[str, Sequence[float]]
) -> str:
    """Curves on two logarithmic axes, each with its name at its end."""
    low, high = powers(v for curve in values.values() for v in curve)
    first, last = math.log10(points[0]), math.log10(points[-1])

    def x(value: float) -> float:
        return _PLOT_LEFT + _PLOT_WIDTH * (math.log10(value) - first) / (last - first)

    def y(value: float) -> float:
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return _PLOT_HEIGHT - 10 - (_PLOT_HEIGHT - 20) * share

    ends = spread({name: y(curve[-1]) for name, curve in values.items()}, 15.0)

    def body() -> Iterable[str]:
        for power in range(low, high + 1):
            yield line(_PLOT_LEFT, y(10.0**power), _PLOT_LEFT + _PLOT_WIDTH, y(10.0**power))
            yield text(_PLOT_LEFT - 6, y(10.0**power) + 4, tick_name(power), "dim", "end")
        for point in points:
            yield text(x(point), _PLOT_HEIGHT + 8, str(point), "dim", "middle")
        middle = _PLOT_LEFT + _PLOT_WIDTH / 2
        yield text(middle, _PLOT_HEIGHT + 28, f"{axes[0]} (up: {axes[1]})", "dim", "middle")
        for number, (name, curve) in enumerate(values.items()):
            way = " ".join(f"{x(p):.1f},{y(v):.1f}" for p, v in zip(points, curve, strict=True))
            yield f'<polyline class="curve c{number % SERIES} dash{number % 4}" points="{way}"/>'
            at = _PLOT_LEFT + _PLOT_WIDTH
            yield line(at, y(curve[-1]), at + _LEADER, ends[name], "axis")
            yield text(at + _LEADER + 4, ends[name] + 4, name)

    described = "; ".join(
        f"{name}: " + ", ".join(f"{p}: {v:.0f}" for p, v in zip(points, curve, strict=True))
        for name, curve in values.items()
    )
    width = _PLOT_LEFT + _PLOT_WIDTH + _LEADER + room(values, _PLOT_LEAST)
    return svg(title, described, width, _PLOT_HEIGHT + 36, body())


def spread(places: Mapping[str, float], apart: float) -> dict[str, float]:
    """Move labels so that none is nearer to another than `apart`, and keep their order."""
    found: dict[str, float] = {}
    before = -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        before = found[name] = max(place, before + apart)
    return _lifted(found, apart, max(places.values(), default=0.0) + apart)


def _lifted(places: dict[str, float], apart: float, lowest: float) -> dict[str, float]:
    """What has been moved below `lowest` pushes the others up instead."""
    limit = lowest
    for name, place in reversed(list(places.items())):
        places[name] = min(place, limit)
        limit = places[name] - apart
    return places


# -- Strips of time --------------------------------------------------------------------------------

_TIME_LEAST, _TIME_WIDTH, _TIME_LINE = 90, 600, 26
BINS: Final = 300


def strips(title: str, rows: Sequence[tuple[str, Sequence[float], str]], until: str) -> str:
    """A strip for each row: the share of the time that is somebody else's, part by part.

    Rows are label, shares of BINS parts (negative: the run has ended), and a note behind the strip.
    """
    step = _TIME_WIDTH / BINS
    left = room((label for label, _, _ in rows), _TIME_LEAST)
    right = room([until, *(note for _, _, note in rows)], _TIME_LEAST)

    def body() -> Iterable[str]:
        for number, (label, shares, note) in enumerate(rows):
            top = number * _TIME_LINE
            yield text(left - _GAP, top + 16, label, "", "end")
            lived = sum(share >= 0 for share in shares)
            yield box(left, top + 4, step * lived, 18, "executed")
            for place, share in enumerate(shares):
                if share > 0.01:
                    high = max(18 * share, 1.5)
                    yield box(left + step * place, top + 22 - high, step, high, "modelled")
            yield text(left + step * lived + 6, top + 17, note, "dim")
        bottom = len(rows) * _TIME_LINE
        yield line(left, bottom + 2, left + _TIME_WIDTH, bottom + 2)
        yield text(left, bottom + 18, "0", "dim", "middle")
        yield text(left + _TIME_WIDTH, bottom + 18, until, "dim", "middle")

    described = "; ".join(f"{label}: {note}" for label, _, note in rows)
    width = left + _TIME_WIDTH + right
    return svg(title, described, width, len(rows) * _TIME_LINE + 24, body())
