"""Guests that attack the machine they run on, drawn by Hypothesis.

Each `Attack` is some code that goes for what is not the guest's: the monitor area at the top of
linear space, by every kind of segment, descriptor, stack, table and jump, and by its own page
tables. Between them lie random bytes. The world around (tests/core/world.py) has a handler for
every vector that skips a byte, so a guest goes on after its faults. Read test_isolation.py next.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from hypothesis import strategies as st

from hypervisor.monitor import GDT as MONITOR_GDT
from hypervisor.monitor import IDT as MONITOR_IDT
from hypervisor.monitor import LDT as MONITOR_LDT
from hypervisor.monitor import LDT_SELECTOR, MONITOR, TSS_SELECTOR
from hypervisor.monitor import TSS as MONITOR_TSS
from tests.core.world import CODE, CODE_OF, DATA, DATA_OF, DIRECTORY, GDT, HIGH_TABLE, SPARE, Setup

Strategy = st.SearchStrategy[bytes]
SEGMENT_PREFIXES: Final = (b"", b"\x26", b"\x2e", b"\x36", b"\x3e", b"\x64", b"\x65")
DATA_REGISTERS: Final = (0, 2, 3, 4, 5)  #: numbers of ES, SS, DS, FS, GS in MOV Sreg
#: Access bytes: data, expand-down data, code; present and accessed; for each ring.
PLAIN_SEGMENTS: Final = (0x93, 0x97, 0x9B, 0x9F, 0xB3, 0xBB, 0xBF, 0xD3, 0xDB, 0xF3, 0xF7, 0xFB,
                         0xFF)  # fmt: skip
STACK: Final = DATA + 0x3000


def le32(value: int) -> bytes:
    return struct.pack("<I", value & 0xFFFF_FFFF)


def store32(address: int, value: int) -> bytes:
    """mov dword [address], value"""
    return b"\xc7\x05" + le32(address) + le32(value)


def load(register: int, value: int) -> bytes:
    """mov register, value"""
    return bytes([0xB8 + register]) + le32(value)


places = st.one_of(
    st.builds(
        lambda place, offset: place + offset & 0xFFFF_FFFF,
        st.sampled_from([MONITOR, MONITOR_GDT, MONITOR_LDT, MONITOR_IDT, MONITOR_TSS,
                         MONITOR_TSS + 104, 0xFFFF_F000, 0, MONITOR + 0x40_0000 - 4]),
        st.integers(-16, 16),
    ),
    st.integers(MONITOR, 0xFFFF_FFFF),
    st.integers(0, 0xFFFF_FFFF),
)  # fmt: skip
selectors = st.one_of(
    st.sampled_from([*CODE_OF, *DATA_OF, TSS_SELECTOR, LDT_SELECTOR, 0x48, 0x50, 0xFFE8]),
    st.builds(lambda index: SPARE + 8 * index, st.integers(0, 7)),
    st.builds(lambda index: index * 8 + 4, st.integers(0, 16)),
    st.integers(0, 0x1FFF).map(lambda index: index * 8),
).flatmap(lambda selector: st.integers(0, 3).map(lambda rpl: selector | rpl))
spare_places = st.integers(0, 7).map(lambda index: GDT + SPARE + 8 * index)


@st.composite
def access(draw: st.DrawFn) -> bytes:
    """A load or store through any segment, by an address in a register or in the code."""
    prefix = draw(st.sampled_from(SEGMENT_PREFIXES)) + draw(st.sampled_from([b"", b"\x66"]))
    opcode = draw(st.sampled_from([b"\x8a", b"\x8b", b"\x88", b"\x89", b"\x01", b"\x86", b"\x87",
                                   b"\x0f\xa3", b"\x0f\xab", b"\x0f\xb1", b"\xff",
                                   b"\x0f\xc7"]))  # fmt: skip
    register = draw(st.integers(0, 7))
    place = draw(places)
    if draw(st.booleans()):
        return prefix + opcode + bytes([register << 3 | 5]) + le32(place)
    return load(3, place) + prefix + opcode + bytes([register << 3 | 3])


@st.composite
def segment_load(draw: st.DrawFn) -> bytes:
    """A segment register from any selector, and an access through it."""
    register = draw(st.sampled_from(DATA_REGISTERS))
    code = b"\x66\xb8" + struct.pack("<H", draw(selectors)) + bytes([0x8E, 0xC0 | register << 3])
    prefix = SEGMENT_PREFIXES[register + 1]
    return code + prefix + b"\xa1" + le32(draw(places))


@st.composite
def descriptor(draw: st.DrawFn) -> bytes:
    """Any descriptor, in the guest's GDT, then loaded: bases that wrap, expand-down segments."""
    base = draw(st.one_of(st.just(0), places))
    limit = draw(st.sampled_from([0, 0xFFF, 0xFFFF, 0xF_FFFF]))
    access = draw(st.one_of(st.sampled_from(PLAIN_SEGMENTS), st.integers(0, 255)))
    flags = draw(st.sampled_from([0x4, 0xC, 0x0, 0x8]))
    place = draw(spare_places)
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | access << 8 | limit & 0xF0000 | flags << 20 | base & 0xFF00_0000
    register = draw(st.sampled_from(DATA_REGISTERS))
    selector = place - GDT | draw(st.sampled_from([0, 3]))
    code = store32(place, low) + store32(place + 4, high)
    code += b"\x66\xb8" + struct.pack("<H", selector) + bytes([0x8E, 0xC0 | register << 3])
    offset = draw(st.one_of(places, st.builds(lambda at: at - base & 0xFFFF_FFFF, places)))
    return code + SEGMENT_PREFIXES[register + 1] + b"\xa1" + le32(offset)


@st.composite
def question(draw: st.DrawFn) -> bytes:
    """LAR, LSL, VERR or VERW of any selector; or SGDT and its like."""
    code = b"\x66\xb8" + struct.pack("<H", draw(selectors))
    forms = [b"\x0f\x02\xd8", b"\x0f\x03\xd8", b"\x0f\x00\xe0", b"\x0f\x00\xe8",
             b"\x0f\x01\x05" + le32(DATA), b"\x0f\x01\x0d" + le32(DATA),
             b"\x0f\x00\xc8"]  # fmt: skip
    return code + draw(st.sampled_from(forms))


@st.composite
def stack(draw: st.DrawFn) -> bytes:
    """A stack pointer that is none, and something that uses it."""
    uses = [b"\x50", b"\x58", b"\x60", b"\x61", b"\x9c", b"\x9d", b"\xc8\x10\0\x04", b"\xc9",
            b"\xc3", b"\xcb", b"\xcf", b"\xcd\x80", b"\x0f\x0b", b"\x16\x17",
            b"\x06\x0f\xa1"]  # fmt: skip
    code = load(4, draw(places)) + load(5, draw(places))
    return code + draw(st.sampled_from(uses)) + load(4, STACK)


@st.composite
def jump(draw: st.DrawFn) -> bytes:
    """Control to a place that is not ours, near or far."""
    place, selector = draw(places), struct.pack("<H", draw(selectors))
    return draw(st.sampled_from([
        load(0, place) + b"\xff\xe0", load(0, place) + b"\xff\xd0",
        b"\xea" + le32(place) + selector, b"\x9a" + le32(place) + selector,
        b"\x68" + le32(int.from_bytes(selector, "little")) + b"\x68" + le32(place) + b"\xcb",
        b"\x9c\x68" + le32(int.from_bytes(selector, "little")) + b"\x68" + le32(place) + b"\xcf",
    ]))  # fmt: skip


@st.composite
def string(draw: st.DrawFn) -> bytes:
    """A string instruction, across the boundary perhaps, forwards or back."""
    opcode = draw(st.sampled_from([b"\xa4", b"\xa5", b"\xaa", b"\xab", b"\xac", b"\xad", b"\xae",
                                   b"\xa6", b"\x6c", b"\x6e"]))  # fmt: skip
    here = st.sampled_from([DATA + 0x800, STACK])
    code = load(6, draw(st.one_of(places, here))) + load(7, draw(st.one_of(places, here)))
    code += load(1, draw(st.sampled_from([1, 4, 40, 5000]))) + draw(
        st.sampled_from([b"\xfc", b"\xfd"])
    )
    return code + draw(st.sampled_from(SEGMENT_PREFIXES)) + b"\xf3" + opcode + b"\xfc"


@st.composite
def table(draw: st.DrawFn) -> bytes:
    """LGDT, LIDT, LLDT, LTR or a control register with a place that is not ours."""
    place, limit = draw(places), draw(st.sampled_from([0, 7, 0x7F, 0xFFFF]))
    code = store32(DATA + 0x700, limit | (place & 0xFFFF) << 16) + store32(
        DATA + 0x704, place >> 16
    )
    forms = [b"\x0f\x01\x15" + le32(DATA + 0x700), b"\x0f\x01\x1d" + le32(DATA + 0x700),
             load(0, place) + b"\x0f\x22\xd8", load(0, place | 1) + b"\x0f\x22\xc0",
             load(0, draw(selectors)) + b"\x0f\x00\xd0", load(0, draw(selectors)) + b"\x0f\x00\xd8",
             load(3, place) + b"\x0f\x01\x3b", load(0, place & 0x1C) + b"\x0f\x22\xe0"]  # fmt: skip
    return code + draw(st.sampled_from(forms))


@st.composite
def mapping(draw: st.DrawFn) -> bytes:
    """An entry of the guest's page tables, for the top of linear space or below, and a reload."""
    rights = draw(st.integers(0, 0xFFF))
    anywhere = st.integers(0, 0xFFFFF).map(lambda page: page << 12)
    frame = draw(st.one_of(st.sampled_from([HIGH_TABLE, DIRECTORY, DATA]), anywhere))
    place = draw(st.one_of(
        st.sampled_from([DIRECTORY + 1023 * 4, DIRECTORY + 1022 * 4, DIRECTORY + 4]),
        st.integers(0x20, 0x80).map(lambda index: HIGH_TABLE + 4 * index)))  # fmt: skip
    reload = draw(st.sampled_from([b"", b"\x0f\x20\xd8\x0f\x22\xd8"]))
    return store32(place, frame | rights) + reload + b"\xa1" + le32(draw(places))


attacks: Final = st.one_of(
    st.binary(min_size=1, max_size=10),
    *(access(), segment_load(), descriptor(), question(), stack(), jump(), string(), table()),
    mapping(),
)


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    """A hostile kernel, or a hostile user under a harmless one."""
    pieces: list[Any] = draw(st.lists(attacks, min_size=1, max_size=8))
    code = b"".join(pieces)
    return Setup(
        code=code + b"\xe9" + struct.pack("<i", -len(code) - 5),
        registers=(*draw(st.tuples(places, places, places, places)), STACK, STACK + 0x100,
                   *draw(st.tuples(places, places))),
        entry=CODE,
        flags=draw(st.sampled_from([0, 0x200, 0x3000, 0x3200])),
        ring=draw(st.sampled_from([0, 0, 3])),
        paging=draw(st.booleans()),
        cr0=draw(st.sampled_from([0, 0x10000])),
        cr4=draw(st.sampled_from([0, 0x10])),
    )  # fmt: skip
