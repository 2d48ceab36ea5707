"""Single steps, debug registers and shadows: which #DB comes when, and what DR6 says."""

from __future__ import annotations

import pytest

from emulator.core import ExitReason
from tests.core.lab import (
    CODE,
    CODE_OF,
    DATA,
    DATA_OF,
    DB,
    FLAG,
    FREE,
    GP,
    STACK,
    UD,
    Lab,
    Outcome,
    descriptor,
    dpl,
    gate,
)

TF, RF, IF = FLAG["tf"], FLAG["rf"], FLAG["if"]
BS, BD = 1 << 14, 1 << 13
DR6_CLEAR = 0xFFFF0FF0
GD = 1 << 13


@pytest.fixture
def lab() -> Lab:
    return Lab()


def dr7(n: int, condition: int, length: int, enable: int = 2) -> int:
    """Enable breakpoint n: condition 0 execute, 1 write, 2 port, 3 access; length in bytes."""
    field = {1: 0, 2: 1, 4: 3}[length]
    return enable << n * 2 | condition << 16 + n * 4 | field << 18 + n * 4 | 0x400


def watch(lab: Lab, address: int, condition: int, length: int = 1, n: int = 0) -> None:
    lab.state.dr[n] = address
    lab.state.dr[7] |= dr7(n, condition, length)


def trapped(outcome: Outcome, eip: int) -> bool:
    return (
        outcome.vector == DB and outcome.frame is not None and outcome.frame.eip == eip
    )  # fmt: skip


# -- Single step ----------------------------------------------------------------------------------


def test_step(lab: Lab) -> None:
    lab.cpu["eflags"] = TF | IF | 2
    outcome = lab.run("inc eax\ninc eax\nhlt")
    assert trapped(outcome, CODE + 1)
    assert lab.cpu["eax"] == 1
    assert lab.state.dr[6] == DR6_CLEAR | BS
    assert outcome.frame is not None
    assert outcome.frame.eflags == TF | IF | 2  # a trap: RF as it was
    assert lab.cpu["eflags"] & TF == 0


def test_popf_sets_tf_for_the_instruction_after_the_next(lab: Lab) -> None:
    outcome = lab.run(f"push dword {TF | 2}\npopf\ninc eax\ninc eax\nhlt")
    assert trapped(outcome, CODE + 7)
    assert lab.cpu["eax"] == 1


def test_popf_that_clears_tf_still_traps(lab: Lab) -> None:
    lab.put32(STACK - 4, 2)
    lab.cpu["esp"] = STACK - 4
    lab.cpu["eflags"] = TF | 2
    outcome = lab.run("popf\nhlt")
    assert trapped(outcome, CODE + 1)
    assert outcome.frame is not None
    assert outcome.frame.eflags == 2


def test_iret_sets_tf_for_the_instruction_after_the_next(lab: Lab) -> None:
    lab.put32(STACK - 12, CODE + 1, CODE_OF[0], TF | 2)
    lab.cpu["esp"] = STACK - 12
    assert trapped(lab.run("iret\ninc eax\ninc eax"), CODE + 2)


def test_a_software_interrupt_is_not_stepped_into(lab: Lab) -> None:
    lab.cpu["eflags"] = TF | 2
    outcome = lab.run("int 0x33\nhlt")
    assert outcome.vector == 0x33  # the handler's HLT was reached without #DB
    assert outcome.frame is not None
    assert outcome.frame.eflags == TF | 2
    assert lab.state.dr[6] == DR6_CLEAR


def test_a_faulting_instruction_does_not_step(lab: Lab) -> None:
    lab.cpu["eflags"] = TF | 2
    outcome = lab.run("ud2")
    assert outcome.vector == UD
    assert lab.state.dr[6] == DR6_CLEAR


def test_each_iteration_of_a_repeat_steps(lab: Lab) -> None:
    lab.cpu["eflags"] = TF | 2
    lab.cpu["ecx"], lab.cpu["edi"] = 3, DATA
    outcome = lab.run("rep stosb\nhlt")
    assert trapped(outcome, CODE)
    assert lab.cpu["ecx"] == 2


def test_rep_runs_to_its_end_by_steps(lab: Lab) -> None:
    """A handler that only returns: the repeat goes on, and traps once an iteration."""
    lab.memory.write(DATA + 0x100, b"\x43\xcf")  # inc ebx; iret
    lab.set_idt(DB, gate(CODE_OF[0], DATA + 0x100, 0xE))
    lab.cpu["ecx"], lab.cpu["edi"], lab.cpu["eax"] = 5, DATA, 0x77
    lab.run(f"push dword {TF | 2}\npopf\nrep stosb\nnop\npush dword 2\npopf\nhlt")
    assert lab.memory.read(DATA, 6) == b"\x77" * 5 + b"\0"
    assert lab.cpu["ebx"] == 5 + 3
    assert lab.cpu["ecx"] == 0


def test_sti_shadow_does_not_hold_off_the_step(lab: Lab) -> None:
    lab.cpu["eflags"] = TF | 2
    assert trapped(lab.run("sti\nnop"), CODE + 1)


@pytest.mark.parametrize("source", ["mov ss, ax", "pop ss"])
def test_loading_ss_holds_off_the_step(lab: Lab, source: str) -> None:
    lab.cpu["eflags"], lab.cpu["eax"] = TF | 2, DATA_OF[0]
    lab.put32(STACK - 4, DATA_OF[0])
    lab.cpu["esp"] = STACK - 4
    length = lab.load(f"{source}\nnop\nnop") - 2
    assert trapped(lab.go(), CODE + length + 1)


# -- Instruction breakpoints ----------------------------------------------------------------------


def test_instruction_breakpoint_is_a_fault(lab: Lab) -> None:
    watch(lab, CODE + 1, 0, n=2)
    outcome = lab.run("inc eax\ninc eax\nhlt")
    assert trapped(outcome, CODE + 1)
    assert lab.cpu["eax"] == 1
    assert lab.state.dr[6] == DR6_CLEAR | 4
    assert outcome.frame is not None
    assert not outcome.frame.eflags & RF


def test_rf_suppresses_it_once(lab: Lab) -> None:
    watch(lab, CODE, 0)
    lab.cpu["eflags"] = RF | 2
    outcome = lab.run("inc eax\njmp $-1")
    assert trapped(outcome, CODE)
    assert lab.cpu["eax"] == 1  # the second time round it is hit
    assert lab.cpu["eflags"] & RF == 0


def test_iret_restores_rf(lab: Lab) -> None:
    """As a debugger goes on from a breakpoint: RF in the image, and one instruction runs."""
    watch(lab, CODE + 1, 0)
    lab.put32(STACK - 12, CODE + 1, CODE_OF[0], RF | 2)
    lab.cpu["esp"] = STACK - 12
    assert lab.run("iret\ninc eax\nhlt").vector is None
    assert lab.cpu["eax"] == 1


def test_a_fault_pushes_rf(lab: Lab) -> None:
    watch(lab, CODE + 2, 0)
    lab.load("nop\nnop\nmov eax, [cs:ecx+4]\nmov ds, [DATA]")
    lab.put32(DATA, 0x77)
    outcome = lab.go()
    assert trapped(outcome, CODE + 2)
    lab.cpu["eip"] = CODE + 2
    lab.cpu["eflags"] |= RF
    outcome = lab.go()
    assert outcome.fault == (GP, 0x74)
    assert outcome.frame is not None
    assert outcome.frame.eflags & RF


def test_disabled_breakpoints_do_nothing(lab: Lab) -> None:
    lab.state.dr[0] = CODE + 1
    assert lab.run("inc eax\ninc eax\nhlt").vector is None


def test_mov_ss_holds_off_an_instruction_breakpoint(lab: Lab) -> None:
    watch(lab, CODE + 2, 0)
    lab.cpu["eax"] = DATA_OF[0]
    assert lab.run("mov ss, eax\nnop\nhlt").vector is None


# -- Data breakpoints -----------------------------------------------------------------------------

DATA_CASES = [
    # condition, length, instruction, hit
    (1, 4, "mov [DATA+8], eax", True),
    (1, 4, "mov ebx, [DATA+8]", False),
    (3, 4, "mov ebx, [DATA+8]", True),
    (1, 1, "mov [DATA+7], eax", True),
    (1, 1, "mov [DATA+4], eax", False),
    (1, 1, "mov [DATA+9], eax", False),
    (1, 2, "mov [DATA+9], al", True),
    (1, 4, "mov byte [DATA+11], 1", True),
    (1, 4, "mov byte [DATA+12], 1", False),
    (1, 4, "add [DATA+8], eax", True),
    (1, 4, "cmp [DATA+8], eax", False),
    (3, 4, "cmp [DATA+8], eax", True),
    (1, 4, "push dword [DATA+8]", False),
    (3, 4, "push dword [DATA+8]", True),
]


@pytest.mark.parametrize(("condition", "length", "source", "hit"), DATA_CASES)
def test_data_breakpoint(lab: Lab, condition: int, length: int, source: str, hit: bool) -> None:
    watch(lab, DATA + 8, condition, length, n=1)
    size = lab.load(f"nop\n{source}")
    lab.memory.write(CODE + size, b"\xf4")
    outcome = lab.go()
    if hit:
        assert trapped(outcome, CODE + size)  # a trap: after the instruction
        assert lab.state.dr[6] == DR6_CLEAR | 2
    else:
        assert outcome.vector is None


def test_data_breakpoint_after_the_page_was_cached(lab: Lab) -> None:
    """DR7 written by the guest itself, with the page in the TLB for long."""
    outcome = lab.run(
        f"""
        mov [DATA+8], eax
        mov ecx, DATA+8
        mov dr0, ecx
        mov ecx, {dr7(0, 1, 4)}
        mov dr7, ecx
        mov [DATA+16], eax
        mov [DATA+8], eax
        hlt
        """
    )
    assert outcome.vector == DB
    assert outcome.frame is not None
    assert lab.memory.u8(outcome.frame.eip) == 0xF4


def test_data_breakpoint_in_a_repeat(lab: Lab) -> None:
    watch(lab, DATA + 8, 1, 1)
    lab.cpu["ecx"], lab.cpu["edi"], lab.cpu["eax"] = 100, DATA, 1
    outcome = lab.run("rep stosb\nhlt")
    assert trapped(outcome, CODE)
    assert lab.cpu["edi"] == DATA + 9
    assert lab.cpu["ecx"] == 91


@pytest.mark.parametrize("saved", [False, True])
def test_mov_ss_delays_its_own_data_breakpoint(lab: Lab, saved: bool) -> None:
    lab.put32(DATA + 8, DATA_OF[0])
    watch(lab, DATA + 8, 3, 4)
    length = lab.load("mov ss, [DATA+8]\nnop\nnop\nhlt") - 3
    lab.go(1)
    if saved:
        lab.cpu.load(lab.cpu.save())
    outcome = lab.go()
    assert trapped(outcome, CODE + length + 1)
    assert lab.state.dr[6] == DR6_CLEAR | 1


def test_step_and_data_breakpoint_are_one_trap(lab: Lab) -> None:
    watch(lab, DATA + 8, 1, 4)
    lab.cpu["eflags"] = TF | 2
    outcome = lab.run("mov [DATA+8], eax\nhlt")
    assert outcome.vector == DB
    assert lab.state.dr[6] == DR6_CLEAR | BS | 1


def test_dr6_keeps_bs_but_not_old_hits(lab: Lab) -> None:
    watch(lab, DATA + 8, 1, 4)
    lab.state.dr[6] = DR6_CLEAR | BS | 8
    lab.run("mov [DATA+8], eax\nhlt")
    assert lab.state.dr[6] == DR6_CLEAR | BS | 1


# -- The registers --------------------------------------------------------------------------------


def test_fixed_bits(lab: Lab) -> None:
    lab.run(
        """
        mov eax, -1
        mov dr6, eax
        mov ebx, dr6
        xor eax, eax
        mov dr6, eax
        mov ecx, dr6
        mov dr7, eax
        mov edx, dr7
        mov esi, dr4
        mov edi, dr5
        hlt
        """
    )
    assert lab.cpu["ebx"] == 0xFFFFEFFF
    assert lab.cpu["ecx"] == lab.cpu["esi"] == DR6_CLEAR
    assert lab.cpu["edx"] == lab.cpu["edi"] == 0x400
    lab.run("mov eax, 0xFFFFDF00\nmov dr7, eax\nmov edx, dr7\nhlt")
    assert lab.cpu["edx"] == 0xFFFF0700


@pytest.mark.parametrize("source", ["mov eax, dr4", "mov dr5, eax"])
def test_de_makes_dr4_and_dr5_undefined(lab: Lab, source: str) -> None:
    lab.cpu["cr4"] = 8
    assert lab.run(source).vector == UD


@pytest.mark.parametrize("source", ["mov eax, dr0", "mov dr7, eax", "mov eax, dr6"])
def test_general_detect(lab: Lab, source: str) -> None:
    lab.state.dr[7] = GD | 0x400
    lab.cpu["eax"] = 0x400
    outcome = lab.run(f"{source}\nhlt")
    assert trapped(outcome, CODE)  # before the move
    assert lab.state.dr[6] == DR6_CLEAR | BD
    assert lab.state.dr[7] == 0x400  # the handler may use the registers
    assert outcome.frame is not None
    assert outcome.frame.eflags & RF


@pytest.mark.parametrize("source", ["mov eax, dr0", "mov dr7, eax"])
def test_debug_registers_are_privileged(lab: Lab, source: str) -> None:
    lab.state.dr[7] = GD | 0x400
    lab.ring(3)
    assert lab.run(source).fault == (GP, 0)


@pytest.mark.parametrize(("de", "hit"), [(8, True), (0, False)])
def test_port_breakpoint(lab: Lab, de: int, hit: bool) -> None:
    lab.cpu["cr4"] = de
    watch(lab, 0x42, 2, 2)
    lab.load("in al, 0x43\nhlt")
    assert lab.go().reason == ExitReason.PORT_READ
    lab.cpu.complete(0x99)
    outcome = lab.go()
    assert lab.cpu["eax"] == 0x99
    if hit:
        assert trapped(outcome, CODE + 2)
        assert lab.state.dr[6] == DR6_CLEAR | 1
    else:
        assert outcome.vector is None


# -- Shadows --------------------------------------------------------------------------------------


def interrupts_after(lab: Lab, source: str) -> int:
    """Offset of the instruction before which a waiting interrupt can be taken."""
    lab.state.interrupt_line = 1
    assert lab.run(source).reason == ExitReason.INTERRUPT
    return lab.cpu["eip"] - CODE


def test_sti_shadow(lab: Lab) -> None:
    assert interrupts_after(lab, "sti\nnop\nnop\nnop") == 2


def test_sti_twice_has_one_shadow(lab: Lab) -> None:
    assert interrupts_after(lab, "sti\nsti\nnop\nnop") == 2


def test_sti_with_if_set_has_none(lab: Lab) -> None:
    lab.cpu["eflags"] = IF | 2
    lab.load("nop\nsti\nnop")
    assert lab.cpu.run(1) == ExitReason.DEADLINE
    lab.state.interrupt_line = 1
    assert lab.go().reason == ExitReason.INTERRUPT
    assert lab.cpu["eip"] == CODE + 1


def test_sti_then_cli(lab: Lab) -> None:
    lab.state.interrupt_line = 1
    assert lab.run("sti\ncli\nnop\nhlt").reason == ExitReason.HALT


def test_sti_then_hlt(lab: Lab) -> None:
    lab.state.interrupt_line = 1
    assert lab.run("sti\nhlt").reason == ExitReason.HALT
    assert lab.go().reason == ExitReason.INTERRUPT


def test_popf_and_iret_have_no_shadow(lab: Lab) -> None:
    assert interrupts_after(lab, f"push dword {IF | 2}\npopf\nnop\nnop") == 6


def test_mov_ss_shadow(lab: Lab) -> None:
    lab.cpu["eax"] = DATA_OF[0]
    lab.load("nop\nmov ss, eax\nmov esp, ebx\nnop")
    lab.cpu["eflags"] = IF | 2
    lab.cpu.run(2)
    lab.state.interrupt_line = 1
    assert lab.go().reason == ExitReason.INTERRUPT
    assert lab.cpu["eip"] == CODE + 5


def test_shadow_survives_saving(lab: Lab) -> None:
    lab.load("sti\nnop\nnop")
    lab.state.interrupt_line = 1
    assert lab.cpu.run(1) == ExitReason.DEADLINE
    lab.cpu.load(lab.cpu.save())
    assert lab.go().reason == ExitReason.INTERRUPT
    assert lab.cpu["eip"] == CODE + 2


def test_a_conforming_db_handler_in_ring_3(lab: Lab) -> None:
    """The step is taken by the ring that steps, and IRET there goes on stepping."""
    lab.set_gdt(FREE, descriptor(access=dpl(0x9E, 0)))
    lab.memory.write(DATA, b"\x43\xcf")
    lab.set_idt(DB, gate(FREE, DATA, 0xF, 3))
    lab.ring(3)
    lab.cpu["eflags"] = TF | 2
    assert lab.run("nop\nnop\nnop\nint 0x80").vector == 0x80
    assert lab.cpu["ebx"] == 3
