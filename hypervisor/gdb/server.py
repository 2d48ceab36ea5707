"""The connection, and the guest that runs in between.

A `Session` stands where the machine stood: its `run` runs the machine, but as gdb wants it. There
is no thread: the machine runs for a slice of guest time, a tenth of a second or less, then the
socket is looked at for Ctrl-C, or for a new gdb. Where a run is cut so, the guest cannot tell.

As with QEMU's -S -s the guest waits for the first gdb. A gdb that detaches, or whose connection
breaks off, leaves it running; one that comes later stops it. What ends the guest ends the session,
but for a triple fault and what is outside the slice of IA-32: those stop it for gdb to look, and
end it when it shall go on.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Final

from emulator.machine import SLICE_TICKS
from emulator.result import Stop
from hypervisor.gdb import packets
from hypervisor.gdb.machine import MachineTarget
from hypervisor.gdb.protocol import Answer, Order, Stub, stop_reply
from hypervisor.gdb.target import Exited, Signal, Stopped

if TYPE_CHECKING:
    from emulator.machine import Machine
    from emulator.result import Result

HOST: Final = "127.0.0.1"
CHUNK: Final = 65536
#: How long a slice may take, in seconds; and the least there is to gain by a longer one.
LONGEST: Final = 0.1
SHORTEST: Final = 0.02
FIRST_SLICE: Final = 100_000  #: ticks
LEAST_SLICE: Final = 1_000
KEYS: Final = 0.1  #: seconds between two looks at a terminal while the guest stands still
FAREWELL: Final = 1.0  #: seconds that gdb has to read the last packet
#: Ends that gdb may look at first.
SIGNALS: Final = {Stop.TRIPLE_FAULT: Signal.FAULT, Stop.UNSUPPORTED: Signal.ILLEGAL}


def listen(port: int) -> socket.socket:
    """A socket that waits at a port of this host, any free one for 0; OSError if it is taken."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((HOST, port))
        server.listen(1)
    except OSError:
        server.close()
        raise
    return server


class Gone(Exception):
    """gdb has closed the connection, or it broke off."""


class Connection:
    """Packets to and from one gdb."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = packets.Decoder()
        self._waiting: list[bytes | packets.Signal] = []
        self._last = b""
        self.acknowledges = True

    def fileno(self) -> int:
        """For select."""
        return self._peer.fileno()

    def close(self) -> None:
        """Say nothing more; let gdb read what has been said."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_WR)
            end = time.monotonic() + FAREWELL
            while (left := end - time.monotonic()) > 0:
                self._peer.settimeout(left)
                if not self._peer.recv(CHUNK):
                    break
        self._peer.close()

    def send(self, data: bytes) -> None:
        """Send a packet."""
        self._last = packets.encode(data)
        self._write(self._last)

    def _write(self, data: bytes) -> None:
        try:
            self._peer.sendall(data)
        except OSError:
            raise Gone from None

    def read(self) -> None:
        """Take in what has come; there is something."""
        try:
            data = self._peer.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            raise Gone
        self._waiting += self._decoder.feed(data)

    def take(self) -> bytes | packets.Signal | None:
        """The next packet's data, or Ctrl-C; None if there is none yet. Acknowledges."""
        while self._waiting:
            found = self._waiting.pop(0)
            if isinstance(found, bytes):
                if self.acknowledges:
                    self._write(packets.Signal.ACKNOWLEDGED.value)
                return found
            if found is packets.Signal.INTERRUPT:
                return found
            if found is packets.Signal.BROKEN and self.acknowledges:
                self._write(packets.Signal.AGAIN.value)
            elif found is packets.Signal.AGAIN:
                self._write(self._last)
        return None

    def poll(self) -> bool:
        """Has gdb asked for the guest to stop? What else it says while it runs has to wait."""
        if select.select([self], [], [], 0)[0]:
            self.read()
        if packets.Signal.INTERRUPT in self._waiting:
            self._waiting.remove(packets.Signal.INTERRUPT)
            return True
        return False


class Session:
    """A machine under gdb; `run` and `ticks` are the machine's."""

    def __init__(self, machine: Machine, server: socket.socket) -> None:
        self._machine, self._server = machine, server
        self._target = MachineTarget(machine)
        self._stub = Stub(self._target)
        self._connection: Connection | None = None
        self._standing = True  #: the guest stands still
        self._stepping = False
        self._slice = FIRST_SLICE
        self._limit: int | None = None
        self._end: Result | None = None  #: the guest has come to it

    @property
    def address(self) -> str:
        """Where gdb is awaited."""
        host, port = self._server.getsockname()
        return f"{host}:{port}"

    @property
    def ticks(self) -> int:
        """Guest time."""
        return self._machine.ticks

    def run(self, max_ticks: int | None = None) -> Result:
        """Run the guest to its end, or to a tick."""
        self._limit = max_ticks
        if max_ticks is not None and self.ticks >= max_ticks:
            return self._machine.run(max_ticks)
        while True:
            result = self._stand() if self._standing else self._advance()
            if result is not None:
                self._close(result)
                return result

    def close(self) -> None:
        """The run has ended, in whatever way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._server.close()

    # -- while the guest stands still --------------------------------------------------------------

    def _stand(self) -> Result | None:
        """Do what gdb says until the guest shall go on; the result once it shall not any more."""
        try:
            while True:
                connection = self._connection or self._accept()
                packet = connection.take()
                if packet is None:
                    self._wait(connection)
                    connection.read()
                elif isinstance(packet, bytes):
                    answer = self._stub.answer(packet)
                    if isinstance(answer, Answer):
                        return self._obey(connection, answer)
                    connection.send(answer)
                    connection.acknowledges = self._stub.acknowledges
        except Gone:
            return self._leave()

    def _accept(self) -> Connection:
        """Wait for a gdb, and take it in."""
        self._wait(self._server)
        peer, _ = self._server.accept()
        self._connection = Connection(peer)
        self._stub = Stub(self._target)
        self._target.attach()
        return self._connection

    def _wait(self, for_: socket.socket | Connection) -> None:
        """Until there is something to read. A person's keys go to the guest, or end us."""
        source = self._machine.board.source
        while not select.select([for_], [], [], KEYS if source.live else None)[0]:
            self._machine.board.poll()

    def _obey(self, connection: Connection, answer: Answer) -> Result | None:
        if answer.reply is not None:
            connection.send(answer.reply)
        if answer.order is Order.KILL:
            result = self._end or self._machine.run(self.ticks)
            stop = Stop.REQUESTED
            return result._replace(stop=stop, status=stop.status, reason="ended by gdb")
        if answer.order is Order.DETACH:
            return self._leave()
        self._standing = False
        if self._end is not None:
            return self._end
        self._stepping = answer.order is Order.STEP
        self._target.resume(stepping=self._stepping)
        return None

    def _leave(self) -> Result | None:
        """gdb has gone, and the guest goes on without it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._target.detach()
        self._standing = self._stepping = False
        return self._end

    # -- while it runs -----------------------------------------------------------------------------

    def _advance(self) -> Result | None:
        """Run for a slice; the result if that was all, and gdb has nothing to look at."""
        waits = self._machine.halted
        start = time.perf_counter()
        result = self._machine.run(self._until(waits))
        self._adapt(time.perf_counter() - start)
        if result.stop is Stop.OUT_OF_TICKS and not self._is_limit(result):
            if self._stepping and not (waits and self._machine.halted):
                self._stop(Signal.TRAP)
            else:
                self._poll()
        elif result.stop in (Stop.BREAKPOINT, Stop.REQUESTED):
            trapped = self._stepping or result.stop is Stop.BREAKPOINT
            self._stop(Signal.TRAP if trapped else Signal.INTERRUPTED)
        else:
            return self._finish(result)
        return None

    def _until(self, waits: bool) -> int:
        """The tick at which a slice ends."""
        until = self.ticks + (1 if self._stepping and not waits else self._slice)
        return until if self._limit is None else min(until, self._limit)

    def _is_limit(self, result: Result) -> bool:
        return self._limit is not None and result.ticks >= self._limit

    def _adapt(self, seconds: float) -> None:
        if seconds < SHORTEST:
            self._slice = min(2 * self._slice, SLICE_TICKS)
        elif seconds > LONGEST:
            self._slice = max(self._slice // 2, LEAST_SLICE)

    def _poll(self) -> None:
        """Look at gdb, or for one."""
        try:
            if self._connection is None:
                if select.select([self._server], [], [], 0)[0]:
                    self._stop(Signal.TRAP)
                    self._accept()
            elif self._connection.poll():
                self._stop(Signal.INTERRUPTED)
        except Gone:
            self._leave()

    def _stop(self, signal: Signal) -> None:
        """The guest stands still; gdb, if there is one, is waiting to hear of it."""
        self._target.suspend()
        self._standing, self._stepping = True, False
        self._stub.state = Stopped(signal, self._target.reason)
        self._say(self._stub.state)

    def _say(self, state: Stopped | Exited) -> None:
        if self._connection is not None:
            with contextlib.suppress(Gone):  # it will be found out when it is read from
                self._connection.send(stop_reply(state))

    # -- the end -----------------------------------------------------------------------------------

    def _finish(self, result: Result) -> Result | None:
        """The guest has come to its end; the result, unless gdb may look at it first."""
        self._end = result
        signal = SIGNALS.get(result.stop)
        if self._connection is None or signal is None:
            return result
        self._stop(signal)
        return None

    def _close(self, result: Result) -> None:
        """Tell gdb, if it is there and still waits."""
        if self._connection is not None and not self._standing:
            self._say(Exited(result.status))
        self._target.detach()
        self.close()
