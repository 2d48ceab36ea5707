"""`compare`: what it counts, that cycles repeat to the bit, and what it prints."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from emulator import Machine
from hypervisor.cli.compare import Question, answer, find_columns, write
from hypervisor.cost import (
    HYPERVISOR_COSTS,
    HYPERVISOR_CYCLES,
    PER_EXIT,
    PER_GUEST_EXIT,
    hypervisor_costs,
    modelled_cycles,
)
from hypervisor.experiments import compare as module
from hypervisor.experiments import compare_report as report
from hypervisor.experiments import qemu
from hypervisor.experiments.compare import Comparison, Outside, Row, Wall, compare
from hypervisor.experiments.compare_page import MODEL_NOTE, as_page
from hypervisor.experiments.compare_report import COLUMNS, as_csv, as_json, notes, rows
from hypervisor.experiments.fidelity import Column, default_columns
from hypervisor.experiments.workloads import COUNTED, DEFAULT, QEMU_TIMES
from hypervisor.host import Host
from hypervisor.techniques import TECHNIQUES, find_technique, kind_of
from isa import assemble
from isa.cost import CURRENT, DEFAULT_MODEL, EVENT_CYCLES, INSTRUCTION_CYCLES, MODELS
from tests.cli.support import ROOT, environment, seventeen, write_source
from tests.experiments.test_fidelity import check_html

#: Of the README; a test runs it.
SCRIPT = """\
from hypervisor.experiments.compare import compare

comparison = compare(["quicksort", "paging"], ["interpret", "trap", "paravirt"], repeat=1)
print("program    technique    executed   hypervisor  exits   ratio")
for row in comparison.rows:
    exits = sum(row.exits.values())
    print(f"{row.program:10} {row.technique:10} {row.executed:10,} {row.modelled:12,}", end=" ")
    print(f"{exits:6,} {row.ratio:7.2f}")
"""


@cache
def two_guests() -> Comparison:
    return compare(["quicksort", "rings"], repeat=2)


def columns_of(row: Row) -> tuple[object, ...]:
    """All of a row that the wall clock has no say in."""
    return replace(row, wall=Wall((0.0,)), wall_ratio=None), dict(row.work), dict(row.exits)


# -- What is counted -------------------------------------------------------------------------------


def test_cycles_and_exits_repeat_to_the_bit() -> None:
    again = compare(["quicksort"], repeat=1)
    before = [row for row in two_guests().rows if row.program == "quicksort"]
    assert [columns_of(row) for row in again.rows] == [columns_of(row) for row in before]


def test_each_program_begins_with_its_native_run() -> None:
    techniques = ["native", *map(str, default_columns())]
    assert [row.technique for row in two_guests().rows] == 2 * techniques
    native = two_guests().row("quicksort", "native")
    assert (native.ratio, native.wall_ratio, native.modelled) == (1, 1, 0)
    assert len(native.wall.seconds) == 2
    assert native.wall.least <= native.wall.median <= native.wall.most


def test_the_guest_pays_for_its_instructions_and_devices_everywhere_alike() -> None:
    """Executed cycles differ from native's by page walks, world switches and the bus at most.

    Virtual devices have none. A translation is longer than its original, but mostly the same.
    """
    for row in two_guests().rows:
        assert row.same, row
        native = two_guests().row(row.program, "native")
        executed = row.executed + row.work.get("device", 0) * EVENT_CYCLES["port_access"]
        name = row.technique.split()[0]
        if name != "native" and find_technique(name).generates_code:
            assert native.executed <= executed < 1.2 * native.executed, row
        else:
            assert executed == pytest.approx(native.executed, rel=0.005), row


def test_interpretation_pays_for_every_kernel_instruction() -> None:
    row = two_guests().row("quicksort", "interpret")
    assert row.work["interpreted"] >= row.ticks  # a fault is a step without a tick
    assert row.ratio > 10
    trapped = two_guests().row("quicksort", "trap")
    assert trapped.work["interpreted"] < 20
    assert trapped.ratio < 2


def test_counted_by_hand() -> None:
    """Two CLIs exit and are emulated; a MOV from CR0 exits and is interpreted; HLT ends it."""
    program = assemble("cli\ncli\nmov eax, cr0\nhlt")
    native = Machine(ram="2M")
    native.load(program)
    machine = module.VirtualMachine(program, "trap", ram="2M")
    result = machine.run()
    work = module._work(machine)
    assert dict(machine.counts) == {"cli": 2, "mov": 1, "hlt": 1, "hidden page fault": 1}
    assert (work["exits"], work["interpreted"], work["injected"]) == (5, 2, 0)
    assert machine.emulated_cycles == 2 * INSTRUCTION_CYCLES["flags"]
    assert result.cycles == machine.world.cycles + machine.cpu.state.cycle + 100
    walks = result.cycles - native.run().cycles
    assert 0 <= walks < 500


def test_translation_is_counted_by_hand() -> None:
    """Looked up are the entry and, once, where the loop leads; after that it stays in the cache."""
    program = assemble("mov ecx, 9\nagain: loop again\nhlt")
    machine = module.VirtualMachine(program, "translate", ram="2M")
    machine.run()
    work = module._work(machine)
    assert dict(machine.counts) == {"translation: link": 1, "hlt": 1}
    translated = [unit.instructions for unit in machine.technique.translator.cache]
    assert (sum(translated), work["unit_found"], work["chained"]) == (work["translated"], 2, 1)
    composed = {*PER_EXIT, *PER_GUEST_EXIT}
    assert module._work(machine).keys() - {"exits"} == HYPERVISOR_CYCLES.keys() - composed


def test_scanning_is_counted_by_hand() -> None:
    """A patcher decodes each instruction once, however often it runs."""
    program = assemble("mov ecx, 9\nagain: mov eax, cs\nloop again\nhlt")
    machine = module.VirtualMachine(program, "patch", ram="2M")
    machine.run()
    scanner = machine.technique.scanner
    assert module._work(machine)["translated"] == scanner.scanned
    assert 4 <= scanner.scanned < 20  # zeros follow, a little way
    assert {"mov", "loop", "hlt"} <= {i.row.mnemonic for i in scanner.instructions.values()}


def test_the_page_says_what_is_modelled() -> None:
    for words in ("translates", "scans", "looks up a translation", "chains"):
        assert words in MODEL_NOTE[0]


def test_exits_from_guest_mode_have_their_own_price() -> None:
    row = compare(["in"], ["hardware"], repeat=1).row("in", "hardware")
    assert (row.work["guest_exits"], row.work["device"], row.mmu) == (2000, 2000, "nested")
    assert "exits" not in row.work
    price = sum(HYPERVISOR_CYCLES[key] for key in PER_GUEST_EXIT) + HYPERVISOR_CYCLES["device"]
    assert row.each(row.modelled) == price


def test_an_interrupt_is_an_exit_and_an_injection() -> None:
    clock = compare(["clock"], ["trap"], repeat=1).row("clock", "trap")
    assert clock.work["injected"] == 50
    assert clock.work["exits"] == sum(clock.exits.values()) + clock.work["injected"]


def test_the_model() -> None:
    per_exit = sum(HYPERVISOR_CYCLES[key] for key in PER_EXIT)
    work = {"exits": 3, "interpreted": 2, "shadow_fill": 0, "injected": 1}
    expected = 3 * per_exit + 2 * HYPERVISOR_CYCLES["interpreted"] + HYPERVISOR_CYCLES["injected"]
    assert modelled_cycles(work) == expected
    assert len(HYPERVISOR_CYCLES) == len(HYPERVISOR_COSTS)
    for model in MODELS:
        costs = hypervisor_costs(model)
        assert [cost.key for cost in costs] == [cost.key for cost in HYPERVISOR_COSTS]
        assert all(cost.cycles > 0 and cost.what and cost.source for cost in costs)
    # A trap and its return, as isa/cost.py has them: exception, ring change, iret, ring change.
    assert HYPERVISOR_CYCLES["world_switch"] == 400 + 100 + 300 + 100
    assert modelled_cycles({"guest_exits": 2}, CURRENT) == 2 * (392 + 120 + 67 + 392)


def test_a_run_that_goes_astray_is_cut_and_marked(tmp_path: Path) -> None:
    """Under trap the guest believes that it is not in ring 0, and loops for ever."""
    source = write_source(tmp_path, "mov eax, cs\ntest al, 3\nagain: jnz again\ncli\nhlt\n")
    comparison = compare([source], ["trap", Column("trap", True)], repeat=1)
    astray, repaired = comparison.rows[1:]
    assert (astray.same, repaired.same) == (False, True)
    assert astray.ticks == 5 * module.ASTRAY + module.SPARE_TICKS
    assert rows(comparison)[1][1] == "trap*"
    assert any(line.startswith("* the program did not do") for line in notes(comparison))


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    flat = tmp_path / "flat.bin"
    flat.write_bytes(assemble("cli\nhlt").flat())
    comparison = compare([flat], ["trap", "paravirt"], repeat=1)
    assert [row.technique for row in comparison.rows] == ["native", "trap"]
    assert [refusal.technique for refusal in comparison.refusals] == ["paravirt"]
    assert "refused: flat.bin, paravirt: " in notes(comparison)[-1]
    with pytest.raises(KeyError):
        comparison.row("flat.bin", "paravirt")


def test_two_runs_that_differ_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(module, "_work", lambda vm: {"exits": next(numbers)})
    with pytest.raises(RuntimeError, match="not deterministic"):
        compare(["hello"], ["trap"], repeat=2)


def test_long_runs_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG", 0.0)
    assert len(compare(["hello"], [], repeat=9).rows[0].wall.seconds) == 1


def test_an_operation_is_the_difference_of_two_runs() -> None:
    """Two thousand INs, each an exit, with INC, DEC and JNZ around it."""
    found = compare(["in"], ["trap"], repeat=1)
    native, trapped = found.rows
    assert native.operations == trapped.operations == COUNTED["in"].high - COUNTED["in"].low
    assert native.ticks == 4 * native.operations
    around = 2 * INSTRUCTION_CYCLES["alu"] + INSTRUCTION_CYCLES["branch"]
    bus = EVENT_CYCLES["port_access"]
    assert native.each(native.executed) == INSTRUCTION_CYCLES["io"] + bus + around
    assert trapped.each(trapped.executed) == INSTRUCTION_CYCLES["io"] + around
    assert trapped.exits == {"in": 2000}
    assert {key: n for key, n in trapped.work.items() if n} == {"exits": 2000, "device": 2000}


def test_another_processor_gives_other_cycles_and_the_same_exits() -> None:
    old, new = (
        compare(["divzero"], ["trap"], repeat=1, cost_model=model.name).row("divzero", "trap")
        for model in MODELS
    )
    assert (old.exits, old.ticks, old.work) == (new.exits, new.ticks, new.work)
    assert old.executed > new.executed
    assert old.modelled > new.modelled == modelled_cycles(new.work, CURRENT)


def test_a_virtual_machine_that_shares_a_host_has_its_cost_model() -> None:
    program = assemble("mov cr2, eax\nhlt")
    for model in MODELS:
        host = Host("2M", cost_model=model.name)
        vm = module.VirtualMachine(program, "trap", ram="2M", host=host)
        vm.run()
        assert vm.cpu.state.cycle >= model.instruction_cycles["cr_write"]
        assert vm.prices == model.instruction_cycles


def test_every_pair_of_technique_and_memory_has_a_column() -> None:
    pairs = [(name, mmu) for name in TECHNIQUES for mmu in kind_of(name).memories]
    columns = [
        (column.technique, column.mmu or kind_of(column.technique).memories[0])
        for column in default_columns()
        if not column.virtualizable and " " not in column.technique
    ]
    assert columns == pairs
    assert two_guests().row("rings", "trap").mmu == "shadow"
    assert str(Column("trap", True, "shadow")) == "trap --mmu shadow --virtualizable"


def test_noise_has_no_ratio() -> None:
    assert Wall((0.2, 0.3, 0.9)).ratio(Wall((0.1, 0.5))) == pytest.approx(2)
    assert Wall((-0.1,)).ratio(Wall((0.1,))) is None
    assert Wall((0.1,)).ratio(Wall((1e-5,))) is None


def test_qemu_stands_beside() -> None:
    if not qemu.is_installed():
        pytest.skip(f"not installed: {qemu.COMMAND[0]}")
    ours = compare(["divzero", "quicksort"], [], repeat=1)
    found = qemu.beside(ours, repeat=1)
    assert [outside.program for outside in found] == ["divzero", "quicksort"]
    counted = COUNTED["divzero"]
    assert found[0].operations == counted.high * QEMU_TIMES - counted.low
    lines = rows(replace(ours, outside=found))
    assert [line[1] for line in lines] == ["native", qemu.NAME] * 2
    assert lines[1][2:6] == ("-",) * 4
    assert qemu.NAME in as_csv(replace(ours, outside=found))


def test_qemu_has_no_figure_for_what_it_cannot_run(tmp_path: Path) -> None:
    if not qemu.is_installed():
        pytest.skip(f"not installed: {qemu.COMMAND[0]}")
    flat = tmp_path / "flat.bin"  # no multiboot header
    flat.write_bytes(assemble("mov al, 0\nout 0xF4, al").flat())
    assert qemu.beside(compare([flat], [], repeat=1), repeat=1) == ()


@pytest.mark.deep
def test_the_default_set_is_quick_and_right(tmp_path: Path) -> None:
    """All that the command does without an argument: the set, curves, QEMU, and the page."""
    page = tmp_path / "out.html"
    start = time.perf_counter()
    found, curves = answer(Question(None, None, DEFAULT_MODEL, None, whole=True), outside=True)
    write(found, curves, None, None, page)
    assert time.perf_counter() - start < 120
    assert len(curves) == 2
    assert bool(found.outside) == qemu.is_installed()
    assert 'id="time"' in page.read_text(encoding="utf-8")
    assert {row.technique for row in found.rows if not row.same} <= {"trap"}
    assert not found.refusals
    assert [row.program for row in found.rows if row.technique == "native"] == list(DEFAULT)


# -- What is shown ---------------------------------------------------------------------------------


def test_table_data_and_page() -> None:
    table = rows(two_guests())
    assert {len(line) for line in table} == {len(COLUMNS)}
    data = as_json(two_guests())
    assert json.loads(json.dumps(data)) == data
    assert len(data["rows"]) == len(table)
    lines = list(csv.DictReader(as_csv(two_guests()).splitlines()))
    assert [int(line["executed"]) for line in lines] == [r.executed for r in two_guests().rows]
    trap = next(line for line in lines if line["technique"] == "trap")
    assert int(trap["exits: out"]) == two_guests().row("quicksort", "trap").exits["out"]
    text = as_page(two_guests())
    check_html(text)
    assert text.count("<svg") == 4  # cycles and exits of each


def test_the_command(tmp_path: Path) -> None:
    data, sheet, page = (tmp_path / f"out.{kind}" for kind in ("json", "csv", "html"))
    done = seventeen(
        "compare", "hello", "--technique", "trap", "--repeat", "2",
        "--json", data, "--csv", sheet, "--html", page,
    )  # fmt: skip
    assert done.status == 0
    lines = done.text.splitlines()
    assert lines[0].startswith("workload  technique  executed cycles  hypervisor cycles  ratio")
    assert lines[1].split()[:2] == ["hello", "native"]
    assert lines[2].split()[:2] == ["hello", "trap"]
    assert "out" in lines[2]
    assert len(json.loads(data.read_text())["rows"][1]["wall"]["seconds"]) == 2
    assert sheet.read_text().startswith("program,technique,mmu,operations,same,ticks,executed")
    assert f"The report: {page}" in done.text
    check_html(page.read_text())


def test_a_technique_may_be_named_as_the_table_prints_it() -> None:
    for column in (*default_columns(), Column("trap", ("popf", "smsw"), "shadow")):
        assert Column.parse(str(column)) == column
    named = ("native", "hardware --mmu shadow", "trap --virtualizable")
    options = [word for name in named for word in ("--technique", name)]
    done = seventeen("compare", "hello", *options, "--repeat", "1")
    lines = [" ".join(line.split()) for line in done.text.splitlines()]
    assert [lines[n].startswith(f"hello {name} ") for n, name in enumerate(named, 1)] == [True] * 3
    assert lines[4] == ""


def test_memories_that_are_asked_for() -> None:
    assert list(map(str, find_columns(["hardware", "trap"], ["nested"]) or ())) == [
        "hardware --mmu nested"
    ]
    both = ["hardware --mmu shadow", "hardware --mmu nested"]
    assert list(map(str, find_columns(["hardware"], ["shadow", "nested"]) or ())) == both
    assert list(map(str, find_columns(both, ["shadow"]) or ())) == both[:1]
    assert list(map(str, find_columns([], ["nested"]) or ())) == both[1:]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["hello", "--technique", "magic"], 64, "no technique 'magic'"),
        (["hello", "--repeat", "0"], 64, "--repeat: expected at least 1, found 0"),
        (["hello", "--mmu", "magic"], 64, "no memory virtualization 'magic'"),
        (["hello", "--cost-model", "abacus"], 64, "no cost model 'abacus'; there is pentium4"),
        (["hello", "--technique", "trap --mmu nested"], 64, "trap does not go with --mmu nested"),
        (["hello", "--technique", "trap --mmu"], 64, "no memory virtualization ''; there"),
        (["hello", "--technique", "trap --virtualizable=add"], 64, "add: expected some of"),
        (["hello", "--technique", "native", "--mmu", "shadow"], 64, "no technique named goes with"),
        (["helo"], 66, "no file and no guest is named 'helo'; did you mean hello?"),
    ],
)
def test_bad_input(arguments: list[str], status: int, words: str) -> None:
    done = seventeen("compare", *arguments)
    assert done.status == status
    assert len(done.error_lines) == 1
    assert words in done.errors


def test_the_script_of_the_readme() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 9
    assert lines[1][:2] == ["quicksort", "native"]
    assert lines[1][-1] == "1.00"
    assert float(lines[2][-1]) > 10 > float(lines[3][-1]) > 0
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if "from hypervisor.experiments.compare import compare" in readme:
        assert SCRIPT in readme


def test_what_is_shorter_than_a_start_has_no_time() -> None:
    """QEMU's start is taken away, and may take longer than start and guest do another time."""
    cells = report._outside_cells(Outside("matrix", "QEMU TCG", 1, Wall((-0.07,)), None))
    assert cells[6:10] == (report.NO_FIGURE,) * 4


def test_noise_is_no_result() -> None:
    """A run with more operations may by chance be the shorter one."""
    native = two_guests().row("quicksort", "native")
    noise = replace(native, operations=1000, wall=Wall((-5e-6,)), wall_ratio=None)
    assert report._row_cells(noise)[6:10] == (report.NO_FIGURE,) * 4
    mixed = replace(noise, wall=Wall((0.3, -0.1, 0.2)))
    assert report._row_cells(mixed)[6:9] == ("200.00 us", report.NO_FIGURE, "300.00 us")
