"""Retire weights: instructions without weight take no tick of guest time, and nothing else changes.

One guest instruction may be several real ones where a hypervisor has rewritten code. A bitmap for a
machine page says which of them take no tick. Here a model says what should come of it: cpu_run
stops just after the instruction that reaches its limit, whether blocks are cut there or not.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from random import Random

import pytest

from emulator import Machine
from emulator.core import ExitReason, Unsupported, ffi, lib
from isa import assemble
from isa.decoder import decode
from tests.core.lab import CODE, DATA, DB, FLAG, GP, STACK, STUBS, UD, Lab, descriptor

PAGE = CODE >> 12


class WeightLab(Lab):
    def weightless(self, addresses: Iterable[int]) -> None:
        """These instructions take no tick; every other of their pages does."""
        pages: dict[int, bytearray] = {}
        for address in addresses:
            bits = pages.setdefault(address >> 12, bytearray(512))
            bits[(address & 0xFFF) // 8] |= 1 << (address & 7)
        for page, bits in pages.items():
            assert lib.machine_set_weights(self.memory.machine, page, bytes(bits)) == 0

    def instructions(self, length: int) -> list[int]:
        """Addresses of a straight program's instructions."""
        found, at = [], CODE
        while at < CODE + length:
            found.append(at)
            at += decode(self.memory.read(at, 15)).length
        return found

    def load_weighted(self, source: str, weights: str) -> list[int]:
        """Load; `weights` has a digit for each instruction in order."""
        addresses = self.instructions(self.load(source))
        assert len(addresses) == len(weights), "a weight for each instruction"
        self.weightless([a for a, w in zip(addresses, weights, strict=True) if w == "0"])
        return addresses


@pytest.fixture
def lab() -> WeightLab:
    return WeightLab()


def test_ticks_of_a_straight_run(lab: WeightLab) -> None:
    lab.load_weighted("nop\n" * 9 + "hlt", "1001100101")
    assert lab.go().reason == ExitReason.HALT
    assert lab.state.tick == 5


def test_cycles_do_not_depend_on_weights(lab: WeightLab) -> None:
    source = "mov ecx, 50\nagain: add eax, ecx\npush eax\npop ebx\ncmp ecx, 1\nloop again\nhlt"
    lab.run(source)
    plain = lab.state.cycle
    lab = WeightLab()
    lab.load_weighted(source, "0010101")
    lab.go()
    assert (lab.state.cycle, lab.state.tick) == (plain, 50 + 50 + 1)


@pytest.mark.parametrize("seed", range(40))
def test_a_limit_stops_just_after_its_tick(seed: int) -> None:
    """Wherever it falls in blocks that end with weight or without."""
    rng = Random(seed)
    body = [rng.choice(("nop", "inc eax", "push eax\npop ebx", "cmp eax, 7", "jz near next{0}\n"
                        "next{0}:", "jmp near next{0}\nnext{0}:", "mov [DATA], eax"))
            for _ in range(40)]  # fmt: skip
    source = "\n".join(line.format(i) for i, line in enumerate(body)) + f"\njmp near {CODE}"
    lab = WeightLab()
    addresses = lab.instructions(lab.load(source))
    zeros = {a for a in addresses if rng.randrange(3)} - {addresses[-1]}
    lab.weightless(zeros)
    expected, order = [CODE], [*addresses, CODE]
    for address, following in itertools.pairwise(order):
        if address not in zeros:
            expected.append(following)
    for tick in range(1, len(expected)):
        assert lab.cpu.run(tick) == ExitReason.DEADLINE
        assert (lab.state.tick, lab.cpu["eip"]) == (tick, expected[tick])
    weight = len(expected) - 1
    for _ in range(10):  # and in longer pieces
        tick = lab.state.tick + rng.randrange(1, 3 * weight)
        assert lab.cpu.run(tick) == ExitReason.DEADLINE
        assert (lab.state.tick, lab.cpu["eip"]) == (tick, expected[(tick - 1) % weight + 1])


@pytest.mark.parametrize("weights", ["1011", "1101", "1111"])
def test_a_fused_comparison_and_its_jump(lab: WeightLab, weights: str) -> None:
    addresses = lab.load_weighted("mov ecx, 3\nagain: cmp ecx, 5\njnz near again\nhlt", weights)
    after = {"1011": addresses[1:2], "1101": addresses[2:3], "1111": addresses[1:3]}[weights]
    for tick in (*range(1, 9), 50, 1000, 1001):
        assert lab.cpu.run(tick) == ExitReason.DEADLINE
        assert lab.state.tick == tick
        if tick > 1:
            assert lab.cpu["eip"] in after


@pytest.fixture
def requested(lab: WeightLab) -> threading.Thread:
    """Asks the lab's CPU to exit in a while."""

    def ask() -> None:
        time.sleep(0.05)
        lib.cpu_request_exit(lab.cpu.pointer)

    return threading.Thread(target=ask)


ENDLESS = [
    ("again: jmp again", "0"), ("again: inc eax\njmp again", "00"),
    ("again: cmp eax, 1\njmp again", "00"), ("again: push again\nret", "00"),
    ("again: mov ecx, -1\nmov edi, 0x80000000\nrep stosd\njmp again", "0000"),
    ("again: call there\nthere: add esp, 4\njmp again", "000"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "weights"), ENDLESS)
@pytest.mark.parametrize("flags", [2, 2 | FLAG["tf"]])
def test_an_endless_loop_honours_a_request(
    lab: WeightLab, requested: threading.Thread, source: str, weights: str, flags: int
) -> None:
    if flags & FLAG["tf"]:
        lab.memory.write(STUBS + DB * 16, b"\xcf")
        lab.weightless([STUBS + DB * 16])
    lab.load_weighted(source, weights)
    lab.cpu["eflags"] = flags
    requested.start()
    assert lab.go(1000).reason == ExitReason.REQUEST
    assert lab.state.tick == 0
    requested.join()


def test_a_weightless_repeat(lab: WeightLab) -> None:
    lab.load_weighted("mov ecx, 3000\nmov edi, DATA\nrep stosd\nnop\nhlt", "10011")
    assert lab.go().reason == ExitReason.HALT
    assert (lab.state.tick, lab.cpu["ecx"], lab.cpu["edi"]) == (3, 0, DATA + 12000)


@pytest.mark.parametrize("weight", "01")
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_limit_before_a_repeat(lab: WeightLab, weight: str, limit: int) -> None:
    addresses = lab.load_weighted("mov ecx, 3\nmov edi, DATA\nrep stosd\nnop\nhlt",
                                  f"10{weight}11")  # fmt: skip
    assert lab.cpu.run(limit) == (ExitReason.DEADLINE if limit < 3 or weight == "1"
                                  else ExitReason.HALT)  # fmt: skip
    if weight == "0":
        assert (lab.state.tick, lab.cpu["eip"]) == {
            1: (1, addresses[1]), 2: (2, addresses[4]), 3: (3, addresses[4] + 1),
            5: (3, addresses[4] + 1)}[limit]  # fmt: skip
    else:
        assert lab.state.tick == limit
        assert lab.cpu["ecx"] == max(0, 4 - limit)


def test_a_weightless_repeat_of_many_elements_meets_faults(lab: WeightLab) -> None:
    lab.set_segment("es", 0)
    lab.state.seg[0].attributes, lab.state.seg[0].limit = 0xC093, DATA + 0x1FFF
    addresses = lab.load_weighted("mov ecx, 3000\nmov edi, DATA\nrep stosd\nhlt", "1001")
    outcome = lab.go()
    assert outcome.fault == (GP, 0)
    assert outcome.frame is not None
    assert outcome.frame.eip == addresses[2]
    assert lab.cpu["ecx"] == 3000 - 0x800
    assert lab.state.tick == 2, "the first instruction and the handler's HLT"


def test_single_steps_take_their_ticks(lab: WeightLab) -> None:
    """TF: a trap after each instruction that counts, for the others are part of one."""
    lab.memory.write(STUBS + DB * 16, b"\xff\x05" + DATA.to_bytes(4, "little") + b"\xcf")
    lab.weightless([STUBS + DB * 16, STUBS + DB * 16 + 6])
    lab.load_weighted("nop\nnop\nnop\nnop\ninc eax\nnop\nint 0x80", "0100101")
    lab.cpu["eflags"] |= FLAG["tf"]
    assert lab.go().vector == 0x80
    assert lab.state.tick == 4, "the three and the handler's HLT"
    assert lab.get32(DATA) == 2


def test_what_waits_for_a_device_is_not_counted_twice(lab: WeightLab) -> None:
    lab.load_weighted("in al, 0x40\nout 0x40, al\nhlt", "001")
    assert lab.go().reason == ExitReason.PORT_READ
    lab.cpu.complete(5)
    assert lab.go().reason == ExitReason.PORT_WRITE
    assert lab.state.tick == 0
    lab.cpu.complete(0)
    assert lab.go().reason == ExitReason.HALT
    assert lab.state.tick == 1


def test_the_time_stamp(lab: WeightLab) -> None:
    lab.load_weighted("nop\nrdtsc\nmov ebx, eax\nnop\nrdtsc\nhlt", "100101")
    lab.go()
    assert (lab.cpu["ebx"], lab.cpu["eax"]) == (1, 2)


def test_ticks_at_ring_0(lab: WeightLab) -> None:
    lab.ring(3)
    lab.memory.write(STUBS + 0x80 * 16, b"\x90\x90\xcf")
    lab.weightless([STUBS + 0x80 * 16])
    lab.load_weighted("nop\nint 0x80\nnop\nint 0x81", "1001")
    lab.go()
    assert (lab.state.tick, lab.state.retired_cpl0) == (1 + 2 + 1, 2 + 1)


def test_weights_come_and_go(lab: WeightLab) -> None:
    """Blocks that were decoded under others are forgotten."""
    machine, source = lab.memory.machine, "again: inc eax\njmp again"
    lab.load(source)
    lab.cpu.run(100)
    assert lab.cpu["eax"] == 50
    lab.weightless([CODE])
    lab.cpu.run(200)
    assert lab.cpu["eax"] == 150
    assert lib.machine_set_weights(machine, PAGE, ffi.NULL) == 0
    lab.cpu.run(300)
    assert lab.cpu["eax"] == 200
    assert lib.machine_set_weights(machine, 1 << 20, ffi.NULL) == -1
    assert lib.machine_set_weights(machine, lab.memory.size >> 12, bytes(512)) == -1


def test_an_instruction_across_pages_has_the_weight_of_its_first_byte(lab: WeightLab) -> None:
    place = CODE + 0xFFE
    lab.memory.write(place, b"\xb8\x01\x02\x03\x04\x90\xf4")
    lab.weightless([place, CODE + 0x1000])
    lab.cpu["eip"] = place
    assert lab.go().reason == ExitReason.HALT
    assert lab.state.tick == 2


def test_weightless_faults_without_an_end(lab: WeightLab) -> None:
    """Handlers that fault at once, as with weight: at their first instruction, for ever."""
    lab.memory.write(STUBS + UD * 16, b"\x0f\x0b")
    lab.weightless([STUBS + UD * 16])
    lab.load_weighted("mov esp, 0x80000000\nud2", "00")
    assert lab.go().reason == ExitReason.UNSUPPORTED
    assert lab.cpu.exit.detail == Unsupported.FAULT_LOOP
    assert lab.state.tick == 0


def test_many_faults_with_progress_between(lab: WeightLab) -> None:
    """20,000 at one tick, of weightless code that gets on."""
    lab.memory.write(STUBS + UD * 16, b"\x83\x04\x24\x02\xcf")  # add dword [esp], 2; iret
    lab.weightless([STUBS + UD * 16, STUBS + UD * 16 + 4])
    lab.load_weighted("mov ecx, 20000\nagain: ud2\ndec ecx\njnz near again\nhlt", "00001")
    assert lab.go(10).reason == ExitReason.HALT
    assert lab.state.tick == 1


def test_a_store_into_the_running_block(lab: WeightLab) -> None:
    addresses = lab.load_weighted(f"mov byte [{CODE + 7 + 1}], 0x90\nnop\ninc eax\nhlt", "0001")
    lab.memory.write(addresses[1], b"\x90\x40")
    lab.go()
    assert (lab.cpu["eax"], lab.state.tick) == (0, 3), "what was written counts again"


def test_saving_between_weightless_instructions() -> None:
    """A save and load at each step of a run changes nothing."""
    source, weights = "mov ecx, 9\nagain: inc eax\npush eax\npop ebx\nloop again\nhlt", "101001"
    ends = []
    for cut in (False, True):
        lab = WeightLab()
        lab.load_weighted(source, weights)
        while True:
            reason = lab.cpu.run(lab.state.tick + 1 if cut else 1000)
            if reason == ExitReason.HALT:
                break
            saved = lab.cpu.save()
            lab.cpu.reset()
            lab.cpu.load(saved)
        ends.append((lab.state.tick, lab.state.cycle, lab.cpu.registers))
    assert ends[0] == ends[1]


def test_segments_are_as_ever() -> None:
    """A limited code segment: blocks are looked up each time, polls and all."""
    lab = WeightLab()
    lab.set_gdt(0x08, descriptor(0, CODE + 0xFFF, 0x9A))
    lab.ring(0)
    lab.load_weighted("mov ecx, 5\nagain: dec ecx\njnz near again\nhlt", "1001")
    assert lab.go().reason == ExitReason.HALT
    assert (lab.state.tick, lab.cpu["esp"]) == (2, STACK)


def test_a_store_makes_what_starts_there_count_again(lab: WeightLab) -> None:
    """Or a guest could make itself a loop that no tick limit ends."""
    lab.load_weighted("mov word [there], 0xFEEB\nthere: inc eax\nnop\nhlt", "1011")
    assert lab.cpu.run(1000) == ExitReason.DEADLINE


def test_a_host_write_counts_as_a_store(lab: WeightLab) -> None:
    (start, _) = lab.load_weighted("inc eax\nhlt", "01")
    lab.memory.write(start, b"\xeb\xfe")
    assert lab.cpu.run(50) == ExitReason.DEADLINE


def test_they_end_no_shadow(lab: WeightLab) -> None:
    """STI's shadow covers the guest's next instruction, however many it takes."""
    addresses = lab.load_weighted("sti\nnop\nnop\nnop\nhlt", "10011")
    lab.state.interrupt_line = 1
    assert lab.cpu.run(100) == ExitReason.INTERRUPT
    assert lab.cpu["eip"] == addresses[4]


def test_loading_again_forgets_them() -> None:
    machine = Machine(ram="4M")
    machine.load(assemble("inc eax\nhlt"))
    machine.memory.set_weights(PAGE, b"\1" + bytes(511))
    assert machine.run().ticks == 1
    machine.load(assemble("inc eax\nhlt"))
    assert machine.run().ticks == 2
