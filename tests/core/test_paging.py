"""Paging: walks, rights, accessed and dirty bits, 4 MiB pages, and what the TLB may keep."""

from __future__ import annotations

import pytest

from emulator.core import ExitReason, PageFlag, lib
from tests.core.lab import (
    CODE,
    DATA,
    GP,
    PF,
    Lab,
)

DIRECTORY, TABLE, TABLE2 = 0x300000, 0x301000, 0x302000
P, RW, US, A, D, LARGE = 1, 2, 4, 32, 64, 128
CR0_WP, CR0_PG = 0x10000, 0x80000000
CR4_PSE = 16
USER = 0x400000  #: linear pages for tests, through TABLE2
FRAME = 0x210000  #: the frame behind USER


class PagedLab(Lab):
    """Identity pages for 4 MiB (present, writable, user), accessed bits set; USER unmapped."""

    def __init__(self) -> None:
        super().__init__()
        self.put32(DIRECTORY, TABLE | P | RW | US | A, TABLE2 | P | RW | US | A)
        for page in range(1024):
            self.put32(TABLE + page * 4, page << 12 | P | RW | US | A | D)
        self.cpu["cr3"] = DIRECTORY
        self.cpu["cr0"] |= CR0_PG | CR0_WP

    def map(self, linear: int, frame: int, rights: int) -> None:
        self.put32(TABLE2 + (linear >> 12 & 1023) * 4, frame | rights)
        lib.cpu_flush_tlb(self.cpu.pointer)

    def pte(self, linear: int) -> int:
        return self.get32(TABLE2 + (linear >> 12 & 1023) * 4)

    def pde(self, linear: int) -> int:
        return self.get32(DIRECTORY + (linear >> 22) * 4)

    def set_pde(self, linear: int, value: int) -> None:
        self.put32(DIRECTORY + (linear >> 22) * 4, value)
        lib.cpu_flush_tlb(self.cpu.pointer)


@pytest.fixture
def lab() -> PagedLab:
    return PagedLab()


READ, WRITE = "mov eax, [USER+0x123]", "mov [USER+0x123], eax"
EXECUTE = "jmp USER+0x123"


def attempt(lab: Lab, source: str, ring: int) -> int | None:
    """The #PF error code of an access from a ring, or None if it went through."""
    lab.ring(ring)
    outcome = lab.run(f"USER equ {USER}\n{source}\nint 0x80")
    if outcome.vector == 0x80:
        return None
    assert outcome.vector == PF
    assert lab.cpu["cr2"] == USER + 0x123
    assert outcome.frame is not None
    return outcome.frame.error


RIGHTS = [
    # PDE, PTE rights, access, ring, WP, error or None
    (P | RW | US, P | RW | US, WRITE, 3, 1, None),
    (P | RW | US, P | US, READ, 3, 1, None),
    (P | RW | US, P | US, WRITE, 3, 1, 7),
    (P | US, P | RW | US, WRITE, 3, 1, 7),
    (P | RW | US, P | RW, READ, 3, 1, 5),
    (P | RW, P | RW | US, READ, 3, 1, 5),
    (P | RW, P | RW | US, WRITE, 3, 0, 7),
    (P | RW | US, 0, READ, 3, 1, 4),
    (P | RW | US, 0, WRITE, 3, 1, 6),
    (0, P | RW | US, WRITE, 3, 1, 6),
    (P | RW, P | RW, WRITE, 0, 1, None),
    (P | RW, P, READ, 0, 1, None),
    (P | RW, P, WRITE, 0, 1, 3),
    (P, P | RW, WRITE, 0, 1, 3),
    (P | RW, P, WRITE, 0, 0, None),
    (P, P, WRITE, 2, 0, None),
    (P | RW, P, WRITE, 1, 1, 3),
    (P | RW, 0, READ, 0, 1, 0),
    (P | RW, 0, WRITE, 0, 0, 2),
    (P | RW, P | RW, READ, 2, 1, None),
    (P | RW | US, P | US, WRITE, 0, 0, None),
    (P | RW | US, 0, EXECUTE, 0, 1, 0),
    (P | RW | US, P | RW, EXECUTE, 3, 1, 5),  # no I/D bit: there is no NX
]


@pytest.mark.parametrize(("pde", "pte", "source", "ring", "wp", "expected"), RIGHTS)
def test_rights(
    lab: PagedLab, pde: int, pte: int, source: str, ring: int, wp: int, expected: int | None
) -> None:
    if not wp:
        lab.cpu["cr0"] &= ~CR0_WP
    lab.set_pde(USER, TABLE2 | pde)
    lab.map(USER, FRAME, pte)
    assert attempt(lab, source, ring) == expected
    if expected is not None:
        assert lab.pte(USER) == FRAME | pte  # a fault leaves no trace
        assert lab.pde(USER) == TABLE2 | pde
    else:
        assert lab.pte(USER) == FRAME | pte | A | (D if source == WRITE else 0)
        assert lab.pde(USER) == TABLE2 | pde | A


def test_all_kinds_of_access_check_rights(lab: PagedLab) -> None:
    """Read-modify-write needs the write; a descriptor's accessed bit and a push do as well."""
    lab.map(USER, FRAME, P | US)
    assert attempt(lab, "add [USER+0x123], eax", 0) == 3
    assert attempt(lab, "xchg [USER+0x123], eax", 0) == 3
    assert attempt(lab, "cmp [USER+0x123], eax", 0) is None
    lab.cpu["esp"] = USER + 0x127
    assert attempt(lab, "push eax", 3) == 7
    assert attempt(lab, "lea edi, [USER+0x123]\nstosd", 3) == 7
    assert attempt(lab, "lea esi, [USER+0x123]\nlodsd", 3) is None


def test_dirty_bit_is_set_by_the_first_write_only(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | RW | US)
    assert attempt(lab, READ, 3) is None
    assert lab.pte(USER) == FRAME | P | RW | US | A
    assert attempt(lab, f"{READ}\n{WRITE}", 3) is None
    assert lab.pte(USER) == FRAME | P | RW | US | A | D


def test_a_write_through_the_tlb_after_a_read_sets_dirty(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | RW | US)
    source = f"{READ}\n{READ}\nmov byte [USER+0xFFF], 1"
    assert attempt(lab, source, 3) is None
    assert lab.pte(USER) & D


def test_reads_of_a_dirty_page_allow_writes(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | RW | US | A | D)
    misses = lib.machine_stats(lab.memory.machine).tlb_misses
    assert attempt(lab, "mov ecx, 100\n.again: add [USER+0x123], ecx\nloop .again", 3) is None
    assert lib.machine_stats(lab.memory.machine).tlb_misses - misses < 12


def test_access_across_pages(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | RW | US)
    lab.map(USER + 0x1000, FRAME + 0x5000, P | RW | US)
    lab.memory.write(FRAME + 0xFFE, b"\x11\x22")
    lab.memory.write(FRAME + 0x5000, b"\x33\x44")
    lab.run(f"mov eax, [{USER + 0xFFE}]\nmov dword [{USER + 0xFFD}], 0xAABBCCDD\nhlt")
    assert lab.cpu["eax"] == 0x44332211
    assert lab.memory.read(FRAME + 0xFFD, 3) == b"\xdd\xcc\xbb"
    assert lab.memory.read(FRAME + 0x5000, 2) == b"\xaa\x44"


@pytest.mark.parametrize("source", ["mov [edi], eax", "add [edi], eax", "xchg [edi], eax"])
def test_fault_on_the_second_page_leaves_the_first_untouched(lab: PagedLab, source: str) -> None:
    lab.map(USER, FRAME, P | RW | US)
    lab.map(USER + 0x1000, FRAME + 0x1000, P | US)
    lab.memory.write(FRAME + 0xFFE, b"\x55\x55")
    outcome = lab.run(f"mov edi, {USER + 0xFFE}\n{source}")
    assert outcome.fault == (PF, 3)
    assert lab.cpu["cr2"] == USER + 0x1000
    assert lab.memory.read(FRAME + 0xFFE, 2) == b"\x55\x55"


def test_code_across_pages(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | US)
    lab.memory.write(FRAME + 0xFFD, b"\x90\xb8\x78")  # mov eax, 0x12345678 across the end
    lab.memory.write(FRAME + 0x5000, b"\x56\x34\x12\xf4")
    outcome = lab.run(f"jmp {USER + 0xFFD}")
    assert outcome.fault == (PF, 0)
    assert outcome.frame is not None
    assert outcome.frame.eip == USER + 0xFFE  # the NOP has retired
    assert lab.cpu["cr2"] == USER + 0x1000
    lab.map(USER + 0x1000, FRAME + 0x5000, P | US)
    assert lab.run(f"jmp {USER + 0xFFD}").reason == ExitReason.HALT
    assert lab.cpu["eax"] == 0x12345678
    lab.map(USER + 0x1000, FRAME + 0x6000, P | US)  # the same EIP is now other code
    lab.memory.write(FRAME + 0x6000, b"\x00\x00\x00\xf4")
    assert lab.run(f"jmp {USER + 0xFFD}").reason == ExitReason.HALT
    assert lab.cpu["eax"] == 0x78
    lab.map(USER + 0x1000, 0, 0)  # and now half of it is gone: the fault is the page's first byte's
    assert lab.run(f"jmp {USER + 0xFFE}").fault == (PF, 0)
    assert lab.cpu["cr2"] == USER + 0x1000


# -- 4 MiB pages ----------------------------------------------------------------------------------


def test_large_page(lab: PagedLab) -> None:
    lab.cpu["cr4"] = CR4_PSE
    lab.set_pde(0x800000, P | RW | US | LARGE)
    lab.put32(DATA + 0x10, 0xFEEDFACE)
    lab.run(f"mov eax, [{0x800000 + DATA + 0x10}]\nhlt")
    assert lab.cpu["eax"] == 0xFEEDFACE
    assert lab.pde(0x800000) == P | RW | US | LARGE | A
    lab.run(f"mov [{0x800000 + DATA + 0x14}], eax\nhlt")
    assert lab.get32(DATA + 0x14) == 0xFEEDFACE
    assert lab.pde(0x800000) == P | RW | US | LARGE | A | D


def test_without_pse_the_bit_means_nothing(lab: PagedLab) -> None:
    lab.set_pde(USER, TABLE2 | P | RW | US | LARGE)
    lab.map(USER, FRAME, P | RW | US)
    assert attempt(lab, READ, 3) is None


@pytest.mark.parametrize("bit", range(12, 22))
def test_reserved_bits_of_a_large_page(lab: PagedLab, bit: int) -> None:
    lab.set_pde(USER, 1 << bit | P | RW | US | LARGE)
    lab.cpu["cr4"] = CR4_PSE
    assert attempt(lab, READ, 3) == 0b1101
    assert attempt(lab, WRITE, 0) == 0b1011
    assert lab.pde(USER) == 1 << bit | P | RW | US | LARGE


def test_reserved_bit_of_a_small_page(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | RW | US | LARGE)  # the PAT bit
    assert attempt(lab, READ, 3) is None
    lab.cpu["cr4"] = CR4_PSE
    lib.cpu_flush_tlb(lab.cpu.pointer)
    assert attempt(lab, READ, 3) == 0b1101


def test_rights_of_a_large_page(lab: PagedLab) -> None:
    lab.cpu["cr4"] = CR4_PSE
    lab.set_pde(USER, P | US | LARGE)
    assert attempt(lab, READ, 3) is None
    assert attempt(lab, WRITE, 3) == 7
    lab.set_pde(USER, P | RW | LARGE)
    assert attempt(lab, READ, 3) == 5


# -- The TLB --------------------------------------------------------------------------------------

CHANGE = f"mov dword [{TABLE2}], {FRAME + 0x1000 | P | RW | US}\n"


@pytest.fixture
def warm(lab: PagedLab) -> PagedLab:
    """Two frames with different contents; USER maps the first."""
    lab.map(USER, FRAME, P | RW | US)
    lab.put32(FRAME, 1)
    lab.put32(FRAME + 0x1000, 2)
    return lab


@pytest.mark.parametrize(
    ("flush", "seen"),
    [
        ("", 1),  # a stale entry stays, as it may
        (f"invlpg [{USER}]", 2),
        (f"invlpg [{USER + 0xFFF}]", 2),
        (f"invlpg [{USER + 0x1000}]", 1),
        ("mov ecx, cr3\nmov cr3, ecx", 2),
        (f"mov ecx, cr0\nxor ecx, {CR0_WP}\nmov cr0, ecx", 2),
        ("mov ecx, cr0\nxor ecx, 8\nmov cr0, ecx", 1),
        (f"mov ecx, {CR4_PSE}\nmov cr4, ecx", 2),
    ],
)
def test_what_flushes_the_tlb(warm: PagedLab, flush: str, seen: int) -> None:
    assert warm.run(f"mov eax, [{USER}]\n{CHANGE}{flush}\nmov ebx, [{USER}]\nhlt").vector is None
    assert (warm.cpu["eax"], warm.cpu["ebx"]) == (1, seen)


def test_supervisor_and_user_entries_are_apart(warm: PagedLab) -> None:
    warm.map(USER, FRAME, P | RW)
    warm.ring(0)
    assert warm.run(f"mov eax, [{USER}]\nint 0x80").vector == 0x80
    assert attempt(warm, READ, 3) == 5


def test_invlpg_drops_all_of_a_large_page(lab: PagedLab) -> None:
    lab.cpu["cr4"] = CR4_PSE
    lab.set_pde(0x800000, P | RW | US | LARGE)
    lab.put32(TABLE2, FRAME | P | RW | US)
    lab.put32(TABLE2 + 4, (FRAME + 0x1000) | P | RW | US)
    lab.put32(0x1000 - 4, 0xAAAAAAAA)
    lab.put32(FRAME + 0xFFC, 0xBBBBBBBB)
    # Two pages of it are cached; then it is split, and one INVLPG names a third place.
    lab.run(
        f"""
        mov eax, [{0x800000 + 0xFFC}]
        mov ebx, [{0x800000 + 0x1FFC}]
        mov dword [{DIRECTORY + 8}], {TABLE2 | P | RW | US}
        invlpg [{0x800000 + 0x300000}]
        mov eax, [{0x800000 + 0xFFC}]
        hlt
        """
    )
    assert lab.cpu["eax"] == 0xBBBBBBBB


def test_address_spaces_run_out_safely(warm: PagedLab) -> None:
    """2048 flushes use every id; entries of the first round must not come back to life."""
    assert attempt(warm, READ, 0) is None
    first = warm.state.space
    warm.load(f"mov eax, [{USER}]\nhlt")
    warm.go()
    warm.put32(TABLE2, FRAME + 0x1000 | P | RW | US)
    seen = set()
    while True:
        lib.cpu_flush_tlb(warm.cpu.pointer)
        seen.add(warm.state.space)
        if warm.state.space == first and len(seen) > 1:
            break
    assert seen == set(range(0x7FF))
    warm.cpu["eip"] = CODE
    warm.go()
    assert warm.cpu["eax"] == 2


def test_the_last_page_is_reachable_under_every_id(lab: PagedLab) -> None:
    """Its tag must never be the one that matches nothing."""
    lab.put32(DIRECTORY + 1023 * 4, TABLE2 | P | RW | US)
    lab.put32(TABLE2 + 1023 * 4, FRAME | P | RW | US)
    lab.put32(FRAME + 0xFF8, 0x12345678)
    for _ in range(0x7FF):
        lib.cpu_flush_tlb(lab.cpu.pointer)
        assert lab.state.space < 0x7FF
    lab.run("mov eax, [0xFFFFFFF8]\nhlt")
    assert lab.cpu["eax"] == 0x12345678


def test_a_self_map_sets_accessed_and_dirty(lab: PagedLab) -> None:
    lab.put32(DIRECTORY + 1023 * 4, DIRECTORY | P | RW)
    lab.run("mov eax, [0xFFFFF000]\nmov dword [0xFFFFF010], 0\nhlt")
    assert lab.get32(DIRECTORY + 1023 * 4) == DIRECTORY | P | RW | A | D
    assert lab.cpu["eax"] == lab.get32(DIRECTORY)


def test_page_tables_outside_memory(lab: PagedLab) -> None:
    lab.set_pde(USER, 0xF0000000 | P | RW | US)  # reads all ones: present, frame 0xFFFFF000
    assert attempt(lab, READ, 3) is None
    assert lab.cpu["eax"] == 0xFFFFFFFF


def test_turning_paging_on_and_off(lab: PagedLab) -> None:
    lab.cpu["cr0"] &= ~(CR0_PG | CR0_WP)
    lab.map(USER, FRAME, P | RW | US)
    lab.put32(FRAME, 0x77)
    lab.run(
        f"""
        mov ebx, [{USER}]
        mov eax, cr0
        or eax, {CR0_PG}
        mov cr0, eax
        mov ecx, [{USER}]
        and eax, {~CR0_PG & 0xFFFFFFFF}
        mov cr0, eax
        mov edx, [{USER}]
        hlt
        """
    )
    assert lab.cpu["ecx"] == 0x77
    assert (lab.cpu["ebx"], lab.cpu["edx"]) == (0xFFFFFFFF, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("register", "value", "allowed"),
    [
        ("cr0", 0x80000010, False),  # PG without PE
        ("cr0", 0x20000011, False),  # NW without CD
        ("cr0", 0x60000011, True),
        ("cr4", 0x20, False),  # PAE
        ("cr4", 0x80, False),  # PGE
        ("cr4", 0x1, False),  # VME
        ("cr4", 0x800, False),  # UMIP
        ("cr4", 0x1C, True),
    ],
)
def test_control_register_values(register: str, value: int, allowed: bool) -> None:
    lab = Lab()
    before = lab.cpu[register]
    outcome = lab.run(f"mov eax, {value}\nmov {register}, eax\nhlt")
    assert outcome.fault == (None if allowed else (GP, 0))
    assert lab.cpu[register] == (value if allowed else before)


def test_cr0_keeps_no_reserved_bits_and_always_et() -> None:
    lab = Lab()
    lab.run("mov eax, 0x1FFAFFC1\nmov cr0, eax\nmov ebx, cr0\nhlt")
    assert lab.cpu["ebx"] == 0x00000011
    lab.run("mov ax, 0xFFFE\nlmsw ax\nsmsw ebx\nclts\nsmsw ecx\nhlt")
    assert lab.cpu["ebx"] == 0x1F
    assert lab.cpu["ecx"] == 0x17


def test_clearing_pe_is_unsupported() -> None:
    lab = Lab()
    assert lab.run("xor eax, eax\nmov cr0, eax").reason == ExitReason.UNSUPPORTED
    assert lab.cpu["eip"] == CODE + 2
    assert lab.run("xor eax, eax\nlmsw ax\nhlt").reason == ExitReason.HALT  # LMSW cannot
    assert lab.cpu["cr0"] & 1


def test_control_register_intercepts() -> None:
    lab = Lab()
    lab.state.intercepts.cr_reads = 1 << 2
    lab.state.intercepts.cr_writes = 1 << 3
    assert lab.run("mov eax, cr0\nmov ebx, cr2").reason == ExitReason.INTERCEPT
    assert (lab.cpu.exit.operand, lab.cpu.exit.value, lab.cpu.exit.length) == (2, 3, 3)
    assert lab.cpu["eip"] == CODE + 3
    assert lab.run("mov eax, 0x5000\nmov cr2, eax\nmov cr3, eax").reason == ExitReason.INTERCEPT
    assert (lab.cpu.exit.operand, lab.cpu.exit.value) == (3, 0x5000)
    assert lab.cpu["cr3"] == 0


# -- Machine pages with flags ---------------------------------------------------------------------


def test_a_page_table_that_is_code_or_logged_is_still_written(lab: PagedLab) -> None:
    lab.memory.set_flags(range(TABLE2, TABLE2 + 0x1000), set_=PageFlag.DIRTY_LOG)
    lab.map(USER, FRAME, P | RW | US)
    lib.machine_dirty(lab.memory.machine)
    assert attempt(lab, WRITE, 3) is None
    assert lab.pte(USER) & (A | D) == A | D
    assert lib.machine_dirty(lab.memory.machine)[TABLE2 >> 12] == 1


def test_device_pages_are_never_cached(lab: PagedLab) -> None:
    lab.map(USER, FRAME, P | RW | US)
    lab.put32(FRAME, 0x1234)
    lab.run(f"mov eax, [{USER}]\nhlt")
    lab.memory.set_flags(range(FRAME, FRAME + 0x1000), set_=PageFlag.MMIO)
    assert lab.run(f"mov eax, [{USER}]\nhlt").reason == ExitReason.MMIO_READ
    assert (lab.cpu.exit.address, lab.cpu.exit.linear, lab.cpu.exit.size) == (FRAME, USER, 4)
    lab.cpu.complete(0xABCD)
    assert lab.go().reason == ExitReason.HALT
    assert lab.cpu["eax"] == 0xABCD


def test_cost_of_a_walk(lab: PagedLab) -> None:
    """The second access is cheaper than the first by the two steps of its walk."""
    from isa.cost import EVENT_CYCLES

    lab.map(USER, FRAME, P | RW | US)
    lab.load(f"mov eax, [{USER}]\nmov eax, [{USER}]\nhlt")
    cycles = []
    for _ in range(2):
        lab.cpu.run(lab.state.tick + 1)
        cycles.append(lab.state.cycle)
    assert cycles[0] - (cycles[1] - cycles[0]) == 4 * EVENT_CYCLES["walk_step"]  # code and data
