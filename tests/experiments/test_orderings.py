"""Orderings, what flips them, and what the paper found: on rows made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hypervisor.experiments.compare import NATIVE, Comparison, Row, Wall, compare
from hypervisor.experiments.compare_page import as_page
from hypervisor.experiments.compare_report import as_json, ordering_text, verdict_rows
from hypervisor.experiments.orderings import CLAIMS, find_row, orderings, verdicts
from hypervisor.experiments.workloads import NANO
from isa.cost import PENTIUM4


def row(technique: str, executed: int, modelled: int, seconds: float = 0.1, mmu: str = "") -> Row:
    return Row(
        "ptemod", NANO, technique, mmu, 10, 100, executed, modelled, {}, {}, True, 1.0,
        Wall((seconds,)), 1.0,
    )  # fmt: skip


def of(*rows: Row) -> Comparison:
    return Comparison((row(NATIVE, 1000, 0), *rows), (), PENTIUM4)


def test_the_cheapest_stands_first_and_equals_share_a_place() -> None:
    (found,) = orderings(of(row("a", 2000, 0), row("b", 1990, 5), row("c", 500, 5000)))
    assert ordering_text(found.by_factor[1]) == "native < b = a < c"
    assert not found.flips


def test_an_ordering_that_hangs_on_the_model_flips() -> None:
    """At half the price b is cheaper than a, at the full one dearer."""
    (found,) = orderings(of(row("a", 3000, 0), row("b", 1000, 2500)))
    assert [ordering_text(order) for order in found.by_factor] == [
        "native < b < a",
        "native < a < b",
        "native < a < b",
    ]
    assert found.flips
    assert as_json(of(row("a", 3000, 0), row("b", 1000, 2500)))["orderings"][0]["flips"]


def test_wall_time_may_say_otherwise() -> None:
    slow, fast = row("a", 2000, 0, 0.9), row("b", 4000, 0, 0.2)
    (found,) = orderings(of(slow, fast))
    assert found.by_wall == ((NATIVE,), ("b",), ("a",))
    assert found.wall_differs
    (found,) = orderings(of(replace(slow, wall=Wall((0.15,))), fast))
    assert not found.wall_differs
    (found,) = orderings(of(replace(slow, wall=Wall((0.21,))), fast))
    assert found.by_wall == ((NATIVE,), ("b", "a"))
    assert not found.wall_differs
    (found,) = orderings(of(replace(slow, wall=Wall((-1.0, 2.0))), fast))
    assert found.by_wall == (("a",), (NATIVE,), ("b",))


def test_who_did_something_else_has_no_place() -> None:
    (found,) = orderings(of(replace(row("a", 1, 0), same=False)))
    assert found.by_factor[1] == ((NATIVE,),)


def test_claims_are_held_against_the_rows() -> None:
    comparison = of(
        row("trap", 100, 9000), row("translate", 400, 0),
        row("hardware", 60, 0, mmu="nested"), row("hardware --mmu shadow", 60, 300, mmu="shadow"),
    )  # fmt: skip
    found = {verdict.claim.words: verdict for verdict in verdicts(comparison)}
    assert len(found) == sum(claim.program == "ptemod" for claim in CLAIMS)
    adaptive = found["adaptive translation wins on ptemod"]
    assert (adaptive.holds, adaptive.stable, adaptive.figures) == (True, True, (40, 910))
    early = found["early hardware loses on ptemod with shadow tables"]
    assert (early.holds, early.stable) == (False, False)  # 360 < 400, doubled 660 > 400
    assert found["hardware wins on ptemod with nested paging"].holds
    assert "no, flips with the modelled costs" in [line[-1] for line in verdict_rows(comparison)]


def test_a_row_is_found_by_its_memory_whatever_its_column_says() -> None:
    comparison = of(row("hardware", 60, 0, mmu="nested"))
    assert find_row(comparison, "ptemod", "hardware --mmu nested") is comparison.rows[1]
    assert find_row(comparison, "ptemod", "hardware") is comparison.rows[1]
    assert find_row(comparison, "ptemod", "hardware --mmu shadow") is None


def test_what_was_not_run_is_not_claimed() -> None:
    assert all(v.figures is None for v in verdicts(of()))
    assert verdict_rows(of()) == []
    assert "not run" in as_page(of())


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ("in", "software beats native on in"),
        ("callret", "translation loses on callret"),
        ("ptemod", "adaptive translation wins on ptemod"),
    ],
)
def test_the_paper_is_right_about_software(workload: str, words: str) -> None:
    comparison = compare([workload], ["trap", "translate"], repeat=1)
    verdict = next(v for v in verdicts(comparison) if v.claim.words == words)
    assert verdict.holds
    assert verdict.stable
