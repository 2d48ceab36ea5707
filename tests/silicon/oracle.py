"""Ask silicon: run cases on the host's own CPU and bring back what became of them.

helper.c does the running; this side compiles it, starts it, and moves cases and outcomes through a
shared file, many per request: about 40,000 single-instruction cases a second.

    with Silicon() as silicon:
        outcome, = silicon.run_batch([Case(bytes.fromhex("01d8"), registers=...)])

`missing()` says why this host has no such oracle. A case that would enter the host's kernel is
refused here, and again by a seccomp filter in the helper.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType

from tests.oracles.case import (
    AREA,
    CODE_MAX,
    LDT_SIZE,
    PAGE,
    ZONE,
    Case,
    Descriptor,
    Fault,
    Kind,
    Outcome,
)

SOURCE = Path(__file__).with_name("helper.c")
SLOTS = 256
"""Cases per request: more gain nothing, and the helper's zone should stay small."""

_HEAD = struct.Struct("<10I6HIHH")  # registers, eip, eflags, selectors, code_at, steps, code_length
_TAIL = struct.Struct("<10I6H8x5I")  # registers, eip, eflags, selectors, signal .. taken
_DESCRIPTOR = struct.Struct("<4I")  # struct user_desc
_CODE_OFFSET = 128
_MEMORY_OFFSET = 1024
_SLOT_SIZE = _MEMORY_OFFSET + AREA
_LDT_OFFSET = 2 * AREA
_CURRENT_OFFSET = _LDT_OFFSET + LDT_SIZE * _DESCRIPTOR.size
_SLOTS_OFFSET = _LDT_OFFSET + PAGE
_FLAGS = (
    *("-m32", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-nostdlib"),
    *("-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none", "-mno-sse"),
    *("-fno-asynchronous-unwind-tables", "-Wl,-no-pie", "-Wl,--build-id=none"),
    f"-Wl,-Ttext-segment={ZONE:#x}",
)
_SIGSYS, _SIGTRAP, _SIGALRM = 31, 5, 14
_HAS_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})
_PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"
_KERNEL_ENTRIES = (b"\xcd\x80", b"\x0f\x05", b"\x0f\x34")


class SiliconError(Exception):
    """The oracle itself failed: it says nothing about the case."""


@functools.cache
def missing() -> str | None:
    """Why this host cannot be asked, or None."""
    if platform.machine() not in ("x86_64", "i686", "AMD64") or platform.system() != "Linux":
        return f"the host is {platform.system()} on {platform.machine()}, not Linux on x86"
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    try:
        with Silicon():
            return None
    except (SiliconError, OSError) as error:
        return str(error)


def compile_helper() -> Path:
    """The helper's executable, built once per source text and kept in the temporary directory."""
    text = SOURCE.read_bytes() + " ".join(_FLAGS).encode()
    cache = Path(tempfile.gettempdir()) / f"seventeen-silicon-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise SiliconError(f"{cache} belongs to another user")
    helper = cache / hashlib.sha256(text).hexdigest()[:16]
    if not helper.exists():
        fresh = helper.with_suffix(f".{os.getpid()}")
        command = ["gcc", *_FLAGS, str(SOURCE), "-o", str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SiliconError(f"gcc -m32 cannot build the helper: {done.stderr.strip()[:300]}")
        fresh.replace(helper)
    return helper


def enters_kernel(code: bytes) -> bool:
    """True for INT 0x80, SYSCALL and SYSENTER, behind any prefixes."""
    return code.lstrip(_PREFIXES)[:2] in _KERNEL_ENTRIES


def _user_desc(index: int, descriptor: Descriptor | None) -> bytes:
    if descriptor is None:  # the kernel's pattern for "clear this entry"
        return _DESCRIPTOR.pack(index, 0, 0, 1 << 3 | 1 << 5)
    if descriptor.kind is Kind.CONFORMING and descriptor.present:
        raise ValueError("modify_ldt refuses conforming segments that are present")
    flags = (
        descriptor.big
        | descriptor.kind << 1
        | (not descriptor.accessible) << 3
        | descriptor.pages << 4
        | (not descriptor.present) << 5
    )
    return _DESCRIPTOR.pack(index, descriptor.base, descriptor.limit, flags)


class Silicon:
    """One running helper process."""

    def __init__(self) -> None:
        """Compile (once) and start the helper. Raises SiliconError if it does not run."""
        helper = compile_helper()
        size = _SLOTS_OFFSET + SLOTS * _SLOT_SIZE
        file = os.memfd_create("silicon")
        try:
            os.ftruncate(file, size)
            self._shared = mmap.mmap(file, size)
            self._process = subprocess.Popen(
                [str(helper), str(file), str(SLOTS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[file],
            )
        finally:
            os.close(file)
        self._ldt: tuple[Descriptor | None, ...] | None = None
        abilities = self._reply()
        self.low_mapped = bool(abilities & 2)
        """Whether LOW is there; vm.mmap_min_addr may forbid it."""

    def __enter__(self) -> Silicon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the helper."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._shared.close()

    def run_batch(self, cases: Iterable[Case]) -> list[Outcome]:
        """The outcome of each case, in order.

        Raises ValueError for a case that cannot be entered, SiliconError if one reached the host's
        kernel, did not end, or ended the helper.
        """
        outcomes: list[Outcome] = []
        for ldt, group in groupby(cases, key=lambda case: case.ldt):
            self._install(ldt)
            for batch in _batches(group):
                self._put(batch)
                self._ask("R", len(batch))
                outcomes += [self._outcome(i, case) for i, case in enumerate(batch)]
        return outcomes

    def _install(self, ldt: tuple[Descriptor | None, ...]) -> None:
        if ldt == self._ldt:
            return
        padded = ldt + (None,) * (LDT_SIZE - len(ldt))
        table = b"".join(_user_desc(i, descriptor) for i, descriptor in enumerate(padded))
        self._shared[_LDT_OFFSET : _LDT_OFFSET + len(table)] = table
        refused = self._ask("L", 0)
        if refused:
            raise SiliconError(f"modify_ldt refuses entry {refused - 1}: {padded[refused - 1]}")
        self._ldt = ldt

    def _put(self, batch: Sequence[Case]) -> None:
        shared = self._shared
        at = _SLOTS_OFFSET
        for case in batch:
            case.check()
            code = case.code
            if enters_kernel(code):
                raise ValueError(f"{code.hex(' ')} would enter the host's kernel")
            state = (*case.registers, case.eip, case.eflags, *case.selectors)
            _HEAD.pack_into(shared, at, *state, case.address, case.steps, len(code))
            start = at + _CODE_OFFSET
            shared[start : start + len(code)] = code
            start = at + _MEMORY_OFFSET
            shared[start : start + AREA] = case.memory
            at += _SLOT_SIZE

    def _outcome(self, index: int, case: Case) -> Outcome:
        at = _SLOTS_OFFSET + index * _SLOT_SIZE
        fields = _TAIL.unpack_from(self._shared, at)
        signal, vector, error, cr2, taken = fields[16:]
        if signal in (_SIGSYS, _SIGALRM):
            reason = "reached the host's kernel" if signal == _SIGSYS else "did not end"
            raise SiliconError(f"{case.code.hex(' ')} {reason}")
        fault = None
        if signal != _SIGTRAP or vector != 1:
            fault = Fault(
                vector,
                error if vector in _HAS_ERROR_CODE else 0,
                cr2 if vector == 14 else None,
            )
        memory = self._shared[at + _MEMORY_OFFSET : at + _SLOT_SIZE]
        registers, selectors = fields[:8], fields[10:16]
        return Outcome(registers, fields[8], fields[9], selectors, memory, fault, taken)

    def _ask(self, operation: str, count: int) -> int:
        assert self._process.stdin
        self._process.stdin.write(struct.pack("<II", ord(operation), count))
        return self._reply()

    def _reply(self) -> int:
        assert self._process.stdout
        reply = self._process.stdout.read(4)
        if not reply or len(reply) != 4:
            status = self._process.wait()
            index = struct.unpack_from("<I", self._shared, _CURRENT_OFFSET)[0]
            raise SiliconError(f"the helper ended with status {status} in case {index} of a batch")
        return int.from_bytes(reply, "little")


def _batches(cases: Iterator[Case]) -> Iterator[list[Case]]:
    batch: list[Case] = []
    for case in cases:
        batch.append(case)
        if len(batch) == SLOTS:
            yield batch
            batch = []
    if batch:
        yield batch


assert _CODE_OFFSET + CODE_MAX == _MEMORY_OFFSET, "mirrors struct slot in helper.c"
