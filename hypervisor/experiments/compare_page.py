"""A comparison as one self-contained page, to be projected or printed: plots.py draws, page.py has
the style. Every figure of a drawing stands in its description and in the table as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from itertools import groupby
from typing import Final

from hypervisor.cost import hypervisor_costs
from hypervisor.experiments import compare_report as report
from hypervisor.experiments import page, plots
from hypervisor.experiments.compare import NATIVE, Comparison, Row
from hypervisor.experiments.orderings import FACTORS, Ordering, Verdict, orderings, verdicts
from hypervisor.experiments.sweeps import Sweep
from hypervisor.experiments.timeline import Timeline, record
from hypervisor.experiments.workloads import COUNTED, NANO, SYSTEM, WHOLE
from isa.cost import BUS_EVENTS, Cost

TITLE: Final = "What virtualization costs"
KINDS: Final = {
    NANO: "One operation: cycles",
    SYSTEM: "An operating system: cycles of an operation",
    WHOLE: "Computation, and whole programs: cycles",
}
#: Reasons that have a colour of their own in the breakdown; the others share the last.
REASONS: Final = plots.SERIES - 1
OTHERS: Final = "others"
#: What the timeline shows, and how often it is done there.
SHOWN, TIMES = "forkwait", 3

MODEL_NOTE: Final = (
    "Modelled are: each instruction at a fixed price, delivery of exceptions and interrupts, ring "
    "changes, page walks and TLB flushes, the bus of a real device, entry to and exit from guest "
    "mode; and of the hypervisor, how often it is entered, interprets an instruction, fills a "
    "shadow entry, injects an event or answers for a device; how many instructions it translates, "
    "or scans to patch them, how often it looks up a translation, and how many jumps it chains.",
    "Not modelled are: caches, branch prediction, overlap of instructions, the size of a real TLB, "
    "and the difference between one handler and another. What a hypervisor saves by being clever "
    "within a handler is not seen; how often it is entered, and what its code costs that runs in "
    "the guest's place, is.",
    "No price is the result of a nanobenchmark. They were fixed before any ordering was looked at.",
)


def as_page(comparison: Comparison, sweeps: Sequence[Sweep] = ()) -> str:
    """The whole page."""
    return page.page("seventeen compare", _parts(comparison, sweeps))


def _parts(comparison: Comparison, sweeps: Sequence[Sweep]) -> Iterable[str]:
    yield f"<h1>{TITLE}</h1>"
    yield from (f"<p>{escape(words)}</p>" for words in report.notes(comparison))
    for title, names in _by_kind(comparison):
        yield f"<h2>{title}</h2>"
        yield (
            '<p class="dim">Blue: executed. Up to the end: with the hypervisor\'s work. Dashed: '
            "native. The axis is logarithmic; behind a bar its cycles, and the ratio to native.</p>"
        )
        yield f'<div class="grid">{"".join(_bars(comparison, name) for name in names)}</div>'
    yield from _exits(comparison)
    yield from _timeline(comparison)
    yield from map(_curves, sweeps)
    yield from _verdicts(comparison)
    yield from _orderings(comparison)
    yield from _table(comparison)
    yield from _prices(comparison)


def _by_kind(comparison: Comparison) -> Iterable[tuple[str, list[str]]]:
    kinds = {row.program: row.kind for row in comparison.rows}
    titles = {name: KINDS.get(kind, KINDS[WHOLE]) for name, kind in kinds.items()}
    for title, names in groupby(titles, titles.__getitem__):
        yield title, list(names)


def _label(row: Row) -> str:
    return row.technique + report.DIFFERS * (not row.same)


def _bars(comparison: Comparison, program: str) -> str:
    rows = comparison.of(program)
    native = next(row for row in rows if row.technique == NATIVE)
    drawn = [
        plots.Bar(
            _label(row),
            row.each(row.cycles),
            row.each(row.executed),
            f"{report.amount(row.each(row.cycles))}  {row.ratio:.2f}x",
        )
        for row in rows
    ]
    about = next((w.about for w in comparison.workloads if w.name == program), "")
    drawing = plots.bars(f"{program}: cycles by technique", drawn, native.each(native.cycles))
    return (
        f"<figure><h3>{escape(program)}</h3>{drawing}"
        f"<figcaption>{escape(about)}</figcaption></figure>"
    )


# -- Exits -----------------------------------------------------------------------------------------


def _exits(comparison: Comparison) -> Iterable[str]:
    yield '<h2 id="exits">Exits, by reason</h2>'
    yield '<p class="dim">Shares; behind each bar how many exits one operation, or run, has.</p>'
    yield '<div class="grid">'
    for program in comparison.programs:
        rows = [row for row in comparison.of(program) if any(n > 0 for n in row.exits.values())]
        if rows:
            order = _reasons(rows)
            drawn = [(_label(row), _shares(row, order), _exit_note(row)) for row in rows]
            drawing = plots.stacks(f"{program}: exits by reason", drawn, order)
            used = [reason for reason in order if any(reason in parts for _, parts, _ in drawn)]
            yield (
                f"<figure><h3>{escape(program)}</h3>{drawing}"
                f"{plots.legend({r: order.index(r) for r in used})}</figure>"
            )
    yield "</div>"


def _reasons(rows: Sequence[Row]) -> list[str]:
    """The reasons that are most of some technique's exits, and a name for all the others."""
    most: dict[str, float] = {}
    for row in rows:
        total = sum(n for n in row.exits.values() if n > 0)
        for reason, number in row.exits.items():
            most[reason] = max(most.get(reason, 0.0), number / total)
    return [*sorted(most, key=lambda reason: (-most[reason], reason))[:REASONS], OTHERS]


def _shares(row: Row, order: Sequence[str]) -> dict[str, float]:
    """Exits by reason, of those that have a name in `order`."""
    shares: dict[str, float] = {}
    for reason, number in row.exits.items():
        key = reason if reason in order else OTHERS
        if number > 0:
            shares[key] = shares.get(key, 0.0) + row.each(number)
    return shares


def _exit_note(row: Row) -> str:
    count = report.amount(row.each(sum(row.exits.values())))
    return f"{count} exit{'s' * (count != '1')}"


# -- Time ------------------------------------------------------------------------------------------


def _timeline(comparison: Comparison) -> Iterable[str]:
    if SHOWN not in comparison.programs:
        return
    subject = COUNTED[SHOWN].subject(TIMES)
    lines: list[Timeline] = []
    same = {row.technique for row in comparison.of(SHOWN) if row.same}
    for column in comparison.columns:
        if column.technique != "interpret" and str(column) in same:
            lines.append(record(subject, column, comparison.model.name))
    until = max((line.end for line in lines), default=0)
    yield f'<h2 id="time">A timeline: the small OS starts, forks, waits {TIMES} times</h2>'
    yield (
        '<p class="dim">Machine time from left to right. Blue: the guest has the CPU; the rest, '
        "from below: the hypervisor's share. Interpretation would not fit.</p>"
    )
    rows = [(line.name, _until(line, until), _time_note(line)) for line in lines]
    words = f"{until / 1e6:.1f} million cycles"
    yield f"<figure>{plots.strips('The hypervisor over machine time', rows, words)}</figure>"


def _until(line: Timeline, until: int) -> list[float]:
    """Shares of a run on a common scale; -1 after its end."""
    lived = max(1, round(plots.BINS * line.known / until))
    shares = line.shares(plots.BINS, until)
    return [share if place < lived else -1.0 for place, share in enumerate(shares)]


def _time_note(line: Timeline) -> str:
    return f"{len(line.exits) + line.left_out:,} exits"


def _curves(sweep: Sweep) -> str:
    drawing = plots.curves(sweep.title, (sweep.x, sweep.y), sweep.points, sweep.curves)
    return f"<h2>{escape(sweep.title)}</h2><figure>{drawing}</figure>"


# -- Orderings -------------------------------------------------------------------------------------


def _verdicts(comparison: Comparison) -> Iterable[str]:
    found = verdicts(comparison)
    if not found:
        return
    yield '<h2 id="paper">What the paper found, and what we find</h2>'
    yield "<p>K. Adams and O. Agesen, ASPLOS 2006. Cycles of one operation.</p>"
    yield page.table((*report.VERDICT_COLUMNS, "why"), map(_verdict, found))


def _verdict(verdict: Verdict) -> str:
    claim = verdict.claim
    why = claim.because
    if verdict.figures is not None and not verdict.holds and claim.instead:
        why = claim.instead
    kind = "" if verdict.figures is None else "equal" if verdict.holds else "cross"
    words, faster, slower, answer = report.verdict_cells(verdict)
    cells = "".join(map(page.cell, (words, faster, slower)))
    return f"<tr>{cells}{page.cell(answer, kind)}{page.cell(why)}</tr>"


def _orderings(comparison: Comparison) -> Iterable[str]:
    yield '<h2 id="orderings">Orderings</h2>'
    yield (
        "<p>Cheapest first; within 2% is equal. The hypervisor's prices as modelled, halved and "
        "doubled; and by wall time, which is that of a hypervisor in Python. There within 25% is "
        "equal, and what is too short to be told.</p>"
    )
    columns = ("workload", "by", "order")
    yield page.table(columns, (_ordering(found) for found in orderings(comparison)))


def _ordering(found: Ordering) -> str:
    by_factor = dict(zip(FACTORS, found.by_factor, strict=True))
    base = by_factor.pop(1.0)
    lines = [("cycles", report.ordering_text(base), "")]
    for factor, order in by_factor.items():
        changed = order != base
        text = report.ordering_text(order) if changed else "the same"
        lines.append((f"hypervisor x {factor:g}", text, ""))
    lines.append(("wall time", report.ordering_text(found.by_wall), ""))
    marks = [" (flips)" * found.flips, "", "", " (differs)" * found.wall_differs]
    rows = []
    for number, ((by, order_text, _), mark) in enumerate(zip(lines, marks, strict=True)):
        name = page.cell(found.program if number == 0 else "", "name")
        kind = "cross" if mark else ""
        rows.append(f"<tr>{name}{page.cell(by + mark, kind)}{page.cell(order_text)}</tr>")
    return "".join(rows)


# -- Tables ----------------------------------------------------------------------------------------


def _table(comparison: Comparison) -> Iterable[str]:
    yield '<h2 id="figures">All figures</h2>'
    names = report.COLUMNS[:2]

    def cell(column: str, words: str) -> str:
        kind = "number" if column in report.NUMBERS else "name" if column in names else ""
        return page.cell(words, kind)

    rows = (
        f"<tr>{''.join(map(cell, report.COLUMNS, line))}</tr>" for line in report.rows(comparison)
    )
    yield page.table(report.COLUMNS, rows, report.NUMBERS)


def _prices(comparison: Comparison) -> Iterable[str]:
    model = comparison.model
    yield f'<h2 id="model">The cost model: {escape(model.title)}</h2>'
    yield from (f"<p>{escape(words)}</p>" for words in MODEL_NOTE)
    for title, costs in (
        ("The hypervisor's work", hypervisor_costs(model)),
        ("Instructions", model.instructions),
        ("Events", tuple(map(_on_bus, model.events))),
    ):
        yield f"<h3>{title}</h3>"
        yield page.table(
            ("piece", "cycles", "what", "source"), map(_price, costs), frozenset({"cycles"})
        )


def _on_bus(cost: Cost) -> Cost:
    return replace(cost, what=f"{cost.what}; natively only") if cost.key in BUS_EVENTS else cost


def _price(cost: Cost) -> str:
    number = page.cell(f"{cost.cycles:,}", "number")
    return f"<tr>{page.cell(cost.key)}{number}{page.cell(cost.what)}{page.cell(cost.source)}</tr>"
