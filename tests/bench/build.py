"""Compile the workloads: each as a multiboot kernel and as a 32-bit program of the host.

Both come from the same source with the same code-generation flags, so what is compared is the
machine and not the compiler. Needs gcc; the host programs need its 32-bit library as well
(gcc-multilib). tests/core/test_gcc.py runs the kernels too. Read workloads/workload.h first,
machines.py next.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GUEST = HERE / "guest"

_CODE = ["-m32", "-march=i686", "-mno-sse", "-mno-80387", "-O2", "-Wall", "-Wextra", "-Werror"]
# Nothing that only hosted programs need, and no loop turned into a call of memset unasked.
_CODE += ["-fno-pic", "-fno-stack-protector", "-fcf-protection=none"]
_CODE += ["-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns"]
_KERNEL = [*_CODE, "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"]
_HOST = [*_CODE, "-no-pie"]


@dataclass(frozen=True)
class Workload:
    """One program to time. `counted`: it is part of the geometric mean."""

    name: str
    source: Path
    counted: bool = True


#: What stands in workloads/; bulk measures bandwidth and not instructions.
WORKLOADS = tuple(
    Workload(path.stem, path, counted=path.stem != "bulk")
    for path in sorted((HERE / "workloads").glob("*.[cS]"))
)
#: What guest/system.c measures, by the value of its option `cost`.
SYSTEM_COSTS = {
    "syscall": "int 0x80, ring 3 to 0 to 3",
    "fault": "page fault, mapped and returned from",
    "cr3": "CR3 load, then 16 pages touched",
}


class BuildError(Exception):
    """The compiler is missing or refuses; the message is what to tell the user."""


def _compile(flags: list[str], sources: list[Path], target: Path, *last: str) -> Path:
    newest = max(path.stat().st_mtime for path in [*GUEST.iterdir(), *sources])
    if target.exists() and target.stat().st_mtime > newest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", *flags, "-o", str(target), *map(str, sources), *last]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"gcc cannot build {target.name}: {done.stderr.strip()}")
    return target


def _kernel(main: str, target: Path, *sources: Path) -> Path:
    script = ["-T", str(GUEST / "link.ld")]
    parts = [GUEST / "entry.S", GUEST / "machine.c", GUEST / main, *sources]
    return _compile([*_KERNEL, *script], parts, target, "-lgcc")


def build_kernel(workload: Workload, folder: Path) -> Path:
    """The workload as a multiboot-1 ELF; options: iterations=N paging=1."""
    return _kernel("kernel.c", folder / f"{workload.name}.elf", workload.source)


def build_system(folder: Path) -> Path:
    """guest/system.c as a multiboot-1 ELF; options: cost=syscall|fault|cr3 iterations=N."""
    return _kernel("system.c", folder / "system.elf")


def build_host_program(workload: Workload, folder: Path) -> Path:
    """The workload as a program of the host; argument: iterations."""
    return _compile(_HOST, [HERE / "host.c", workload.source], folder / workload.name)


@functools.cache
def kernels_missing() -> str | None:
    """Why no kernel can be built here, or None."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    probe = ["gcc", *_KERNEL, "-x", "c", "-o", "/dev/null", "-", "-lgcc"]
    program = "void _start(void) { for (;;); }"
    done = subprocess.run(probe, input=program, capture_output=True, text=True)
    return None if done.returncode == 0 else "gcc -m32 cannot link a kernel (gcc-multilib)"


@functools.cache
def host_programs_missing() -> str | None:
    """Why no 32-bit program of the host can be built and run here, or None."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    probe = ["gcc", *_HOST, "-x", "c", "-o", "/dev/null", "-"]
    program = '#include <stdio.h>\nint main(void) { return puts("") < 0; }'
    done = subprocess.run(probe, input=program, capture_output=True, text=True)
    return None if done.returncode == 0 else "gcc -m32 cannot link a program (gcc-multilib)"
