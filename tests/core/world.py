"""A small machine to run arbitrary code in, in different ways that must make no difference.

`World` has descriptor tables, page tables, a device page, ROM, and a handler for every vector that
steps one byte on and returns: so random code goes on after its faults. `Plan` says how a run is cut
into pieces and what is done at the cuts. Device reads are answered by their number alone, and every
device access is logged one element at a time; so the log, the CPU's state and the memory of two
runs with different plans can be compared byte for byte. Read test_state.py next.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from emulator.core import Cpu, ExitReason, PageFlag, ffi, lib
from emulator.memory import Memory

SIZE: Final = 0x80000
GDT, LDT, IDT, TSS, STUBS = 0x1000, 0x1400, 0x1800, 0x2000, 0x3000
DIRECTORY, LOW_TABLE, HIGH_TABLE = 0x4000, 0x5000, 0x6000
RING_STACKS: Final = (0xA000, 0xB000, 0xC000)
CODE, DATA, DEVICE, ROM = 0x10000, 0x20000, 0x30000, 0x31000
DATA_SIZE: Final = 0x6000
ALIAS: Final = 0x400000  #: linear; with paging on, the low 512 KiB once more
GDT_ENTRIES, LDT_ENTRIES = 32, 16
BITMAP: Final = 0x68

#: Selectors less RPL: code and data of ring n; the entries behind them are for tests.
CODE_OF, DATA_OF = (0x08, 0x18, 0x28, 0x38), (0x10, 0x20, 0x30, 0x40)
TSS_SELECTOR, LDT_SELECTOR, SPARE = 0x48, 0x50, 0x58
HAS_ERROR: Final = frozenset({8, 10, 11, 12, 13, 14, 17})

EFLAGS_IF: Final = 0x200
#: Exits after which the CPU does not go on by itself.
FINAL: Final = frozenset({ExitReason.SHUTDOWN, ExitReason.UNSUPPORTED})
EXITS: Final = 20_000  #: more than any run here may make

_FLAT: Final = 0x00CF_9200_0000_FFFF
_PRESENT, _WRITABLE, _USER, _USED = 1, 2, 4, 0x60


def answer(number: int) -> int:
    """What the device says to the `number`th read."""
    return (number * 0x9E3779B1 ^ number >> 3) & 0xFFFF_FFFF


@dataclass(frozen=True)
class Setup:
    """What a run starts from. Registers by number; `flags` are ORed to the fixed bit."""

    code: bytes
    registers: tuple[int, ...]
    memory: tuple[tuple[int, bytes], ...] = ()
    entry: int = CODE
    flags: int = 0
    ring: int = 0
    paging: bool = False
    cr0: int = 0
    cr4: int = 0
    debug: tuple[tuple[int, int], ...] = ()
    segments: tuple[tuple[int, int], ...] = ()  #: (segment register's number, selector) to load
    interrupts: tuple[int, ...] = ()  #: ticks at which the interrupt line goes up


@dataclass(frozen=True)
class Plan:
    """How a run is cut. `piece` gives the ticks to the next cut, `at_cut` what happens there."""

    name: str
    piece: Callable[[], int]
    at_cut: Callable[[World], None] = lambda world: None
    at_exit: Callable[[World], None] = lambda world: None  #: before an access is answered


@dataclass
class Trail:
    """What a run has shown to the outside, and where it ended."""

    log: list[tuple[Any, ...]] = field(default_factory=list)
    end: str = ""
    state: bytes = b""
    memory: str = ""

    def differences(self, other: Trail) -> list[str]:
        found = [] if self.end == other.end else [f"end: {self.end} != {other.end}"]
        if self.log != other.log:
            found.append(f"log: {_first_difference(self.log, other.log)}")
        found += _state_differences(self.state, other.state)
        if self.memory != other.memory:
            found.append("memory")
        return found


def _first_difference(a: list[Any], b: list[Any]) -> str:
    for i, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return f"entry {i}: {left} != {right}"
    return f"{len(a)} entries != {len(b)}"


def _state_differences(a: bytes, b: bytes) -> list[str]:
    if a == b:
        return []
    one, two = ffi.from_buffer("CpuState *", a), ffi.from_buffer("CpuState *", b)
    found = []
    for name, member in ffi.typeof("CpuState").fields:
        at, size = member.offset, ffi.sizeof(member.type)
        if a[at : at + size] != b[at : at + size]:
            values = [getattr(state, name) for state in (one, two)]
            if member.type.kind == "array" and member.type.item.kind == "primitive":
                values = [[hex(v) for v in array] for array in values]
            found.append(f"{name}: {values[0]} != {values[1]}")
    return found


class World:
    """One machine and CPU, used for one `Setup` after another."""

    def __init__(self) -> None:
        self.memory = Memory(SIZE)
        self.memory.set_flags(range(DEVICE, DEVICE + 0x1000), set_=PageFlag.MMIO)
        self.memory.set_flags(range(ROM, ROM + 0x1000), set_=PageFlag.ROM)
        self.cpu = Cpu(self.memory.machine)
        self.state = self.cpu.state
        self._image = self._tables()

    # -- Layout --------------------------------------------------------------------------------

    def _tables(self) -> bytes:
        image = bytearray(SIZE)
        for ring in range(4):
            data = _FLAT | ring << 45
            struct.pack_into("<QQ", image, GDT + CODE_OF[ring], data | 8 << 40, data)
            if ring < 3:
                selector = DATA_OF[ring] | ring
                struct.pack_into("<II", image, TSS + 4 + ring * 8, RING_STACKS[ring], selector)
        struct.pack_into("<H", image, TSS + 102, BITMAP)
        image[TSS + BITMAP : TSS + BITMAP + 0x21] = b"\x55" * 0x20 + b"\xff"
        struct.pack_into("<Q", image, GDT + TSS_SELECTOR, _system(TSS, 0x3FF, 0x8B))
        struct.pack_into("<Q", image, GDT + LDT_SELECTOR, _system(LDT, LDT_ENTRIES * 8 - 1, 0x82))
        for vector in range(256):
            at = STUBS + vector * 16
            image[at : at + 16] = _stub(vector).ljust(16, b"\x90")
            level = 3 if vector >= 0x20 or vector in (3, 4) else 0
            gate = (at & 0xFFFF) | CODE_OF[0] << 16 | (0x8E | level << 5) << 40
            struct.pack_into("<Q", image, IDT + vector * 8, gate)
        for page in range(SIZE >> 12):
            rights = _PRESENT | _WRITABLE | _USED | (_USER if page >= 0xE else 0)
            for table in (LOW_TABLE, HIGH_TABLE):
                struct.pack_into("<I", image, table + page * 4, page << 12 | rights)
        for i, table in ((0, LOW_TABLE), (ALIAS >> 22, HIGH_TABLE)):
            rights = _PRESENT | _WRITABLE | _USER | _USED
            struct.pack_into("<I", image, DIRECTORY + i * 4, table | rights)
        return bytes(image)

    def load(self, setup: Setup) -> None:
        """Memory and CPU as `setup` says; all the rest as it always begins."""
        lib.machine_flush_blocks(self.memory.machine)
        image = bytearray(self._image)
        image[setup.entry : setup.entry + len(setup.code)] = setup.code
        for address, data in setup.memory:
            image[address : address + len(data)] = data
        assert len(image) == SIZE
        self.memory.set_flags(range(ROM, ROM + 0x1000), clear=PageFlag.ROM)
        self.memory.write(0, bytes(image))
        self.memory.set_flags(range(ROM, ROM + 0x1000), set_=PageFlag.ROM)
        self._load_cpu(setup)

    def _load_cpu(self, setup: Setup) -> None:
        self.cpu.reset()
        state = self.state
        for i, value in enumerate(setup.registers):
            state.gpr[i] = value
        state.eip, state.eflags, state.cpl = setup.entry, setup.flags | 2, setup.ring
        state.gdtr.base, state.gdtr.limit = GDT, GDT_ENTRIES * 8 - 1
        state.idtr.base, state.idtr.limit = IDT, 0x7FF
        state.cr0 |= setup.cr0 | (0x8000_0000 if setup.paging else 0)
        state.cr3, state.cr4 = DIRECTORY, setup.cr4
        for number, value in setup.debug:
            state.dr[number] = value
        chosen = dict.fromkeys(range(6), DATA_OF[setup.ring] | setup.ring)
        chosen[lib.SEG_CS] = CODE_OF[setup.ring] | setup.ring
        for i, selector in (chosen | dict(setup.segments)).items():
            self._load_hidden(state.seg[i], selector)
        self._load_hidden(state.tr, TSS_SELECTOR)
        self._load_hidden(state.ldtr, LDT_SELECTOR)

    def _load_hidden(self, segment: Any, selector: int) -> None:
        value = int.from_bytes(self.memory.read((GDT if not selector & 4 else LDT)
                                                + (selector & ~7), 8), "little")  # fmt: skip
        limit = value & 0xFFFF | (value >> 48 & 15) << 16
        segment.selector, segment.attributes = selector, value >> 40 & 0xF0FF
        segment.base = value >> 16 & 0xFFFFFF | value >> 56 << 24
        segment.limit = limit << 12 | 0xFFF if value >> 55 & 1 else limit

    # -- Running -------------------------------------------------------------------------------

    def run(self, setup: Setup, limit: int, plan: Plan) -> Trail:
        """Run `setup` up to a tick, cut as `plan` says."""
        self.load(setup)
        trail, self.reads, self._pending = Trail(), 0, list(setup.interrupts)
        for _ in range(EXITS):
            if self._advance(limit, plan, trail):
                break
        else:
            trail.end = "too many exits"
        used = self.state.replay_count
        self.state.replay[used : lib.REPLAY_MAX] = [0] * (lib.REPLAY_MAX - used)  # as good as empty
        trail.state = bytes(ffi.buffer(self.state))
        trail.memory = hashlib.sha256(self.memory.read(0, SIZE)).hexdigest()
        return trail

    def _advance(self, limit: int, plan: Plan, trail: Trail) -> bool:
        """One piece; true at the end."""
        state = self.state
        if self._pending and state.tick >= self._pending[0]:
            self._pending.pop(0)
            state.interrupt_line = 1
        until = min(limit, state.tick + plan.piece())
        if self._pending:
            until = min(until, self._pending[0])
        self._until = until
        reason = ExitReason(self.cpu.run(until))
        if reason == ExitReason.DEADLINE:
            plan.at_cut(self)
            return bool(state.tick >= limit)
        return self._serve(reason, plan, trail)

    def _serve(self, reason: Any, plan: Plan, trail: Trail) -> bool:
        if reason in FINAL:
            trail.end = f"{reason.name} {self.cpu.faults if reason == ExitReason.SHUTDOWN else ''}"
            return True
        if reason == ExitReason.HALT:
            trail.log.append(("halt", self.state.tick))
            trail.end = "halt"
            return True
        if reason == ExitReason.INTERRUPT:
            trail.log.append(("interrupt", self.state.tick, self.state.eip))
            self.state.interrupt_line = 0
            again = self.cpu.interrupt(0x21)
            return self._serve(ExitReason(again), plan, trail) if again else False
        if reason == ExitReason.MMIO_WRITE:
            trail.log += [("store", self.state.tick, *write) for write in self.cpu.posted]
            return False
        self._access(reason, plan, trail)
        plan.at_cut(self)  # the answer has to be part of what is saved
        return False

    def _access(self, reason: Any, plan: Plan, trail: Trail) -> None:
        """A port access, or a device's load. `at_exit` may have made the exit come again."""
        plan.at_exit(self)
        record = self.cpu.exit
        if reason == ExitReason.MMIO_READ:
            self.reads += 1
            value = answer(self.reads) & ((1 << record.size * 8) - 1)
            trail.log.append(("load", record.address, record.size, value))
            self.cpu.complete(value)
        elif reason == ExitReason.PORT_READ:
            values = []
            for _ in range(record.count):
                self.reads += 1
                values.append(answer(self.reads) & ((1 << record.size * 8) - 1))
            trail.log += [("in", record.port, record.size, value) for value in values]
            if record.count == 1:
                self.cpu.complete(values[0])
            else:
                data = b"".join(value.to_bytes(record.size, "little") for value in values)
                self.cpu.complete_bytes(data)
        else:
            assert reason == ExitReason.PORT_WRITE, reason
            trail.log += [("out", record.port, record.size, v) for v in self._written(record)]
            self.cpu.complete(0)

    def _written(self, record: Any) -> Iterable[int]:
        if record.count == 1:
            return [record.value]
        data, size = bytes(self.cpu.exit_data[: record.count * record.size]), record.size
        return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]

    # -- What may be done at a cut --------------------------------------------------------------

    def save_and_load(self) -> None:
        """All there is of the CPU goes through the bytes of a snapshot."""
        saved = self.cpu.save()
        self.cpu.reset()
        self.cpu.load(saved)

    def flush_blocks(self) -> None:
        lib.machine_flush_blocks(self.memory.machine)

    def repeat_exit(self) -> None:
        """Save and load before an access is answered: the exit comes again, for the same access.

        In another number of elements perhaps: whether INS may fill memory at once depends on
        whether decoded blocks lie there, and loading a state forgets them. And what the instruction
        had cost until then, it may cost again: that is put right.
        """
        before, cycle = self.cpu.exit, self.state.cycle
        self.save_and_load()
        assert self.cpu.run(self._until) == before.reason
        after, self.state.cycle = self.cpu.exit, cycle
        assert _access(after) == _access(before), f"{after} after {before}"
        assert after == before or after.count != before.count, f"{after} after {before}"


def _access(record: Any) -> tuple[int, ...]:
    return record.reason, record.row, record.length, record.eip, record.port, record.size


def _system(base: int, limit: int, access: int) -> int:
    return limit & 0xFFFF | (base & 0xFFFFFF) << 16 | access << 40 | (base >> 24) << 56


def _stub(vector: int) -> bytes:
    """add esp, 4 (over an error code); inc dword [esp]; iret. Traps and interrupts just return."""
    if vector in (1, 3, 4) or vector >= 0x20:
        return b"\xcf"
    return (b"\x83\xc4\x04" if vector in HAS_ERROR else b"") + b"\xff\x04\x24\xcf"


# -- Plans ----------------------------------------------------------------------------------------

WHOLE: Final = Plan("in one go", lambda: 1 << 40)
SINGLE: Final = Plan("tick by tick", lambda: 1)
SINGLE_SAVED: Final = Plan(
    "saved and loaded at each tick and exit", lambda: 1, World.save_and_load, World.repeat_exit
)


def ragged(seed: int) -> Plan:
    """Pieces of random length; at each cut nothing, a snapshot, or the end of all blocks."""
    rng = Random(seed)
    actions = (lambda world: None, World.save_and_load, World.flush_blocks)
    return Plan(
        f"cut at random (seed {seed})",
        lambda: rng.choice((1, 1, 2, 3, 5, 17, 100)),
        lambda world: rng.choice(actions)(world),
        lambda world: world.repeat_exit() if rng.randrange(2) else None,
    )


def flushed(seed: int) -> Plan:
    rng = Random(seed)
    return Plan(f"blocks flushed (seed {seed})", lambda: rng.randrange(1, 30), World.flush_blocks)
