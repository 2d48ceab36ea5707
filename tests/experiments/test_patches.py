"""`seventeen patches`: sites are what stands in the guest, and counts are exact."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from hypervisor.experiments import patches
from hypervisor.experiments.patches import Found, Site, record
from hypervisor.experiments.subjects import Subject, find_subject
from hypervisor.patcher.patches import JUMP, NO_FORM, NOT_MOVED, SHORT, TRAP
from tests.cli.support import seventeen, write_source
from tests.experiments.test_blocks import native_counts

#: A loop with a site that a jump can replace, and two that it cannot.
SOURCE = """
start:  mov ecx, 5
again:  cli
        mov eax, ecx
        mov ebx, eax
        pushf
        jmp next
next:   popf
        dec ecx
        jnz again
        mov al, 0
        out 0xF4, al
"""
TURNS = 5


@cache
def found(name: str, strict: bool = False) -> Found:
    return record(find_subject(name), strict=strict)


def site_at(run: Found, name: str) -> Site:
    (site,) = (site for site in run.sites if run.name(site.patch.eip) == name)
    return site


def test_sites_of_a_loop(tmp_path: Path) -> None:
    run = record(Subject("guest", write_source(tmp_path, SOURCE), ram="2M"))
    jump, push, pop = site_at(run, "again"), site_at(run, "again+0x5"), site_at(run, "next")
    assert (jump.patch.kind, jump.patch.reason, jump.exits) == (JUMP, "", 0)
    assert [text for _, text in jump.original] == ["cli", "mov eax, ecx", "mov ebx, eax"]
    assert jump.patched[0][0][0] == 0xE9
    assert jump.patched[0][1] == f"jmp {jump.start:#x}"
    assert (push.patch.kind, push.patch.reason, push.patched) == (
        TRAP, SHORT, [(b"\xcc", "int3")],
    )  # fmt: skip
    assert pop.patch.kind == JUMP, "it has taken the loop's branch along"
    assert [site.executed for site in (jump, push, pop)] == [TURNS] * 3
    assert run.counts[JUMP] == 2


@pytest.mark.parametrize("name", ["hello", "kprobe_popf", "rings", "selfmod"])
@pytest.mark.parametrize("strict", [False, True])
def test_counts_are_those_of_the_bare_machine(name: str, strict: bool) -> None:
    run, counts = found(name, strict), native_counts(name)
    executed = {site.patch.eip: 0 for site in run.sites}
    for site in run.sites:
        executed[site.patch.eip] += site.executed
    assert executed == {eip: counts[eip] for eip in executed}


def test_counts_do_not_change_the_run() -> None:
    assert found("rings").result.ticks == found("rings", strict=True).result.ticks


def test_reasons_are_told() -> None:
    run = found("rings")
    assert {site.patch.reason for site in run.sites} >= {"", NO_FORM, NOT_MOVED}
    assert all((site.patch.kind == JUMP) == (not site.patch.reason) for site in run.sites)
    made = sum(count for reason, count in run.counts.items() if reason != "removed")
    assert made >= len(run.sites)


def test_strict_adds_sites() -> None:
    plain, strict = (
        {site.original[0][1].split()[0] for site in found("rings", is_strict).sites}
        for is_strict in (False, True)
    )
    assert "ret" in strict - plain


def test_the_code_in_patch_memory() -> None:
    run = found("rings")
    for site in run.sites:
        lines = patches.code_of(run, site)
        heads = [line for line in lines if line.startswith("  -- ")]
        assert len(heads) == len(site.patch.inside)
        if site.patch.kind == JUMP:
            assert len(heads) == len(site.original)
            assert "; back to 0x" in lines[-1] or site.original[-1][1] in ("iret", "ret")


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "patches.json"
    done = seventeen("patches", "kprobe_popf", "--json", file)
    assert done.status == 0
    lines = done.text.splitlines()
    assert lines[0].split()[:4] == ["site", "symbol", "original", "patched"]
    assert any(" popf " in line and " int3 " in line for line in lines)
    assert any(" jump " in line and " jmp 0x" in line for line in lines)
    result = json.loads(file.read_text())
    assert result["technique"] == "patch"
    assert sum(line.startswith("0x") for line in lines) == len(result["sites"])
    assert sum(site["kind"] == JUMP for site in result["sites"]) == result["counts"][JUMP]
    verbose = seventeen("patches", "kprobe_popf", "--verbose", "--max-ticks", "4000")
    assert "; back to 0x" in verbose.text
    assert "kprobe_popf: 4,000 guest instructions" in verbose.text
    strict = seventeen("patches", "hello", "--strict")
    assert " ret " in strict.text


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["patches"], 64),
        (["patches", "hello", "--max-ticks", "many"], 64),
        (["patches", "missing.asm"], 66),
        (["patches", "hello", "--json", "no/such/folder.json"], 65),
    ],
)
def test_bad_input(words: list[str], status: int) -> None:
    done = seventeen(*words)
    assert done.status == status
    assert len(done.error_lines) == 1
