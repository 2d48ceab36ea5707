"""The Linux boot protocol: what kernels made by hand find at their entry, and what is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import Machine
from emulator.errors import LoadError
from emulator.linux import is_kernel
from emulator.loader import Image, Module, plan
from emulator.result import Stop
from hypervisor.vm import VirtualMachine
from isa import assemble
from tests.emulator.images import HLT, elf, kernel

RAM = 8 << 20
SECTORS = 2
ZERO_PAGE = 0x10000
#: Setup header fields: offset in the file, form, value in a good kernel.
FIELDS = {
    "setup_sects": (0x1F1, "B", SECTORS),
    "syssize": (0x1F4, "I", None),
    "boot_flag": (0x1FE, "H", 0xAA55),
    "jump": (0x200, "H", (0x26C - 0x202) << 8 | 0xEB),
    "header": (0x202, "I", 0x53726448),
    "version": (0x206, "H", 0x20F),
    "loadflags": (0x211, "B", 1),
    "code32_start": (0x214, "I", 0x100000),
    "initrd_addr_max": (0x22C, "I", 0x7FFFFFFF),
    "kernel_alignment": (0x230, "I", 0x100000),
    "relocatable_kernel": (0x234, "B", 0),
    "xloadflags": (0x236, "H", 0),
    "cmdline_size": (0x238, "I", 2047),
    "pref_address": (0x258, "Q", 0x200000),
    "init_size": (0x260, "I", 0x300000),
}


def bzimage(code: bytes = HLT, **fields: int) -> bytes:
    """The file of a kernel; `fields` override the header's by name."""
    code += bytes(-len(code) % 16)
    image = bytearray((SECTORS + 1) * 512)
    for name, (offset, form, value) in FIELDS.items():
        found = len(code) // 16 if value is None else value
        struct.pack_into("<" + form, image, offset, fields.pop(name, found))
    assert not fields
    return bytes(image) + code


@dataclass(frozen=True)
class Booted:
    """The zero page of a planned image, and what lies where."""

    image: Image

    def read(self, address: int, size: int) -> bytes:
        for segment in self.image.segments:
            if segment.address <= address < segment.end:
                at = address - segment.address
                return segment.data[at : at + size]
        raise AssertionError(f"nothing at {address:#x}")

    def field(self, offset: int, form: str) -> int:
        size = struct.calcsize(form)
        return struct.unpack("<" + form, self.read(ZERO_PAGE + offset, size))[0]


def boot(image: bytes, ram: int = RAM, args: str = "", initrd: bytes | None = None) -> Booted:
    disk = None if initrd is None else Module(initrd, "disk")
    return Booted(plan(image, ram=ram, kernel_args=args, initrd=disk))


def test_a_kernel_lies_at_one_mebibyte():
    booted = boot(bzimage(b"\x90" * 32))
    assert booted.image.registers == {"eip": 0x100000, "esi": ZERO_PAGE, "esp": 0x7C00}
    assert booted.read(0x100000, 33) == b"\x90" * 32


def test_a_relocatable_kernel_lies_where_it_prefers_if_there_is_room():
    image = bzimage(relocatable_kernel=1, pref_address=0x280000)
    assert boot(image).image.registers["eip"] == 0x300000
    assert boot(image).field(0x214, "I") == 0x300000
    assert boot(image, ram=0x500000).image.registers["eip"] == 0x100000


def test_the_zero_page():
    booted = boot(bzimage(), args="console=ttyS0 a=b")
    assert booted.field(0x202, "I") == 0x53726448
    assert booted.field(0x206, "H") == 0x20F
    assert booted.field(0x210, "B") == 0xFF
    assert booted.read(booted.field(0x228, "I"), 99) == b"console=ttyS0 a=b\0"
    assert (booted.field(0x218, "I"), booted.field(0x21C, "I")) == (0, 0)
    assert booted.field(0x1E0, "I") == (RAM >> 10) - 1024
    assert (
        booted.read(ZERO_PAGE, 0x12).hex(" ", 2) == "0000 001c 0000 0350 0000 0000 0000 1901 1000"
    )
    assert booted.read(ZERO_PAGE + 0x26C, 0x24) == bytes(0x24)


def test_the_memory_map_is_that_of_a_multiboot_kernel():
    booted = boot(bzimage())
    rows = [
        struct.unpack("<QQI", booted.read(ZERO_PAGE + 0x2D0 + 20 * n, 20))
        for n in range(booted.field(0x1E8, "B"))
    ]
    image = plan(elf((0x100000, kernel(), 16)), ram=RAM)
    other = Booted(image)
    info = image.registers["ebx"]
    length, at = struct.unpack("<II", other.read(info + 44, 8))
    expected = [struct.unpack("<QQI", other.read(at + n + 4, 20)) for n in range(0, length, 24)]
    assert rows == expected
    assert rows[-1] == (0x100000, RAM - 0x100000, 1)


@pytest.mark.parametrize(
    ("most", "size", "expected"),
    [
        (0x7FFFFFFF, 5000, RAM - 8192),
        (0x7FFFFFFF, 4096, RAM - 4096),
        (0x6FFFFF, 4096, 0x6FF000),
        (0x700000, 4096, 0x6FF000),
        (0x7FFFFFFF, 0x300000, 0x500000),
    ],
)
def test_the_initrd_lies_as_high_as_it_may(most, size, expected):
    booted = boot(bzimage(initrd_addr_max=most), initrd=b"x" * size)
    assert (booted.field(0x218, "I"), booted.field(0x21C, "I")) == (expected, size)
    assert booted.read(expected, size) == b"x" * size


def test_an_old_kernel_says_less():
    old = {"version": 0x205, "jump": (0x238 - 0x202) << 8 | 0xEB, "pref_address": 1 << 40}
    booted = boot(bzimage(**old), ram=2 << 20, args="x" * 255)
    assert booted.image.registers["eip"] == 0x100000
    with pytest.raises(LoadError, match="256 bytes: this kernel takes 255"):
        boot(bzimage(**old), args="x" * 256)


def test_zero_sectors_mean_four():
    image = bzimage(setup_sects=0)
    image = image[: 3 * 512] + bytes(2 * 512) + image[3 * 512 :]
    assert boot(image).read(0x100000, 1) == HLT


BAD_KERNELS = {
    "boot protocol 2.04: expected .* 2.05 or later": bzimage(version=0x204),
    "a zImage": bzimage(loadflags=0),
    "a kernel for x86-64": bzimage(xloadflags=1),
    "lies outside the file of 560": bzimage()[:560],
    "header ends at 0x26c: .* the file's 0x23f": bzimage()[:575],
    "header ends at 0x240: expected at least 0x264": bzimage(jump=0x3EEB),
    "header ends at 0x301: .* at most 0x290": bzimage(jump=0xFFEB),
    "no 32-bit code: it begins at 0x600": bzimage()[: 3 * 512],
    "ends too early": bzimage(bytes(64))[:-16],
    "needs memory up to 0x900000": bzimage(init_size=0x700000),
    "up to 0x10000": bzimage(pref_address=1 << 48),
    "alignment of 0x300000": bzimage(relocatable_kernel=1, kernel_alignment=0x300000),
    "alignment of 0x0": bzimage(relocatable_kernel=1, kernel_alignment=0),
}


@pytest.mark.parametrize("message", BAD_KERNELS)
def test_a_bad_kernel_gets_one_clear_error(message):
    with pytest.raises(LoadError, match=message) as caught:
        boot(BAD_KERNELS[message])
    assert str(caught.value).startswith("program: ")
    assert "\n" not in str(caught.value)


def test_what_a_kernel_cannot_be_given(tmp_path):
    with pytest.raises(LoadError, match="2048 bytes: this kernel takes 2047"):
        boot(bzimage(), args="x" * 2048)
    with pytest.raises(LoadError, match="no room between the kernel's end at 0x500000"):
        boot(bzimage(), initrd=bytes(0x300001))
    with pytest.raises(LoadError, match="Linux takes one initrd"):
        plan(bzimage(), ram=RAM, modules=[Module(b"", "x")])
    with pytest.raises(LoadError, match=r"initrd .*missing: No such file"):
        plan(bzimage(), ram=RAM, initrd=tmp_path / "missing")


def test_a_boot_sector_is_no_kernel():
    assert not is_kernel(bytes(510) + b"\x55\xaa" + bytes(100))
    assert not is_kernel(b"")


def test_to_a_multiboot_kernel_an_initrd_is_the_first_module():
    image = plan(kernel(), ram=RAM, initrd=Module(b"one", "1"), modules=[Module(b"two", "2")])
    booted = Booted(image)
    count, table = struct.unpack("<II", booted.read(image.registers["ebx"] + 20, 8))
    starts = [struct.unpack("<I", booted.read(table + 16 * n, 4))[0] for n in range(count)]
    assert [booted.read(at, 3) for at in starts] == [b"one", b"two"]
    with pytest.raises(LoadError, match="initrd need a multiboot header"):
        plan(HLT, ram=RAM, initrd=Module(b"", ""))


@given(st.data())
def test_random_fields_load_or_are_refused(data):
    words = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, RAM, 1 << 31]))
    changed = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True)):
        bits = 8 * struct.calcsize("<" + FIELDS[name][1])
        changed[name] = data.draw(words) & ((1 << bits) - 1)
    image = bzimage(**changed)
    image = image[: data.draw(st.one_of(st.just(len(image)), st.integers(0, len(image))))]
    try:
        found = plan(image, ram=RAM, initrd=Module(data.draw(st.binary(max_size=9)), ""))
    except LoadError as error:
        message = str(error)
    else:
        message = ""
        assert all(segment.end <= RAM for segment in found.segments)
    assert "\n" not in message


#: Reloads its segment registers, so the descriptors are there, and tells what it was given.
CHECKS = """
    org 0x100000
    mov ecx, esi
    or ecx, 0
    mov eax, ebp
    or eax, ebx
    or eax, edi
    jnz bad
    pushf
    pop eax
    test ah, 2
    jnz bad
    mov ax, cs
    cmp ax, 0x10
    jne bad
    mov ax, ds
    cmp ax, 0x18
    jne bad
    mov dx, es
    mov bx, ss
    cmp ax, dx
    jne bad
    cmp ax, bx
    jne bad
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    jmp 0x10:next
next:
    mov edi, [esi+0x228]
    call print
    mov edi, [esi+0x218]
    call print
    mov al, 0
    jmp leave
bad:
    mov al, 1
leave:
    out 0xf4, al
    hlt
print:
    mov dx, 0x3f8
.next:
    mov al, [edi]
    test al, al
    jz .done
    out dx, al
    inc edi
    jmp .next
.done:
    ret
"""


def checks() -> bytes:
    return bzimage(assemble(CHECKS).segments[0].data)


def test_a_kernel_finds_its_entry_state():
    machine = Machine(ram=RAM)
    machine.load(checks(), kernel_args="hello", initrd=Module(b", world\0", ""))
    result = machine.run()
    assert (result.stop, result.status, result.output) == (Stop.POWERED_OFF, 0, b"hello, world")


@pytest.mark.parametrize("technique", ["interpret", "trap", "translate", "patch", "hardware"])
def test_a_kernel_finds_its_entry_state_under(technique, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.write_bytes(b", world\0")
    machine = VirtualMachine(technique=technique, ram=RAM)
    machine.load(checks(), kernel_args="hello", initrd=disk)
    result = machine.run()
    assert result.output == b"hello, world" or technique == "trap"  # which shows ring 1 in CS
    assert result.stop is Stop.POWERED_OFF
