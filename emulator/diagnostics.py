"""The lines that say why a guest had to be stopped: what, where, and how it came to that.

First one line with vector, EIP, error code and the bytes there; then the symbol and source line if
the program has them; for a triple fault the chain of exceptions. Read result.py for where they go.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.core import Cpu, ExitReason, Fault, Unsupported
from emulator.symbols import Symbols

CODE_BYTES: Final = 8
_UNSUPPORTED_WORDS: Final = {
    "TASK_GATE": "an event or far transfer through a task gate",
    "TASK_SWITCH": "a far transfer to a TSS",
    "NESTED_TASK": "IRET with EFLAGS.NT set",
    "V86": "IRET to virtual-8086 mode",
    "CODE16": "16-bit code",
    "REAL_MODE": "leaving protected mode",
    "FAULT_LOOP": "handlers that fault at their first instruction, without an end",
}


def code_at(cpu: Cpu, eip: int) -> str:
    """The bytes at an offset in the code segment, or that there are none."""
    data = cpu.read_linear(cpu.state.seg[1].base + eip, CODE_BYTES)
    return data.hex(" ") if data else "not mapped"


def place(symbols: Symbols, eip: int) -> tuple[str, ...]:
    """Where in the program an address (EIP) is: no line if nobody knows."""
    where = " ".join(filter(None, (symbols.name(eip), symbols.line(eip))))
    return (f"in {where}",) if where else ()


def name_vector(vector: int) -> str:
    """``#GP (13, general protection)``."""
    from isa.exceptions import EXCEPTIONS  # loaded for guests that die, not for every run

    if vector >= len(EXCEPTIONS):
        return f"interrupt {vector}"
    row = EXCEPTIONS[vector]
    return f"{row.mnemonic} ({vector}, {row.name})" if row.mnemonic else f"{row.name} ({vector})"


def describe_fault(fault: Fault) -> str:
    """One exception: vector, EIP, error code."""
    error = "" if fault.error is None else f", error code {fault.error:#06x}"
    return f"{name_vector(fault.vector)} at eip {fault.eip:#010x}{error}"


def triple_fault(cpu: Cpu, symbols: Symbols) -> tuple[str, tuple[str, ...]]:
    """The line and the details for an EXIT_SHUTDOWN."""
    chain = cpu.faults
    if not chain:
        return f"triple fault at eip {cpu.state.eip:#010x}", place(symbols, cpu.state.eip)
    first = chain[0]
    line = f"triple fault: {describe_fault(first)}, bytes {code_at(cpu, first.eip)}"
    details = [f"then {describe_fault(fault)}" for fault in chain[1:]]
    return line, (*place(symbols, first.eip), *details, "then shutdown")


def unsupported(cpu: Cpu, symbols: Symbols) -> tuple[str, tuple[str, ...]]:
    """The line and the details for an EXIT_UNSUPPORTED."""
    detail = Unsupported(cpu.exit.detail).name
    eip = cpu.state.eip
    what = _UNSUPPORTED_WORDS.get(detail, detail)
    line = f"not in this slice of IA-32: {what}, at eip {eip:#010x}, bytes {code_at(cpu, eip)}"
    return line, place(symbols, eip)


def unhandled(cpu: Cpu, symbols: Symbols) -> tuple[str, tuple[str, ...]]:
    """The line and the details for an exit that the bare machine asks nobody for."""
    record: Any = cpu.exit
    name, eip = ExitReason(record.reason).name.lower(), cpu.state.eip
    return f"nobody handles the exit {name}, at eip {eip:#010x}", place(symbols, eip)
