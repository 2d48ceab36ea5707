"""The -d traces: what the core recorded, as QEMU would print it.

`in_asm` lists each block when it is first decoded, `exec` names each block that runs, `int` each
event delivered. The core writes records to a ring (csrc/api.h, TraceRecord); this renders them. An
event's registers are those at its delivery. Read machine.py for who drains the ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from emulator.core import EventKind, TraceKind
from emulator.errors import MachineError
from emulator.symbols import Symbols
from isa.disassembler import disassemble

#: The words of -d that the bare machine knows.
KINDS: Final = {"in_asm": TraceKind.BLOCK, "exec": TraceKind.EXEC, "int": TraceKind.EVENT}
CHUNK: Final = 1024


def parse_kinds(text: str) -> int:
    """Bits of `TraceKind` for a list such as ``in_asm,int``; MachineError names what is unknown."""
    bits = 0
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word not in KINDS:
            raise MachineError(f"trace {word!r}: expected {', '.join(KINDS)}")
        bits |= KINDS[word]
    return bits


class Tracer:
    """Renders records to `out`, a line at a time."""

    def __init__(
        self,
        out: Callable[[str], object],
        read: Callable[[int, int], bytes],
        symbols: Callable[[], Symbols],
    ) -> None:
        self._out = out
        self._read = read  #: (machine address, size) -> bytes
        self._symbols = symbols  #: they may change with the program
        self._events = 0

    def render(self, records: Iterable[Any]) -> None:
        """Print records of the core's ring, oldest first."""
        for record in records:
            if record.kind == TraceKind.BLOCK:
                self._block(record)
            elif record.kind == TraceKind.EXEC:
                name = self._symbols().name(record.eip)
                self._out(f"Trace [{record.eip:08x}] tick={record.tick} {name}".rstrip() + "\n")
            else:
                self._event(record)

    def _block(self, record: Any) -> None:
        name = self._symbols().name(record.eip)
        self._out(f"----------------\nIN: {name}".rstrip() + "\n")
        for line in disassemble(self._read(record.address, record.length), record.eip):
            self._out(f"0x{line.address:08x}:  {line.bytes.hex(' '):24s} {line.text}\n")
        self._out("\n")

    def _event(self, record: Any) -> None:
        error = record.error if record.has_error else 0
        words = [
            f"{self._events:6d}: v={record.vector:02x} e={error:04x}",
            f"i={int(record.event_kind == EventKind.SOFTWARE)} cpl={record.cs & 3}",
            f"IP={record.cs:04x}:{record.eip:08x} ESP={record.esp:08x}",
            f"EFL={record.eflags:08x} CR2={record.cr2:08x} tick={record.tick}",
        ]
        self._events += 1
        self._out(" ".join(words) + "\n")
