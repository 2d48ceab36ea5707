"""What a PC's firmware leaves in memory: its data area; on an `apic` machine the MP tables, too.

Kernels look there before they know anything else: for the end of conventional memory, for COM1's
port, for how many CPUs there are and which pin of the I/O APIC a line is wired to. No code of the
firmware is left, and no real mode to call it in. Sources: Intel MultiProcessor Specification 1.4,
chapter 4; Ralf Brown's memory list for segment 0x40. Read loader.py next.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from emulator.core import lib
from emulator.devices.ioapic import BASE as IO_APIC
from emulator.devices.ioapic import EXTINT_PIN, FIRMWARE_ID, PIN_OF_LINE, VERSION
from emulator.devices.pic import CASCADE
from emulator.devices.uart import COM1
from emulator.elf import Segment
from emulator.memory import HOLE, ROM

LOCAL_APIC: Final[int] = lib.APIC_BASE
LOCAL_VERSION: Final = 0x14
BIOS_DATA: Final = 0x400
EXTENDED_DATA: Final = 0x9FC00  #: the last KiB of conventional memory
USABLE, RESERVED = 1, 2  #: kinds of areas of the memory map
CONVENTIONAL_KIB: Final = 639
ROM_AREA: Final = range(0xF0000, HOLE.stop)  #: where a PC's firmware itself is
COLOUR_80X25: Final = 0x20  #: equipment word: the video mode at start
TEXT_MODE: Final = 3
CRTC_PORT: Final = 0x3D4

# MP Specification 1.4, table 4-3 and after: types of entries, of interrupts, and flags.
PROCESSOR, BUS, IO_APIC_ENTRY, IO_INTERRUPT, LOCAL_INTERRUPT = range(5)
INT, NMI, SMI, EXTINT = range(4)
ENABLED, BOOTSTRAP = 1, 2
ISA_BUS: Final = 0
LINES: Final = 16
ALL_CPUS: Final = 0xFF


def segments(*, apic: bool) -> list[Segment]:
    """What is in memory before anything is loaded. apic: whether there are APICs to tell of."""
    data = bytearray(0x100)
    for offset, form, value in (
        (0x00, "<H", COM1),
        (0x0E, "<H", EXTENDED_DATA >> 4),
        (0x10, "<H", COLOUR_80X25 | 1 << 9),  # one serial port
        (0x13, "<H", CONVENTIONAL_KIB),
        (0x49, "<B", TEXT_MODE),
        (0x4A, "<H", 80),
        (0x4C, "<H", 4000),
        (0x63, "<H", CRTC_PORT),
        (0x84, "<B", 24),
        (0x85, "<H", 16),
    ):
        struct.pack_into(form, data, offset, value)
    # The first byte of the extended area: its size in KiB.
    found = [Segment(BIOS_DATA, bytes(data), len(data)), Segment(EXTENDED_DATA, b"\1", 1)]
    if apic:
        tables = mp_tables(ROM.start)
        found.append(Segment(ROM.start, tables, len(tables)))
    return found


def memory_map(ram: int) -> list[tuple[int, int, int]]:
    """Areas of physical memory, as BIOS function E820 tells them: start, end, kind."""
    return [
        (0, EXTENDED_DATA, USABLE),
        (EXTENDED_DATA, HOLE.start, RESERVED),
        (ROM_AREA.start, ROM_AREA.stop, RESERVED),
        (HOLE.stop, ram, USABLE),
    ]


def mp_tables(address: int) -> bytes:
    """The floating pointer, to lie at `address`, and the configuration table behind it."""
    pointer = struct.pack("<4sIBBBBBBBB", b"_MP_", address + 16, 1, 4, 0, 0, 0, 0, 0, 0)
    return _with_checksum(pointer, 10) + _configuration()


def _configuration() -> bytes:
    entries = _entries()
    length = 44 + sum(map(len, entries))
    header = struct.pack(
        "<4sHBB8s12sIHHIHBB",
        b"PCMP", length, 4, 0, b"SEVNTEEN", b"APIC MACHINE",
        0, 0, len(entries), LOCAL_APIC, 0, 0, 0,
    )  # fmt: skip
    return _with_checksum(header + b"".join(entries), 7)


def _entries() -> Sequence[bytes]:
    cpu = struct.pack(
        "<BBBBIIII",
        PROCESSOR, 0, LOCAL_VERSION, ENABLED | BOOTSTRAP, lib.CPU_SIGNATURE, lib.CPU_FEATURES, 0, 0,
    )  # fmt: skip
    bus = struct.pack("<BB6s", BUS, ISA_BUS, b"ISA   ")
    chip = struct.pack("<BBBBI", IO_APIC_ENTRY, FIRMWARE_ID, VERSION & 0xFF, ENABLED, IO_APIC)
    lines = [line for line in range(LINES) if line != CASCADE]
    wired = [(EXTINT, 0, EXTINT_PIN), *((INT, n, PIN_OF_LINE.get(n, n)) for n in lines)]
    return (
        cpu,
        bus,
        chip,
        *(_interrupt(IO_INTERRUPT, kind, line, FIRMWARE_ID, pin) for kind, line, pin in wired),
        _interrupt(LOCAL_INTERRUPT, EXTINT, 0, ALL_CPUS, 0),
        _interrupt(LOCAL_INTERRUPT, NMI, 0, ALL_CPUS, 1),
    )


def _interrupt(entry: int, kind: int, line: int, apic: int, pin: int) -> bytes:
    """Polarity and trigger are the bus's own: ISA lines are edges, and active high."""
    return struct.pack("<BBHBBBB", entry, kind, 0, ISA_BUS, line, apic, pin)


def _with_checksum(table: bytes, at: int) -> bytes:
    """The table with the byte at `at` such that all add up to 0."""
    assert table[at] == 0
    return table[:at] + bytes([-sum(table) & 0xFF]) + table[at + 1 :]
