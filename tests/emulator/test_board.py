"""The board: devices together, whatever a guest writes to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.board import Board
from emulator.bus import Claim
from emulator.clock import NEVER
from emulator.console import BytesInput
from emulator.devices.device import Device
from emulator.errors import MachineError


def make(text: bytes = b"") -> tuple[Board, bytearray]:
    """A board with input known beforehand, and what it prints."""
    out = bytearray()
    board = Board(
        ram=16 << 20,
        console_in=BytesInput(text),
        console_out=out.extend,
        debug_out=out.extend,
    )
    return board, out


PORTS = sorted(make()[0].bus.ports)
ACCESSES = st.tuples(
    st.sampled_from(["read", "write", "write", "wait", "acknowledge"]),
    st.one_of(st.sampled_from(PORTS), st.integers(0, 0xFFFF)),
    st.sampled_from([1, 1, 1, 2, 4]),
    st.one_of(st.integers(0, 0xFF), st.integers(0, 0xFFFFFFFF)),
)


def do(board: Board, action: str, port: int, size: int, value: int) -> int:
    """One thing that may happen to a board; its answer."""
    if action == "read":
        answer = board.bus.port_read(port, size)
        assert 0 <= answer < 1 << 8 * size
        return answer
    if action == "write":
        board.bus.port_write(port, size, value & (1 << 8 * size) - 1)
    elif action == "acknowledge":
        return board.pic.acknowledge() if board.interrupt else -1
    else:
        end = board.clock.now + value % 1_000_000
        for _ in range(20_000):
            if board.clock.next_tick > end:
                break
            board.clock.now = max(board.clock.now, board.clock.next_tick)
            board.run_due()
        board.clock.now = max(board.clock.now, min(end, board.clock.next_tick))
    return 0


@given(st.lists(ACCESSES, max_size=60), st.binary(max_size=40), st.integers(0, 60))
def test_no_register_write_upsets_the_board_and_a_snapshot_changes_nothing(accesses, text, cut):
    board, out = make(text)
    for access in accesses[:cut]:
        do(board, *access)
    saved = board.save()
    other, more = make()
    other.load(saved)
    other.clock.now = board.clock.now
    other.source._data = board.source._data  # type: ignore[attr-defined]
    assert other.save() == saved
    before = len(out)
    for access in accesses[cut:]:
        assert do(board, *access) == do(other, *access)
    assert other.save() == board.save()
    assert out[before:] == more


@given(st.lists(ACCESSES, max_size=40))
def test_time_always_goes_on(accesses):
    board, _ = make(b"text")
    for access in accesses:
        do(board, *access)
    for _ in range(100):
        if board.clock.next_tick == NEVER:
            break
        board.clock.now = max(board.clock.now, board.clock.next_tick)
        board.run_due()
        assert board.clock.next_tick > board.clock.now


def test_two_devices_cannot_have_a_port():
    class Rival(Device):
        name = "rival"
        ports = ((0x3FF, 2),)

    board, _ = make()
    with pytest.raises(MachineError, match="rival: 0x3ff belongs to com1"):
        board.plug(Rival(board))


def test_a_bus_entry_may_be_any_function():
    board, _ = make()
    board.bus.claim_ports(Claim("constant", 0x300, 4, max, lambda *_: None, width=4))
    assert board.bus.port_read(0x300, 4) == 0x300


def test_the_post_code_is_kept():
    board, _ = make()
    board.bus.port_write(0x80, 1, 0x5A)
    assert board.bus.port_read(0x80, 1) == 0x5A
