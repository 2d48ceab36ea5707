"""The fidelity matrix: every unsafe instruction has its cross or its rescue, and nobody else does.

The kernel probes are one guest for each unsafe instruction. What is expected of them stands here by
hand, from the papers; the experiment must find it by itself, without the table's class columns.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emulator.core import TraceKind
from guests import GUESTS, find
from hypervisor.experiments.fidelity import (
    CROSS,
    EQUAL,
    REFUSED,
    Cell,
    Column,
    Matrix,
    default_columns,
    fidelity,
)
from hypervisor.experiments.fidelity_check import summary, surprises
from hypervisor.experiments.fidelity_report import as_json, as_page, cross_lines, mnemonic, rows
from hypervisor.experiments.observe import Recorder, compare, observe_native
from hypervisor.experiments.subjects import of_guest
from hypervisor.experiments.virtual import VirtualRun
from hypervisor.host import Host
from hypervisor.vm import VirtualMachine
from isa import assemble
from isa.row import Row
from isa.table import ROWS
from tests.bench.virtual import guest as bench_guest
from tests.cli.support import seventeen, write_source
from tests.experiments.surveys import whole

INTERPRET, TRAP, PARAVIRT = Column("interpret"), Column("trap"), Column("paravirt")
REPAIRED = Column("trap", True)
#: The instruction that each kernel probe is about.
PROBED = {
    "sgdt": "sgdt", "sidt": "sidt", "sldt": "sldt", "smsw": "smsw", "str": "str",
    "pushf": "pushf", "popf": "popf", "lar": "lar", "lsl": "lsl", "verr": "verr", "verw": "verw",
    "push_segment": "push", "pop_segment": "pop", "mov_from_segment": "mov",
    "mov_to_segment": "mov", "far_call": "call", "far_jump": "jmp", "far_return": "retf",
    "int_n": "int", "iret": "iret",
}  # fmt: skip
#: They load segment registers as MOV does, or leave by gates as INT does: the same probe.
ALIKE = {"lds", "les", "lfs", "lgs", "lss", "int3", "into"}
#: Asks by INT for a hypervisor, and under paravirt finds one.
ASKING = {"hypercalls"}
#: Repairs all but INT, which then never comes to a gate.
GATES_REPAIRED = sorted({row.mnemonic for row in ROWS if row.unsafe} - {"int"})


@cache
def probes() -> Matrix:
    return fidelity([f"kprobe_{name}" for name in PROBED])


def of_column(matrix: Matrix, column: Column) -> list[Cell]:
    return [cell for cell in matrix.cells if cell.column == column]


# -- The kernel probes -----------------------------------------------------------------------------


def test_every_kernel_probe_of_the_manifest_is_expected() -> None:
    listed = {guest.name for guest in GUESTS if guest.name.startswith("kprobe_")}
    assert listed == {f"kprobe_{name}" for name in PROBED}


def test_trap_fails_at_the_instruction_or_names_what_rescues_it() -> None:
    rescued = set()
    for cell in of_column(probes(), TRAP):
        expected = PROBED[cell.guest.removeprefix("kprobe_")]
        if cell.verdict == CROSS:
            assert mnemonic(cell) == expected, cell
        else:
            found = {rescue.mnemonic: rescue.structure for rescue in cell.rescues}
            assert cell.verdict == EQUAL
            assert expected in found, cell
            rescued.add((expected, found[expected]))
    assert rescued == {("int", "the shadow IDT")}


def test_it_is_what_classify_foretells() -> None:
    """By its witness each instruction is unsafe, and no other; each has a cross or a rescue."""
    foretold = {f.row.mnemonic for f in whole().findings if f.witness}
    seen = set()
    for cell in of_column(probes(), TRAP):
        named = {rescue.mnemonic for rescue in cell.rescues}
        seen |= {mnemonic(cell)} if cell.verdict == CROSS else named & {*PROBED.values()}
    assert seen == foretold - ALIKE


def test_no_other_instruction_is_unfaithful_under_trap() -> None:
    assert surprises(probes()) == ()
    assert summary(probes()).endswith("each is an instruction that the table calls unsafe.")


@pytest.mark.parametrize("column", [INTERPRET, REPAIRED, PARAVIRT], ids=str)
def test_these_are_faithful_to_kernels(column: Column) -> None:
    cells = of_column(probes(), column)
    assert len(cells) == len(PROBED)
    assert [str(cell.cross) for cell in cells if cell.verdict != EQUAL] == []


def test_crosses_are_explained() -> None:
    line = next(line for line in cross_lines(probes()) if line.startswith("kprobe_popf, trap:"))
    assert "popf at 0x" in line
    assert "in start+0xa (kprobe_popf.asm:11)" in line
    assert line.endswith("eflags: native 0x202; trap 0x2")


# -- The experiment itself -------------------------------------------------------------------------


def test_the_class_columns_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dealt anew, they change no verdict; and the final check, which reads them, fails."""
    names = ["kprobe_popf", "kprobe_sgdt", "kprobe_int_n"]
    before = fidelity(names, ["interpret", "trap"])
    order = [row.unsafe for row in ROWS]
    random.Random(17).shuffle(order)
    crossed = {row.id for row in ROWS if row.mnemonic in ("popf", "sgdt")}
    dealt = {row.id: order[row.id] and row.id not in crossed for row in ROWS}
    assert surprises(before) == ()
    monkeypatch.setattr(Row, "unsafe", property(lambda row: dealt[row.id]))
    assert fidelity(names, ["interpret", "trap"]) == before
    assert len(surprises(before)) == 2
    assert summary(before) == "2 crosses are not what the instruction table says."
    one = replace(before, cells=before.crosses[:1])
    assert summary(one) == "1 cross is not what the instruction table says."


def test_the_small_operating_system_under_trap() -> None:
    """It fails, and the report names the instruction: a POPF that should have let interrupts in."""
    cell = fidelity(["os"], [TRAP]).cells[0]
    assert cell.verdict == CROSS
    assert mnemonic(cell) == "popf"
    assert cell.cross is not None
    assert cell.cross.difference.reason.startswith("eflags at the end")


@pytest.mark.deep
@pytest.mark.parametrize("name", ["os", "os_apic"])
def test_the_small_operating_system_equals_native(name: str) -> None:
    columns = [column for column in default_columns() if column != TRAP]
    matrix = fidelity([name], columns)
    assert {cell.verdict for cell in matrix.cells} == {EQUAL}, cross_lines(matrix)


@pytest.mark.deep
def test_the_whole_matrix() -> None:
    matrix = fidelity()
    assert len(matrix.cells) == len(GUESTS) * len(default_columns())
    assert surprises(matrix) == ()
    assert not [cell for cell in matrix.cells if cell.verdict == REFUSED]
    assert not [cell for cell in of_column(matrix, REPAIRED) if cell.verdict != EQUAL]
    for name in ("hardware", "hardware --mmu shadow", "translate --user", "patch"):
        column = next(column for column in matrix.columns if str(column) == name)
        assert not [cell for cell in of_column(matrix, column) if cell.verdict != EQUAL], name
    kernels = {guest.name for guest in GUESTS if guest.rings == (0,)}
    for column, wrong in ((INTERPRET, set()), (PARAVIRT, ASKING)):
        crossed = {cell.guest for cell in of_column(matrix, column) if cell.verdict != EQUAL}
        assert crossed & kernels == wrong


def test_partly_repaired() -> None:
    """With POPF trapping the probe of POPF is right, and one that meets POPF first fails later."""
    matrix = fidelity(["kprobe_popf"], [Column("trap", ("popf",)), Column("trap", ("sgdt",))])
    assert [cell.verdict for cell in matrix.cells] == [EQUAL, CROSS]
    assert str(matrix.columns[0]) == "trap --virtualizable=popf"


def test_a_technique_that_refuses(tmp_path: Path) -> None:
    source = write_source(tmp_path, "cli\nhlt\n")
    flat = tmp_path / "flat.bin"
    flat.write_bytes(assemble("cli\nhlt").flat())
    matrix = fidelity([source, flat], [TRAP, PARAVIRT])
    assert [cell.verdict for cell in matrix.cells] == [EQUAL, EQUAL, EQUAL, REFUSED]
    assert "expected the hypervisor variant or a source" in matrix.cells[3].reason


# -- Recording a virtual machine -------------------------------------------------------------------


def test_events_through_an_open_gate_are_recorded_in_order() -> None:
    """The real CPU delivers the system calls of `rings`, the virtual one everything else."""
    guest = find("rings")
    image = of_guest(guest).image()
    native = observe_native(image, ram=guest.ram, max_ticks=guest.ticks)
    run = VirtualRun(image, "trap", ram=guest.ram, virtualizable=True)
    run.run(guest.ticks)
    seen = run.observe()
    assert len(native.events) > 10
    assert seen.events == native.events
    assert compare(native, seen) is None


@pytest.mark.parametrize("gates", [True, False])
def test_pass_through_gates_show_the_same_events(gates: bool) -> None:
    program = bench_guest("null_call", None, COUNT=50)
    native = observe_native(program, ram="4M")
    run = VirtualRun(program, "trap", ram="4M", gates=gates, virtualizable=GATES_REPAIRED)
    run.run(1_000_000)
    assert compare(native, run.observe()) is None
    assert len(native.events) == 51
    exits = run.machine.counts
    assert exits["gate opened"] == gates
    assert (exits["int"] < 5) == gates


def test_a_missing_event_is_seen() -> None:
    """Recording is no decoration: without the real CPU's ring it differs."""
    program = bench_guest("null_call", None, COUNT=50)
    native = observe_native(program, ram="4M")
    run = VirtualRun(program, "trap", ram="4M", virtualizable=GATES_REPAIRED)
    run.machine.host.cpu.take_trace = lambda count=0: []  # type: ignore[method-assign]
    run.run(1_000_000)
    difference = compare(native, run.observe())
    assert difference is not None
    assert difference.what == "event"


def test_machines_that_share_a_host_record_their_own_events() -> None:
    """Each its own, although one real CPU delivers both; and each has its own cycles."""
    counts = (30, 300_000)
    programs = [bench_guest("null_call", None, COUNT=count) for count in counts]
    host = Host("16M", guests=2)
    recorders = [Recorder() for _ in counts]
    machines = [VirtualMachine(program, "trap", ram="4M", host=host) for program in programs]
    for machine, recorder in zip(machines, recorders, strict=True):
        machine.set_tracer(TraceKind.EVENT, recorder)
    results = host.run(machines)
    for machine, recorder, count in zip(machines, recorders, counts, strict=True):
        machine.drain_trace()
        assert len(recorder.events) == count + 1
    assert results[1].cycles > 1000 * results[0].cycles
    alone = VirtualMachine(programs[0], "trap", ram="4M")
    assert alone.run().cycles == pytest.approx(results[0].cycles, rel=0.01)


# -- The command -----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    data, page = tmp_path / "out.json", tmp_path / "out.html"
    done = seventeen(
        "fidelity", "kprobe_popf", "kprobe_int_n", "--technique", "trap", "--virtualizable",
        "--json", data, "--html", page,
    )  # fmt: skip
    assert done.status == 0
    lines = done.text.splitlines()
    assert lines[0].split() == ["guest", "trap", "trap", "--virtualizable"]
    assert lines[1].split() == ["kprobe_popf", "x", "popf", "="]
    assert lines[2].split() == ["kprobe_int_n", "=", "="]
    assert "  trap: int, by the shadow IDT: 5 times in 2 guests" in lines
    assert lines[-1] == "1 cross: each is an instruction that the table calls unsafe."
    cells = json.loads(data.read_text())["cells"]
    assert [cell["verdict"] for cell in cells] == ["cross", "equal", "equal", "equal"]
    assert cells[0]["cross"]["mnemonic"] == "popf"
    assert cells[0]["cross"]["code"] == "9d"
    check_html(page.read_text())


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    source = write_source(tmp_path, "smsw eax\npushf\npop ebx\ncli\nhlt\n")
    done = seventeen("fidelity", source, "--technique", "trap", "--virtualizable=smsw")
    assert done.status == 0
    assert done.text.splitlines()[1].split() == ["guest.asm", "x", "smsw", "x", "pushf"]


def test_a_guest_that_finds_its_patches(tmp_path: Path) -> None:
    """The stated exception: a cross with its reason, everywhere, and no surprise."""
    data, page = tmp_path / "out.json", tmp_path / "out.html"
    text = "here: pushf\nmov eax, 5\npop ebx\nmov al, [here]\ncli\nhlt\n"
    source = write_source(tmp_path, text)
    done = seventeen("fidelity", source, "--technique", "patch", "--json", data, "--html", page)
    assert done.status == 0, done.text
    assert done.text.splitlines()[1].split() == ["guest.asm", "x", "mov"]
    assert done.text.endswith("but for 1 by which a guest has found its patches.\n")
    (cell,) = json.loads(data.read_text())["cells"]
    for where in (done.text, cell["reason"], page.read_text()):
        assert "reads its own patched code at 0x100007, tick 3" in where


def test_a_harmless_entry_is_no_reason(tmp_path: Path) -> None:
    """Code is entered unscanned; what the guest finds out it finds by reading."""
    text = """
    here: pushf
        mov eax, 5
        pop ebx
        mov eax, away + 0x1234567
        sub eax, 0x1234567
        jmp eax
        times 300 db 0
    away: mov al, [here]
        cli
        hlt
    """
    source = write_source(tmp_path, text)
    done = seventeen("fidelity", source, "--technique", "patch")
    assert "reads its own patched code" in done.text, done.text


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--technique", "magic"], 64, "no technique 'magic'; there is native, interpret"),
        (["--technique", "native"], 64, "native is the bare machine, no technique; there is"),
        (["--virtualizable=add"], 64, "virtualizable add: expected some of"),
        (["--virtualizable="], 64, "--virtualizable: expected mnemonics, or all"),
        (["kprobe_pop"], 66, "no guest is named 'kprobe_pop'; did you mean kprobe_popf"),
        (["none.asm"], 66, "none.asm: No such file"),
    ],
)
def test_bad_input(arguments: list[str], status: int, words: str) -> None:
    done = seventeen("fidelity", *arguments)
    assert done.status == status
    assert len(done.error_lines) == 1
    assert words in done.errors


def test_json_and_page_of_a_matrix() -> None:
    data = as_json(probes())
    assert json.loads(json.dumps(data)) == data
    assert data["surprises"] == []
    assert len(rows(probes())) == len(PROBED)
    check_html(as_page(probes()))


def check_html(text: str) -> None:
    """All that is opened is closed, links lead somewhere, nothing is loaded."""

    class Checker(HTMLParser):
        void = ("meta", "rect", "line")

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.ids: set[str] = set()
            self.targets: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found = dict(attrs)
            self.ids.add(found.get("id") or "")
            if tag == "a":
                self.targets.add((found.get("href") or "").removeprefix("#"))
            assert "src" not in found
            if tag not in self.void:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in self.void:
                assert self.open.pop() == tag

    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.targets <= checker.ids
