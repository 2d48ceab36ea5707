"""Interrupts and steps at sites: the guest sees them where and when its native twin does.

A site is several instructions; no guest may ever stand within one. So the timer is let strike at
every tick of small kernels. test_paravirt_faults.py makes each kind of site fault.
"""

from __future__ import annotations

from functools import cache

import pytest

from emulator import Machine
from emulator.core import EFLAGS_IF
from emulator.result import Stop
from hypervisor.monitor import DIRECTORY_INDEX
from hypervisor.variants import load_natively
from isa.paravirt import VCPU_PAGE
from tests.hypervisor.paravirt_pair import RAM, Both, Pair, pair_of

# -- Interrupts ------------------------------------------------------------------------------------

#: The timer strikes every few hundred ticks; `shift` says how many no-operations come first.
INTERRUPTED = """
%include "guest.inc"
%include "ring3.inc"
start:
    call install_rings
    on_vector IRQ_BASE + TIMER_LINE, on_timer
    mov edx, 0x81
    mov eax, back
    mov cl, GATE_TRAP | GATE_DPL_3
    call set_gate
    unmask_line TIMER_LINE
    mov al, PIT_RATE_GENERATOR
    out PIT_COMMAND, al
    mov al, 5
    out PIT_CHANNEL_0, al
    mov al, 0
    out PIT_CHANNEL_0, al
    mov eax, sled
    add eax, [shift]
    jmp eax
sled:
    times 128 nop
    mov edi, 60
.next:
    call body
    dec edi
    jnz .next
    cli
    mov al, [strikes]
    and al, 31
    out DEBUG_EXIT, al
    hlt
on_timer:
    inc dword [strikes]
    end_of_interrupt
    ret
back:
    mov eax, KERNEL_DATA
    mov ds, ax
    mov es, ax
    add esp, 20
    ret
section .data
strikes: dd 0
shift: dd 0
section .text
body:
"""

BODIES = {
    "flags": """
    sti
    pushf
    nop
    cli
    popf
    pushf
    cli
    sti
    cli
    nop
    sti
    nop
    pushf
    popf
    cli
    popf
    cli
    ret
""",
    "hlt": """
    sti
    hlt
    cli
    sti
    sti
    hlt
    nop
    cli
    ret
""",
    "segments": """
    sti
    mov ax, ds
    mov es, ax
    push ds
    pop es
    mov fs, [selector]
    push USER_DATA
    pop gs
    mov cx, KERNEL_DATA
    mov gs, cx
    cli
    ret
section .data
selector: dd USER_DATA
""",
    "iret": """
    cli
    mov [tss + TSS_ESP0], esp
    push USER_DATA
    push user_stack_top
    push EFLAGS_IF
    push USER_CODE
    push .ring_3
    sti
    iret
ring_3_code
.ring_3:
    inc ebp
    nop
    int 0x81
ring_0_code
""",
    "iret within": """
    sti
    push EFLAGS_IF
    push KERNEL_CODE
    push .there
    iret
.there:
    cli
    push EFLAGS_IF
    push KERNEL_CODE
    push .further
    iret
.further:
    nop
    push 0
    push KERNEL_CODE
    push .last
    iret
.last:
    ret
""",
}
#: Ticks that a body and its loop take at most: shifts up to there reach every boundary.
SHIFTS = 24


@cache
def interrupted(name: str) -> Pair:
    return pair_of(INTERRUPTED + BODIES[name])


def check_interrupts(name: str, shifts: range) -> set[int]:
    """Run with each shift; EIPs at which the timer struck."""
    struck = set()
    for shift in shifts:
        machines = Both(interrupted(name), {"shift": shift})
        assert machines.run() is None, f"shift {shift}"
        assert machines.vm.result().stop is Stop.POWERED_OFF
        timer = [event for event in machines.native.events if event.vector == 0x20]
        assert timer
        struck |= {event.eip for event in timer}
    return struck


@pytest.mark.parametrize("name", BODIES)
def test_interrupts_strike_where_and_when_they_do_natively(name: str) -> None:
    check_interrupts(name, range(0, SHIFTS, 5))


@pytest.mark.deep
@pytest.mark.parametrize("name", BODIES)
def test_interrupts_strike_everywhere(name: str) -> None:
    struck = check_interrupts(name, range(SHIFTS * 2))
    start = interrupted(name).address("body")
    inside = {eip for eip in struck if eip >= start}
    allowed = boundaries(interrupted(name))
    # A kernel that halts is nearly always halted.
    assert inside == allowed if name != "hlt" else inside < allowed


def boundaries(pair: Pair) -> set[int]:
    """Where in the body the twin lets interrupts in."""
    machine = Machine(ram=RAM)
    load_natively(machine, pair.twin)
    state, start, found = machine.cpu.state, pair.address("body"), set()
    while machine.run(machine.ticks + 1).stop is Stop.OUT_OF_TICKS and len(found) < 64:
        if state.eflags & EFLAGS_IF and not state.interrupt_shadow and state.eip >= start:
            found.add(state.eip)
        if machine.ticks > 4000:
            break
    return found


#: What single steps go over.
STEPPED = (
    "mov ax, ds\nmov es, ax",
    "push ds\npop es",
    "pushf\nadd esp, 4",
    "push 0x102\npopf",
    "cli\nsti\ncli",
    "mov eax, cr0",
    "push 0x102\npush KERNEL_CODE\npush .there\niret\n.there:",
)


@pytest.mark.parametrize("code", STEPPED)
def test_single_steps_go_over_sites_as_over_instructions(code: str) -> None:
    machines = Both(pair_of(f"""
%include "guest.inc"
%include "ring3.inc"
start:
    call install_rings
    on_vector 1, on_step
    push 0x102
    popf
    nop
{code}
    push 2
    popf
    exit 0
on_step:
    ret
"""))  # fmt: skip
    assert machines.run() is None
    instructions = [line for line in code.splitlines() if not line.startswith(".")]
    assert len(machines.native.events) == len(instructions) + 3


#: What meets a data breakpoint in the middle of a site: the address, and the code.
WATCHED = (
    ("stack_top - 4", "site: pushf"),
    ("cell", "mov dword [cell], KERNEL_DATA\nsite: mov ds, [cell]"),
)


@pytest.mark.parametrize(("address", "code"), WATCHED)
def test_data_breakpoints_in_the_middle_of_sites_trap_behind_them(address: str, code: str) -> None:
    machines = Both(pair_of(f"""
%include "guest.inc"
%include "ring3.inc"
start:
    call install_rings
    on_vector 1, on_trap
    mov esp, stack_top
    mov eax, {address}
    mov dr0, eax
    mov eax, 0xF0402
    mov dr7, eax
{code}
behind: mov eax, 0
    mov dr7, eax
    exit 0
on_trap:
    ret
section .data
cell: dd 0
"""))  # fmt: skip
    machines.run()  # the twin traps before the padding that it has instead
    assert [e.vector for e in machines.virtual.events] == [e.vector for e in machines.native.events]
    assert machines.virtual.events[-1].eip == machines.pair.address("behind")


def test_a_kernels_sites_work_in_ring_3_too() -> None:
    """Nobody said that this is ring 3's code: so it has sites, and each of them asks."""
    code = """
    push USER_DATA
    pop es
    mov ax, USER_DATA
    mov ds, ax
    pushf
    popf
    mov ax, KERNEL_DATA | 1
    mov gs, ax
"""
    machines = Both(
        pair_of(f"""
%include "guest.inc"
%include "ring3.inc"
start:
    call install_rings
    mov eax, program
    call call_ring_3
    print_decimal [left_frame + FRAME_VECTOR]
    exit 0
program:{code}""")
    )
    assert machines.run() is None
    assert machines.vm.result().output == b"13"
    assert all(machines.vm.interpreted[name] for name in ("pop", "mov", "pushf", "popf"))


# -- The vCPU area ---------------------------------------------------------------------------------

#: Accesses of the guest's own to where the vCPU area lies: ring 3 may reach none of it, and ring 1
#: not the virtual IF while an interrupt waits.
REACHING = """
%include "guest.inc"
%include "ring3.inc"
AREA equ {area:#x}
start:
    call install_rings
    on_vector IRQ_BASE + TIMER_LINE, on_timer
    mov eax, program
    call call_ring_3
    cli
    unmask_line TIMER_LINE
    mov al, PIT_RATE_GENERATOR
    out PIT_COMMAND, al
    mov al, 20
    out PIT_CHANNEL_0, al
    mov al, 0
    out PIT_CHANNEL_0, al
    mov ecx, 3000
    loop $
    mov byte [AREA + 1], 1
    mov ax, USER_DATA
    mov fs, ax
    sti
    nop
    cli
    exit 0
on_timer:
    end_of_interrupt
    ret
ring_3_code
program:
    mov dword [AREA], 0x12345678
    mov edx, [AREA + 0x1000]
    mov ax, USER_DATA
    mov fs, ax
    int SYSTEM_CALL
"""


def test_the_area_stays_the_monitors_whoever_reaches_for_it() -> None:
    machines = Both(pair_of(REACHING.format(area=VCPU_PAGE)))
    difference = machines.run()
    vm = machines.vm
    assert vm.counts["monitor area"] == 3  # ring 1's store, ring 3's and its load
    root = vm.paging.root() & -4096
    assert vm.host.memory.u32(root + 4 * DIRECTORY_INDEX) >> 12 == vm.monitor.page_table
    assert difference is None
