"""Compile the kernel that checks its machine; or say why that cannot be done here."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Final

KERNEL: Final = Path(__file__).with_name("kernel")
FLAGS: Final = (
    *("-m32", "-march=i686", "-mno-sse", "-mno-mmx", "-mgeneral-regs-only"),
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"),
    *("-ffreestanding", "-fno-pie", "-no-pie", "-nostdlib", "-static"),
    # Pages of devices and of firmware are no objects of C, and their bytes have many types.
    *("-fno-strict-aliasing", "-fno-stack-protector", "-fcf-protection=none"),
    *("-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns"),
    *("-Wl,--build-id=none", "-T", str(KERNEL / "link.ld")),
)


@functools.cache
def missing() -> str | None:
    """Why no kernel can be compiled here, or None."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    probe = ["gcc", *FLAGS, "-x", "c", "-o", "/dev/null", "-", "-lgcc"]
    program = "void _start(void) { for (;;); }"
    done = subprocess.run(probe, input=program, capture_output=True, text=True)
    return None if done.returncode == 0 else "gcc -m32 cannot link a kernel (gcc-multilib)"


def build(target: Path) -> Path:
    """The kernel as a multiboot-1 ELF; warnings are failures."""
    sources = [*sorted(KERNEL.glob("*.S")), *sorted(KERNEL.glob("*.c"))]
    command = ["gcc", *FLAGS, "-o", str(target), *map(str, sources), "-lgcc"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target
