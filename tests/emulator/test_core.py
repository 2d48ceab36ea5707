"""The wrapper of the core: names from the core, state in and out, and the check that it is ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

from emulator import CoreError, Machine, core
from emulator.build_core import ROOT
from emulator.core import Cpu, EventKind, ExitReason, PageFlag, TraceKind, Unsupported, lib
from isa import assemble


@pytest.fixture
def machine() -> Machine:
    return Machine(ram="4M")


@pytest.mark.parametrize(
    ("enum", "prefix"),
    [
        (ExitReason, "EXIT_"),
        (Unsupported, "UNSUPPORTED_"),
        (PageFlag, "PAGE_"),
        (TraceKind, "TRACE_"),
        (EventKind, "EVENT_"),
    ],
)
def test_enums_are_the_cores_own(enum, prefix):
    assert len(enum) > 2
    for member in enum:
        assert getattr(lib, prefix + member.name) == member.value


def test_registers_by_name(machine):
    cpu = machine.cpu
    for value, name in enumerate((*core.GENERAL, "eip", "cr3"), start=0x1000):
        cpu[name] = value
        assert cpu[name] == value
        assert getattr(cpu.registers, name) == value
    assert cpu["cs"] == 8
    for name in ("cs", "rax"):
        with pytest.raises(KeyError):
            cpu[name] = 0
    with pytest.raises(KeyError):
        cpu["rax"]


def test_the_exit_record_in_one_read(machine):
    machine.load(assemble("nop\nmov edx, 0x1234\nin ax, dx"))
    assert machine.cpu.run(100) == ExitReason.PORT_READ
    record = machine.cpu.exit
    assert (record.reason, record.port, record.size, record.count) == (3, 0x1234, 2, 1)
    assert (record.eip, record.length) == (0x100006, 2)
    assert machine.cpu.port_access()[:3] == (0x1234, 2, 1)
    machine.cpu.complete(0xBEEF)
    machine.cpu.run(3)
    assert machine.cpu["eax"] == 0xBEEF


def test_what_handlers_read_of_an_event(machine):
    machine.load(assemble("int 0x99\nmov eax, 0x28\nmov ds, ax"))
    cpu = machine.cpu
    for vector in (13, 0x99):
        cpu.state.intercepts.vectors[vector >> 3] |= 1 << (vector & 7)
    for kind, vector in ((EventKind.SOFTWARE, 0x99), (EventKind.EXCEPTION, 13)):
        assert cpu.run(100) == ExitReason.EVENT
        record = cpu.exit
        assert cpu.event() == (record.eip, record.vector, record.kind)
        assert (record.vector, record.kind) == (vector, kind)
        assert cpu.fault() == (record.row, record.length, record.eip, record.error)
        cpu.retire(record.eip + record.length)
    assert (record.length, record.error) == (2, 0x28)


def test_a_field_of_the_state_as_an_array(machine):
    cpu = machine.cpu
    registers, flags, tick = cpu.field("gpr"), cpu.field("eflags"), cpu.field("tick")
    registers[core.GENERAL.index("edi")] = 0xFFFF_FFFF
    cpu.state.tick = 1 << 40
    assert cpu["edi"] == 0xFFFF_FFFF
    assert (len(registers), tick[0], flags[0]) == (9, 1 << 40, cpu["eflags"])
    cpu.load(cpu.save())
    tick[0] += 1
    assert machine.ticks == (1 << 40) + 1


def test_a_saved_cpu_goes_on_in_another(machine):
    machine.load(assemble("mov ecx, 1000\nl: inc eax\nloop l\nhlt"))
    machine.cpu.run(777)
    saved = machine.cpu.save()
    other = Cpu(machine.memory.machine)
    other.load(saved)
    assert other.registers == machine.cpu.registers
    assert other.save() == saved
    assert other.run(10_000) == machine.cpu.run(10_000) == ExitReason.HALT
    assert other.registers == machine.cpu.registers


@pytest.mark.parametrize("change", [lambda s: b"", lambda s: s[:-1], lambda s: b"\xff" + s[1:]])
def test_bytes_that_are_no_cpu_are_refused(machine, change):
    with pytest.raises(CoreError, match="another version"):
        machine.cpu.load(change(machine.cpu.save()))


def test_memory_by_linear_address_is_short_where_it_is_not_mapped(machine):
    machine.memory.write(0x200000, b"data")
    assert machine.cpu.read_linear(0x200000, 4) == b"data"
    assert len(machine.cpu.read_linear(0x3FFFFE, 4)) <= 4


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_core_of_another_table_is_refused():
    code = "import isa.fingerprint as f; f.matches = lambda built: False; import emulator.core"
    done = python(code)
    assert done.returncode == 1
    assert "CoreError: stale core: rebuild with pip install -e ." in done.stderr


def test_a_missing_core_is_named():
    code = "import sys; sys.modules['emulator._core'] = None; import emulator.core"
    done = python(code)
    assert done.returncode == 1
    assert "CoreError: no compiled core" in done.stderr


def test_machines_come_and_go():
    for _ in range(20):
        machine = Machine(ram="2M")
        machine.load(assemble("hlt"))
        machine.run()
    del machine
