"""What the technique `translate` costs: every figure a ratio, or a difference, within one run.

    python -m tests.bench.translated [--quick] [--json FILE]

Computing, calls, `cli` and stores to page tables are held against native, or against the translator
without the means in question; then what becomes of each kind of sensitive instruction, natively and
translated. Machines take turns and the fastest turn counts, as in virtual.py. What is done once, a
translation among it, is left out: of two runs, which do the work more or less often or not at all,
the difference is taken. session.py has what is done once. `main.py` prints these tables after
virtual.py's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from isa.assembler import assemble
from isa.decoder import decode
from tests.bench import build
from tests.bench.session import bench_session
from tests.bench.virtual import (
    Load,
    guest,
    iterations_for,
    judged,
    line,
    native,
    run_alone,
    virtual,
)

#: What the design promises; printed beside the figures.
MOST_CYCLES, MOST_WALL = 1.10, 1.25
MOST_CALL_CYCLES, MOST_CALL_WALL = 4.6, 6.0
MOST_CLI_CYCLES, MOST_CLI_WALL = 1.0, 5.0
LEAST_GAIN = 10.0  # of adaptive stores to page tables
#: Loops of a few instructions run for so much less, but more often: some run is then undisturbed.
SHORTER, MORE = 10, 2
LINK_BACK, NOT_ADAPTIVE = "translate --link-back", "translate --no-adaptive"


@dataclass(frozen=True)
class Spent:
    """What a run has taken, or a part of it."""

    seconds: float
    cycles: float
    exits: float

    def less(self, other: Spent) -> Spent:
        return Spent(
            max(self.seconds - other.seconds, 1e-12),  # where noise hides it, it is not negative
            self.cycles - other.cycles,
            self.exits - other.exits,
        )

    def each(self, times: int) -> Spent:
        return Spent(self.seconds / times, self.cycles / times, self.exits / times)


def spent_by(load: Load) -> Spent:
    """Run a machine to its end."""
    machine = load()
    start = time.perf_counter()
    result = machine.run()
    seconds = time.perf_counter() - start
    if result.status:
        raise RuntimeError(f"bench: {result.reason}")
    return Spent(seconds, result.cycles, sum(result.exits.values()))


def in_turns(loads: list[Load], repeats: int) -> list[Spent]:
    """The least seconds of each; cycles and exits are always the same."""
    best: list[Spent | None] = [None] * len(loads)
    for _ in range(repeats):
        for number, load in enumerate(loads):
            found, old = spent_by(load), best[number]
            best[number] = found if old is None or found.seconds < old.seconds else old
    return [found for found in best if found is not None]


def differences(pairs: list[tuple[Load, Load]], repeats: int) -> list[Spent]:
    """By how much the second run of each pair takes more than the first."""
    found = in_turns([load for pair in pairs for load in pair], repeats)
    return [more.less(less) for less, more in zip(found[::2], found[1::2], strict=True)]


def warm_iterations_for(load: Callable[[int], Load], seconds: float) -> int:
    """How many iterations take about so long, without what is done once."""
    once, count = spent_by(load(1)).seconds, 100
    while (spent := spent_by(load(count)).seconds - once) < seconds / 2:
        count *= 4
    return max(100, int(count * seconds / spent))


# -- computing -------------------------------------------------------------------------------------


def compare(
    make: Callable[[str, int], Load], seconds: float, repeats: int, techniques: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Ratios to native of the program that `make` gives for a technique and its iterations."""
    high = max(512, iterations_for(lambda count: make("native", count), seconds))
    counts = dict.fromkeys(("native", *techniques), high)
    for name in techniques:
        if spent_by(make(name, high // 64)).seconds > seconds:
            counts[name] = high // 64  # some are slower by orders of magnitude
    pairs = [(make(name, count // 8), make(name, count)) for name, count in counts.items()]
    found = differences(pairs, repeats)
    base, *others = (
        spent.each(count - count // 8) for spent, count in zip(found, counts.values(), strict=True)
    )
    return {
        name: {"cycles": spent.cycles / base.cycles, "wall": spent.seconds / base.seconds}
        for name, spent in zip(techniques, others, strict=True)
    }


def compare_translated(
    make: Callable[[str, int], Load], seconds: float, repeats: int
) -> dict[str, float]:
    """Of the translator, and its wall time with --link-back."""
    found = compare(make, seconds, repeats, ("translate", LINK_BACK))
    return {**found["translate"], "link-back wall": found[LINK_BACK]["wall"]}


def kernel_maker(kernel: bytes) -> Callable[[str, int], Load]:
    """For `compare`: one of gcc's kernels."""

    def make(technique: str, count: int) -> Load:
        arguments = f"iterations={count}"
        if technique == "native":
            return native(kernel, arguments)
        return virtual(kernel, technique, arguments)

    return make


def make_computing(technique: str, passes: int) -> Load:
    """For `compare`: compute.asm."""
    program = guest("compute", None, PASSES=passes)
    return native(program) if technique == "native" else virtual(program, technique)


def row(name: str, cells: list[str]) -> None:
    print(f"{name:<18}" + "".join(f"{cell:<20}" for cell in cells).rstrip(), flush=True)


def print_ratios(name: str, ratios: dict[str, float]) -> None:
    most = {"cycles": MOST_CYCLES, "wall": MOST_WALL, "link-back wall": None}
    row(name, [" ".join(judged(ratios[what], most[what], "x")) for what in most])


def mean(ratios: list[dict[str, float]]) -> dict[str, float]:
    """Geometric means."""
    logs = {what: [math.log(ratio[what]) for ratio in ratios] for what in ratios[0]}
    return {what: math.exp(sum(found) / len(found)) for what, found in logs.items()}


def bench_computing(seconds: float, repeats: int, folder: Path) -> dict[str, dict[str, float]]:
    """Workloads of gcc's, their mean, and compute.asm."""
    print("\nComputing under translate, as a multiple of native")
    row("", ["cycles", "wall time", "--link-back, wall"])
    figures = {}
    missing = build.kernels_missing()
    if missing:
        print(f"left out: workloads under translate: {missing}")
    for workload in () if missing else build.WORKLOADS:
        if workload.counted:
            kernel = build.build_kernel(workload, folder).read_bytes()
            figures[workload.name] = ratios = compare_translated(
                kernel_maker(kernel), seconds, repeats
            )
            print_ratios(workload.name, ratios)
    if figures:
        figures["mean"] = mean(list(figures.values()))
        print_ratios("mean", figures["mean"])
    figures["compute.asm"] = compare_translated(make_computing, seconds, repeats)
    print_ratios("compute.asm", figures["compute.asm"])
    return figures


# -- instructions of a loop ------------------------------------------------------------------------


@dataclass(frozen=True)
class Repeated:
    """Instructions that are timed in a loop, for repeated.asm.

    title: what is printed, if they are not simply `first`; its first instruction is looked up.
    """

    first: str
    second: str = ""
    title: str = ""
    argument: str = "KERNEL_DATA"
    popped: str = "KERNEL_DATA"
    paging: bool = False
    times: int = 8  # in one iteration of the loop, so that the loop itself weighs little
    program: str = "repeated"  # which of the bench's guests has the loop

    def load(self, technique: str, count: int, *, empty: bool = False) -> Load:
        """A loop with the instructions, or the same loop without."""
        program = guest(
            self.program,
            None,
            COUNT=count,
            FIRST="" if empty else self.first,
            SECOND="" if empty else self.second,
            ARGUMENT=self.argument,
            POPPED=self.popped,
            TIMES=self.times,
            PAGING=int(self.paging),
        )
        return native(program) if technique == "native" else virtual(program, technique)

    def cost(self, techniques: list[str], seconds: float, repeats: int) -> list[Spent]:
        """Of the instructions once, by technique; each loop takes about so many seconds."""
        pairs, done = [], []
        for technique in techniques:
            load = partial(self.load, technique)
            many = warm_iterations_for(load, seconds)
            few = many // 5
            pairs.append((load(few, empty=True), load(many, empty=True)))
            pairs.append((load(few), load(many)))
            done.append((many - few) * self.times)
        found = differences(pairs, repeats)
        loops = zip(found[::2], found[1::2], done, strict=True)
        return [whole.less(empty).each(times) for empty, whole, times in loops]


CALL = Repeated("call nothing", times=1)
PAIR = Repeated("cli", "sti")
#: One of each kind that does not stay what it is in a translation.
SENSITIVE = (
    Repeated("cli"),
    Repeated("sti"),
    Repeated("pushf"),
    Repeated("popf", popped="0x202"),
    Repeated("smsw eax"),
    Repeated("sldt ax"),
    Repeated("str ax"),
    Repeated("mov eax, cr0"),
    Repeated("mov ax, cs"),
    Repeated("push cs"),
    Repeated("push gs"),
    Repeated("mov ds, ax"),
    Repeated("pop es"),
    Repeated("sgdt [ebx]"),
    Repeated("sidt [ebx]"),
    Repeated("lar ecx, eax"),
    Repeated("lsl ecx, eax"),
    Repeated("verr ax"),
    Repeated("verw ax"),
    Repeated("in al, dx"),
    Repeated("out dx, al"),
    Repeated("outsb"),
    Repeated("mov cr3, eax", argument="page_directory", paging=True),
    Repeated("invlpg [ebx]", paging=True),
    Repeated("mov ss, ax"),
    Repeated("lds ecx, [ss:ebx]"),
    Repeated("sgdt [ebx]", "lgdt [ebx]", title="lgdt [ebx]; sgdt"),
    Repeated("sidt [ebx]", "lidt [ebx]", title="lidt [ebx]; sidt"),
    Repeated("lldt ax", argument="0"),
    Repeated("lmsw ax", argument="1"),
    Repeated("clts"),
    Repeated("mov dr0, eax"),
    Repeated("mov eax, dr0"),
    Repeated("mov ecx, 0x10", "rdmsr", title="rdmsr; mov ecx, 0x10"),
    Repeated("mov ecx, 0x10", "wrmsr", title="wrmsr; mov ecx, 0x10"),
    Repeated("wbinvd"),
    Repeated("into"),
    Repeated("jumped_far", title="jmp 8:0"),
    Repeated("call KERNEL_CODE:nothing_far", title="call 8:0; retf"),
    Repeated("int 0x80", title="int 0x80; iret"),
    Repeated("returned", title="iret; 3 pushes"),
    Repeated("call nothing", title="call $; ret"),
    Repeated("call eax", argument="nothing", title="call eax; ret"),
)


#: Mnemonics of what is translated, but not timed.
NOT_TIMED = {
    **dict.fromkeys(("jcc", "loop", "loopz", "loopnz", "jecxz"), "part of computing"),
    **dict.fromkeys(("les", "lfs", "lgs", "lss"), "as lds"),
    **dict.fromkeys(("outsw", "outsd", "insb", "insw", "insd"), "as outsb"),
    "hlt": "waits",
    "ltr": "takes a TSS once",
    "int3": "as int 0x80",
}


def timed() -> set[str]:
    """Mnemonics of what is timed."""
    parts = [part for what in SENSITIVE for part in (what.title or what.first).split("; ")]
    return {part.split()[0] for part in parts}


def becomes(what: Repeated) -> str:
    """What the instruction table says that a translation makes of an instruction."""
    instruction = (what.title or what.first).split(";")[0]
    return decode(assemble(f"bits 32\n{instruction}").flat(), 0).row.translation


def print_loop(
    name: str, figures: dict[str, float], cycles: float | None = None, wall: float | None = None
) -> None:
    line(f"{name}, cycles", *judged(figures["cycles"], cycles, "x"))
    note = f"{figures['exits']:.3g} exits each"
    line(f"{name}, wall", *judged(figures["wall"], wall, "x"), note)


def bench_loop(what: Repeated, seconds: float, repeats: int) -> dict[str, float]:
    """Ratios to native, and what it takes."""
    return against(*what.cost(["native", "translate"], seconds, repeats))


def against(base: Spent, spent: Spent) -> dict[str, float]:
    """Ratios to native, and what it takes."""
    return {
        "cycles": spent.cycles / base.cycles,
        "wall": spent.seconds / base.seconds,
        "exits": spent.exits,
        "native nanoseconds": base.seconds * 1e9,
        "nanoseconds": spent.seconds * 1e9,
    }


def bench_null_call(repeats: int, count: int = 400_000) -> dict[str, float]:
    """A program's system call: of the gate that leads to a translation, and of the way back."""
    few, many = (guest("null_call", None, COUNT=n) for n in (count // 5, count))
    pairs = [(native(few), native(many)), (virtual(few, "translate"), virtual(many, "translate"))]
    base, spent = (s.each(count - count // 5) for s in differences(pairs, repeats))
    return against(base, spent)


def bench_sensitive(seconds: float, repeats: int) -> dict[str, dict[str, Any]]:
    """What becomes of sensitive instructions."""
    print("\nWhat becomes of a sensitive instruction: microseconds each")
    row("", ["becomes", "native", "translated", "exits each"])
    figures = {}
    for what in SENSITIVE:
        base, spent = what.cost(["native", "translate"], seconds, repeats)
        kind, name = becomes(what), what.title or what.first
        cells = [f"{base.seconds * 1e6:.3f}", f"{spent.seconds * 1e6:.3f}"]
        row(name, [kind, *cells, f"{spent.exits:.2f}"])
        figures[name] = {
            "becomes": kind,
            "native": base.seconds * 1e6,
            "translated": spent.seconds * 1e6,
            "exits": spent.exits,
        }
    return figures


# -- page tables -----------------------------------------------------------------------------------


def bench_tables(repeats: int, count: int = 5000) -> dict[str, float]:
    """Microseconds of a store to a page table: natively, with adaptive stores and without."""

    def pair(technique: str, times: int) -> tuple[Load, Load]:
        few, many = (guest("entries", None, COUNT=n) for n in (times // 5, times))
        if technique == "native":
            return native(few), native(many)
        return virtual(few, technique), virtual(many, technique)

    # An adaptive one takes so little that few could not be timed.
    counts = {"native": count * 400, "translate": count * 100, NOT_ADAPTIVE: count}
    found = differences([pair(name, times) for name, times in counts.items()], repeats)
    base, adaptive, plain = (
        spent.each(times - times // 5) for spent, times in zip(found, counts.values(), strict=True)
    )
    return {
        "native": base.seconds * 1e6,
        "adaptive": adaptive.seconds * 1e6,
        "not adaptive": plain.seconds * 1e6,
        "gain": plain.seconds / adaptive.seconds,
        "exits": adaptive.exits,
        "exits if not adaptive": plain.exits,
    }


def print_tables(figures: dict[str, float]) -> None:
    print("\nA store to an entry of a page table that nobody has used: microseconds")
    line("native", f"{figures['native']:.3f}")
    for name, exits in (("not adaptive", "exits if not adaptive"), ("adaptive", "exits")):
        line(name, f"{figures[name]:.3f}", note=f"{figures[exits]:.3g} exits each")
    gain = figures["gain"]
    line("gain", f"{gain:.1f}x", f"{'>=' if gain >= LEAST_GAIN else '< !'} {LEAST_GAIN:g}x")


def bench_translated(*, quick: bool, folder: Path) -> dict[str, Any]:
    """All figures of this module and of session.py, printed as they come."""
    seconds, repeats = (0.2, 2) if quick else (0.5, 4)
    figures: dict[str, Any] = {"computing": bench_computing(seconds, repeats, folder)}
    print("\nInstructions of the kernel under translate, as a multiple of native")
    figures["call and return"] = bench_loop(CALL, seconds / SHORTER, repeats * MORE)
    print_loop("call, ret", figures["call and return"], MOST_CALL_CYCLES, MOST_CALL_WALL)
    figures["cli, sti"] = bench_loop(PAIR, seconds / SHORTER, repeats * MORE)
    print_loop("cli, sti", figures["cli, sti"], MOST_CLI_CYCLES, MOST_CLI_WALL)
    figures["null call"] = bench_null_call(repeats)
    print_loop("ring 3's int, iret", figures["null call"])
    figures["page tables"] = bench_tables(repeats)
    print_tables(figures["page tables"])
    figures["session"] = bench_session(quick=quick)
    figures["sensitive"] = bench_sensitive(seconds / SHORTER, repeats * MORE)
    return figures


if __name__ == "__main__":
    run_alone(bench_translated, __doc__)
