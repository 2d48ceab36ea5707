"""A run over machine time: it adds up to what compare says, and whoever listens still hears."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from hypervisor.cost import modelled_cycles
from hypervisor.experiments import timeline as module
from hypervisor.experiments.compare import _work
from hypervisor.experiments.fidelity import Column
from hypervisor.experiments.plots import curves, powers, spread, tick_name
from hypervisor.experiments.timeline import Exit, Recorder, Timeline, record
from hypervisor.experiments.timeline_page import as_page
from hypervisor.experiments.workloads import COUNTED
from hypervisor.vm import VirtualMachine
from isa import assemble
from isa.cost import MODELS, PENTIUM4
from tests.cli.support import seventeen

PROGRAM = "cli\nmov ecx, 100\nagain: dec ecx\njnz again\nsti\ncli\nhlt"


def recorded(program: str = PROGRAM, **options: str) -> tuple[VirtualMachine, Timeline]:
    vm = VirtualMachine(technique="trap", ram="2M", **options)
    recorder = Recorder(vm)
    vm.load(assemble(program))
    vm.run()
    return vm, recorder.finish("trap")


def test_machine_time_adds_up() -> None:
    vm, line = recorded()
    assert line.end == vm.cycles + modelled_cycles(_work(vm))
    assert [exit.reason for exit in line.exits] == ["hidden page fault", "cli", "sti", "cli", "hlt"]
    before_any = modelled_cycles(_work(vm)) - sum(exit.hypervisor for exit in line.exits)
    assert before_any == modelled_cycles({"shadow_fill": 16}) <= line.exits[0].start
    for before, after in pairwise(line.exits):
        assert before.end <= after.start
    # The loop of 100 rounds is the guest's, between the first CLI and STI.
    assert line.exits[2].start - line.exits[1].end >= 200


def test_who_traces_exits_still_hears_of_them() -> None:
    said: list[str] = []
    vm = VirtualMachine(technique="trap", ram="2M", trace="exits", trace_out=said.append)
    recorder = Recorder(vm)
    vm.load(assemble(PROGRAM))
    vm.run()
    assert len(said) == len(recorder.finish("trap").exits) == sum(vm.counts.values()) == 5


def test_recording_changes_nothing() -> None:
    vm, _ = recorded()
    other = VirtualMachine(assemble(PROGRAM), "trap", ram="2M")
    assert other.run() == vm.result()
    assert other.counts == vm.counts


def test_a_long_run_keeps_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = recorded()
    monkeypatch.setattr(module, "MOST", 2)
    _, line = recorded()
    assert (len(line.exits), line.left_out) == (2, 3)
    assert (line.exits, line.end) == (whole.exits[:2], whole.end)
    assert (whole.known, line.known) == (whole.end, whole.exits[2].start)
    assert f"of the first {line.known:,}." in as_page(line, "a program", PENTIUM4)


def test_shares() -> None:
    line = Timeline("x", (Exit("a", 10, 20), Exit("b", 75, 25)), 100)
    assert line.shares(4, 100) == pytest.approx([15 / 25, 5 / 25, 0, 1])
    assert sum(line.shares(7, 100)) * 100 / 7 == pytest.approx(45)
    assert line.by_reason() == {"b": (1, 25), "a": (1, 20)}


def test_every_technique_can_be_recorded() -> None:
    subject = COUNTED["syscall"].subject(5)
    for name in ("trap", "translate", "patch", "paravirt"):
        line = record(subject, Column(name), "current")
        assert line.exits
        assert line.end > 0


def test_the_command(tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    done = seventeen("run", "hello", "--technique", "trap", "--timeline", page, "--watch")
    assert done.status == 0
    assert done.text == "Hello from ring 0.\n"
    assert "watch: tick" in done.errors
    assert "out 20" in done.errors
    assert "hello under trap, over machine time" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hello", "--timeline", "x.html"], "--timeline goes with a --technique"),
        (["hello", "hello", "--technique", "trap", "--watch"], "go with one PROGRAM"),
        (["hello", "--cost-model", "abacus"], "no cost model 'abacus'; there is pentium4, current"),
    ],
)
def test_bad_input(arguments: list[str], words: str) -> None:
    done = seventeen("run", *arguments)
    assert done.status == 64
    assert words in done.errors
    assert len(done.error_lines) == 1


def test_a_page_that_cannot_be_written_is_named() -> None:
    done = seventeen("run", "hello", "--technique", "trap", "--timeline", "/dev/full")
    assert done.status == 65
    assert done.error_lines == ["seventeen: /dev/full: cannot write: No space left on device"]


def test_watching_the_bare_machine() -> None:
    done = seventeen("run", "hello", "--watch")
    assert "port_write 20" in done.errors
    assert done.text == "Hello from ring 0.\n"


# -- What plots are made of ------------------------------------------------------------------------


def test_axes() -> None:
    assert powers([3, 250]) == (0, 3)
    assert powers([10]) == (1, 2)
    assert [tick_name(power) for power in (-1, 0, 2, 3, 5, 6)] == [
        "0.1", "1", "100", "1k", "100k", "1M",
    ]  # fmt: skip


def test_labels_keep_apart_and_in_order() -> None:
    places = spread({"a": 10, "b": 12, "c": 100, "d": 101}, 15)
    assert list(places) == ["a", "b", "c", "d"]
    values = list(places.values())
    assert all(after - before >= 15 for before, after in pairwise(values))


def test_a_curve_goes_through_its_points() -> None:
    drawn = curves("t", ("x", "y"), (1, 10, 100), {"a": (1, 10, 100)})
    assert 'points="70.0,320.0 370.0,165.0 670.0,10.0"' in drawn
    assert "a: 1: 1, 10: 10, 100: 100" in drawn


def test_the_help_of_run_names_every_cost_model() -> None:
    """Written out there, for to load the models would make every start slower."""
    words = " ".join(seventeen("run", "--help").text.split())
    assert f"machine time counts: {', '.join(model.name for model in MODELS)}." in words
