"""The virtual CPU going on by itself: kernels whose stack lies where the monitor is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from emulator.result import Stop
from hypervisor.experiments.observe import NativeRun, compare
from hypervisor.experiments.virtual import VirtualRun
from hypervisor.vm import VirtualMachine
from isa import assemble

CALLS = 20
#: As Linux does it: ring 3 enters the kernel on a stack in the top 4 MiB, which is copied to one
#: below, and back. `{extra}` is done while the stack is high.
SOURCE = """
    org 0x100000
TOP equ 0xFFC00000
tss equ 0x110000
start:
    mov esp, 0x90000
    mov dword [tss + 4], TOP + 0x88000
    mov dword [tss + 8], 0x10
    mov word [tss + 102], 104
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov dword [directory], 0x87             ; 4 MiB pages: the low ones, twice
    mov dword [directory + 4092], 0x83
    mov eax, directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    mov eax, handler
    mov [idt + 0x80 * 8], ax
    mov word [idt + 0x80 * 8 + 2], 0x08
    mov word [idt + 0x80 * 8 + 4], 0xEE00
    shr eax, 16
    mov [idt + 0x80 * 8 + 6], ax
    mov eax, 0x28
    ltr ax
    push 0x23
    push 0x80000
    push 2
    push 0x1B
    push user
    mov eax, 0x23
    mov ds, ax
    mov es, ax
    iret
user:
    mov ecx, {calls}
again:
    int 0x80
    loop again
    mov eax, 1
    int 0x80
hang: jmp hang
handler:
    push ds
    push es
    pusha
    mov dx, 0x10
    mov ds, dx
    mov es, dx
    cmp eax, 1
    je over
    {extra}
    mov esi, esp
    mov esp, 0x90000 - 60
    mov edi, esp
    mov ecx, 15
    cld
    rep movsd
    mov esp, 0x90000 - 60
    inc dword [count]
    mov edi, TOP + 0x88000 - 60
    mov esi, esp
    mov ecx, 15
    rep movsd
    mov esp, TOP + 0x88000 - 60
    popa
    pop es
    pop ds
    iret
over:
    mov al, [count]
    out 0xF4, al
    hlt
count: dd 0
    align 8
gdt: dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF
    dw 0x67, 0
    db 0x11, 0x89, 0, 0
gdt_pointer: dw 0x2F
    dd gdt
idt_pointer: dw 0x407
    dd idt
    align 4096
directory: times 1024 dd 0
idt: times 0x408 db 0
"""
EXTRAS = {
    "nothing": "",
    "a port": "mov al, 'x'\nout 0xE9, al",
    "a string to a port": "mov esi, esp\nmov ecx, 3\nmov dx, 0x80\nrep outsb",
    "interrupts on and off": "sti\nnop\ncli",
    "a fault": "mov dword [0x700000], 1",
}


def source(extra: str, calls: int = CALLS) -> str:
    return SOURCE.format(extra=EXTRAS[extra], calls=calls)


def stops(end: int) -> Iterable[int]:
    return [*range(end // 2, end // 2 + 40), end + 10]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("technique", ["trap", "translate", "patch", "interpret"])
def test_it_is_the_same_at_every_tick(technique: str, extra: str) -> None:
    program = assemble(source(extra))
    whole = NativeRun(program, ram="4M")
    end = whole.run(100_000).ticks
    assert whole.result is not None
    expected = Stop.TRIPLE_FAULT if extra == "a fault" else Stop.POWERED_OFF
    assert whole.result.stop is expected, whole.result.reason
    ours = NativeRun(program, ram="4M")
    theirs = VirtualRun(program, technique, ram="4M", virtualizable=technique == "trap")
    for tick in stops(end):
        for run in (ours, theirs):
            run.run(tick)
        assert compare(ours.observe(), theirs.observe(), name=technique) is None


def test_a_call_takes_few_exits() -> None:
    def exits(calls: int) -> int:
        machine = VirtualMachine(assemble(source("nothing", calls)), "translate", ram="4M")
        assert machine.run(100_000).status == calls
        return sum(machine.counts.values())

    assert exits(40) - exits(20) <= 20 * 7  # they were 63
