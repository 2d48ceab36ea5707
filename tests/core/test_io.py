"""Ports: values, the I/O permission of IOPL and bitmap, and the string forms in bulk."""

from __future__ import annotations

import pytest

from emulator.core import ExitReason, PageFlag, lib
from tests.core.lab import (
    CODE,
    DATA,
    FREE,
    GP,
    PF,
    TSS,
    Lab,
    Outcome,
    descriptor,
)

BITMAP = 0x68  #: offset in the TSS


@pytest.fixture
def lab() -> Lab:
    return Lab()


class Ports:
    """Answers every port exit; `log` is what a device would have seen."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.log: list[tuple[str, int, int, int]] = []  #: (direction, port, size, value)
        self.exits = 0
        self.counter = 0

    def element(self, size: int) -> int:
        self.counter += 1
        return self.counter * 0x01020304 & (1 << size * 8) - 1

    def answer(self, reason: int) -> None:
        record, cpu = self.lab.cpu.exit, self.lab.cpu
        self.exits += 1
        if reason == ExitReason.PORT_READ:
            values = [self.element(record.size) for _ in range(record.count)]
            self.log += [("in", record.port, record.size, value) for value in values]
            if record.count == 1:
                cpu.complete(values[0])
            else:
                cpu.complete_bytes(b"".join(v.to_bytes(record.size, "little") for v in values))
        else:
            data = bytes(cpu.exit_data[: record.count * record.size])
            values = [record.value] if record.count == 1 else [
                int.from_bytes(data[i : i + record.size], "little")
                for i in range(0, len(data), record.size)
            ]  # fmt: skip
            self.log += [("out", record.port, record.size, value) for value in values]
            cpu.complete(0)

    def run(self, source: str, step: int = 1_000_000) -> Outcome:
        """Run to the end, at most `step` ticks a run."""
        self.lab.load(source)
        while True:
            outcome = self.lab.go(step)
            if outcome.reason == ExitReason.DEADLINE:
                continue
            if outcome.reason not in (ExitReason.PORT_READ, ExitReason.PORT_WRITE):
                return outcome
            self.answer(outcome.reason)


@pytest.fixture
def ports(lab: Lab) -> Ports:
    return Ports(lab)


def test_in_and_out(lab: Lab, ports: Ports) -> None:
    ports.run(
        """
        mov eax, 0xAABBCCDD
        mov edx, 0x123F8
        out 0x80, al
        out 0x81, ax
        out dx, eax
        in al, 0x82
        mov ebx, eax
        in ax, dx
        mov ecx, eax
        in eax, 0xFF
        hlt
        """
    )
    assert ports.log == [
        ("out", 0x80, 1, 0xDD), ("out", 0x81, 2, 0xCCDD), ("out", 0x23F8, 4, 0xAABBCCDD),
        ("in", 0x82, 1, 0x04), ("in", 0x23F8, 2, 0x0608), ("in", 0xFF, 4, 0x0306090C),
    ]  # fmt: skip
    assert lab.cpu["ebx"] == 0xAABBCC04
    assert lab.cpu["ecx"] == 0xAABB0608
    assert lab.cpu["eax"] == 0x0306090C
    assert lab.state.tick == 11


def test_an_access_retires_with_its_answer(lab: Lab) -> None:
    lab.load("nop\nin al, 0x60\nhlt")
    assert lab.go().reason == ExitReason.PORT_READ
    assert (lab.state.tick, lab.cpu["eip"], lab.cpu.exit.eip) == (1, CODE + 1, CODE + 1)
    assert lab.cpu.exit.length == 2
    saved = lab.cpu.save()
    lab.cpu.complete(0x55)
    assert (lab.state.tick, lab.cpu["eax"]) == (1, 0)
    answered = lab.cpu.save()
    assert lab.go(1).reason == ExitReason.DEADLINE
    assert (lab.state.tick, lab.cpu["eax"], lab.cpu["eip"]) == (2, 0x55, CODE + 3)
    cycle = lab.state.cycle
    lab.cpu.load(answered)  # the answer is part of the state
    lab.go(1)
    assert (lab.cpu["eax"], lab.state.cycle) == (0x55, cycle)
    lab.cpu.load(saved)  # and without it the exit comes again
    assert lab.go().reason == ExitReason.PORT_READ
    lab.cpu.complete(0x66)
    lab.go(1)
    assert (lab.cpu["eax"], lab.state.cycle) == (0x66, cycle)


# -- Permission -----------------------------------------------------------------------------------


def allow(lab: Lab, port: int, allowed: bool) -> None:
    at = TSS + BITMAP + port // 8
    bit = 1 << port % 8
    byte = lab.memory.u8(at)
    lab.memory.write(at, bytes([byte & ~bit if allowed else byte | bit]))


def with_bitmap(lab: Lab, ports: int = 0x100) -> None:
    """A TSS with a bitmap for so many ports, all denied, and its final byte of ones."""
    lab.memory.write(TSS + 0x66, BITMAP.to_bytes(2, "little"))
    lab.memory.write(TSS + BITMAP, b"\xff" * (ports // 8 + 1))
    lab.state.tr.limit = BITMAP + ports // 8
    lab.ring(3)


@pytest.mark.parametrize(
    ("cpl", "iopl", "allowed"),
    [(0, 0, True), (1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True)],
)
def test_iopl(lab: Lab, cpl: int, iopl: int, allowed: bool) -> None:
    with_bitmap(lab)
    lab.ring(cpl)
    lab.cpu["eflags"] = iopl << 12 | 2
    lab.cpu["edx"], lab.cpu["ecx"], lab.cpu["edi"], lab.cpu["esi"] = 0x60, 1, DATA, DATA
    for source in ("in al, 0x60", "out dx, eax", "insb", "rep outsd"):
        outcome = lab.run(source)
        if allowed:
            assert outcome.reason in (ExitReason.PORT_READ, ExitReason.PORT_WRITE)
        else:
            assert outcome.fault == (GP, 0)
            lab.ring(cpl)
            lab.cpu["eflags"] = iopl << 12 | 2


@pytest.mark.parametrize(
    ("source", "port", "size"),
    [("in al, 0x47", 0x47, 1), ("out 0x46, ax", 0x46, 2), ("in eax, 0x4E", 0x4E, 4)],
)
def test_bitmap_needs_every_port_of_an_access(lab: Lab, source: str, port: int, size: int) -> None:
    with_bitmap(lab)
    for i in range(size):
        allow(lab, port + i, True)
    assert lab.run(source).reason in (ExitReason.PORT_READ, ExitReason.PORT_WRITE)
    for i in range(size):
        with_bitmap(lab)
        for other in range(size):
            allow(lab, port + other, other != i)
        assert lab.run(source).fault == (GP, 0)


def test_end_of_the_bitmap(lab: Lab) -> None:
    with_bitmap(lab, 0x80)
    for port in range(0x80):
        allow(lab, port, True)
    assert lab.run("in al, 0x7F").reason == ExitReason.PORT_READ
    assert lab.run("in ax, 0x7F").fault == (GP, 0)  # the final byte of ones
    lab.ring(3)
    assert lab.run("in al, 0x80").fault == (GP, 0)  # two bytes are read: beyond the limit
    lab.ring(3)
    lab.state.tr.limit -= 1
    assert lab.run("in al, 0x78").fault == (GP, 0)
    lab.ring(3)
    assert lab.run("in al, 0x77").reason == ExitReason.PORT_READ


def test_no_bitmap(lab: Lab) -> None:
    with_bitmap(lab)
    allow(lab, 0x60, True)
    lab.state.tr.limit = 0x66
    assert lab.run("in al, 0x60").fault == (GP, 0)
    lab.ring(3)
    lab.state.tr.limit = 0x200
    lab.state.tr.attributes = 0x83  # a TSS of 16 bits has none
    lab.state.intercepts.vectors[GP // 8] |= 1 << GP % 8
    assert lab.run("in al, 0x60").reason == ExitReason.EVENT


# -- Strings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7, 3000])
@pytest.mark.parametrize("step", [1_000_000, 5])
def test_rep_ins(lab: Lab, ports: Ports, size: int, down: bool, count: int, step: int) -> None:
    name = {1: "insb", 2: "insw", 4: "insd"}[size]
    start = DATA + 0xFF3 if not down else DATA + 0x4003
    lab.cpu["edi"], lab.cpu["ecx"], lab.cpu["edx"] = start, count, 0x1F0
    ports.run(f"{'std' if down else 'cld'}\nrep {name}\nhlt", step)
    values = [value for _, _, _, value in ports.log]
    assert values == [(i + 1) * 0x01020304 & (1 << size * 8) - 1 for i in range(count)]
    assert {entry[:3] for entry in ports.log} == {("in", 0x1F0, size)}
    move = -size if down else size
    for i, value in enumerate(values):
        stored = lab.memory.read(start + i * move, size)
        assert int.from_bytes(stored, "little") == value
    assert (lab.cpu["edi"], lab.cpu["ecx"]) == (start + count * move, 0)
    assert lab.state.tick == count + 2
    if not down and step > count and count > 10:
        # Two exits a page: one for the element that crosses into it.
        assert ports.exits <= 2 * (count * size // 4096 + 2)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 3000])
@pytest.mark.parametrize("step", [1_000_000, 7])
def test_rep_outs(lab: Lab, ports: Ports, size: int, count: int, step: int) -> None:
    name = {1: "outsb", 2: "outsw", 4: "outsd"}[size]
    data = bytes(i * 7 & 0xFF for i in range(count * size))
    lab.memory.write(DATA + 0xFFD, data)
    lab.cpu["esi"], lab.cpu["ecx"], lab.cpu["edx"] = DATA + 0xFFD, count, 0x3F8
    ports.run(f"rep {name}\nhlt", step)
    assert [value.to_bytes(size, "little") for *_, value in ports.log] == [
        data[i : i + size] for i in range(0, len(data), size)
    ]
    assert (lab.cpu["esi"], lab.cpu["ecx"]) == (DATA + 0xFFD + count * size, 0)
    assert lab.state.tick == count + 1


@pytest.mark.parametrize("name", ["insb", "outsd", "movsd", "stosb", "lodsw", "repne scasb"])
def test_cycles_do_not_depend_on_where_a_repeat_is_cut(name: str) -> None:
    cycles = set()
    for step in (1_000_000, 50, 3):
        lab = Lab()
        lab.cpu["esi"] = lab.cpu["edi"] = DATA + 0xFF0
        lab.cpu["ecx"], lab.cpu["eax"] = 1000, 1
        Ports(lab).run(f"{name if ' ' in name else f'rep {name}'}\nhlt", step)
        assert lab.state.tick == 1001
        cycles.add(lab.state.cycle)
    assert len(cycles) == 1


def test_nothing_to_repeat(lab: Lab, ports: Ports) -> None:
    assert ports.run("xor ecx, ecx\nrep insb\nrep outsd\nhlt").reason == ExitReason.HALT
    assert (ports.log, lab.state.tick) == ([], 4)


def test_single_string_instructions(lab: Lab, ports: Ports) -> None:
    lab.put32(DATA + 0x10, 0x11223344)
    lab.cpu["esi"], lab.cpu["edi"], lab.cpu["edx"] = DATA + 0x10, DATA, 0x70
    ports.run("outsw\ninsd\noutsb\nhlt")
    assert [entry[0] for entry in ports.log] == ["out", "in", "out"]
    assert (ports.log[0][3], ports.log[2][3]) == (0x3344, 0x22)
    assert lab.get32(DATA) == 0x01020304
    assert (lab.cpu["esi"], lab.cpu["edi"]) == (DATA + 0x13, DATA + 4)


def test_address_size_of_16_bits(lab: Lab, ports: Ports) -> None:
    lab.set_gdt(FREE, descriptor(DATA, 0xFFFF))
    lab.set_segment("es", FREE)
    lab.cpu["edi"], lab.cpu["ecx"], lab.cpu["edx"] = 0xABCDFFFE, 0x12340004, 0x70
    ports.run("a16 rep insb\nhlt")
    assert lab.memory.read(DATA + 0xFFFE, 2) == b"\x04\x08"
    assert lab.memory.read(DATA, 2) == b"\x0c\x10"
    assert (lab.cpu["edi"], lab.cpu["ecx"]) == (0xABCD0002, 0x12340000)


def test_outs_segment_override(lab: Lab, ports: Ports) -> None:
    lab.set_gdt(FREE, descriptor(DATA, 0xFFF))
    lab.set_segment("fs", FREE)
    lab.memory.write(DATA, b"abc")
    lab.cpu["esi"], lab.cpu["ecx"] = 0, 3
    ports.run("fs rep outsb\nhlt")
    assert [value for *_, value in ports.log] == [0x61, 0x62, 0x63]


def test_memory_faults_come_before_the_device(lab: Lab, ports: Ports) -> None:
    """An INS that cannot store must not read: the value would be lost."""
    lab.set_gdt(FREE, descriptor(DATA, 0x12))
    lab.set_segment("es", FREE)
    lab.cpu["edi"], lab.cpu["ecx"], lab.cpu["edx"] = 0x10, 8, 0x70
    outcome = ports.run("rep insb")
    assert outcome.fault == (GP, 0)
    assert len(ports.log) == 3
    assert (lab.cpu["edi"], lab.cpu["ecx"]) == (0x13, 5)
    assert outcome.frame is not None
    assert outcome.frame.eip == CODE


@pytest.mark.parametrize("source", ["insb", "rep insb", "rep insd", "outsb", "rep outsd"])
def test_page_faults_come_before_the_device(lab: Lab, ports: Ports, source: str) -> None:
    directory, table = 0x300000, 0x301000
    lab.put32(directory, table | 7)
    for page in range(1024):
        lab.put32(table + page * 4, page << 12 | 7)
    lab.put32(table + (DATA >> 12) * 4 + 4, 0)
    lab.cpu["cr3"] = directory
    lab.cpu["cr0"] |= 0x80000000
    lab.cpu["edi"] = lab.cpu["esi"] = DATA + 0x1000
    lab.cpu["ecx"] = 5
    assert ports.run(source).vector == PF
    assert lab.cpu["cr2"] == DATA + 0x1000
    assert ports.log == []
    lab.cpu["edi"] = lab.cpu["esi"] = DATA + 0x1000 - 8
    lab.cpu["ecx"] = 100
    outcome = ports.run(f"{source}\nhlt")
    if source.startswith("rep"):
        assert outcome.vector == PF
        assert len(ports.log) == (8 if source.endswith("b") else 2)
        assert max(lab.cpu["edi"], lab.cpu["esi"]) == DATA + 0x1000


def test_ins_to_code_and_watched_pages(lab: Lab, ports: Ports) -> None:
    """INS rewrites an instruction of a block that has run."""
    lab.memory.write(DATA, b"\xb8\x01\x00\x00\x00\xc3")  # mov eax, 1; ret
    lab.cpu["edi"], lab.cpu["ecx"] = DATA + 1, 2
    ports.run("call DATA\nmov ebx, eax\nrep insb\ncall DATA\nhlt")
    assert (lab.cpu["ebx"], lab.cpu["eax"]) == (1, 0x0804)
    lab.memory.set_flags(range(DATA + 0x1000, DATA + 0x2000), set_=PageFlag.WATCHED)
    lab.cpu["edi"], lab.cpu["ecx"] = DATA + 0x1000, 2
    assert ports.run("rep insb\nhlt").reason == ExitReason.WATCH
    assert lab.cpu["ecx"] == 1
    assert (lab.cpu.exit.address, lab.cpu.exit.size) == (DATA + 0x1000, 1)


def test_bulk_ins_is_logged_as_dirty(lab: Lab, ports: Ports) -> None:
    lab.memory.set_flags(range(DATA, DATA + 0x1000), set_=PageFlag.DIRTY_LOG)
    lab.cpu["edi"], lab.cpu["ecx"] = DATA + 8, 100
    ports.run("rep insd\nhlt")
    assert lib.machine_dirty(lab.memory.machine)[DATA >> 12] == 1
    assert lab.get32(DATA + 8 + 99 * 4) == 100 * 0x01020304


def test_an_interrupt_between_iterations(lab: Lab) -> None:
    lab.cpu["eflags"] = 0x202
    lab.cpu["edi"], lab.cpu["ecx"] = DATA, 10
    lab.load("rep insb\nhlt")
    assert lab.cpu.run(0) == ExitReason.DEADLINE
    assert lab.cpu.run(3) == ExitReason.PORT_READ
    assert lab.cpu.exit.count == 3  # no further than the deadline
    lab.cpu.complete_bytes(b"abc")
    lab.state.interrupt_line = 1  # must not be taken before the answer is used
    assert lab.cpu.run(3) in (ExitReason.DEADLINE, ExitReason.INTERRUPT)
    assert (lab.state.tick, lab.cpu["ecx"], lab.cpu["edi"]) == (3, 7, DATA + 3)
    assert lab.cpu.run(100) == ExitReason.INTERRUPT
    assert lab.memory.read(DATA, 4) == b"abc\0"
    assert lab.cpu["eip"] == CODE


def test_a_single_answer_to_a_bulk_exit_is_one_element(lab: Lab) -> None:
    lab.cpu["edi"], lab.cpu["ecx"] = DATA, 10
    lab.load("rep insb\nhlt")
    assert lab.go().reason == ExitReason.PORT_READ
    assert lab.cpu.exit.count == 10
    lab.cpu.complete(0x41)
    assert lab.go().reason == ExitReason.PORT_READ
    assert lab.cpu.exit.count == 9
    assert lab.memory.read(DATA, 2) == b"A\0"


def test_outs_from_a_device(lab: Lab) -> None:
    """Two answers of one instruction: the load's, then the write's."""
    lab.memory.set_flags(range(DATA, DATA + 0x1000), set_=PageFlag.MMIO)
    lab.cpu["esi"], lab.cpu["edx"] = DATA, 0x70
    lab.load("outsd\nhlt")
    assert lab.go().reason == ExitReason.MMIO_READ
    lab.cpu.complete(0xFEEDF00D)
    assert lab.go().reason == ExitReason.PORT_WRITE
    assert lab.cpu.exit.value == 0xFEEDF00D
    lab.cpu.complete(0)
    assert lab.go().reason == ExitReason.HALT
    assert lab.cpu["esi"] == DATA + 4


def test_ins_to_a_device_is_posted(lab: Lab) -> None:
    lab.memory.set_flags(range(DATA, DATA + 0x1000), set_=PageFlag.MMIO)
    lab.cpu["edi"], lab.cpu["ecx"] = DATA, 2
    lab.load("rep insb\nhlt")
    for i in range(2):
        assert lab.go().reason == ExitReason.PORT_READ
        lab.cpu.complete(0x41 + i)
        assert lab.go().reason == ExitReason.MMIO_WRITE
        assert lab.cpu.posted == [(DATA + i, 1, 0x41 + i)]
    assert lab.go().reason == ExitReason.HALT
