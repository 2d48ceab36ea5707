"""The bus: who answers where, wide accesses piece by piece, nobody as all ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.bus import Bus, Claim
from emulator.errors import MachineError


class Store:
    """Bytes on ports; remembers how it was accessed."""

    def __init__(self, first: int, count: int, width: int = 1) -> None:
        self.bytes = {first + n: n for n in range(count)}
        self.accesses: list[tuple[str, int, int]] = []
        self.claim = Claim("store", first, count, self.read, self.write, width)

    def read(self, port: int, size: int) -> int:
        self.accesses.append(("r", port, size))
        return sum(self.bytes[port + n] << 8 * n for n in range(size))

    def write(self, port: int, size: int, value: int) -> None:
        self.accesses.append(("w", port, size))
        for n in range(size):
            self.bytes[port + n] = value >> 8 * n & 0xFF


@pytest.mark.parametrize("size", [1, 2, 4])
def test_nobody_reads_all_ones_and_swallows_writes(size):
    bus = Bus()
    bus.port_write(0x1234, size, 0)
    assert bus.port_read(0x1234, size) == (1 << 8 * size) - 1
    bus.memory_write(0xFEE00000, size, 0)
    assert bus.memory_read(0xFEE00000, size) == (1 << 8 * size) - 1


def test_a_wide_access_reaches_an_8_bit_device_byte_by_byte_lowest_first():
    store, bus = Store(0x60, 4), Bus()
    bus.claim_ports(store.claim)
    bus.port_write(0x60, 4, 0x44332211)
    assert store.accesses == [("w", 0x60, 1), ("w", 0x61, 1), ("w", 0x62, 1), ("w", 0x63, 1)]
    assert bus.port_read(0x61, 2) == 0x3322


def test_an_access_may_reach_two_devices_and_a_gap():
    bus = Bus()
    bus.claim_ports(Store(0x10, 1).claim)
    bus.claim_ports(Store(0x13, 2).claim)
    assert bus.port_read(0x10, 4) == 0x00FFFF00


def test_a_wide_device_gets_what_is_aligned_whole():
    store, bus = Store(0x1F0, 8, width=2), Bus()
    bus.claim_ports(store.claim)
    bus.port_read(0x1F0, 2)
    bus.port_read(0x1F1, 2)
    bus.port_read(0x1F0, 4)
    assert store.accesses == [
        ("r", 0x1F0, 2), ("r", 0x1F1, 1), ("r", 0x1F2, 1), ("r", 0x1F0, 2), ("r", 0x1F2, 2)
    ]  # fmt: skip


def test_the_last_port_wraps_to_nobody():
    bus = Bus()
    bus.claim_ports(Store(0xFFFF, 1).claim)
    assert bus.port_read(0xFFFF, 2) == 0xFF00


@pytest.mark.parametrize("other", [Store(0x60, 1), Store(0x50, 0x20), Store(0x6F, 1)])
def test_a_port_has_one_owner(other):
    bus = Bus()
    bus.claim_ports(Store(0x60, 16).claim)
    with pytest.raises(MachineError, match="belongs to store"):
        bus.claim_ports(other.claim)


@pytest.mark.parametrize(("first", "count"), [(0xFFFF, 2), (-1, 2), (5, 0)])
def test_a_claim_lies_within_the_ports(first, count):
    with pytest.raises(MachineError, match="outside"):
        Bus().claim_ports(Claim("odd", first, count, lambda p, s: 0, lambda p, s, v: None))


def test_memory_is_claimed_by_whole_pages():
    store, bus = Store(0xB8000, 0x1000, width=4), Bus()
    bus.claim_memory(store.claim)
    bus.memory_write(0xB8004, 4, 0xCAFE)
    assert bus.memory_read(0xB8004, 2) == 0xCAFE
    with pytest.raises(MachineError, match="whole pages"):
        bus.claim_memory(Store(0xC0010, 0x1000).claim)


SIZES = st.sampled_from([1, 2, 4])


@given(st.integers(0, 20), SIZES, SIZES, st.binary(min_size=4, max_size=4))
def test_width_never_changes_what_is_read_back(port, size, width, data):
    store, bus = Store(0, 32, width), Bus()
    bus.claim_ports(store.claim)
    value = int.from_bytes(data[:size], "little")
    bus.port_write(port, size, value)
    assert bus.port_read(port, size) == value
    assert bytes(store.bytes[port + n] for n in range(size)) == data[:size]


def test_a_device_may_take_many_elements_at_once_or_none():
    store, bus = Store(0x1F0, 1, width=4), Bus()
    written = []

    def write_block(port, size, data):
        written.append((port, size, data))
        return len(data) // size - 1

    bus.claim_ports(store.claim._replace(read_block=lambda port, size, count: b"abcd"))
    bus.claim_ports(store.claim._replace(first=0x170, write_block=write_block))
    assert bus.port_read_block(0x1F0, 2, 9) == b"abcd"
    assert bus.port_write_block(0x170, 2, memoryview(b"123456")) == 2
    assert written == [(0x170, 2, b"123456")]
    assert bus.accesses == 4
    assert bus.port_read_block(0x170, 2, 9) == bus.port_read_block(0x60, 2, 9) == b""
    for port in (0x1F0, 0x60):
        assert bus.port_write_block(port, 2, memoryview(b"12")) == 0


def test_elements_wider_than_the_device_are_no_block():
    bus = Bus()
    bus.claim_ports(Store(0x60, 1).claim._replace(read_block=lambda port, size, count: b"abcd"))
    assert bus.port_read_block(0x60, 2, 2) == b""
