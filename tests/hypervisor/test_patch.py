"""The patcher's hard cases, each with the counter that shows that it came about.

Every program runs on the bare machine and under `patch`, and must be the same run by all that a
guest can tell (hypervisor/experiments/observe.py); then its patches are looked at. What a guest
reads of patched code is the one stated exception, and has a test of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from emulator import Machine
from guests import GUESTS, Guest
from hypervisor.experiments.observe import Difference, MachineRun, NativeRun, compare
from hypervisor.experiments.patch_reasons import Case, reason
from hypervisor.patcher.memory import PatchMemory
from hypervisor.patcher.patches import JUMP, NO_FORM, TARGET, TRAP, Patches
from hypervisor.techniques.patch import UNSCANNED, Patch
from hypervisor.vm import VirtualMachine
from isa import assemble, assemble_file
from tests.hypervisor.hidden_reads import HIDDEN_READS, OTHER_SPACES
from tests.hypervisor.kernel_guests import MAX_TICKS, random_guest
from tests.hypervisor.kernel_guests import RAM as SMALL
from tests.hypervisor.patched_sources import END, SOURCES
from tests.hypervisor.shares import LEAKS, most_interpreted

RAM = "4M"
#: What takes more than a second.
SLOW = frozenset({"os", "os_apic", "echo"})
#: Accessed bits of pages of code are masked, and here any page may have code.
ANY_PAGE = frozenset(range(0, 64 << 20, 4096))


def ran(source: str, technique: str, **options: Any) -> tuple[Difference | None, Patches]:
    """How a program differs from its native run, and its patches."""
    program = assemble(source)
    native = NativeRun(program, ram=RAM)
    native.run(MAX_TICKS)
    vm = VirtualMachine(ram=RAM, technique=technique, **options)
    run = MachineRun(vm, program)
    run.run(MAX_TICKS)
    assert isinstance(vm.technique, Patch)
    return compare(native.observe(), run.observe()), vm.technique.patches


def difference(source: str, technique: str) -> Difference | None:
    return ran(source, technique)[0]


def same(source: str, technique: str = "patch", **options: Any) -> Patches:
    """Hold a program to its native run; its patches."""
    found, patches = ran(source, technique, **options)
    assert found is None
    return patches


def why(source: str) -> str:
    """Why a program may differ by default."""

    def loaded(machine: Any) -> Any:
        machine.load(assemble(source))
        return machine

    case = Case(
        lambda technique: loaded(VirtualMachine(technique=technique, ram=RAM)),
        lambda: loaded(Machine(RAM)),
        lambda technique: difference(source, technique) is None,
        MAX_TICKS,
    )
    return reason(case, "patch")


def kinds(patches: Patches) -> list[str]:
    return [patch.kind for _, patch in sorted(patches.by_eip.items())]


# -- kinds -----------------------------------------------------------------------------------------


def test_a_site_with_room_becomes_a_jump_and_keeps_flags_and_order() -> None:
    patches = same("stc\npushf\nmov eax, 5\npop ebx\ncli\nadd eax, ebx\nmov ecx, cr0\n" + END)
    assert kinds(patches) == [JUMP, JUMP], "the second has moved MOV from CR0 along"
    assert patches.counts[JUMP] == 2


def test_what_only_the_hypervisor_can_do_becomes_int3() -> None:
    patches = same("sgdt [0x90000]\nmov ax, 8\nlar ebx, eax\n" + END)
    assert kinds(patches) == [TRAP, TRAP]
    assert patches.counts[NO_FORM] == 2


def test_int_n_of_the_kernel_is_the_hypervisors() -> None:
    """Through a gate that is open for ring 3 its frame would show ring 1."""
    assert kinds(same(f"mov eax, 1\njmp over\nint 0x80\nover: {END}")) == []
    vm = VirtualMachine(ram=RAM, technique="patch")
    MachineRun(vm, assemble("mov esp, 0x90000\nint 0x80\n")).run(MAX_TICKS)
    assert vm.counts["int3: int"] == 1


@pytest.mark.parametrize("branch", ["loop back", "dec ecx\njnz back", "dec ecx\njz on\njmp back"])
def test_a_loop_that_leads_into_a_jump_moves_as_a_whole(branch: str) -> None:
    loop = f"mov ecx, 3\npushf\nback: pop eax\npush eax\n{branch}\non: pop eax\n{END}"
    assert kinds(same(loop)) == [JUMP]


def test_a_known_target_within_keeps_a_site_from_being_a_jump() -> None:
    loop = "pushf\nback: pop eax\npush eax\nloop back\npop eax"
    patches = same(f"mov ecx, 3\npush eax\njecxz back\npop eax\n{loop}\n{END}")
    assert kinds(patches) == [TRAP]
    assert patches.counts[TARGET] == 1


@pytest.mark.parametrize("direct", [True, False])
def test_a_jump_into_a_patch_is_never_executed_half_way(direct: bool) -> None:
    """Nobody can foresee it: the address is computed. What is found there jumps directly, and so
    undoes the patch; or it is the address within, where the moved instruction is entered."""
    source = f"""
        mov ecx, 2
        pushf
    inside:
        pop eax
        mov ebx, eax
        mov edx, 7
        dec ecx
        jz done
        push eax
        mov eax, {"later" if direct else "inside"} + 0x1234567
        sub eax, 0x1234567
        jmp eax
    done: {END}
    later: jmp inside"""
    patches = same(source, "patch --strict")
    assert patches.counts["downgraded"] == direct


def test_a_site_at_the_end_of_its_page() -> None:
    source = (
        f"jmp near_end\nalign 4096, db 0x90\ntimes 4092 nop\nnear_end: pushf\npop eax\nnop\n{END}"
    )
    patches = same(source)
    assert kinds(patches) == [TRAP]


def test_moved_instructions_fault_where_they_stood() -> None:
    """A divide error within a jump: the frame has the guest's EIP and flags."""
    source = f"""
        mov eax, handler
        mov [idt], ax
        mov word [idt + 2], 8
        mov word [idt + 4], 0x8E00
        shr eax, 16
        mov [idt + 6], ax
        lidt [pointer]
        mov esp, 0x90000
        xor ebx, ebx
        stc
        cli
        div ebx
        times 4 nop
    handler:
        pop eax
        {END}
    pointer: dw 7
        dd idt
    align 4096
    idt: dq 0"""
    assert JUMP in kinds(same(source))


# -- a guest that changes its code -----------------------------------------------------------------


def test_code_written_over_a_patch_is_scanned_again() -> None:
    source = f"""
        mov esp, 0x90000
        mov ecx, 3
    again:
        call routine
        mov byte [routine], 0x90        ; NOP in place of PUSHF,
        mov byte [routine + 1], 0x9C    ; which moves on
        loop again
        {END}
    align 4096
    routine: pushf
        nop
        nop
        nop
        nop
        pop eax
        ret"""
    patches = same(source)
    assert patches.counts["removed"] > 0


def test_one_frame_through_two_addresses() -> None:
    """Executed at both, rewritten through either; guests/alias.asm does it for other techniques."""
    guest = next(guest for guest in GUESTS if guest.name == "alias")
    assert manifest_difference(guest, "patch") is None


@pytest.mark.parametrize("technique", ["patch", "patch --strict"])
@pytest.mark.parametrize("name", HIDDEN_READS)
def test_what_is_read_of_patched_code(name: str, technique: str) -> None:
    """By ring 3, or through a linear page that the kernel does not execute it by."""
    found, patches = ran(HIDDEN_READS[name], technique)
    by_default = technique == "patch"
    assert found is None or (by_default and why(HIDDEN_READS[name]).startswith(UNSCANNED))
    assert isinstance(patches._vm.technique, Patch)
    assert found is not None or patches._vm.technique.hidden > 0


def test_code_at_another_address_is_patched_when_it_is_come_to() -> None:
    """Though its page has been read there, and only an indirect call leads there."""
    patches = same(HIDDEN_READS["executed where it was read"])
    assert {eip >> 22 for eip in patches.by_eip} == {0, 1}


def test_a_kernel_that_reads_the_page_it_executes_reads_patches() -> None:
    """The stated exception: there, instruction and data reads cannot be told apart."""
    program = assemble(f"pushf\nmov eax, 5\npop ebx\nmov al, [0x100000]\nmov [0x90000], al\n{END}")
    machines = []
    for technique in (None, "patch"):
        run = NativeRun(program, ram=RAM) if technique is None else MachineRun(
            VirtualMachine(ram=RAM, technique=technique), program
        )  # fmt: skip
        run.run(MAX_TICKS)
        machines.append(run.machine)
    native, patched = (machine.memory.read(0x90000, 1) for machine in machines)
    assert (native, patched) == (b"\x9c", b"\xe9")
    pages = dict(machines[1].memory.pages())
    assert pages[0x100000][0] == 0x9C, "observed as the guest wrote it"


# -- INT3, ring 3, room ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rings", "probe_popf", "kprobe_int_n"])
def test_code_shared_with_ring_3_and_int3_of_the_guests_own(name: str) -> None:
    guest = next(guest for guest in GUESTS if guest.name == name)
    assert manifest_difference(guest, "patch") is None


def test_no_room_in_patch_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites without room are INT3, and the hypervisor does them."""
    monkeypatch.setattr(PatchMemory.__init__, "__defaults__", (64,))
    patches = same("pushf\nmov eax, 5\npop ebx\npushf\nmov eax, 6\npop ecx\n" + END)
    assert len([patch for patch in patches.by_eip.values() if patch.start]) < 2


def test_room_is_given_back() -> None:
    guest = random_guest(5)
    vm = VirtualMachine(ram=SMALL, technique="patch")
    run = MachineRun(vm, guest.program)
    run.run(MAX_TICKS)
    assert isinstance(vm.technique, Patch)
    memory = vm.technique.memory
    assert sum(size for _, size in memory._holes) < memory.size
    vm.technique.patches.clear()
    assert memory._holes == [(memory._holes[0][0], memory.size)]


# -- whole guests ----------------------------------------------------------------------------------


def manifest_difference(guest: Guest, technique: str) -> Difference | None:
    program = assemble_file(guest.source, include=guest.includes)
    native = NativeRun(program, **guest.options)
    native.run(guest.ticks)
    vm = VirtualMachine(technique=technique, **guest.options)
    run = MachineRun(vm, program)
    run.run(guest.ticks)
    assert vm.real.retired_cpl0 == 0
    if technique == "patch":  # under --strict each indirect transfer asks
        assert sum(vm.interpreted.values()) <= most_interpreted(guest, vm.ticks)
    return compare(native.observe(), run.observe())


each_guest = pytest.mark.parametrize(
    "guest",
    [pytest.param(g, marks=[pytest.mark.deep] * (g.name in SLOW)) for g in GUESTS],
    ids=lambda guest: guest.name,
)


@each_guest
def test_guests_of_the_manifest(guest: Guest) -> None:
    assert manifest_difference(guest, "patch") is None


@pytest.mark.deep
@pytest.mark.parametrize(
    "guest", [g for g in GUESTS if g.name not in LEAKS], ids=lambda guest: guest.name
)
def test_guests_of_the_manifest_strictly(guest: Guest) -> None:
    """Nothing is guessed then, so nothing of ring 3's code is patched."""
    assert manifest_difference(guest, "patch --strict") is None


@each_guest
def test_patch_and_translate_agree(guest: Guest) -> None:
    """With each other, whatever the bare machine says. Ring 3 must be translated for it."""
    seen = []
    program = assemble_file(guest.source, include=guest.includes)
    for technique in ("patch", "translate --user"):
        vm = VirtualMachine(technique=technique, **guest.options)
        run = MachineRun(vm, program)
        run.run(guest.ticks)
        seen.append(replace(run.observe(), code=ANY_PAGE))
    assert compare(*seen) is None


# -- every hard case, and every byte ---------------------------------------------------------------


HARD: Final = {**SOURCES, **OTHER_SPACES}


@pytest.mark.parametrize("name", HARD)
def test_hard_cases(name: str) -> None:
    assert difference(HARD[name], "patch --strict") is None
    by_default = difference(HARD[name], "patch")
    assert by_default is None or why(HARD[name]).startswith(UNSCANNED)


#: What a program is made of that jumps into each of its bytes, and how long that is.
BODY = """
    pushf
    pop eax
    add ebx, eax
    mov ecx, cr0
    cli
    mov edx, 0x589C9C58
    push 0x246
    popf
    push cs
    pop eax
    smsw edi
    nop
"""
BODY_BYTES = len(assemble(BODY).flat())
INTO_BYTE = """
    mov esp, 0x90000
    mov ecx, 32
    mov edi, idt
fill: mov eax, done
    mov [edi], ax
    mov word [edi + 2], 8
    mov word [edi + 4], 0x8E00
    shr eax, 16
    mov [edi + 6], ax
    add edi, 8
    loop fill
    lidt [pointer]
    xor esi, esi
body: {body}
    inc esi
    cmp esi, 2
    jae done
    mov eax, body + {byte} + 0x1234567
    sub eax, 0x1234567
    jmp eax
done: {end}
align 4096
pointer: dw 255
    dd idt
align 8
idt: times 32 dq 0
"""


@pytest.mark.parametrize("byte", range(BODY_BYTES))
def test_a_jump_into_every_byte(byte: int) -> None:
    """When all of it has been patched. Under --strict none is executed half-way."""
    source = INTO_BYTE.format(body=BODY, byte=byte, end=END)
    assert same(source, "patch --strict").counts[JUMP] > 0
    assert difference(source, "patch") is None or why(source).startswith(UNSCANNED)


def test_data_behind_a_call_that_does_not_return() -> None:
    """It is not taken for code if it does not read like code; and text holds nothing to patch."""
    data = "db 0x9D, 0x0F, 0xFF\ndb 'No such thing, said the kernel.', 10\ntimes 16 db 0"
    source = f"""
        mov esp, 0x90000
        call never
    text: {data}
    .end:
    never: mov esi, text
        mov ecx, text.end - text
    sum: movzx eax, byte [esi]
        add ebx, eax
        rol ebx, 3
        inc esi
        loop sum
        cli
        mov eax, 5
        {END}"""
    for technique in ("patch", "patch --strict"):
        assert kinds(same(source, technique)) == [JUMP]
