"""Code that changes, translated or patched: what runs is what the guest would run there and then.

Guests are those of kernel_guests.py, but for their steps (kernel_code.py): they write code, run it,
map it elsewhere, rewrite it through any address, from any ring, and use its pages for data. Each is
held to its run on the bare machine, under every way of following changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.experiments.observe import Difference, MachineRun, Observation, compare
from hypervisor.patcher.patches import REMOVED, SHARED
from hypervisor.techniques.base import Technique
from hypervisor.techniques.patch import Patch
from hypervisor.techniques.translate import Translate
from hypervisor.translator import adaptive, builder, coherence
from hypervisor.translator.cache import LEAST_BYTES
from hypervisor.vm import VirtualMachine
from tests.hypervisor.kernel_code import (
    CODE_STEPS,
    DEPTH,
    FRAME_COUNT,
    FRAMES,
    PAGE,
    RET,
    SLOT_COUNT,
    SLOTS,
    prepare,
)
from tests.hypervisor.kernel_guests import (
    MAX_TICKS,
    RAM,
    GuestProgram,
    KernelGuest,
    Segment,
)
from tests.hypervisor.kernel_world import DIRECTORIES, LEFT, RECOVER
from tests.hypervisor.test_differential import explained, natively

LONGEST: Final = 10
#: The way in which code may be entered unscanned, or read where it is patched.
PATCH: Final = "patch"
FAST, DEEP, PARTS = 12, 900, 4
#: Ways to follow changes: the technique, and which limits are others.
WAYS: Final[dict[str, tuple[Callable[[], Technique], dict[str, int]]]] = {
    "plain": (Translate, {}),
    "tiny": (partial(Translate, cache_bytes=LEAST_BYTES), {}),
    "adaptive": (Translate, {"MOST_FAULTS": 1}),
    "mixed": (Translate, {"MOST_STORES": 1}),
    "link back": (partial(Translate, link_back=True), {"MOST_STORES": 2}),
    "link back, tiny": (partial(Translate, link_back=True, cache_bytes=LEAST_BYTES), {}),
    "link back, user": (partial(Translate, link_back=True, user=True), {"MOST_STORES": 2}),
    "user": (partial(Translate, user=True), {}),
    "all": (
        partial(Translate, user=True, cache_bytes=2 * PAGE),
        {"MOST_FAULTS": 1, "MOST_STORES": 1, "MOST_INSTRUCTIONS": 3},
    ),
    "patch --strict": (partial(Patch, strict=True), {}),
    PATCH: (Patch, {}),
}
#: Any page may have code here. That it had is forgotten where a store was the last that happened to
#: it, and an address space is where nothing happened in it: so all accessed bits are passed over.
ANY_PAGE: Final = frozenset(range(0, 2 << 20, PAGE))
OWNERS: Final[dict[str, Any]] = {
    "MOST_FAULTS": adaptive, "MOST_STORES": coherence, "MOST_INSTRUCTIONS": builder,
}  # fmt: skip


class CodeGuest(KernelGuest):
    """A kernel guest whose steps change code."""

    @cached_property
    def steps_source(self) -> str:
        text = f"{prepare()}\n"
        for number, (name, seed) in enumerate(self.steps):
            body = CODE_STEPS[name](Random(f"{name} {seed}"))
            text += f"step_{number}:\nmov dword [{RECOVER}], step_{number + 1}\n"
            text += f"mov dword [{DEPTH}], 0\n"
            text += f"mov dword [{LEFT}], .finished\n{body}\n.finished: cli\n"
        return text + f"step_{len(self.steps)}:\nmov al, 1\nout 0xF4, al\ncli\nhlt\n"

    @cached_property
    def program(self) -> GuestProgram:
        """All that could be called and is not written yet returns."""
        plain = KernelGuest.program.func(self)  # type: ignore[attr-defined]
        filled = (
            Segment(FRAMES, bytes([RET]) * (FRAME_COUNT + 1) * PAGE),
            Segment(SLOTS, bytes([RET]) * (SLOT_COUNT + 1) * PAGE),
        )
        return replace(plain, segments=(*plain.segments, *filled))


def random_changes(seed: int) -> CodeGuest:
    rng = Random(f"changes {seed}")
    names = list(CODE_STEPS)
    count = rng.randrange(1, LONGEST)
    return CodeGuest(tuple((rng.choice(names), rng.randrange(1 << 16)) for _ in range(count)))


def differs(guest: KernelGuest, way: str, native: Observation | None = None) -> Difference | None:
    """The first difference from the bare machine."""
    technique, limits = WAYS[way]
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(OWNERS[name], name, limit)
        run = MachineRun(VirtualMachine(technique=technique(), ram=RAM), guest.program)
        run.run(MAX_TICKS)
    seen = native or natively(guest)
    known = replace(seen, code=ANY_PAGE, roots=seen.roots | {*DIRECTORIES})
    found = compare(known, run.observe())
    return None if found is not None and way == PATCH and explained(guest) else found


def check(way: str, seeds: range) -> None:
    guests = {seed: random_changes(seed) for seed in seeds}
    found = {seed: str(is_) for seed, guest in guests.items() if (is_ := differs(guest, way))}
    assert not found


@pytest.mark.parametrize("way", WAYS)
def test_code_changes(way: str) -> None:
    check(way, range(FAST))


@pytest.mark.deep
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("way", WAYS)
def test_code_changes_deep(way: str, part: int) -> None:
    start, each = FAST + DEEP * list(WAYS).index(way), DEEP // PARTS
    check(way, range(start + part * each, start + (part + 1) * each))


_steps: Final = st.lists(
    st.tuples(st.sampled_from(list(CODE_STEPS)), st.integers(0, (1 << 16) - 1)),
    min_size=1,
    max_size=LONGEST,
)


@pytest.mark.deep
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_steps, st.sampled_from(list(WAYS)))
def test_drawn_by_hypothesis(steps: list[tuple[str, int]], way: str) -> None:
    """The same, but a guest that differs shrinks to the steps that matter."""
    assert differs(CodeGuest(tuple(steps)), way) is None


def test_the_steps_do_change_code() -> None:
    """Units are dropped, sleep, wake and check themselves; some steps fault, most do not."""
    dropped = mixed = checked = tables = 0
    for seed in range(20):
        guest = random_changes(seed)
        vm = VirtualMachine(technique=(technique := Translate()), ram=RAM)
        vm.load(guest.program)
        vm.run(MAX_TICKS)
        translator = technique.translator
        dropped += translator.coherence.invalidated
        mixed += len(translator.coherence.mixed)
        checked += vm.counts["translation: changed"]
        tables += translator.adaptive.made
    assert min(dropped, mixed, checked, tables) > 0, (dropped, mixed, checked, tables)


def test_patches_follow_changes() -> None:
    """Pages are scanned again, found to be others, and to have two addresses; sites come and go."""
    rescanned = moved = removed = shared = 0
    for seed in range(20):
        guest = random_changes(seed)
        vm = VirtualMachine(guest.program, technique=(technique := Patch(strict=True)), ram=RAM)
        vm.run(MAX_TICKS)
        rescanned += technique.coherence.rescanned
        moved += technique.coherence.moved
        removed += technique.patches.counts[REMOVED]
        shared += technique.patches.counts[SHARED]
    assert min(rescanned, moved, removed, shared) > 0, (rescanned, moved, removed, shared)


#: What the generator has found: each was a bug of ours.
REGRESSIONS = [
    ("plain", 58),  # an instruction that runs on into its own frame hung the core
    ("adaptive", 2291),  # an STI within a unit that checks itself let an interrupt in at once
    ("link back", 3632),
]


@pytest.mark.parametrize(("way", "seed"), REGRESSIONS)
def test_regressions(way: str, seed: int) -> None:
    assert differs(random_changes(seed), way) is None
