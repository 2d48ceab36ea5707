"""What sites do, executed in ring 1 as under a hypervisor: real IF = 1, real IOPL = 0.

The vCPU area is mapped as the monitor maps it. Where a site faults or calls, its step's `lost` must
be enough to go back to the site's start.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from emulator.core import ExitReason
from isa.decoder import decode
from isa.operands import SegmentRegister
from isa.paravirt import (
    FIELDS,
    FLAGS_BASE,
    HYPERCALL_VECTOR,
    IF_FLAG,
    IF_WORD,
    SAVE_EAX,
    VCPU_AREA_BYTES,
    VCPU_PAGE,
    Field,
)
from isa.site_forms import FORMS, GENERIC, LOAD, form_of
from isa.sites import Site, put_back
from tests.core.lab import CODE, CODE_OF, DATA_OF, FLAG, GP, PF, STACK, Lab, gate

DIRECTORY, TABLE, FRAMES = 0x5000, 0x6000, 0x300000
PRESENT, WRITABLE, USER, LARGE = 1, 2, 4, 0x80
CR0_ON, CR4_PSE = 0x80010001, 0x10
STATUS = FLAG["cf"] | FLAG["pf"] | FLAG["af"] | FLAG["zf"] | FLAG["sf"] | FLAG["of"]
FREE_FLAGS = STATUS | FLAG["df"] | FLAG["ac"] | FLAG["id"]
IF, IOPL, TF, NT, RF = FLAG["if"], 0x3000, FLAG["tf"], FLAG["nt"], FLAG["rf"]
GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
USER_EIP, USER_ESP = 0x180000, 0x190000


@dataclass(frozen=True)
class State:
    """What a guest could notice."""

    registers: tuple[int, ...]
    eflags: int
    virtual_if: int


class Ring1(Lab):
    """A kernel in ring 1 with paging on and the vCPU area mapped for it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.put32(DIRECTORY, PRESENT | WRITABLE | USER | LARGE)
        self.put32(DIRECTORY + 4 * 1023, TABLE | PRESENT | WRITABLE)
        for page in range(VCPU_AREA_BYTES >> 12):
            self.set_page(page, PRESENT | WRITABLE)
        self.state.cr3, self.state.cr4, self.state.cr0 = DIRECTORY, CR4_PSE, CR0_ON
        self.set_idt(HYPERCALL_VECTOR, gate(CODE_OF[0], 0x4000 + HYPERCALL_VECTOR * 16, 0xE, 1))
        self.ring(1)
        for name in GENERAL:
            self.cpu[name] = self.rng.getrandbits(32)
        self.cpu["esp"] = STACK - 64
        self.cpu["eflags"] = 2 | IF | self.rng.getrandbits(32) & FREE_FLAGS
        self.write(FLAGS_BASE, -0x200)

    def set_page(self, page: int, rights: int) -> None:
        index = (VCPU_PAGE >> 12 & 1023) + page
        self.put32(TABLE + 4 * index, FRAMES + (page << 12) | rights)

    def place(self, field: Field) -> int:
        return FRAMES + field.address - VCPU_PAGE

    def write(self, field: Field, value: int) -> None:
        data = (value & (1 << field.size * 8) - 1).to_bytes(field.size, "little")
        self.memory.write(self.place(field), data)

    def read(self, field: Field) -> int:
        return int.from_bytes(self.memory.read(self.place(field), field.size), "little")

    def put(self, original: str) -> Site:
        """The site of an instruction, at CODE with HLT behind it; EIP leads there."""
        data = bytes.fromhex(original)
        form = form_of(data)
        assert form is not None
        site = Site(CODE, form.name, data)
        self.memory.write(CODE, site.code + b"\xf4")
        self.cpu["eip"] = CODE
        return site

    def guest(self) -> State:
        registers = tuple(self.cpu[name] for name in GENERAL)
        return State(registers, self.cpu["eflags"], self.read(IF_FLAG))

    def frame(self, *words: int) -> None:
        """Words on the stack, the first on top."""
        self.put32(self.cpu["esp"], *words)

    def through(self, site: Site) -> None:
        """Run to the site's end, without an exit or event."""
        while self.cpu["eip"] != site.end:
            assert self.cpu.run(self.state.tick + 1) == ExitReason.DEADLINE
            assert site.address < self.cpu["eip"] <= site.end, hex(self.cpu["eip"])

    def to_ring_3(self, eflags: int, cs: int = CODE_OF[3] | 3) -> None:
        self.frame(USER_EIP, cs, eflags, USER_ESP, DATA_OF[3] | 3)


SEEDS = range(12)


def test_fields_do_not_overlap_and_lie_in_the_area() -> None:
    taken: set[int] = set()
    for field in FIELDS:
        places = set(range(field.address, field.address + field.size))
        assert places <= set(range(VCPU_PAGE, VCPU_PAGE + VCPU_AREA_BYTES))
        assert field is IF_FLAG or not places & taken
        taken |= places
    assert IF_WORD.address < IF_FLAG.address < IF_WORD.address + IF_WORD.size
    assert IF_FLAG.address >> 12 != SAVE_EAX.address >> 12


@pytest.mark.parametrize(("original", "virtual_if"), [("fa", 0), ("fb", 1)])
@pytest.mark.parametrize("before", [0, 1])
def test_cli_and_sti_change_the_virtual_flag_only(
    original: str, virtual_if: int, before: int
) -> None:
    lab = Ring1(before)
    lab.write(IF_FLAG, before)
    site, start = lab.put(original), lab.guest()
    lab.through(site)
    assert lab.guest() == State(start.registers, start.eflags, virtual_if)
    assert len(site.steps) == 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("virtual_if", [0, 1])
def test_pushf_shows_virtual_flags_and_keeps_all_others(seed: int, virtual_if: int) -> None:
    lab = Ring1(seed)
    iopl = seed % 4 << 12
    lab.write(IF_FLAG, virtual_if)
    lab.write(FLAGS_BASE, iopl - 0x200)
    site, start = lab.put("9c"), lab.guest()
    lab.through(site)
    esp = start.registers[4] - 4
    assert lab.get32(esp) == start.eflags & ~IF | iopl | virtual_if << 9
    registers = tuple(esp if i == 4 else value for i, value in enumerate(start.registers))
    assert lab.guest() == State(registers, start.eflags, virtual_if)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("virtual_if", [0, 1])
def test_popf_sets_the_virtual_flag_and_all_others(seed: int, virtual_if: int) -> None:
    lab = Ring1(seed)
    image = random.Random(seed + 100).getrandbits(32) & (FREE_FLAGS | IF | RF)
    lab.write(IF_FLAG, virtual_if)
    lab.frame(image)
    site, start = lab.put("9d"), lab.guest()
    lab.through(site)
    after = lab.guest()
    assert after.registers[4] == start.registers[4] + 4
    assert after.eflags == 2 | IF | image & FREE_FLAGS
    assert after.virtual_if == image >> 9 & 1


@pytest.mark.parametrize("unusual", [TF, NT, 0x1000, 0x2000])
def test_popf_asks_for_what_is_unusual(unusual: int) -> None:
    lab = Ring1()
    lab.frame(unusual | IF | STATUS)
    site, start = lab.put("9d"), lab.guest()
    outcome = lab.go()
    assert outcome.vector == HYPERCALL_VECTOR
    assert outcome.frame is not None
    assert lab.read(IF_FLAG) == start.virtual_if
    assert outcome.frame.esp == start.registers[4]
    assert lab.memory.read(outcome.frame.eip, 1) == site.original


@pytest.mark.parametrize("seed", SEEDS)
def test_iret_to_ring_3(seed: int) -> None:
    lab = Ring1(seed)
    image = random.Random(seed + 100).getrandbits(32) & (FREE_FLAGS | RF) | IF | 2
    lab.to_ring_3(image)
    lab.put("cf")
    start = lab.guest()
    while lab.state.cpl == 1:
        assert lab.cpu.run(lab.state.tick + 1) == ExitReason.DEADLINE
    after = lab.guest()
    assert (lab.state.cpl, lab.cpu["eip"]) == (3, USER_EIP)
    registers = tuple(USER_ESP if i == 4 else v for i, v in enumerate(start.registers))
    assert after == State(registers, image, 1)


UNUSUAL_FRAMES = {
    "ring 0": (IF | 2, CODE_OF[0]), "ring 1": (IF | 2, CODE_OF[1] | 1),
    "ring 2": (IF | 2, CODE_OF[2] | 2), "IF = 0": (2, CODE_OF[3] | 3),
    **{name: (IF | 2 | FLAG[name], CODE_OF[3] | 3) for name in ("tf", "nt", "vm")},
    "IOPL": (IF | 0x2002, CODE_OF[3] | 3),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL_FRAMES)
def test_iret_asks_for_all_else(name: str) -> None:
    lab = Ring1(3)
    lab.to_ring_3(*UNUSUAL_FRAMES[name])
    site, start = lab.put("cf"), lab.guest()
    outcome = lab.go()
    assert outcome.vector == HYPERCALL_VECTOR
    assert outcome.frame is not None
    step = site.step_at(outcome.frame.eip - 2)
    assert step is not None
    assert lab.memory.read(outcome.frame.eip, 1) == site.original
    assert outcome.frame.esp is not None
    assert returned(lab, site, step.offset, outcome.frame.esp, outcome.frame.eflags) == start


def returned(lab: Ring1, site: Site, offset: int, esp: int, eflags: int) -> State:
    """The guest's state at the site's start, put back from where it stands."""
    step = site.step_at(site.address + offset)
    assert step is not None
    values = put_back(step, esp, eflags, lab.read)
    names = {name: lab.cpu[name] for name in GENERAL} | {"esp": esp}
    registers = tuple(values.get(name, names[name]) for name in GENERAL)
    virtual_if = values["if_word"] >> 8 if "if_word" in values else lab.read(IF_FLAG)
    return State(registers, values.get("eflags", eflags), virtual_if)


#: An instruction of each form, and what it finds on the stack.
OF_EACH_FORM = {
    "hypercall": ("f4", ()), "load": ("0fa1", (DATA_OF[3] | 3,)),
    "cli": ("fa", ()), "sti": ("fb", ()), "pushf": ("9c", ()), "popf": ("9d", (IF,)),
    "iret": ("cf", (USER_EIP, CODE_OF[3] | 3, IF, USER_ESP, DATA_OF[3] | 3)),
}  # fmt: skip


def test_there_is_an_instruction_of_each_form() -> None:
    assert set(OF_EACH_FORM) == {form.name for form in FORMS}


@pytest.mark.parametrize("name", OF_EACH_FORM)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_step_can_go_back(name: str, seed: int) -> None:
    lab = Ring1(seed)
    original, frame = OF_EACH_FORM[name]
    lab.write(IF_FLAG, seed % 2)
    lab.frame(*frame)
    site, start = lab.put(original), lab.guest()
    reached = 0
    while (step := site.step_at(lab.cpu["eip"])) is not None:
        reached += 1
        now = returned(lab, site, step.offset, lab.cpu["esp"], lab.cpu["eflags"])
        if name == "popf":  # it overwrites the flags that its steps change, the virtual IF too
            assert (now.eflags ^ start.eflags) & ~STATUS == 0
            now = State(now.registers, start.eflags, start.virtual_if)
        assert now == start, step
        if name == "hypercall":
            break
        assert lab.cpu.run(lab.state.tick + 1) == ExitReason.DEADLINE
    slow = 1 if name in ("popf", "iret", "load") else 0  # its `int`, which is on the other path
    assert reached == len(site.steps) - slow


@pytest.mark.parametrize(
    ("original", "page"),
    [("fa", 0), ("fb", 0), ("9d", 0), ("cf", 0), ("9c", 1), ("cf", 1), ("1f", 1), ("8ed8", 1)],
)
def test_a_page_made_read_only_makes_sites_fault(original: str, page: int) -> None:
    lab = Ring1(5)
    lab.set_page(page, PRESENT)
    lab.to_ring_3(IF)
    site, start = lab.put(original), lab.guest()
    outcome = lab.go()
    assert outcome.fault == (PF, PRESENT | WRITABLE)
    assert lab.state.cr2 >> 12 == (VCPU_PAGE >> 12) + page
    frame = outcome.frame
    assert frame is not None
    assert frame.esp is not None
    step = site.step_at(frame.eip)
    assert step is not None
    back = returned(lab, site, step.offset, frame.esp, frame.eflags & ~RF)
    if original == "9d":
        back = State(back.registers, start.eflags, back.virtual_if)
    assert back == start


@pytest.mark.parametrize("original", ["fa", "fb", "9c", "cf", "1f"])
def test_a_stack_segment_that_ends_below_the_area_makes_the_first_step_fault(original: str) -> None:
    lab = Ring1(6)
    lab.state.seg[2].limit = VCPU_PAGE - 1
    site, start = lab.put(original), lab.guest()
    outcome = lab.go()
    assert outcome.vector == 12
    assert outcome.frame is not None
    assert outcome.frame.eip == site.address
    assert outcome.frame.esp == start.registers[4]


# -- Loads of segment registers --------------------------------------------------------------------

#: MOV ES from each general register, from memory, and pops; with where the selector is.
LOADS = {
    **{f"mov es, {name}": (f"8e{0xC0 + i:02x}", name) for i, name in enumerate(GENERAL)},
    "mov ds, [ebx+edi*2]": ("8e1c7b", "memory"),
    "mov gs, [fs:ebp]": ("648e6d00", "memory"),
    "pop es": ("07", "stack"), "pop ds": ("1f", "stack"), "pop fs": ("0fa1", "stack"),
}  # fmt: skip
MEMORY_AT = 0x180000


def loading(name: str, selector: int, seed: int = 7) -> tuple[Ring1, Site, int]:
    """About to execute a load; with the number of the register that it is to load."""
    lab = Ring1(seed)
    original, place = LOADS[name]
    if place in GENERAL:
        lab.cpu[place] = lab.cpu[place] & ~0xFFFF | selector
    lab.cpu["ebx"], lab.cpu["edi"] = MEMORY_AT - 0x200, 0x100
    lab.cpu["ebp"] = MEMORY_AT
    if place in ("ebx", "edi", "ebp"):
        lab.cpu[place] = selector
    lab.put32(MEMORY_AT, selector | 0xBEEF0000)
    if place != "esp":
        lab.frame(selector | 0xBEEF0000)
    site = lab.put(original)
    target = decode(site.original).operands[0]
    assert isinstance(target, SegmentRegister)
    return lab, site, target.number


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("selector", [0, 3, DATA_OF[1], DATA_OF[3], DATA_OF[3] | 3])
def test_loads_with_rpl_0_and_3_are_done_without_an_exit(name: str, selector: int) -> None:
    lab, site, target = loading(name, selector)
    start = lab.guest()
    popped = 4 if LOADS[name][1] == "stack" else 0
    lab.through(site)
    after = lab.guest()
    registers = tuple(v + (popped if i == 4 else 0) for i, v in enumerate(start.registers))
    assert after == State(registers, start.eflags, start.virtual_if)
    assert lab.state.seg[target].selector == selector


@pytest.mark.parametrize("name", [name for name in LOADS if LOADS[name][1] != "esp"])
@pytest.mark.parametrize("selector", [DATA_OF[1] | 1, DATA_OF[2] | 2, DATA_OF[3] | 1])
def test_loads_with_rpl_1_and_2_are_asked_for(name: str, selector: int) -> None:
    lab, site, target = loading(name, selector)
    start, before = lab.guest(), lab.state.seg[target].selector
    outcome = lab.go()
    assert outcome.vector == HYPERCALL_VECTOR
    frame = outcome.frame
    assert frame is not None
    assert frame.esp is not None
    step = site.step_at(frame.eip - 2)
    assert step is not None
    assert lab.memory.read(frame.eip, len(site.original)) == site.original
    assert returned(lab, site, step.offset, frame.esp, frame.eflags) == start
    assert lab.state.seg[target].selector == before


def test_a_load_from_where_ecx_points_is_asked_for() -> None:
    assert form_of(bytes.fromhex("8e19")) is GENERIC  # mov ds, [ecx]
    assert form_of(bytes.fromhex("8e1c48")) is GENERIC  # mov ds, [eax+ecx*2]
    assert form_of(bytes.fromhex("8e1c01")) is GENERIC  # mov ds, [ecx+eax]
    assert form_of(bytes.fromhex("8ed9")) is LOAD  # mov ds, cx


def test_reading_ds_es_fs_and_gs_needs_no_site() -> None:
    lab = Ring1(7)
    lab.cpu["eax"] = DATA_OF[3] | 3
    lab.through(lab.put("8ec0"))  # mov es, ax
    lab.memory.write(CODE, bytes.fromhex("8cc306"))  # mov ebx, es; push es
    assert form_of(bytes.fromhex("8cc3")) is form_of(b"\x06") is None
    lab.cpu["eip"] = CODE
    assert lab.cpu.run(lab.state.tick + 2) == ExitReason.DEADLINE
    assert lab.cpu["ebx"] == DATA_OF[3] | 3
    assert lab.get32(lab.cpu["esp"]) & 0xFFFF == DATA_OF[3] | 3


def test_a_load_that_faults_has_changed_nothing() -> None:
    lab = Ring1(8)
    lab.cpu["eax"] = 0x1000  # beyond the table
    site, start = lab.put("8ec0"), lab.guest()
    outcome = lab.go()
    assert outcome.fault == (GP, 0x1000)
    frame = outcome.frame
    assert frame is not None
    assert frame.esp is not None
    step = site.step_at(frame.eip)
    assert step is not None
    assert step.code == site.original
    assert not step.lost
    assert returned(lab, site, step.offset, frame.esp, frame.eflags & ~RF) == start
