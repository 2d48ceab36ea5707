"""What makes patching hard is counted: for each case, a program that brings it up.

That such programs run as they do natively is test_patch.py's and test_code_changes.py's to show.
"""

from __future__ import annotations

from typing import Final

import pytest

from guests import find
from hypervisor.patcher.memory import PatchMemory
from hypervisor.techniques.patch import Patch
from hypervisor.vm import VirtualMachine
from isa import Program, assemble, assemble_file
from tests.hypervisor.hidden_reads import HIDDEN_READS
from tests.hypervisor.patched_sources import END, SOURCES
from tests.hypervisor.test_code_changes import random_changes

RAM: Final = "4M"
TICKS: Final = 20_000
STRAIGHT: Final = f"pushf\nmov eax, 5\npop ebx\n{END}"
AT_THE_END_OF_A_PAGE: Final = (
    f"jmp near_end\nalign 4096, db 0x90\ntimes 4092 nop\nnear_end: pushf\npop eax\nnop\n{END}"
)
#: A piece of source, a guest of the manifest, or the number of a kernel that changes its code.
CASES: Final[dict[str, str | int]] = {
    "instructions moved along with a site": STRAIGHT,
    "sites that overlap another": SOURCES["read in two ways"],
    "sites across two pages": AT_THE_END_OF_A_PAGE,
    "sites in a page that is mapped twice": 83,
    "jumps undone": SOURCES["led into later"],
    "pages of code changed": "selfmod",
    "pages of code replaced by others": 68,
    "faults and interrupts in patch memory": SOURCES["data beside"],
    "patches met by ring 3": "rings",
    "accesses that patches were hidden from": HIDDEN_READS["ring 3 reads, without paging"],
    "sites without room in patch memory": STRAIGHT,
    "bytes of patch memory taken back": SOURCES["read and written"],
}
#: Where control has to be seen that nobody foresaw.
STRICTLY: Final = frozenset({"jumps undone"})


def program(what: str | int) -> Program | bytes:
    if isinstance(what, int):
        return random_changes(what).program
    if "\n" in what:
        return assemble(what)
    guest = find(what)
    return assemble_file(guest.source, include=guest.includes)


def hard_cases(what: str | int, technique: str = "patch") -> dict[str, int]:
    vm = VirtualMachine(program(what), technique, ram=RAM)
    vm.run(TICKS)
    assert isinstance(vm.technique, Patch)
    return vm.technique.hard_cases()


@pytest.mark.parametrize("case", CASES)
def test_it_is_counted(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "without room" in case:
        monkeypatch.setattr(PatchMemory.__init__, "__defaults__", (8,))
    technique = "patch --strict" if case in STRICTLY else "patch"
    assert hard_cases(CASES[case], technique)[case] > 0


def test_an_easy_program_has_none() -> None:
    assert not any(hard_cases(f"mov eax, 5\n{END}").values())


def test_each_has_a_program() -> None:
    assert hard_cases(STRAIGHT).keys() == CASES.keys()
