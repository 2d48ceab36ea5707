"""Segments that are flat but for their end: as fast as flat ones, and faults at the byte after it.

Such segments let accesses by unchecked; what lies past their end is told by the TLB (csrc/cut.c).
So each kind of access is tried around the end, with the page after it mapped and in the TLB. Then
random programs run twice, the second time with data segments that the core takes for unusual ones
and checks each time: they lack the present bit, which nothing looks at once they are loaded.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from emulator.core import ffi, lib
from tests.core import samples
from tests.core.lab import (
    CODE,
    CODE_OF,
    DATA_OF,
    GP,
    PF,
    READABLE,
    SS,
    STACK,
    WRITABLE,
    Lab,
    descriptor,
    dpl,
)
from tests.core.lab import DATA as LAB_DATA
from tests.core.world import (
    CODE as WORLD_CODE,
)
from tests.core.world import (
    DATA,
    DEVICE,
    DIRECTORY,
    GDT,
    SINGLE,
    WHOLE,
    Setup,
    Trail,
    World,
    ragged,
)

CUT = 0xFFC00000  #: the first byte past the end of the cut segments
FULL = 0x70  #: selector of a data segment without an end
DIRECTORY_AT, LOW, BELOW, ABOVE = 0x300000, 0x301000, 0x302000, 0x303000
FRAME, FRAME2 = 0x210000, 0x211000  #: of the last page below the cut, and the first above
ALL = 0x67  #: present, writable, user, accessed and dirty


class CutLab(Lab):
    """Paging on, the pages around CUT mapped, data and code segments of all rings cut there."""

    def __init__(self, limit: int = CUT - 1) -> None:
        super().__init__()
        self.put32(DIRECTORY_AT, LOW | ALL)
        self.put32(DIRECTORY_AT + (CUT - 1 >> 22) * 4, BELOW | ALL)
        self.put32(DIRECTORY_AT + (CUT >> 22) * 4, ABOVE | ALL)
        self.put32(LOW, *(page << 12 | ALL for page in range(1024)))
        self.put32(BELOW + 1023 * 4, FRAME | ALL)
        self.put32(ABOVE, FRAME2 | ALL, FRAME2 | ALL)
        self.cpu["cr3"] = DIRECTORY_AT
        self.cpu["cr0"] |= 0x80000000
        for level in range(4):
            self.set_gdt(CODE_OF[level], descriptor(0, limit, dpl(READABLE, level)))
            self.set_gdt(DATA_OF[level], descriptor(0, limit, dpl(WRITABLE, level)))
        self.set_gdt(FULL, descriptor(access=dpl(WRITABLE, 3)))
        self.ring(0)
        self.set_segment("gs", FULL | 3)

    def touch(self, level: int = 0) -> None:
        """Both pages around the cut get into the TLB of a privilege level, for reads and writes."""
        self.ring(level)
        self.set_segment("gs", FULL | 3)
        source = f"lock add dword [gs:{CUT - 4}], 0\nlock add dword [gs:{CUT}], 0\nint 0x80"
        assert self.run(source).vector == 0x80
        self.ring(level)
        self.set_segment("gs", FULL | 3)
        self.cpu["esp"] = STACK


# -- Each kind of access ---------------------------------------------------------------------------

#: Source, size and vector of an access at EBX; what needs another register sets it itself.
ACCESSES = [
    ("mov al, [ebx]", 1, GP), ("mov ax, [ebx]", 2, GP), ("mov eax, [ebx]", 4, GP),
    ("mov [ebx], al", 1, GP), ("mov [ebx], ax", 2, GP), ("mov [ebx], eax", 4, GP),
    ("mov eax, [ebx+ecx*4]", 4, GP), ("mov [ecx*4+ebx], eax", 4, GP),
    ("mov eax, [es:ebx]", 4, GP), ("mov eax, [ss:ebx]", 4, SS), ("mov [ss:ebx], al", 1, SS),
    ("mov ebp, ebx\nmov eax, [ebp]", 4, SS), ("mov ebp, ebx\nadd [ebp], eax", 4, SS),
    ("mov eax, [cs:ebx]", 4, GP), ("mov eax, [ebx]\ncmp eax, 1", 4, GP),
    ("cmp dword [ebx], 5\nje near $+6", 4, GP), ("add [ebx], eax", 4, GP),
    ("inc word [ebx]", 2, GP),
    ("xchg [ebx], eax", 4, GP), ("xadd [ebx], eax", 4, GP), ("cmpxchg [ebx], ecx", 4, GP),
    ("cmpxchg8b [ebx]", 8, GP), ("bts dword [ebx], 3", 4, GP), ("sgdt [ebx]", 6, GP),
    ("shl dword [ebx], 1", 4, GP), ("setz [ebx]", 1, GP), ("push dword [ebx]", 4, GP),
    ("pop dword [ebx]", 4, GP), ("bound ecx, [ebx]", 8, GP), ("xlatb", 1, GP),
    ("lodsb", 1, GP), ("lodsd", 4, GP), ("stosw", 2, GP), ("stosd", 4, GP), ("movsd", 4, GP),
    ("cmpsd", 4, GP), ("scasw", 2, GP), ("mov ecx, 1\nrep movsd", 4, GP),
    ("mov ecx, 1\nrep stosd", 4, GP), ("mov edi, DATA\nmovsd", 4, GP),
    ("mov esi, DATA\nmovsd", 4, GP), ("std\nmovsd", 4, GP),
    ("lea esp, [ebx+4]\npush eax", 4, SS), ("mov esp, ebx\npop eax", 4, SS),
    ("lea esp, [ebx+2]\npush ax", 2, SS), ("mov esp, ebx\npopfd", 4, SS),
    ("lea esp, [ebx+4]\npushfd", 4, SS), ("lea esp, [ebx+4]\npush dword [DATA]", 4, SS),
    ("lea esp, [ebx+32]\npushad", 32, SS), ("mov esp, ebx\npopad", 32, SS),
    ("mov ebp, ebx\nleave", 4, SS), ("lea esp, [ebx+4]\nenter 0, 0", 4, SS),
    ("mov ebp, DATA + 64\nlea esp, [ebx+12]\nenter 0, 2", 12, SS),
    ("mov esp, ebx\npop dword [DATA]", 4, SS),
    ("lea esp, [ebx+4]\ncall near $+5", 4, SS), ("lea esp, [ebx+4]\nmov eax, $+7\ncall eax", 4, SS),
    ("lea esp, [ebx+4]\npush ds", 4, SS),
]  # fmt: skip


def prepare(lab: CutLab, source: str, at: int) -> None:
    lab.load(f"{source}\nint 0x80")
    for name in ("ebx", "esi", "edi"):
        lab.cpu[name] = at
    lab.cpu["eax"] = lab.cpu["ecx"] = 0


@pytest.mark.parametrize("ring", [1, 3])
@pytest.mark.parametrize(("source", "size", "vector"), ACCESSES)
def test_an_access_around_the_end(source: str, size: int, vector: int, ring: int) -> None:
    for warm in (True, False):
        for first in (CUT - size - 1, CUT - size, CUT - size + 1, CUT - 1, CUT, CUT + 0x100):
            lab = CutLab()
            if warm:
                lab.touch(ring)
            lab.ring(ring)
            prepare(lab, source, first)
            outcome = lab.go()
            name = f"{source!r} at {first:x}, warm: {warm}: {outcome}"
            if first + size <= CUT:
                assert outcome.vector == 0x80, name
            else:
                assert outcome.fault == (vector, 0), name


def test_a_full_segment_reaches_past_the_end() -> None:
    lab = CutLab()
    outcome = lab.run(f"""
        mov dword [gs:{CUT}], 0x11223344
        mov eax, [gs:{CUT}]
        add [gs:{CUT}], eax
        push dword [gs:{CUT}]
        pop ecx
        mov dx, [gs:{CUT - 1}]
        mov [gs:{CUT - 2}], eax
        inc byte [gs:{CUT + 0xFFF}]
        int 0x80
    """)
    assert outcome.vector == 0x80
    assert (lab.cpu["eax"], lab.cpu["ecx"]) == (0x11223344, 0x22446688)
    assert lab.cpu["edx"] & 0xFFFF == 0x8800
    assert (lab.get32(FRAME2) & 0xFFFF, lab.get32(FRAME + 0xFFE) & 0xFFFF) == (0x1122, 0x3344)
    assert lab.get32(FRAME2 + 0xFFC) == 1 << 24


def test_a_page_fault_comes_after_the_limit() -> None:
    lab = CutLab()
    lab.put32(ABOVE, 0)
    lab.cpu["esi"] = lab.cpu["edi"] = CUT
    assert lab.run("mov ecx, 9\nrep stosd").fault == (GP, 0)
    lab = CutLab()
    lab.put32(ABOVE, 0)
    assert lab.run(f"mov eax, [gs:{CUT}]").fault == (PF, 0)
    assert lab.cpu["cr2"] == CUT


@pytest.mark.parametrize("operation", ["rep stosd", "rep movsd", "rep lodsd", "rep stosb"])
def test_a_repeat_stops_at_the_end(operation: str) -> None:
    size = 1 if operation.endswith("b") else 4
    lab = CutLab()
    lab.touch()
    lab.load(f"mov ecx, 100\n{operation}")
    lab.cpu["esi"] = lab.cpu["edi"] = CUT - 10 * size
    outcome = lab.go()
    assert outcome.fault == (GP, 0)
    assert lab.cpu["ecx"] == 90
    assert CUT in (lab.cpu["esi"], lab.cpu["edi"])


def test_a_system_access_knows_no_limit() -> None:
    lab = CutLab()
    lab.touch()
    lab.memory.write(FRAME2, lab.memory.read(0x1000, 0x80))  # the GDT once more
    lab.state.gdtr.base = CUT
    outcome = lab.run(f"mov eax, {DATA_OF[0]}\nmov ds, ax\nmov fs, ax\nint 0x80")
    assert outcome.vector == 0x80


def test_ends_of_both_kinds_move_both_ways() -> None:
    """One segment that reaches less than the others, and then none."""
    lab = CutLab(0xFFFFFFFF)
    lab.set_gdt(DATA_OF[1], descriptor(0, CUT - 1, dpl(WRITABLE, 0)))
    warm = f"mov eax, [{CUT}]\nmov [{CUT}], eax\n"
    cut = f"mov ecx, {DATA_OF[1]}\nmov es, cx\n"
    outcome = lab.run(f"{warm}{cut}mov edx, [{CUT}]\nmov eax, [es:{CUT}]\nhlt")
    assert outcome.fault == (GP, 0)
    lab.ring(0)
    lab.cpu["esp"] = STACK
    assert lab.run(f"{warm}mov eax, [es:{CUT}]\nint 0x80").vector == 0x80
    assert lab.run(f"{warm}{cut}mov eax, [{CUT}]\nmov edi, {CUT}\nstosd").fault == (GP, 0)


def test_saving_does_not_tell_where_the_end_is() -> None:
    def save(limit: int) -> bytes:
        lab = CutLab(limit)
        lab.touch()
        for segment in lab.state.seg:
            segment.limit = 0xFFFFFFFF
        lab.run(f"mov eax, [gs:{CUT}]\ncall far [{LAB_DATA}]")
        for segment in lab.state.seg:
            segment.limit = 0xFFFFFFFF
        return lab.cpu.save()

    assert save(CUT - 1) == save(0xFFFFFFFF)


def test_a_loaded_state_has_its_end() -> None:
    lab = CutLab()
    lab.touch()
    saved = lab.cpu.save()
    lab.cpu.reset()
    lab.cpu.load(saved)
    assert lab.run(f"mov ebx, {CUT}\nmov eax, [ebx]").fault == (GP, 0)


# -- Fetches ---------------------------------------------------------------------------------------

INT80 = b"\xcd\x80"


def run_full(lab: CutLab, source: str) -> None:
    """Run under a code segment without an end, up to INT 0x80; then be cut again."""
    lab.ring(0)
    lab.state.seg[lib.SEG_CS].limit = 0xFFFFFFFF
    assert lab.run(source).vector == 0x80
    lab.ring(0)
    lab.cpu["esp"] = STACK


def code_lab() -> CutLab:
    """INT 0x80 waits just past the end, and has been executed under a segment that reaches it."""
    lab = CutLab()
    lab.memory.write(FRAME2, INT80)
    lab.memory.write(FRAME, b"\x90" * 0x1000)
    run_full(lab, f"mov eax, {CUT}\njmp eax")
    run_full(lab, f"jmp {CUT}")
    run_full(lab, f"jmp {CUT - 3}")  # and fall into it
    return lab


@pytest.mark.parametrize("source", [
    f"jmp {CUT}", f"call {CUT}", "jmp eax", "call eax", "mov ebx, eax\njmp ebx", f"push {CUT}\nret",
    f"cmp eax, {CUT}\nje {CUT}", f"mov dword [DATA], {CUT}\njmp [DATA]", f"push {CUT}\nret 4",
    f"jmp {CODE_OF[0]}:{CUT}", f"mov dword [DATA], {CUT}\ncall [DATA]",
])  # fmt: skip
def test_a_jump_past_the_end_is_the_jumps_fault(source: str) -> None:
    lab = code_lab()
    length = lab.load(source)
    outcome = lab.go()
    assert outcome.fault == (GP, 0)
    assert outcome.frame is not None
    assert CODE <= outcome.frame.eip < CODE + length
    pushed = 4 if source.startswith("push") else 0
    assert lab.cpu["esp"] == STACK - 16 - pushed, "a call pushed before it faulted"


@pytest.mark.parametrize("start", [CUT - 1, CUT - 2, CUT - 40])
def test_falling_off_the_end_is_the_next_instructions_fault(start: int) -> None:
    for _ in range(2):
        lab = code_lab()
        outcome = lab.run(f"jmp {start}")
        assert outcome.fault == (GP, 0)
        assert outcome.frame is not None
        assert outcome.frame.eip == CUT


def test_a_chained_fall_under_another_segment() -> None:
    """The very blocks that went on past the end before."""
    lab = code_lab()
    lab.memory.write(FRAME + 0xFF0, b"\x90" * 14 + b"\x74\x00")  # jz to the next page
    for flags, eip in ((0x46, CUT - 2), (2, CUT)):  # taken: the jump's fault; else the next one's
        for _ in range(3):
            lab.cpu["eflags"] = flags
            run_full(lab, f"jmp {CUT - 16}")
        lab.cpu["eflags"] = flags
        outcome = lab.run(f"jmp {CUT - 16}")
        assert outcome.fault == (GP, 0)
        assert outcome.frame is not None
        assert outcome.frame.eip == eip


def test_an_instruction_across_the_end() -> None:
    """Whole under a full segment, and decoded so; then cut."""
    lab = code_lab()
    lab.memory.write(FRAME + 0xFFE, b"\xb8\x01")
    lab.memory.write(FRAME2, b"\x02\x03\x04" + INT80)
    run_full(lab, f"jmp {CUT - 2}")
    assert lab.cpu["eax"] == 0x04030201
    outcome = lab.run(f"jmp {CUT - 2}")
    assert outcome.fault == (GP, 0)
    assert outcome.frame is not None
    assert outcome.frame.eip == CUT - 2


def test_cut_code_is_chained() -> None:
    lab = CutLab()
    stats = lib.machine_stats(lab.memory.machine)
    lab.load("mov ecx, 1000\nagain: call there\ndec ecx\njnz again\nhlt\nalign 4096\nthere: ret")
    lab.go(10_000)
    assert stats.lookups < 30


# -- Random programs -------------------------------------------------------------------------------

WORLD_CUT, CODE_CUT = 0xC0000000, 0xC0400000  #: ends of data and of code
TABLES = (0x70000, 0x71000, 0x72000)
WORLD_FULL = 0xE0


class CutWorld(World):
    """DATA around WORLD_CUT, CODE around CODE_CUT; `slow`: data segments that count as unusual."""

    slow = False

    def _tables(self) -> bytes:
        image = bytearray(super()._tables())
        for i, table in enumerate(TABLES):
            struct.pack_into("<I", image, DIRECTORY + ((WORLD_CUT >> 22) - 1 + i) * 4, table | ALL)
        for n in range(6):
            place = WORLD_CUT - 0x4000 + n * 0x1000
            struct.pack_into("<I", image, entry_of(place), DATA + n * 0x1000 | ALL)
        for n in range(2):
            place = CODE_CUT - 0x1000 + n * 0x1000
            struct.pack_into("<I", image, entry_of(place), WORLD_CODE + n * 0x1000 | ALL)
        for ring in range(4):
            for selector, end, kind in ((CODE_OF[ring], CODE_CUT, READABLE),
                                        (DATA_OF[ring], WORLD_CUT, WRITABLE)):  # fmt: skip
                value = descriptor(0, end - 1, dpl(kind, ring))
                struct.pack_into("<Q", image, GDT + selector, value)
        struct.pack_into("<Q", image, GDT + WORLD_FULL, descriptor(access=dpl(WRITABLE, 3)))
        return bytes(image)

    def _load_cpu(self, setup: Setup) -> None:
        super()._load_cpu(setup)
        if setup.paging and setup.entry >= WORLD_CODE + 0x800:
            self.state.eip += CODE_CUT - 0x1000 - WORLD_CODE
        if self.slow:
            for n in (lib.SEG_ES, lib.SEG_SS, lib.SEG_DS):
                self.state.seg[n].attributes &= ~0x80

    def run(self, setup: Setup, limit: int, plan: Any) -> Trail:
        trail = super().run(setup, limit, plan)
        for segment in self.state.seg:
            segment.attributes |= 0x80
        used = self.state.replay_count
        self.state.replay[used : lib.REPLAY_MAX] = [0] * (lib.REPLAY_MAX - used)
        trail.state = bytes(ffi.buffer(self.state))
        return trail


def entry_of(linear: int) -> int:
    """Where the page table entry of a page around the cuts stands."""
    return TABLES[(linear >> 22) - (WORLD_CUT >> 22) + 1] + (linear >> 12 & 1023) * 4


def around_the_cut(rng: Random, paging: bool) -> int:
    if not paging:
        return DATA + rng.randrange(0x6000)
    return rng.choice((
        WORLD_CUT - rng.randrange(12), WORLD_CUT + rng.randrange(0x1800),
        WORLD_CUT - rng.randrange(0x4000), WORLD_CUT + 0x1000 - rng.randrange(9),
        CODE_CUT - rng.randrange(0x100), DATA + rng.randrange(0x6000),
    ))  # fmt: skip


def draw(seed: str, monkeypatch: pytest.MonkeyPatch) -> Setup:
    rng = Random(seed)
    monkeypatch.setattr(samples, "target", around_the_cut)
    rows = samples.STRING_ROWS if rng.randrange(5) == 0 else samples.PROGRAM_ROWS
    setup = samples.program(rng, rows, 30)
    registers = list(setup.registers)
    if rng.randrange(3) == 0:
        registers[4] = around_the_cut(rng, setup.paging) & ~3
    memory = list(setup.memory)
    if rng.randrange(3) == 0:
        place = WORLD_CUT + rng.choice((-0x1000, 0, 0, 0x1000))
        frame = rng.choice((DEVICE, DATA, 0, WORLD_CODE)) | rng.choice((7, 7, 5, 3, 1, 0)) | 0x60
        memory.append((entry_of(place), struct.pack("<I", frame)))
    segments = setup.segments
    if rng.randrange(2):
        number = rng.choice((lib.SEG_FS, lib.SEG_GS, lib.SEG_GS, lib.SEG_DS))
        segments = (*segments, (number, WORLD_FULL | 3))
    return replace(setup, registers=tuple(registers), memory=tuple(memory), segments=segments)


def compare(seeds: range, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs of each seed agree; returns how many of them reached past the end."""
    fast, slow = CutWorld(), CutWorld()
    slow.slow = True
    different = 0
    for seed in seeds:
        setup = draw(f"cut {seed}", monkeypatch)
        expected = slow.run(setup, 300, SINGLE)
        for plan in (WHOLE, ragged(seed)):
            found = fast.run(setup, 300, plan)
            assert found.differences(expected) == [], f"seed {seed}, {plan.name}"
        different += slow.state.cr2 >= WORLD_CUT
    return different


def test_random_programs_around_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(range(500), monkeypatch)


@pytest.mark.deep
@pytest.mark.parametrize("part", range(8))
def test_random_programs_around_the_end_deep(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(range(500 + part * 4000, 500 + (part + 1) * 4000), monkeypatch)
