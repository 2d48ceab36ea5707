"""The tour: each stop shows what it says it shows, on one screen, and its commands work.

The golden files in tour/ hold what each stop computes; `pytest --accept` records them anew. That
they are right, and not only what they were, is for the other tests to say.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from emulator import Machine
from guests import LIB
from hypervisor.errors import ExperimentError
from hypervisor.experiments import tour
from hypervisor.experiments.tour import (
    TOUR,
    assisted,
    hypercall,
    passthrough,
    patching,
    popf,
    shadows,
    translation,
)
from hypervisor.experiments.tour.screen import LINES, MARK, WIDTH, Kind, Line, table
from hypervisor.experiments.tour.steps import build, first_unequal
from isa import assemble
from isa.table import ROWS
from tests.cli.support import COMMAND, environment, seventeen

GOLDEN = Path(__file__).parent / "tour"
NUMBERS = range(1, len(TOUR) + 1)
ESCAPE = re.compile(rb"\x1b\[[0-9;]*m")


@cache
def screen(number: int) -> tuple[Line, ...]:
    return tuple(tour.lines_of(number))


def number_of(function: str) -> int:
    return next(n for n, stop in enumerate(TOUR, 1) if stop.function == function)


def texts(lines: Any) -> list[str]:
    return [line.text for line in lines]


def marked(lines: Any) -> list[str]:
    return [line.text for line in lines if line.kind is Kind.MARKED]


def cells(lines: Any, first: str) -> list[list[str]]:
    """The rows of a screen's table whose first cell begins so, by columns."""
    rows = [re.split(r"\s{2,}", line.text.removeprefix(MARK).strip()) for line in lines]
    return [row for row in rows if row[0].startswith(first)]


# -- Every stop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stop_fits_on_one_screen(number: int) -> None:
    lines = texts(screen(number))
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stop_shows_what_was_recorded(number: int, golden: Any) -> None:
    stop = TOUR[number - 1]
    text = "".join(f"{line.text}\n" for line in stop.show())
    golden.check(GOLDEN / f"{stop.module}-{stop.function}.txt", text)


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {f"{s.module}-{s.function}" for s in TOUR}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stop_asks_and_leads_on(number: int) -> None:
    lines = texts(screen(number))
    stop = TOUR[number - 1]
    assert lines[0] == f"Tour, {number} of {len(TOUR)}: {stop.title}"
    assert stop.question.endswith("?")
    assert f"Next      {stop.command}" in lines
    assert (f"Then      seventeen tour {number + 1}" in lines) == (number < len(TOUR))


@pytest.mark.parametrize("stop", TOUR, ids=lambda stop: stop.function)
def test_what_to_try_next_works(stop: tour.Stop, tmp_path: Path) -> None:
    program, *words = shlex.split(stop.command)
    assert program == "seventeen"
    done = seventeen(*words, cwd=tmp_path)
    assert done.status == 0, done.errors
    assert done.output


@pytest.mark.parametrize("number", [n for n in NUMBERS if TOUR[n - 1].source])
def test_a_source_runs_natively(number: int) -> None:
    machine = Machine(ram="2M")
    machine.load(assemble(tour.source_of(number), include=[LIB]))
    assert machine.run(max_ticks=100_000).status == 0


def test_make_demo_shows_three() -> None:
    makefile = (GOLDEN.parents[2] / "Makefile").read_text(encoding="utf-8")
    (stops,) = re.findall(r"^\t@for stop in ([\d ]+);", makefile, re.MULTILINE)
    assert len(stops.split()) == 3
    assert {int(number) for number in stops.split()} <= set(NUMBERS)


def test_the_stops_are_those_of_the_registry() -> None:
    for number in (0, len(TOUR) + 1, -1):
        with pytest.raises(ExperimentError, match=f"stops 1 to {len(TOUR)}"):
            tour.lines_of(number)
    with pytest.raises(ExperimentError, match="no source"):
        tour.source_of(1)


# -- What they show --------------------------------------------------------------------------------


def test_the_classes_are_found_by_running() -> None:
    lines = screen(number_of("show"))
    found = {row[0].split()[0]: row[2] for row in cells(lines, "") if len(row) > 2}
    assert {name: found[name] for name in ("mov", "wbinvd", "hlt", "popf")} == {
        "mov": "safe", "wbinvd": "privileged", "hlt": "sensitive", "popf": "unsafe",
    }  # fmt: skip
    assert [text.split()[1] for text in marked(lines)] == ["popf"]
    assert any(text.startswith("popf at CPL 1") for text in texts(lines))


def test_popf_is_dropped_in_ring_3_without_a_trap() -> None:
    lines = screen(number_of("show_natively"))
    (row,) = cells(lines, "popf")
    assert row == ["popf", "CF=1 IF=0 IOPL=3", "CF=1 IF=1 IOPL=0"]
    assert marked(lines)[0].split()[1] == "popf"
    assert "Exceptions in ring 0: none; in ring 3: none." in texts(lines)


def test_lockstep_names_popf_under_trap() -> None:
    lines = screen(number_of("show_under_trap"))
    (row,) = cells(lines, "popf")
    assert row == ["popf", "IF=0 IOPL=0", "IF=1 IOPL=0", "-"]
    assert [text.split()[1] for text in marked(lines)] == ["popf"]
    assert re.search(r"First difference, found by lockstep: tick \d+: popf", " ".join(texts(lines)))
    ends = [text.partition("ends: ")[2] for text in texts(lines) if " ends: " in text]
    assert len(set(ends)) == 2


def test_the_theorem_is_restored_where_popf_traps() -> None:
    lines = screen(number_of("show_restored"))
    (row,) = cells(lines, "popf")
    assert row == ["popf", "IF=0 IOPL=0", "IF=0 IOPL=0", "popf"]
    assert not marked(lines)
    assert "Lockstep finds no difference" in " ".join(texts(lines))


def test_another_kernel_makes_another_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written down beforehand: a kernel that leaves IF on shows no difference."""
    harmless = popf.KERNEL.replace("show:   sti", "show:   nop").replace("hlt", "ud2")
    monkeypatch.setattr(popf, "KERNEL", harmless)
    lines = popf.show_under_trap()
    assert not marked(lines)
    assert "Lockstep finds no difference" in " ".join(texts(lines))


def test_a_hybrid_monitor_steps_the_kernel_alone() -> None:
    number = next(n for n, stop in enumerate(TOUR, 1) if stop.module == "interpretation")
    lines = screen(number)
    assert cells(lines, "popf")[0][1:] == ["IF=0 IOPL=0", "IF=0 IOPL=0", "1", "0"]
    assert cells(lines, "rep stosb")[0][3:] == ["0", "300"]
    assert "Lockstep finds no difference from native." in texts(lines)
    found = re.search(
        r"([\d,]+) instructions in ([\d,]+) cycles, and ([\d,]+) steps; .* ([\d,]+) more\.$",
        " ".join(texts(lines[:-4])).rstrip(),
    )
    assert found is not None
    ticks, cycles, steps, more = (int(number.replace(",", "")) for number in found.groups())
    assert 1000 < steps < ticks - 250
    assert more > cycles


def test_cli_and_sti_are_stores_under_paravirt() -> None:
    lines = hypercall.show()
    rows = {row[0]: row[1:] for row in cells(lines, "") if len(row) == 5}
    for name in ("cli", "sti"):
        (code,) = (row.opcode.split()[0] for row in ROWS if row.mnemonic == name)
        plain, under_trap, site, under_paravirt = rows[name]
        assert (plain.upper(), under_trap, under_paravirt) == (code, name, "-")
        assert len(site.split()) > 1
    assert rows["mov eax, cr0"][2].startswith("cd 82 0f 20 c0")
    assert rows["mov eax, cr0"][3] == "hypercall: mov"
    assert rows["inc ebx"][0] == rows["inc ebx"][2]
    assert any("3 under trap, 1 under paravirt" in text for text in texts(lines))


def test_a_hidden_fault_fills_the_shadow_and_a_true_one_is_the_guests() -> None:
    lines = shadows.show()
    read, again = cells(lines, "mov eax, [PAGE]")[::2]
    assert read[1:] == again[1:]
    assert read[1].split()[1] == "PWA"  # writable, and not yet dirty
    assert read[2].split()[1] == "PAD"  # so the shadow is not writable
    assert read[3] == "hidden page fault"
    assert read[1].split()[0] != read[2].split()[0]
    (written,) = cells(lines, "mov [PAGE], eax")
    assert [entry.split()[1] for entry in written[1:3]] == ["PWAD", "PWAD"]
    true = cells(lines, "mov eax, [PAGE]")[1]
    assert "guest page fault" in true[3]
    assert "the same throughout, and it sees #PF as it does here: #PF." in " ".join(texts(lines))


def test_a_gate_that_is_passed_through_costs_no_exit() -> None:
    lines = passthrough.show()
    first, *others = cells(lines, "int SYSTEM_CALL")
    assert "gate opened" in first[3]
    assert [row[2:] for row in others] == [["int", "-"]] * 2
    assert " ".join(texts(lines)).count("no difference") == 2


def test_an_interrupt_gate_is_not_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    source = passthrough.SOURCE.replace("GATE_TRAP |", "GATE_INTERRUPT |")
    monkeypatch.setattr(passthrough, "SOURCE", source)
    for row in cells(passthrough.show(), "int SYSTEM_CALL"):
        assert row[2] == row[3]
        assert row[3].startswith("int")


def test_in_guest_mode_paging_exits_on_shadows_alone() -> None:
    lines = assisted.show_guest_mode()
    for after in ("mov eax, cr3", "mov cr3, eax", "mov dword [table], 0x181003"):
        ((_, _, on_shadows, nested),) = cells(lines, after)
        assert on_shadows != "-"
        assert nested == "-"
    for after in ("popf", "mov eax, cr0", "invlpg [0x400000]"):
        ((_, _, *guest_mode),) = cells(lines, after)
        assert guest_mode == ["-", "-"]
    assert [row[1:] for row in cells(lines, "in al, 0x80")] == [["in", "in", "in"]]
    assert all(
        assisted.difference(*way) == "no difference"
        for way in (("hardware", "shadow"), ("hardware", "nested"))
    )


def test_a_block_is_translated_without_exits() -> None:
    lines = translation.show_block()
    exits = [row[-1] for row in cells(lines, "") if len(row) > 2 and row[0] != "guest"]
    assert exits.count("-") >= 3
    assert cells(lines, "inc ebx")[0][:2] == ["inc ebx", "inc ebx"]
    assert cells(lines, "cli")[0][1] == "mov byte [gs:1], 0"
    assert "no difference from native" in " ".join(texts(lines))


def test_chained_blocks_need_no_exit() -> None:
    lines = translation.show_chaining()
    first, *_, last = (row for row in cells(lines, "") if row[0].isdigit())
    assert "link" in first[1]
    assert last[1:] == ["-", "-"]


def test_code_that_changes_is_translated_again() -> None:
    lines = translation.show_self_modifying()
    rows = [row for row in cells(lines, "") if row[0].isdigit()]
    assert [int(row[1]) for row in rows] == list(range(len(rows), 0, -1))
    assert "traced store" in rows[0][2]
    assert "traced store" not in rows[-1][2]
    assert rows[-1][3].endswith("checked")
    assert f"native's in {len(rows)} of {len(rows)} turns" in " ".join(texts(lines))


def test_a_jump_patch_needs_no_exit() -> None:
    lines = patching.show_jump()
    assert cells(lines, "cli")[0][2] == "if_flag"
    assert cells(lines, "mov ebx, 5") == [["mov ebx, 5", "mov ebx, 5"]]
    text = " ".join(texts(lines))
    assert "fa bb 05 00 00 have become e9" in text
    assert "no difference from native" in text
    assert "int3" not in text


def test_an_int3_patch_exits_each_time() -> None:
    lines = patching.show_trap()
    popf_row, sgdt = (row for row in cells(lines, "1000") if len(row) == 5)
    assert (sgdt[1].split()[0], popf_row[1]) == ("sgdt", "popf")
    assert sgdt[2:] == ["0f -> cc", "3", "the virtual CPU"]
    assert popf_row[2:4] == ["9d -> cc", "3"]
    assert popf_row[4].startswith("patch memory")
    assert "no difference from native" in " ".join(texts(lines))


def test_sites_are_refused_for_reasons() -> None:
    lines = patching.show_refused()
    reasons = [re.split(r"\s{2,}", text)[-1] for text in marked(lines)]
    assert len(set(reasons)) == len(reasons) == 4


# -- Parts -----------------------------------------------------------------------------------------


def test_a_table_marks_its_rows() -> None:
    lines = table(("a", "bb"), [("x", "y"), ("long", "z")], marked=[1])
    assert texts(lines) == ["   a     bb", "   x     y", ">> long  z"]
    assert [line.kind for line in lines] == [Kind.HEAD, Kind.PLAIN, Kind.MARKED]


def test_the_first_unequal() -> None:
    assert list(first_unequal(["a", "b", "c"], ["a", "x", "y"])) == [1]
    assert list(first_unequal(["a"], ["a"])) == []


def test_a_define_makes_another_program() -> None:
    natural = build(popf.RINGS).flat()
    assert natural == build(popf.RINGS, define="RING=0").flat()
    assert natural != build(popf.RINGS, define="RING=3").flat()


# -- The command -----------------------------------------------------------------------------------


def test_the_command_lists_the_stops() -> None:
    lines = seventeen("tour").text.splitlines()
    assert lines[-1] == "`seventeen tour 1` begins."
    found = [line.split(maxsplit=1) for line in lines[1:-1]]
    assert found == [[str(number), stop.title] for number, stop in enumerate(TOUR, 1)]


def test_the_command_shows_a_stop_and_its_source() -> None:
    number = number_of("show_under_trap")
    done = seventeen("tour", str(number))
    assert done.text.splitlines() == texts(screen(number))
    assert done.output.count(b"\x1b") == 0
    assert seventeen("tour", str(number), "--source").text == popf.KERNEL


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["99"], 65, "no stop 99"),
        (["x"], 64, "not a valid integer"),
        (["--source"], 64, "expected the number of a stop"),
        (["1", "--source"], 65, "stop 1 has no source"),
    ],
)
def test_bad_input(words: list[str], status: int, message: str) -> None:
    done = seventeen("tour", *words)
    assert done.status == status
    (line,) = done.error_lines
    assert message in line


def read_all(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal, until nobody can write any more."""
    while select.select([terminal], [], [], 60)[0]:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux: the last writer has gone
            return
        yield data


def test_colours_are_for_terminals() -> None:
    number = number_of("show_under_trap")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "tour", str(number)], stdout=theirs, env=environment(TERM="xterm", COLUMNS="80")
    ) as process:
        os.close(theirs)
        written = b"".join(read_all(ours))
    os.close(ours)
    assert process.returncode == 0
    lines = written.replace(b"\r\n", b"\n").splitlines()
    assert [ESCAPE.sub(b"", line).decode().rstrip() for line in lines] == texts(screen(number))
    coloured = [line for line in lines if ESCAPE.search(line)]
    assert any(MARK.encode() in line for line in coloured)
    assert len(coloured) < len(lines)
