"""The small operating system under `translate`: how seldom the cache is left, and its start.

    python -m tests.bench.session ELF

The scripted session (guests/input/os.txt) is run for PART ticks. Every time control comes to the
beginning of a unit is counted exactly, from the real CPU's records of what it executes, and against
that the exits that a way between units has cost. Translation is timed by itself: in machines of
this process, and in a process of its own where all is done for the first time. That is what the
line above does, up to the prompt, and prints as JSON. translated.py calls `bench_session`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.core import TraceKind
from hypervisor.translator.engine import Translator
from hypervisor.vm import VirtualMachine
from tests.bench.virtual import judged, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypervisor.translator.unit import Unit

PART = 300_000  # guest ticks
PROMPT = b"$ "
TYPED = b"help\n"  # does not end the run
#: What the design promises.
MOST_LEAVING = 2.0  # per cent
MOST_TRANSLATING = 40.0  # microseconds a guest instruction
MOST_START = 0.3  # seconds
LEAVING = ("translation: link", "translation: target")


class Entries:
    """Counts how often a unit is come to: by a jump, by a look-up, or from the hypervisor.

    Jumps into the midst of a unit never leave the cache again; they are not counted.
    An entry that is executed again at once is an iteration of a repeat, or was begun again after a
    fault: it is counted once.
    """

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._entries: set[int] = set()
        self._last = 0
        self.count = 0
        vm.technique.on_code(self._added)
        vm.set_tracer(int(TraceKind.EXEC), self)

    def _added(self, unit: Unit) -> None:
        self._vm.drain_trace()  # what stood here before has run
        self._entries = {at for at in self._entries if not unit.start <= at < unit.end}
        if not unit.is_gate:
            self._entries.add(unit.entry)

    def render(self, records: Iterable[Any]) -> None:
        """Take records, oldest first."""
        for record in records:
            if record.kind == TraceKind.EXEC:
                self.count += record.eip in self._entries and record.eip != self._last
                self._last = record.eip


def count_leaving(image: bytes, typed: bytes) -> dict[str, float]:
    """Entries of units in the session's first part, and exits on the way to one."""
    vm = VirtualMachine(technique="translate", console_in=typed)
    entries = Entries(vm)
    vm.load(image)
    vm.run(max_ticks=PART)
    vm.drain_trace()
    exits = {reason: vm.counts[reason] for reason in LEAVING}
    leaving = sum(exits.values())
    return {"entries": entries.count, **exits, "per cent": leaving / entries.count * 100}


@contextmanager
def timed_translation() -> Iterator[dict[str, float]]:
    """Seconds and guest instructions of all translations while this lasts."""
    plain = Translator.translate
    figures = {"seconds": 0.0, "instructions": 0.0, "units": 0.0}

    def translate(self: Translator, eip: int) -> Unit | None:
        before, start = self.cache.translated, time.perf_counter()
        unit = plain(self, eip)
        figures["seconds"] += time.perf_counter() - start
        if unit is not None and self.cache.translated != before:
            figures["units"] += 1
            figures["instructions"] += unit.instructions
        return unit

    Translator.translate = translate  # type: ignore[method-assign]
    try:
        yield figures
    finally:
        Translator.translate = plain  # type: ignore[method-assign]


def time_translation(image: bytes, typed: bytes, repeats: int) -> dict[str, float]:
    """Translations of the session's first part; the fastest of some runs."""
    best: dict[str, float] = {"seconds": math.inf}
    for _ in range(repeats):
        with timed_translation() as figures:
            vm = VirtualMachine(image, technique="translate", console_in=typed)
            vm.run(max_ticks=PART)
        best = min(best, figures, key=lambda found: found["seconds"])
    return best


def seconds_to_prompt(technique: str, path: Path) -> float:
    """From the start of a process until the small OS asks for a command.

    One is typed beforehand: for a pipe in which nothing is the machine waits 0.2 s, so as to find
    out what it is (emulator/console.py).
    """
    command = [sys.executable, "-m", "hypervisor", "run", "--technique", technique, str(path)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(TYPED)
        process.stdin.flush()
        text = b""
        while PROMPT not in text:
            read = os.read(process.stdout.fileno(), 4096)
            if not read:
                raise RuntimeError(f"bench: os ends before its prompt: {text!r}")
            text += read
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def run_to_prompt(path: Path) -> dict[str, float]:
    """The same in this process, with translations timed."""
    text = b""

    def show(data: bytes) -> None:
        nonlocal text
        text += data
        if PROMPT in text:
            vm.request_exit()

    with timed_translation() as figures:
        vm = VirtualMachine(path.read_bytes(), technique="translate", console_out=show)
        vm.run()
    return figures


def time_start(image: bytes, repeats: int) -> dict[str, Any]:
    """Seconds to the prompt, natively and translated, and what of it is translation."""
    natively = translated = math.inf
    inside: dict[str, float] = {"seconds": math.inf}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "os.elf"
        path.write_bytes(image)
        command = [sys.executable, "-m", "tests.bench.session", str(path)]
        for _ in range(repeats):
            natively = min(natively, seconds_to_prompt("native", path))
            translated = min(translated, seconds_to_prompt("translate", path))
            found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            inside = min(inside, found, key=lambda figures: figures["seconds"])
    return {"native": natively, "translate": translated, "translation": inside}


def each(figures: dict[str, float]) -> float:
    """Microseconds a guest instruction."""
    return figures["seconds"] / figures["instructions"] * 1e6


def bench_session(*, quick: bool) -> dict[str, Any]:
    """All figures of this module, printed as they come."""
    from hypervisor.experiments.subjects import find_subject

    subject = find_subject("os")
    image = subject.image()
    image = image if isinstance(image, bytes) else image.elf()
    repeats = 3 if quick else 7
    print(f"\nThe small OS's session under translate, its first {PART:,} ticks")
    leaving = count_leaving(image, subject.input)
    note = f"{leaving['entries']:,} entries of units"
    line("leave the cache", *judged(leaving["per cent"], MOST_LEAVING, "%"), note)
    for reason in LEAVING:
        line(f"  {reason}", f"{leaving[reason]:,}")
    translating = time_translation(image, subject.input, repeats)
    note = f"{translating['instructions']:.0f} instructions in {translating['units']:.0f} units"
    line("us an instruction", *judged(each(translating), MOST_TRANSLATING), note)
    print("\nSeconds of a process from its start to the small OS's prompt")
    start = time_start(image, repeats)
    inside = start["translation"]
    line("native", *judged(start["native"], None))
    line("translate", *judged(start["translate"], MOST_START))
    note = f"{inside['instructions']:.0f} instructions, {each(inside):.0f} us each"
    line("  of it, translation", f"{inside['seconds']:.3f}", note=note)
    return {"leaving": leaving, "translating": translating, "start": start}


if __name__ == "__main__":
    print(json.dumps(run_to_prompt(Path(sys.argv[1]))))
