"""Faults at paravirtual sites: what the guest sees is the fault of the original, at its own EIP.

Every form is made to fault in every way it can, and the native twin says what should come of it.
test_paravirt_events.py has interrupts and steps.
"""

from __future__ import annotations

from functools import cache

import pytest

from emulator.result import Stop
from isa.site_forms import FORMS
from tests.hypervisor.paravirt_pair import Both, Pair, pair_of
from tests.hypervisor.test_paravirt_events import BODIES

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
