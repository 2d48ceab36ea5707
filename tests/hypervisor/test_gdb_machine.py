"""A debugger changes nothing, misses nothing, and sees the guest: natively and by every technique.

Generated kernels (kernel_guests.py) are stepped, stopped and watched at random. Such a run must
end as one that nobody looked at, to the tick and the last register; and under a technique each
stop must be where it is natively, with the same registers. What is particular stands below, a test
each.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import pytest

from emulator import Machine
from hypervisor.experiments.observe import MachineRun, NativeRun, Observation, compare
from hypervisor.gdb.registers import REGISTERS
from hypervisor.gdb.target import Point
from hypervisor.techniques.translate import Translate
from hypervisor.translator.cache import LEAST_BYTES
from hypervisor.vm import VirtualMachine
from isa import assemble
from tests.hypervisor.gdb_driver import Driver, Seen, places_of, script
from tests.hypervisor.kernel_guests import MAX_TICKS, RAM, KernelGuest, random_guest

NATIVE: Final = "native"
WAYS: Final[dict[str, dict[str, Any]]] = {
    "interpret": {"technique": "interpret"},
    "trap": {"technique": "trap", "virtualizable": True},
    "translate": {"technique": "translate"},
    "translate --user": {"technique": "translate --user"},
    "translate --link-back": {"technique": "translate --link-back"},
    "translate, hardly any cache": {"technique": lambda: Translate(cache_bytes=LEAST_BYTES)},
    "patch": {"technique": "patch"},
    "patch --strict": {"technique": "patch --strict"},
    "hardware": {"technique": "hardware"},
    "hardware on shadows": {"technique": "hardware", "mmu": "shadow"},
}
SEEDS: Final = range(12)
#: Stores: those a translation makes are the guest's. It need not read what an IRET does not use.
STORES: Final = (Point.WRITE,)
ALL: Final = (Point.WRITE, Point.READ, Point.ACCESS)


def made(way: str, program: Any) -> MachineRun:
    """A run that has not begun."""
    if way == NATIVE:
        return NativeRun(program, ram=RAM)
    options = {name: value() if callable(value) else value for name, value in WAYS[way].items()}
    return MachineRun(VirtualMachine(ram=RAM, **options), program)


@cache
def guest_of(seed: int) -> KernelGuest:
    return random_guest(seed, without=("ring_3_unsafe",))


@cache
def native(seed: int) -> tuple[list[int], list[Seen], Observation]:
    """Where the guest comes by, and what a debugger natively sees of it."""
    program = guest_of(seed).program
    places = places_of(NativeRun(program, ram=RAM))
    return places, *script(NativeRun(program, ram=RAM), seed, places, STORES)


def unseen(run: MachineRun) -> Observation:
    """What the run does with nobody looking."""
    run.run(MAX_TICKS)
    return run.observe()


@pytest.mark.parametrize("seed", SEEDS)
def test_native_runs_do_not_notice(seed: int) -> None:
    program = guest_of(seed).program
    plain = unseen(NativeRun(program, ram=RAM))
    places, _, seen = native(seed)
    assert compare(plain, seen) is None
    _, seen = script(NativeRun(program, ram=RAM), seed, places, ALL)
    assert compare(plain, seen) is None


@pytest.mark.parametrize("way", WAYS)
def test_guests_do_not_notice_and_stop_where_they_do_natively(way: str) -> None:
    for seed in SEEDS:
        program = guest_of(seed).program
        places, natively, _ = native(seed)
        stops, seen = script(made(way, program), seed, places, STORES)
        difference = compare(unseen(made(way, program)), seen)
        assert difference is None, f"seed {seed}: {difference}"
        for ours, theirs in zip(natively, stops, strict=True):
            assert ours == theirs, f"seed {seed}: natively {ours}, here {theirs}"


@pytest.mark.parametrize("mmu", ["shadow", "shared"])
def test_paravirtual_guests_do_not_notice(mmu: str) -> None:
    for seed in SEEDS:
        guest = guest_of(seed)
        image = guest.program_of(assemble(guest.source, paravirt="hypervisor"))

        def run(image: Any = image) -> MachineRun:
            return MachineRun(VirtualMachine(technique="paravirt", mmu=mmu, ram=RAM), image)

        _, seen = script(run(), seed, native(seed)[0], ALL)
        difference = compare(unseen(run()), seen)
        assert difference is None, f"seed {seed}: {difference}"


# -- Particulars ---------------------------------------------------------------------------------

EACH: Final = pytest.mark.parametrize("way", [NATIVE, *WAYS])
START: Final = 0x100000
TABLES: Final = """
        lgdt [gdt_pointer]
        lidt [idt_pointer]
        mov eax, 0x10
        mov ss, ax
        mov esp, 0x90000
"""
DATA: Final = """
        align 8
gdt:    dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer: dw 23
        dd gdt
idt_pointer: dw 0x30 * 8 - 1
        dd idt
        align 8
idt:    times 6 dq 0
        dw on_ud - $$, 8, 0x8E00, 0x10
        times 25 dq 0
        dw on_timer - $$, 8, 0x8E00, 0x10
        times 15 dq 0
"""


def driver(way: str, text: str) -> tuple[Driver, dict[str, int]]:
    """A run of a program, and what its labels stand for."""
    program = assemble(text)
    labels = {name: symbol.value for name, symbol in program.symbols.items()}
    return Driver(made(way, program)), labels


def off(status: int = 0) -> str:
    return f"        mov al, {status}\n        out 0xF4, al\n"


@EACH
def test_a_breakpoint_is_met_once_each_time(way: str) -> None:
    d, at = driver(way, "mov ecx, 3\nagain: dec ecx\njnz again\n" + off(7))
    d.target.insert(Point.HARDWARE, at["again"], 1)
    counts = [dict(d.go_on().registers)["ecx"] for _ in range(3)]
    assert counts == [3, 2, 1]
    assert d.go_on().why == "POWERED_OFF"
    assert d.end is not None
    assert d.end.status == 7


@EACH
def test_a_breakpoint_that_is_stepped_off_and_put_back_is_met_again(way: str) -> None:
    """As gdb does it: out, a step, in, and on."""
    d, at = driver(way, "mov ecx, 3\nagain: dec ecx\njnz again\n" + off())
    for expected in (3, 2, 1):
        d.target.insert(Point.SOFTWARE, at["again"], 1)
        seen = d.go_on()
        assert seen.why == "swbreak:;"
        assert dict(seen.registers)["ecx"] == expected
        d.target.remove(Point.SOFTWARE, at["again"], 1)
        d.step()


@EACH
def test_a_jump_to_itself_is_met_each_time(way: str) -> None:
    d, at = driver(way, "here: jmp here")
    d.target.insert(Point.HARDWARE, at["here"], 1)
    assert [d.go_on().tick for _ in range(4)] == [0 + 1, 2, 3, 4]


@EACH
def test_a_repeat_is_stepped_an_iteration_at_a_time_and_met_once(way: str) -> None:
    text = "mov edi, 0x110FF0\nmov ecx, 100\nmov al, 1\nhere: rep stosb\nafter: nop\n" + off()
    d, at = driver(way, text)
    for name in ("here", "after"):
        d.target.insert(Point.HARDWARE, at[name], 1)
    assert dict(d.go_on().registers)["eip"] == at["here"]
    for left in (99, 98):
        registers = dict(d.step().registers)
        assert (registers["eip"], registers["ecx"]) == (at["here"], left)
    assert dict(d.go_on().registers)["eip"] == at["after"]


@EACH
def test_a_step_over_a_fault_ends_where_its_handler_begins(way: str) -> None:
    text = TABLES + "bad: ud2\n" + off() + "on_ud: nop\non_timer: nop\n" + off(3) + DATA
    d, at = driver(way, text)
    d.target.insert(Point.HARDWARE, at["bad"], 1)
    before = d.go_on()
    assert dict(before.registers)["eip"] == at["bad"]
    after = d.step()
    assert dict(after.registers)["eip"] == at["on_ud"]
    assert after.tick == before.tick
    assert dict(d.step().registers)["eip"] == at["on_ud"] + 1


@EACH
def test_what_is_no_instruction_can_have_a_breakpoint(way: str) -> None:
    text = TABLES + "jmp bad\nbad: db 0x0F, 0xFF\non_ud: nop\non_timer: nop\n" + off(3) + DATA
    d, at = driver(way, text)
    d.target.insert(Point.HARDWARE, at["bad"], 1)
    assert dict(d.go_on().registers)["eip"] == at["bad"]
    assert dict(d.step().registers)["eip"] == at["on_ud"]


@EACH
def test_a_step_of_a_halted_cpu_waits_for_its_interrupt(way: str) -> None:
    text = (
        TABLES
        + """
        mov al, 0x11
        out 0x20, al
        mov al, 0x20
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xFE
        out 0x21, al
        mov al, 0x34
        out 0x43, al
        mov al, 16
        out 0x40, al
        mov al, 0
        out 0x40, al
        sti
stop:   hlt
        nop
on_ud:
on_timer: nop
"""
        + off(4)
        + DATA
    )
    d, at = driver(way, text)
    d.target.insert(Point.HARDWARE, at["stop"], 1)
    d.go_on()
    halted = d.step()
    assert halted.halted
    assert dict(halted.registers)["eip"] == at["stop"] + 1
    woken = d.step()
    assert not woken.halted
    assert woken.tick > halted.tick
    assert dict(woken.registers)["eip"] == at["on_timer"]


@EACH
def test_watchpoints_of_all_kinds(way: str) -> None:
    text = """
        mov eax, [value]
        nop
        mov dword [value], 5
        nop
        inc dword [value]
        nop
        cmp byte [value + 3], 0
        jnz value
        mov byte [value + 4], 1
""" + off() + "align 4\nvalue: dd 1, 0\n"  # fmt: skip
    sizes = {"mov": 5, "store": 10, "inc": 6, "cmp": 7}
    mov = START + sizes["mov"]
    store = mov + 1 + sizes["store"]
    inc = store + 1 + sizes["inc"]
    cmp = inc + 1 + sizes["cmp"]
    for point, expected in (
        (Point.READ, [("rwatch", mov), ("rwatch", inc), ("rwatch", cmp)]),
        (Point.WRITE, [("watch", store), ("watch", inc)]),
        (Point.ACCESS, [("awatch", mov), ("awatch", store), ("awatch", inc), ("awatch", cmp)]),
    ):
        d, at = driver(way, text)
        assert d.target.insert(point, at["value"], 4)
        found = []
        while d.go_on().why != "POWERED_OFF":
            reason, _, where = d.seen[-1].why.partition(":")
            assert at["value"] <= int(where.rstrip(";"), 16) < at["value"] + 4
            found.append((reason, dict(d.seen[-1].registers)["eip"]))
        assert found == expected


@EACH
def test_memory_is_as_the_guest_wrote_it(way: str) -> None:
    """Also where the patcher has been, and breakpoints are."""
    text = "cli\nloop: pushf\npopf\nmov ax, cs\nsti\ncli\ninc ecx\ncmp ecx, 3\njb loop\n" + off()
    program = assemble(text)
    d = Driver(made(way, program))
    d.target.insert(Point.SOFTWARE, START + 1, 1)
    for _ in range(3):
        d.go_on()
        assert d.target.read_memory(START, len(program.flat())) == program.flat()
    assert d.target.read_memory(0xFFFF_FFF0, 0x20)[:0x10] == b"\xff" * 0x10
    assert d.go_on().why == "POWERED_OFF"


@EACH
def test_code_that_gdb_writes_is_executed(way: str) -> None:
    """Both of code that has run, and of a site that the patcher has overwritten."""
    text = "loop: pushf\npopf\ncli\nnop\nnop\ninc ecx\ncmp ecx, 100\njb loop\n" + off(1)
    d, at = driver(way, text)
    d.target.insert(Point.HARDWARE, at["loop"], 1)
    d.go_on()
    d.go_on()
    d.target.remove(Point.HARDWARE, at["loop"], 1)
    code = assemble("mov al, 9\nout 0xF4, al").flat()
    assert d.target.write_memory(at["loop"] + 1, code)
    assert d.target.read_memory(at["loop"] + 1, len(code)) == code
    d.go_on()
    assert d.end is not None
    assert d.end.status == 9


@EACH
def test_registers_are_the_guests_and_can_be_set(way: str) -> None:
    d, at = driver(way, "nop\nnop\nhere: nop\nout 0xF4, al\nthere: mov al, bl\nout 0xF4, al\n")
    d.target.insert(Point.HARDWARE, at["here"], 1)
    d.go_on()
    names = [register.name for register in REGISTERS]

    def get(name: str) -> int:
        return int.from_bytes(d.target.read_register(names.index(name)), "little")

    def put(name: str, value: int) -> None:
        register = names.index(name)
        d.target.write_register(register, value.to_bytes(REGISTERS[register].size, "little"))

    assert get("eip") == at["here"]
    assert [get(name) & 3 for name in ("cs", "ss", "ds")] == [0, 0, 0]
    for name, value in (("ebx", 0xFFFF_FF0B), ("eip", at["there"]), ("cr2", 77)):
        put(name, value)
        assert get(name) == value
    put("eflags", 0xFFFF_FFFF)
    assert get("eflags") == 0x257FD7
    put("eflags", 0x246)
    d.go_on()
    assert d.end is not None
    assert d.end.status == 11
    assert dict(d.seen[-1].registers)["cr2"] == 77


def test_many_breakpoints_and_no_more_watchpoints_than_there_is_room_for() -> None:
    d = Driver(NativeRun(assemble("nop\n" * 500 + off()), ram=RAM))
    for number in range(500):
        assert d.target.insert(Point.SOFTWARE, START + number, 1)
    d.go_on()
    for number in range(2, 40):
        assert dict(d.go_on().registers)["eip"] == START + number
    room = [d.target.insert(Point.WRITE, 4 * number, 4) for number in range(70)]
    assert room == [True] * 64 + [False] * 6
    assert d.target.insert(Point.WRITE, 0, 4)


def test_nothing_is_left_behind() -> None:
    """After gdb has gone no CPU stops for it any more."""
    d, at = driver("translate", "mov ecx, 5\nagain: dec ecx\njnz again\n" + off())
    d.target.insert(Point.SOFTWARE, at["again"], 1)
    d.target.insert(Point.ACCESS, 0x90000, 64)
    d.go_on()
    machine: Any = d.machine
    before = machine.host.memory.read(0, 64)
    assert d.finish().ending.stop == "POWERED_OFF"
    assert machine.debugger is None
    assert machine.host.memory.read(0, 64) == before


def test_a_machine_without_a_debugger_stops_at_breakpoints_all_the_same() -> None:
    """The library's way: set one, run, look."""
    machine = Machine(ram=RAM)
    machine.load(assemble("nop\nnop\nhlt"))
    machine.cpu.set_breakpoint(START + 1)
    assert machine.run().stop.name == "BREAKPOINT"
    assert machine.cpu["eip"] == START + 1
    assert machine.run().stop.name == "HALTED"
