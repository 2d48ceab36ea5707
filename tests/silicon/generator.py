"""Seeded single-instruction cases over every row of the table, for silicon and our core alike.

`isa/sampling.py` makes the instructions; this makes the state around them: where the operands lie,
what is in them, which segments they go through. Most instructions are meant to succeed, so their
pointers are worked out backwards from a place in the data pages. The rest is meant to fail in every
way user mode can: page ends, segment limits, bad selectors, bad encodings.

One seed gives one sequence, for ever: a plain random.Random, because a million cases must take
minutes. Cases come in groups that share an LDT, which is costly to install. Next: compare.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from isa.decoder import Instruction, decode
from isa.errors import DecodeError
from isa.operands import FarPointer, Memory
from isa.row import Row
from isa.sampling import INTERESTING, random_instruction, random_value
from isa.table import ROWS
from tests.oracles.case import (
    AC,
    AF,
    AREA,
    CF,
    CODE,
    CS,
    DATA,
    DF,
    EAX,
    EBP,
    EBX,
    ECX,
    EDX,
    ES,
    ESP,
    FLAGS_AT_START,
    FLAT,
    FS,
    GS,
    ID,
    LOW,
    OF,
    PAGE,
    PF,
    SF,
    SS,
    USER_CS,
    USER_DS,
    ZF,
    Case,
    Descriptor,
    Kind,
    ldt_selector,
)
from tests.oracles.deviations import never_asked
from tests.silicon.oracle import enters_kernel

MASK: Final = 0xFFFFFFFF
GROUP: Final = 256
"""Cases that share an LDT."""

_ARITHMETIC: Final = (CF, PF, AF, ZF, SF, OF)
_LOADS_SEGMENTS: Final = frozenset({"Sw", "ES", "SS", "DS", "FS", "GS"})
_STRING_KINDS: Final = frozenset("XY")
_SELECTOR_OPERANDS: Final = frozenset({"mov", "lar", "lsl", "verr", "verw", "lldt", "ltr"})
#: Rows whose register form is another, later instruction: VMCALL and its like, EVEX, VEX.
_REGISTER_FORM_TAKEN: Final = frozenset({(True, 0x01), (False, 0x62), (False, 0xC4), (False, 0xC5)})
#: Opcodes that a repeat prefix, reserved there, makes into something else: PAUSE, XACQUIRE MOV, and
#: on AMD LOOPZ of LOOPNZ and the other way round.
_REPEAT_TAKEN: Final = frozenset({0x90, 0xC6, 0xC7, 0xE0, 0xE1})


@dataclass(frozen=True, slots=True)
class Sample:
    """A case and the row it was made for."""

    row: Row
    case: Case


def asked_rows() -> tuple[Row, ...]:
    """The rows that user mode on silicon can be asked about, the privileged ones for their #GP."""
    return tuple(row for row in ROWS if not never_asked(row))


def descriptors(rng: Random) -> tuple[Descriptor | None, ...]:
    """An LDT: every kind of segment once, about the data pages, and some at random."""
    edge = DATA + rng.randrange(AREA)
    fixed: list[Descriptor | None] = [
        Descriptor(DATA, 0x1FFF, pages=False),
        Descriptor(DATA, rng.randrange(AREA), pages=False),
        Descriptor(0, edge >> 12, Kind.EXPAND_DOWN),
        Descriptor(0, edge & 0xFFFFF, Kind.EXPAND_DOWN, pages=False),
        Descriptor(DATA, rng.randrange(AREA), Kind.EXPAND_DOWN, big=False, pages=False),
        Descriptor(DATA, 0xFFFF, big=False, pages=False),
        Descriptor((DATA + rng.randrange(PAGE)), 0xFFFFF, big=False),
        Descriptor(accessible=False),
        Descriptor(DATA, rng.randrange(AREA), accessible=False, pages=False),
        Descriptor(DATA, kind=Kind.CODE),
        Descriptor(kind=Kind.CODE, accessible=False),
        Descriptor(CODE, 0x1FFF, Kind.CODE, pages=False),
        Descriptor(CODE - 0x1000, 0x1000 + rng.randrange(0x700, 0x900), Kind.CODE, pages=False),
        Descriptor(present=False),
        Descriptor(kind=Kind.CODE, present=False),
        Descriptor(kind=Kind.CONFORMING, present=False),
        Descriptor(DATA + PAGE - 0x10000000 & MASK),
        Descriptor(rng.getrandbits(32), rng.getrandbits(20), pages=bool(rng.getrandbits(1))),
        Descriptor(DATA - 16, rng.choice((0, 1, 14, 15, 16, 17, 30)), pages=False),
        None,
    ]
    rng.shuffle(fixed)
    return tuple(fixed)


class Generator:
    """The sequence of one seed."""

    def __init__(self, seed: int, rows: Sequence[Row] | None = None) -> None:
        """`rows`: what to draw from, one after another; all that can be asked if None."""
        self._rng = Random(seed)
        self._rows = tuple(rows if rows is not None else asked_rows())
        self._pool = self._make_pool()
        self._ldt: tuple[Descriptor | None, ...] = ()
        self._next = 0

    def _make_pool(self) -> bytes:
        """Memory contents to take slices of: noise, zeros, and values at the edges."""
        pool = bytearray()
        while len(pool) < 8 * AREA:
            kind = self._rng.getrandbits(2)
            if kind == 0:
                pool += bytes(self._rng.randrange(64))
            elif kind == 1:
                pool += self._rng.randbytes(self._rng.randrange(256))
            else:
                pool += self._rng.choice(INTERESTING).to_bytes(4, "little")
        return bytes(pool)

    def groups(self, count: int) -> Iterator[list[Sample]]:
        """`count` samples, in lists that share an LDT."""
        while count > 0:
            self._ldt = descriptors(self._rng)
            size = min(count, GROUP)
            yield [self._sample() for _ in range(size)]
            count -= size

    def _sample(self) -> Sample:
        row = self._rows[self._next]
        self._next = (self._next + 1) % len(self._rows)
        case = _Draft(self._rng, row, self._ldt, self._pool).case()
        while enters_kernel(case.code):
            case = _Draft(self._rng, row, self._ldt, self._pool).case()
        return Sample(row, case)


class _Draft:
    """One case in the making."""

    def __init__(
        self, rng: Random, row: Row, ldt: tuple[Descriptor | None, ...], pool: bytes
    ) -> None:
        self.rng, self.row, self.ldt = rng, row, ldt
        self.code = random_instruction(rng, row)
        self.registers = [self._value() for _ in range(8)]
        self.memory = self._memory(pool)
        self.selectors = FLAT if rng.getrandbits(2) else self._selectors()
        self.instruction: Instruction = decode(self.code)

    def _value(self) -> int:
        kind = self.rng.getrandbits(3)
        if kind == 0:
            return self.rng.getrandbits(6)
        if kind == 1:
            return DATA + self.rng.randrange(AREA)
        return random_value(self.rng, 32)

    def _memory(self, pool: bytes) -> bytearray:
        start = self.rng.randrange(len(pool) - AREA)
        return bytearray(pool[start : start + AREA])

    def case(self) -> Case:
        rng = self.rng
        self._aim_stack()
        for operand in self.instruction.operands:
            if isinstance(operand, Memory):
                self._aim(operand)
        self._set_counts()
        self._set_inputs()
        code, steps = self.code, 1
        if not _LOADS_SEGMENTS.isdisjoint(self.row.operands) or self.row.mnemonic == "lss":
            code += b"\x90"  # for the instruction that a load of SS lets run before the trap
        if not self.row.ends and self.row.privilege == "":
            steps = rng.choice((0, 0, 1, 2, 3) if self.row.rep else (0, 1))
        if rng.getrandbits(6) == 0:
            code = self._spoil(code)
        code, address = self._place(code)
        return Case(
            code,
            tuple(self.registers),
            self._eflags(),
            bytes(self.memory),
            self.selectors,
            self.ldt,
            address,
            steps,
        )

    def _eflags(self) -> int:
        bits = self.rng.getrandbits(16)
        flags = FLAGS_AT_START
        for number, flag in enumerate(_ARITHMETIC):
            if bits >> number & 1:
                flags |= flag
        if bits >> 6 & 3 == 0:
            flags |= DF
        if bits >> 8 & 15 == 0:
            flags |= AC
        if bits >> 12 & 15 == 0:
            flags |= ID
        return flags

    # -- Segments ----------------------------------------------------------------------------------

    def _selectors(self) -> tuple[int, ...]:
        """Selectors that a program may start with, most of them from the LDT."""
        chosen = list(FLAT)
        data = [i for i, d in enumerate(self.ldt) if d and d.present and _readable(d)]
        stack = [i for i in data if _writable(self.ldt[i])]
        code = [i for i, d in enumerate(self.ldt) if d and d.present and d.kind is Kind.CODE]
        for register in (ES, SS, 3, FS, GS):
            kind = self.rng.getrandbits(3)
            if kind < 5:
                chosen[register] = ldt_selector(self.rng.choice(stack if register == SS else data))
            elif kind == 5 and register != SS:
                chosen[register] = 0
        if self.rng.getrandbits(3) == 0:
            around = [i for i in code if _covers(self.ldt[i], CODE + 0x800)]
            chosen[CS] = ldt_selector(self.rng.choice(around))
        return tuple(chosen)

    def _descriptor(self, segment: int) -> Descriptor | None:
        """The LDT descriptor behind a segment register; None for flat or null."""
        selector = self.selectors[segment]
        return self.ldt[selector >> 3] if selector & 4 else None

    def _any_selector(self) -> int:
        """A selector to load. The host's own descriptors beyond the flat ones are left alone."""
        rng = self.rng
        if rng.getrandbits(1):
            fit = [i for i, descriptor in enumerate(self.ldt) if self._fits(descriptor)]
            return ldt_selector(rng.choice(fit))
        kind = rng.getrandbits(4)
        if kind < 11:
            return rng.randrange(len(self.ldt)) << 3 | 4 | (3 if kind < 8 else rng.getrandbits(2))
        if kind < 14:
            return rng.choice((0, 1, 2, 3, USER_DS, USER_CS, USER_DS & ~3, USER_CS & ~3))
        return rng.choice((0x08, 0x10, 0x18, 0x1B, 0x104, 0x107, 0x80, 0xFFF8, 0xFFFF))

    def _fits(self, descriptor: Descriptor | None) -> bool:
        """Whether the instruction could load the descriptor into the register that it loads."""
        if descriptor is None or not descriptor.present:
            return False
        if self.row.cost == "far" or self.row.mnemonic == "iret":
            return descriptor.kind is Kind.CODE
        if "SS" in self.row.operands or self.row.mnemonic == "lss":
            return _writable(descriptor)
        return _readable(descriptor)

    # -- Addresses ---------------------------------------------------------------------------------

    def _target(self, segment: int, bits: int) -> int:
        """An offset in `segment` (of `bits` bits) worth an access."""
        rng = self.rng
        descriptor = self._descriptor(segment)
        kind = rng.getrandbits(4)
        if descriptor is not None and kind < 4:
            first, last = descriptor.offsets()
            edge = rng.choice((first, last, last + 1 - (1 << rng.getrandbits(2))))
            return edge + rng.randrange(-4, 4) & ((1 << bits) - 1)
        base = descriptor.base if descriptor else 0
        area = LOW if bits == 16 and base == 0 else DATA
        if kind < 11:
            linear = area + rng.randrange(16, AREA - 64)
            linear &= ~(rng.getrandbits(2))
        elif kind == 11:
            linear = area + PAGE - rng.randrange(9)
        elif kind == 12:
            linear = area + AREA - rng.randrange(17)
        elif kind == 13:
            linear = area - rng.randrange(-8, 9)
        elif kind == 14:
            linear = CODE + rng.randrange(AREA)
        else:
            linear = rng.choice((LOW + rng.randrange(AREA), random_value(rng, 32)))
        return linear - base & ((1 << bits) - 1)

    def _stack_bits(self) -> int:
        descriptor = self._descriptor(SS)
        return 16 if descriptor is not None and not descriptor.big else 32

    def _aim_stack(self) -> None:
        bits = self._stack_bits()
        for register in (ESP, EBP):
            offset = self._target(SS, bits)
            self._set(register, offset, bits)

    def _set(self, register: int, value: int, bits: int) -> None:
        high = self.registers[register] & ~((1 << bits) - 1)
        self.registers[register] = high | value & ((1 << bits) - 1)

    def _aim(self, operand: Memory) -> None:
        """Give the registers or the displacement of a memory operand values that hit a target."""
        bits = operand.address_size
        target = self._target(operand.effective_segment, bits)
        base, index, scale = operand.base, operand.index, operand.scale
        if base is None and index is None:
            self._patch_displacement(operand, target)
            return
        rest = target - operand.displacement
        if base is None:
            assert index is not None
            self._set(index, (rest & MASK) // scale, bits)
        elif base == index:
            self._set(base, (rest & MASK) // (1 + scale), bits)
        else:
            if index is not None and self.rng.getrandbits(1):
                self._set(index, self.rng.getrandbits(4), bits)
            offset = self.registers[index] * scale if index is not None else 0
            self._set(base, rest - offset, bits)

    def _patch_displacement(self, operand: Memory, target: int) -> None:
        size = operand.address_size // 8
        sizes = {"ib": 1, "iw": 2, "iz": self.instruction.operand_size // 8}
        end = len(self.code) - sum(sizes[t] for t in self.row.parsed.immediates if t in sizes)
        self.code = self.code[: end - size] + target.to_bytes(size, "little") + self.code[end:]
        self.instruction = decode(self.code)

    def _linear(self, operand: Memory) -> int:
        """Where a memory operand lies."""
        bits = operand.address_size
        offset = operand.displacement
        if operand.base is not None:
            offset += self.registers[operand.base]
        if operand.index is not None:
            offset += self.registers[operand.index] * operand.scale
        descriptor = self._descriptor(operand.effective_segment)
        return (offset & ((1 << bits) - 1)) + (descriptor.base if descriptor else 0) & MASK

    def _poke(self, linear: int, value: bytes) -> None:
        """Put bytes into the data pages, if `linear` is there."""
        offset = linear - (LOW if linear < CODE else DATA)
        if 0 <= offset <= AREA - len(value):
            self.memory[offset : offset + len(value)] = value

    # -- Inputs ------------------------------------------------------------------------------------

    def _set_counts(self) -> None:
        row, rng = self.row, self.rng
        if row.rep and rng.getrandbits(3):
            self.registers[ECX] = rng.choice((0, 1, 1, 2, 3, 5, rng.getrandbits(6)))
        elif "CL" in row.operands and rng.getrandbits(1):
            self._set(ECX, rng.getrandbits(6), 8)
        elif row.cost == "div" and rng.getrandbits(1):
            self.registers[EDX] = rng.choice((0, 1, MASK, rng.getrandbits(8)))
            self.registers[EAX] = random_value(rng, 16)
        elif row.cost == "load" and not row.operands:  # xlat
            self._set(EBX, self._target(3, self.instruction.address_size) - 64, 32)

    def _set_inputs(self) -> None:
        """Give selectors, far pointers and bit offsets values that mean something."""
        row, rng = self.row, self.rng
        operands = self.instruction.operands
        if row.mnemonic in ("bt", "bts", "btr", "btc") and row.operands[1] == "Gv":
            if rng.getrandbits(2):
                number = row_register(self.instruction, 1)
                self._set(number, rng.randrange(-128, 128), 32)
        elif row.mnemonic in ("retf", "iret") or row.title.startswith("pop into a segment"):
            self._push_frame()
        elif any(isinstance(operand, FarPointer) for operand in operands):
            size = self.instruction.operand_size // 8
            self.code = self.code[: -2 - size] + self._far_pointer(size)
        elif "Mp" in row.operands:
            size = self.instruction.operand_size // 8
            pointer = next(o for o in operands if isinstance(o, Memory))
            self._poke(self._linear(pointer), self._far_pointer(size))
        elif row.mnemonic in _SELECTOR_OPERANDS and "Ew" in row.operands:
            operand_at = row.operands.index("Ew")
            source = operands[operand_at]
            if isinstance(source, Memory):
                self._poke(self._linear(source), self._any_selector().to_bytes(2, "little"))
            else:
                self._set(row_register(self.instruction, operand_at), self._any_selector(), 16)
        elif row.mnemonic == "enter" and rng.getrandbits(2):
            self.code = self.code[:-3] + bytes((rng.getrandbits(6), 0, rng.getrandbits(3)))
        elif row.mnemonic == "bound" and rng.getrandbits(1):
            size = self.instruction.operand_size // 8
            array = next(o for o in operands if isinstance(o, Memory))
            bounds = (1 << 8 * size - 1).to_bytes(size, "little"), b"\xff" * (size - 1) + b"\x7f"
            self._poke(self._linear(array), b"".join(bounds))
        elif rng.getrandbits(1):
            for operand in operands:
                if isinstance(operand, Memory):
                    value = random_value(rng, 32).to_bytes(4, "little")
                    self._poke(self._linear(operand), value * rng.choice((1, 2)))

    def _code_offset(self) -> int:
        if self.rng.getrandbits(2):
            return self.rng.choice((0, CODE, CODE - 0x1000)) + self.rng.randrange(AREA)
        return random_value(self.rng, 32)

    def _far_pointer(self, size: int) -> bytes:
        offset = self._code_offset() & ((1 << 8 * size) - 1)
        return offset.to_bytes(size, "little") + self._any_selector().to_bytes(2, "little")

    def _push_frame(self) -> None:
        """What a return or a segment pop takes: [offset] selector [EFLAGS]."""
        size = self.instruction.operand_size // 8
        frame = self._any_selector().to_bytes(size, "little")
        if self.row.mnemonic in ("retf", "iret"):
            offset = self._code_offset() & ((1 << 8 * size) - 1)
            frame = offset.to_bytes(size, "little") + frame
            frame += (self.rng.getrandbits(32) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        descriptor = self._descriptor(SS)
        base = descriptor.base if descriptor else 0
        self._poke(base + (self.registers[ESP] & ((1 << self._stack_bits()) - 1)) & MASK, frame)

    # -- Encodings ---------------------------------------------------------------------------------

    def _spoil(self, code: bytes) -> bytes:
        """A bad or odd encoding of the same instruction, where there is a safe one."""
        rng, parsed = self.rng, self.row.parsed
        kind = rng.getrandbits(2)
        if kind == 0:
            if "C" in {code[0] for code in self.row.operands}:
                return code  # AMD reads LOCK MOV CR0 as a move to CR8
            return code if never_asked(self.row, locked=True) else b"\xf0" + code
        if kind == 1:  # no size prefix that was not there: the length would be another
            prefixes = self.instruction.prefixes
            again = (0x36, 0x3E, prefixes.operand_size and 0x66, prefixes.address_size and 0x67)
            return bytes([rng.choice(again) or 0x26]) * rng.choice((1, 2, 14)) + code
        if kind == 2 and not (parsed.two_byte or self.row.rep or parsed.byte in _REPEAT_TAKEN):
            return rng.choice((b"\xf2", b"\xf3")) + code
        taken = (parsed.two_byte, parsed.byte) in _REGISTER_FORM_TAKEN
        if self.row.memory_only and not taken and not self.instruction.prefixes.count:
            at = 2 if parsed.two_byte else 1
            return code[:at] + bytes([code[at] | 0xC0]) + code[at + 1 :]
        return code

    def _place(self, code: bytes) -> tuple[bytes, int]:
        """Where the code lies: seldom across a page boundary, or running into a guard page."""
        kind = self.rng.getrandbits(6)
        if self.selectors[CS] == USER_CS:
            if kind < 4:
                return code, CODE + PAGE - self.rng.randrange(len(code) + 1)
            if kind == 4:
                kept = self.rng.randrange(1, len(code) + 1)
                return code[:kept], CODE + AREA - kept
        return code, CODE + 0x800


def row_register(instruction: Instruction, operand: int) -> int:
    """The number of the 16- or 32-bit general register that an operand is."""
    register = instruction.operands[operand]
    assert not isinstance(register, Memory)
    return int(getattr(register, "number"))  # noqa: B009


def _readable(descriptor: Descriptor) -> bool:
    return descriptor.kind < Kind.CODE or descriptor.accessible


def _writable(descriptor: Descriptor | None) -> bool:
    return descriptor is not None and descriptor.kind < Kind.CODE and descriptor.accessible


def _covers(descriptor: Descriptor | None, linear: int) -> bool:
    if descriptor is None:
        return False
    first, last = descriptor.offsets()
    return first <= (linear - descriptor.base & MASK) <= last


__all__ = ["GROUP", "DecodeError", "Generator", "Sample", "asked_rows", "descriptors"]
