"""What virtualization costs in wall time: every figure a ratio, or a difference, within one run.

    python -m tests.bench.virtual [--quick] [--json FILE]

Computing must not be felt: kernels of the workloads under `trap`, an assembled one under `paravirt`
too, as multiples of native. Exits are timed one by one: an instruction that traps and is emulated,
a hypercall, and a system call through a pass-through gate, which must not exit at all. Native and
virtual runs take turns, so that a busy machine slows both; the fastest counts. `main.py` prints
these tables after its own; translated.py has the technique `translate`, patched.py `patch`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator import Machine
from guests import LIB
from hypervisor.variants import load_natively
from hypervisor.vm import VirtualMachine
from isa.assembler import Program, assemble_file
from isa.paravirt import HYPERVISOR, NATIVE
from tests.bench import build

FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "bench"
RAM = "16M"
#: What the design promises; printed beside the figures.
MOST_COMPUTING, MOST_NULL_CALL = 1.05, 1.3
MOST_TRAP, MOST_HYPERCALL = 5.0, 3.0  # microseconds


@dataclass(frozen=True)
class Exit:
    """An instruction that exits: for trapped.asm."""

    name: str
    code: str
    technique: str
    most: float | None  # microseconds; None: for comparison only


EXITS = (
    Exit("cli", "cli", "trap", MOST_TRAP),
    Exit("in", "in al, dx", "trap", MOST_TRAP),
    Exit("mov cr0", "mov eax, cr0", "trap", None),
    Exit("yield", "hypercall yield", "paravirt", MOST_HYPERCALL),
    Exit("get_time", "hypercall get_time", "paravirt", MOST_HYPERCALL),
    Exit("site: in", "in al, dx", "paravirt", None),
)


def guest(name: str, variant: str | None, **defines: object) -> Program:
    """One of the bench's own guests."""
    path = Path(__file__).resolve().parent / "guest" / f"{name}.asm"
    texts = {key: str(value) for key, value in defines.items()}
    return assemble_file(path, include=[LIB], defines=texts, paravirt=variant)


def seconds_of(machine: Machine) -> float:
    """Run a loaded machine to its end."""
    start = time.perf_counter()
    result = machine.run()
    spent = time.perf_counter() - start
    if result.status:
        raise RuntimeError(f"bench: {result.reason}")
    return spent


Load = Callable[[], Machine]


def native(program: Program | bytes, arguments: str = "") -> Load:
    """A bare machine with a program."""

    def load() -> Machine:
        machine = Machine(ram=RAM)
        load_natively(machine, program, kernel_args=arguments)
        return machine

    return load


def virtual(
    program: Program | bytes, technique: str, arguments: str = "", *, gates: bool = True
) -> Load:
    """A virtual machine with a program."""

    def load() -> Machine:
        machine = VirtualMachine(technique=technique, ram=RAM, gates=gates)
        machine.load(program, kernel_args=arguments)
        return machine

    return load


def fastest(loads: list[Load], repeats: int) -> list[float]:
    """The least seconds of each, in turns."""
    best = [math.inf] * len(loads)
    for _ in range(repeats):
        for number, load in enumerate(loads):
            best[number] = min(best[number], seconds_of(load()))
    return best


def iterations_for(load: Callable[[int], Load], seconds: float) -> int:
    """How many iterations take about so long."""
    count = 1
    while (spent := seconds_of(load(count)())) < seconds / 8:
        count *= 2 if spent < seconds / 1000 else 4
    return max(1, int(count * seconds / spent))


def bench_workloads(seconds: float, repeats: int, folder: Path) -> dict[str, float]:
    """Ratios of `trap` to native for gcc's kernels; empty if there is no gcc."""
    missing = build.kernels_missing()
    if missing:
        print(f"left out: workloads under trap: {missing}")
        return {}
    ratios = {}
    for workload in build.WORKLOADS:
        if not workload.counted:
            continue
        kernel = build.build_kernel(workload, folder).read_bytes()

        def load(count: int, kernel: bytes = kernel) -> Load:
            return native(kernel, f"iterations={count}")

        arguments = f"iterations={iterations_for(load, seconds)}"
        base, trap = fastest(
            [native(kernel, arguments), virtual(kernel, "trap", arguments)], repeats
        )
        ratios[workload.name] = trap / base
    return ratios


def bench_computing(seconds: float, repeats: int) -> dict[str, float]:
    """Ratios to native for compute.asm: each technique to the variant that it runs."""
    passes = iterations_for(lambda n: native(guest("compute", None, PASSES=n)), seconds)
    plain = guest("compute", None, PASSES=passes)
    twin, image = (guest("compute", v, PASSES=passes) for v in (NATIVE, HYPERVISOR))
    base, trap, base_twin, paravirt = fastest(
        [native(plain), virtual(plain, "trap"), native(twin), virtual(image, "paravirt")], repeats
    )
    return {"trap": trap / base, "paravirt": paravirt / base_twin}


def bench_exit(what: Exit, repeats: int, count: int = 20_000) -> float:
    """Microseconds of one exit, there and back."""
    variant = HYPERVISOR if what.technique == "paravirt" else None
    few, many = (
        guest("trapped", variant, COUNT=n, INSTRUCTION=what.code) for n in (count // 10, count)
    )
    low, high = fastest([virtual(few, what.technique), virtual(many, what.technique)], repeats)
    return (high - low) / (count - count // 10) * 1e6


def bench_null_call(repeats: int, count: int = 100_000) -> dict[str, Any]:
    """Null system calls: nanoseconds natively, ratios of techniques, and exits of all the calls."""
    plain = guest("null_call", None, COUNT=count)
    twin, image = (guest("null_call", v, COUNT=count) for v in (NATIVE, HYPERVISOR))
    machines: dict[str, VirtualMachine] = {}

    def kept(technique: str, load: Load) -> Load:
        def again() -> Machine:
            machines[technique] = machine = load()  # type: ignore[assignment]
            return machine

        return again

    base, trap, exiting, base_twin, paravirt = fastest(
        [
            native(plain),
            kept("trap", virtual(plain, "trap")),
            kept("trap, by exits", virtual(plain, "trap", gates=False)),
            native(twin),
            kept("paravirt", virtual(image, "paravirt")),
        ],
        repeats,
    )
    return {
        "calls": count,
        "native": base / count * 1e9,
        "trap": trap / base,
        "trap, by exits": exiting / base,
        "paravirt": paravirt / base_twin,
        "exits": {name: sum(vm.counts.values()) for name, vm in machines.items()},
    }


def line(name: str, figure: str, target: str = "", note: str = "") -> None:
    print(f"{name:<26}{figure:>12}  {target:<16}{note}".rstrip(), flush=True)


def judged(value: float, most: float | None, unit: str = "") -> tuple[str, str]:
    """A figure, and what was promised of it."""
    if most is None:
        return f"{value:.2f}{unit}", ""
    return f"{value:.2f}{unit}", f"{'<=' if value <= most else '> !'} {most:g}{unit}"


def bench_virtual(*, quick: bool, folder: Path) -> dict[str, Any]:
    """All figures of this module, printed as they come."""
    seconds, repeats = (0.2, 2) if quick else (0.6, 5)
    figures: dict[str, Any] = {}
    print("\nComputing, as a multiple of native")
    figures["workloads"] = ratios = bench_workloads(seconds, repeats, folder)
    for name, ratio in ratios.items():
        line(f"{name}, trap", *judged(ratio, MOST_COMPUTING, "x"))
    figures["computing"] = computing = bench_computing(seconds, repeats)
    for name, ratio in computing.items():
        line(f"compute.asm, {name}", *judged(ratio, MOST_COMPUTING, "x"))
    print("\nMicroseconds an exit takes, there and back")
    figures["exits"] = {}
    for what in EXITS:
        spent = figures["exits"][what.name] = bench_exit(what, repeats)
        line(f"{what.name}, {what.technique}", *judged(spent, what.most))
    print("\nA null system call through a pass-through gate, as a multiple of native")
    figures["null call"] = calls = bench_null_call(repeats)
    for name, exits in calls["exits"].items():
        note = f"{exits} exits in {calls['calls']:,} calls"
        most = MOST_NULL_CALL if name == "paravirt" else None
        line(f"int 0x80, {name}", *judged(calls[name], most, "x"), note)
    line("int 0x80, native", f"{calls['native']:.0f} ns")
    return figures


def run_alone(bench: Callable[..., dict[str, Any]], about: str | None) -> None:
    """A module's figures, from its own command line."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where kernels are built")
    options = parser.parse_args()
    figures = bench(quick=options.quick, folder=options.folder)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_alone(bench_virtual, __doc__)
