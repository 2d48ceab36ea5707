"""The graph of translated blocks as one self-contained page, and the table for the terminal.

Blocks stand below each other by guest address, as in a listing, and control runs beside them in
arcs, as objdump --visualize-jumps draws jumps: short arcs inside, long ones outside, and those that
lead back up in another colour, so that a loop is seen. Only the hottest blocks are drawn; the page
says how many are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final, NamedTuple
from zlib import crc32

from hypervisor.experiments import page
from hypervisor.experiments.blocks import EVENT, LINK, LOOK_UP, Block, Edge, Graph

COLUMNS: Final = ("block", "symbol", "entered", "executed", "share", "size", "goes on to")
NUMBERS: Final = frozenset({"entered", "executed", "share", "size"})
MOST_ARCS: Final = 150
MOST_SUCCESSORS: Final = 2
MEANINGS: Final = {
    LINK: "a link: chained, a jump within the cache",
    LOOK_UP: "a look-up: a return or an indirect jump",
    EVENT: "an event, an IRET, or the hypervisor",
}

#: The drawing: pixels at full size.
_WIDTH, _ROW, _TOP, _LANE = 1040, 26, 28, 13
_LEAST_LEFT, _MOST_LANES = 60, 20
_CHARACTER: Final = 7.3  #: width of one, monospaced
_FIGURES: Final = 170  #: room for the figures at the right
_GAP: Final = 12

STYLE: Final = """
svg.blocks text { font: 12px ui-monospace, monospace; }
svg.blocks .box { fill: var(--bar); fill-opacity: .07; stroke: var(--line); }
svg.blocks .heat { fill: var(--bar2); fill-opacity: .38; }
svg.blocks .arc { fill: none; stroke: var(--bar); }
svg.blocks .up { stroke: var(--bad); }
svg.blocks .look-up { stroke-dasharray: 6 3; } svg.blocks .event { stroke-dasharray: 1.5 3; }
svg.blocks .tip { fill: var(--bar); stroke: none; } svg.blocks .tip.up { fill: var(--bad); }
svg.blocks a:hover .box, svg.blocks a:focus .box { stroke: var(--text); }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; font-size: .85rem; }
.key svg { width: 3rem; height: 1rem; vertical-align: middle; }
pre { overflow-x: auto; font: 12px/1.4 ui-monospace, monospace; }
details:target > summary { background: var(--badback); }
summary { cursor: pointer; font: .85rem ui-monospace, monospace; padding: .15rem 0; }
@media print { details:not([open]) { display: none; } svg.blocks { max-height: 95vh; } }
"""


# -- The table -------------------------------------------------------------------------------------


def rows(graph: Graph, count: int) -> list[tuple[str, ...]]:
    """The hottest blocks."""
    return [
        (
            f"{block.eip:#010x}",
            block.name,
            f"{block.entered:,}",
            f"{block.executed:,}",
            f"{graph.share(block):.1%}",
            f"{len(block.source)} -> {block.size}",
            successors(graph, block),
        )
        for block in graph.hottest(count)
    ]


def successors(graph: Graph, block: Block) -> str:
    """Where control goes from a block, in words."""
    edges = graph.successors(block)
    names = [f"{_short(edge.end)} {edge.kind} {edge.times:,}" for edge in edges[:MOST_SUCCESSORS]]
    more = len(edges) - MOST_SUCCESSORS
    return ", ".join([*names, f"{more} more"] if more > 0 else names)


def _short(block: Block) -> str:
    return block.name or f"{block.eip:#x}"


def summary(graph: Graph, count: int) -> list[str]:
    """What the run was, and what is left out."""
    result = graph.result
    kinds = {kind: sum(e.times for e in graph.edges if e.kind == kind) for kind in MEANINGS}
    lines = [
        f"{graph.program}: {result.ticks:,} guest instructions in {len(graph.blocks)} blocks, "
        f"{graph.elsewhere:,} elsewhere (ring 3, or interpreted). It ended: {result.reason}.",
        f"From block to block by links {kinds[LINK]:,}, by look-ups {kinds[LOOK_UP]:,}, otherwise "
        f"{kinds[EVENT]:,} times; {graph.chained:,} links were chained.",
    ]
    left = graph.blocks[count:]
    if left:
        executed = sum(block.executed for block in left)
        share = executed / max(result.ticks, 1)
        lines.append(
            f"Left out: {len(left)} cooler blocks, with {share:.1%} of the instructions; --most "
            "shows more."
        )
    return lines


# -- The page --------------------------------------------------------------------------------------


def as_page(graph: Graph, count: int) -> str:
    """The whole page."""
    return page.page(f"seventeen blocks {graph.program}", _parts(graph, count))


def _parts(graph: Graph, count: int) -> Iterable[str]:
    shown = sorted(graph.hottest(count), key=lambda block: (block.eip, block.source))
    yield f"<style>{STYLE}</style>"
    yield f"<h1>Translated blocks of {escape(graph.program)}</h1>"
    yield from (f"<p>{escape(line)}</p>" for line in summary(graph, count))
    yield _key()
    yield draw(graph, shown)
    yield "<h2>The same as a table, hottest first</h2>"
    lines = rows(graph, count)
    cells = (
        page.cell(line[0], target=_anchor(block)) + "".join(map(_cell, COLUMNS[1:], line[1:]))
        for line, block in zip(lines, graph.hottest(count), strict=True)
    )
    yield page.table(COLUMNS, (f"<tr>{row}</tr>" for row in cells), NUMBERS)
    yield (
        '<p class="dim">Size: bytes of guest code, and of its translation. Executed: guest '
        "instructions. Entered: from another block, or back to an earlier place in itself.</p>"
    )
    yield "<h2>What each has become</h2>"
    for block in shown:
        again = f", made {block.made} times" if block.made > 1 else ""
        yield (
            f'<details id="{_anchor(block)}"><summary>{escape(block.label)}{again}</summary>'
            f"<pre>{escape(block.listing)}</pre></details>"
        )


def _cell(column: str, text: str) -> str:
    return page.cell(text, "number" if column in NUMBERS else "")


def _anchor(block: Block) -> str:
    return f"block-{block.eip:x}-{crc32(block.source):x}"


def _key() -> str:
    samples = [*MEANINGS.items(), ("up", "back to a lower address, or to itself")]
    parts = (
        f'<span><svg class="blocks" viewBox="0 0 48 16" aria-hidden="true">'
        f'<path class="arc {kind}" stroke-width="2" d="M2 8H46"/></svg> {escape(meaning)}</span>'
        for kind, meaning in samples
    )
    return f'<p class="key">{"".join(parts)}</p>'


class Arc(NamedTuple):
    """An edge between two rows, in a lane."""

    edge: Edge
    start: int
    end: int
    lane: int


def arcs(graph: Graph, shown: Sequence[Block]) -> list[Arc]:
    """The edges among blocks, each in the innermost lane that is free along its way."""
    row = {block: number for number, block in enumerate(shown)}
    edges = [e for e in graph.edges if e.start in row and e.end in row][:MOST_ARCS]
    lanes: list[list[tuple[int, int]]] = []
    found = []
    for edge in sorted(edges, key=lambda e: abs(row[e.start] - row[e.end])):
        low, high = sorted((row[edge.start], row[edge.end]))
        free = (n for n, lane in enumerate(lanes) if all(high < a or b < low for a, b in lane))
        number = next(free, len(lanes))
        if number == len(lanes):
            lanes.append([])
        lanes[number].append((low, high))
        found.append(Arc(edge, row[edge.start], row[edge.end], number))
    return found


def draw(graph: Graph, shown: Sequence[Block]) -> str:
    """The SVG element."""
    found = arcs(graph, shown)
    lanes = max((arc.lane for arc in found), default=0) + 1
    pitch = _LANE if lanes <= _MOST_LANES else _LANE * _MOST_LANES / lanes
    left = max(_LEAST_LEFT, lanes * pitch + 2 * _GAP)
    height = _TOP + _ROW * len(shown) + 6
    title = f"{len(shown)} blocks by address, and how often control goes from one to another"
    parts = [
        f'<svg class="blocks" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">',
        f'<text class="dim" x="{_WIDTH - _FIGURES + 58}" y="18" text-anchor="end">entered</text>'
        f'<text class="dim" x="{_WIDTH}" y="18" text-anchor="end">share</text>',
        *(_arc(arc, left, pitch) for arc in reversed(found)),
        *(_box(graph, block, number, left) for number, block in enumerate(shown)),
        "</svg>",
    ]
    return "\n".join(parts)


def _arc(arc: Arc, left: float, pitch: float) -> str:
    """From the lower part of one row to the upper part of another, through its lane."""
    up = " up" if arc.end <= arc.start else ""
    y0 = _TOP + _ROW * arc.start + _ROW * 0.62
    y1 = _TOP + _ROW * arc.end + _ROW * 0.3
    x = left - _GAP - (arc.lane + 1) * pitch
    tip = left - 7
    width = 1 + 0.5 * math.log10(arc.edge.times)
    edge = arc.edge
    words = f"{edge.start.label} to {edge.end.label}: {edge.times:,} times, {MEANINGS[edge.kind]}"
    return (
        f'<g><title>{escape(words)}</title><path class="arc {edge.kind}{up}" '
        f'stroke-width="{width:.1f}" d="M{left:.1f} {y0:.1f}H{x + 5:.1f}Q{x:.1f} {y0:.1f} {x:.1f} '
        f"{y0 + (5 if y1 > y0 else -5):.1f}V{y1 + (-5 if y1 > y0 else 5):.1f}Q{x:.1f} {y1:.1f} "
        f'{x + 5:.1f} {y1:.1f}H{tip:.1f}"/><path class="tip{up}" '
        f'd="M{tip:.1f} {y1 - 4:.1f}L{left:.1f} {y1:.1f}L{tip:.1f} {y1 + 4:.1f}Z"/></g>'
    )


def _box(graph: Graph, block: Block, number: int, left: float) -> str:
    """A block's row: its place, its code as far as there is room, and its figures."""
    y, right = _TOP + _ROW * number, _WIDTH - _FIGURES - _GAP
    share = graph.share(block)
    room = int((right - left - 2 * _GAP) / _CHARACTER)
    place = block.label
    code = "; ".join(block.texts)
    rest = room - len(place) - 2
    if len(code) > rest:
        code = code[: max(rest - 3, 0)] + "..." if rest > 8 else ""
    return (
        f'<a href="#{_anchor(block)}"><title>{escape("; ".join(block.texts))}</title>'
        f'<rect class="box" x="{left:.1f}" y="{y + 2}" width="{right - left:.1f}" '
        f'height="{_ROW - 5}" rx="3"/><rect class="heat" x="{left:.1f}" y="{y + 2}" '
        f'width="{(right - left) * share:.1f}" height="{_ROW - 5}" rx="3"/>'
        f'<text x="{left + 8:.1f}" y="{y + 17}">{escape(place)} <tspan class="dim" dx="6">'
        f'{escape(code)}</tspan></text></a><text x="{_WIDTH - _FIGURES + 58}" y="{y + 17}" '
        f'text-anchor="end">{block.entered:,}</text><text x="{_WIDTH}" y="{y + 17}" '
        f'text-anchor="end">{share:.1%}</text>'
    )
