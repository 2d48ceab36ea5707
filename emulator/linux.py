"""A Linux kernel as its build leaves it, a bzImage, by the 32-bit boot protocol.

Of such a file only the last part is for protected mode; the first, real-mode code that asks a BIOS,
is left out here, and what it would have found out is told instead: the "zero page" has memory map,
command line, initial RAM disk and screen, and the setup header copied from the file. The kernel is
entered at its first byte with ESI at that page and flat segments 0x10 and 0x18. Nothing is loaded
here: loader.py puts the pieces together. Source: Documentation/arch/x86/boot.rst and zero-page.rst
of Linux; offsets are those of both file and page.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from emulator.elf import Segment
from emulator.errors import LoadError
from emulator.firmware import TEXT_MODE, memory_map

PAGE: Final = 4096
SECTOR: Final = 512
# The setup header: where it begins, what tells it, and how far each version's fields go.
HEADER: Final = 0x1F1
BOOT_FLAG, BOOT_MAGIC = 0x1FE, b"\x55\xaa"
MAGIC_AT, MAGIC = 0x202, b"HdrS"
HEADER_MOST: Final = 0x290  #: the zero page has no room for more
OLDEST: Final = 0x205
COMMAND_LINE_SIZE, INIT_SIZE = 0x206, 0x20A  #: versions that have these fields, and those before
ENDS: Final = {OLDEST: 0x238, COMMAND_LINE_SIZE: 0x23C, INIT_SIZE: 0x264}
LOADED_HIGH: Final = 1  #: of loadflags: this is no zImage
KERNEL_64: Final = 1  #: of xloadflags, since version 2.12
KERNEL_64_VERSION: Final = 0x20C
DEFAULT_SECTORS: Final = 4
DEFAULT_COMMAND_LINE: Final = 255
UNKNOWN_LOADER: Final = 0xFF
HIGH: Final = 0x100000  #: where a kernel lies that cannot be moved

ZERO_PAGE: Final = 0x10000
E820_ENTRIES, E820_TABLE, E820_MOST = 0x1E8, 0x2D0, 128
COLUMNS, LINES, POINTS, VGA = 80, 25, 16, 1
CODE, DATA = 0x10, 0x18  #: the selectors that the protocol wants
#: Flat, 4 GiB, ring 0, accessed.
TABLE: Final = struct.pack("<4Q", 0, 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)


class FlatTable(NamedTuple):
    """A descriptor table (linear address, limit) and its selectors of flat segments."""

    address: int
    limit: int
    code: int
    data: int


class _Setup(NamedTuple):
    """The setup header's fields that matter here, and the file's part for protected mode."""

    header: bytes
    code: bytes
    version: int
    alignment: int
    relocatable: bool
    initrd_most: int  #: the highest address that a byte of the initial RAM disk may have
    command_line_most: int
    preferred: int
    init_size: int  #: bytes it uses before it reads the memory map, from where it will run


def is_kernel(image: bytes) -> bool:
    """Is this the file of a Linux kernel?"""
    flag = image[BOOT_FLAG : BOOT_FLAG + len(BOOT_MAGIC)]
    return flag == BOOT_MAGIC and image[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def plan(
    image: bytes, *, ram: int, command_line: str, initrd: bytes
) -> tuple[list[Segment], dict[str, int], FlatTable]:
    """What goes into memory, registers and descriptor table at the entry; LoadError."""
    setup = _parse(image)
    load, end = _place(setup, ram)
    line = command_line.encode("utf-8", "surrogateescape")
    if len(line) > setup.command_line_most:
        raise LoadError(
            f"a command line of {len(line)} bytes: this kernel takes {setup.command_line_most}"
        )
    disk = _place_initrd(setup, end, ram, len(initrd))
    table_at = ZERO_PAGE + PAGE
    line_at = table_at + len(TABLE)
    page = _zero_page(setup, load, ram, line_at, (disk, len(initrd)))
    low = page + TABLE + line + b"\0"
    segments = [Segment(ZERO_PAGE, low, len(low)), Segment(load, setup.code, len(setup.code))]
    if initrd:
        segments.append(Segment(disk, initrd, len(initrd)))
    registers = {"eip": load, "esi": ZERO_PAGE}
    return segments, registers, FlatTable(table_at, len(TABLE) - 1, CODE, DATA)


def _parse(image: bytes) -> _Setup:
    """The setup header, every field checked that is used."""

    def field(offset: int, form: str, since: int = 0, default: int = 0) -> int:
        value: int = struct.unpack_from("<" + form, image, offset)[0]
        return value if version >= since else default

    if len(image) < ENDS[OLDEST]:
        raise LoadError(f"the setup header lies outside the file of {len(image)} bytes")
    version = 0xFFFF
    version = field(0x206, "H")
    shown = f"{version >> 8}.{version & 0xFF:02}"
    if version < OLDEST:
        raise LoadError(f"boot protocol {shown}: expected a Linux kernel of 2.05 or later")
    if not field(0x211, "B") & LOADED_HIGH:
        raise LoadError("a zImage, which runs below 640 KiB: expected a bzImage")
    end = MAGIC_AT + field(0x201, "B")
    least = max(size for since, size in ENDS.items() if since <= version)
    if not least <= end <= min(len(image), HEADER_MOST):
        raise LoadError(
            f"the setup header ends at {end:#x}: expected at least {least:#x} for boot protocol "
            f"{shown}, and at most {HEADER_MOST:#x} and the file's {len(image):#x} bytes"
        )
    if version >= KERNEL_64_VERSION and field(0x236, "H") & KERNEL_64:
        raise LoadError("a kernel for x86-64: expected one for IA-32")
    setup = _Setup(
        header=image[HEADER:end],
        code=_protected_part(image, field(HEADER, "B"), field(0x1F4, "I") * 16),
        version=version,
        alignment=field(0x230, "I"),
        relocatable=field(0x234, "B") != 0,
        initrd_most=field(0x22C, "I"),
        command_line_most=field(0x238, "I", COMMAND_LINE_SIZE, DEFAULT_COMMAND_LINE),
        preferred=field(0x258, "Q", INIT_SIZE, HIGH),
        init_size=field(0x260, "I", INIT_SIZE),
    )
    if setup.relocatable and setup.alignment.bit_count() != 1:
        raise LoadError(f"a kernel alignment of {setup.alignment:#x}: expected a power of two")
    return setup


def _protected_part(image: bytes, sectors: int, size: int) -> bytes:
    """What follows boot sector and setup code; `size` is rounded up to paragraphs."""
    start = ((sectors or DEFAULT_SECTORS) + 1) * SECTOR
    if start >= len(image):
        raise LoadError(f"no 32-bit code: it begins at {start:#x}, where the file has ended")
    if start + size - 15 > len(image):
        raise LoadError(f"ends too early: expected {start + size} bytes, found {len(image)}")
    return image[start : start + size] if size else image[start:]


def _place(setup: _Setup, ram: int) -> tuple[int, int]:
    """Where the 32-bit code lies, and the end of what the kernel uses until it reads the map."""
    if setup.relocatable:
        load = _aligned(max(setup.preferred, HIGH), setup.alignment)
        if load + max(setup.init_size, len(setup.code)) > ram:
            load = _aligned(HIGH, setup.alignment)
        runs = load
    else:  # it lies low, and goes to where it was linked for
        load, runs = HIGH, setup.preferred
    end = max(load + len(setup.code), runs + setup.init_size)
    if end > ram:
        raise LoadError(f"needs memory up to {end:#x}, but the machine has {ram:#x} bytes of RAM")
    return load, end


def _aligned(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def _place_initrd(setup: _Setup, end: int, ram: int, size: int) -> int:
    """Where the initial RAM disk lies: as high as it may; 0 if there is none."""
    if not size:
        return 0
    top = min(ram, setup.initrd_most + 1)
    start = (top - size) // PAGE * PAGE
    if start < end:
        raise LoadError(
            f"an initrd of {size:#x} bytes: no room between the kernel's end at {end:#x} "
            f"and {top:#x}"
        )
    return start


def _zero_page(
    setup: _Setup, load: int, ram: int, command_line: int, initrd: tuple[int, int]
) -> bytes:
    """The page that ESI points to."""
    page = bytearray(PAGE)
    page[HEADER : HEADER + len(setup.header)] = setup.header
    areas = memory_map(ram)
    assert len(areas) <= E820_MOST
    extended = (ram - HIGH) >> 10
    for offset, form, value in (
        (0x002, "H", min(extended, 0xFFFF)),
        (0x006, "B", TEXT_MODE),
        (0x007, "B", COLUMNS),
        (0x00E, "B", LINES),
        (0x00F, "B", VGA),
        (0x010, "H", POINTS),
        (0x1E0, "I", extended),
        (E820_ENTRIES, "B", len(areas)),
        (0x210, "B", UNKNOWN_LOADER),
        (0x214, "I", load),
        (0x218, "I", initrd[0]),
        (0x21C, "I", initrd[1]),
        (0x228, "I", command_line),
    ):
        struct.pack_into("<" + form, page, offset, value)
    for number, (start, stop, kind) in enumerate(areas):
        struct.pack_into("<QQI", page, E820_TABLE + 20 * number, start, stop - start, kind)
    return bytes(page)
