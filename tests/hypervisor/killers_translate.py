"""Killers of the translator's mutants: runs under `translate`, each by its name.

    kernel 17, user 17     the generated kernel of that number (kernel_guests.py), without --user
                           and with it
    storm 17               the same under a translator with limits of its own (test_differential.py)
    plain 4, tiny 4, ...   code that changes, followed in that way (test_code_changes.py)
    unruly 17, unruly user 17   arbitrary bytes (test_fuzz.py)
    guest selfmod          a guest of the manifest
    hostile 17             an attack (test_isolation.py)
    restored plain         a machine becomes another one, both following code in that way; or, by
                           the name of a pair of translated_cache.py, one that is within a loop

In place of a number there may be the name of a kernel: one of written_kernels.py, or of
translated_kernels.py. killers_translate.txt names one killer for each mutant. Read killers.py for
what one notices.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import pytest

from guests import find
from hypervisor.experiments.observe import MachineRun, NativeRun, Observation, compare
from hypervisor.techniques.translate import Translate
from hypervisor.vm import VirtualMachine
from isa import Program, assemble_file
from tests.hypervisor import killers
from tests.hypervisor.kernel_guests import MAX_TICKS, RAM, KernelGuest, random_guest
from tests.hypervisor.killers import Killer, bounded
from tests.hypervisor.test_code_changes import OWNERS, WAYS, differs, random_changes
from tests.hypervisor.test_differential import LEAKS, natively, storm, storm_guest, unmodified
from tests.hypervisor.test_fuzz import TICKS, draw, translate_all
from tests.hypervisor.translated_cache import RESTORED
from tests.hypervisor.translated_kernels import TRANSLATED
from tests.hypervisor.twins import run_twins
from tests.hypervisor.written_kernels import KERNELS, written_kernel

USER: Final = "translate --user"
#: Kernels whose steps lie at the same addresses, and a tick at which the second runs them.
CHANGING: Final = (1, 4)
CHANGING_AT: Final = 150
IN_THE_LOOP: Final = 1000  #: a tick at which kernels with a long loop are within it
GUESTS: Final = ("selfmod", "rings", "paging", "hello", "kprobe_popf", "kprobe_pushf")
#: How many of each kind are tried, after all that have a name.
REACH: Final = {
    **dict.fromkeys(WAYS, 40), "kernel": 100, "user": 60, "storm": 200, "hostile": 20,
    "unruly": 600, "unruly user": 400,
}  # fmt: skip
KINDS: Final = (*REACH, "guest", "restored")


def parse(text: str) -> Killer:
    """From what `str` gives: the kind may be of several words, and so may what follows."""
    kind = next(
        kind for kind in sorted(KINDS, key=len, reverse=True) if f"{text} ".startswith(f"{kind} ")
    )
    return Killer(kind, text[len(kind) :].strip())


def everything(most: int = 1 << 30) -> Iterator[Killer]:
    """All killers, at most so many of each kind's numbers."""
    yield from (Killer("guest", name) for name in GUESTS)
    for kind in ("kernel", "user", "link back", "mixed", "adaptive"):
        yield from (Killer(kind, name) for name in TRANSLATED)
    yield from (Killer("restored", way) for way in (*WAYS, *RESTORED))
    counts = {kind: min(count, most) for kind, count in REACH.items()}
    for number in range(max(counts.values())):
        yield from (Killer(kind, f"{number}") for kind, count in counts.items() if number < count)
    for kind in ("kernel", "user", "link back", "tiny"):
        yield from (Killer(kind, name) for name in KERNELS)


# -- What a killer runs ----------------------------------------------------------------------------


def guest_of(killer: Killer) -> KernelGuest:
    """The generated or written kernel of a killer."""
    kind, which = killer
    if not which.isdigit():
        return TRANSLATED[which]() if which in TRANSLATED else written_kernel(which)
    if kind in WAYS:
        return random_changes(int(which))
    if kind == "storm":
        return storm_guest(int(which))
    return random_guest(int(which), without=() if kind == "user" else LEAKS)


@cache
def case(killer: Killer) -> tuple[KernelGuest, Observation]:
    """A kernel, and what it does on the bare machine: kept, for many mutants share a killer."""
    guest = guest_of(killer)
    return guest, natively(guest)


@cache
def manifest_case(name: str) -> tuple[Program, Observation]:
    """The same of a guest of the manifest."""
    guest = find(name)
    program = assemble_file(guest.source, include=guest.includes)
    native = NativeRun(program, **guest.options)
    native.run(guest.ticks)
    return program, native.observe()


def prepare(killer: Killer) -> None:
    """Make what does not depend on the hypervisor."""
    if killer.kind == "guest":
        manifest_case(killer.which)
    elif killer.kind == "hostile":
        killers.attacks()
        killers.arenas(USER)
    elif killer.kind != "restored" and not killer.kind.startswith("unruly"):
        case(killer)


def notices(killer: Killer) -> str:
    """What a killer notices about the hypervisor as it is now; empty: nothing is wrong."""
    prepare(killer)
    with bounded():
        try:
            return _differs(killer)
        except Exception as error:  # whatever goes wrong has been noticed
            return f"{type(error).__name__}: {error}"


def _differs(killer: Killer) -> str:
    kind, which = killer
    if kind == "restored":
        return _restored(which)
    if kind == "hostile":
        return killers.attacked(int(which), USER)
    if kind.startswith("unruly"):
        return _unruly(int(which), user=kind.endswith("user"))
    if kind == "guest":
        return _manifest_differs(which)
    guest, native = case(killer)
    if kind == "storm":
        return str(storm(int(which), native) or "")
    if kind in ("kernel", "user"):
        technique = Translate(user=kind == "user")
        return str(unmodified(guest, native, technique=technique) or "")
    return str(differs(guest, kind, native) or "")


def _manifest_differs(name: str) -> str:
    guest, (program, native) = find(name), manifest_case(name)
    vm = VirtualMachine(technique="translate", **guest.options)
    run = MachineRun(vm, program)
    run.run(guest.ticks)
    return str(compare(native, run.observe()) or "")


def _unruly(number: int, *, user: bool) -> str:
    technique = translate_all if user else "translate"
    return str(run_twins(draw(number), technique, TICKS, timer=number % 3 == 0) or "")


def _pair(which: str) -> tuple[str, list[KernelGuest], int]:
    """How two kernels are followed, they themselves, and when the second is saved."""
    if which in WAYS:
        return which, [random_changes(seed) for seed in CHANGING], CHANGING_AT
    way, *makers = RESTORED[which]
    return way, [make() for make in makers], IN_THE_LOOP


def _restored(which: str) -> str:
    """Whether a machine that becomes another one forgets what it has made for the first."""
    way, kernels, at = _pair(which)
    technique, limits = WAYS[way]
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(OWNERS[name], name, limit)
        machines = [VirtualMachine(kernel.program, technique(), ram=RAM) for kernel in kernels]
        for vm, ticks in zip(machines, (MAX_TICKS, at), strict=True):
            vm.run(ticks)
        saved = machines[1].save()
        ends = []
        for vm in machines:
            vm.restore(saved)
            result = vm.run(MAX_TICKS)
            ends.append((dict(vm.memory.pages()), result.registers, result.ticks))
    return "" if ends[0] == ends[1] else "the machines end differently"
