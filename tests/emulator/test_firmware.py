"""What a PC's firmware leaves in memory (MultiProcessor Specification 1.4)."""

from __future__ import annotations

import struct

import pytest

from emulator import Machine
from emulator.memory import ROM
from hypervisor.vm import VirtualMachine
from isa import assemble

HALT = assemble("cli\nhlt")


def loaded(machine: str) -> Machine:
    found = Machine(ram="4M", machine=machine)
    found.load(HALT)
    return found


def test_the_bios_data_area_tells_of_conventional_memory():
    memory = loaded("pc").memory
    assert memory.u16(0x413) == 639
    assert memory.u16(0x40E) << 4 == 639 << 10
    assert memory.u8(639 << 10) == 1
    assert memory.u16(0x400) == 0x3F8


def test_the_mp_tables_are_found_and_add_up():
    memory = loaded("apic").memory
    pointer = memory.read(ROM.start, 16)
    signature, table, paragraphs, revision = struct.unpack_from("<4sIBB", pointer)
    assert (signature, paragraphs, revision) == (b"_MP_", 1, 4)
    assert sum(pointer) & 0xFF == 0
    assert pointer[12] & 0x80 == 0  # virtual wire mode
    _, length = struct.unpack("<4sH", memory.read(table, 6))
    data = memory.read(table, length)
    assert data[:4] == b"PCMP"
    assert sum(data) & 0xFF == 0
    assert struct.unpack_from("<I", data, 36)[0] == 0xFEE00000


def test_the_mp_tables_name_what_there_is():
    memory = loaded("apic").memory
    table = memory.u32(ROM.start + 4)
    count, at = memory.u16(table + 34), table + 44
    entries = []
    for _ in range(count):
        size = 20 if memory.u8(at) == 0 else 8
        entries.append(memory.read(at, size))
        at += size
    assert at == table + memory.u16(table + 4)
    cpu, bus, chip = entries[:3]
    assert (cpu[1], cpu[3]) == (0, 3)
    assert bus[2:] == b"ISA   "
    assert struct.unpack("<BBBBI", chip) == (2, 1, 0x11, 1, 0xFEC00000)
    wired = {entry[5]: entry[7] for entry in entries if entry[0] == 3 and entry[1] == 0}
    assert wired == {0: 2, **{n: n for n in (1, *range(3, 16))}}
    assert [entry[1:2] + entry[7:] for entry in entries if entry[0] == 4] == [b"\3\0", b"\1\1"]


def test_the_cpu_in_the_tables_is_the_one_that_there_is():
    machine = Machine(ram="4M", machine="apic")
    machine.load(assemble("mov eax, 1\ncpuid\ncli\nhlt"))
    registers = machine.run().registers
    entry = machine.memory.u32(ROM.start + 4) + 44
    assert machine.memory.u32(entry + 4) == registers.eax
    assert machine.memory.u32(entry + 8) == registers.edx
    assert registers.edx >> 9 & 1


def test_without_apic_there_are_no_tables():
    machine = Machine(ram="4M")
    machine.load(assemble("mov eax, 1\ncpuid\ncli\nhlt"))
    assert not machine.run().registers.edx >> 9 & 1
    assert b"_MP_" not in machine.memory.read(ROM.start, len(ROM))


@pytest.mark.parametrize("kind", [Machine, VirtualMachine])
def test_the_tables_cannot_be_written(kind):
    machine = kind(ram="4M", machine="apic")
    source = f"mov dword [{ROM.start}], 0\nmov eax, [{ROM.start}]\ncli\nhlt"
    for _ in range(2):  # nor does loading again wear them
        machine.load(assemble(source))
        assert machine.run().registers.eax == int.from_bytes(b"_MP_", "little")
