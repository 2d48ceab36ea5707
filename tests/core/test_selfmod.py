"""Code that changes while it runs: the next instruction is always what memory says.

The core runs decoded copies; these tests change the bytes behind its back in every way there is:
from within the running block, through another mapping of the frame, by string instructions, pushes
and event frames, by the host, by a device's data. Each program's result is known, and is also
what the same program gives when it runs one tick at a time, where every instruction is looked up
afresh.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

import pytest

from emulator.core import ExitReason, lib
from tests.core.lab import CODE, CODE_OF, DATA, STACK, Lab, gate
from tests.core.world import ALIAS, SINGLE, WHOLE, Setup, World, flushed, ragged
from tests.core.world import CODE as WORLD_CODE
from tests.core.world import DATA as WORLD_DATA

INC_EAX, INC_EBX, NOP, HLT = 0x40, 0x43, 0x90, 0xF4


@pytest.fixture
def lab() -> Lab:
    return Lab()


def run_both(source: str, prepare: Callable[[Lab], None] = lambda lab: None) -> Lab:
    """Run a program at full speed and tick by tick; they agree, and the first is returned."""
    ends = []
    for single in (False, True):
        lab = Lab()
        lab.load(source)
        prepare(lab)
        for _ in range(5000):
            reason = lib.cpu_run(lab.cpu.pointer, lab.state.tick + (1 if single else 5000))
            if reason != ExitReason.DEADLINE:
                break
        assert reason == ExitReason.HALT
        ends.append(
            (lab, lab.snapshot(), lab.state.tick, lab.state.cycle, lab.memory.read(0, 4 << 20))
        )
    assert ends[0][1:] == ends[1][1:]
    return ends[0][0]


# -- Within the running block ---------------------------------------------------------------------


def test_the_very_next_instruction() -> None:
    lab = run_both(f"mov byte [next], {INC_EBX}\nnext: inc eax\nhlt")
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (0, 1)


def test_flags_of_a_store_that_changes_what_would_have_hidden_them() -> None:
    """ADD AL writes all flags, so nobody seems to want those of the store: it becomes LAHF."""
    source = "xor eax, eax\nadd byte [target], 0x9F - 0x04\ntarget: add al, 0x90\nhlt"
    assert run_both(source).cpu["eax"] == 0x8600


def test_an_instruction_further_on() -> None:
    lab = run_both(
        f"mov dword [there], {0x43434343}\ninc ecx\ninc edx\nthere: nop\nnop\nnop\nnop\nhlt"
    )
    assert (lab.cpu["ebx"], lab.cpu["ecx"], lab.cpu["edx"]) == (4, 1, 1)


def test_the_immediate_of_the_next_instruction() -> None:
    lab = run_both("mov dword [next+1], 77\nnext: mov eax, 1\nhlt")
    assert lab.cpu["eax"] == 77


def test_an_instruction_that_changes_itself_has_begun_already() -> None:
    """And is another one the next time round: here a jump over the INC."""
    lab = run_both("mov ecx, 3\nagain: mov word [again], 0x08EB\ninc eax\nloop again\nhlt")
    assert (lab.cpu["eax"], lab.cpu["ecx"]) == (1, 0)


def test_code_behind_is_new_in_the_next_round() -> None:
    lab = run_both(
        f"mov ecx, 5\nround: inc eax\nmov byte [round], {INC_EBX}\ndec ecx\njnz round\nhlt"
    )
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (1, 4)


def test_a_jump_that_fused_with_its_comparison() -> None:
    """jz becomes jnz between the comparison and the jump."""
    lab = run_both("mov byte [j], 0x75\ncmp eax, eax\nj: jz end\ninc ebx\nend: hlt")
    assert lab.cpu["ebx"] == 1


def test_flags_that_were_dead_before_the_change() -> None:
    """ADD's flags are dead until the second ADD becomes SETC."""
    lab = run_both("""
        mov eax, -1
        mov dword [next], 0x90C3920F
        add eax, 1
    next:
        add ecx, ecx
        nop
        nop
        hlt
    """)
    assert lab.cpu["ebx"] & 0xFF == 1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_size_of_store(size: int) -> None:
    name = {1: "byte", 2: "word", 4: "dword"}[size]
    value = int.from_bytes(bytes([INC_EBX]) * size, "little")
    lab = run_both(f"mov {name} [next], {value}\nnext: times 4 inc eax\nhlt")
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (4 - size, size)


STORES = {
    "xchg": f"mov al, {INC_EBX}\nxchg al, [next]",
    "add": f"add byte [next], {INC_EBX - INC_EAX}",
    "not": f"mov byte [next], {~INC_EBX & 0xFF}\nnot byte [next]",
    "bts": "bts dword [next], 0\nbts dword [next], 1",
    "cmpxchg": f"mov al, {INC_EAX}\nmov cl, {INC_EBX}\ncmpxchg [next], cl",
    "setcc": f"mov byte [next], 1\nxor ecx, ecx\nsetnz [next]\nadd byte [next], {INC_EBX}",
    "stosb": f"mov al, {INC_EBX}\nmov edi, next\nstosb",
    "movsb": "mov esi, source\nmov edi, next\nmovsb",
    "push": f"mov esp, next+4\npush dword {0x90909043}",
    "pop": f"push dword {0x90909043}\npop dword [next]",
    "sgdt": "lgdt [image]\nsgdt [next]",
    "pusha": f"mov eax, {0x90909043}\nmov esp, next+32\nmov edi, eax\nmov ebx, 0\npusha",
    "shld": f"mov dword [next], 0x909090\nmov ecx, {0x43000000}\nshld [next], ecx, 8",
    "cmpxchg8b": "mov eax, 0x90909040\nmov edx, 0x90909090\nmov ebx, 0x90909043\n"
    "mov ecx, edx\ncmpxchg8b [next]\nmov ebx, 0",
}


@pytest.mark.parametrize("name", STORES)
def test_any_store_over_the_next_instruction(name: str) -> None:
    """Whatever stores: INC EBX comes after it, and not INC EAX."""
    lab = run_both(f"""
        mov ebx, 0
        {STORES[name]}
        jmp short next
        image: dw 0x9043, 0x9090, 0x9090
    next: inc eax
        times 40 nop
        mov ecx, ebx
        hlt
        source: db {INC_EBX}
    """)
    assert lab.cpu["ecx"] & 0xFF in (1, 0x44)


def test_call_pushes_its_return_address_over_the_target() -> None:
    """The bytes of the return address are executed."""
    lab = run_both("mov esp, target+4\ncall target\nnop\ntarget: times 8 inc eax\nhlt")
    target = CODE + 5 + 5 + 1
    assert lab.memory.read(target, 4) == struct.pack("<I", target - 1)


def test_an_event_frame_over_the_handler(lab: Lab) -> None:
    """The frame's EIP, written over the handler's first bytes, is what the handler is."""

    def prepare(lab: Lab) -> None:
        lab.memory.write(DATA, bytes([NOP] * 4 + [HLT] * 12))
        lab.set_idt(0x30, gate(CODE_OF[0], DATA, 0xE))
        lab.cpu["esp"] = DATA + 12

    # The return address is CODE + 2: 02 00 10 00, add al, [eax]; adc [eax], al.
    run_both("int 0x30", lambda lab: (prepare(lab), lab.cpu.__setitem__("eax", DATA + 0x100))[0])


# -- String instructions --------------------------------------------------------------------------


def test_rep_movsb_over_itself() -> None:
    """The bytes after the repeat, and then those of the repeat, are replaced under way."""
    lab = run_both(f"""
        mov esi, source
        mov edi, over
        mov ecx, 8
    over: rep movsb
        times 6 inc eax
        hlt
    source: db 0xF3, 0xA4
        times 6 db {INC_EBX}
    """)
    assert (lab.cpu["eax"], lab.cpu["ebx"], lab.cpu["ecx"]) == (0, 6, 0)


def test_rep_stosb_turns_into_something_else() -> None:
    """The first iteration overwrites the prefix: what is left is two other instructions."""
    lab = run_both(f"mov edi, over\nmov ecx, 100\nmov al, {NOP}\nover: rep stosb\nhlt")
    assert lab.cpu["ecx"] == 99
    assert lab.memory.read(CODE + 5 + 5 + 2, 3) == bytes([NOP, NOP, HLT])


def test_rep_stosd_through_a_page_of_code() -> None:
    """A long fill that runs into the page of the running code, and stops short of it."""
    lab = run_both(f"""
        mov edi, {CODE - 0x2000}
        mov ecx, 0x801
        mov eax, {0x43434343}
        rep stosd
        hlt
    """)
    assert lab.memory.read(CODE, 4) == bytes([INC_EBX] * 4)


def test_ins_brings_code(lab: Lab) -> None:
    lab.load("mov edx, 0x60\nmov edi, next\nmov ecx, 4\nrep insb\nnext: times 4 inc eax\nhlt")
    got = 0
    while True:
        reason = lab.go().reason
        if reason == ExitReason.HALT:
            break
        count = lab.cpu.exit.count
        got += count
        if count == 1:
            lab.cpu.complete(INC_EBX)
        else:
            lab.cpu.complete_bytes(bytes([INC_EBX]) * count)
    assert got == 4
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (0, 4)


# -- Other blocks ---------------------------------------------------------------------------------


def test_a_chained_block_is_changed() -> None:
    """Loops chain both blocks; then one changes the other, over and over."""
    lab = run_both(f"""
        mov ecx, 100
    one: jmp two
        align 64
    two: inc eax
        dec ecx
        cmp ecx, 50
        jne skip
        mov byte [two], {INC_EBX}
    skip: test ecx, ecx
        jnz one
        hlt
    """)
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (50, 50)


def test_the_target_of_indirect_jumps_and_returns_is_changed() -> None:
    lab = run_both(f"""
        mov ecx, 20
        mov edx, routine
    again:
        call edx
        cmp ecx, 10
        jne .skip
        mov byte [routine], {INC_EBX}
    .skip: loop again
        hlt
        align 64
    routine: inc eax
        ret
    """)
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (11, 9)


def test_an_instruction_across_pages_is_changed_at_either_end() -> None:
    """mov eax, imm32 whose last two bytes are in the next page."""
    at = DATA + 0x1000 - 3
    lab = run_both(
        f"""
        mov ecx, 3
        mov esi, {DATA + 0x800}
    again:
        call {at}
        mov [esi], eax
        add esi, 4
        cmp ecx, 3
        je .second
        mov byte [{at + 1}], 0x55
        jmp .next
    .second: mov byte [{at + 4}], 0x66
    .next: loop again
        hlt
    """,
        lambda lab: lab.memory.write(at, bytes.fromhex("b8 11223344 c3")),
    )
    values = struct.unpack("<3I", lab.memory.read(DATA + 0x800, 12))
    assert values == (0x44332211, 0x66332211, 0x66332255)


def test_an_instruction_that_runs_on_into_its_own_page() -> None:
    """One frame at two addresses in a row: add eax, imm32 begins at its end and ends at its start.
    Each byte of the immediate is changed between two calls."""
    from tests.core.world import HIGH_TABLE

    frame = WORLD_DATA
    start = ALIAS + frame + 0xFFE
    code = b"\xc7\x05" + struct.pack("<II", HIGH_TABLE + (frame >> 12) * 4 + 4, frame | 0x67)
    code += b"\xba" + struct.pack("<I", start) + b"\xff\xd2"
    for at, value in ((0xFFF, 2), (0, 3), (1, 4), (2, 5)):
        code += b"\xc6\x05" + struct.pack("<IB", frame + at, value) + b"\xff\xd2"
    world = in_world(code + b"\xf4", ((frame, bytes(3) + b"\xc3"), (frame + 0xFFE, b"\x05\x01")))
    assert world.state.gpr[0] == 1 + 2 + 0x302 + 0x40302 + 0x5040302


def test_a_routine_is_copied_over_another_and_called() -> None:
    """A small loader: 200 different routines at one place, the last bytes of which are data."""
    lab = run_both(f"""
        mov ecx, 200
        xor ebx, ebx
    again:
        mov byte [{DATA}], 0x81          ; add ebx, imm32
        mov byte [{DATA + 1}], 0xC3
        mov [{DATA + 2}], ecx
        mov byte [{DATA + 6}], 0xC3      ; ret
        mov edx, {DATA}
        call edx
        loop again
        hlt
    """)
    assert lab.cpu["ebx"] == 200 * 201 // 2


# -- The host and other mappings ------------------------------------------------------------------


def test_host_writes_are_seen(lab: Lab) -> None:
    lab.load("again: inc eax\njmp again")
    lab.go(20)
    assert lab.cpu["eax"] == 10
    lab.memory.write(CODE, bytes([INC_EBX]))
    lab.go(20)
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (10, 10)


def test_linear_host_writes_are_seen(lab: Lab) -> None:
    lab.load("again: inc eax\njmp again")
    lab.go(20)
    assert lib.cpu_write_linear(lab.cpu.pointer, CODE, bytes([INC_EBX]), 1, 0) == 1
    lab.go(20)
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (10, 10)


def test_another_frame_is_mapped_under_running_code(lab: Lab) -> None:
    """A machine page gets other memory: machine_map forgets the old one's code."""
    lab.memory.write(DATA, b"\x43\xeb\xfd")
    lab.load("again: inc eax\njmp again")
    lab.go(20)
    lib.machine_map(lab.memory.machine, CODE >> 12, DATA)
    lab.go(20)
    assert (lab.cpu["eax"], lab.cpu["ebx"]) == (10, 10)


def in_world(code: bytes, memory: tuple[tuple[int, bytes], ...] = (), ticks: int = 200) -> World:
    """Run code under paging, at full speed and cut up; all agree."""
    world = World()
    setup = Setup(code, (0,) * 4 + (WORLD_DATA + 0x2000,) + (0,) * 3, memory, paging=True)
    whole = world.run(setup, ticks, WHOLE)
    for plan in (SINGLE, ragged(1), ragged(2), flushed(3)):
        assert not whole.differences(world.run(setup, ticks, plan)), plan.name
    world.run(setup, ticks, WHOLE)
    return world


def test_a_store_through_another_mapping() -> None:
    """The frame's other linear address; the running block changes at once."""
    store = b"\xc6\x05" + struct.pack("<I", ALIAS + WORLD_CODE + 7) + bytes([INC_EBX])
    world = in_world(store + bytes([INC_EAX, HLT]))
    assert (world.state.gpr[0], world.state.gpr[3]) == (0, 1)


def test_a_loop_that_changes_itself_through_another_mapping() -> None:
    """inc [alias of the immediate] / add ebx, imm8 / loop: the immediates are 1, 2, 3, ..."""
    change = b"\xfe\x05" + struct.pack("<I", ALIAS + WORLD_CODE + 5 + 6 + 2)
    world = in_world(b"\xb9\x0a\0\0\0" + change + b"\x83\xc3\x00" + b"\xe2\xf5" + b"\xf4")
    assert world.state.gpr[3] == 55


def test_the_same_code_through_two_mappings() -> None:
    """Both copies are dropped by one store."""
    routine = WORLD_DATA
    code = bytearray()

    def call(to: int) -> None:
        code.extend(b"\xe8" + struct.pack("<i", to - (WORLD_CODE + len(code) + 5)))

    call(routine)
    call(routine + ALIAS)
    code.extend(b"\xc6\x05" + struct.pack("<I", routine) + bytes([INC_EBX]))
    call(routine)
    call(routine + ALIAS)
    world = in_world(bytes(code) + b"\xf4", ((routine, bytes([INC_EAX, 0xC3])),))
    assert (world.state.gpr[0], world.state.gpr[3]) == (2, 2)


def test_a_page_of_code_is_replaced_by_the_page_tables() -> None:
    """The same linear address, first one frame and then another: invlpg between."""
    from tests.core.world import HIGH_TABLE

    first, second = WORLD_DATA, WORLD_DATA + 0x1000
    linear = ALIAS + first
    entry = HIGH_TABLE + (first >> 12) * 4
    code = b"\xba" + struct.pack("<I", linear) + b"\xff\xd2"
    code += b"\xc7\x05" + struct.pack("<II", entry, second | 0x67)
    code += b"\x0f\x01\x3a\xff\xd2\xf4"
    routines = ((first, bytes([INC_EAX, 0xC3])), (second, bytes([INC_EBX, 0xC3])))
    world = in_world(code, routines)
    assert (world.state.gpr[0], world.state.gpr[3]) == (1, 1)


def test_a_frame_is_reused_after_its_page_is_gone() -> None:
    """Executed, unmapped, written through another mapping, mapped and executed again."""
    from tests.core.world import HIGH_TABLE

    frame = WORLD_DATA
    linear, entry = ALIAS + frame, HIGH_TABLE + (frame >> 12) * 4
    code = b"\xba" + struct.pack("<I", linear) + b"\xff\xd2"
    code += b"\xc7\x05" + struct.pack("<II", entry, 0) + b"\x0f\x01\x3a"
    code += b"\xc6\x05" + struct.pack("<I", frame) + bytes([INC_EBX])
    code += b"\xc7\x05" + struct.pack("<II", entry, frame | 0x67) + b"\xff\xd2\xf4"
    world = in_world(code, ((frame, bytes([INC_EAX, 0xC3])),))
    assert (world.state.gpr[0], world.state.gpr[3]) == (1, 1)


# -- At random ------------------------------------------------------------------------------------


def patching_program(rng: Random) -> Setup:
    """Instructions of one and two bytes, and stores of such over any of them, in a loop."""
    pieces = [bytes([0x40 + n]) for n in range(8) if n != 4]
    pieces += [bytes([0x90]), b"\x01\xc8", b"\x29\xd3", b"\xeb\x01", b"\x74\x01", b"\x39\xd8"]
    length = 160
    code = b""
    while len(code) < length:
        if rng.randrange(4):
            code += rng.choice(pieces)
        else:
            where = WORLD_CODE + rng.randrange(length) + rng.choice((0, 0, ALIAS))
            piece = rng.choice(pieces).ljust(2, b"\x90")
            code += b"\x66\xc7\x05" + struct.pack("<I", where) + piece
    code += b"\xe9" + struct.pack("<i", -len(code) - 5)
    registers = (*(rng.getrandbits(32) for _ in range(4)), WORLD_DATA + 0x2000, 0, 0, 0)
    return Setup(code, registers, paging=True, ring=rng.choice((0, 3)))


def test_random_patches() -> None:
    world = World()
    for seed in range(40):
        setup = patching_program(Random(seed))
        whole = world.run(setup, 1500, WHOLE)
        for plan in (SINGLE, ragged(seed)):
            assert not whole.differences(world.run(setup, 1500, plan)), f"seed {seed}, {plan.name}"


def test_the_stack_runs_through_the_code(lab: Lab) -> None:
    """Pushes walk down over the program, the running loop included, until a byte means HLT."""
    lab.memory.write(STACK, b"\0" * 4)
    lab2 = run_both(f"""
        mov esp, after
        mov eax, {0xF4909090}
        mov ecx, 64
    again: push eax
        loop again
        hlt
        times 60 nop
    after: hlt
    """)
    assert lab2.cpu["ecx"] > 0
