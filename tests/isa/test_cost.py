"""The cost model prices every row and event once, and its composition gives measured figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isa.cost import EVENT_CYCLES, INSTRUCTION_CYCLES, MODELS, PENTIUM4, Cost, check_model
from isa.errors import TableError


def test_every_preset_is_complete() -> None:
    for model in MODELS:
        check_model(model)


def test_every_figure_has_a_source() -> None:
    for cost in PENTIUM4.instructions + PENTIUM4.events:
        assert cost.source, cost.key
        assert cost.what, cost.key


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (PENTIUM4.instructions[1:], r"no cycles for \['alu'\]"),
        ((*PENTIUM4.instructions, Cost("idle", 1, "x", "y")), r"no row uses \['idle'\]"),
        ((*PENTIUM4.instructions, PENTIUM4.instructions[0]), "stands twice"),
        (
            (replace(PENTIUM4.instructions[0], cycles=-1), *PENTIUM4.instructions[1:]),
            "needs cycles",
        ),
        ((replace(PENTIUM4.instructions[0], source=""), *PENTIUM4.instructions[1:]), "a source"),
    ],
)
def test_an_incomplete_model_is_refused(instructions: tuple[Cost, ...], message: str) -> None:
    with pytest.raises(TableError, match=message):
        check_model(replace(PENTIUM4, instructions=instructions))


def test_models_have_the_same_events() -> None:
    with pytest.raises(TableError, match="events differ"):
        check_model(replace(PENTIUM4, name="other", events=PENTIUM4.events[1:]))


def test_events_add_up_to_what_was_measured() -> None:
    """Adams and Agesen's native divzero, pgfault and in: 889, 1093 and 3209 cycles, within 5%."""
    there = EVENT_CYCLES["exception_delivery"] + EVENT_CYCLES["ring_change"]
    back = INSTRUCTION_CYCLES["iret"] + EVENT_CYCLES["ring_change"]
    assert there + back == pytest.approx(889, rel=0.05)
    assert there + back + EVENT_CYCLES["page_fault"] == pytest.approx(1093, rel=0.05)
    assert INSTRUCTION_CYCLES["io"] + EVENT_CYCLES["port_access"] == pytest.approx(3209, rel=0.05)
