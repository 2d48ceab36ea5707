"""`seventeen blocks`: counts are exact, ways are what they are called, and the page has it all."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from emulator import Machine
from hypervisor.experiments import blocks_page
from hypervisor.experiments.blocks import EVENT, LINK, LOOK_UP, Block, Graph, record
from hypervisor.experiments.subjects import Subject, find_subject
from hypervisor.experiments.workloads import COUNTED
from tests.cli.support import seventeen, write_source

TURNS = 7
SOURCE = f"""
_start: mov ecx, {TURNS}
again:  call step
        dec ecx
        jnz again
        mov ebx, 3
        xor al, al
        out 0xF4, al
step:   inc edx
        ret
"""


@cache
def graph(name: str) -> Graph:
    return record(find_subject(name))


def recorded(folder: Path, source: str) -> Graph:
    return record(Subject("guest", write_source(folder, source), ram="2M"))


def named(found: Graph, name: str) -> Block:
    (block,) = (block for block in found.blocks if block.name == name)
    return block


def test_a_loop_is_counted(tmp_path: Path) -> None:
    found = recorded(tmp_path, SOURCE)
    step = named(found, "step")
    assert (step.entered, step.executed, step.made) == (TURNS, 2 * TURNS, 1)
    ways = {(e.start.name, e.end.name, e.kind): e.times for e in found.edges}
    assert ways["step", "again+0x5", LOOK_UP] == TURNS
    # The second turn enters the first block in its middle, where `again` is.
    assert sum(
        times for (_, end, kind), times in ways.items() if (end, kind) == ("step", LINK)
    ) == (TURNS)
    assert sum(block.executed for block in found.blocks) + found.elsewhere == found.result.ticks


def native_counts(name: str) -> Counter[int]:
    """How often the bare machine executes the instruction at each address."""
    subject, counts = find_subject(name), Counter[int]()
    machine = Machine(**subject.options)
    machine.load(subject.image())
    tick = 0
    while machine.run(max_ticks=tick).stop.name == "OUT_OF_TICKS":
        counts[machine.cpu.state.eip] += 1
        tick += 1
    return counts


@pytest.mark.parametrize("name", ["hello", "selfmod"])
def test_counts_are_those_of_the_bare_machine(name: str) -> None:
    found, counts = graph(name), native_counts(name)
    assert found.elsewhere + sum(block.executed for block in found.blocks) == sum(counts.values())
    # A block is entered at its first instruction, or further on: never more often than it runs.
    assert all(block.entered <= block.executed for block in found.blocks)
    write_byte = named(found, "write_byte")
    assert write_byte.entered == counts[write_byte.eip]


def test_an_event_is_no_way_of_the_guests(tmp_path: Path) -> None:
    found = graph("rings")
    assert {edge.kind for edge in found.edges} == {LINK, LOOK_UP, EVENT}
    assert found.elsewhere > 0


def test_ring_3_is_counted_if_it_is_translated() -> None:
    found = record(find_subject("rings"), user=True)
    assert found.elsewhere < graph("rings").elsewhere
    assert found.result.ticks == graph("rings").result.ticks


def test_a_run_is_cut(tmp_path: Path) -> None:
    found = record(find_subject("hello"), max_ticks=50)
    assert found.result.ticks == sum(block.executed for block in found.blocks) == 50


def test_an_instruction_that_faults_is_not_executed(tmp_path: Path) -> None:
    """By its triple fault, the guest has executed one of two; there is no segment 0x2B."""
    found = recorded(tmp_path, "mov ax, 0x2b\nmov gs, ax\nhlt\n")
    assert found.result.ticks == 1
    assert [block.executed for block in found.blocks] == [1]
    assert found.elsewhere == 0


def test_what_faults_into_a_handler_is_not_executed() -> None:
    """A loop with a DIV that faults each time around; its handler returns behind it."""
    found = record(COUNTED["divzero"].subject(5), max_ticks=3000)
    faults = next(e.times for e in found.edges if e.kind == EVENT and e.times > 10)
    assert found.elsewhere >= faults - 1  # where the handler returns to is interpreted
    assert sum(block.executed for block in found.blocks) + found.elsewhere == 3000


def drawing(text: str) -> ElementTree.Element:
    (svg,) = re.findall(r'<svg class="blocks" viewBox="0 0 1040.*?</svg>', text, re.DOTALL)
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("count", [5, 1000])
def test_the_page(count: int) -> None:
    found = graph("quicksort")
    text = blocks_page.as_page(found, count)
    shown = min(count, len(found.blocks))
    assert len(drawing(text).findall(".//a")) == text.count("<details") == shown
    anchors = set(re.findall(r'id="(block-[^"]+)"', text))
    assert set(re.findall(r'href="#(block-[^"]+)"', text)) == anchors
    assert len(anchors) == shown
    assert not re.search(r'(src|href)="(?!#)', text)
    assert ("Left out: " in text) == (count < len(found.blocks))
    assert "aria-label" in text
    assert "IN: sort" in text


def test_arcs_of_a_lane_do_not_meet() -> None:
    found = graph("quicksort")
    shown = sorted(found.blocks, key=lambda block: block.eip)
    arcs = blocks_page.arcs(found, shown)
    assert len(arcs) == len(found.edges)
    for one in arcs:
        for other in arcs:
            if one is not other and one.lane == other.lane:
                assert max(one.start, one.end) < min(other.start, other.end) or (
                    max(other.start, other.end) < min(one.start, one.end)
                )


def test_the_command(tmp_path: Path) -> None:
    page = tmp_path / "blocks.html"
    done = seventeen("blocks", "hello", "-o", page, "--most", "2")
    assert done.status == 0
    lines = done.text.splitlines()
    assert lines[0].split()[:4] == ["block", "symbol", "entered", "executed"]
    assert lines[1].split()[1] == "write_byte"
    assert any(line.startswith("Left out: ") for line in lines)
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["blocks"], 64),
        (["blocks", "hello", "--most", "0"], 64),
        (["blocks", "missing.asm"], 66),
        (["blocks", "hello", "-o", "no/such/folder.html"], 65),
    ],
)
def test_bad_input(words: list[str], status: int) -> None:
    done = seventeen(*words)
    assert done.status == status
    assert len(done.error_lines) == 1
