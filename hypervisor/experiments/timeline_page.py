"""One run over machine time as a page: the guest's lane, the exits', the hypervisor's.

The whole run stands above, in parts so small that only shares can be shown; below it, the start,
the middle and the end, where each exit is drawn as long as it took. timeline.py records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from hypervisor.experiments import page, plots
from hypervisor.experiments.timeline import Exit, Timeline
from isa.cost import CostModel

#: Exits in each of the parts that are drawn exactly.
CLOSE: Final = 40
#: Reasons that have a colour of their own.
REASONS: Final = plots.SERIES - 1
OTHERS: Final = "others"
LANES: Final = ("guest", "exits", "hypervisor")
_LEFT, _WIDTH, _LANE, _GAP = 100, 900, 26, 10


def as_page(timeline: Timeline, program: str, model: CostModel) -> str:
    """The whole page."""
    return page.page(f"{program}: a timeline", _parts(timeline, program, model))


def _parts(timeline: Timeline, program: str, model: CostModel) -> Iterable[str]:
    yield f"<h1>{escape(program)} under {escape(timeline.name)}, over machine time</h1>"
    spent = sum(exit.hypervisor for exit in timeline.exits)
    share = 100 * spent / max(timeline.known, 1)
    of = "them" if timeline.kept is None else f"the first {timeline.known:,}"
    yield (
        f"<p>{len(timeline.exits) + timeline.left_out:,} exits in {timeline.end:,} cycles "
        f"of {escape(model.title)}; the hypervisor has {share:.1f}% of {of}. The guest's "
        "cycles are executed, the hypervisor's are modelled (hypervisor/cost.py).</p>"
    )
    if timeline.left_out:
        yield f"<p>The last {timeline.left_out:,} exits were too many to draw.</p>"
    reasons = [*list(timeline.by_reason())[:REASONS], OTHERS]
    yield plots.legend({reason: number for number, reason in enumerate(reasons)})
    yield "<h2>The whole run</h2>"
    shares = [
        share if place * timeline.end < plots.BINS * timeline.known else -1.0
        for place, share in enumerate(timeline.shares(plots.BINS, timeline.end))
    ]
    row = (timeline.name, shares, f"{len(timeline.exits):,} exits")
    yield f"<figure>{plots.strips('The whole run', [row], f'{timeline.end:,} cycles')}</figure>"
    for title, exits in _close_ups(timeline):
        yield f"<h2>{title}</h2><figure>{_lanes(title, exits, reasons)}</figure>"
    yield "<h2>Exits by reason</h2>"
    yield page.table(
        ("reason", "exits", "hypervisor cycles", "each"),
        (_reason(*item) for item in timeline.by_reason().items()),
        frozenset({"exits", "hypervisor cycles", "each"}),
    )


def _reason(reason: str, found: tuple[int, int]) -> str:
    count, cycles = found
    figures = (f"{count:,}", f"{cycles:,}", f"{cycles / count:,.0f}")
    cells = "".join(page.cell(figure, "number") for figure in figures)
    return f"<tr>{page.cell(reason)}{cells}</tr>"


def _close_ups(timeline: Timeline) -> list[tuple[str, Sequence[Exit]]]:
    """Parts of the run with few enough exits to draw each; all of it, if it has no more."""
    exits = timeline.exits
    if len(exits) <= CLOSE:
        return [("Each exit", exits)] if exits else []
    middle = (len(exits) - CLOSE) // 2
    return [
        (f"The first {CLOSE} exits", exits[:CLOSE]),
        (f"{CLOSE} exits in the middle", exits[middle : middle + CLOSE]),
        (f"The last {CLOSE} exits", exits[-CLOSE:]),
    ]


def _lanes(title: str, exits: Sequence[Exit], reasons: Sequence[str]) -> str:
    start, end = exits[0].start, max(exits[-1].end, exits[0].start + 1)

    def x(cycle: int) -> float:
        return _LEFT + _WIDTH * (cycle - start) / (end - start)

    def kind(exit: Exit) -> str:
        known = exit.reason if exit.reason in reasons else OTHERS
        return f"s{reasons.index(known) % plots.SERIES}"

    tops = {lane: number * (_LANE + _GAP) for number, lane in enumerate(LANES)}

    def body() -> Iterable[str]:
        for lane, top in tops.items():
            yield plots.text(_LEFT - 8, top + 17, lane, "", "end")
            yield plots.line(_LEFT, top + _LANE, _LEFT + _WIDTH, top + _LANE)
        before = start
        for exit in exits:
            words = f"{exit.reason} at cycle {exit.start:,}: {exit.hypervisor:,} cycles"
            at, length = x(exit.start), x(exit.end) - x(exit.start)
            gap = at - x(before)
            yield plots.box(x(before), tops["guest"], gap, _LANE, "executed", "the guest")
            yield plots.box(at, tops["exits"], 2.5, _LANE, kind(exit), words)
            yield plots.box(at, tops["hypervisor"], length, _LANE, kind(exit), words)
            before = exit.end
        bottom = len(LANES) * (_LANE + _GAP) + 12
        yield plots.text(_LEFT, bottom, f"{start:,}", "dim")
        yield plots.text(_LEFT + _WIDTH, bottom, f"{end:,} cycles", "dim", "end")

    described = "; ".join(f"{e.start}: {e.reason}, {e.hypervisor} cycles" for e in exits)
    return plots.svg(title, described, _LEFT + _WIDTH + 10, 3 * (_LANE + _GAP) + 18, body())
