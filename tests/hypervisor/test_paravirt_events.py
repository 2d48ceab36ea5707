"""Interrupts and faults at sites: the guest sees them where and when its native twin does.

A site is several instructions; no guest may ever stand within one. So the timer is let strike at
every tick of small kernels, and each step of each kind of site is made to fault.
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
from isa.site_forms import FORMS
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


# -- Faults ----------------------------------------------------------------------------------------

#: Makes each attempt in turn; its fault is logged, with the registers that sites use, and ends it.
FAULTING = """
%include "guest.inc"
%include "ring3.inc"

CR4_LARGE_PAGES equ 0x10
ABSENT equ 0x400000             ; nothing is mapped from here on
DIRECTORY equ 0x300000

start:
    call install_rings
%assign vector 10
%rep 5
    on_vector vector, on_fault
%assign vector vector + 1
%endrep
    mov dword [gdt + SPARE_ONE], 0x0000FFFF
    mov dword [gdt + SPARE_ONE + 4], 0x00CF7200         ; data, DPL 3, not present
    mov dword [DIRECTORY], 0x87
    mov eax, DIRECTORY
    mov cr3, eax
    mov eax, cr4
    or eax, CR4_LARGE_PAGES
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
next:
    mov esi, [cursor]
    add dword [cursor], 4
    cmp esi, attempts_end
    je finished
    mov eax, 0x12345678
    mov ecx, 0xC0FFEE01
    cmp dword [interrupts], 0
    je .off
    sti
.off:
    push eax
    mov eax, [arithmetic]
    add al, 0x7F
    sahf
    pop eax
    jmp [esi]
finished:
    cli
    exit 0
missed:
    exit 1

on_fault:
    mov edi, [log_at]
    mov eax, [ebx + FRAME_EAX]
    stosd
    mov eax, [ebx + FRAME_ECX]
    stosd
    mov [log_at], edi
    mov eax, USER_DATA
    mov fs, ax
    mov gs, ax
    mov esp, stack_top
    jmp next

section .data
log_at: dd log
cursor: dd attempts
interrupts: dd 0
arithmetic: dd 0
section .bss
log: resd 1024
section .text
"""

#: How its handler ends.
LEAVE = "    mov esp, stack_top\n    jmp next\n"

PUSHED = "push USER_DATA\npush user_stack_top\npush EFLAGS_IF\n"
#: Each faults at its last instruction.
ATTEMPTS = (
    "mov ax, 0x1000\nmov es, ax",
    "mov ax, KERNEL_DATA | 1\nmov es, ax",
    "mov cx, KERNEL_DATA | 2\nmov gs, cx",
    "mov si, KERNEL_DATA | 3\nmov fs, si",
    "mov ax, KERNEL_CODE | 1\nmov ds, ax",
    "mov ax, SPARE_ONE\nmov ds, ax",
    "mov ax, TSS_SELECTOR\nmov ds, ax",
    "mov ds, [ABSENT]",
    "mov ds, [ABSENT - 1]",
    "mov ecx, ABSENT\nmov ds, [ecx]",
    "push 0x1000\npop ds",
    "push KERNEL_DATA | 1\npop es",
    "push SPARE_ONE\npop gs",
    "mov esp, ABSENT - 2\npop es",
    "mov ax, KERNEL_DATA | 1\nmov ss, ax",
    "lds eax, [ABSENT - 4]",
    "lfs ecx, [ABSENT]",
    "mov [ABSENT], cs",
    "mov [ABSENT - 1], ds",
    "mov esp, ABSENT - 2\npopf",
    *(f"mov esp, ABSENT - {4 * n}\niret" for n in (1, 2)),
    *(f"mov dword [ABSENT - {4 * n - 8}], EFLAGS_IF\nmov dword [ABSENT - {4 * n - 4}], USER_CODE\n"
      f"mov esp, ABSENT - {4 * n}\niret" for n in (3, 4)),
    "push KERNEL_DATA\n" + PUSHED[15:] + "push USER_CODE\npush missed\niret",
    "push 0\n" + PUSHED[15:] + "push USER_CODE\npush missed\niret",
    "push SPARE_ONE | 3\n" + PUSHED[15:] + "push USER_CODE\npush missed\niret",
    PUSHED + "push USER_DATA\npush missed\niret",
    PUSHED + "push 0x1003\npush missed\niret",
    PUSHED + "push KERNEL_CODE | 1\npush missed\niret",
    PUSHED + "push 0\npush missed\niret",
    "lgdt [ABSENT]", "lidt [ABSENT - 2]", "sgdt [ABSENT]", "str [ABSENT]", "lmsw [ABSENT]",
    "verr [ABSENT]", "lar eax, [ABSENT]", "lss eax, [ABSENT]",
    "mov ax, 0x1000\nltr ax", "mov ax, 0x1000\nlldt ax",
    "mov eax, 0x80000000\nmov cr0, eax", "mov eax, 0x100000\nmov cr4, eax",
    "mov edi, ABSENT\nmov edx, 0x3FD\ninsb", "mov esi, ABSENT\nmov edx, 0x80\noutsb",
    "push 0x1000\npush missed\nretf", "jmp 0x1000:missed", "call far [ABSENT]",
)  # fmt: skip


@cache
def faulting() -> Pair:
    names = [f"attempt_{number}" for number in range(len(ATTEMPTS))]
    code = "".join(
        f"{name}:\n{lines}\njmp missed\n" for name, lines in zip(names, ATTEMPTS, strict=True)
    )
    table = f"section .data\nattempts: dd {', '.join(names)}\nattempts_end:\n"
    return pair_of(FAULTING + code + table)


@pytest.mark.parametrize("interrupts", [0, 1])
@pytest.mark.parametrize("arithmetic", [0x0000, 0xD501])
def test_faults_show_what_they_show_natively(interrupts: int, arithmetic: int) -> None:
    machines = Both(faulting(), {"interrupts": interrupts, "arithmetic": arithmetic})
    assert machines.run() is None
    assert machines.vm.result().status == 0
    events = machines.native.events
    assert len(events) == len(ATTEMPTS)
    restarts = {site.restart for site in machines.pair.image.sites}
    assert [event for event in events if event.eip not in restarts] == [
        event for event, lines in zip(events, ATTEMPTS, strict=True) if lines.endswith("], ds")
    ]


#: What leaves no stack for a handler: it ends in a triple fault, which says where.
WITHOUT_A_STACK = {
    "pushf": "mov esp, ABSENT + 2\npushf",
    "popf": "mov esp, ABSENT + 8\npopf",
    "pop": "mov esp, ABSENT + 8\npop es",
    "push": "mov esp, ABSENT + 2\npush cs",
    "iret": "mov esp, ABSENT + 8\niret",
    "hypercall": "mov esp, ABSENT + 8\nmov eax, 0x80000000\nmov cr0, eax",
}


@pytest.mark.parametrize("name", WITHOUT_A_STACK)
def test_a_fault_without_a_stack_ends_as_natively(name: str) -> None:
    code = f"last:\n{WITHOUT_A_STACK[name]}\njmp missed\n"
    machines = Both(pair_of(FAULTING + code + "section .data\nattempts: dd last\nattempts_end:\n"))
    assert machines.run() is None
    assert machines.vm.result().stop is Stop.TRIPLE_FAULT


#: A stack segment in which the vCPU area is elsewhere, or out of reach.
OTHER_STACKS = {"base": (0x1000FFFF, 0x00CF9200), "limit": (0x0000FFFF, 0x004F9200)}


@pytest.mark.parametrize("name", OTHER_STACKS)
def test_sites_on_another_stack_ask_for_all(name: str) -> None:
    low, high = OTHER_STACKS[name]
    source = f"""
%include "guest.inc"
%include "ring3.inc"
start:
    call install_rings
    mov dword [gdt + SPARE_ONE], {low:#x}
    mov dword [gdt + SPARE_ONE + 4], {high:#x}
    mov edi, 0x180000
    mov eax, SPARE_ONE
    mov ss, ax
    mov esp, 0x80000
    call body
    exit 0
body:
{BODIES["flags"]}
"""
    machines = Both(pair_of(source))
    assert machines.run() is None
    assert sum(machines.vm.interpreted.values()) > 12


def test_a_kernel_may_go_to_where_its_popf_stood() -> None:
    """A handler that returns to the original's address finds it, whatever stands there."""
    source = FAULTING.replace(LEAVE, """
    mov dword [DIRECTORY + 4], 0x400087
    mov eax, cr3
    mov cr3, eax
    mov edi, [ebx + FRAME_EIP]
    mov esp, stack_top
    push 0x8D5
    jmp edi
""")  # fmt: skip
    assert source != FAULTING
    code = "last:\nmov esp, ABSENT - 2\npopf\nlahf\nmov [log + 512], eax\njmp finished\n"
    machines = Both(pair_of(source + code + "section .data\nattempts: dd last\nattempts_end:\n"),
                    ram="12M")  # fmt: skip
    assert machines.run() is None
    assert machines.word("log", 128) >> 8 & 0xFF == 0xD7


def test_every_form_is_made_to_fault() -> None:
    forms = {site.form for site in faulting().image.sites}
    # CLI and STI reach no memory of the guest's; PUSHF needs a stack that is not there.
    assert {form.name for form in FORMS} - {"cli", "sti", "pushf"} <= forms


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
    assert vm.counts["monitor area"] == 1  # ring 1's; segments keep ring 3 away
    root = vm.paging.root() & -4096
    assert vm.host.memory.u32(root + 4 * DIRECTORY_INDEX) >> 12 == vm.monitor.page_table
    assert difference is None
