"""Killers: the checks that are to notice a mutant, each one small run by its name.

    trap 17, interpret 17, paravirt 17    the generated kernel of that number (kernel_guests.py)
    trap name, interpret name, ...        a kernel written for the purpose (written_kernels.py)
    unruly trap 17, unruly interpret 17   arbitrary bytes (test_fuzz.py)
    hostile trap 17                       an attack (test_isolation.py)
    requested trap                        somebody asks the machine to stop
    restored trap                         a machine becomes another one
    refused trap                          a kernel that goes to ring 1
    lent translate                        a kernel that lives by its local APIC (test_apic.py)
    session paravirt                      the small operating system, and what is typed to it
    shared 17                             that kernel under paravirt, with shared page tables
    tables 17                             an attack on these (table_attacks.py)

A killer notices a difference from the bare machine, something of a secret, an exception of the
hypervisor's own, or that nothing goes on. killers.txt names one for each mutant; find_killers.py
finds them. Read mutants.py for what they are to kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings

from emulator import Machine
from emulator.core import Cpu
from emulator.result import Stop
from guests import find
from hypervisor.experiments.observe import MachineRun, NativeRun, Observation, compare
from hypervisor.variants import set_weights
from hypervisor.vm import VirtualMachine
from isa import Program, assemble, assemble_file
from isa.paravirt import VARIANTS
from tests.core.world import Setup
from tests.hypervisor.apic_guest import PROGRAM as APIC_GUEST
from tests.hypervisor.apic_guest import RAM as APIC_RAM
from tests.hypervisor.apic_guest import TICKS as APIC_TICKS
from tests.hypervisor.hostile import setups
from tests.hypervisor.kernel_guests import MAX_TICKS, RAM, GuestProgram, KernelGuest, random_guest
from tests.hypervisor.table_attacks import attack as table_attack
from tests.hypervisor.test_differential import LEAKS
from tests.hypervisor.test_fuzz import TICKS, draw
from tests.hypervisor.test_isolation import SECRETS, Arena
from tests.hypervisor.test_shared import attacked as attacked_tables
from tests.hypervisor.test_shared import differs
from tests.hypervisor.twins import differences, run_twins
from tests.hypervisor.written_kernels import written_kernel

#: Exits within one tick of a machine that gets nowhere.
MOST_EXITS: Final = 3000
ATTACKS: Final = 40
SESSION: Final = b"ps\nforktest\ncrash null\nprimes 30\nspin &\nkill 2\nexit 5\n"
SESSION_RAM: Final = "4M"
SESSION_TICKS: Final = 3_000_000
#: A kernel that changes a gate, and ticks at which it has used it, and changed it.
RESTORED, OPENED_AT, CHANGED_AT = "gate changed", 60, 100
RING_1: Final = """
    lgdt [table]
    push 0x19
    push 0x300000
    push 2
    push 0x11
    push inner
    iret
inner: jmp $
table: dw 31
    dd entries
entries: dq 0, 0x00CF9A000000FFFF, 0x00CFBA000000FFFF, 0x00CFB2000000FFFF
"""


class Endless(Exception):
    """Exit upon exit, and no tick."""


class Killer(NamedTuple):
    """One check."""

    kind: str  #: trap, interpret, paravirt, unruly ..., hostile ...
    which: str  #: a number, or the name of a written kernel

    def __str__(self) -> str:
        return f"{self.kind} {self.which}"

    @classmethod
    def parse(cls, text: str) -> Killer:
        """From what `str` gives."""
        kind, _, which = text.partition(" ")
        if kind in ("unruly", "hostile"):
            kind, which = text.rsplit(" ", 1)
        return cls(kind, which)


def requested(technique: str) -> str:
    """Whether a machine stops on request."""
    vm = VirtualMachine(assemble("jmp $"), technique, ram=RAM)
    vm.request_exit()
    result = vm.run(MAX_TICKS)
    return "" if result.stop is Stop.REQUESTED else result.reason


def refused(technique: str) -> str:
    """Whether a kernel that goes to ring 1 is told so."""
    result = VirtualMachine(assemble(RING_1), technique, ram=RAM).run(MAX_TICKS)
    return "" if result.stop is Stop.UNSUPPORTED and "ring 1" in result.reason else result.reason


def restored(technique: str) -> str:
    """Whether a machine that becomes another one forgets the gates that it has opened."""
    program, ends = written_kernel(RESTORED).program, []
    machines = [VirtualMachine(program, technique, ram=RAM) for _ in range(2)]
    for vm, ticks in zip(machines, (CHANGED_AT, OPENED_AT), strict=True):
        vm.run(ticks)
    saved = machines[0].save()
    for vm in machines:
        vm.restore(saved)
        vm.run(MAX_TICKS)
        ends.append(dict(vm.memory.pages()))
    return "" if ends[0] == ends[1] else "memory differs"


def notices(killer: Killer) -> str:
    """What a killer notices about the hypervisor as it is now; empty: nothing is wrong."""
    prepare(killer)
    family, _, technique = killer.kind.rpartition(" ")
    family = family or technique
    with bounded():
        try:
            if family in SPECIAL:
                return SPECIAL[family](killer.which)
            if family in ON_SHARED:
                return ON_SHARED[family](killer.which)
            if family == "unruly":
                return unruly(int(killer.which), technique)
            if family == "hostile":
                return attacked(int(killer.which), technique)
            found = compare_kernels(killer.which, technique)
        except Exception as error:  # whatever goes wrong has been noticed
            return f"{type(error).__name__}: {error}"
    return found


@cache
def session_case() -> Case:
    """The small operating system, and what it does on the bare machine."""
    guest = find("os")
    image, twin = (
        assemble_file(guest.source, include=guest.includes, paravirt=variant)
        for variant in VARIANTS
    )
    native = NativeRun(twin, ram=SESSION_RAM, console_in=SESSION)
    set_weights(native.machine.memory, twin.sites)
    native.run(SESSION_TICKS)
    return Case(image, native.observe(), [range(site.address, site.end) for site in image.sites])


def session(technique: str) -> str:
    """How the operating system's session differs."""
    this = session_case()
    vm = VirtualMachine(technique=technique, ram=SESSION_RAM, console_in=SESSION)
    run = MachineRun(vm, this.program)
    run.run(SESSION_TICKS)
    return str(compare(this.native, run.observe(), sites=this.sites) or "")


def lent(technique: str) -> str:
    """How a kernel's run differs that is lent the real CPU's local APIC."""
    results = []
    for machine in (
        Machine(ram=APIC_RAM, machine="apic"),
        VirtualMachine(technique=technique, ram=APIC_RAM, machine="apic"),
    ):
        machine.load(APIC_GUEST)
        results.append(machine.run(APIC_TICKS)._replace(exits=Counter(), cycles=0))
    return "" if results[0] == results[1] else str(results[1])


SPECIAL: Final = {
    "lent": lent,
    "requested": requested,
    "restored": restored,
    "refused": refused,
    "session": session,
}


def shared_kernel(which: str) -> str:
    """How a kernel's run on shared page tables differs."""
    return compare_kernels(which, "paravirt", mmu="shared")


def tables(which: str) -> str:
    """What an attack on shared page tables reaches, or how it ends differently."""
    attacked_tables(table_attack(int(which)))
    return differs(table_attack(int(which), hostile=False))


ON_SHARED: Final = {"shared": shared_kernel, "tables": tables}


def unruly(number: int, technique: str) -> str:
    """How arbitrary code ends differently; `interpret` refuses none."""
    found = run_twins(draw(number), technique, TICKS, timer=True)
    if found is None:
        return "refused" if technique == "interpret" else ""
    return str(found or "")


@contextmanager
def bounded() -> Iterator[None]:
    """Raise `Endless` where a machine would never end."""
    last: list[Any] = [None, 0]

    def counted(run: Any) -> Any:
        def once(self: Any, *arguments: Any) -> Any:
            state = self.state if isinstance(self, Cpu) else self.cpu.state
            last[1] = last[1] + 1 if last[0] == state.tick else 0
            last[0] = state.tick
            if last[1] > MOST_EXITS:
                raise Endless
            return run(self, *arguments)

        return once

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VirtualMachine, "_run_to_exit", counted(VirtualMachine._run_to_exit))
        patch.setattr(Cpu, "step", counted(Cpu.step))
        yield


# -- Kernels ---------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A kernel, and what it does on the bare machine."""

    program: GuestProgram | Program
    native: Observation
    sites: list[range]


def kernel(which: str, technique: str) -> KernelGuest:
    if not which.isdigit():
        return written_kernel(which)
    return random_guest(int(which), without=() if technique == "trap" else LEAKS)


@cache
def case(which: str, technique: str) -> Case:
    """Kept, for many mutants share a killer."""
    guest = kernel(which, technique)
    if technique != "paravirt":
        native = NativeRun(guest.program, ram=RAM)
        native.run(MAX_TICKS)
        return Case(guest.program, native.observe(), [])
    image = guest.program_of(assemble(guest.source, paravirt="hypervisor"))
    twin = guest.program_of(assemble(guest.source, paravirt="native"))
    native = NativeRun(twin, ram=RAM)
    set_weights(native.machine.memory, twin.sites)
    native.run(MAX_TICKS)
    return Case(image, native.observe(), [range(site.address, site.end) for site in image.sites])


def compare_kernels(which: str, technique: str, mmu: str | None = None) -> str:
    """How a kernel's run differs from the bare machine's."""
    this = case(which, technique)
    vm = VirtualMachine(technique=technique, mmu=mmu, ram=RAM, virtualizable=technique == "trap")
    run = MachineRun(vm, this.program)
    run.run(MAX_TICKS)
    return str(compare(this.native, run.observe(), sites=this.sites) or "")


def prepare(killer: Killer) -> None:
    """Make what does not depend on the hypervisor."""
    if killer.kind in ("trap", "interpret", "paravirt"):
        case(killer.which, killer.kind)
    elif killer.kind == "shared":
        case(killer.which, "paravirt")
    elif killer.kind == "session":
        session_case()
    elif killer.kind.startswith("hostile"):
        attacks()
        arenas(killer.kind.removeprefix("hostile "))


# -- Attacks ---------------------------------------------------------------------------------------


@cache
def attacks() -> tuple[Setup, ...]:
    """Hostile guests, the same ones every time."""
    found: list[Setup] = []

    @settings(max_examples=ATTACKS, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(setup=setups())
    def collect(setup: Setup) -> None:
        found.append(setup)

    collect()
    return tuple(found)


@cache
def arenas(technique: str) -> list[Arena]:
    """To build these takes longer than to run in them."""
    return [Arena(technique, True, secret) for secret in SECRETS]


def attacked(number: int, technique: str) -> str:
    """What has leaked or changed that must not."""
    try:
        found = attack(number, arenas(technique))
    except Exception:
        arenas.cache_clear()  # what is broken would stay so
        raise
    if found:
        arenas.cache_clear()
    return found


def attack(number: int, arenas: list[Arena]) -> str:
    """The same in each; how they end differently."""
    for arena in arenas:  # what was worked out once would hide a mutant
        arena.hostile.world._known.clear()
    first, second = (arena.run(attacks()[number]) for arena in arenas)
    found = differences(first, second)
    for arena in arenas:
        arena.check()
    arenas[0].check_free()
    return str(found or "")
