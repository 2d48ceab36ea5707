"""The loader: what good images become, and one clear error for each bad one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.errors import LoadError
from emulator.loader import Image, Module, plan
from isa import assemble
from tests.emulator.images import HLT, elf, kernel, multiboot_header

RAM = 4 << 20
BASE = 0x100000


def contents(image: Image, address: int, size: int) -> bytes:
    """What memory holds once the image is loaded."""
    memory = bytearray(size)
    for segment in image.segments:
        data = segment.data + bytes(segment.size - len(segment.data))
        for at in range(max(address, segment.address), min(address + size, segment.end)):
            memory[at - address] = data[at - segment.address]
    return bytes(memory)


def word(image: Image, address: int) -> int:
    return struct.unpack("<I", contents(image, address, 4))[0]


def text(image: Image, address: int) -> str:
    return contents(image, address, 256).split(b"\0")[0].decode()


def test_a_flat_binary_lies_at_one_mebibyte():
    image = plan(HLT, ram=RAM)
    assert [(s.address, s.data) for s in image.segments] == [(BASE, HLT)]
    assert image.registers == {"eip": BASE, "esp": 0x7C00}


def test_an_assembled_program_lies_where_it_says():
    program = assemble("org 0x200000\nnop\nstart: hlt")
    image = plan(program, ram=RAM)
    assert image.segments[0].address == 0x200000
    assert image.symbols.name(0x200001) == "start"
    assert image.symbols.line(0x200001).endswith(":3")


def test_an_elf_lies_at_its_physical_addresses_and_starts_at_its_entry():
    data = elf((BASE, kernel(), 0x100), virtual=0xC0000000, entry=0xC0000000 + BASE + 12)
    image = plan(data, ram=RAM)
    assert image.registers["eip"] == BASE + 12
    assert image.registers["eax"] == 0x2BADB002
    assert image.segments[0].size == 0x100


def test_an_entry_may_be_a_physical_address():
    data = elf((BASE, kernel(), 0x100), virtual=0xC0000000, entry=BASE + 12)
    assert plan(data, ram=RAM).registers["eip"] == BASE + 12


def test_the_information_block():
    data = elf((BASE, kernel(), 0x100))
    modules = [Module(b"first", "one a"), Module(b"", "empty"), Module(b"x" * 5000, "three")]
    image = plan(data, ram=RAM, kernel_args="root=a b", modules=modules)
    info = image.registers["ebx"]
    assert word(image, info) == 0x24F
    assert word(image, info + 4) == 639
    assert word(image, info + 8) == 3072
    assert text(image, word(image, info + 16)) == "program root=a b"
    assert word(image, info + 20) == 3
    table = word(image, info + 24)
    ends = BASE + 0x100
    for index, module in enumerate(modules):
        start, end, string, zero = (word(image, table + 16 * index + 4 * n) for n in range(4))
        assert start % 4096 == 0
        assert start >= ends
        assert contents(image, start, end - start) == module.data
        assert text(image, string) == module.string
        assert zero == 0
        ends = end
    assert text(image, word(image, info + 64)) == "seventeen"


def test_the_memory_map_covers_ram_and_leaves_the_hole_out():
    image = plan(elf((BASE, kernel(), 16)), ram=RAM)
    info = image.registers["ebx"]
    length, at = word(image, info + 44), word(image, info + 48)
    entries = []
    while length > 0:
        size, base, size_of, kind = struct.unpack("<IQQI", contents(image, at, 24))
        assert size == 20
        entries.append((base, size_of, kind))
        at, length = at + 24, length - 24
    assert [(b, s) for b, s, kind in entries if kind == 1] == [(0, 0x9FC00), (BASE, RAM - BASE)]
    assert all(b + s <= BASE and b >= 0x9FC00 for b, s, kind in entries if kind != 1)


def test_the_address_fields_place_a_raw_image():
    header = multiboot_header(1 << 16, 0x200010, 0x200000, 0x200034, 0x201000, 0x200030)
    data = b"junk" + bytes(16) + header + HLT * 4 + b"tail"
    image = plan(data, ram=RAM)
    segment = image.segments[0]
    assert (segment.address, segment.size) == (0x200000, 0x1000)
    assert segment.data == data[4 : 4 + 0x34]
    assert image.registers["eip"] == 0x200030


def test_address_fields_of_zero_mean_all_of_the_file():
    header = multiboot_header(1 << 16, 0x200000, 0x200000, 0, 0, 0x200020)
    image = plan(header + HLT * 100, ram=RAM)
    assert image.segments[0].size == len(header) + 100


def test_a_flat_binary_with_a_header_gets_the_information_block():
    image = plan(kernel(flags=2), ram=RAM, kernel_args="x")
    assert image.registers["eip"] == BASE
    assert text(image, word(image, image.registers["ebx"] + 16)) == "program x"


def test_a_low_kernel_and_the_information_block_do_not_meet():
    image = plan(elf((0x8000, kernel(), 0x10000)), ram=RAM)
    info = image.registers["ebx"]
    block = next(s for s in image.segments if s.address == info)
    assert block.address >= 0x18000


def test_a_path_is_read_and_named(tmp_path):
    path = tmp_path / "kernel.elf"
    path.write_bytes(elf((BASE, kernel(), 16)))
    module = tmp_path / "module"
    module.write_bytes(b"data")
    image = plan(path, ram=RAM, kernel_args="x", modules=[module])
    info = image.registers["ebx"]
    assert text(image, word(image, info + 16)) == f"{path} x"
    assert text(image, word(image, word(image, info + 24) + 8)) == str(module)


GOOD = (BASE, kernel(), 16)
BAD_IMAGES = {
    "nothing to load": b"",
    "expected 52 bytes": b"\x7fELF" + multiboot_header(),
    "32-bit little-endian": elf(GOOD, **{"class": 2}),
    "file for IA-32": elf(GOOD, machine=62),
    "expected an executable": elf(GOOD, type=1),
    "program headers of 33": elf(GOOD, phentsize=33),
    "headers lie outside": elf(GOOD, phoff=1 << 30),
    "16 bytes in the file, 4 in memory": elf((BASE, kernel(code=bytes(4)), 4)),
    "no segment holds the entry": elf(GOOD, entry=5),
    "without a multiboot header": elf((BASE, HLT, 16)),
    "has 0x400000 bytes of RAM": elf((BASE, kernel(), RAM)),
    "where a PC has no RAM": elf((0x90000, kernel(), 0x20000)),
    "overlap": elf(GOOD, (BASE + 8, HLT, 8)),
    "requires features 0x8,": kernel(flags=8),
    "ends before its address": multiboot_header(1 << 16),
    "load address": multiboot_header(1 << 16, BASE, BASE + 4, 0, 0, BASE),
    "load end": multiboot_header(1 << 16, BASE, BASE, BASE + 1000, 0, BASE),
    "bss end": multiboot_header(1 << 16, BASE, BASE, 0, BASE + 1, BASE),
    "entry": multiboot_header(1 << 16, BASE, BASE, 0, 0, BASE - 1),
}


@pytest.mark.parametrize("message", BAD_IMAGES)
def test_a_bad_image_gets_one_clear_error(message):
    with pytest.raises(LoadError, match=message) as caught:
        plan(BAD_IMAGES[message], ram=RAM)
    assert str(caught.value).startswith("program: ")
    assert "\n" not in str(caught.value)


def test_a_segment_outside_the_file():
    data = bytearray(elf(GOOD))
    struct.pack_into("<I", data, 52 + 4, 0x7FFFFFFF)
    with pytest.raises(LoadError, match="segment 0: lies outside the file"):
        plan(bytes(data), ram=RAM)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/", "a\0b"])
def test_a_file_that_cannot_be_read(path):
    with pytest.raises(LoadError) as caught:
        plan(path, ram=RAM)
    assert str(caught.value).startswith(f"{path}: ")
    assert "Errno" not in str(caught.value)
    with pytest.raises(LoadError, match=r"^program: module "):
        plan(elf(GOOD), ram=RAM, modules=[path])


def test_arguments_need_a_header():
    with pytest.raises(LoadError, match="need a multiboot header"):
        plan(HLT, ram=RAM, kernel_args="x")
    with pytest.raises(LoadError, match="need a multiboot header"):
        plan(HLT, ram=RAM, modules=[Module(b"", "")])


def test_a_module_too_large():
    with pytest.raises(LoadError, match="module big: needs memory up to"):
        plan(elf(GOOD), ram=RAM, modules=[Module(bytes(RAM), "big")])


def test_a_command_line_too_large():
    plan(elf(GOOD), ram=RAM, kernel_args="x" * (1 << 20))
    with pytest.raises(LoadError, match="no room for"):
        plan(elf(GOOD), ram=RAM, kernel_args="x" * RAM)


def test_something_that_is_no_program():
    with pytest.raises(LoadError, match="found int"):
        plan(42, ram=RAM)  # type: ignore[arg-type]


def test_a_header_with_a_wrong_checksum_or_place_is_none():
    wrong = multiboot_header(checksum=1)
    assert "eax" not in plan(wrong + HLT, ram=RAM).registers
    assert "eax" not in plan(b"x" + multiboot_header() + HLT, ram=RAM).registers
    assert "eax" not in plan(bytes(8192) + multiboot_header() + HLT, ram=RAM).registers
    assert "eax" in plan(wrong + multiboot_header() + HLT, ram=RAM).registers


WORDS = st.one_of(
    st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, BASE, RAM, 0xA0000, 0x7FFFFFFF, 0xFFFFFFFF])
)


def load_or_refuse(data: bytes, modules: list[Module]) -> None:
    """Every image loads into RAM, or is refused with one line."""
    try:
        image = plan(data, ram=RAM, modules=modules)
    except LoadError as error:
        message = str(error)
    else:
        message = ""
        check_image(image)
    assert "\n" not in message


def check_image(image: Image) -> None:
    ends = [0]
    for segment in sorted(image.segments, key=lambda s: s.address):
        assert segment.address >= ends[-1]
        assert len(segment.data) <= segment.size
        assert segment.end <= RAM
        ends.append(segment.end)


MODULES = st.lists(st.builds(Module, st.binary(max_size=9000), st.text(max_size=20)), max_size=4)


@given(st.binary(max_size=200), MODULES)
def test_random_bytes_load_or_are_refused(data, modules):
    load_or_refuse(data, modules)
    load_or_refuse(b"\x7fELF" + data, modules)


@given(WORDS, st.lists(WORDS, max_size=5), st.binary(max_size=100), MODULES)
def test_random_multiboot_headers_load_or_are_refused(flags, addresses, data, modules):
    load_or_refuse(multiboot_header(flags, *addresses) + data, modules)
    load_or_refuse(multiboot_header(flags & ~0xFFF8 | 1 << 16, *addresses) + data, modules)


@given(st.data(), MODULES)
def test_an_elf_with_random_fields_loads_or_is_refused(data, modules):
    image = bytearray(elf(GOOD, (BASE + 0x1000, HLT, 0x2000)))
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, (52 + 64) // 4 - 1)) * 4
        struct.pack_into("<I", image, offset, data.draw(WORDS))
    cut = data.draw(st.one_of(st.just(len(image)), st.integers(0, len(image))))
    load_or_refuse(bytes(image[:cut]), modules)


@given(st.lists(st.tuples(WORDS, st.binary(max_size=20), WORDS), max_size=4), MODULES)
def test_random_segments_load_or_are_refused(segments, modules):
    rows = [(address, kernel() + data, size) for address, data, size in segments]
    load_or_refuse(elf(*rows), modules)
