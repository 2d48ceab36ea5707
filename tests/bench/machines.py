"""The machines side by side: silicon, Seventeen, QEMU's TCG and Unicorn, each with one `run`.

A run starts the machine, lets it do the work and returns the wall time and what was printed. The
start-up is in the time; measure.py takes it out by the difference of two runs. build.py makes the
programs.
"""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import build

TIMEOUT = 300
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Outcome:
    """Wall time in seconds, start-up included, and what the program printed."""

    seconds: float
    output: str


class BenchError(Exception):
    """A machine failed to run a workload; the message says which and how."""


def _timed(command: list[str], good: int) -> Outcome:
    start = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT
    )
    seconds = time.perf_counter() - start
    if done.returncode != good:
        raise BenchError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()}")
    return Outcome(seconds, done.stdout.strip())


class Bench(ABC):
    """A machine that runs kernels built by build.py."""

    name = ""
    #: Whether it can run ring 3 and page tables of its own (guest/system.c).
    whole = True

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot run here, or None."""

    @abstractmethod
    def run_kernel(self, kernel: Path, options: str) -> Outcome:
        """Run a multiboot kernel with these options on its command line."""

    def run_workload(self, workload: build.Workload, folder: Path, iterations: int) -> Outcome:
        """Build the workload in `folder` if need be, and run it."""
        kernel = build.build_kernel(workload, folder)
        return self.run_kernel(kernel, f"iterations={iterations}")


class Silicon(Bench):
    """The host's CPU, by 32-bit programs of the host."""

    name = "silicon"
    whole = False

    def missing(self) -> str | None:
        return build.host_programs_missing()

    def run_kernel(self, kernel: Path, options: str) -> Outcome:
        raise BenchError("silicon runs programs, not kernels")

    def run_workload(self, workload: build.Workload, folder: Path, iterations: int) -> Outcome:
        program = build.build_host_program(workload, folder)
        return _timed([str(program), str(iterations)], good=0)


class Seventeen(Bench):
    """Our machine as a user starts it: a fresh process each time."""

    name = "seventeen"

    def missing(self) -> str | None:
        return build.kernels_missing()

    def run_kernel(self, kernel: Path, options: str) -> Outcome:
        command = [sys.executable, "-m", "hypervisor", "run", str(kernel)]
        return _timed([*command, "--kernel-args", options], good=0)


class Qemu(Bench):
    """qemu-system-i386 without KVM."""

    name = "qemu"

    def missing(self) -> str | None:
        if shutil.which("qemu-system-i386") is None:
            return "qemu-system-i386 is not installed"
        return build.kernels_missing()

    def run_kernel(self, kernel: Path, options: str) -> Outcome:
        quiet = ["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]
        leave = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]  # exits with 2 * value + 1
        command = ["qemu-system-i386", "-accel", "tcg", *quiet, *leave]
        return _timed([*command, "-kernel", str(kernel), "-append", options], good=1)


class Unicorn(Bench):
    """The unicorn package, in this process; ports are answered by Python functions."""

    name = "unicorn"
    whole = False
    _MEMORY, _INFORMATION, _COMMAND_LINE = 16 << 20, 0x9000, 0xA000

    def missing(self) -> str | None:
        if importlib.util.find_spec("unicorn") is None:
            return "the Python package unicorn is not installed"
        return build.kernels_missing()

    def run_kernel(self, kernel: Path, options: str) -> Outcome:
        import unicorn as uc
        from unicorn import x86_const as x86

        printed = bytearray()

        def read_port(engine: Any, port: int, size: int, data: Any) -> int:
            return 0x60  # line status: the transmitter is empty

        def write_port(engine: Any, port: int, size: int, value: int, data: Any) -> None:
            if port == 0x3F8:
                printed.append(value)
            elif port == 0xF4:
                engine.emu_stop()

        start = time.perf_counter()
        engine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_32)
        engine.mem_map(0, self._MEMORY)
        entry = self._load(engine, kernel.read_bytes())
        engine.mem_write(self._INFORMATION, struct.pack("<5I", 4, 0, 0, 0, self._COMMAND_LINE))
        engine.mem_write(self._COMMAND_LINE, options.encode() + b"\0")
        engine.reg_write(x86.UC_X86_REG_EBX, self._INFORMATION)
        engine.hook_add(uc.UC_HOOK_INSN, read_port, None, 1, 0, x86.UC_X86_INS_IN)
        engine.hook_add(uc.UC_HOOK_INSN, write_port, None, 1, 0, x86.UC_X86_INS_OUT)
        try:
            engine.emu_start(entry, self._MEMORY)
        except uc.UcError as error:
            raise BenchError(f"unicorn cannot run {kernel.name}: {error}") from error
        return Outcome(time.perf_counter() - start, printed.decode().strip())

    @staticmethod
    def _load(engine: Any, image: bytes) -> int:
        """Copy the loadable segments of an ELF32 into memory; returns the entry point."""
        entry, headers = struct.unpack_from("<II", image, 24)
        size, count = struct.unpack_from("<HH", image, 42)
        for number in range(count):
            header = struct.unpack_from("<5I", image, headers + number * size)
            kind, offset, _, address, length = header
            if kind == 1:
                engine.mem_write(address, image[offset : offset + length])
        return int(entry)


MACHINES: tuple[Bench, ...] = (Silicon(), Seventeen(), Qemu(), Unicorn())
