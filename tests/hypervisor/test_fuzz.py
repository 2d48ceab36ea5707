"""Unruly code under faithful techniques: it ends as on the bare machine, to the byte.

The setups are tests/core/samples.py's: random bytes and drawn instructions, in rings 0 to 3, under
scribbled tables, paging on and off, with debug registers and a timer. A setup that uses rings 1 and
2 is refused by `trap`, and passed over. What differed once stands by name at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from emulator import Machine
from hypervisor.experiments.patch_reasons import READS, Case, reason
from hypervisor.techniques.base import Technique
from hypervisor.techniques.translate import Translate
from hypervisor.translator.cache import LEAST_BYTES
from hypervisor.vm import VirtualMachine
from tests.core.samples import bytes_setup, program
from tests.core.world import CODE, DATA, Setup
from tests.hypervisor.twins import (
    RAM,
    OnShadows,
    differences,
    picture,
    put,
    run_twins,
    visits_ring_3,
)

FAST, DEEP = 40, 4000
#: Their frames go into their own page tables or handlers, fault upon fault within one tick: what
#: comes of that is up to the TLB.
STALE = frozenset({1757, 1831, 3250})
TICKS = 300


def translate_all() -> Technique:
    """Ring 3's code too, in so small a cache that it comes round."""
    return Translate(user=True, cache_bytes=LEAST_BYTES)


each_technique = pytest.mark.parametrize(
    "technique",
    [
        "trap",
        "interpret",
        "translate",
        translate_all,
        "patch",
        "patch --strict",
        "hardware",
        OnShadows,
    ],
)


def draw(seed: int) -> Setup:
    rng = Random(f"twins {seed}")
    return bytes_setup(rng) if rng.randrange(2) else program(rng, length=60)


def hunt(technique: str | Callable[[], Technique], seeds: range) -> Counter[str]:
    ends: Counter[str] = Counter()
    for seed in seeds:
        if seed in STALE:
            continue
        found = run_twins(draw(seed), technique, TICKS, timer=seed % 3 == 0)
        if found and isinstance(technique, str) and technique.startswith("patch"):
            why = explained(seed, technique)
            assert why.startswith(READS) or (technique == "patch" and why), f"seed {seed}: {found}"
            ends["explained"] += 1
            continue
        assert not found, f"seed {seed}: {found}"
        ends["refused" if found is None else "equal"] += 1
    return ends


def explained(seed: int, technique: str) -> str:
    """Why a setup may differ under a patcher. Under --strict nothing is entered unscanned; but what
    is read of patched code is the patch."""

    def laid(machine: Machine) -> Machine:
        put(machine, draw(seed), timer=seed % 3 == 0)
        return machine

    native = laid(Machine(RAM))
    native.run(TICKS)
    runs_users = visits_ring_3(native)

    def virtual(technique: str) -> VirtualMachine:
        vm = VirtualMachine(technique=technique, ram=RAM, virtualizable=runs_users)
        laid(vm)
        return vm

    def is_faithful(technique: str) -> bool:
        return not run_twins(draw(seed), technique, TICKS, timer=seed % 3 == 0)

    case = Case(virtual, lambda: laid(Machine(RAM)), is_faithful, TICKS + 1)
    return reason(case, technique)


@each_technique
def test_anything_ends_the_same(technique: str | Callable[[], Technique]) -> None:
    assert hunt(technique, range(FAST))["equal"] > FAST // 2


@pytest.mark.deep
@pytest.mark.parametrize("part", range(8))
@each_technique
def test_anything_ends_the_same_deep(technique: str | Callable[[], Technique], part: int) -> None:
    start = FAST + part * DEEP // 8
    hunt(technique, range(start, start + DEEP // 8))


# -- What differed once ----------------------------------------------------------------------------


def setup(code: str, **more: object) -> Setup:
    registers = (0, 0, 0, 0, DATA + 0x3000, 0, 0, 0)
    return Setup(bytes.fromhex(code), registers, **more)  # type: ignore[arg-type]


def test_the_instruction_after_sti_comes_before_the_interrupt() -> None:
    """Where it faults on the real CPU first, the interrupt slipped in between."""
    waiting = setup("b9f4010000 e2fe fb e421 90 90 ebfe")  # mov ecx, 500; loop $; sti; in al, 0x21
    assert run_twins(waiting, "trap", 700, timer=True) == {}


@pytest.mark.parametrize("ring", [0, 3])
def test_a_breakpoint_held_off_stays_off(ring: int) -> None:
    """RF was lost when the real CPU left at an instruction, and its breakpoint struck."""
    faults = setup(
        # pushf; or dword [esp], RF; push cs; push the next line's address; iret; in al, 0x21; nop
        "9c 810c2400000100 0e 6812000100 cf 909090 e421 90 f4",
        ring=ring,
        debug=((0, CODE + 0x12), (7, 0x402)),
    )
    assert run_twins(faults, "trap", 50) == {}


def test_a_triple_fault_has_its_whole_chain() -> None:
    """The first fault, which the hypervisor injects, was missing."""
    assert run_twins(setup("bc00000080 0f0b"), "trap", 50) == {}  # mov esp, nowhere; ud2


def test_a_debug_trap_ends_a_halt() -> None:
    """The bare machine halted in the trap's handler."""
    stepped = setup("9c 810c2400010000 9d f4 90 90 ebfe")  # pushf; or dword [esp], TF; popf; hlt
    assert run_twins(stepped, "trap", 50) == {}


@pytest.mark.parametrize("technique", ["hardware", OnShadows])
def test_leaving_protected_mode_is_unsupported(technique: str | Callable[[], Technique]) -> None:
    """On shadows, where the real CR0 has PG, it was #GP."""
    assert run_twins(setup("b808000000 0f22c0 90 f4"), technique, 50) == {}  # mov cr0, 8


@pytest.mark.parametrize("seed", [855, 2394])
def test_rf_stays_until_an_instruction_has_run(seed: int) -> None:
    """A translation's first step took it, for an IRET that it then could not do."""
    assert run_twins(draw(seed), "translate", TICKS, timer=seed % 3 == 0) == {}


def test_zeros_are_run_through_under_strict() -> None:
    """Where the scanner stopped among them, code went on that nobody had scanned."""
    # push eax; pop eax; the zeros; pushf; pop ebx; hlt: nothing asks on the way to a site
    through = setup("50 58" + "00" * 100 + "9c 5b f4")
    ends = []
    for machine in (Machine(RAM), VirtualMachine(technique="patch --strict", ram=RAM)):
        put(machine, through)
        ends.append(picture(machine, machine.run(200)))
    assert differences(*ends) == {}


@pytest.mark.parametrize("seed", [1501, 2664])
def test_what_the_virtual_cpu_steps_is_no_unscanned_entry(seed: int) -> None:
    """With RF set it steps what has not been scanned; that was taken for the reason."""
    assert explained(seed, "patch --strict").startswith(READS)
