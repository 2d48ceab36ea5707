"""Seeded straight-line programs, for what single instructions cannot show: lazy flags and blocks.

A program is a handful of user-mode instructions with an occasional forward jump over one of them.
It runs freely, in flat segments, up to the INT3 behind it or to its first fault. ESP, EBP, ESI and
EDI stay pointers into the data pages, so most memory operands succeed; the other registers hold
what the program makes of them.

What an instruction leaves undefined must not be read by the next one, so the generator follows the
undefined flags through the program and refuses instructions that would read one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from isa.decoder import Instruction, decode
from isa.operands import Memory, Register
from isa.row import Row
from isa.sampling import random_instruction, random_value, user_rows
from isa.table import ROWS
from tests.oracles.case import AREA, CODE, CS, DATA, FLAGS_AT_START, FS, GS, PAGE, Case, Outcome
from tests.oracles.deviations import never_asked
from tests.silicon.compare import flag_mask

ADDRESS: Final = CODE + 0x400
POINTERS: Final = (4, 5, 6, 7)  # ESP EBP ESI EDI
#: Rows that would spoil the pointers, or that fault more often than not.
_UNFIT: Final = frozenset({"popa", "leave", "enter", "bound", "xlat", "div", "idiv", "aam"})
_JUMPS: Final = tuple(row for row in ROWS if row.mnemonic == "jcc" and row.operands == ("Jb",))
_STATUS: Final = 0x8D5


@dataclass(frozen=True, slots=True)
class Program:
    """A case of several instructions."""

    rows: tuple[Row, ...]
    case: Case
    undefined_at: dict[int, int]
    """EIP of each instruction, and of the INT3 behind them -> EFLAGS bits undefined there."""
    locked: tuple[bool, ...]
    """Which of the instructions have a LOCK prefix."""

    def unasked(self, oracle: str) -> str:
        """Why an oracle is not asked about this program; empty if it is."""
        for row, locked in zip(self.rows, self.locked, strict=True):
            reason = never_asked(row, oracle, locked)
            if reason:
                return reason
        return ""

    def undefined_after(self, outcome: Outcome) -> int:
        """The EFLAGS bits that an outcome of this program leaves undefined."""
        at = outcome.eip
        if outcome.fault is not None and outcome.fault.vector == 3:
            at -= 1
        return self.undefined_at.get(at, 0)


def program_rows() -> tuple[Row, ...]:
    """The rows programs are made of."""
    return tuple(
        row
        for row in user_rows()
        if not (row.mnemonic in _UNFIT or _spoils(row) or never_asked(row))
    )


def _spoils(row: Row) -> bool:
    """A row whose destination may be undefined: no register may be from then on."""
    return any("*" in entry.what and entry.condition == "source=0" for entry in row.undefined)


class _Writer:
    """One program in the making."""

    def __init__(self, rng: Random, rows: tuple[Row, ...], length: int) -> None:
        self.rng, self.rows = rng, rows
        self.code = b""
        self.rows_taken: list[Row] = []
        self.locked: list[bool] = []
        self.undefined = 0
        self.undefined_at: dict[int, int] = {}
        while len(self.rows_taken) < length:
            if rng.getrandbits(3):
                instruction, code = self._draw()
                self._append(instruction.row, code, instruction.prefixes.lock)
            else:
                self._append_jump()
        self.undefined_at[ADDRESS + len(self.code)] = self.undefined

    def _draw(self) -> tuple[Instruction, bytes]:
        """An instruction that fits here."""
        while True:
            row = self.rows[self.rng.randrange(len(self.rows))]
            if flag_mask(row.reads) & self.undefined:
                continue
            code = random_instruction(self.rng, row, address_16=False)
            instruction = decode(code)
            if _fits(instruction):
                return instruction, self._steer(instruction)

    def _steer(self, instruction: Instruction) -> bytes:
        """Replace a memory operand by one about a pointer, or by a plain address."""
        code, row = instruction.bytes, instruction.row
        if not row.parsed.modrm:
            return code
        at = instruction.prefixes.count + (2 if row.parsed.two_byte else 1)
        if code[at] >= 0xC0:
            return code
        tail = sum({"ib": 1, "iw": 2, "iz": instruction.operand_size // 8}[t]
                   for t in row.parsed.immediates)  # fmt: skip
        immediate = code[len(code) - tail :]
        reg = code[at] & 0x38
        displacement = self.rng.randrange(-128, 128) & 0xFF
        kind = self.rng.getrandbits(2)
        if kind == 0:
            address = DATA + self.rng.randrange(AREA - 4)
            place = bytes([reg | 5]) + address.to_bytes(4, "little")
        elif kind == 1:
            place = bytes([0x44 | reg, 0x24, displacement])
        else:
            place = bytes([0x40 | reg | self.rng.randrange(5, 8), displacement])
        return code[:at] + place + immediate

    def _append(self, row: Row, code: bytes, locked: bool) -> None:
        self.undefined_at[ADDRESS + len(self.code)] = self.undefined
        self.code += code
        self.rows_taken.append(row)
        self.locked.append(locked)
        always = flag_mask(row.writes) & ~flag_mask(row.reads)
        undefined = 0
        for entry in row.undefined:
            undefined |= flag_mask(entry.what)
        self.undefined = self.undefined & ~always | undefined

    def _append_jump(self) -> None:
        """A jump, taken or not, over the next instruction."""
        jump = self.rng.choice(_JUMPS)
        if self.undefined & _STATUS:
            return
        condition = self.rng.getrandbits(4)
        self._append(jump, b"", False)
        instruction, code = self._draw()
        self.code += bytes([0x70 | condition, len(code)])
        before = self.undefined
        self._append(instruction.row, code, instruction.prefixes.lock)
        self.undefined |= before


def _fits(instruction: Instruction) -> bool:
    """False for writes to a pointer, undefined destinations, repeats and unwritable segments."""
    prefixes = instruction.prefixes
    if prefixes.repeat is not None and instruction.row.rep:
        return False
    if prefixes.segment in (CS, FS, GS):
        return False
    if instruction.operand_size == 16 and any("*" in u.what for u in instruction.row.undefined):
        return False
    for operand, access in zip(instruction.operands, instruction.row.access, strict=True):
        if isinstance(operand, Register) and operand.size != 8:
            if operand.number in POINTERS and access in "wuc":
                return False
        elif isinstance(operand, Memory) and instruction.row.operands[-1] == "Gv" and access == "c":
            return False  # BT and its like with a register: a bit anywhere in memory
    return "mo" not in instruction.row.parsed.immediates  # a plain offset cannot be steered


def programs(seed: int, count: int, longest: int = 24) -> Iterator[Program]:
    """`count` programs of one seed."""
    rng = Random(seed)
    rows = program_rows()
    for _ in range(count):
        writer = _Writer(rng, rows, rng.randrange(2, longest + 1))
        registers = [random_value(rng, 32) for _ in range(8)]
        for pointer in POINTERS:
            registers[pointer] = DATA + PAGE + rng.randrange(-0x800, 0x800)
        eflags = FLAGS_AT_START | rng.getrandbits(12) & _STATUS | (rng.getrandbits(2) == 0) << 10
        memory = rng.randbytes(AREA)
        case = Case(writer.code, tuple(registers), eflags, memory, address=ADDRESS, steps=0)
        yield Program(tuple(writer.rows_taken), case, writer.undefined_at, tuple(writer.locked))
