"""The TLB: what it may keep, what drops it, and that nobody can tell how it is organised.

A stale translation is architecture - a guest that changes a table without INVLPG may see the old
page - but a flush that is due and does not come is a bug, and so is a cached right that a change
of privilege, of CR0.WP or of a page's flags has taken away. test_paging.py has the walks.
"""

from __future__ import annotations

import struct
from random import Random

import pytest

from emulator.core import ExitReason, PageFlag, lib
from tests.core.lab import CODE, DATA, PF, Lab
from tests.core.world import DATA as WORLD_DATA
from tests.core.world import SINGLE, WHOLE, Setup, World

DIRECTORY, TABLE, TABLE2, DIRECTORY2 = 0x300000, 0x301000, 0x302000, 0x303000
P, RW, US, A, D, LARGE = 1, 2, 4, 32, 64, 128
FULL = P | RW | US
CR0_WP, CR0_PG, CR4_PSE = 0x10000, 0x80000000, 16
USER = 0x400000  #: linear, through TABLE2
ONE, TWO = 0x210000, 0x220000  #: frames with different contents
REACH = 512 << 12  #: pages so far apart share their place in the TLB


class TlbLab(Lab):
    """Identity pages below 4 MiB; USER's page table entries are the test's."""

    def __init__(self) -> None:
        super().__init__()
        entries = [TABLE | FULL | A, TABLE2 | FULL | A]
        self.put32(DIRECTORY, *entries)
        self.put32(DIRECTORY2, *entries)
        self.put32(TABLE, *(page << 12 | FULL | A | D for page in range(1024)))
        self.put32(ONE, 0x11111111)
        self.put32(TWO, 0x22222222)
        self.set_pte(USER, ONE | FULL)
        self.cpu["cr3"] = DIRECTORY
        self.cpu["cr0"] |= CR0_PG | CR0_WP

    def set_pte(self, linear: int, entry: int) -> None:
        """Without any flush."""
        self.put32(TABLE2 + (linear >> 12 & 1023) * 4, entry)

    def pte(self, linear: int) -> int:
        return self.get32(TABLE2 + (linear >> 12 & 1023) * 4)


@pytest.fixture
def lab() -> TlbLab:
    return TlbLab()


ENTRY = f"[{TABLE2}]"
CHANGE = f"mov eax, [{USER}]\nmov dword {ENTRY}, {TWO | FULL}\n"
FLUSHES = {
    "invlpg": f"invlpg [{USER}]",
    "invlpg, any byte": f"invlpg [{USER + 0xFFF}]",
    "cr3": "mov ecx, cr3\nmov cr3, ecx",
    "another cr3": f"mov ecx, {DIRECTORY2}\nmov cr3, ecx",
    "paging off and on": "mov ecx, cr0\nand ecx, 0x7FFFFFFF\nmov cr0, ecx\n"
    "or ecx, 0x80000000\nmov cr0, ecx",
    "cr4.pse": f"mov ecx, {CR4_PSE}\nmov cr4, ecx",
    "cr0.wp": "mov ecx, cr0\nxor ecx, 0x10000\nmov cr0, ecx",
}


@pytest.mark.parametrize("name", FLUSHES)
def test_what_drops_a_translation(lab: TlbLab, name: str) -> None:
    lab.run(f"{CHANGE}{FLUSHES[name]}\nmov ebx, [{USER}]\nhlt")
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (0x11111111, 0x22222222)


def test_invlpg_leaves_other_pages(lab: TlbLab) -> None:
    lab.set_pte(USER + 0x1000, ONE | FULL)
    lab.run(f"mov eax, [{USER + 0x1000}]\nmov dword [{TABLE2 + 4}], {TWO | FULL}\n"
            f"invlpg [{USER}]\nmov ebx, [{USER + 0x1000}]\nhlt")  # fmt: skip
    assert lab.cpu["ebx"] == 0x11111111  # stale, as it may be: nothing has dropped it


def test_invlpg_drops_user_and_supervisor_entries(lab: TlbLab) -> None:
    """Ring 3 reads the page, ring 0 changes it: ring 3's entry goes too."""
    lab.ring(3)
    lab.run(f"mov eax, [{USER}]\nint 0x80")
    lab.ring(0)
    lab.run(f"mov dword {ENTRY}, {TWO | FULL}\ninvlpg [{USER}]\nhlt")
    lab.ring(3)
    lab.run(f"mov ebx, [{USER}]\nint 0x80")
    assert lab.cpu["ebx"] == 0x22222222


def test_invlpg_obeys_the_segment_base(lab: TlbLab) -> None:
    lab.set_segment("fs", 0x10)
    lab.state.seg[4].base = 0x1000
    lab.run(f"{CHANGE}invlpg [fs:{USER - 0x1000}]\nmov ebx, [{USER}]\nhlt")
    assert lab.cpu["ebx"] == 0x22222222


@pytest.mark.parametrize("at", [0, 0x1000, 0x3FF000])
def test_invlpg_drops_all_of_a_large_page(lab: TlbLab, at: int) -> None:
    lab.put32(DIRECTORY + 4, FULL | LARGE)  # USER is machine address 0
    lab.cpu["cr4"] = CR4_PSE
    lab.run(f"mov eax, [{USER + ONE}]\nmov eax, [{USER + TWO}]\n"
            f"mov dword [{DIRECTORY + 4}], {TABLE2 | FULL}\n"
            f"mov dword [{TABLE2 + (TWO >> 12) * 4}], {ONE | FULL}\n"
            f"invlpg [{USER + at}]\nmov ebx, [{USER + TWO}]\nhlt")  # fmt: skip
    assert lab.cpu["ebx"] == 0x11111111


def test_execution_follows_invlpg(lab: TlbLab) -> None:
    """Code TLB and data TLB are two: INVLPG serves both."""
    lab.memory.write(ONE, b"\x40\xc3")
    lab.memory.write(TWO, b"\x43\xc3")
    lab.run(f"mov edx, {USER}\ncall edx\ncall edx\nmov dword {ENTRY}, {TWO | FULL}\n"
            f"invlpg [{USER}]\ncall edx\ncall edx\ncall edx\nhlt")  # fmt: skip
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (2, 3)


def test_execution_follows_cr3(lab: TlbLab) -> None:
    lab.put32(DIRECTORY2 + 4, DIRECTORY2 + 0x1000 | FULL)
    lab.put32(DIRECTORY2 + 0x1000, TWO | FULL)
    lab.memory.write(ONE, b"\x40\xc3")
    lab.memory.write(TWO, b"\x43\xc3")
    lab.run(f"mov ecx, 10\nmov edx, {USER}\nagain: call edx\nmov esi, {DIRECTORY2}\n"
            f"mov cr3, esi\ncall edx\nmov esi, {DIRECTORY}\nmov cr3, esi\n"
            "loop again\nhlt")  # fmt: skip
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (10, 10)


def test_more_cr3_loads_than_there_are_space_ids(lab: TlbLab) -> None:
    """Ids are 12 bits: after 4095 flushes an old one comes again, and must not match."""
    lab.put32(DIRECTORY2 + 4, DIRECTORY2 + 0x1000 | FULL)
    lab.put32(DIRECTORY2 + 0x1000, TWO | FULL)
    lab.run(f"""
        mov ecx, 5000
        xor ebp, ebp
    again:
        mov esi, {DIRECTORY2}
        mov cr3, esi
        cmp dword [{USER}], 0x22222222
        jne bad
        mov esi, {DIRECTORY}
        mov cr3, esi
        cmp dword [{USER}], 0x11111111
        jne bad
        loop again
        mov ebp, 1
    bad: hlt
    """, ticks=1 << 20)  # fmt: skip
    assert lab.cpu["ebp"] == 1


# -- Rights ---------------------------------------------------------------------------------------


def test_a_supervisor_entry_gives_ring_3_nothing(lab: TlbLab) -> None:
    lab.set_pte(USER, ONE | P | RW)
    lab.run(f"mov eax, [{USER}]\nmov [{USER}], eax\nhlt")
    lab.ring(3)
    outcome = lab.run(f"mov ebx, [{USER}]\nint 0x80")
    assert outcome.fault == (PF, 5)


def test_a_readers_entry_gives_no_write(lab: TlbLab) -> None:
    lab.set_pte(USER, ONE | P | US)
    lab.ring(3)
    outcome = lab.run(f"mov eax, [{USER}]\nmov eax, [{USER}]\nmov [{USER}], eax\nint 0x80")
    assert outcome.fault == (PF, 7)


def test_wp_set_takes_back_what_it_allowed(lab: TlbLab) -> None:
    lab.set_pte(USER, ONE | P | US)
    lab.cpu["cr0"] &= ~CR0_WP
    outcome = lab.run(f"mov [{USER}], eax\nmov ecx, cr0\nor ecx, {CR0_WP}\nmov cr0, ecx\n"
                      f"mov [{USER}], eax\nhlt")  # fmt: skip
    assert outcome.fault == (PF, 3)


def test_wp_clear_does_not_serve_ring_3(lab: TlbLab) -> None:
    """A write entry made by the kernel under WP=0 is not the user's."""
    lab.set_pte(USER, ONE | P | US)
    lab.cpu["cr0"] &= ~CR0_WP
    lab.run(f"mov [{USER}], eax\nhlt")
    lab.ring(3)
    assert lab.run(f"mov [{USER}], eax\nint 0x80").fault == (PF, 7)


def test_registers_set_from_outside_flush(lab: TlbLab) -> None:
    """Python may change CR3 between two runs."""
    lab.put32(DIRECTORY2 + 4, 0)
    lab.run(f"mov eax, [{USER}]\nhlt")
    lab.cpu["cr3"] = DIRECTORY2
    assert lab.run(f"mov eax, [{USER}]\nhlt").fault == (PF, 0)


# -- Accessed and dirty ---------------------------------------------------------------------------


def test_dirty_comes_with_the_first_store_after_invlpg_too(lab: TlbLab) -> None:
    lab.run(f"mov [{USER}], eax\nmov dword {ENTRY}, {ONE | FULL}\ninvlpg [{USER}]\n"
            f"mov ebx, [{USER}]\nmov ecx, {ENTRY}\nmov [{USER}], eax\n"
            f"mov edx, {ENTRY}\nhlt")  # fmt: skip
    assert lab.cpu["ecx"] == ONE | FULL | A
    assert lab.cpu["edx"] == ONE | FULL | A | D


def test_a_failed_write_after_reads_is_not_dirty(lab: TlbLab) -> None:
    lab.set_pte(USER, ONE | P | US)
    lab.run(f"mov eax, [{USER}]\nmov [{USER}], eax\nhlt")
    assert lab.pte(USER) == ONE | P | US | A


@pytest.mark.parametrize("ring", [0, 3])
def test_each_privilege_finds_dirty_by_itself(lab: TlbLab, ring: int) -> None:
    """A store at one privilege sets the bit though the other's entry is read-only still."""
    for level in (ring, 3 - ring):
        lab.ring(level)
        lab.run(f"mov eax, [{USER}]\nint 0x80")
    assert not lab.pte(USER) & D
    lab.ring(3 - ring)
    lab.run(f"mov [{USER}], eax\nint 0x80")
    assert lab.pte(USER) & D


# -- Organisation ---------------------------------------------------------------------------------


def test_pages_that_share_a_place(lab: TlbLab) -> None:
    """Three linear pages of one place, read, written and moved in turn."""
    lab.put32(DIRECTORY + 8, TABLE2 | FULL | A)
    places = [USER, USER + REACH, USER + 2 * REACH]
    lab.set_pte(USER + REACH, TWO | FULL)
    source = "mov ecx, 50\nagain:\n"
    source += "".join(f"inc dword [{place}]\n" for place in places)
    source += f"mov esi, {USER}\nmov edi, {USER + REACH + 8}\nmovsd\nloop again\nhlt"
    lab.run(source, ticks=5000)
    assert lab.get32(ONE) == 0x11111111 + 100
    assert lab.get32(TWO) == 0x22222222 + 50
    assert lab.get32(TWO + 8) == lab.get32(ONE)


def test_bulk_copy_between_pages_that_share_a_place(lab: TlbLab) -> None:
    lab.set_pte(USER + REACH, TWO | FULL)
    lab.memory.write(ONE, bytes(range(256)) * 16)
    lab.run(f"mov esi, {USER}\nmov edi, {USER + REACH}\nmov ecx, 1024\nrep movsd\nhlt", ticks=5000)
    assert lab.memory.read(TWO, 4096) == bytes(range(256)) * 16


def test_the_last_page_of_linear_space(lab: TlbLab) -> None:
    """Its tags look like the one that matches nothing."""
    lab.put32(DIRECTORY + 1023 * 4, TABLE2 | FULL)
    lab.set_pte(0xFFFFF000, ONE | FULL)
    lab.run("mov eax, [0xFFFFF000]\nmov dword [0xFFFFFFFC], 5\nmov ebx, [0xFFFFFFFC]\nhlt")
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (0x11111111, 5)
    lab.set_pte(0xFFFFF000, 0)
    lib.cpu_flush_tlb(lab.cpu.pointer)
    assert lab.run("mov eax, [0xFFFFFFFC]\nhlt").vector == PF


def test_code_loses_its_write_tag_and_gets_it_back(lab: TlbLab) -> None:
    """A page is written, executed, and written again: each store is seen by the code."""
    lab.run(f"""
        mov ecx, 30
        mov edx, {USER}
        mov word [edx], 0xC340
    again:
        call edx
        xor byte [edx], {0x40 ^ 0x43}
        loop again
        hlt
    """)
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (15, 15)


def test_a_flag_set_on_a_page_takes_effect_at_once(lab: TlbLab) -> None:
    lab.load(f"again: inc dword [{USER}]\njmp again")
    lab.go(20)
    lab.memory.set_flags(range(ONE, ONE + 0x1000), set_=PageFlag.WATCHED)
    assert lab.go(20).reason == ExitReason.WATCH
    lab.memory.set_flags(range(ONE, ONE + 0x1000), clear=PageFlag.WATCHED, set_=PageFlag.ROM)
    before = lab.get32(ONE)
    assert lab.go(20).reason == ExitReason.DEADLINE
    assert lab.get32(ONE) == before


def watched(lab: TlbLab) -> set[int]:
    record = lab.cpu.record
    return set(record.watched[0 : record.watched_count])


def test_a_store_across_watched_pages_reports_both(lab: TlbLab) -> None:
    lab.memory.set_flags(range(DATA, DATA + 0x2000), set_=PageFlag.WATCHED)
    lab.load(f"mov [{DATA + 0xFFE}], eax\nhlt")
    assert lab.go(20).reason == ExitReason.WATCH
    assert watched(lab) == {DATA >> 12, (DATA >> 12) + 1}


@pytest.mark.parametrize("stack_too", [False, True])
def test_a_step_reports_a_watched_store_with_its_trap(lab: TlbLab, stack_too: bool) -> None:
    """The store is what the next step reported, or nobody, if the trap's frame was watched too."""
    lab.load(f"mov [{DATA}], eax\nhlt")
    lab.state.eflags |= 0x100
    stack = lab.state.gpr[4] - 4 & ~0xFFF
    pages = {DATA, stack} if stack_too else {DATA}
    for page in pages:
        lab.memory.set_flags(range(page, page + 0x1000), set_=PageFlag.WATCHED)
    assert lab.cpu.step() == ExitReason.WATCH
    assert watched(lab) == {page >> 12 for page in pages}
    assert lab.cpu.step() != ExitReason.WATCH


def test_cycles_do_not_tell_which_blocks_are_cached(lab: TlbLab) -> None:
    """A walk is charged where a processor's TLB misses; dropping blocks and write tags is free."""

    def cycles(flush: bool) -> int:
        lab = TlbLab()
        lab.memory.write(DATA, b"\x40\xc3")
        lab.load(f"mov ecx, 9\nagain: call {DATA}\nmov [{DATA + 0x800}], ecx\nloop again\nhlt")
        while lab.cpu.run(lab.state.tick + 1) == ExitReason.DEADLINE:
            if flush:
                lib.machine_flush_blocks(lab.memory.machine)
        return int(lab.state.cycle)

    assert cycles(False) == cycles(True)
    lab.memory.write(CODE, b"\xf4")


CALL_AND_STORE = {
    "a page with code": f"mov edx, {USER}\ncall edx\n",
    "a page without": "nop\n" * 4,
}


@pytest.mark.parametrize("name", CALL_AND_STORE)
def test_a_stale_page_stays_whether_it_holds_code_or_not(lab: TlbLab, name: str) -> None:
    """Decoded blocks withhold the write tag, but what has been walked is not walked again."""
    lab.memory.write(ONE, b"\xc3")
    lab.run(f"""
        mov [{USER + 0x800}], eax
        {CALL_AND_STORE[name]}
        mov dword {ENTRY}, 0
        mov dword [{USER + 0x800}], 0x33333333
        add dword [{USER + 0x800}], 1
        hlt
    """)
    assert lab.get32(ONE + 0x800) == 0x33333334


@pytest.mark.parametrize("flag", [PageFlag.WATCHED, PageFlag.DIRTY_LOG, PageFlag.ROM])
def test_flags_of_a_page_do_not_unmap_it(lab: TlbLab, flag: PageFlag) -> None:
    """The same for the flags that a machine sets: an observer must not change what he observes."""
    lab.memory.set_flags(range(ONE, ONE + 0x1000), set_=flag)
    lab.load(f"mov [{USER}], eax\nmov dword {ENTRY}, 0\nmov [{USER}], eax\nmov ebx, 1\nhlt")
    while (outcome := lab.go()).reason == ExitReason.WATCH:
        continue
    assert (outcome.reason, lab.cpu["ebx"]) == (ExitReason.HALT, 1)


def test_a_device_stays_mapped_too(lab: TlbLab) -> None:
    lab.memory.set_flags(range(ONE, ONE + 0x1000), set_=PageFlag.MMIO)
    lab.load(f"mov [{USER}], eax\nmov dword {ENTRY}, {TWO | FULL}\nmov [{USER}], eax\nhlt")
    assert [lab.go().reason for _ in range(3)] == [
        ExitReason.MMIO_WRITE, ExitReason.MMIO_WRITE, ExitReason.HALT,
    ]  # fmt: skip


def test_a_snapshot_keeps_the_right_to_write(lab: TlbLab) -> None:
    """Saved while a block in the page withholds the tag; the table has changed since."""
    lab.memory.write(ONE, b"\xc3")
    lab.load(f"mov [{USER + 0x800}], eax\nmov edx, {USER}\ncall edx\nmov dword {ENTRY}, 0\n"
             f"mov dword [{USER + 0x800}], 7\nhlt")  # fmt: skip
    lab.go(5)
    saved = lab.cpu.save()
    lab.cpu.reset()
    lab.cpu.load(saved)
    assert lab.go().reason == ExitReason.HALT
    assert lab.get32(ONE + 0x800) == 7


def test_a_fault_drops_the_translation(lab: TlbLab) -> None:
    """SDM vol. 3, 4.10.4.1: so a handler that maps another page needs no INVLPG."""
    lab.set_pte(USER, ONE | FULL & ~2)
    lab.load(f"mov eax, [{USER}]\nmov [{USER}], eax\nhlt")
    assert lab.go().reason == ExitReason.HALT  # in the handler of #PF
    lab.set_pte(USER, TWO | FULL)
    assert lab.cpu.walk(USER, 0).machine == TWO
    lab.load(f"mov eax, [{USER}]\nhlt")
    lab.go()
    assert lab.cpu["eax"] == 0x22222222


def test_random_tables_and_accesses() -> None:
    """Entries changed with INVLPG after each, random pages accessed: as with no TLB to speak of."""
    from tests.core.world import ALIAS, HIGH_TABLE

    world = World()
    for seed in range(25):
        rng = Random(seed)
        code = b""
        for _ in range(30):
            page = (WORLD_DATA >> 12) + rng.randrange(4)
            linear = ALIAS + (page << 12) + rng.randrange(0x400) * 4
            if rng.randrange(3):
                code += rng.choice((b"\x8b\x05", b"\x01\x05", b"\x89\x1d")) + struct.pack(
                    "<I", linear
                )
            else:
                entry = (WORLD_DATA + 0x1000 * rng.randrange(4)) | rng.choice((7, 3, 5, 0, 0x67))
                code += b"\xc7\x05" + struct.pack("<II", HIGH_TABLE + page * 4, entry)
                code += b"\x0f\x01\x3d" + struct.pack("<I", linear)
        setup = Setup(code + b"\xf4", (0,) * 4 + (WORLD_DATA + 0x5000,) + (0,) * 3,
                      ((WORLD_DATA, rng.randbytes(0x4000)),), paging=True, cr0=CR0_WP)  # fmt: skip
        whole = world.run(setup, 2000, WHOLE)
        assert not whole.differences(world.run(setup, 2000, SINGLE)), seed
