"""The compiled core as Python sees it: its constants, a CPU's state, its exit record.

Thin on purpose: csrc/api.h is the interface and says what everything means; here are only types,
names and the fast way to read an exit. The enums are made from the core's own, so there is no
second list. The core is compared with the instruction table on import. Read machine.py next.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from enum import IntEnum, IntFlag
from functools import partial
from typing import Any, Final, NamedTuple

from emulator.errors import CoreError
from isa import fingerprint

REBUILD: Final = "rebuild with pip install -e ."

try:
    from emulator._core import ffi, lib
except ImportError as error:  # not built, or for another Python
    raise CoreError(f"no compiled core ({error}): {REBUILD}") from error

if not fingerprint.matches(ffi.string(lib.core_fingerprint()).decode()):
    raise CoreError(f"stale core: {REBUILD}")


def _mirror(base: Any, name: str, c_enum: str, prefix: str) -> Any:
    """An enum of Python from one of the core, its names without their common prefix."""
    members = ffi.typeof(f"enum {c_enum}").relements
    ordered = sorted(members.items(), key=lambda member: member[1])
    return base(name, {key.removeprefix(prefix): value for key, value in ordered})


# Any: their members are known only to the core.
ExitReason: Final[Any] = _mirror(IntEnum, "ExitReason", "exit_reason", "EXIT_")
Unsupported: Final[Any] = _mirror(IntEnum, "Unsupported", "unsupported", "UNSUPPORTED_")
PageFlag: Final[Any] = _mirror(IntFlag, "PageFlag", "page_flag", "PAGE_")
TraceKind: Final[Any] = _mirror(IntFlag, "TraceKind", "trace_kind", "TRACE_")
Access: Final[Any] = _mirror(IntFlag, "Access", "access", "ACCESS_")
ApicMode: Final[Any] = _mirror(IntEnum, "ApicMode", "apic_mode", "APIC_")
EventKind: Final[Any] = _mirror(IntEnum, "EventKind", "event_kind", "EVENT_")
WatchAccess: Final[Any] = _mirror(IntFlag, "WatchAccess", "watch_access", "WATCH_")

EFLAGS_IF: Final = 0x200
NOT_MAPPED: Final = (1 << 64) - 1  #: what cpu_translate returns for want of an address

GENERAL: Final = tuple(
    name.lower()
    for name, _ in sorted(
        ffi.typeof("enum general_register").relements.items(), key=lambda member: member[1]
    )
    if not name.endswith("COUNT")
)
SEGMENTS: Final = tuple(
    name.removeprefix("SEG_").lower()
    for name, _ in sorted(
        ffi.typeof("enum segment_register").relements.items(), key=lambda member: member[1]
    )
    if not name.endswith("COUNT")
)
CONTROLS: Final = ("cr0", "cr2", "cr3", "cr4")

#: The head of an exit record, in one read: half a microsecond, where field by field takes two.
_HEAD: Final = struct.Struct("=16I")
#: What a port exit needs of it: port, size, count, value.
_PORT: Final = struct.Struct("=16xIII8xI")
#: What an event's handlers need of it: EIP, vector and kind; row, length, EIP and error code.
_EVENT: Final = struct.Struct("=12xI24xI8xI")
_FAULT: Final = struct.Struct("=4xIII28xI")


# NamedTuples: to make a frozen dataclass takes four times as long, a millisecond at every start.


class Registers(NamedTuple):
    """What a program can see of a CPU's registers: 32-bit values and 16-bit selectors."""

    eax: int
    ecx: int
    edx: int
    ebx: int
    esp: int
    ebp: int
    esi: int
    edi: int
    eip: int
    eflags: int
    es: int
    cs: int
    ss: int
    ds: int
    fs: int
    gs: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int


class ExitRecord(NamedTuple):
    """The head of the core's exit record; csrc/api.h says which fields go with which reason."""

    reason: int
    row: int
    length: int
    eip: int
    port: int
    size: int
    count: int  # type: ignore[assignment]  # hides a tuple's method, which nobody needs
    linear: int
    address: int
    value: int
    vector: int
    error: int
    has_error: int
    kind: int
    detail: int
    operand: int


class Fault(NamedTuple):
    """One exception of the chain that ended in a shutdown."""

    vector: int
    error: int | None
    eip: int


class Cpu:
    """One CPU of the core. `state` is its C struct: exact, and writable, between two runs."""

    def __init__(self, machine: Any) -> None:
        pointer = lib.cpu_new(machine)
        if pointer == ffi.NULL:
            raise CoreError("not enough memory for a CPU")
        # The destructor holds the machine: the CPU must go first, in whatever order names die.
        self.pointer = ffi.gc(pointer, lambda cpu, machine=machine: lib.cpu_free(cpu))
        self.state = lib.cpu_state(self.pointer)
        self._exit = lib.cpu_exit(self.pointer)
        self._head = memoryview(ffi.buffer(self._exit, _HEAD.size))
        self._data = memoryview(ffi.buffer(self._exit.data))
        self._walked = ffi.new("Walked *")
        self._trace: Any = None
        #: The exit record as the core has it: for a handler that wants two or three of its fields.
        self.record = self._exit
        # One C call each, with nothing of Python between: these three are every exit's.
        #: Run until a tick or an earlier exit; returns its reason.
        self.run: Callable[[int], int] = partial(lib.cpu_run, self.pointer)
        #: Answer a port or device-memory exit with a value.
        self.complete: Callable[[int], None] = partial(lib.cpu_complete, self.pointer)
        #: Retire an instruction that was done for the CPU; the next one's EIP.
        self.retire: Callable[[int], None] = partial(lib.cpu_retire, self.pointer)
        #: Let the local APIC's timer act if it is due; csrc/api.h, cpu_apic_advance.
        self.advance_apic: Callable[[], None] = partial(lib.cpu_apic_advance, self.pointer)
        #: Take the local APIC's interrupt: its vector, or -1 if it has none.
        self.acknowledge: Callable[[], int] = partial(lib.cpu_acknowledge, self.pointer)
        #: Drive the INTR pin.
        self.set_interrupt: Callable[[int], None] = partial(lib.cpu_set_interrupt, self.pointer)
        #: Port, size, count and value of a port exit.
        self.port_access: Callable[[], tuple[int, int, int, int]] = partial(
            _PORT.unpack_from, self._head
        )
        #: EIP, vector and kind of an event exit.
        self.event: Callable[[], tuple[int, int, int]] = partial(_EVENT.unpack_from, self._head)
        #: Row, length, EIP and error code of an exception's.
        self.fault: Callable[[], tuple[int, int, int, int]] = partial(
            _FAULT.unpack_from, self._head
        )

    def field(self, name: str) -> memoryview:
        """A field of the state as an array of its numbers, or of its one number.

        An element of it takes half as long as an attribute of `state`: for what every exit needs.
        Good as long as the CPU lives.
        """
        kind = dict(ffi.typeof("CpuState").fields)[name].type
        number = kind.item if kind.kind == "array" else kind
        start = ffi.offsetof("CpuState", name)
        found = memoryview(ffi.buffer(self.state))[start : start + ffi.sizeof(kind)]
        return found.cast("Q" if ffi.sizeof(number) == 8 else "I")

    def set_apic(self, mode: int) -> None:
        """Give it a local APIC from the next reset on, and say who answers for it (`ApicMode`)."""
        lib.cpu_set_apic(self.pointer, mode)

    def set_vendor(self, name: bytes) -> None:
        """What CPUID calls its maker: 12 characters."""
        lib.cpu_set_vendor(self.pointer, name)

    def reset(self) -> None:
        """Put the CPU in the state in which a multiboot loader enters a kernel."""
        lib.cpu_reset(self.pointer)

    def head(self) -> tuple[int, ...]:
        """The exit record's first sixteen fields, in the order of `ExitRecord`."""
        return _HEAD.unpack_from(self._head)

    @property
    def exit(self) -> ExitRecord:
        """The exit record, for those in no hurry."""
        return ExitRecord(*self.head())

    @property
    def exit_data(self) -> memoryview:
        """The elements of an OUTS, as the exit record holds them."""
        return self._data

    @property
    def posted(self) -> list[tuple[int, int, int]]:
        """The (machine address, size, value) of an EXIT_MMIO_WRITE's stores, in order."""
        record = self._exit
        return [(w.address, w.size, w.value) for w in record.posted[0 : record.count]]

    @property
    def faults(self) -> list[Fault]:
        """The chain of exceptions that an EXIT_SHUTDOWN ends, first to last."""
        record = self._exit
        return [
            Fault(fault.vector, fault.error if fault.has_error else None, fault.eip)
            for fault in record.faults[0 : record.fault_count]
        ]

    def cut_short(self, count: int) -> None:
        """Of the elements of an OUTS only so many have been taken; `complete` comes next."""
        self._exit.count = count

    def complete_bytes(self, data: bytes) -> None:
        """Answer a port read of several elements."""
        lib.cpu_complete_bytes(self.pointer, data, len(data))

    def interrupt(self, vector: int) -> int:
        """Deliver an external interrupt; 0, or the reason of a further exit."""
        reason: int = lib.cpu_interrupt(self.pointer, vector)
        return reason

    def inject(self, vector: int, error: int | None = None) -> int:
        """Deliver an exception as if it had arisen at EIP; 0, or the reason of a further exit."""
        has_error = error is not None
        kind = EventKind.EXCEPTION
        reason: int = lib.cpu_inject(self.pointer, vector, kind, has_error, error or 0)
        return reason

    def request_exit(self) -> None:
        """Make `run` return soon; may be called from a signal handler or another thread."""
        lib.cpu_request_exit(self.pointer)

    def forget_request(self) -> None:
        """Take `request_exit` back, and a watchpoint's exit that has not been made."""
        lib.cpu_forget_request(self.pointer)

    def set_breakpoint(self, linear: int, wanted: bool = True) -> None:
        """Have `run` and `step` return BREAKPOINT before an instruction; csrc/api.h."""
        if not wanted:
            lib.cpu_clear_breakpoint(self.pointer, linear)
        elif lib.cpu_set_breakpoint(self.pointer, linear) != 0:
            raise CoreError("not enough memory for breakpoints")

    def is_past_breakpoint(self, eip: int, tick: int) -> bool:
        """Whether one at an EIP has been met at this tick, or lies within a repeat there."""
        return bool(lib.cpu_is_past_breakpoint(self.pointer, eip, tick))

    def set_watchpoint(self, linear: int, size: int, access: int) -> bool:
        """Have accesses (`WatchAccess`) return WATCHPOINT; False if there are too many."""
        return bool(lib.cpu_set_watchpoint(self.pointer, linear, size, access) == 0)

    def clear_watchpoints(self) -> None:
        """Take all of them away."""
        lib.cpu_clear_watchpoints(self.pointer)

    def take_hit(self) -> int:
        """A watchpoint's exit that is due, as `WatchAccess`, and will not be made now; or 0."""
        access: int = lib.cpu_take_hit(self.pointer)
        return access

    @property
    def registers(self) -> Registers:
        """A snapshot of the registers."""
        state = self.state
        return Registers(
            **dict(zip(GENERAL, state.gpr, strict=False)),
            eip=state.eip,
            eflags=state.eflags,
            **{name: state.seg[i].selector for i, name in enumerate(SEGMENTS)},
            **{name: getattr(state, name) for name in CONTROLS},
        )

    def __getitem__(self, name: str) -> int:
        """A register by the name `Registers` has for it; KeyError if it has none."""
        if name not in Registers._fields:
            raise KeyError(name)
        value: int = getattr(self.registers, name)
        return value

    def __setitem__(self, name: str, value: int) -> None:
        """Set a general or control register, EIP or EFLAGS; a selector would want a descriptor."""
        if name in GENERAL:
            self.state.gpr[GENERAL.index(name)] = value
        elif name in ("eip", "eflags", *CONTROLS):
            setattr(self.state, name, value)
        else:
            raise KeyError(name)

    def set_flat_table(self, address: int, limit: int, code: int, data: int) -> None:
        """Set GDTR, and the selectors of the segments, which are flat since the reset."""
        self.state.gdtr.base, self.state.gdtr.limit = address, limit
        for name, segment in zip(SEGMENTS, self.state.seg, strict=False):
            segment.selector = code if name == "cs" else data

    def read_linear(self, linear: int, size: int, cpl: int = 0) -> bytes:
        """Guest memory at a linear address, with the rights of `cpl`; short where unmapped."""
        buffer = ffi.new("uint8_t[]", max(size, 1))
        done = lib.cpu_read_linear(self.pointer, linear & 0xFFFF_FFFF, buffer, size, cpl)
        return bytes(ffi.buffer(buffer, done))

    def write_linear(self, linear: int, data: bytes, cpl: int = 0) -> int:
        """Write to a linear address, with the rights of `cpl`; how many bytes could be."""
        at = linear & 0xFFFF_FFFF
        done: int = lib.cpu_write_linear(self.pointer, at, data, len(data), cpl)
        return done

    def walk(self, linear: int, access: int) -> Any:
        """Walk the page tables for an access (`Access`), setting accessed and dirty bits.

        Returns the core's Walked, good until the next call; None if the access faults.
        """
        allowed = lib.cpu_walk(self.pointer, linear, access, self._walked)
        return self._walked if allowed else None

    @property
    def walk_error(self) -> int:
        """The page fault's error code of a walk that returned None."""
        error: int = self._walked.error
        return error

    def translate(self, linear: int) -> int | None:
        """The machine address behind a linear one, without any effect; None if unmapped."""
        address: int = lib.cpu_translate(self.pointer, linear & 0xFFFF_FFFF)
        return None if address == NOT_MAPPED else address

    def translate_pages(self, linear: Sequence[int]) -> array[int]:
        """The machine pages behind many linear addresses; all ones where one is unmapped."""
        asked, found = array("I", linear), array("I", bytes(4 * len(linear)))
        lib.cpu_translate_pages(
            self.pointer,
            ffi.from_buffer("uint32_t[]", asked),
            len(asked),
            ffi.from_buffer("uint32_t[]", found, require_writable=True),
        )
        return found

    def step_on(self, eip: int, floor: int, until: int) -> int:
        """More steps after one at `eip`; csrc/api.h, cpu_step_on. Returns what `step` would."""
        reason: int = lib.cpu_step_on(self.pointer, eip, floor, until)
        return reason

    def step(self, code: bytes = b"", length: int = 0) -> int:
        """Execute one instruction, or the one in `code` as if it stood at EIP, `length` bytes long.

        Returns the reason of an exit: DEADLINE once it has retired or its fault is delivered.
        """
        reason: int = lib.cpu_step(self.pointer, code or ffi.NULL, len(code), length)
        return reason

    def set_frames(self, frames: Any, count: int) -> None:
        """Make physical addresses those of a virtual machine; csrc/api.h, cpu_set_frames."""
        self._frames = frames  # the core keeps only a pointer
        lib.cpu_set_frames(self.pointer, frames, count)

    def set_watching(self, watching: bool) -> None:
        """Whether stores to watched pages are reported; csrc/api.h, cpu_set_watching."""
        lib.cpu_set_watching(self.pointer, watching)

    def flush_tlb(self) -> None:
        """Forget all cached translations."""
        lib.cpu_flush_tlb(self.pointer)

    def invalidate_page(self, linear: int) -> None:
        """Forget the cached translation of a page."""
        lib.cpu_invalidate_page(self.pointer, linear)

    def save(self) -> bytes:
        """The whole CPU, TLB included."""
        buffer = ffi.new("uint8_t[]", lib.cpu_save(self.pointer, ffi.NULL))
        return bytes(ffi.buffer(buffer, lib.cpu_save(self.pointer, buffer)))

    def load(self, saved: bytes) -> None:
        """Take back what `save` returned; CoreError if another version of the core wrote it."""
        if lib.cpu_load(self.pointer, saved, len(saved)) != 0:
            raise CoreError("a CPU saved by another version of the core")

    def take_trace(self, count: int = 1024) -> list[Any]:
        """Up to `count` trace records (C structs), oldest first; good until the next call."""
        # The structs lie in this array: it has to live as long as they are looked at.
        if self._trace is None or len(self._trace) < count:
            self._trace = ffi.new("TraceRecord[]", count)
        return list(self._trace[0 : lib.cpu_take_trace(self.pointer, self._trace, count)])
