"""The local APIC by its register protocol (SDM vol. 3, chapter 11)."""

from __future__ import annotations

import pytest

from emulator.core import ApicMode, Cpu, lib
from emulator.memory import Memory

BASE = 0xFEE00000
ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR_LOW, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
TIMER, LINT0, LINT1, ERROR = 0x320, 0x350, 0x360, 0x370
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
MASKED, PERIODIC, ENABLE = 1 << 16, 1 << 17, 1 << 8
EXTINT, NMI = 7 << 8, 4 << 8
SELF, EVERYBODY, OTHERS = 1 << 18, 2 << 18, 3 << 18
LOGICAL, LEVEL_ASSERT = 1 << 11, 3 << 14
DIVIDE_BY_1, DIVIDE_BY_16 = 11, 3
SENT, RECEIVED, REGISTER = 1 << 5, 1 << 6, 1 << 7
NEVER = (1 << 64) - 1


class Bench:
    """A CPU whose local APIC the test works like a bus would; `wait` is guest time passing."""

    def __init__(self, mode: int = ApicMode.BUS) -> None:
        self.memory = Memory(2 << 20)
        self.cpu = Cpu(self.memory.machine)
        self.cpu.set_apic(mode)
        self.cpu.reset()
        self[SVR] = ENABLE | 0xFF

    def __getitem__(self, register: int) -> int:
        value: int = lib.cpu_apic_read(self.cpu.pointer, BASE + register, 4)
        return value

    def __setitem__(self, register: int, value: int) -> None:
        self.write(register, value)

    def write(self, register: int, value: int) -> int:
        ended: int = lib.cpu_apic_write(self.cpu.pointer, BASE + register, 4, value)
        return ended

    def message(
        self, vector: int, to: int = 0, *, logical: bool = False, mode: int = 0, level: bool = False
    ) -> bool:
        return bool(lib.cpu_apic_message(self.cpu.pointer, to, logical, mode, vector, level))

    def take(self) -> int | None:
        """Take the interrupt that waits, if there is one."""
        if not self.cpu.state.interrupt_line:
            return None
        return self.cpu.acknowledge()

    def wait(self, ticks: int) -> None:
        """Let time pass, stopping where the timer wants it."""
        state = self.cpu.state
        end = state.tick + ticks
        while state.tick < end:
            state.tick = min(end, max(state.tick + 1, state.timer_due))
            self.cpu.advance_apic()

    def set_of(self, first: int) -> set[int]:
        return {n for n in range(256) if self[first + (n // 32) * 16] >> n % 32 & 1}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_after_reset_it_is_in_virtual_wire_mode():
    cpu = Bench().cpu
    cpu.reset()
    values = [
        lib.cpu_apic_read(cpu.pointer, BASE + register, 4)
        for register in (ID, VERSION, SVR, DFR, LINT0, LINT1, TIMER, ERROR)
    ]
    assert values == [0, 0x50014, 0x1FF, 0xFFFFFFFF, EXTINT, NMI, MASKED, MASKED]


def test_the_8259s_reach_the_cpu_through_lint0(bench):
    bench.cpu.set_interrupt(1)
    assert bench.take() == -1  # ask the 8259s
    bench[LINT0] = EXTINT | MASKED
    assert not bench.cpu.state.interrupt_line
    bench[LINT0] = EXTINT
    assert bench.cpu.state.interrupt_line


def test_lint0_may_be_a_vector_of_its_own(bench):
    bench[LINT0] = 0x55
    bench.cpu.set_interrupt(1)
    bench.cpu.set_interrupt(1)  # no edge
    assert bench.take() == 0x55
    assert bench.take() is None
    bench[EOI] = 0
    bench.cpu.set_interrupt(0)
    bench.cpu.set_interrupt(1)
    assert bench.take() == 0x55


def test_the_highest_vector_comes_first_and_holds_back_its_class(bench):
    for vector in (0x31, 0x52, 0x5F):
        assert bench.message(vector)
    assert bench.take() == 0x5F
    assert bench.take() is None  # 0x52 is of the class that is served
    assert bench[PPR] == 0x50
    assert bench.message(0x60)
    assert bench.take() == 0x60  # a higher class nests
    assert bench.set_of(ISR) == {0x5F, 0x60}
    bench[EOI] = 0
    assert bench.take() is None
    bench[EOI] = 0
    assert bench.take() == 0x52
    bench[EOI] = 0
    assert bench.take() == 0x31


def test_tpr_holds_back_all_up_to_its_class(bench):
    bench[TPR] = 0x40
    assert bench.message(0x4F)
    assert not bench.cpu.state.interrupt_line
    assert bench.set_of(IRR) == {0x4F}
    assert bench[PPR] == 0x40
    bench[TPR] = 0x3F
    assert bench.take() == 0x4F


def test_only_a_level_tells_the_io_apic_of_its_end(bench):
    bench.message(0x41, level=True)
    bench.message(0x61)
    assert bench.set_of(TMR) == {0x41}
    assert bench.take() == 0x61
    assert bench.write(EOI, 0) == -1
    assert bench.take() == 0x41
    assert bench.write(EOI, 0) == 0x41
    assert bench.write(EOI, 0) == -1  # nothing is being served


@pytest.mark.parametrize(
    ("destination", "logical", "meant"),
    [(0, False, True), (1, False, False), (0xFF, False, True), (4, True, True), (3, True, False),
     (0xFF, True, True), (0, True, False)],
)  # fmt: skip
def test_destinations_in_the_flat_model(bench, destination, logical, meant):
    bench[LDR] = 4 << 24
    assert bench.message(0x40, destination, logical=logical) == meant


@pytest.mark.parametrize(("destination", "meant"), [(0x21, True), (0x11, False), (0x22, False)])
def test_destinations_in_the_cluster_model(bench, destination, meant):
    bench[LDR] = 0x21 << 24
    bench[DFR] = 0
    assert bench[DFR] == 0x0FFFFFFF
    assert bench.message(0x40, destination, logical=True) == meant


def test_interprocessor_interrupts_that_reach_oneself(bench):
    for low, high in ((SELF | 0x70, 0), (EVERYBODY | 0x71, 0), (0x72, 0), (LOGICAL | 0x73, 1)):
        bench[LDR] = 1 << 24
        bench[ICR_HIGH] = high << 24
        bench[ICR_LOW] = low
    bench[ICR_LOW] = OTHERS | 0x74
    bench[ICR_HIGH] = 5 << 24
    bench[ICR_LOW] = 0x75
    assert bench.set_of(IRR) == {0x70, 0x71, 0x72, 0x73}
    bench[ICR_LOW] = SELF | LEVEL_ASSERT | 0x76
    assert bench.set_of(TMR) == {0x76}
    assert bench[ICR_HIGH] == 5 << 24


def test_illegal_vectors_and_registers_are_errors(bench):
    bench[ERROR] = 0xEE
    bench[ICR_LOW] = SELF | 5
    assert bench.take() == 0xEE
    bench[EOI] = 0
    bench.message(6)
    bench[0x400] = 0
    assert bench[ESR] == 0  # until it is written
    bench[ESR] = 0
    assert bench[ESR] == SENT | RECEIVED | REGISTER
    bench[ESR] = 0
    assert bench[ESR] == 0


def test_an_error_vector_that_is_illegal_itself_ends(bench):
    bench[ERROR] = 3
    bench.message(6)
    bench[ESR] = 0
    assert bench[ESR] == RECEIVED


def test_software_disable_masks_for_good(bench):
    bench[TIMER] = 0x40
    bench[INITIAL] = 100
    bench[SVR] = 0xFF
    assert bench[TIMER] == 0x40 | MASKED
    bench[TIMER] = 0x40
    assert bench[TIMER] == 0x40 | MASKED
    assert not bench.message(0x50)
    assert bench.cpu.state.timer_due == NEVER
    bench[SVR] = ENABLE | 0xFF
    assert bench[TIMER] == 0x40 | MASKED


# -- the timer ----------------------------------------------------------------------------------


def test_one_shot(bench):
    bench[DIVIDE] = DIVIDE_BY_16
    bench[TIMER] = 0x40
    bench[INITIAL] = 10
    assert bench[CURRENT] == 10
    bench.wait(15)
    assert bench[CURRENT] == 10
    bench.wait(1)
    assert bench[CURRENT] == 9
    bench.wait(143)
    assert (bench[CURRENT], bench.take()) == (1, None)
    bench.wait(1)
    assert (bench[CURRENT], bench.take()) == (0, 0x40)
    bench[EOI] = 0
    bench.wait(1000)
    assert bench.take() is None
    assert bench[INITIAL] == 10


def test_periodic(bench):
    bench[DIVIDE] = DIVIDE_BY_1
    bench[TIMER] = PERIODIC | 0x40
    bench[INITIAL] = 100
    ticks = []
    for tick in range(1, 351):
        bench.wait(1)
        if bench.take() is not None:
            ticks.append(tick)
            bench[EOI] = 0
    assert ticks == [100, 200, 300]
    assert bench[CURRENT] == 50
    bench[INITIAL] = 0
    bench.wait(1000)
    assert (bench[CURRENT], bench.take()) == (0, None)


@pytest.mark.parametrize(("code", "by"), [*enumerate((2, 4, 8, 16, 32, 64, 128, 1))])
def test_divisors(bench, code, by):
    bench[DIVIDE] = code & 3 | (code & 4) << 1
    bench[INITIAL] = 1000
    bench.wait(by * 7)
    assert bench[CURRENT] == 993


def test_a_new_divisor_counts_the_rest(bench):
    bench[DIVIDE] = DIVIDE_BY_1
    bench[TIMER] = 0x40
    bench[INITIAL] = 100
    bench.wait(60)
    bench[DIVIDE] = DIVIDE_BY_16
    assert bench[CURRENT] == 40
    bench.wait(639)
    assert bench.take() is None
    bench.wait(1)
    assert bench.take() == 0x40


def test_a_masked_timer_counts_and_says_nothing(bench):
    bench[DIVIDE] = DIVIDE_BY_1
    bench[TIMER] = PERIODIC | MASKED | 0x40
    bench[INITIAL] = 100
    bench.wait(250)
    assert (bench[CURRENT], bench.take()) == (50, None)
    bench[TIMER] = PERIODIC | 0x40
    bench.wait(49)
    assert bench.take() is None
    bench.wait(1)
    assert bench.take() == 0x40


def test_a_count_that_has_ended_stays_so_in_another_mode(bench):
    bench[DIVIDE] = DIVIDE_BY_1
    bench[TIMER] = 0x40 | MASKED
    bench[INITIAL] = 10
    bench.wait(20)
    bench[TIMER] = PERIODIC | 0x40
    bench.wait(100)
    assert (bench[CURRENT], bench.take()) == (0, None)


# -- accesses -----------------------------------------------------------------------------------


def test_narrow_and_unaligned_accesses(bench):
    pointer = bench.cpu.pointer
    assert lib.cpu_apic_read(pointer, BASE + VERSION, 1) == 0x14
    assert lib.cpu_apic_read(pointer, BASE + VERSION + 2, 1) == 5
    assert lib.cpu_apic_read(pointer, BASE + VERSION + 4, 4) == 0
    lib.cpu_apic_write(pointer, BASE + TPR, 1, 0x20)
    lib.cpu_apic_write(pointer, BASE + TPR + 1, 4, 0x20)
    assert bench[TPR] == 0


def test_saved_and_loaded(bench):
    bench[TIMER] = PERIODIC | 0x40
    bench[INITIAL] = 100
    bench.message(0x51)
    bench.wait(30)
    other = Bench()
    other.cpu.load(bench.cpu.save())
    bench.wait(500)
    other.wait(500)
    assert other.take() == bench.take() == 0x51
    assert other[CURRENT] == bench[CURRENT]
    assert other.cpu.state.timer_due == bench.cpu.state.timer_due


def test_a_lent_apic_reports_that_its_output_rises():
    bench = Bench(ApicMode.BUS)
    real = Bench(ApicMode.LENT)
    bench[TIMER] = 0x40
    bench[DIVIDE] = DIVIDE_BY_1
    bench[INITIAL] = 50
    lib.cpu_hand_over(real.cpu.pointer, bench.cpu.pointer, 0)
    real.cpu.state.tick = 50
    real.cpu.advance_apic()
    assert not real.cpu.state.interrupt_line  # it is not that CPU's own
    assert real.cpu.state.apic.asserted
    lib.cpu_hand_over(bench.cpu.pointer, real.cpu.pointer, 0)
    assert bench.take() == 0x40
