"""What the technique `patch` costs, and where it beats `translate` and where not.

    python -m tests.bench.patched [--quick] [--json FILE]

Computing, then instructions of a kernel one by one: natively, translated, patched, and under
--strict, whose every call, return and indirect jump asks. Then scanning, which is done once: the
small OS is run for PART ticks, and what is scanned is timed. Times are taken as in translated.py,
whose tables `main.py` prints before these.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervisor.patcher.coherence import Coherence
from hypervisor.vm import VirtualMachine
from tests.bench import build
from tests.bench.session import PART
from tests.bench.translated import (
    CALL,
    MORE,
    PAIR,
    SHORTER,
    Repeated,
    Spent,
    compare,
    kernel_maker,
    make_computing,
    mean,
    row,
    spent_by,
)
from tests.bench.virtual import judged, line, run_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATCH, STRICT, TRANSLATE = "patch", "patch --strict", "translate"
TECHNIQUES = ("native", TRANSLATE, PATCH, STRICT)
#: What the design promises.
MOST_CYCLES = 1.02
MOST_PAIR_WALL = 6.0
TIGHT = Repeated("cli", "sti", title="cli, sti: loop", times=1, program="tight")
#: Each kind that tells patching from translating.
LOOPS = (
    PAIR,
    TIGHT,
    CALL,
    Repeated("call eax", argument="nothing", title="call eax; ret"),
    Repeated("pushf"),
    Repeated("popf", popped="0x202"),
    Repeated("mov eax, cr0"),
    Repeated("mov ax, cs"),
    Repeated("mov ds, ax"),
    Repeated("sgdt [ebx]"),
    Repeated("lar ecx, eax"),
    Repeated("in al, dx"),
    Repeated("mov cr3, eax", argument="page_directory", paging=True),
    Repeated("int 0x80", title="int 0x80; iret"),
)
#: Exactly what it takes natively, by default: none of it is touched.
UNTOUCHED = (CALL, LOOPS[3])


def name_of(what: Repeated) -> str:
    return what.title or ", ".join(filter(None, (what.first, what.second)))


def bench_computing(seconds: float, repeats: int, folder: Path) -> dict[str, Any]:
    """Workloads of gcc's, their mean, and compute.asm: ratios to native."""
    print("\nComputing under patch, as a multiple of native")
    row("", ["cycles", "wall time", "--strict, cycles", "--strict, wall"])
    figures: dict[str, Any] = {}
    missing = build.kernels_missing()
    if missing:
        print(f"left out: workloads under patch: {missing}")
    for workload in () if missing else build.WORKLOADS:
        if workload.counted:
            kernel = build.build_kernel(workload, folder).read_bytes()
            make = kernel_maker(kernel)
            quick = spent_by(make(STRICT, 1)).seconds < seconds / 2  # or it is nothing but exits
            names = (PATCH, STRICT) if quick else (PATCH,)
            figures[workload.name] = compare(make, seconds, repeats, names)
            print_computing(workload.name, figures[workload.name])
    if figures:
        found = list(figures.values())
        figures["mean"] = {PATCH: mean([f[PATCH] for f in found])}
        print_computing("mean", figures["mean"])
    figures["compute.asm"] = compare(make_computing, seconds, repeats, (PATCH, STRICT))
    print_computing("compute.asm", figures["compute.asm"])
    return figures


def print_computing(name: str, found: dict[str, dict[str, float]]) -> None:
    cells = [" ".join(judged(found[PATCH]["cycles"], MOST_CYCLES, "x"))]
    cells += [f"{found[PATCH]['wall']:.2f}x"]
    cells += [f"{figure:.2f}x" for figure in found.get(STRICT, {}).values()]
    row(name, cells)


def bench_loops(seconds: float, repeats: int) -> dict[str, dict[str, Any]]:
    """Each instruction under each technique: nanoseconds, cycles and exits."""
    print("\nInstructions of the kernel: nanoseconds, and exits each")
    row("", list(TECHNIQUES))
    figures = {}
    for what in LOOPS:
        found = dict(zip(TECHNIQUES, what.cost(list(TECHNIQUES), seconds, repeats), strict=True))
        row(name_of(what), [cell(spent) for spent in found.values()])
        figures[name_of(what)] = {
            name: {"nanoseconds": spent.seconds * 1e9, "cycles": spent.cycles, "exits": spent.exits}
            for name, spent in found.items()
        }
        if what in (PAIR, TIGHT):
            ratio = found[PATCH].seconds / found["native"].seconds
            note = f"{found[PATCH].exits:.3g} exits each"
            line("  patch to native, wall", *judged(ratio, MOST_PAIR_WALL, "x"), note)
        if what in UNTOUCHED:
            ratio = found[PATCH].cycles / found["native"].cycles
            line("  patch to native, cycles", *judged(ratio, 1.0, "x"))
    return figures


def cell(spent: Spent) -> str:
    exits = f", {spent.exits:.2g}" if spent.exits > 0.01 else ""
    return f"{spent.seconds * 1e9:,.0f}{exits}"


# -- scanning --------------------------------------------------------------------------------------


@contextmanager
def timed_scanning() -> Iterator[dict[str, float]]:
    """Seconds and instructions of all scans while this lasts, patches and tracing among it."""
    plain = Coherence.scan
    figures = {"seconds": 0.0, "instructions": 0.0, "scans": 0.0}

    def scan(self: Coherence, entries: Iterable[int] = ()) -> None:
        before, start = self._scanner.scanned, time.perf_counter()
        plain(self, entries)
        figures["seconds"] += time.perf_counter() - start
        figures["instructions"] += self._scanner.scanned - before
        figures["scans"] += 1

    Coherence.scan = scan  # type: ignore[method-assign]
    try:
        yield figures
    finally:
        Coherence.scan = plain  # type: ignore[method-assign]


def time_scanning(technique: str, image: bytes, typed: bytes, repeats: int) -> dict[str, float]:
    """Scans of the session's first part; the fastest of some runs."""
    runs = []
    for _ in range(repeats):
        with timed_scanning() as figures:
            vm = VirtualMachine(image, technique=technique, console_in=typed)
            vm.run(max_ticks=PART)
        runs.append(figures)
    return min(runs, key=lambda found: found["seconds"])


def bench_scanning(repeats: int) -> dict[str, dict[str, float]]:
    """What is done once."""
    from hypervisor.experiments.subjects import find_subject

    subject = find_subject("os")
    image = subject.image()
    image = image if isinstance(image, bytes) else image.elf()
    print(f"\nScanning and patching the small OS, the first {PART:,} ticks of its session")
    figures = {}
    for technique in (PATCH, STRICT):
        found = figures[technique] = time_scanning(technique, image, subject.input, repeats)
        each = found["seconds"] / found["instructions"] * 1e6
        note = f"{found['instructions']:.0f} instructions in {found['scans']:.0f} scans"
        line(f"{technique}, milliseconds", f"{found['seconds'] * 1e3:.1f}", note=note)
        line(f"{technique}, us each", f"{each:.1f}")
    return figures


def bench_patched(*, quick: bool, folder: Path) -> dict[str, Any]:
    """All figures of this module, printed as they come."""
    seconds, repeats = (0.2, 2) if quick else (0.5, 4)
    return {
        "computing": bench_computing(seconds, repeats, folder),
        "loops": bench_loops(seconds / SHORTER, repeats * MORE),
        "scanning": bench_scanning(3 if quick else 7),
    }


if __name__ == "__main__":
    run_alone(bench_patched, __doc__)
