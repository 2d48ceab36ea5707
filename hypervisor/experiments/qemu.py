"""A second opinion on wall time: the same workload under QEMU's TCG, where it is installed.

QEMU takes a sixth of a second to start, which is more than most workloads take to run. So for an
operation the counts are much higher than ours (workloads.py), and the start cancels out; from a
program that is run whole, the time of one that ends at once is taken away.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from hypervisor.errors import ExperimentError
from hypervisor.experiments.compare import Comparison, Outside, Wall
from hypervisor.experiments.fidelity import Progress
from hypervisor.experiments.subjects import Subject, find_subject
from hypervisor.experiments.workloads import COUNTED, QEMU_TIMES, Workload, of_subject
from isa.assembler import Program

NAME: Final = "QEMU TCG"
COMMAND: Final = (
    *("qemu-system-i386", "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot"),
    *("-serial", "stdio", "-monitor", "none"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
)
TIME_LIMIT: Final = 30.0  #: seconds
#: Seconds below which a difference of two runs is chance.
NOISE: Final = 0.01
SHORTEST: Final = "hello"


def is_installed() -> bool:
    """Is there a QEMU for this?"""
    return shutil.which(COMMAND[0]) is not None


def seconds(subject: Subject, folder: Path) -> float:
    """Wall time of one run, from QEMU's start to its end; ExperimentError if it is no good end."""
    image = subject.image()
    path = folder / f"{subject.name}.elf"
    path.write_bytes(image.elf() if isinstance(image, Program) else image)
    arguments = [*COMMAND, "-m", subject.ram, "-kernel", str(path)]
    if subject.kernel_args:
        arguments += ["-append", subject.kernel_args]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            arguments,
            input=subject.input,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise ExperimentError(f"{subject.name}: QEMU has taken {TIME_LIMIT:g} seconds") from None
    took = time.perf_counter() - start
    # isa-debug-exit makes the status odd; so is that of an error, which QEMU has a line for.
    if done.returncode % 2 == 0 or done.stderr:
        line = done.stderr.decode(errors="replace").strip() or f"it ended with {done.returncode}"
        raise ExperimentError(f"{subject.name}: QEMU: {line}")
    return took


def beside(
    comparison: Comparison,
    *,
    repeat: int = 3,
    progress: Progress = lambda done, total, name: None,
) -> tuple[Outside, ...]:
    """The workloads of a comparison under QEMU, which must be installed; those that it can run."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty = of_subject(find_subject(SHORTEST)).subject
        total = len(comparison.workloads)
        for number, workload in enumerate(comparison.workloads):
            progress(number, total, f"{workload.name} {NAME}")
            longer = COUNTED[workload.name].workload(QEMU_TIMES) if workload.less else workload
            with contextlib.suppress(ExperimentError):  # no figure, then
                found.append(_measure(comparison, longer, longer.less or empty, folder, repeat))
    return tuple(found)


def _measure(
    comparison: Comparison, workload: Workload, less: Subject, folder: Path, repeat: int
) -> Outside:
    more = [seconds(workload.subject, folder) for _ in range(repeat)]
    rest = [seconds(less, folder) for _ in range(repeat)]
    wall = Wall(tuple(a - b for a, b in zip(sorted(more), sorted(rest), strict=True)))
    native = comparison.row(workload.name, "native")
    ratio = None
    if wall.best > NOISE and not native.wall.is_noise:
        ratio = wall.best / workload.operations / native.each(native.wall.best)
    return Outside(workload.name, NAME, workload.operations, wall, ratio)
