"""Every manifest guest under every faithful technique: the same run as on the bare machine.

The same, by guest ticks: output, status, registers and all of guest memory. Under plain `trap` on
the real ISA that holds for kernels that never leave ring 0, and must visibly fail for others. What
a technique may cost the guest's own instructions is held here too: none of them in real ring 0, and
hardly any on the virtual CPU.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

import pytest

from emulator import Machine
from emulator.result import Result, Stop
from guests import GUESTS, Guest, find
from hypervisor import emulate
from hypervisor.errors import HypervisorError
from hypervisor.experiments.observe import MachineRun, NativeRun, Observation, compare
from hypervisor.techniques.base import Technique
from hypervisor.techniques.hardware import Hardware
from hypervisor.techniques.translate import Translate
from hypervisor.translator.cache import LEAST_BYTES
from hypervisor.vm import VirtualMachine
from isa import assemble, assemble_file
from tests.core.world import DATA, Setup
from tests.hypervisor.shares import LEAKS, most_interpreted
from tests.hypervisor.twins import run_twins

#: Guests that take a second or more where their kernels are interpreted, or at all.
SLOW_TRAPPED = frozenset({"echo", "os", "os_apic"})
SLOW_INTERPRETED = SLOW_TRAPPED | {"fibonacci", "matrix", "crc32", "sha256"}
#: Of the probes, in ring 3 and in the kernel, the fast tier has these.
FAST_PROBES = ("pushf", "popf", "mov_to_segment", "far_return", "iret", "int_n", "lsl")


class Run(NamedTuple):
    """A run, and the memory it left."""

    result: Result
    pages: dict[int, bytes]


@cache
def image(guest: Guest) -> bytes:
    return assemble_file(guest.source, include=guest.includes).elf()


@cache
def native(guest: Guest) -> Run:
    machine = Machine(**guest.options)
    machine.load(image(guest))
    return Run(machine.run(guest.ticks), dict(machine.memory.pages()))


def virtual(guest: Guest, technique: str, virtualizable: bool) -> VirtualMachine:
    return VirtualMachine(image(guest), technique, virtualizable=virtualizable, **guest.options)


def check_same(guest: Guest, technique: str, virtualizable: bool) -> VirtualMachine:
    expected, vm = native(guest), virtual(guest, technique, virtualizable)
    result = vm.run(guest.ticks)
    assert result.stop is Stop.POWERED_OFF, result.reason
    assert result.output == expected.result.output
    assert result.status == guest.status
    assert result.ticks == expected.result.ticks
    assert result.registers == expected.result.registers
    pages = dict(vm.memory.pages())
    assert [hex(page) for page in {*pages, *expected.pages}
            if pages.get(page) != expected.pages.get(page)] == []  # fmt: skip
    return vm


def is_deep_probe(guest: Guest) -> bool:
    kind, _, name = guest.name.partition("probe_")
    return kind in ("", "k") and name != "" and name not in FAST_PROBES


def each(guests: list[Guest], slow: frozenset[str]) -> pytest.MarkDecorator:
    """Parametrize over guests; the slow ones, and most probes, are deep."""
    marks = {True: [pytest.mark.deep], False: []}
    cases = [pytest.param(g, marks=marks[g.name in slow or is_deep_probe(g)]) for g in guests]
    return pytest.mark.parametrize("guest", cases, ids=lambda guest: guest.name)


#: Kernels that stay in ring 0 and use no unsafe instruction that would tell; those that do.
KERNELS = [g for g in GUESTS if g.rings == (0,) and not g.name.startswith("kprobe_")]
#: What they show under plain trap is right for INT n alone: each leaves the real CPU.
PROBES = [g for g in GUESTS if g.name.startswith("kprobe_") and g.name != "kprobe_int_n"]


@each(list(GUESTS), SLOW_TRAPPED)
def test_trap_with_virtualizable_is_faithful(guest: Guest) -> None:
    vm = check_same(guest, "trap", virtualizable=True)
    assert vm.real.retired_cpl0 == 0


@each(list(GUESTS), SLOW_INTERPRETED)
def test_interpret_is_faithful(guest: Guest) -> None:
    vm = check_same(guest, "interpret", virtualizable=True)
    assert vm.real.retired_cpl0 == 0


@each([guest for guest in GUESTS if guest.rings != (0,)], SLOW_INTERPRETED)
def test_interpret_is_faithful_to_kernels_on_the_real_isa(guest: Guest) -> None:
    """What leaks in ring 3 leaks: those are the probes'."""
    if guest.name.startswith("probe_"):
        result = virtual(guest, "interpret", virtualizable=False).run(guest.ticks)
        assert result.stop is Stop.POWERED_OFF, result.reason
        return
    check_same(guest, "interpret", virtualizable=False)


@each(KERNELS, SLOW_TRAPPED)
def test_trap_is_faithful_to_kernels_that_stay_in_ring_0(guest: Guest) -> None:
    vm = check_same(guest, "trap", virtualizable=False)
    assert vm.real.retired_cpl0 == 0


@each(list(GUESTS), SLOW_TRAPPED)
def test_the_virtual_cpu_takes_hardly_any_instruction(guest: Guest) -> None:
    vm = virtual(guest, "trap", virtualizable=False)
    result = vm.run(guest.ticks)
    taken = sum(vm.interpreted.values())
    assert taken <= most_interpreted(guest, result.ticks), vm.interpreted.most_common(3)
    assert vm.real.retired_cpl0 == 0


@cache
def observed(guest: Guest) -> Observation:
    run = NativeRun(image(guest), **guest.options)
    run.run(guest.ticks)
    return run.observe()


def check_observed(guest: Guest, technique: str | Technique, mmu: str | None = None) -> Any:
    """Hold a guest to its native run by the definition of fidelity; the machine."""
    vm = VirtualMachine(technique=technique, mmu=mmu, **guest.options)
    run = MachineRun(vm, image(guest))
    result = run.run(guest.ticks)
    assert result.stop is Stop.POWERED_OFF, result.reason
    assert compare(observed(guest), run.observe()) is None
    return vm


def check_translated(guest: Guest, technique: Translate, *, bounded: bool = True) -> None:
    """The same run, but for accessed bits of pages with code: to translate leaves none.

    `compare` knows these bits; `alias` ends without one of them.
    """
    vm = check_observed(guest, technique)
    assert vm.real.retired_cpl0 == 0
    most = most_interpreted(guest, vm.ticks) if bounded else vm.ticks
    assert sum(vm.interpreted.values()) <= most, vm.interpreted.most_common(3)


@pytest.mark.parametrize("name", sorted(g.name for g in GUESTS if g.name.startswith("probe_")))
def test_translate_shows_ring_3_what_is_real(name: str) -> None:
    """In six of twenty probes; the others' instructions have nothing to show there."""
    guest = find(name)
    run = MachineRun(VirtualMachine(technique="translate", ram=guest.ram), image(guest))
    run.run(guest.ticks)
    assert (compare(observed(guest), run.observe()) is not None) is (name in LEAKS)


#: What is unsafe in ring 3 leaks where ring 3's code runs as it is.
TRANSLATED: Final = [guest for guest in GUESTS if not guest.name.startswith("probe_")]


@each(TRANSLATED, frozenset({"echo"}))
def test_translate_is_faithful_to_unmodified_kernels(guest: Guest) -> None:
    check_translated(guest, Translate())


@each(list(GUESTS), SLOW_TRAPPED)
def test_translate_with_user_code_is_faithful_to_all(guest: Guest) -> None:
    check_translated(guest, Translate(user=True))


@pytest.mark.deep
@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
@pytest.mark.parametrize("options", [
    {"link_back": True}, {"adaptive": False}, {"cache_bytes": LEAST_BYTES},
], ids=lambda options: next(iter(options)))  # fmt: skip
def test_translate_is_faithful_with_any_switch(options: dict[str, Any], guest: Guest) -> None:
    """Where breakpoints guard code that runs in place, port accesses are interpreted."""
    technique = Translate(user=guest not in TRANSLATED, **options)
    check_translated(guest, technique, bounded="link_back" not in options)


@pytest.mark.parametrize("mmu", Hardware.memories)
@each(list(GUESTS), SLOW_TRAPPED)
def test_hardware_is_faithful_to_all(guest: Guest, mmu: str) -> None:
    check_observed(guest, "hardware", mmu)


@pytest.mark.deep
def test_trap_on_the_real_isa_fails_for_the_operating_system() -> None:
    guest = find("os")
    result = virtual(guest, "trap", virtualizable=False).run(guest.ticks)
    assert (result.output, result.ticks) != (native(guest).result.output, 0)
    assert result.output != native(guest).result.output


@each(PROBES, frozenset())
def test_trap_on_the_real_isa_shows_what_leaks(guest: Guest) -> None:
    vm = virtual(guest, "trap", virtualizable=False)
    assert vm.run(guest.ticks).output != native(guest).result.output


# -- The library call ------------------------------------------------------------------------------


def test_the_call_of_the_readme() -> None:
    program = assemble("mov dx, 0x3F8\nmov al, 'a'\nout dx, al\nmov al, 3\nout 0xF4, al")
    result = VirtualMachine(program, technique="trap").run()
    assert result.exits["out"] == 2
    assert (result.output, result.status) == (b"a", 3)


def test_a_machine_can_be_loaded_again() -> None:
    vm = VirtualMachine(assemble("mov byte [0x200000], 1\ncli\nhlt"), technique="trap")
    assert vm.run().stop is Stop.HALTED
    vm.load(assemble("mov al, [0x200000]\nadd al, 3\nout 0xF4, al"))
    assert vm.run().status == 3


def test_what_traps_is_remembered_but_not_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One instruction becomes that of another port, in more places than are remembered."""
    monkeypatch.setattr(emulate, "MOST_TRAPPED", 2)
    program = assemble("""
        mov ecx, 2
again:  cli
        cli
port:   in al, 0xE9
        shl ebx, 8
        mov bl, al
        mov byte [port + 1], 0x21
        loop again
        hlt
""")
    bare = Machine()
    bare.load(program)
    vm = VirtualMachine(program, technique="trap")
    registers = vm.run(100).registers
    assert (vm.counts["in"], vm.counts["cli"]) == (2, 4)
    assert len(vm.trapped) <= 2
    assert registers.ebx == bare.run(100).registers.ebx
    assert registers.ebx >> 8 != registers.ebx & 0xFF


def test_names_that_are_none() -> None:
    with pytest.raises(HypervisorError, match=r"no technique 'magic'; there is native, interpret"):
        VirtualMachine(technique="magic")
    with pytest.raises(HypervisorError, match=r"no memory virtualization 'magic'; there is shadow"):
        VirtualMachine(mmu="magic")


@pytest.mark.parametrize("accessed", [0, 1])
@pytest.mark.parametrize("ring", [1, 2])
def test_a_kernel_in_ring_1_or_2_is_refused(ring: int, accessed: int) -> None:
    code, data = (0x9A | ring << 5 | accessed, 0x92 | ring << 5 | accessed)
    guest = f"""
    lgdt [table]
    push 0x18 + {ring}
    push 0x300000
    push 2
    push 0x10 + {ring}
    push inner
    iret
inner: nop
table: dw 31
    dd entries
entries: dq 0, 0x00CF9A000000FFFF, 0x00CF{code:02X}000000FFFF, 0x00CF{data:02X}000000FFFF
"""
    result = VirtualMachine(assemble(guest), technique="trap").run(1000)
    assert result.stop is Stop.UNSUPPORTED
    assert result.reason == f"the guest runs in ring {ring}, which trap has no ring for"
    assert VirtualMachine(assemble(guest), "interpret").run(1000).stop is not Stop.UNSUPPORTED


def test_handlers_that_fault_at_once_do_not_hold_the_machine() -> None:
    """No tick passes, so no limit on ticks would end it."""
    guest = """
    lgdt [gdt]
    lidt [idt]
    mov esp, -4096                  ; where there is no memory to overwrite
    ud2
gdt: dw 15
    dd descriptors
idt: dw 55
    dd gates
descriptors: dq 0, 0x00CF9B000000FFFF
gates: times 6 dq 0
    dw broken - $$, 8, 0x8E00, 0x10
broken: ud2
"""
    for technique in ("trap", "interpret"):
        result = VirtualMachine(assemble(guest), technique).run(1000)
        assert result.stop is Stop.UNSUPPORTED
        assert "handlers that fault" in result.reason


def test_the_instruction_after_sti_comes_before_the_interrupt() -> None:
    """Also where it faults on the real CPU first: the interrupt must not slip in between."""
    code = "b9f4010000 e2fe fb e421 90 90 ebfe"  # mov ecx, 500; loop $; sti; in al, 0x21
    setup = Setup(bytes.fromhex(code), (0,) * 4 + (DATA + 0x3000,) + (0,) * 3)
    assert run_twins(setup, "trap", 700, timer=True) == {}
