"""gdb's remote protocol without gdb: packets, commands, and packets that are none.

The commands are asked of a target that is a dictionary; what a real machine makes of them is
test_gdb_machine.py's and test_gdb_server.py's. Whatever comes in, no exception may come out.
"""

from __future__ import annotations

from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import Machine
from hypervisor.errors import HypervisorError
from hypervisor.gdb import packets
from hypervisor.gdb.machine import MachineTarget
from hypervisor.gdb.protocol import Answer, Order, Stub, stop_reply
from hypervisor.gdb.registers import CORE, REGISTERS, TOTAL_BYTES, describe
from hypervisor.gdb.target import Exited, Point, Signal, Stopped
from hypervisor.vm import VirtualMachine
from isa import assemble

EIP: Final = 8
MEMORY: Final = 0x100


class FakeTarget:
    """Registers and 256 bytes of memory at address 0."""

    def __init__(self) -> None:
        self.registers = [bytes(register.size) for register in REGISTERS]
        self.memory = bytearray(range(MEMORY))
        self.points: set[tuple[Point, int, int]] = set()

    def read_register(self, number: int) -> bytes:
        return self.registers[number]

    def write_register(self, number: int, data: bytes) -> None:
        if REGISTERS[number].name == "cs":
            raise HypervisorError("cs")
        self.registers[number] = data

    def read_memory(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address : address + size])

    def write_memory(self, address: int, data: bytes) -> bool:
        if address + len(data) > MEMORY:
            return False
        self.memory[address : address + len(data)] = data
        return True

    def insert(self, point: Point, address: int, size: int) -> bool:
        self.points.add((point, address, size))
        return len(self.points) < 3

    def remove(self, point: Point, address: int, size: int) -> None:
        self.points.discard((point, address, size))

    def monitor(self, command: str) -> str:
        return f"{command}!"


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def stub(target: FakeTarget) -> Stub:
    return Stub(target)


# -- Packets --------------------------------------------------------------------------------------


def decoded(*pieces: bytes) -> list[bytes | packets.Signal]:
    decoder = packets.Decoder()
    return [found for piece in pieces for found in decoder.feed(piece)]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_what_is_encoded_is_decoded(data: bytes, size: int) -> None:
    packet = packets.encode(packets.escape(data))
    pieces = [packet[at : at + size] for at in range(0, len(packet), size)]
    assert decoded(*pieces) == [data]


def test_packets_as_the_manual_has_them() -> None:
    assert packets.encode(b"OK") == b"$OK#9a"
    assert packets.encode(b"") == b"$#00"
    assert decoded(b"+$g#67$qC#b4-") == [
        packets.Signal.ACKNOWLEDGED, b"g", b"qC", packets.Signal.AGAIN,
    ]  # fmt: skip
    assert decoded(b"$m0,4#fD"[:-1], b"D") == [b"m0,4"]
    assert decoded(b"$X0,1:}\x03#" + packets.checksum(b"X0,1:}\x03")) == [b"X0,1:#"]


def test_what_is_no_packet() -> None:
    assert decoded(b"noise\x03") == [packets.Signal.INTERRUPT]
    assert decoded(b"$g#68", b"$g#67") == [packets.Signal.BROKEN, b"g"]
    assert decoded(b"$g#zz") == [packets.Signal.BROKEN]
    assert decoded(b"$" + bytes(3 * packets.PACKET_SIZE)) == [packets.Signal.BROKEN]


@given(st.binary(max_size=500))
def test_any_bytes_can_be_decoded(data: bytes) -> None:
    decoder = packets.Decoder()
    for at in range(0, len(data), 7):
        assert all(isinstance(x, (bytes, packets.Signal)) for x in decoder.feed(data[at : at + 7]))
    assert b"g" in list(decoder.feed(b"#00##00" + packets.encode(b"g")))


# -- Commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (b"?", b"T05thread:1;"),
        (b"m10,4", b"10111213"),
        (b"mfe,4", b"feff"),
        (b"m100,1", b"E0e"),
        (b"m0,0", b""),
        (b"m0", b"E01"),
        (b"m-1,4", b"E01"),
        (b"m0x1,4", b"E01"),
        (b"m 1,4", b"E01"),
        (b"m123456789,1", b"E01"),
        (b"M0,2:abcd", b"OK"),
        (b"M0,3:abcd", b"E01"),
        (b"M0,2:abxx", b"E01"),
        (b"M0,2", b"E01"),
        (b"Mff,2:abcd", b"E0e"),
        (b"X0,0:", b"OK"),
        (b"X0,2:\x00#", b"OK"),
        (b"X0,2:a", b"E01"),
        (b"p8", b"00000000"),
        (b"p10", b"00" * 10),
        (b"pffff", b"E01"),
        (b"p", b"E01"),
        (b"P8=78563412", b"OK"),
        (b"P8=785634", b"E01"),
        (b"P8", b"E01"),
        (b"Pa=00000000", b"E02"),
        (b"G00", b"E01"),
        (b"Z0,10,1", b"OK"),
        (b"Z1,10,1;X1,22", b"OK"),
        (b"Z2,10,4", b"OK"),
        (b"Z2,10,0", b"E01"),
        (b"Z2,ffffffff,2", b"E01"),
        (b"Z5,10,1", b""),
        (b"Z", b""),
        (b"Z0", b"E01"),
        (b"z4,10,4", b"OK"),
        (b"H", b"OK"),
        (b"Hg0", b"OK"),
        (b"T1", b"OK"),
        (b"vCont?", b"vCont;c;C;s;S"),
        (b"vCont", b"E01"),
        (b"vCont;", b"E01"),
        (b"vCont;x", b"E01"),
        (b"vCont;s:2", b"E01"),
        (b"vMustReplyEmpty", b""),
        (b"v", b""),
        (b"qC", b"QC1"),
        (b"qAttached", b"1"),
        (b"qfThreadInfo", b"m1"),
        (b"qsThreadInfo", b"l"),
        (b"qSymbol::", b"OK"),
        (b"qNothing", b""),
        (b"qRcmd,68", b"6821"),
        (b"qRcmd,6", b"E01"),
        (b"qXfer:auxv:read::0,10", b""),
        (b"qXfer:features:read:other.xml:0,10", b"E00"),
        (b"qXfer:features:read:target.xml:0", b"E01"),
        (b"qXfer:features:read:target.xml:ffffff,10", b"l"),
        (b"QNothing", b""),
        (b"", b""),
        (b"!", b""),
        (b"\xff\x00", b""),
        (b"cxyz", b"E01"),
        (b"C", b"E01"),
        (b"S05;zz", b"E01"),
    ],
)
def test_answers(stub: Stub, packet: bytes, answer: bytes) -> None:
    assert stub.answer(packet) == answer


@pytest.mark.parametrize(
    ("packet", "order", "eip"),
    [
        (b"c", Order.CONTINUE, 0),
        (b"c10", Order.CONTINUE, 0x10),
        (b"C05", Order.CONTINUE, 0),
        (b"C05;20", Order.CONTINUE, 0x20),
        (b"s", Order.STEP, 0),
        (b"s10", Order.STEP, 0x10),
        (b"S0b", Order.STEP, 0),
        (b"vCont;c", Order.CONTINUE, 0),
        (b"vCont;s:1;c", Order.STEP, 0),
        (b"vCont;s:p1.1;c:p1.-1", Order.STEP, 0),
        (b"vCont;c:2;S05:1", Order.STEP, 0),
        (b"D", Order.DETACH, 0),
        (b"D;1", Order.DETACH, 0),
        (b"k", Order.KILL, 0),
        (b"vKill;1", Order.KILL, 0),
    ],
)
def test_orders(stub: Stub, target: FakeTarget, packet: bytes, order: Order, eip: int) -> None:
    answer = stub.answer(packet)
    assert isinstance(answer, Answer)
    assert answer.order is order
    assert int.from_bytes(target.registers[EIP], "little") == eip


def test_features(stub: Stub) -> None:
    answer = stub.answer(b"qSupported:multiprocess+;swbreak+;xmlRegisters=i386")
    assert isinstance(answer, bytes)
    found = answer.split(b";")
    assert b"PacketSize=4000" in found
    assert {b"qXfer:features:read+", b"swbreak+", b"hwbreak+", b"QStartNoAckMode+"} <= {*found}


def test_acknowledgements_can_be_given_up(stub: Stub) -> None:
    assert stub.acknowledges
    assert stub.answer(b"QStartNoAckMode") == b"OK"
    assert not stub.acknowledges


def test_registers_are_all_read_and_written(stub: Stub, target: FakeTarget) -> None:
    values = b"".join(bytes([n]) * register.size for n, register in enumerate(REGISTERS))
    target.registers[0] = b"\1\2\3\4"
    assert stub.answer(b"g") == b"01020304" + b"00" * (TOTAL_BYTES - 4)
    assert stub.answer(b"G" + values.hex().encode()) == b"E02"  # CS
    assert target.registers[EIP] == bytes([EIP]) * 4


def test_points_are_what_they_are_called(stub: Stub, target: FakeTarget) -> None:
    assert stub.answer(b"Z3,20,4") == b"OK"
    assert stub.answer(b"Z0,20,1") == b"OK"
    assert target.points == {(Point.READ, 0x20, 4), (Point.SOFTWARE, 0x20, 1)}
    assert stub.answer(b"Z4,40,4") == b"E1c"
    assert stub.answer(b"z3,20,4") == b"OK"
    assert (Point.READ, 0x20, 4) not in target.points


def test_the_description_comes_in_pieces(stub: Stub) -> None:
    text, at = b"", 0
    while True:
        answer = stub.answer(b"qXfer:features:read:target.xml:%x,%x" % (at, 1000))
        assert isinstance(answer, bytes)
        piece = packets.unescape(answer[1:])
        text, at = text + piece, at + len(piece)
        if answer[:1] == b"l":
            break
    assert text.decode() == describe()
    assert [register.name for register in CORE[:10]] == [
        "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags",
    ]  # fmt: skip
    assert len(CORE) == 32


def test_stop_replies() -> None:
    assert stop_reply(Stopped()) == b"T05thread:1;"
    assert stop_reply(Stopped(Signal.INTERRUPTED)) == b"T02thread:1;"
    assert stop_reply(Stopped(Signal.TRAP, "watch:1000;")) == b"T05watch:1000;thread:1;"
    assert stop_reply(Exited(5)) == b"W05"


# -- Packets that mean nothing --------------------------------------------------------------------

COMMANDS: Final = [
    b"?", b"g", b"G", b"p", b"P", b"m", b"M", b"X", b"Z0,", b"Z2,", b"z4,", b"c", b"C", b"s", b"S",
    b"v", b"vCont;", b"vCont;s:", b"q", b"Q", b"H", b"T", b"D", b"k", b"qXfer:features:read:",
    b"qRcmd,", b"qSupported", b"P8=", b"m0,", b"M0,4:", b"X100000,8:",
]  # fmt: skip
PIECES: Final = [
    b"0", b"1", b"ffffffff", b"fffffff0", b"100000", b"deadbeef", b",", b":", b";", b"=", b"-",
    b"%", b"target.xml", b"\x00", b"\xff", b" ", b"_", b"0x10", b"68656c70", b"zz", b"\xc3\xa9",
]  # fmt: skip


def nonsense(rng: Random) -> bytes:
    """A packet's data, mostly near to one that means something."""
    command = rng.choice(COMMANDS)
    rest = b"".join(rng.choice(PIECES) for _ in range(rng.randint(0, 8)))
    return (command + rest)[: rng.randint(0, 80)]


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_packet_raises(data: list[bytes]) -> None:
    stub = Stub(FakeTarget())
    for packet in data:
        assert isinstance(stub.answer(packet), (bytes, Answer))


@pytest.mark.parametrize("technique", ["native", "interpret", "trap", "translate", "patch",
                                       "hardware"])  # fmt: skip
def test_no_packet_harms_a_machine(technique: str) -> None:
    """Registers and memory become whatever they are told; the machine runs all the same."""
    rng = Random(technique)
    for _ in range(6):
        machine: Machine = (
            Machine(ram="2M") if technique == "native"
            else VirtualMachine(technique=technique, ram="2M")
        )  # fmt: skip
        machine.load(assemble("again: inc eax\npush eax\npop ebx\npushf\npopf\njmp again"))
        target = MachineTarget(machine)
        target.attach()
        stub = Stub(target)
        for _ in range(250):
            answer = stub.answer(nonsense(rng))
            assert isinstance(answer, (bytes, Answer))
            if isinstance(answer, Answer) and answer.order in (Order.CONTINUE, Order.STEP):
                target.resume(stepping=answer.order is Order.STEP)
                machine.run(machine.ticks + rng.randint(1, 50))
                target.suspend()
        target.detach()
