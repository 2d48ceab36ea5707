"""The connection to gdb, over a real socket: who waits for whom, and what ends when.

A `Client` speaks the protocol as gdb does, in this thread; the session runs in another.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pytest

from emulator import Machine
from emulator.result import Result, Stop
from hypervisor.gdb import packets
from hypervisor.gdb.server import Session, listen
from hypervisor.vm import VirtualMachine
from isa import assemble

PATIENCE: Final = 20  #: seconds
RAM: Final = "2M"
LOOP: Final = "again: inc dword [0x180000]\njmp again\n"
COUNT: Final = "mov ecx, 100000\nagain: inc dword [0x180000]\nloop again\nmov al, 6\nout 0xF4, al\n"
START: Final = 0x100000
EACH: Final = pytest.mark.parametrize("technique", ["native", "trap", "translate", "hardware"])


class Client:
    """What gdb is to the stub."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._decoder = packets.Decoder()
        self._found: list[bytes | packets.Signal] = []

    def send(self, data: bytes) -> None:
        self.socket.sendall(packets.encode(data))

    def read(self) -> bytes:
        """The next packet's data; b"(closed)" if there will be none."""
        while True:
            while self._found:
                found = self._found.pop(0)
                if isinstance(found, bytes):
                    self.socket.sendall(b"+")
                    return found
            try:
                data = self.socket.recv(4096)
            except ConnectionResetError:
                data = b""
            if not data:
                return b"(closed)"
            self._found += self._decoder.feed(data)

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.read()

    def close(self) -> None:
        self.socket.close()


class Run:
    """A session in a thread."""

    def __init__(self, machine: Machine, max_ticks: int | None = None) -> None:
        self.machine = machine
        server = listen(0)
        self.session = Session(machine, server)
        self.port = int(self.session.address.split(":")[1])
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(max_ticks,), daemon=True)
        self._thread.start()

    def _run(self, max_ticks: int | None) -> None:
        try:
            with contextlib.closing(self.session):
                self.result = self.session.run(max_ticks)
        except BaseException as error:
            self.error = error

    def client(self) -> Client:
        return Client(self.port)

    def end(self) -> Result:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    @property
    def running(self) -> bool:
        return self._thread.is_alive()


def machine(technique: str, text: str) -> Machine:
    made: Any = (
        Machine(ram=RAM) if technique == "native" else VirtualMachine(technique=technique, ram=RAM)
    )
    made.load(assemble(text))
    return made  # type: ignore[no-any-return]


@contextlib.contextmanager
def connected(run: Run) -> Iterator[Client]:
    client = run.client()
    try:
        yield client
    finally:
        client.close()


@EACH
def test_the_guest_waits_at_its_first_instruction(technique: str) -> None:
    run = Run(machine(technique, COUNT))
    time.sleep(0.05)
    assert run.machine.ticks == 0
    with connected(run) as client:
        assert client.ask(b"?") == b"T05thread:1;"
        assert client.ask(b"p8") == START.to_bytes(4, "little").hex().encode()
        assert client.ask(b"vCont;c") == b"W06"
        assert client.read() == b"(closed)"
    assert run.end().status == 6


@EACH
def test_control_c_stops_a_guest_that_runs(technique: str) -> None:
    run = Run(machine(technique, LOOP))
    with connected(run) as client:
        for _ in range(3):
            client.send(b"c")
            time.sleep(0.02)
            client.socket.sendall(b"\x03")
            assert client.read() == b"T02thread:1;"
            before = client.ask(b"m180000,4")
            assert client.ask(b"m180000,4") == before
        assert client.ask(b"vKill;1") == b"OK"
    result = run.end()
    assert (result.stop, result.status, result.reason) == (Stop.REQUESTED, 71, "ended by gdb")


@EACH
def test_detach_leaves_the_guest_running_to_its_end(technique: str) -> None:
    run = Run(machine(technique, COUNT))
    with connected(run) as client:
        assert client.ask(f"Z0,{START + 5:x},1".encode()) == b"OK"
        assert client.ask(b"Z2,180000,4") == b"OK"
        assert client.ask(b"c") == b"T05swbreak:;thread:1;"
        assert client.ask(b"D") == b"OK"
        assert client.read() == b"(closed)"
    result = run.end()
    plain = machine(technique, COUNT).run()
    assert (result.status, result.ticks) == (6, plain.ticks)
    assert result.registers == plain.registers


def test_a_connection_that_breaks_off_leaves_it_running_too() -> None:
    for wait in (False, True):
        run = Run(machine("native", COUNT))
        client = run.client()
        client.ask(b"Z0,%x,1" % (START + 5))
        if wait:
            client.send(b"vCont;c")
        client.close()
        assert run.end().status == 6


def test_another_gdb_stops_it_again() -> None:
    run = Run(machine("native", LOOP))
    with connected(run) as client:
        assert client.ask(b"D") == b"OK"
    time.sleep(0.05)
    assert run.running
    with connected(run) as client:
        assert client.ask(b"?") == b"T05thread:1;"
        first = run.machine.ticks
        assert first > 0
        assert client.ask(b"vCont;s:1") == b"T05thread:1;"
        assert run.machine.ticks == first + 1
        client.send(b"k")
    assert run.end().reason == "ended by gdb"


@EACH
def test_a_triple_fault_can_be_looked_at(technique: str) -> None:
    run = Run(machine(technique, "mov eax, 0x1234\nud2\n"))
    with connected(run) as client:
        assert client.ask(b"c") == b"T0bthread:1;"
        assert client.ask(b"p0") == b"34120000"
        assert client.ask(b"p8") == (START + 5).to_bytes(4, "little").hex().encode()
        assert client.ask(b"?") == b"T0bthread:1;"
        assert client.ask(b"s") == b"W43"
    assert run.end().stop is Stop.TRIPLE_FAULT


def test_a_triple_fault_with_nobody_there() -> None:
    run = Run(machine("native", "mov ecx, 100000\nagain: loop again\nud2\n"))
    with connected(run) as client:
        assert client.ask(b"D") == b"OK"
    assert run.end().stop is Stop.TRIPLE_FAULT


def test_what_is_outside_the_slice_can_be_looked_at() -> None:
    run = Run(machine("native", "mov eax, cr0\nand eax, ~1\nmov cr0, eax\n"))
    with connected(run) as client:
        assert client.ask(b"c") == b"T04thread:1;"
        assert client.ask(b"c") == b"W45"
    assert run.end().stop is Stop.UNSUPPORTED


def test_halts_and_limits_are_exits() -> None:
    for text, limit, reply in (("cli\nhlt", None, b"W00"), (LOOP, 5000, b"W44")):
        run = Run(machine("native", text), limit)
        with connected(run) as client:
            assert client.ask(b"c") == reply
        run.end()


def test_a_limit_that_steps_come_to() -> None:
    run = Run(machine("native", LOOP), 3)
    with connected(run) as client:
        assert client.ask(b"s") == b"T05thread:1;"
        assert client.ask(b"s") == b"T05thread:1;"
        assert client.ask(b"s") == b"W44"
    assert run.end().ticks == 3


def test_packets_are_acknowledged_until_that_is_given_up() -> None:
    run = Run(machine("native", LOOP))
    with connected(run) as client:
        client.socket.sendall(b"$qC#b4")
        assert client.socket.recv(1) == b"+"
        assert client.read() == b"QC1"
        client.socket.sendall(b"$qC#b5")
        assert client.socket.recv(1) == b"-"
        client.socket.sendall(b"-")  # the last one again
        assert client.read() == b"QC1"
        assert client.ask(b"QStartNoAckMode") == b"OK"
        client.socket.sendall(b"$qC#b4")
        assert client.socket.recv(1) == b"$"
        client.send(b"k")
    run.end()


def test_the_port_is_of_this_host_alone_and_taken_once() -> None:
    server = listen(0)
    host, port = server.getsockname()
    assert host == "127.0.0.1"
    with pytest.raises(OSError, match="in use"):
        listen(port)
    server.close()


def test_noise_on_the_line() -> None:
    """Bytes of any kind, and connections that break off anywhere: the guest still ends well."""
    rng = Random(1)
    run = Run(machine("translate", LOOP))
    for _ in range(8):
        client = run.client()
        with contextlib.suppress(OSError):
            for _ in range(rng.randint(0, 30)):
                data = bytes(rng.choice(b"$#+-\x03}*gGmMXZz0cs,;:?q\xff\x00") for _ in range(20))
                client.socket.sendall(data if rng.random() < 0.5 else packets.encode(data[:4]))
        client.close()
        assert run.running
    with connected(run) as client:
        while client.ask(b"vKill;1") != b"OK":
            pass
    assert run.end().stop is Stop.REQUESTED
