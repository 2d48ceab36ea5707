"""From a program to memory contents and an entry state: kernels and flat binaries.

Nothing is loaded here: `plan` works out an `Image`, which machine.py puts into memory, so every
mistake of a file is found before anything has changed. A file whose first 8 KiB hold a valid
multiboot header gets what the specification promises (EAX, EBX, command line, modules, memory map)
in the state QEMU leaves; an ELF or the header's address fields say where it lies. A Linux bzImage
is entered by that kernel's own protocol. Anything else is a flat binary at 0x100000. Source:
Multiboot specification 0.6.96. Read elf.py for ELF, linux.py for Linux.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol, runtime_checkable

from emulator import elf, linux
from emulator.elf import Segment
from emulator.errors import LoadError
from emulator.firmware import EXTENDED_DATA, memory_map
from emulator.linux import FlatTable
from emulator.memory import HOLE
from emulator.symbols import LabelledProgram, ProgramSymbols, Symbols

FLAT_ADDRESS: Final = 0x100000
STACK: Final = 0x7C00  #: grows down from here, as where a boot sector begins
HEADER_MAGIC: Final = 0x1BADB002
LOADED_MAGIC: Final = 0x2BADB002
HEADER_WITHIN: Final = 8192
WANTS_ADDRESSES: Final = 1 << 16
#: Header flags of which the specification says that a loader must refuse the image if it does not
#: know them. Known: page-aligned modules and memory information, which every image gets; and the
#: video mode, a wish, which stays unfulfilled as in QEMU.
UNKNOWN_REQUIREMENTS: Final = 0xFFF8
INFO_ADDRESS: Final = 0x9000
PAGE: Final = 4096
LOADER_NAME: Final = b"seventeen"
LARGEST_FILE: Final = 256 << 20
#: Bits of the information block's flags: memory, boot device, command line, modules, map, name.
INFO_FLAGS: Final = 0x001 | 0x002 | 0x004 | 0x008 | 0x040 | 0x200
BOOT_DEVICE: Final = 0x8000_FFFF  #: the first BIOS disk, no partition


@runtime_checkable
class AssembledSegment(Protocol):
    """A stretch of an assembled program."""

    @property
    def address(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def memory_size(self) -> int: ...


@runtime_checkable
class Program(LabelledProgram, Protocol):
    """What `isa.assemble` returns, as far as a loader cares."""

    @property
    def segments(self) -> Sequence[AssembledSegment]: ...
    @property
    def entry(self) -> int: ...


class Module(NamedTuple):
    """A boot module: its bytes, and the string that goes with it."""

    data: bytes
    string: str


ModuleSource = Module | str | os.PathLike[str]


class Image(NamedTuple):
    """What goes into memory (machine addresses), and the registers that differ from reset."""

    segments: tuple[Segment, ...]
    registers: dict[str, int]
    symbols: Symbols
    table: FlatTable | None = None  #: in place of the selectors that a reset leaves


class _Header(NamedTuple):
    """A multiboot header, and where in the image it stands."""

    offset: int
    flags: int
    addresses: tuple[int, ...]  #: header, load, load end, bss end, entry; if flags say so


def read_file(path: str | os.PathLike[str]) -> bytes:
    """A whole file; LoadError, without its name, if it cannot be or is larger than is sensible."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise LoadError(error.strerror or "cannot be read") from error
    except ValueError as error:  # a null byte in its name
        raise LoadError(str(error)) from error
    if len(data) > LARGEST_FILE:
        raise LoadError(f"larger than {LARGEST_FILE >> 20} MiB")
    return data


def plan(
    program: Program | bytes | str | os.PathLike[str],
    *,
    ram: int,
    kernel_args: str = "",
    modules: Sequence[ModuleSource] = (),
    initrd: ModuleSource | None = None,
) -> Image:
    """Work out what loading `program` into `ram` bytes of memory means; LoadError if it cannot be.

    `program` is a path, the bytes of a file, or what the assembler returns. `kernel_args` follow
    the program's name on a multiboot kernel's command line, and are all of Linux's. A module, or
    initial RAM disk, is a path, or bytes with a string. To a multiboot kernel an initrd is its
    first module.
    """
    name = os.fspath(program) if isinstance(program, (str, os.PathLike)) else "program"
    try:
        if isinstance(program, (str, os.PathLike)):
            program = read_file(program)
        if isinstance(program, (bytes, bytearray, memoryview)) and linux.is_kernel(bytes(program)):
            image = _plan_linux(bytes(program), ram, kernel_args, modules, initrd)
        else:
            given = [*([] if initrd is None else [initrd]), *modules]
            image = _plan_other(program, ram, name, kernel_args, given)
    except LoadError as error:
        raise LoadError(f"{name}: {error}") from error
    return image


def _plan_linux(
    image: bytes,
    ram: int,
    kernel_args: str,
    modules: Sequence[ModuleSource],
    initrd: ModuleSource | None,
) -> Image:
    if modules:
        raise LoadError("modules need a multiboot header: Linux takes one initrd")
    disk = b"" if initrd is None else _module(initrd, "initrd").data
    segments, registers, table = linux.plan(image, ram=ram, command_line=kernel_args, initrd=disk)
    _check_places(segments, ram)
    return Image(tuple(segments), {"esp": STACK} | registers, Symbols(), table)


def _plan_other(
    program: Program | bytes,
    ram: int,
    name: str,
    kernel_args: str,
    modules: Sequence[ModuleSource],
) -> Image:
    segments, entry, header, symbols = _parse(program)
    if not segments:
        raise LoadError("nothing to load: it is empty")
    _check_places(segments, ram)
    registers = {"eip": entry, "esp": STACK}
    if header is None:
        if modules or kernel_args:
            raise LoadError(
                "kernel arguments, modules and initrd need a multiboot header, or Linux's"
            )
    else:
        loaded = [_module(module) for module in modules]
        command = f"{name} {kernel_args}".rstrip()
        segments, info = _boot_information(segments, command, loaded, ram)
        registers |= {"eax": LOADED_MAGIC, "ebx": info}
    return Image(tuple(segments), registers, symbols)


_Parsed = tuple[list[Segment], int, "_Header | None", Symbols]


def _parse(program: Program | bytes) -> _Parsed:
    if isinstance(program, (bytes, bytearray, memoryview)):
        return _parse_bytes(bytes(program))
    if not isinstance(program, Program):
        raise LoadError(f"expected a path, bytes or a program, found {type(program).__name__}")
    segments = [
        Segment(s.address, bytes(s.data), max(s.memory_size, len(s.data))) for s in program.segments
    ]
    segments = [segment for segment in segments if segment.size]
    header = next((h for s in segments if (h := _find_header(s.data)) is not None), None)
    return segments, program.entry, header, ProgramSymbols(program)


def _parse_bytes(image: bytes) -> _Parsed:
    header = _find_header(image)
    if header is not None and header.flags & WANTS_ADDRESSES:
        return *_parse_addresses(image, header), header, Symbols()
    if image.startswith(elf.MAGIC):
        parsed = elf.parse(image)
        if header is None:
            raise LoadError(f"an ELF without a multiboot header in its first {HEADER_WITHIN} bytes")
        return list(parsed.segments), parsed.entry, header, Symbols()
    segments = [Segment(FLAT_ADDRESS, image, len(image))] if image else []
    return segments, FLAT_ADDRESS, header, Symbols()


def _find_header(image: bytes) -> _Header | None:
    """The first multiboot header whose checksum is right; LoadError if it asks for the unknown."""
    head = image[:HEADER_WITHIN]
    magic = struct.pack("<I", HEADER_MAGIC)
    offset = head.find(magic)
    while offset >= 0:
        if offset % 4 == 0 and offset + 12 <= len(head):
            _, flags, checksum = struct.unpack_from("<III", head, offset)
            if (HEADER_MAGIC + flags + checksum) & 0xFFFF_FFFF == 0:
                return _header_at(head, offset, flags)
        offset = head.find(magic, offset + 1)
    return None


def _header_at(head: bytes, offset: int, flags: int) -> _Header:
    if flags & UNKNOWN_REQUIREMENTS:
        unknown = flags & UNKNOWN_REQUIREMENTS
        raise LoadError(f"the multiboot header requires features {unknown:#x}, which are unknown")
    if not flags & WANTS_ADDRESSES:
        return _Header(offset, flags, ())
    if offset + 32 > len(head):
        raise LoadError("the multiboot header ends before its address fields")
    return _Header(offset, flags, struct.unpack_from("<IIIII", head, offset + 12))


def _parse_addresses(image: bytes, header: _Header) -> tuple[list[Segment], int]:
    """The image as the header's address fields describe it ("a.out kludge")."""
    header_address, load, load_end, bss_end, entry = header.addresses
    start = header.offset - (header_address - load)
    if header_address < load or start < 0:
        raise LoadError(f"the multiboot header's load address {load:#x} lies before the file")
    size = load_end - load if load_end else len(image) - start
    if size < 0 or start + size > len(image):
        raise LoadError(f"the multiboot header's load end {load_end:#x} lies outside the file")
    memory = bss_end - load if bss_end else size
    if memory < size:
        raise LoadError(f"the multiboot header's bss end {bss_end:#x} lies before its load end")
    if not load <= entry < load + memory:
        raise LoadError(f"the multiboot header's entry {entry:#x} lies outside what is loaded")
    return [Segment(load, image[start : start + size], memory)], entry


def _check_places(segments: Sequence[Segment], ram: int) -> None:
    """Every segment in RAM, and none over another."""
    for segment in segments:
        if segment.end > ram:
            raise LoadError(
                f"needs memory up to {segment.end:#x}, but the machine has {ram:#x} bytes of RAM"
            )
        if segment.address < HOLE.stop and segment.end > HOLE.start:
            raise LoadError(f"a segment at {segment.address:#x} reaches where a PC has no RAM")
    ordered = sorted(segments, key=lambda segment: segment.address)
    for one, other in pairwise(ordered):
        if one.end > other.address:
            raise LoadError(f"segments at {one.address:#x} and {other.address:#x} overlap")


def _module(module: ModuleSource, what: str = "module") -> Module:
    if isinstance(module, Module):
        return module
    name = os.fspath(module)
    try:
        return Module(read_file(module), name)
    except LoadError as error:
        raise LoadError(f"{what} {name}: {error}") from error


def _boot_information(
    segments: list[Segment], command: str, modules: list[Module], ram: int
) -> tuple[list[Segment], int]:
    """The segments with modules and information block added, and the block's machine address."""
    places: list[tuple[int, Module]] = []
    end = max(FLAT_ADDRESS, *(segment.end for segment in segments))
    for module in modules:
        start = -(-end // PAGE) * PAGE
        end = start + len(module.data)
        if end > ram:
            raise LoadError(
                f"module {module.string}: needs memory up to {end:#x}, "
                f"but the machine has {ram:#x} bytes of RAM"
            )
        places.append((start, module))
    added = [Segment(start, m.data, len(m.data)) for start, m in places if m.data]

    def render(base: int) -> bytes:
        return _information(base, command, places, ram)

    size = len(render(0))
    low = all(segment.address >= INFO_ADDRESS + size or segment.end <= INFO_ADDRESS
              for segment in segments)  # fmt: skip
    base = INFO_ADDRESS if low and INFO_ADDRESS + size <= EXTENDED_DATA else -(-end // 4) * 4
    if base + size > ram:
        raise LoadError(f"no room for {size} bytes of command line and module strings")
    return [*segments, *added, Segment(base, render(base), size)], base


def _information(base: int, command: str, places: list[tuple[int, Module]], ram: int) -> bytes:
    """The multiboot information block, for machine address `base`, with all it points to."""
    tail = bytearray()
    fixed = 120  # the block itself; its last field, the framebuffer's, is not ours

    def add(data: bytes) -> int:
        tail.extend(data + bytes(-len(data) % 4))
        return base + fixed + len(tail) - len(data) - (-len(data) % 4)

    def add_string(text: str) -> int:
        # A file name may hold bytes that are no text: give back what it was.
        return add(text.encode("utf-8", "surrogateescape") + b"\0")

    command_at = add_string(command)
    name_at = add(LOADER_NAME + b"\0")
    rows = [(start, start + len(m.data), add_string(m.string)) for start, m in places]
    modules_at = add(b"".join(struct.pack("<IIII", *row, 0) for row in rows))
    areas = b"".join(struct.pack("<IQQI", 20, a, b - a, kind) for a, b, kind in memory_map(ram))
    map_at = add(areas)
    block = struct.pack(
        "<13I",
        INFO_FLAGS,
        EXTENDED_DATA >> 10,
        (ram - HOLE.stop) >> 10,
        BOOT_DEVICE,
        command_at,
        len(rows),
        modules_at,
        0, 0, 0, 0,
        len(areas),
        map_at,
    )  # fmt: skip
    block += struct.pack("<4I", 0, 0, 0, name_at)
    return block.ljust(fixed, b"\0") + bytes(tail)
