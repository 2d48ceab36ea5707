"""Programs made by hand for the loader's tests: ELF files and multiboot headers, field by field."""

from __future__ import annotations

import struct

HLT = b"\xf4"


def multiboot_header(flags: int = 0, *addresses: int, checksum: int | None = None) -> bytes:
    """A multiboot header; the address fields follow if they are given."""
    right = -(0x1BADB002 + flags) & 0xFFFFFFFF
    words = [0x1BADB002, flags, right if checksum is None else checksum, *addresses]
    return struct.pack(f"<{len(words)}I", *words)


def elf(
    *segments: tuple[int, bytes, int],
    entry: int | None = None,
    virtual: int = 0,
    **fields: int,
) -> bytes:
    """An ELF32 executable. Segments are (physical address, bytes, size in memory).

    `virtual` is added to the virtual addresses; `fields` override the header's by name.
    """
    table = 52
    offset = table + 32 * len(segments)
    headers, body = b"", b""
    for physical, data, size in segments:
        where = offset + len(body)
        headers += struct.pack(
            "<8I", 1, where, physical + virtual, physical, len(data), size, 7, 4096
        )
        body += data
    first = segments[0][0] + virtual if segments else 0
    values = {
        "type": 2, "machine": 3, "version": 1, "entry": first if entry is None else entry,
        "phoff": table, "shoff": 0, "flags": 0, "ehsize": 52, "phentsize": 32,
        "phnum": len(segments), "shentsize": 40, "shnum": 0, "shstrndx": 0, "class": 1, "data": 1,
    } | fields  # fmt: skip
    ident = b"\x7fELF" + bytes([values.pop("class"), values.pop("data"), 1]) + bytes(9)
    return ident + struct.pack("<HHIIIIIHHHHHH", *values.values()) + headers + body


def kernel(flags: int = 0, code: bytes = HLT) -> bytes:
    """The bytes of a segment that is a multiboot kernel; its code comes after the header."""
    return multiboot_header(flags) + code
