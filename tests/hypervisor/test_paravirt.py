"""Paravirtual guests: what they do, that they are never seen at it, and what costs them no exit.

The reference of each run is the native twin (paravirt_pair.py). What interrupts and faults do to
sites is in test_paravirt_events.py; random kernels are in test_differential.py.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from emulator.result import Stop
from guests import GUESTS, Guest, find
from hypervisor.errors import HypervisorError
from hypervisor.techniques import TECHNIQUES
from hypervisor.techniques.paravirt import Paravirt
from hypervisor.vm import VirtualMachine
from isa import assemble, assemble_file
from isa.paravirt import HYPERVISOR, VARIANTS
from tests.hypervisor.paravirt_pair import Both, Pair, pair_of
from tests.hypervisor.shares import LEAKS, most_interpreted

#: Asks whether somebody answers.
ASKS = "hypercalls"
FAST = ("hello", "selfmod", "rings", "clock", "os_apic", "kprobe_mov_to_segment",
        "kprobe_pop_segment", "kprobe_iret")  # fmt: skip


def in_tiers(guests: list[Guest]) -> list[object]:
    deep = pytest.mark.deep
    return [
        pytest.param(guest, id=guest.name, marks=() if guest.name in FAST else deep)
        for guest in guests
    ]


def both(guest: Guest, mmu: str) -> Both:
    images = (assemble_file(guest.source, include=guest.includes, paravirt=v) for v in VARIANTS)
    return Both(Pair(*images), mmu=mmu, **guest.options)


# -- The guests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mmu", Paravirt.memories)
@pytest.mark.parametrize("guest", in_tiers([g for g in GUESTS if g.name not in {*LEAKS, ASKS}]))
def test_a_guest_does_what_its_twin_does(guest: Guest, mmu: str) -> None:
    machines = both(guest, mmu)
    assert machines.run(guest.ticks) is None
    result = machines.vm.result()
    assert (result.stop, result.status) == (Stop.POWERED_OFF, guest.status)
    assert result.output.splitlines()[-1:] == guest.prints.splitlines()[-1:]
    interpreted = sum(machines.vm.interpreted.values())
    assert interpreted <= most_interpreted(guest, result.ticks), machines.vm.interpreted


@pytest.mark.deep
@pytest.mark.parametrize("name", sorted(LEAKS))
def test_ring_3_sees_what_is_real(name: str) -> None:
    guest = find(name)
    image = assemble_file(guest.source, include=guest.includes, paravirt=HYPERVISOR)
    result = VirtualMachine(image, "paravirt", ram=guest.ram).run(guest.ticks)
    assert result.stop is Stop.POWERED_OFF
    assert result.output != guest.prints


def test_a_guest_is_answered() -> None:
    guest = find(ASKS)
    image = assemble_file(guest.source, include=guest.includes, paravirt=HYPERVISOR)
    vm = VirtualMachine(image, "paravirt", ram=guest.ram)
    result = vm.run(guest.ticks)
    assert result.output.decode("ascii") == (
        "a hypervisor answers: 8 calls, 16 MiB, 100000000 ticks in a second\n"
        "from one question for the time to the next: 3 ticks\n"
        "this sentence left in one exit\n"
        "bytes written in one exit: 31\n"
        "this sentence left in one exit\n"
        "calls made in one exit: 4\n"
        "  call 1: result 31\n"
        "  call 3: result 0\n"
        "  call 6: error 22\n"
        "  call 7: error 22\n"
        "call 1000: error 38\n"
        "writing from where no memory is: error 14\n"
    )
    assert (result.stop, result.status) == (Stop.POWERED_OFF, 0)
    assert result.exits["hypercall: multicall"] == result.exits["hypercall: shutdown"] == 1


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("variant", [None, *VARIANTS])
def test_images_are_refused_where_they_cannot_run(technique: str, variant: str | None) -> None:
    program = assemble("cli\nmov al, 0\nout 0xF4, al", paravirt=variant)
    vm = VirtualMachine(technique=technique, ram="2M")
    if (technique == "paravirt") == (variant == HYPERVISOR):
        vm.load(program)
        assert vm.run(100).stop is Stop.POWERED_OFF
    else:
        with pytest.raises(HypervisorError, match=f"technique {technique}: .*paravirt"):
            vm.load(program)


# -- What costs no exit ----------------------------------------------------------------------------

FLAGS_AND_SEGMENTS = """
%include "guest.inc"
%include "gdt.inc"
start:
    call install_gdt
    mov edi, [rounds]
.next:
    cli
    sti
    pushf
    cli
    popf
    pushf
    popf
    mov ax, ds
    mov es, ax
    push ds
    pop es
    push USER_DATA
    pop fs
    mov gs, [selector]
    dec edi
    jnz .next
    cli
    exit 0
section .data
selector: dd USER_DATA
rounds: dd 0
"""

#: Rounds of IRET to ring 3 and INT back, through a trap gate.
SYSTEM_CALLS = """
%include "guest.inc"
%include "ring3.inc"
start:
    call install_rings
    mov edx, 0x81
    mov eax, answer
    mov cl, GATE_TRAP | GATE_DPL_3
    call set_gate
    mov eax, program
    mov edi, [rounds]
    call call_ring_3
    print_decimal [answers]
    exit 0
answer:
    inc dword [ss:answers]
    mov esi, [esp]
    iret
ring_3_code
program:
    int 0x81
    dec edi
    jnz program
    hlt
section .data
answers: dd 0
rounds: dd 0
"""

flags_and_segments = cache(lambda: pair_of(FLAGS_AND_SEGMENTS))
system_calls = cache(lambda: pair_of(SYSTEM_CALLS))


@pytest.mark.parametrize("source", [flags_and_segments, system_calls])
def test_rounds_cost_no_exits(source: object) -> None:
    assert callable(source)
    counts: list[Counter[str]] = []
    for rounds in (300, 555):  # of equally many digits
        machines = Both(source(), {"rounds": rounds})
        assert machines.run() is None
        counts.append(machines.vm.counts)
    assert counts[0] == counts[1]
    assert source is flags_and_segments or counts[0]["gate opened"] == 1


def test_a_kernel_calls_itself_through_a_gate_that_is_open_for_ring_3() -> None:
    """What the hardware would push shows ring 1."""
    own = "    mov ebp, eax\n    int 0x81\n    mov ax, [saved_cs]\n    print_hex eax\n"
    source = SYSTEM_CALLS.replace("    print_decimal [answers]\n", own)
    source = source.replace(
        "    iret\n", "    mov ecx, [esp + 4]\n    mov [ss:saved_cs], ecx\n    iret\n", 1
    )
    machines = Both(pair_of(source + "saved_cs: dd 0\n"), {"rounds": 3})
    assert machines.run() is None
    assert machines.vm.counts["gate opened"] == 1


@pytest.mark.parametrize("gates", [False, True])
def test_system_calls_through_a_closed_gate_cost_an_exit_each(gates: bool) -> None:
    image = system_calls().image
    vm = VirtualMachine(technique="paravirt", gates=gates)
    vm.load(image)
    vm.memory.write(image.symbols["rounds"].value, (300).to_bytes(4, "little"))
    result = vm.run(1_000_000)
    assert result.output == b"300"
    assert result.exits["int"] == (0 if gates else 300)
