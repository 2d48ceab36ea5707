"""The VGA's registers, text memory, and what becomes of both on a screen."""

from __future__ import annotations

import pytest

from emulator import Machine
from emulator.clock import TICKS_PER_SECOND
from emulator.devices.vga import CRTC_MODE_3, Vga
from emulator.screen import CHARACTERS, read_screen
from hypervisor.vm import VirtualMachine
from isa import assemble
from tests.emulator.fake import FakePlatform

TEXT = 0xB8000
INDEXED = [(0x3C4, 5), (0x3CE, 9), (0x3D4, 25)]


@pytest.fixture
def vga() -> Vga:
    return Vga(FakePlatform())


def set_register(vga: Vga, port: int, index: int, value: int) -> None:
    vga.write(port, 1, index)
    vga.write(port + 1, 1, value)


def get_register(vga: Vga, port: int, index: int) -> int:
    vga.write(port, 1, index)
    return vga.read(port + 1)


# -- registers --------------------------------------------------------------------------------


def test_it_is_in_mode_3(vga):
    assert [get_register(vga, 0x3D4, n) for n in range(25)] == list(CRTC_MODE_3)
    assert vga.read(0x3CC) == 0x67
    assert get_register(vga, 0x3CE, 6) == 0x0E  # text memory is at 0xB8000


@pytest.mark.parametrize(("port", "count"), INDEXED)
def test_registers_keep_what_is_written(vga, port, count):
    set_register(vga, 0x3D4, 0x11, 0)
    for index in range(count):
        set_register(vga, port, index, 0xA0 + index)
    assert [get_register(vga, port, n) for n in range(count)] == [0xA0 + n for n in range(count)]
    assert vga.read(port) == count - 1
    set_register(vga, port, count + 30, 1)
    assert get_register(vga, port, count + 30) == 0


def test_timing_is_protected(vga):
    for index in range(8):
        set_register(vga, 0x3D4, index, 0)
    expected = [*CRTC_MODE_3[:7], CRTC_MODE_3[7] & ~0x10]
    assert [get_register(vga, 0x3D4, n) for n in range(8)] == expected


def test_the_attribute_controller_takes_index_and_data_in_turns(vga):
    vga.read(0x3DA)
    for value in (0x30, 0x0C, 0x2F, 0x55):
        vga.write(0x3C0, 1, value)
    assert vga.read(0x3C0) == 0x2F
    assert vga.read(0x3C1) == 0x55
    vga.write(0x3C0, 1, 0x30)
    assert vga.read(0x3C1) == 0x0C
    vga.read(0x3DA)  # an index comes next
    vga.write(0x3C0, 1, 0x01)
    assert vga.read(0x3C1) == 0x01


def test_the_palette(vga):
    vga.write(0x3C7, 1, 1)
    assert [vga.read(0x3C9) for _ in range(6)] == [0, 0, 42, 0, 42, 0]  # blue, green
    assert vga.read(0x3C7) == 3
    vga.write(0x3C8, 1, 255)
    for value in (1, 2, 0xFF, 9):
        vga.write(0x3C9, 1, value)
    vga.write(0x3C7, 1, 255)
    assert [vga.read(0x3C9) for _ in range(4)] == [1, 2, 0x3F, 9]


def test_other_registers_keep_what_is_written(vga):
    for written, read in ((0x3C2, 0x3CC), (0x3C6, 0x3C6), (0x3DA, 0x3CA)):
        vga.write(written, 1, 0x5A)
        assert vga.read(read) == 0x5A


def test_retrace_comes_70_times_a_second(vga):
    platform = vga.platform
    assert isinstance(platform, FakePlatform)
    rises, before = 0, 0
    for tick in range(0, TICKS_PER_SECOND // 10, 1000):
        platform.clock.now = tick
        status = vga.read(0x3DA)
        assert not status & 8 or status & 1
        rises += status & 8 > before
        before = status & 8
    assert rises == 7


def test_a_saved_vga_is_the_same(vga):
    set_register(vga, 0x3D4, 0x0F, 7)
    vga.write(0x3C0, 1, 5)
    other = Vga(FakePlatform())
    other.load(vga.save())
    assert other.save() == vga.save()


# -- the screen -------------------------------------------------------------------------------


def shown(text: bytes, **registers: int) -> Machine:
    """A machine with text at the beginning of text memory, and CRTC registers by number."""
    machine = Machine(ram="4M")
    machine.memory.write(TEXT, b"".join(bytes((byte, 7)) for byte in text))
    vga = machine.board.vga
    set_register(vga, 0x3D4, 0x11, 0)
    for name, value in registers.items():
        set_register(vga, 0x3D4, int(name[1:], 16), value)
    return machine


def test_an_empty_screen_has_25_lines():
    machine = shown(b"")
    assert machine.screen() == [""] * 25
    screen = read_screen(machine.memory, machine.board.vga)
    assert (screen.columns, len(screen.cells), screen.cursor) == (80, 4000, (0, 0))


def test_text_is_shown_in_lines():
    lines = shown(b"one".ljust(80) + b"  two").screen()
    assert lines[:3] == ["one", "  two", ""]


def test_it_begins_where_the_crtc_says():
    lines = shown(b"one".ljust(80) + b"two", _0d=80).screen()
    assert lines[:2] == ["two", ""]
    wrapped = shown(b"one".ljust(80) + b"two", _0c=0x3F, _0d=0xB0).screen()
    assert wrapped[:3] == ["", "one", "two"]


@pytest.mark.parametrize(
    ("place", "registers", "cursor"),
    [
        (0, {}, (0, 0)),
        (85, {}, (1, 5)),
        (2000, {}, None),
        (85, {"_0d": 80}, (0, 5)),
        (79, {"_0d": 80}, None),
        (85, {"_0a": 0x20}, None),
        (85, {"_0a": 15, "_0b": 14}, None),
    ],
)
def test_the_cursor(place, registers, cursor):
    machine = shown(b"", _0e=place >> 8, _0f=place & 0xFF, **registers)
    assert read_screen(machine.memory, machine.board.vga).cursor == cursor


def test_half_the_height_is_50_lines():
    assert len(shown(b"", _09=0x47).screen()) == 50


def test_code_page_437():
    assert len(CHARACTERS) == 256
    assert shown(b"\x01\xb3\xc4\x7f\x81").screen()[0] == "☺│─⌂ü"
    assert shown(b"\0\xff").screen()[0] == ""


#: Writes HI to the screen, moves the cursor behind it, and stops.
GUEST = """
    mov dword [0xb8000], 0x1f491f48
    mov edx, 0x3d4
    mov al, 0x0f
    out dx, al
    inc edx
    mov al, 2
    out dx, al
    cli
    hlt
"""


@pytest.mark.parametrize("technique", ["", "trap", "translate", "patch", "interpret", "hardware"])
def test_a_guest_writes_without_an_exit(technique):
    machine = VirtualMachine(technique=technique) if technique else Machine()
    machine.load(assemble(GUEST))
    result = machine.run()
    assert machine.screen()[0] == "HI"
    screen = read_screen(machine.memory, machine.board.vga)
    assert (screen.cursor, screen.cells[:4]) == ((0, 2), b"H\x1fI\x1f")
    assert "mmio_write" not in result.exits
    machine.load(assemble("hlt"))
    assert machine.screen()[0] == ""


def test_the_screen_is_part_of_a_snapshot():
    machine, other = Machine(), Machine()
    machine.load(assemble(GUEST))
    machine.run()
    other.restore(machine.save())
    assert other.screen()[0] == "HI"
