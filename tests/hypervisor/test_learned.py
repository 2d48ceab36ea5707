"""What kernels that are not ours have taught, each thing as small as it can be made.

Other such tests stand with what they are about: COM1's interrupt without OUT2, an absent first
drive, an ELF entry (tests/emulator), WAIT (tests/core), a stack in the top 4 MiB (test_scratch.py).
"""

from __future__ import annotations

import pytest

from hypervisor.descriptors import MOST_STORES
from hypervisor.experiments.observe import MachineRun, NativeRun, compare
from hypervisor.vm import VirtualMachine
from isa import assemble
from tests.core.lab import READABLE, WRITABLE, descriptor

ROUNDS = 4 * MOST_STORES
#: xv6: the GDT lies in a structure of a CPU, beside the count of how often it has turned interrupts
#: off. Each round counts, loads a segment register, and every thousandth changes a descriptor.
BESIDE = f"""
        mov esp, 0x90000
        lgdt [pointer]
        mov ecx, {ROUNDS}
again:  inc dword [count]
        mov eax, 0x18
        mov es, ax
        add ebx, [es:0]
        mov eax, ecx
        xor edx, edx
        mov esi, 1000
        div esi
        cmp edx, 0
        jne same
        add dword [table + 0x1A], 4     ; the base of what ES is loaded with
same:   loop again
        cli
        hlt
pointer: dw 31
        dd table
        align 4096
table:  dq 0, {descriptor(access=READABLE | 1)}, {descriptor(access=WRITABLE | 1)}
        dq {descriptor(base=0x180000, access=WRITABLE | 1)}
count:  dd 0
"""
#: xv6: from where it is loaded to where it is linked, by a register.
BY_REGISTER = """
        mov esp, 0x90000
        mov eax, high
        jmp eax
        align 4096
        times 4096 db 0x90
high:   cli
        pushf
        pop ebx
        hlt
"""
#: xv6: what saves IF and turns interrupts off has a call right behind, where five bytes reach to.
BEFORE_CALL = """
        mov esp, 0x90000
        mov ecx, 50
again:  call save
        loop again
        cli
        hlt
save:   push ebp
        pushf
        pop eax
        cli
        call mix
        pop ebp
        ret
mix:    add ebx, [esp]                  ; where it returns to
        add ebx, eax
        ret
"""


@pytest.mark.parametrize("technique", ["trap", "translate", "patch"])
def test_a_gdt_among_variables(technique: str) -> None:
    program = assemble(BESIDE)
    native = NativeRun(program, ram="4M")
    native.run(1_000_000)
    vm = VirtualMachine(technique=technique, virtualizable=technique == "trap", ram="4M")
    virtual = MachineRun(vm, program)
    virtual.run(1_000_000)
    assert compare(native.observe(), virtual.observe()) is None
    # A store costs no exit any more, once it is clear that they never end.
    assert vm.counts["traced store"] <= MOST_STORES


@pytest.mark.parametrize("source", [BY_REGISTER, BEFORE_CALL])
@pytest.mark.parametrize("technique", ["patch", "patch --strict", "translate"])
def test_patched_in_time(technique: str, source: str) -> None:
    program = assemble(source)
    native = NativeRun(program, ram="4M")
    native.run(100_000)
    vm = VirtualMachine(technique=technique, ram="4M")
    virtual = MachineRun(vm, program)
    virtual.run(100_000)
    assert compare(native.observe(), virtual.observe()) is None


def test_a_patch_may_end_with_a_call() -> None:
    vm = VirtualMachine(assemble(BEFORE_CALL), "patch", ram="4M")
    vm.run(100_000)
    assert vm.counts["int3: pushf"] == 0
    assert vm.counts["int3: cli"] == 1  # the one before HLT
