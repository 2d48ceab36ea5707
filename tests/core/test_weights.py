"""Retire weights: instructions that are part of another guest instruction take no tick.

Paravirtual sites, and later translated and patched code, have several instructions for one of the
guest's. Guest time must not see them (csrc/api.h, machine_set_weights).
"""

from __future__ import annotations

import pytest

from emulator import Machine
from emulator.core import ExitReason
from isa import assemble

ORIGIN = 0x100000
PAGE = 4096


def machine_with(source: str, weightless: list[str], **options: object) -> Machine:
    """A machine with a program, of which the instructions at some labels take no tick."""
    program = assemble("org 0x100000\n" + source)
    machine = Machine(ram="4M", **options)  # type: ignore[arg-type]
    machine.load(program)
    bits = bytearray(PAGE // 8)
    for label in weightless:
        at = program.symbols[label].value - ORIGIN
        bits[at // 8] |= 1 << at % 8
    machine.memory.set_weights(ORIGIN // PAGE, bytes(bits))
    return machine


def test_they_take_no_tick() -> None:
    machine = machine_with("inc eax\na: inc eax\nb: inc eax\ninc eax\nhlt", ["a", "b"])
    result = machine.run()
    assert (result.registers.eax, result.ticks) == (4, 3)


def test_a_tick_is_met_between_instructions_that_count() -> None:
    machine = machine_with("inc eax\na: inc eax\nb: inc eax\ninc eax\nhlt", ["a", "b"])
    seen = [machine.run(max_ticks=tick).registers.eax for tick in (1, 2, 3)]
    assert seen == [1, 4, 4]


def test_stepping_goes_through_them() -> None:
    machine = machine_with("a: inc eax\nb: inc eax\nc: inc eax\ninc eax\nhlt", ["a", "b", "c"])
    for expected in (1, 2, 3, 4):
        assert machine.cpu.step() == ExitReason.DEADLINE
        assert machine.cpu["eax"] == expected
    assert machine.ticks == 1


def test_loops_of_both_kinds() -> None:
    source = "mov ecx, 1000\nl: inc eax\na: inc ebx\ndec ecx\njnz l\nhlt"
    result = machine_with(source, ["a"]).run()
    assert (result.registers.ebx, result.ticks) == (1000, 1 + 3 * 1000 + 1)


def test_a_fused_pair() -> None:
    source = "mov ecx, 10\nl: dec ecx\na: cmp ecx, 0\nb: jne l\nhlt"
    for weightless, each in (["a"], 2), (["b"], 2), (["a", "b"], 1):
        assert machine_with(source, weightless).run().ticks == 1 + 10 * each + 1


def test_what_is_stored_to_counts_again() -> None:
    """Or a guest could make itself a loop that no tick limit ends."""
    source = "mov word [a], 0xFEEB\na: inc eax\nnop\nhlt"  # becomes jmp $
    result = machine_with(source, ["a"]).run(max_ticks=1000)
    assert result.ticks == 1000


def test_a_host_write_counts_as_a_store() -> None:
    machine = machine_with("a: inc eax\nhlt", ["a"])
    machine.memory.write(ORIGIN, b"\xeb\xfe")
    assert machine.run(max_ticks=50).ticks == 50


def test_repeats_always_count() -> None:
    source = "mov ecx, 8\nmov edi, 0x200000\na: rep stosb\nhlt"
    assert machine_with(source, ["a"]).run().ticks == 11


def test_they_end_no_shadow() -> None:
    """STI's shadow covers the guest's next instruction, however many it takes."""
    machine = machine_with("sti\na: nop\nb: nop\nc: nop\nhlt", ["a", "b"])
    machine.cpu.state.interrupt_line = 1
    assert machine.cpu.run(100) == ExitReason.INTERRUPT
    assert machine.cpu["eip"] == ORIGIN + 4


def test_no_single_step_trap_follows_them() -> None:
    source = "push 0x102\npopf\na: inc eax\nb: inc eax\ninc eax\nhlt"
    machine = machine_with(source, ["a", "b"])
    machine.cpu.state.intercepts.vectors[0] = 2  # #DB
    assert machine.cpu.run(100) == ExitReason.EVENT
    assert machine.cpu["eax"] == 3


def test_loading_again_forgets_them() -> None:
    machine = machine_with("a: inc eax\nhlt", ["a"])
    assert machine.run().ticks == 1
    machine.load(assemble("inc eax\nhlt"))
    assert machine.run().ticks == 2


@pytest.mark.parametrize("page", [4 << 20 >> 12, 0xFFFFF])
def test_there_must_be_memory(page: int) -> None:
    from emulator.errors import MachineError

    with pytest.raises(MachineError, match="no memory"):
        Machine(ram="4M").memory.set_weights(page, bytes(512))
