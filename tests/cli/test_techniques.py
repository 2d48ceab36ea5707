"""`seventeen run --technique`: the same guests, and what more there is to see of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guests import find
from hypervisor.cli.run import SITES_OWNER, SWITCHES
from hypervisor.techniques import TECHNIQUES, kind_of, owner_of
from isa.sites import NOTE_OWNER
from tests.cli.support import environment, seventeen, write_source

#: Makes a kernel in ring 1, and goes there.
RING_1 = """
    lgdt [table]
    push 0x19
    push 0x300000
    push 2
    push 0x11
    push inner
    iret
inner: nop
table: dw 31
    dd entries
entries: dq 0, 0x00CF9A000000FFFF, 0x00CFBA000000FFFF, 0x00CFB2000000FFFF
"""


@pytest.mark.parametrize("technique", ["interpret", "trap", "translate", "patch"])
def test_a_guest_prints_what_it_prints_natively(technique: str) -> None:
    guest = find("rings")
    done = seventeen("run", "rings", "--technique", technique, "--virtualizable")
    assert (done.status, done.output, done.errors) == (guest.status, guest.prints, "")


def test_sources_are_assembled_for_paravirt(tmp_path: Path) -> None:
    guest = find("rings")
    done = seventeen("run", "rings", "--technique", "paravirt")
    assert (done.status, done.output, done.errors) == (guest.status, guest.prints, "")
    source = write_source(tmp_path, "sti\ncli\nmov eax, cr0\nmov al, 3\nout 0xF4, al\n")
    done = seventeen("run", source, "--technique", "paravirt", "--stats")
    assert done.status == 3
    assert re.search(r"exits: hypercall: mov +1$", done.errors, re.MULTILINE)
    assert "cli" not in done.errors
    flat = tmp_path / "guest.bin"
    assert seventeen("asm", source, "-o", flat).status == 0
    done = seventeen("run", flat, "--technique", "paravirt")
    assert done.status == 65
    assert done.error_lines[0].endswith("found a plain one")


def test_virtualizable_decides_whether_trap_is_faithful() -> None:
    guest = find("probe_pushf")
    done = seventeen("run", "probe_pushf", "--technique", "trap")
    assert done.output != guest.prints
    named = seventeen("run", "probe_pushf", "--technique", "trap", "--virtualizable=pushf,popf")
    assert named.output == guest.prints


def test_a_kernel_in_ring_1_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path, RING_1)
    done = seventeen("run", source, "--technique", "trap")
    assert done.status == 69
    assert done.error_lines == [
        f"seventeen: {source}: the guest runs in ring 1, which trap has no ring for"
    ]


def test_a_triple_fault_shows_its_chain(tmp_path: Path) -> None:
    source = write_source(tmp_path, "global _start\n_start: nop\nbroken:\nnop\nud2\n")
    native, trapped = (
        seventeen("run", source, "--technique", technique) for technique in ("native", "trap")
    )
    assert (trapped.status, trapped.errors) == (67, native.errors)


def test_stats() -> None:
    done = seventeen("run", "rings", "--technique", "trap", "--stats")
    words = [line.split() for line in done.error_lines]
    assert ["technique", "trap"] in words
    assert ["mmu", "shadow"] in words
    assert any(line[:2] == ["exits:", "out"] for line in words)
    assert ["interpreted:", "lgdt", "1"] in words


def test_what_the_translator_has_done(tmp_path: Path) -> None:
    """Two units, the second from `again`, to which a jump of each is chained."""
    source = write_source(tmp_path, "mov ecx, 9\nagain: loop again\nmov al, 0\nout 0xF4, al\n")
    file = tmp_path / "result.json"
    done = seventeen("run", source, "--technique", "translate", "--stats", "--json", file)
    found = json.loads(file.read_text())["translation"]
    names = ("units", "instructions", "evicted", "chained", "invalidated")
    assert list(found) == [*names, "adaptive_made", "adaptive_reverted"]
    assert found["instructions"] >= 4
    assert (found["units"], found["chained"]) == (2, 2)
    assert found["evicted"] == found["invalidated"] == found["adaptive_made"] == 0
    words = [line.split() for line in done.error_lines]
    for name, count in found.items():
        assert ["translation:", *name.split("_"), str(count)] in words
    seventeen("run", source, "--technique", "trap", "--json", file)
    assert "translation" not in json.loads(file.read_text())


def test_json(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    seventeen("run", "rings", "--technique", "trap", "--mmu", "shadow", "--json", file)
    result = json.loads(file.read_text())
    assert (result["technique"], result["mmu"]) == ("trap", "shadow")
    assert result["exits"]["out"] > 100
    assert result["interpreted"]["lgdt"] == 1
    assert result["shadow_fills"] > 0


def test_exits_and_shadows_are_traced() -> None:
    done = seventeen("run", "paging", "--technique", "trap", "-d", "exits,mmu")
    exits = [line for line in done.error_lines if line.startswith("exit ")]
    shape = re.compile(r"exit tick=\d+ \[[0-9a-f]{8}\] ring [13] \S.*")
    assert all(shape.fullmatch(line) for line in exits)
    assert any(line.endswith("_start") for line in exits)
    shadows = [line for line in done.error_lines if line.startswith("mmu ")]
    assert any(" fill " in line and "machine page" in line for line in shadows)
    assert any(" store to traced guest page " in line for line in shadows)
    assert any(" drop entry " in line for line in shadows)
    assert len(exits) + len(shadows) == len(done.error_lines)


def test_every_exit_is_traced(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = seventeen("run", "hello", "--technique", "trap", "-d", "exits", "--json", file)
    assert len(done.error_lines) == sum(json.loads(file.read_text())["exits"].values())


def test_the_words_of_the_bare_machine_go_as_well() -> None:
    native = seventeen("run", "rings", "-d", "int")
    trapped = seventeen("run", "rings", "--technique", "interpret", "-d", "int")
    assert trapped.error_lines == native.error_lines
    listed = seventeen("run", "hello", "--technique", "trap", "-d", "in_asm,exec")
    assert "IN: _start" in listed.errors
    assert "Trace [" in listed.errors


def test_a_bare_machine_loads_nothing_of_the_virtual_ones() -> None:
    script = (
        "import sys\nfrom hypervisor.cli import call\ncall(['run', 'hello'])\n"
        "print([name for name in ('hypervisor.vm', 'hypervisor.world', 'hypervisor.trace',"
        " 'hypervisor.memory.shadow', 'hypervisor.cli.several') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_registry_is_completed() -> None:
    words = {"COMP_WORDS": "seventeen run --technique ", "COMP_CWORD": "3"}
    done = seventeen(**words, _SEVENTEEN_COMPLETE="bash_complete")
    assert {line.split(",")[-1] for line in done.text.splitlines()} >= {
        "native",
        "interpret",
        "trap",
    }


@pytest.mark.parametrize(("variant", "status"), [("hypervisor", 65), ("native", 3)])
def test_paravirtual_images_on_the_bare_machine(tmp_path: Path, variant: str, status: int) -> None:
    """The twin runs; a hypervisor's image cannot, and one line says so."""
    assert SITES_OWNER == NOTE_OWNER
    source = write_source(tmp_path, '%include "guest.inc"\nstart: cli\npushf\npopf\nexit 3\n')
    image = str(tmp_path / "image.elf")
    assert seventeen("asm", source, f"--paravirt={variant}", "-o", image).status == 0
    done = seventeen("run", image)
    assert done.status == status
    assert done.errors.count("\n") == (variant == "hypervisor")
    assert ("cannot run natively" in done.errors) == (variant == "hypervisor")


def test_the_switches_are_those_of_the_techniques() -> None:
    known = [switch for name in TECHNIQUES for switch in kind_of(name).switches]
    assert sorted(SWITCHES) == sorted(known)
    assert {switch: owner_of(switch) for switch in SWITCHES} == {
        "--user": "translate",
        "--no-adaptive": "translate",
        "--link-back": "translate",
        "--strict": "patch",
    }


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_goes_with_its_technique(switch: str) -> None:
    owner = owner_of(switch)
    guest = find("hello")
    done = seventeen("run", "hello", "--technique", owner, switch)
    assert (done.status, done.output) == (guest.status, guest.prints)
    done = seventeen("run", "hello", switch)
    assert done.status == 64
    assert f"{switch} goes with --technique {owner}" in done.errors
    done = seventeen("run", "hello", "--technique", "trap", switch)
    assert done.status == 64
    assert f"technique trap has no switch {switch}; there is none" in done.errors


def test_strict_patches_returns() -> None:
    words = ("run", "hello", "--technique", "patch", "--stats")
    assert "int3: ret" not in seventeen(*words).errors
    assert "int3: ret" in seventeen(*words, "--strict").errors
