"""The local APIC as the board sees it: registers on the bus, and where messages end.

What it does is in the core (csrc/apic.c), for it is part of the CPU. On the bare machine the core
serves most accesses without an exit; what does leave, and all of a virtual CPU's, comes over the
bus to here. Read devices/ioapic.py for who sends the messages.
"""

from __future__ import annotations

from typing import Final

from emulator.board import Board
from emulator.bus import PAGE, Claim
from emulator.core import ApicMode, Cpu, lib
from emulator.firmware import LOCAL_APIC

WIDTH: Final = 4


class LocalApic:
    """Connects a CPU's local APIC to a board that has an I/O APIC; the core serves it."""

    def __init__(self, cpu: Cpu, board: Board) -> None:
        self._cpu, self._board = cpu, board
        board.bus.claim_memory(Claim("lapic", LOCAL_APIC, PAGE, self.read, self.write, WIDTH))
        board.on_message = self.receive
        board.on_interrupt = self.set_interrupt
        cpu.set_apic(ApicMode.SERVED)

    @property
    def cpu(self) -> Cpu:
        """The CPU that has the registers now."""
        return self._cpu

    def watch(self) -> None:
        """Have all accesses go over the bus from now on."""
        self._cpu.set_apic(ApicMode.BUS)

    def read(self, address: int, size: int) -> int:
        """A load, by machine address."""
        value: int = lib.cpu_apic_read(self.cpu.pointer, address, size)
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """A store, by machine address; the I/O APIC hears of the end of a level's interrupt."""
        ended = lib.cpu_apic_write(self.cpu.pointer, address, size, value)
        if ended >= 0 and self._board.ioapic is not None:
            self._board.ioapic.end_of_interrupt(ended)

    def receive(self, destination: int, logical: bool, mode: int, vector: int, level: bool) -> bool:
        """A message from the I/O APIC; whether this CPU is meant."""
        pointer = self.cpu.pointer
        return bool(lib.cpu_apic_message(pointer, destination, logical, mode, vector, level))

    def set_interrupt(self, level: bool) -> None:
        """Drive its LINT0 pin: the 8259s' output."""
        self.cpu.set_interrupt(level)
