"""The definition of fidelity: what is recorded, what counts as a difference, what is masked.

And lockstep: of two native machines, one of which does one thing wrong, the wrong instruction is
named. A test that could not see a difference would prove every technique faithful.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from emulator import Machine
from emulator.result import Result
from guests import find
from hypervisor.experiments.lockstep import Divergence, first_difference
from hypervisor.experiments.observe import (
    Access,
    Difference,
    Event,
    MachineRun,
    NativeRun,
    Observation,
    compare,
    observe_native,
)
from isa import Program, assemble, assemble_file

RAM = "2M"
TICKS = 100_000

#: Faults once, is interrupted by itself, talks to a port, leaves a word in memory.
SOURCE = """
start:
    mov word [idt + 6 * 8], ud_handler - $$ + (0x100000 & 0xFFFF)
    mov dword [idt + 6 * 8 + 2], 0x08
    mov byte [idt + 6 * 8 + 5], 0x8E
    mov word [idt + 6 * 8 + 6], 0x10
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    jmp 0x08:.loaded
.loaded:
    mov eax, 0x10
    mov ss, ax
    mov ds, ax
    in al, 0x80
    mov al, 7
    out 0x80, al
    in al, 0x80
    ud2
    mov dword [word_of_ours], 0x12345678
    mov al, 3
    out 0xF4, al
ud_handler:
    add dword [esp], 2
    iret
align 8
gdt: dd 0, 0, 0xFFFF, 0xCF9A00, 0xFFFF, 0xCF9200
gdt_pointer: dw 23
    dd gdt
idt_pointer: dw 7 * 8 - 1
    dd idt
idt: times 7 dd 0, 0
word_of_ours: dd 0
"""


@cache
def program() -> Program:
    return assemble(SOURCE)


@cache
def seen() -> Observation:
    return observe_native(program(), max_ticks=TICKS, ram=RAM)


def address_of(label: str) -> int:
    return program().symbols[label].value


# -- What is recorded -----------------------------------------------------------------------------


def test_every_device_access_is_recorded_in_order() -> None:
    assert [access[1:] for access in seen().accesses] == [
        ("in", 0x80, 1, 0),
        ("out", 0x80, 1, 7),
        ("in", 0x80, 1, 7),
        ("out", 0xF4, 1, 3),
    ]
    ticks = [access.tick for access in seen().accesses]
    assert ticks[0] + 2 == ticks[1] == ticks[2] - 1  # a MOV lies between the first two
    assert seen().ending.tick == ticks[3] + 1


def test_events_are_recorded_with_their_frames() -> None:
    (event,) = seen().events
    assert (event.vector, event.error, event.cr2) == (6, None, None)
    assert event.cs == 0x08
    assert event.ss == 0x10
    assert program().flat()[event.eip - 0x100000 :][:2] == b"\x0f\x0b"
    assert event.tick == seen().accesses[2].tick + 1


def test_page_faults_have_cr2_and_a_changed_ring_its_stack() -> None:
    guest = find("paging")
    image = assemble_file(guest.source, include=guest.includes)
    faults = [e for e in observe_native(image).events if e.vector == 14]
    assert faults
    assert all(e.cr2 is not None and e.error is not None for e in faults)
    guest = find("rings")
    image = assemble_file(guest.source, include=guest.includes)
    rings = {(e.cs & 3, e.ss & 3) for e in observe_native(image).events}
    assert (3, 3) in rings


def test_the_end_is_recorded() -> None:
    ending = seen().ending
    registers = dict(ending.registers)
    assert (ending.stop, ending.status) == ("POWERED_OFF", 3)
    assert registers["eax"] & 0xFF == 3
    assert registers["cs"] == 0x08
    assert registers["gdtr base"] == address_of("gdt")
    assert registers["idtr limit"] == 7 * 8 - 1
    assert registers["eip"] == address_of("ud_handler")
    page = seen().pages[address_of("word_of_ours") & ~0xFFF]
    at = address_of("word_of_ours") & 0xFFF
    assert page[at : at + 4] == bytes.fromhex("78563412")


def test_more_events_than_the_ring_holds() -> None:
    """The core's ring of trace records is drained as it fills."""
    source = SOURCE.replace("ud2\n", "mov ecx, 9000\n.again: ud2\n add eax, 1\n loop .again\n")
    events = observe_native(assemble(source), max_ticks=TICKS, ram=RAM).events
    assert len(events) == 9000
    assert len({event.tick for event in events}) == 9000


@pytest.mark.parametrize("name", ["rings", "probe_popf", "clock"])
def test_the_same_run_is_equal_and_watching_changes_nothing(name: str) -> None:
    guest = find(name)
    image = assemble_file(guest.source, include=guest.includes).elf()
    runs = [NativeRun(image, **guest.options) for _ in range(2)]
    results = [run.run(guest.ticks) for run in runs]
    assert results[0].output == guest.prints
    assert compare(runs[0].observe(), runs[1].observe()) is None


def test_where_a_run_is_stopped_does_not_matter() -> None:
    run = NativeRun(program(), ram=RAM)
    for tick in range(0, 100, 7):
        run.run(tick)
        run.observe()
    run.run(TICKS)
    assert compare(seen(), run.observe()) is None


@pytest.mark.parametrize("string", ["mov edi, 0x120000\nrep insb", "mov esi, start\nrep outsb"])
def test_the_elements_of_string_io_have_ticks_of_their_own(string: str) -> None:
    source = f"start:\nmov ecx, 20\nmov edx, 0x80\n{string}\nhlt"
    whole = observe_native(assemble(source), max_ticks=TICKS, ram=RAM)
    assert [access.tick for access in whole.accesses] == list(range(3, 23))
    run = NativeRun(assemble(source), ram=RAM)
    for tick in (5, 6, 13, TICKS):
        run.run(tick)
    assert compare(whole, run.observe()) is None


class Untraced(Machine):
    """A machine whose loop hands over no trace records, as a virtual machine's does not."""

    def _runner(self) -> Callable[[int], int]:
        return self.cpu.run


def test_events_of_a_machine_that_drains_its_ring_only_when_it_is_full() -> None:
    source = SOURCE.replace("ud2\n", "mov ecx, 9000\n.again: ud2\n loop .again\n")
    native = observe_native(assemble(source), max_ticks=TICKS, ram=RAM)
    run = MachineRun(Untraced(ram=RAM), assemble(source))
    run.run(TICKS)
    assert len(native.events) == 9000
    assert compare(native, run.observe()) is None


# -- What counts as a difference ------------------------------------------------------------------


def with_register(name: str, value: int) -> Observation:
    registers = tuple((n, value if n == name else v) for n, v in seen().ending.registers)
    ending = dataclasses.replace(seen().ending, registers=registers)
    return dataclasses.replace(seen(), ending=ending)


@pytest.mark.parametrize("name", [name for name, _ in seen().ending.registers])
def test_every_register_counts(name: str) -> None:
    value = dict(seen().ending.registers)[name]
    found = compare(seen(), with_register(name, value ^ 1))
    assert found is not None
    assert found.what == "register"
    assert found.reason == f"{name} at the end: native {value:#x}; other {value ^ 1:#x}"


@pytest.mark.parametrize("field", Access._fields)
def test_every_part_of_an_access_counts(field: str) -> None:
    accesses = list(seen().accesses)
    old = getattr(accesses[1], field)
    accesses[1] = accesses[1]._replace(**{field: "in" if field == "kind" else old + 1})
    found = compare(seen(), dataclasses.replace(seen(), accesses=tuple(accesses)), name="trap")
    assert found is not None
    assert found.what == "device access"
    assert found.tick == seen().accesses[1].tick
    assert found.reason.startswith("device access 1: native out 0x80 of 1 bytes, value 0x7")
    assert "; trap " in found.reason


@pytest.mark.parametrize("field", Event._fields)
def test_every_part_of_an_event_counts(field: str) -> None:
    (event,) = seen().events
    changed = event._replace(**{field: (getattr(event, field) or 0) + 1})
    found = compare(seen(), dataclasses.replace(seen(), events=(changed,)))
    assert found is not None
    assert found.what == "event"
    assert found.reason.startswith("event 0: native vector 6 (#UD), cs:eip 0x8:")


@pytest.mark.parametrize("what", ["accesses", "events"])
def test_one_too_few_counts(what: str) -> None:
    found = compare(seen(), dataclasses.replace(seen(), **{what: getattr(seen(), what)[:-1]}))
    assert found is not None
    assert found.reason.endswith("; other none")


def test_the_earliest_difference_is_the_one_named() -> None:
    other = dataclasses.replace(seen(), accesses=seen().accesses[:-1], events=())
    found = compare(seen(), other)
    assert found is not None
    assert found.what == "event"
    assert found.tick == seen().events[0].tick


@pytest.mark.parametrize(("field", "value"), [("stop", "HALTED"), ("status", 4), ("tick", 1)])
def test_the_end_counts(field: str, value: object) -> None:
    ending = dataclasses.replace(seen().ending, **{field: value})  # type: ignore[arg-type]
    found = compare(seen(), dataclasses.replace(seen(), ending=ending))
    assert found is not None
    assert found.reason.startswith(f"{field}: native ")


def with_byte(observation: Observation, address: int, value: int) -> Observation:
    page = bytearray(observation.pages.get(address & ~0xFFF, bytes(0x1000)))
    page[address & 0xFFF] = value
    pages = {**observation.pages, address & ~0xFFF: bytes(page)}
    return dataclasses.replace(observation, pages=pages)


def test_every_byte_of_memory_counts() -> None:
    for address in (0, 0x9FFFF, address_of("word_of_ours") + 1, 0x1FFFFF):
        found = compare(seen(), with_byte(seen(), address, 0xEE))
        assert found is not None
        assert found.what == "memory"
        assert found.address == address & ~3
    found = compare(seen(), with_byte(seen(), address_of("word_of_ours"), 0x79))
    assert found is not None
    assert found.reason.endswith("native 0x12345678; other 0x12345679")


def test_a_page_of_zeros_is_an_absent_page() -> None:
    pages = {**seen().pages, 0x1F0000: bytes(0x1000)}
    assert compare(seen(), dataclasses.replace(seen(), pages=pages)) is None


# -- What is masked -------------------------------------------------------------------------------

#: Identity for the first 4 MiB but for what `{extra}` says; runs on a page, writes another.
PAGED = """
start:
    mov edi, 0x120000
    mov dword [edi], 0x121000 | 3
    mov dword [edi + 4], {large}
    mov edi, 0x121000
    mov eax, 3
.next:
    mov [edi], eax
    add edi, 4
    add eax, 0x1000
    cmp eax, 0x400003
    jb .next
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, 0x120000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov ebx, [0x130000]
    {go}
    hlt
"""
CODE_ENTRY, DATA_ENTRY, DIRECTORY = 0x121000 + 0x100 * 4, 0x121000 + 0x130 * 4, 0x120000
ACCESSED = 0x20


def paged(large: str = "0", go: str = "") -> Observation:
    return observe_native(assemble(PAGED.format(large=large, go=go)), max_ticks=TICKS, ram=RAM)


def without_accessed(native: Observation, address: int) -> Difference | None:
    byte = native.pages[address & ~0xFFF][address & 0xFFF]
    assert byte & ACCESSED, "the native run did not set it"
    return compare(native, with_byte(native, address, byte & ~ACCESSED))


@pytest.mark.parametrize("entry", [CODE_ENTRY, DIRECTORY])
def test_accessed_bits_that_code_set_are_masked(entry: int) -> None:
    assert without_accessed(paged(), entry) is None


def test_accessed_bits_that_data_set_are_not() -> None:
    found = without_accessed(paged(), DATA_ENTRY)
    assert found is not None
    assert found.address == DATA_ENTRY


@pytest.mark.parametrize("bit", [1, 2, 4, 8, 0x10, 0x40, 0x80])
def test_other_bits_of_the_same_entry_are_not_masked(bit: int) -> None:
    native = paged()
    byte = native.pages[CODE_ENTRY & ~0xFFF][CODE_ENTRY & 0xFFF]
    assert compare(native, with_byte(native, CODE_ENTRY, byte ^ bit)) is not None


def test_an_accessed_bit_that_only_the_other_run_set_is_not_masked() -> None:
    native = paged()
    byte = native.pages[CODE_ENTRY & ~0xFFF][CODE_ENTRY & 0xFFF]
    cleared = with_byte(native, CODE_ENTRY, byte & ~ACCESSED)
    assert compare(cleared, native) is not None


def test_large_pages_with_code_are_masked_too() -> None:
    native = paged(large="0x83", go="mov eax, .there + 0x400000\njmp eax\n.there:")
    assert without_accessed(native, DIRECTORY + 4) is None
    read_only = paged(large="0x83", go="mov eax, [0x400000 + 0x130000]")
    # Read, not run; but code lies in the frames it maps, and a fetch leaves no other trace.
    assert without_accessed(read_only, DIRECTORY + 4) is None


def test_tables_are_found_from_every_root_that_events_saw() -> None:
    native = paged()
    moved = dataclasses.replace(native, roots=frozenset())
    assert without_accessed(moved, CODE_ENTRY) is not None


def test_sites_are_masked_to_the_byte() -> None:
    at = address_of("word_of_ours")
    other = with_byte(seen(), at, 0)
    assert compare(seen(), other, sites=[range(at, at + 1)]) is None
    assert compare(seen(), other, sites=[range(at + 1, at + 4), range(at - 8, at)]) is not None


# -- Lockstep -------------------------------------------------------------------------------------


def native_run() -> NativeRun:
    return NativeRun(program(), ram=RAM)


class Sabotaged(NativeRun):
    """A run that goes wrong once: what `spoil` does happens at the end of tick `when`."""

    def __init__(self, image: Any, when: int, spoil: Callable[[Any], None], ram: str = RAM) -> None:
        super().__init__(image, ram=ram)
        self.when, self.spoil = when, spoil

    def run(self, max_ticks: int) -> Result:
        if self.machine.ticks < self.when <= max_ticks:
            super().run(self.when)
            if self.machine.ticks == self.when:
                self.spoil(self.machine)
        return super().run(max_ticks)


def poke_register(machine: Any) -> None:
    machine.cpu.state.gpr[3] ^= 0x100


def poke_memory(machine: Any) -> None:
    machine.memory.write(0x150000, b"\x01")


def poke_flags(machine: Any) -> None:
    machine.cpu.state.eflags ^= 0x1000


@pytest.mark.parametrize("spoil", [poke_register, poke_memory])
def test_the_instruction_is_named(spoil: Callable[[Any], None]) -> None:
    """Whatever is spoilt, at every tick: the instruction that ran there is named."""
    ticks = seen().ending.tick
    for when in range(1, ticks + 1):
        found = first_difference(
            native_run, lambda when=when: Sabotaged(program(), when, spoil), max_ticks=TICKS
        )
        assert found is not None
        assert found.tick == when - 1


def test_a_difference_that_heals_is_none() -> None:
    """The handler's IRET takes its flags from the frame: IOPL, spoilt in the handler, is right
    again before anybody looked."""
    (event,) = seen().events
    found = first_difference(
        native_run, lambda: Sabotaged(program(), event.tick + 1, poke_flags), max_ticks=TICKS
    )
    assert found is None


def found_in_loop(ticks: int, when: int, spoil: Callable[[Any], None]) -> Divergence | None:
    source = "start: mov ecx, 0\n.again: inc ecx\nmov [0x150000 + ecx * 4], al\njmp .again\n"
    image = assemble(source)
    return first_difference(
        lambda: NativeRun(image, ram=RAM),
        lambda: Sabotaged(image, when, spoil),
        max_ticks=ticks,
        name="spoilt",
    )


def test_a_long_run_is_searched() -> None:
    found = found_in_loop(50_000, 31_415, poke_register)
    assert found is not None
    assert (found.tick, found.text) == (31_414, "inc ecx")
    assert found.place.startswith("start.again")
    assert found.difference.reason == "ebx at the end: native 0x0; spoilt 0x100"
    assert str(found).startswith("tick 31414: inc ecx at 0x100005 in ")


def test_equal_runs_have_no_difference() -> None:
    assert first_difference(native_run, native_run, max_ticks=TICKS) is None


def test_a_trap_that_should_not_be_is_named() -> None:
    """--virtualizable makes POPF trap in ring 3: that is the first difference of its probe."""
    guest = find("probe_popf")
    image = assemble_file(guest.source, include=guest.includes)
    found = first_difference(
        lambda: NativeRun(image), lambda: NativeRun(image, virtualizable=["popf"])
    )
    assert found is not None
    assert found.text == "popf"
    assert found.difference.what == "event"
    assert "vector 13 (#GP)" in found.difference.reason
    assert "probe_popf.asm" in found.place


def test_a_difference_only_in_how_it_stops_is_named() -> None:
    """At one tick one powers off and the other goes on: the OUT did it."""

    def deaf(machine: Any) -> None:
        vars(machine.board.bus)["port_write"] = lambda port, size, value: None

    last = seen().ending.tick - 1
    found = first_difference(native_run, lambda: Sabotaged(program(), last, deaf), max_ticks=TICKS)
    assert found is not None
    assert found.tick == last
    assert found.text == "out 0xf4, al"


def test_runs_that_are_not_deterministic_are_refused() -> None:
    started = []

    def other() -> NativeRun:
        started.append(1)
        when = 10 if len(started) == 1 else 10**9
        return Sabotaged(program(), when, poke_memory)

    with pytest.raises(RuntimeError, match="not deterministic"):
        first_difference(native_run, other, max_ticks=TICKS)
