"""The generated kernels themselves, natively: that they are what the differential tests need.

A generator that never reached a page fault in ring 3 would find no fault of a hypervisor's there.
So what a fixed sample really did is counted, from the guests' own counters and from observations,
and none of it may be missing. And the guests must be fair: the same run every time, however it is
cut, nothing outside the design, and nothing that depends on what a TLB happens to remember.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from random import Random

import pytest
from hypothesis import HealthCheck, find, given, settings

from emulator.core import lib
from hypervisor.experiments.observe import NativeRun, Observation, compare, observe_native
from isa import assemble
from isa.paravirt import VARIANTS
from tests.hypervisor.kernel_guests import (
    FEATURES,
    MAX_TICKS,
    NUMBERS,
    RAM,
    TERMINAL,
    KernelGuest,
    kernel_guests,
    random_guest,
)  # fmt: skip
from tests.hypervisor.kernel_world import DIRECTORIES, DONE, TIMER

SAMPLE, DEEP = 240, 1500
#: Features whose steps end in a fault whatever is drawn, and the vector that shows it.
ALWAYS_FAULT = {"double_faults": 8}


def native(guest: KernelGuest) -> Observation:
    return observe_native(guest.program, ram=RAM, max_ticks=MAX_TICKS)


def counters(seen: Observation) -> dict[str, int]:
    """How many of a guest's steps ran to their end, by feature."""
    page, at = seen.pages.get(DONE & ~0xFFF, bytes(0x1000)), DONE & 0xFFF
    return {
        name: int.from_bytes(page[at + 4 * number : at + 4 * number + 4], "little")
        for name, number in NUMBERS.items()
    }


@dataclass
class Tally:
    """What a sample did."""

    drawn: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    vectors: Counter[tuple[int, int]] = field(default_factory=Counter)  #: and the ring
    page_faults: Counter[int] = field(default_factory=Counter)  #: by error code
    roots: Counter[int] = field(default_factory=Counter)
    accesses: Counter[tuple[str, int]] = field(default_factory=Counter)
    flags: int = 0  #: all that were set in some frame
    selectors: Counter[int] = field(default_factory=Counter)  #: CS in frames


@cache
def sample() -> Tally:
    tally = Tally()
    for seed in range(SAMPLE):
        guest = random_guest(seed)
        seen = native(guest)
        tally.drawn.update(name for name, _ in guest.steps)
        tally.done.update(counters(seen))
        tally.ends[seen.ending.stop] += 1
        tally.vectors.update((event.vector, event.cs & 3) for event in seen.events)
        tally.page_faults.update(e.error for e in seen.events if e.vector == 14 and e.error)
        tally.roots.update(seen.roots)
        tally.accesses.update((access.kind, access.address) for access in seen.accesses)
        tally.selectors.update(event.cs for event in seen.events)
        for event in seen.events:
            tally.flags |= event.eflags
    return tally


# -- That everything comes about ------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FEATURES, *TERMINAL])
def test_every_feature_is_drawn(name: str) -> None:
    assert sample().drawn[name] >= (10 if name in FEATURES else 1)


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_runs_to_its_end(name: str) -> None:
    if name in ALWAYS_FAULT:
        assert sample().vectors[ALWAYS_FAULT[name], 0] > 0
    else:
        assert sample().done[name] > 0


@pytest.mark.parametrize(
    "name",
    ["segment_loads", "gates", "call_gates", "far_transfers", "ring_3", "page_edits",
     "write_protection", "table_loads", "strings"],
)  # fmt: skip
def test_steps_that_may_fault_do_both(name: str) -> None:
    assert 0 < sample().done[name] < sample().drawn[name]


@pytest.mark.parametrize(
    ("vector", "rings"),
    [(0, "0"), (1, "0"), (3, "0"), (4, "0"), (5, "0"), (6, "0"), (7, "0"), (8, "0"), (11, "0"),
     (13, "03"), (14, "03"), (17, "3"), (TIMER, "03"), (0x30, "0"), (0x40, "3")],
)  # fmt: skip
def test_events_arise_in_rings(vector: int, rings: str) -> None:
    assert all(sample().vectors[vector, int(ring)] for ring in rings), sample().vectors


def test_page_faults_of_all_kinds() -> None:
    """Error code: 1 protection, 2 write, 4 user."""
    assert set(sample().page_faults) >= {2, 3, 4, 5, 6, 7}
    assert all(error < 8 for error in sample().page_faults)


def test_all_address_spaces_are_used() -> None:
    assert set(sample().roots) == {0, *DIRECTORIES}


def test_runs_end_in_all_ways() -> None:
    ends = sample().ends
    assert set(ends) == {"POWERED_OFF", "HALTED", "IDLE", "OUT_OF_TICKS", "TRIPLE_FAULT"}
    assert ends["POWERED_OFF"] > SAMPLE // 2, "most should come to their end"


def test_ports_known_and_unknown() -> None:
    accesses = sample().accesses
    for access in (("in", 0x80), ("in", 0x40), ("in", 0x1234), ("out", 0xE9), ("out", 0x5000)):
        assert accesses[access], access


def test_flags_of_all_kinds_are_interrupted() -> None:
    for bit in (0x100, 0x200, 0x1000, 0x2000, 0x10000, 0x40000):
        assert sample().flags & bit, hex(bit)


# -- That they are fair ---------------------------------------------------------------------------


def test_no_code_runs_in_rings_1_and_2() -> None:
    assert {selector & 3 for selector in sample().selectors} == {0, 3}


def some(count: int) -> Iterator[KernelGuest]:
    return (random_guest(seed) for seed in range(count))


def check_same_twice(guest: KernelGuest) -> None:
    seen = native(guest)
    assert seen.ending.stop not in ("UNSUPPORTED", "UNHANDLED")
    assert compare(seen, native(guest)) is None


def check_cuts(guest: KernelGuest, rng: Random) -> None:
    """Stopped anywhere; there saved and loaded, or its blocks or TLB flushed."""
    run = NativeRun(guest.program, ram=RAM)
    tick = 0
    while tick < MAX_TICKS and run.run(tick).stop.name == "OUT_OF_TICKS":
        kind = rng.randrange(4)
        if kind == 0:
            run.machine.restore(run.machine.save())
        elif kind == 1:
            lib.machine_flush_blocks(run.machine.memory.machine)
        tick += rng.choice((1, 2, 7, 50, 300))
    run.run(MAX_TICKS)
    assert compare(native(guest), run.observe()) is None


def check_no_stale_entries(guest: KernelGuest) -> None:
    """With a TLB that forgets everything all the time it is the same run."""
    run = NativeRun(guest.program, ram=RAM)
    for tick in range(1, MAX_TICKS):
        if run.run(tick).stop.name != "OUT_OF_TICKS":
            break
        lib.cpu_flush_tlb(run.machine.cpu.pointer)
        if tick > 4000:
            run.run(MAX_TICKS)
            break
    assert compare(native(guest), run.observe(), name="without a TLB") is None


def test_the_same_run_twice() -> None:
    for guest in some(40):
        check_same_twice(guest)


def test_cuts_change_nothing() -> None:
    for seed, guest in enumerate(some(40)):
        check_cuts(guest, Random(seed))


def test_no_guest_relies_on_stale_entries() -> None:
    for guest in some(60):
        check_no_stale_entries(guest)


@pytest.mark.deep
@pytest.mark.parametrize("part", range(10))
def test_fair_deep(part: int) -> None:
    for seed in range(part * DEEP // 10, (part + 1) * DEEP // 10):
        guest = random_guest(seed)
        check_same_twice(guest)
        check_cuts(guest, Random(seed))
        check_no_stale_entries(guest)


@pytest.mark.deep
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(kernel_guests())
def test_drawn_by_hypothesis(guest: KernelGuest) -> None:
    check_same_twice(guest)
    check_no_stale_entries(guest)


# -- The generator --------------------------------------------------------------------------------


def test_the_steps_assembled_alone_are_the_whole_source_assembled() -> None:
    for seed in range(5):
        guest = random_guest(seed)
        whole = guest.program_of(assemble(guest.source))
        image, other = bytearray(0x200000), bytearray(0x200000)
        for program, memory in ((guest.program, image), (whole, other)):
            assert program.entry == guest.program.entry
            for segment in program.segments:
                memory[segment.address : segment.address + len(segment.data)] = segment.data
        assert image == other
        assert compare(native(guest), observe_native(whole, ram=RAM, max_ticks=MAX_TICKS)) is None


def test_a_guest_is_its_number() -> None:
    assert random_guest(7) == random_guest(7)
    assert len({random_guest(seed) for seed in range(50)}) == 50
    assert random_guest(7).program.symbol_at(0x102000) == ("step_0", 0)


def test_features_can_be_left_out() -> None:
    without = {*TERMINAL, *FEATURES} - {"timer", "flags"}
    for seed in range(20):
        assert {name for name, _ in random_guest(seed, without=without).steps} <= {"timer", "flags"}


def test_guests_shrink_to_the_steps_that_matter() -> None:
    def page_fault_in_ring_3(guest: KernelGuest) -> bool:
        return any(e.vector == 14 and e.cs & 3 == 3 for e in native(guest).events)

    without = set(FEATURES) - {"arithmetic", "flags", "ports", "user_memory"}
    found = find(
        kernel_guests(without=without),
        page_fault_in_ring_3,
        settings=settings(max_examples=500, database=None),
    )
    assert [name for name, _ in found.steps] == ["user_memory"]


def test_observations_tell_techniques_apart() -> None:
    """With unsafe instructions that trap in ring 3, guests which use them there differ."""
    differ: Counter[bool] = Counter()
    for seed in range(60):
        guest = random_guest(seed)
        other = observe_native(guest.program, ram=RAM, max_ticks=MAX_TICKS, virtualizable=True)
        uses = any(name == "ring_3_unsafe" for name, _ in guest.steps)
        if uses:
            differ[compare(native(guest), other) is not None] += 1
    assert differ[True] > 5


def test_paravirtual_images_can_be_made_and_user_code_is_left_alone() -> None:
    for seed in range(8):
        guest = random_guest(seed)
        twins = [assemble(guest.source, paravirt=variant) for variant in VARIANTS]
        images = [guest.program_of(twin) for twin in twins]
        assert [image.paravirt for image in images] == list(VARIANTS)
        assert images[0].sites
        assert [s.address for s in images[0].sites] == [s.address for s in images[1].sites]
        assert [s.address for s in images[0].segments] == [s.address for s in images[1].segments]
    user = [name for name in FEATURES if name.startswith("ring_3_unsafe")]
    plain, ring_3 = (KernelGuest(((name, 3),)) for name in ("arithmetic", *user))
    sites = [len(assemble(g.source, paravirt=VARIANTS[0]).sites) for g in (plain, ring_3)]
    assert sites[1] - sites[0] <= 1, "but for the IRET out"
