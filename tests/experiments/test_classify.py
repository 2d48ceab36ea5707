"""Does the experiment find what the literature knows, by itself, and can it fail?

Whole-table surveys are few, for each takes seconds; surveys.py keeps one.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from hypervisor.errors import ExperimentError
from hypervisor.experiments.classify import classify
from hypervisor.experiments.classify.check import disagreements
from hypervisor.experiments.classify.differences import differing
from hypervisor.experiments.classify.states import Bench
from hypervisor.experiments.classify.survey import mnemonics
from hypervisor.experiments.classify.theorems import count_note, theorems
from hypervisor.experiments.classify.verdicts import DISTINCTIONS, examine
from hypervisor.experiments.classify.witness import find_witness
from isa.row import Row
from isa.table import ROWS, rows_of
from tests.experiments.surveys import found, whole

#: By hand, from the papers: mnemonics all of whose rows are unsafe.
UNSAFE = (
    *("sgdt", "sidt", "sldt", "smsw", "str", "pushf", "popf", "lar", "lsl", "verr", "verw"),
    *("int", "int3", "into", "retf", "iret", "lds", "les", "lss", "lfs", "lgs"),
)
#: And what must trap: on what it depends, what it changes, what shows in it.
PRIVILEGED = {
    "cli": (("IOPL",), ("IF",), ()),
    "sti": (("IOPL",), ("IF",), ()),
    "rdtsc": (("CR4.TSD",), (), ("time",)),
    "lgdt": ((), ("GDTR",), ()),
    "lidt": ((), ("IDTR",), ()),
    "lldt": ((), ("LDTR",), ()),
    "ltr": ((), ("TR",), ()),
    "hlt": ((), ("halts",), ()),
    "invlpg": ((), ("TLB",), ()),
    "clts": ((), ("CR0",), ()),
    "wrmsr": ((), ("time-stamp counter",), ()),
    "rdmsr": ((), (), ("time",)),
    "wbinvd": ((), (), ()),
    "in": (("IOPL", "the I/O bitmap"), ("a device",), ("device",)),
    "out": (("IOPL", "the I/O bitmap"), ("a device",), ()),
}


def test_the_table_says_the_same() -> None:
    assert [str(each) for each in disagreements(whole())] == []


@pytest.mark.parametrize("name", UNSAFE)
def test_what_the_papers_call_unsafe_is(name: str) -> None:
    verdicts = [f.verdict.name for f in whole().findings if f.row.mnemonic == name]
    assert verdicts
    assert set(verdicts) == {"unsafe"}


@pytest.mark.parametrize("name", PRIVILEGED)
def test_what_must_trap_does(name: str) -> None:
    for finding in whole().findings:
        if finding.row.mnemonic == name:
            verdict = finding.verdict
            assert verdict.privileged
            seen = (verdict.depends, verdict.control, verdict.behaviour)
            assert seen == PRIVILEGED[name], finding.row


def test_integer_instructions_are_safe() -> None:
    names = set(mnemonics(whole().of("safe")))
    assert {"add", "div", "movsd", "bts", "enter", "xlat", "cmpxchg8b", "bound", "ud2"} <= names
    assert {"cpuid", "lahf", "cld", "pusha", "ret", "jcc"} <= names


def test_a_row_is_more_than_its_mnemonic() -> None:
    names = {
        "mov Ev,Gv (89 /r)": "safe", "mov Sw,Ew (8E /r)": "unsafe", "mov Cd,Rd (0F 22 /r)":
        "sensitive", "push Ev (FF /6)": "safe", "push CS (0E)": "unsafe", "jmp Jz (E9 cz)": "safe",
        "jmp Mp (FF /5)": "unsafe",
    }  # fmt: skip
    assert {label: found(whole(), label).verdict.name for label in names} == names


def test_witnesses_are_sentences() -> None:
    said = {str(f.row): str(f.witness) for f in whole().of("unsafe")}
    assert said["popf  (9D)"] == (
        "popf at CPL 1 with 0x0 on the stack: IF stayed 1; at CPL 0: IF became 0"
    )
    assert said["push CS (0E)"] == "push cs at CPL 1: pushed 0x9; at CPL 0: pushed 0x8"
    assert said["pushf  (9C)"] == (
        "pushf at CPL 1: pushed 0x202; with the guest's IF=0: pushed 0x2"
    )
    for label, sentence in said.items():
        real, _, believed = sentence.partition("; ")
        assert believed, label
        assert real.rpartition(": ")[2] != believed.rpartition(": ")[2], sentence


def test_every_unsafe_row_and_no_other_has_a_witness() -> None:
    for finding in whole().findings:
        assert (finding.witness is not None) == finding.verdict.unsafe, finding.row


def test_witnesses_are_the_same_in_every_run() -> None:
    again = classify(["popf", "lar", "lss", "retf"])
    assert len(again.findings) == 5
    for finding in again.findings:
        assert finding == found(whole(), str(finding.row))


def permuted() -> list[Row]:
    """The table with its class columns dealt anew."""
    order = list(ROWS)
    Random(17).shuffle(order)
    return [
        replace(row, privilege=other.privilege, sensitive=other.sensitive, leaks=other.leaks,
                cite=other.cite)
        for row, other in zip(ROWS, order, strict=True)
    ]  # fmt: skip


def test_the_class_columns_are_not_read() -> None:
    looked_at = {f.row.id for f in whole().findings if f.verdict.name != "safe" or not f.row.id % 8}
    changed = [row for row in permuted() if row.id in looked_at]
    survey = classify(rows=changed, witnesses=False)
    for finding in survey.findings:
        other = whole().findings[finding.row.id]
        assert replace(finding.verdict, row=other.row) == other.verdict, finding.row
    wrong = {str(row) for row in changed if row.verdict != ROWS[row.id].verdict}
    assert len(wrong) > 50
    assert {each.row for each in disagreements(survey)} >= wrong


def test_theorems_fail_on_the_real_machine() -> None:
    first, second, third = theorems(whole())
    assert not first.holds
    assert set(UNSAFE) < set(first.against)
    assert not second.holds
    assert not third.holds
    assert {"sgdt", "pushf", "popf", "smsw", "push"} <= set(third.against)
    assert not {"int", "lar", "verr"} & set(third.against)  # they trap, or show nothing, there


@pytest.mark.deep
def test_theorems_hold_once_all_is_repaired() -> None:
    names = mnemonics(whole().sensitive)
    survey = classify(names, virtualizable=True, witnesses=False)
    assert survey.repaired == mnemonics(whole().of("unsafe"))
    assert not survey.of("unsafe")
    assert all(theorem.holds for theorem in theorems(survey))
    assert not disagreements(survey)


def test_repairing_one_leaves_the_rest() -> None:
    survey = classify(["popf", "pushf", "push"], virtualizable=["popf"])
    assert survey.repaired == ("popf",)
    assert set(mnemonics(survey.of("unsafe"))) == {"pushf", "push"}
    (popf,) = (f.verdict for f in survey.findings if f.row.mnemonic == "popf")
    assert (popf.name, popf.depends, popf.repaired) == ("sensitive", (), True)


def test_the_count_is_explained() -> None:
    note = count_note(whole())
    assert "39 rows are unsafe, under 26 mnemonics" in note
    assert "INT n" in note
    assert "iret (as RET)" in note


@pytest.mark.parametrize(
    ("names", "repaired", "message"),
    [
        (["frobnicate"], [], "no instruction 'frobnicate'"),
        (["popf"], ["add"], "virtualizable add: expected unsafe"),
        (["popf"], ["nothing"], "no instruction 'nothing'"),
    ],
)
def test_bad_names(names: list[str], repaired: list[str], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        classify(names, virtualizable=repaired)


def test_aliases_and_conditions_are_names_too() -> None:
    survey = classify(["jz", "popfd"])
    assert set(mnemonics(survey.findings)) == {"jcc", "popf"}


# -- Could it fail? -------------------------------------------------------------------------------


def test_an_instruction_that_is_made_to_trap_is_privileged() -> None:
    (add, *_) = rows_of("add")
    bench = Bench()
    assert examine(bench, add).name == "safe"
    bench.repair(frozenset({add.id}))
    assert examine(bench, add).name == "privileged"


def test_a_safe_row_has_no_witness() -> None:
    bench = Bench()
    assert find_witness(bench, examine(bench, rows_of("add")[0])) is None


def test_popf_step_by_step() -> None:
    from hypervisor.experiments.classify.states import STACK, Case

    bench = Bench()
    pair = next(each for each in DISTINCTIONS if each.name == "CPL")
    case = Case(b"\x9d", (0, 0, 0, 0, STACK, 0, 0, 0), 0, bytes(32))  # popf
    believed, real = bench.run(case, pair.believed), bench.run(case, pair.real)
    assert differing(believed, real) == ["eflags"]
    assert (believed[1]["eflags"], real[1]["eflags"]) == (2, 0x202)
