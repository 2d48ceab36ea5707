"""Hypercalls: what each does, and that no argument makes one do more.

A `Caller` is a machine about to execute INT, beside a neighbour on the same host. Whatever a call
is given, it returns a result or an error of the table, or the machine stops with a reason; nothing
of the neighbour's, the host's or the monitor area changes.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.core import GENERAL, SEGMENTS
from emulator.loader import HOLE
from emulator.result import Stop
from hypervisor import segments
from hypervisor.calls import MOST_BYTES, MOST_CALLS, MOST_UPDATES
from hypervisor.host import Host
from hypervisor.hypercalls import (
    ARGUMENT_REGISTERS,
    BY_NAME,
    ERROR_VALUES,
    HYPERCALLS,
    VERSION,
)
from hypervisor.monitor import MONITOR
from hypervisor.vm import VirtualMachine
from isa import assemble
from isa.paravirt import HYPERCALL_VECTOR, HYPERVISOR, VCPU_AREA_BYTES

RAM: Final = 2 << 20
PAGE: Final = 4096
CODE, BUFFER, TSS, DIRECTORY, TABLE = 0x100000, 0x140000, 0x150000, 0x160000, 0x161000
#: With paging on: a page that may only be read, one that is absent, and one that is no memory.
READ_ONLY, ABSENT, NO_MEMORY = 0x180000, 0x181000, 0x182000
PRESENT, WRITABLE, ACCESSED = 1, 2, 0x20
CR0_PAGING: Final = 0x8001_0000
MULTICALL: Final = struct.Struct("<6I")
EFAULT, EINVAL, ENOSYS = (ERROR_VALUES[name] for name in ("EFAULT", "EINVAL", "ENOSYS"))
PROGRAM: Final = assemble(f"again: int {HYPERCALL_VECTOR:#x}\njmp again", paravirt=HYPERVISOR)


class Caller:
    """A machine that calls, and its neighbour."""

    def __init__(self, *, paging: bool = False) -> None:
        self.host = Host(2 * RAM, guests=2)
        self.neighbour = VirtualMachine(technique="paravirt", ram=RAM, host=self.host)
        self.neighbour.load(PROGRAM)
        self.neighbour.memory.write(BUFFER, b"neighbour" * 1000)
        self.neighbour.run(1)
        self.vm = VirtualMachine(technique="paravirt", ram=RAM, host=self.host)
        self.vm.load(PROGRAM)
        self.state = self.vm.cpu.state
        tr = self.state.tr
        tr.base, tr.limit, tr.attributes = TSS, 103, 0x8B
        if paging:
            self._turn_paging_on()

    def _turn_paging_on(self) -> None:
        entries = [at | PRESENT | WRITABLE for at in range(0, RAM, PAGE)]
        entries[READ_ONLY // PAGE] &= ~WRITABLE
        entries[ABSENT // PAGE] = 0
        entries[NO_MEMORY // PAGE] = 0x7000_0000 | PRESENT | WRITABLE
        self.write(TABLE, struct.pack(f"<{len(entries)}I", *entries))
        # The monitor area's addresses may mean something to the guest.
        self.write(DIRECTORY, struct.pack("<I", TABLE | PRESENT | WRITABLE))
        self.write(DIRECTORY + 4 * (MONITOR >> 22), struct.pack("<I", TABLE | PRESENT | WRITABLE))
        self.state.cr3 = DIRECTORY
        self.state.cr0 |= CR0_PAGING

    def write(self, address: int, data: bytes) -> None:
        self.vm.memory.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return self.vm.memory.read(address, size)

    def call(self, number: int | str, *arguments: int) -> int:
        """Make a call; its result, signed."""
        self.begin(BY_NAME[number].number if isinstance(number, str) else number, arguments)
        result: int = self.state.gpr[GENERAL.index("eax")]
        return result - (1 << 32) if result >> 31 else result

    def begin(self, number: int, arguments: tuple[int, ...]) -> Any:
        registers = dict(zip(ARGUMENT_REGISTERS, arguments, strict=False)) | {"eax": number}
        for name, value in registers.items():
            self.state.gpr[GENERAL.index(name)] = value
        self.state.eip = CODE
        return self.vm.run(self.vm.ticks + 1)

    def surroundings(self) -> tuple[object, ...]:
        """All that is not the caller's."""
        monitor = [
            vm.monitor.read(page, PAGE)
            for vm in (self.vm, self.neighbour)
            for page in sorted(vm.monitor._frames)
            if vm is self.neighbour or page >= MONITOR + VCPU_AREA_BYTES
        ]
        return dict(self.neighbour.memory.pages()), monitor


# -- What each does --------------------------------------------------------------------------------


def test_vm_info() -> None:
    caller = Caller()
    assert caller.call("vm_info", BUFFER) == 0
    assert struct.unpack("<4I", caller.read(BUFFER, 16)) == (
        VERSION, len(HYPERCALLS), RAM, 100_000_000,
    )  # fmt: skip


def test_console_write() -> None:
    caller = Caller()
    caller.write(BUFFER, b"hello\n")
    assert caller.call("console_write", BUFFER, 6) == 6
    assert caller.call("console_write", BUFFER, 0) == 0
    assert caller.vm.result().output == b"hello\n"
    assert caller.call("console_write", BUFFER, MOST_BYTES + 1) == EINVAL


def test_yield_ends_the_turn() -> None:
    caller = Caller()
    assert caller.call("yield") == 0
    assert caller.vm.turn_ended


def test_get_time() -> None:
    caller = Caller()
    for _ in range(3):
        assert caller.call("get_time", BUFFER) == 0
        assert struct.unpack("<Q", caller.read(BUFFER, 8)) == (caller.vm.ticks,)


def test_where_the_guest_has_just_stored() -> None:
    """A call writes there on the real CPU; not across a page, and not into a page table unseen."""
    entry = TABLE + 4 * (ABSENT // PAGE)
    places = BUFFER, BUFFER + PAGE - 4, entry
    text = "".join(f"""
        mov byte [{place:#x}], 1
        mov ebx, {place:#x}
        mov eax, {BY_NAME["get_time"].number}
        int {HYPERCALL_VECTOR:#x}""" for place in places)  # fmt: skip
    caller = Caller(paging=True)
    caller.vm.load(assemble(f"nop\n{text}\nmov ecx, [{ABSENT:#x}]\nhlt", paravirt=HYPERVISOR))
    caller.write(0, b"page")
    caller._turn_paging_on()
    assert caller.vm.run(100).stop is Stop.HALTED
    for place, time in zip(places, (5, 9, 13 | ACCESSED), strict=True):
        assert struct.unpack("<Q", caller.read(place, 8)) == (time,)
    assert caller.state.gpr[GENERAL.index("ecx")] == int.from_bytes(b"page", "little")


@pytest.mark.parametrize("paging", [False, True])
def test_mmu_update(paging: bool) -> None:
    caller = Caller(paging=paging)
    entry, value = TABLE + 4 * (ABSENT // PAGE), BUFFER | PRESENT | WRITABLE
    caller.write(BUFFER, struct.pack("<4I", entry, value, entry + 0x800, 7))
    if paging:
        assert caller.call("get_time", ABSENT) == EFAULT
    assert caller.call("mmu_update", BUFFER, 2) == 2
    assert struct.unpack("<I", caller.read(entry, 4)) == (value,)
    assert struct.unpack("<I", caller.read(entry + 0x800, 4)) == (7,)
    if paging:
        assert caller.call("get_time", ABSENT) == 0
        assert struct.unpack("<Q", caller.read(BUFFER, 8)) == (caller.vm.ticks,)


@pytest.mark.parametrize("entry", [2, HOLE.start, RAM, RAM - 2, 0xFFFF_FFFC, MONITOR])
def test_mmu_update_changes_all_or_nothing(entry: int) -> None:
    caller = Caller()
    caller.write(BUFFER, struct.pack("<4I", TABLE, 1, entry, 2))
    assert caller.call("mmu_update", BUFFER, 2) == EINVAL
    assert caller.read(TABLE, 4) == bytes(4)


def test_set_kernel_stack() -> None:
    caller = Caller()
    assert caller.call("set_kernel_stack", 0x10, 0x123450) == 0
    assert struct.unpack("<II", caller.read(TSS + 4, 8)) == (0x123450, 0x10)
    assert caller.call("set_kernel_stack", 0x11, 0) == EINVAL
    assert caller.call("set_kernel_stack", 0x10010, 0) == EINVAL
    caller.state.tr.limit = 8
    assert caller.call("set_kernel_stack", 0x10, 0) == EINVAL
    caller.state.tr.attributes |= segments.UNUSABLE
    assert caller.call("set_kernel_stack", 0x10, 0) == EINVAL


def test_multicall() -> None:
    caller = Caller()
    numbers = {name: BY_NAME[name].number for name in BY_NAME}
    calls = [
        (numbers["get_time"], BUFFER + 0x800, 0, 0, 0, 99),
        (numbers["multicall"], BUFFER, 1, 0, 0, 99),
        (1000, 0, 0, 0, 0, 99),
        (numbers["console_write"], BUFFER, 2, 0, 0, 99),
        (numbers["yield"], 0, 0, 0, 0, 99),
        (numbers["get_time"], BUFFER, 0, 0, 0, 99),
    ]
    caller.write(BUFFER, b"".join(MULTICALL.pack(*call) for call in calls))
    assert caller.call("multicall", BUFFER, len(calls)) == 5
    results = [MULTICALL.unpack(caller.read(BUFFER + 24 * i, 24))[5] for i in range(len(calls))]
    assert results == [0, EINVAL % 2**32, ENOSYS % 2**32, 2, 0, 99]
    assert caller.call("multicall", BUFFER, MOST_CALLS + 1) == EINVAL


@pytest.mark.parametrize("status", [0, 5, 63])
def test_shutdown(status: int) -> None:
    caller = Caller()
    result = caller.begin(BY_NAME["shutdown"].number, (status,))
    assert (result.stop, result.status) == (Stop.POWERED_OFF, status)
    assert Caller().call("shutdown", 64) == EINVAL


def test_a_call_is_one_tick_and_keeps_all_else() -> None:
    caller = Caller()
    caller.state.eflags = 0x2 | 0x8D5
    for number, name in enumerate(GENERAL):
        if name not in ("eax", "ebx"):
            caller.state.gpr[number] = 0x1111_1111 * (number + 1)
    before = list(caller.state.gpr)
    assert caller.call("get_time", BUFFER) == 0
    assert caller.vm.ticks == 1
    after = list(caller.state.gpr)
    assert after[1:3] + after[4:] == before[1:3] + before[4:]
    assert caller.state.eflags == 0x2 | 0x8D5
    assert caller.state.eip == CODE + 2


# -- What none does --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", [READ_ONLY, ABSENT, NO_MEMORY, READ_ONLY - 4, 0x4000_0000, 0xFFFF_FFFC]
)
@pytest.mark.parametrize("name", ["vm_info", "get_time"])
def test_what_cannot_be_written_is_not(name: str, where: int) -> None:
    caller = Caller(paging=True)
    for page in (READ_ONLY, READ_ONLY - PAGE):
        caller.write(page, b"mine" * 1024)
    assert caller.call(name, where) == EFAULT
    for page in (READ_ONLY, READ_ONLY - PAGE):
        assert caller.read(page, PAGE) == b"mine" * 1024


@pytest.mark.parametrize("where", [HOLE.start, RAM, RAM - 4, 0x7000_0000, MONITOR, 0xFFFF_FFFC])
@pytest.mark.parametrize("name", ["vm_info", "get_time"])
def test_without_paging_too(name: str, where: int) -> None:
    assert Caller().call(name, where) == EFAULT


def test_a_program_in_ring_3_is_not_answered() -> None:
    caller = Caller()
    for name in SEGMENTS:
        register = caller.state.seg[SEGMENTS.index(name)]
        register.attributes |= 3 << segments.DPL_SHIFT
        register.selector |= 3
    caller.state.cpl = 3
    result = caller.begin(BY_NAME["shutdown"].number, (0,))
    assert result.stop is Stop.TRIPLE_FAULT  # there is no IDT


addresses = st.one_of(
    st.integers(0, 0xFFFF_FFFF),
    st.integers(0, RAM + PAGE),
    st.builds(
        lambda at, offset: (at + offset) & 0xFFFF_FFFF,
        st.sampled_from([BUFFER, CODE, TSS, DIRECTORY, TABLE, READ_ONLY, ABSENT, NO_MEMORY, RAM,
                         HOLE.start, MONITOR, MONITOR + 0x10000, 0]),
        st.integers(-32, 32),
    ),
)  # fmt: skip
counts = st.one_of(
    st.integers(0, 40),
    st.sampled_from([MOST_BYTES, MOST_BYTES + 1, MOST_CALLS, MOST_UPDATES, 0xFFFF_FFFF, 1 << 31]),
    st.integers(0, 0xFFFF_FFFF),
)
words = st.one_of(addresses, counts)
numbers = st.one_of(st.integers(0, len(HYPERCALLS)), st.integers(0, 0xFFFF_FFFF))
calls = st.tuples(numbers, addresses, words, words, words)
batches = st.lists(st.tuples(numbers, addresses, words, words, words, words), max_size=12)


def check_calls(paging: bool, batch: list[Any], made: list[Any]) -> None:
    caller = Caller(paging=paging)
    caller.write(BUFFER, b"".join(MULTICALL.pack(*call) for call in batch))
    before = caller.surroundings()
    for number, *arguments in [(BY_NAME["multicall"].number, BUFFER, len(batch)), *made]:
        result = caller.begin(number, tuple(arguments))
        assert caller.surroundings() == before
        if result.stop is not Stop.OUT_OF_TICKS:
            assert "\n" not in result.reason
            break
        value = caller.state.gpr[GENERAL.index("eax")]
        assert value - (1 << 32) in ERROR_VALUES.values() or value <= MOST_BYTES
    assert caller.vm.host.cpu.state.retired_cpl0 == 0


UNHURRIED: Final = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, suppress_health_check=UNHURRIED)
@given(st.booleans(), batches, st.lists(calls, max_size=4))
def test_no_call_does_more_than_it_may(paging: bool, batch: list[Any], made: list[Any]) -> None:
    check_calls(paging, batch, made)


@pytest.mark.deep
@settings(max_examples=1500, suppress_health_check=UNHURRIED)
@given(st.booleans(), batches, st.lists(calls, max_size=8))
def test_no_call_does_more_deep(paging: bool, batch: list[Any], made: list[Any]) -> None:
    check_calls(paging, batch, made)
