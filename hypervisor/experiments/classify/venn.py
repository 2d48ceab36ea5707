"""The sets as a drawing: two circles, privileged and sensitive, and what lies in their parts.

The part of the sensitive circle that the privileged one does not cover is the unsafe crescent.
Names are set line by line into the width that the circles leave at that height. html.py puts the
drawing into a page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

#: Everything in the drawing's own units, which are pixels at full size.
WIDTH, HEIGHT, RADIUS, MIDDLE = 940, 560, 250, 290
PRIVILEGED, SENSITIVE = 330, 590  #: x of the circles' centres
LINE: Final = 24
CHARACTER: Final = 7.9  #: width of a character of the 13-pixel monospaced names
MARGIN: Final = 10

#: The room for names at a height: from and to, or None.
Span = Callable[[float], tuple[float, float] | None]


class Name(NamedTuple):
    """A name to be set, and where it links to."""

    text: str
    target: str
    title: str


def _circle(centre: float, y: float) -> tuple[float, float] | None:
    square = RADIUS**2 - (y - MIDDLE) ** 2
    if square <= 0:
        return None
    half = square**0.5
    return centre - half + MARGIN, centre + half - MARGIN


def only_privileged(y: float) -> tuple[float, float] | None:
    """The crescent on the left."""
    own, other = _circle(PRIVILEGED, y), _circle(SENSITIVE, y)
    if own is None or other is None:
        return own
    return own[0], min(own[1], other[0] - 2 * MARGIN)


def both(y: float) -> tuple[float, float] | None:
    """What the circles share."""
    left, right = _circle(SENSITIVE, y), _circle(PRIVILEGED, y)
    if left is None or right is None:
        return None
    return left[0], right[1]


def unsafe(y: float) -> tuple[float, float] | None:
    """The unsafe crescent."""
    own, other = _circle(SENSITIVE, y), _circle(PRIVILEGED, y)
    if own is None or other is None:
        return own
    return max(own[0], other[1] + 2 * MARGIN), own[1]


def _width(name: Name) -> float:
    return (len(name.text) + 1.5) * CHARACTER


def _lines(names: Sequence[Name], span: Span, top: float) -> list[tuple[float, list[Name]]]:
    """Names line by line from a height down; a line takes what fits."""
    lines, rest, y = [], list(names), top
    while rest and y < MIDDLE + RADIUS:
        room = span(y)
        taken: list[Name] = []
        while room and rest and sum(map(_width, [*taken, rest[0]])) <= room[1] - room[0]:
            taken.append(rest.pop(0))
        if taken:
            lines.append((y, taken))
        y += LINE
    if rest and lines:  # better beyond the line than left out
        lines[-1][1].extend(rest)
    return lines


def _set(names: Sequence[Name], span: Span, style: str) -> list[str]:
    """The names in the middle of their part, as links."""
    height, top = len(names), MIDDLE - RADIUS + 70.0
    lines = _lines(names, span, top)
    for _ in range(20):  # lower until what is above and below is even
        height = len(lines) * LINE
        better = MIDDLE - height / 2 + LINE / 2
        if better <= top + 1:
            break
        top = (top + better) / 2
        lines = _lines(names, span, top)
    found = []
    for y, line in lines:
        room = span(y) or (0.0, 0.0)
        x = (room[0] + room[1] - sum(map(_width, line))) / 2
        for name in line:
            found.append(
                f'<a href="#{name.target}"><text x="{x:.0f}" y="{y:.0f}" class="{style}">'
                f"{escape(name.text)}<title>{escape(name.title)}</title></text></a>"
            )
            x += _width(name)
    return found


def draw(
    privileged: Sequence[Name], shared: Sequence[Name], loose: Sequence[Name], safe: int
) -> str:
    """The SVG element."""
    title = "Privileged and sensitive instructions, and those that are only sensitive: unsafe"
    circles = [
        f'<circle cx="{SENSITIVE}" cy="{MIDDLE}" r="{RADIUS}" class="sensitive"/>',
        f'<circle cx="{PRIVILEGED}" cy="{MIDDLE}" r="{RADIUS}" class="privileged"/>',
        f'<circle cx="{SENSITIVE}" cy="{MIDDLE}" r="{RADIUS}" class="edge"/>',
    ]
    heads = [
        f'<text x="{PRIVILEGED - 130}" y="28" class="head">privileged</text>',
        f'<text x="{SENSITIVE + 130}" y="28" class="head">sensitive</text>',
        f'<text x="{SENSITIVE + 60}" y="{MIDDLE - RADIUS + 52}" class="head bad">unsafe</text>'
        if loose
        else "",
        f'<text x="16" y="{HEIGHT - 10}" class="note">outside: {safe} safe rows</text>',
    ]
    names = [
        *_set(privileged, only_privileged, "name"),
        *_set(shared, both, "name"),
        *_set(loose, unsafe, "name bad"),
    ]
    body = "\n".join((*circles, *heads, *names))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">\n{body}\n</svg>'
