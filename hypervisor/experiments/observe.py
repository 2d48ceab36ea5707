"""Fidelity as code: what a run shows to its guest, and when two runs are equal.

The problem: a technique is faithful if its guest cannot tell it from the bare machine, so somebody
has to say what a guest can tell. An `Observation` holds it: every device access in order, every
event delivered to the guest's handlers, and at the end the registers as the guest reads them and
guest-physical memory; all by guest ticks. `compare` names the first difference in one line.

Masked, and nothing else: accessed bits that the native run set in page-table entries leading to
code pages (code that is cached is not fetched again), found by walking the guest's own tables; and
the site bytes of a paravirtual image, which the caller gives as ranges. A technique that patches
code shows the original bytes itself.

`Recorder` makes observations of anything that has a board and a CPU state of the core; lockstep.py
finds the instruction behind a difference. Read it next.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emulator import Machine
from emulator.board import Board
from emulator.core import CONTROLS, GENERAL, SEGMENTS, PageFlag, TraceKind, lib
from emulator.loader import Program
from emulator.result import Result
from isa.exceptions import EXCEPTIONS, VECTORS

PAGE: Final = 4096
#: Tick limit of a run that nobody limits: no manifest guest comes near.
TICKS: Final = 1_000_000_000
_PAGE_FAULT: Final = VECTORS["PF"]
_PRESENT, _ACCESSED, _LARGE = 1, 0x20, 0x80
_CR4_PSE: Final = 0x10
_ENTRIES: Final = struct.Struct("<1024I")
_BLANK: Final = bytes(PAGE)


class Access(NamedTuple):
    """One access to a device. `tick` is that of the instruction, or of the iteration of a rep."""

    tick: int
    kind: str  #: in, out, load, store
    address: int  #: port, or guest-physical address
    size: int  #: bytes
    value: int

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.address:#x} of {self.size} bytes, value {self.value:#x}, "
            f"at tick {self.tick}"
        )


class Event(NamedTuple):
    """One event as it was delivered to the guest's handler, with what its frame says.

    `esp` and `ss` are the interrupted program's; the frame holds them if the ring changed.
    """

    tick: int
    vector: int
    error: int | None
    cr2: int | None  #: of a page fault
    eip: int
    cs: int
    eflags: int
    esp: int
    ss: int

    @classmethod
    def of(cls, record: Any) -> Event:
        """From a TRACE_EVENT record of the core (csrc/api.h, TraceRecord)."""
        return cls(
            record.tick,
            record.vector,
            record.error if record.has_error else None,
            record.cr2 if record.vector == _PAGE_FAULT else None,
            record.eip,
            record.cs,
            record.eflags,
            record.esp,
            record.ss,
        )

    def __str__(self) -> str:
        name = str(EXCEPTIONS[self.vector]) if self.vector < len(EXCEPTIONS) else ""
        words = [f"vector {self.vector}{f' ({name})' if name else ''}"]
        words += [] if self.error is None else [f"error {self.error:#x}"]
        words += [] if self.cr2 is None else [f"cr2 {self.cr2:#x}"]
        words += [f"cs:eip {self.cs:#x}:{self.eip:#x}", f"eflags {self.eflags:#x}"]
        words += [f"ss:esp {self.ss:#x}:{self.esp:#x}", f"at tick {self.tick}"]
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, and the registers as the guest reads them."""

    stop: str  #: the name of an `emulator.result.Stop`
    status: int
    tick: int
    registers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """All of a run that its guest can tell."""

    accesses: tuple[Access, ...]
    events: tuple[Event, ...]
    ending: Ending
    pages: Mapping[int, bytes]  #: guest-physical memory by page address; absent: zero
    #: For the mask of accessed bits: the values CR3 had, and the pages that code was decoded from.
    roots: frozenset[int]
    code: frozenset[int]

    @property
    def large_pages(self) -> bool:
        """Whether the guest's directory entries may map 4 MiB pages."""
        return bool(dict(self.ending.registers)["cr4"] & _CR4_PSE)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which two observations differ."""

    what: str  #: device access, event, end, register, memory
    reason: str  #: one line
    tick: int | None = None  #: where it is known
    address: int | None = None  #: memory: guest-physical

    def __str__(self) -> str:
        return self.reason


# -- Comparing ------------------------------------------------------------------------------------


def compare(
    native: Observation, other: Observation, *, sites: Sequence[range] = (), name: str = "other"
) -> Difference | None:
    """The first difference of a run from the native one, or None.

    sites: guest-physical ranges that a paravirtual image has other bytes in than its native twin.
    name: what the other run is called in the reason.
    """
    found = [
        difference
        for what, ours, theirs in (
            ("device access", native.accesses, other.accesses),
            ("event", native.events, other.events),
        )
        if (difference := _first_of(what, ours, theirs, name)) is not None
    ]
    if found:
        return min(found, key=lambda difference: difference.tick or 0)
    return _compare_endings(native.ending, other.ending, name) or _compare_memory(
        native, other, sites, name
    )


def _first_of(
    what: str, ours: Sequence[Any], theirs: Sequence[Any], name: str
) -> Difference | None:
    if ours == theirs:
        return None
    number = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    a, b = (side[number] if number < len(side) else None for side in (ours, theirs))
    tick = min(entry.tick for entry in (a, b) if entry is not None)
    reason = f"{what} {number}: native {a or 'none'}; {name} {b or 'none'}"
    return Difference(what, reason, tick)


def _compare_endings(ours: Ending, theirs: Ending, name: str) -> Difference | None:
    for field in ("stop", "status", "tick"):
        a, b = getattr(ours, field), getattr(theirs, field)
        if a != b:
            return Difference("end", f"{field}: native {a}; {name} {b}", ours.tick)
    for (register, a), (_, b) in zip(ours.registers, theirs.registers, strict=True):
        if a != b:
            reason = f"{register} at the end: native {a:#x}; {name} {b:#x}"
            return Difference("register", reason, ours.tick)
    return None


def _compare_memory(
    native: Observation, other: Observation, sites: Sequence[range], name: str
) -> Difference | None:
    if native.pages == other.pages:
        return None
    masked: frozenset[int] | None = None  # walking the tables takes time: only if need be
    for page in sorted({*native.pages, *other.pages}):
        a, b = native.pages.get(page, _BLANK), other.pages.get(page, _BLANK)
        for at in _unequal(a, b):
            address = page + at
            if any(address in site for site in sites):
                continue
            if a[at] == b[at] | _ACCESSED and not b[at] & _ACCESSED:
                masked = code_entries(native) if masked is None else masked
                if address in masked:
                    continue
            ours, theirs = (
                int.from_bytes(side[at & ~3 : (at & ~3) + 4], "little") for side in (a, b)
            )
            address &= ~3
            reason = f"memory at {address:#010x}: native {ours:#010x}; {name} {theirs:#010x}"
            return Difference("memory", reason, native.ending.tick, address)
    return None


def _unequal(a: bytes, b: bytes) -> Iterator[int]:
    if a != b:
        yield from (at for at in range(PAGE) if a[at] != b[at])


def code_entries(seen: Observation) -> frozenset[int]:
    """Guest-physical addresses of all page-table entries that lead to pages with code.

    That is, of their lowest bytes, which hold the accessed bit. The tables are walked as the run
    left them, from every value that CR3 is known to have had.
    """
    found: set[int] = set()
    for root in seen.roots:
        for at, entry in _present(seen.pages, root & ~(PAGE - 1)):
            if entry & _LARGE and seen.large_pages:
                frames = range(entry & 0xFFC00000, (entry & 0xFFC00000) + (4 << 20), PAGE)
                if any(page in frames for page in seen.code):
                    found.add(at)
                continue
            leaves = [
                leaf
                for leaf, inner in _present(seen.pages, entry & ~(PAGE - 1))
                if inner & ~(PAGE - 1) in seen.code
            ]
            found.update(leaves, [at] if leaves else [])
    return frozenset(found)


def _present(pages: Mapping[int, bytes], table: int) -> Iterator[tuple[int, int]]:
    """The (address, value) of the present entries of a table."""
    if table in pages:
        for number, entry in enumerate(_ENTRIES.unpack(pages[table])):
            if entry & _PRESENT:
                yield table + 4 * number, entry


# -- Recording ------------------------------------------------------------------------------------


def read_registers(state: Any) -> tuple[tuple[str, int], ...]:
    """What a guest can read of a CPU state of the core (csrc/api.h), by name."""
    pairs = [(name, state.gpr[i]) for i, name in enumerate(GENERAL)]
    pairs += [("eip", state.eip), ("eflags", state.eflags)]
    pairs += [(name, state.seg[i].selector) for i, name in enumerate(SEGMENTS)]
    pairs += [("ldtr", state.ldtr.selector), ("tr", state.tr.selector)]
    pairs += [(name, getattr(state, name)) for name in CONTROLS]
    for name in ("gdtr", "idtr"):
        table = getattr(state, name)
        pairs += [(f"{name} base", table.base), (f"{name} limit", table.limit)]
    pairs += [(f"dr{i}", state.dr[i]) for i in (0, 1, 2, 3, 6, 7)]
    return (*pairs, ("time-stamp offset", state.tsc_offset))


class Recorder:
    """Collects what a run shows. Attach it to the run's board; tell it of events; then `finish`.

    For a machine, bare or virtual, `attach_machine` does all of it: events come from the ring of
    its CPU, which for a virtual machine is the one that delivers on the guest's structures. Events
    that reach a handler by another way are for whoever knows of them to append to `events`.
    """

    def __init__(self) -> None:
        self.accesses: list[Access] = []
        self.events: list[Event] = []
        self.roots: set[int] = set()

    def attach(self, board: Board) -> None:
        """Listen to every access that reaches the board's bus, by the ticks of its clock."""
        bus, clock, log = board.bus, board.clock, self.accesses.append

        def reading(kind: str, read: Callable[[int, int], int]) -> Callable[[int, int], int]:
            def record(address: int, size: int) -> int:
                value = read(address, size)
                log(Access(clock.now, kind, address, size, value))
                return value

            return record

        def writing(
            kind: str, write: Callable[[int, int, int], None]
        ) -> Callable[[int, int, int], None]:
            def record(address: int, size: int, value: int) -> None:
                log(Access(clock.now, kind, address, size, value))
                write(address, size, value)

            return record

        # The bus has no hook: an access that nobody listens to shall cost nothing for it.
        vars(bus).update(
            port_read=reading("in", bus.port_read),
            port_write=writing("out", bus.port_write),
            memory_read=reading("load", bus.memory_read),
            memory_write=writing("store", bus.memory_write),
        )
        self._attach_blocks(board)

    def _attach_blocks(self, board: Board) -> None:
        """Elements that a device took many of at once: each is an access, a tick after another."""
        bus, clock, log = board.bus, board.clock, self.accesses.append
        read_block, write_block = bus.port_read_block, bus.port_write_block

        def note(kind: str, port: int, size: int, data: bytes | memoryview) -> None:
            for n in range(len(data) // size):
                value = int.from_bytes(data[n * size : (n + 1) * size], "little")
                log(Access(clock.now + n, kind, port, size, value))

        def reading(port: int, size: int, count: int) -> bytes:
            data = read_block(port, size, count)
            note("in", port, size, data)
            return data

        def writing(port: int, size: int, data: memoryview) -> int:
            done = write_block(port, size, data)
            note("out", port, size, data[: done * size])
            return done

        vars(bus).update(port_read_block=reading, port_write_block=writing)

    def attach_machine(self, machine: Machine) -> None:
        """Listen to a bare machine's board and events; its -d traces fall silent."""
        self.attach(machine.board)
        machine.set_tracer(TraceKind.EVENT, self)
        machine.watch_apic()

    def event(self, record: Any) -> None:
        """Take a TRACE_EVENT record of the core; others are passed over."""
        if record.kind == TraceKind.EVENT:
            self.events.append(Event.of(record))
            self.roots.add(record.address)

    def render(self, records: Iterable[Any]) -> None:
        """Take records of the core's ring, oldest first (emulator.machine calls this)."""
        for record in records:
            self.event(record)

    def finish(
        self,
        result: Result,
        state: Any,
        pages: Iterable[tuple[int, bytes]],
        code: Iterable[int] = (),
    ) -> Observation:
        """What was seen until now. The recording may go on afterwards.

        state: registers as the guest reads them, as a CPU state of the core. pages: address and
        bytes of guest-physical pages, at least all that are not zero. code: addresses of the pages
        that code was decoded from; only of a native run.
        """
        return Observation(
            tuple(self.accesses),
            tuple(self.events),
            Ending(result.stop.name, result.status, result.ticks, read_registers(state)),
            {address: bytes(page) for address, page in pages if page != _BLANK},
            frozenset({*self.roots, state.cr3}),
            frozenset(code),
        )


class MachineRun:
    """A recorded run of a machine, bare or virtual, that can be observed at any tick."""

    def __init__(
        self, machine: Machine, program: Program | bytes, *, kernel_args: str = ""
    ) -> None:
        """Load the program into a machine that has not run yet."""
        self.machine = machine
        self.recorder = Recorder()
        self.recorder.attach_machine(machine)
        machine.load(program, kernel_args=kernel_args)
        self.result: Result | None = None

    def run(self, max_ticks: int) -> Result:
        """Run on until a tick, or the guest's end."""
        self.result = self.machine.run(max_ticks=max_ticks)
        return self.result

    def observe(self) -> Observation:
        """What was seen until now."""
        machine, result = self.machine, self.result or self.run(0)
        machine.drain_trace()
        pages = dict(machine.memory.pages())
        return self.recorder.finish(result, machine.cpu.state, pages.items(), self.code(pages))

    def code(self, pages: Iterable[int]) -> Iterable[int]:
        """Those of `pages` that code was decoded from; only the bare machine is asked."""
        del pages
        return ()


class NativeRun(MachineRun):
    """A recorded run on the bare machine."""

    def __init__(
        self, program: Program | bytes, *, ram: str | int = "16M", console_in: bytes = b"",
        kernel_args: str = "", **options: Any,
    ) -> None:  # fmt: skip
        """options: further arguments of `emulator.Machine`."""
        machine = Machine(ram=ram, console_in=console_in, **options)
        super().__init__(machine, program, kernel_args=kernel_args)

    def code(self, pages: Iterable[int]) -> Iterable[int]:
        return [page for page in pages if _holds_code(self.machine, page)]


def _holds_code(machine: Machine, page: int) -> bool:
    flags: int = lib.machine_flags(machine.memory.machine, page // PAGE)
    return bool(flags & PageFlag.CODE)


def observe_native(
    program: Program | bytes, *, max_ticks: int = TICKS, **options: Any
) -> Observation:
    """A whole run on the bare machine. options: those of `NativeRun`."""
    run = NativeRun(program, **options)
    run.run(max_ticks)
    return run.observe()
