"""Guest mode: what exits, what does not, and what is done about events that an exit interrupts.

That guests run as on the bare machine is test_differential.py's and test_fuzz.py's to show; here
are the control block's parts one by one, the two dimensions of nested paging, and guests that only
guest mode can run.
"""

from __future__ import annotations

from typing import Any

import pytest

from emulator import Machine
from emulator.core import ExitReason, lib
from emulator.result import Result
from guests import LIB
from hypervisor.errors import HypervisorError
from hypervisor.guest_mode import GuestMode
from hypervisor.host import Host, run_turn
from hypervisor.memory.nested import GROUP
from hypervisor.monitor import DIRTY
from hypervisor.techniques import TECHNIQUES
from hypervisor.vm import VirtualMachine
from isa import assemble
from isa.table import ROWS

RAM = "4M"
PAGE = 4096
each_memory = pytest.mark.parametrize("mmu", ["nested", "shadow"])


def vm_for(source: str, mmu: str = "nested") -> VirtualMachine:
    machine = VirtualMachine(technique="hardware", mmu=mmu, ram=RAM)
    machine.load(assemble(source, include=[LIB]))
    return machine


def control_of(vm: VirtualMachine) -> Any:
    assert isinstance(vm.world, GuestMode)
    return vm.world.control


def run(source: str, mmu: str = "nested", ticks: int = 100_000) -> tuple[VirtualMachine, Result]:
    vm = vm_for(source, mmu)
    return vm, vm.run(ticks)


# -- What exits -----------------------------------------------------------------------------------


@each_memory
def test_no_unsafe_instruction_exits(mmu: str) -> None:
    """Nor any other of a kernel that asks for no device."""
    source = """
        sgdt [0x2000]
        sidt [0x2008]
        sldt ax
        str bx
        smsw cx
        push 0x3202
        popf
        pushf
        pop edx
        clts
        mov eax, cr0
        or eax, 8
        mov cr0, eax
        mov eax, cr4
        or eax, 4
        mov cr4, eax
        mov ebp, cr2
        invlpg [0x3000]
        wbinvd
        cli
        hlt
    """
    vm, result = run(source, mmu)
    native = Machine(ram=RAM)
    native.load(assemble(source))
    assert native.run(100_000).registers == result.registers
    assert set(vm.counts) <= {"nested violation", "hidden page fault", "halt"}


def test_cr3_exits_on_shadows_alone() -> None:
    source = "mov eax, cr3\nmov cr3, eax\nhlt"
    assert not [reason for reason in run(source)[0].counts if "cr3" in reason]
    assert run(source, "shadow")[0].counts["mov cr3"] == 2


def test_bits_of_the_host_read_as_the_guests() -> None:
    """On shadows paging is always on; a guest with paging off does not see it."""
    source = "mov eax, cr0\nsmsw ebx\nmov ecx, cr4\nhlt"
    vm, result = run(source, "shadow")
    assert (result.registers.eax, result.registers.ebx) == (0x11, 0x11)
    assert result.registers.ecx == 0
    assert control_of(vm).cr0 & 1 << 31


def test_a_port_that_is_not_intercepted_has_nothing_on_it() -> None:
    vm = vm_for("mov dx, 0x71\nin al, dx\nmov bl, al\nin al, 0x70\nout 0x71, al\nhlt")
    control_of(vm).ports[0x71 >> 3] &= ~(1 << (0x71 & 7))
    result = vm.run(1000)
    assert result.registers.ebx & 0xFF == 0xFF
    assert (vm.counts["in"], vm.counts["out"]) == (1, 0)


@pytest.mark.parametrize("field", ["tsc_reads", "tsc_writes"])
def test_the_time_stamp_counters_msr(field: str) -> None:
    vm = vm_for("mov ecx, 0x10\nrdmsr\nadd eax, 100\nwrmsr\nrdtsc\nhlt")
    setattr(control_of(vm), field, 1)
    result = vm.run(1000)
    assert vm.counts["rdmsr" if field == "tsc_reads" else "wrmsr"] == 1
    assert result.registers.eax == 1 + 100 + 1  # read at tick 1, and a tick after the write


def test_an_instruction_by_its_row() -> None:
    vm = vm_for("cpuid\nhlt")
    row = next(row.id for row in ROWS if row.mnemonic == "cpuid")
    control_of(vm).intercepts.rows[row >> 3] |= 1 << (row & 7)
    vm.run(1000)
    assert vm.counts["cpuid"] == 1


def test_the_host_state_is_back_after_every_exit() -> None:
    vm = vm_for("again: in al, 0x80\njmp again")
    host = vm.host.cpu.state
    host.gpr[0], host.eip, host.cr3, host.cpl = 0x1234, 0x5678, 0x9000, 0
    vm.run(50)
    assert (host.gpr[0], host.eip, host.cr3, host.cpl) == (0x1234, 0x5678, 0x9000, 0)
    assert host.tick == 0


def test_translations_survive_exits() -> None:
    """They have an address-space id of their own."""
    vm = vm_for("again: mov eax, [0x3000]\nin al, 0x80\njmp again")
    vm.run(100)
    stats = lib.machine_stats(vm.host.memory.machine)
    before = stats.tlb_misses
    vm.run(5000)
    assert stats.tlb_misses == before
    vm.paging.stale = True
    vm.run(5100)
    assert stats.tlb_misses > before


# -- Nested paging --------------------------------------------------------------------------------


def test_a_violation_is_no_fault_of_the_guests() -> None:
    vm, result = run("mov eax, [0x300000]\nmov [0x200000], ebx\nmov al, 0\nout 0xF4, al")
    assert result.status == 0
    assert vm.counts["nested violation"] == 3  # its code, and a group of pages each
    assert vm.paging.fills == 3 * GROUP


def test_beyond_its_memory_a_guest_finds_nothing() -> None:
    _, result = run("mov dword [0x40000000], 5\nmov eax, [0x40000000]\nhlt")
    assert result.registers.eax == 0xFFFF_FFFF


def test_what_a_guest_uses_is_known() -> None:
    vm, _ = run("mov eax, [0x300000]\nmov [0x200004], ebx\nhlt")
    assert {0x100, 0x200, 0x300} <= vm.paging.used()
    assert vm.paging.used(DIRTY) == {0x200}
    assert vm.paging.take_dirty() == {0x200}
    assert vm.paging.used(DIRTY) == set()


def test_stores_to_a_clean_page_are_noticed_again() -> None:
    vm = vm_for("again: mov [0x200000], eax\njmp again")
    for _ in range(3):
        vm.run(vm.ticks + 20)
        assert vm.paging.take_dirty() == {0x200}


def test_the_guests_tables_are_walked_through_ours() -> None:
    """Each of their entries costs a walk of its own: the dearest miss is 8 reads, natively 2."""
    source = """
        mov dword [0x2000], 0x3007
        mov dword [0x3400], 0x100007
        mov dword [0x3C00], 0x300007
        mov eax, 0x2000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov ebx, [0x300000]
        hlt
    """
    native = Machine(ram=RAM)
    native.load(assemble(source))
    cycles = native.run(1000).cycles
    vm, result = run(source)
    assert result.stop.name == "HALTED"
    assert result.cycles > cycles
    assert vm.paging.used() >= {2, 3, 0x100, 0x300}
    assert vm.paging.used(DIRTY) == {2, 3}  # stores, and accessed bits


# -- Events in flight -----------------------------------------------------------------------------


INTO_NOTHING = """
        lidt [pointer]
        mov ebp, 0x2000
        mov edi, 0x380000
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
        mov al, 0x30
        out 0x43, al
        mov al, 2
        out 0x40, al
        mov al, 0
        out 0x40, al
        mov esp, edi
        {what}
        nop
        hlt
    handler:
        pop eax
        pop ebx
        pop ecx
        and esp, -16
        and dword [edi - 4], 0xFFFFFEFF
        mov edx, [edi - 12]
        hlt
    align 8
    idt: times 0x31 dw (handler - $$ + 0x100000) & 0xFFFF, 8, 0x8E00, 0x10
    pointer: dw $ - idt - 1
        dd idt
"""
EVENTS = {
    "interrupt": "sti\nmov ecx, 400\nloop $\ncli",
    "fault": "ud2",
    "trap": "pushf\nor dword [esp], 0x100\npopf\nnop",
    "int": "int 0x30",
}


@each_memory
@pytest.mark.parametrize("event", EVENTS)
def test_a_frame_that_is_pushed_where_nothing_is_mapped_yet(mmu: str, event: str) -> None:
    """The exit comes in the middle of a delivery, which is then done again."""
    code = assemble(INTO_NOTHING.format(what=EVENTS[event]))
    native = Machine(ram=RAM)
    native.load(code)
    wanted = native.run(10_000)
    vm = VirtualMachine(technique="hardware", mmu=mmu, ram=RAM)
    vm.load(code)
    found = vm.run(10_000)
    assert found.registers == wanted.registers
    assert found.stop is wanted.stop
    assert found.ticks == wanted.ticks


def test_an_event_that_waits_is_delivered_once() -> None:
    vm = vm_for("hlt")
    assert isinstance(vm.world, GuestMode)
    vm.run(0)
    vm.world.deliver(3, 0)
    assert vm.world.delivering
    vm.run(1)
    assert not vm.world.delivering


# -- Only here -------------------------------------------------------------------------------------

RINGS = """
    lgdt [pointer]
    push 0x19 | 0
    push 0x300000
    push 2
    push 0x11
    push inner
    iret
inner:
    mov ax, cs
    movzx eax, ax
    hlt
align 8
gdt: dq 0, 0x00CF9A000000FFFF, 0x00CFBA000000FFFF, 0x00CFB2000000FFFF
pointer: dw $ - gdt - 1
    dd gdt
"""


@each_memory
def test_a_guest_that_uses_ring_1(mmu: str) -> None:
    native = Machine(ram=RAM)
    native.load(assemble(RINGS))
    wanted = native.run(1000)
    _, found = run(RINGS, mmu, 1000)
    assert found.registers == wanted.registers


def test_pairs_that_there_are_not() -> None:
    with pytest.raises(
        HypervisorError, match="trap does not go with --mmu nested, but with shadow"
    ):
        VirtualMachine(technique="trap", mmu="nested", ram=RAM)
    assert "hardware" in TECHNIQUES


@each_memory
def test_it_shares_a_host_with_a_deprivileged_guest(mmu: str) -> None:
    source = assemble(
        "mov ecx, 3000\nagain: inc eax\nloop again\nin al, 0x80\nmov al, 3\nout 0xF4, al"
    )
    host = Host("16M", guests=3)
    for technique in ("hardware", "trap", "hardware"):
        chosen = mmu if technique == "hardware" else None
        VirtualMachine(source, technique, chosen, ram=RAM, host=host)
    waiting = list(host.machines)
    while waiting:  # shorter turns than anybody would take
        waiting = [vm for vm in waiting if not run_turn(vm, 500, 50_000)]
    assert [vm.result().status for vm in host.machines] == [3, 3, 3]
    assert len({vm.result().ticks for vm in host.machines}) == 1


@each_memory
def test_snapshots(mmu: str) -> None:
    source = "mov ecx, 500\nagain: mov [0x200000 + ecx * 4], ecx\nloop again\nhlt"
    vm = vm_for(source, mmu)
    vm.run(300)
    saved = vm.save()
    wanted = vm.run(5000)
    other = VirtualMachine(technique="hardware", mmu=mmu, ram=RAM)
    other.restore(saved)
    found = other.run(5000)
    assert found.registers == wanted.registers
    assert dict(other.memory.pages()) == dict(vm.memory.pages())


def test_exits_are_the_cores_reasons() -> None:
    vm, _ = run("again: in al, 0x80\njmp again", ticks=1000)
    assert vm.exits[ExitReason.PORT_READ] == vm.counts["in"] == 500
