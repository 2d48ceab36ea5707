"""The commands: what a packet asks, and what it is answered.

A `Stub` answers packets about a machine that stands still, and says what shall become of the
machine; server.py has it done. It keeps no state of the guest's: a `Target` has that. What it does
not know is answered by an empty packet, as the protocol wants it, and what is malformed or cannot
be done by an error, `E` and two digits; no packet may end more than itself. Source: "Debugging
with GDB", E.2 to E.5 and E.8. Read machine.py next.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from hypervisor.errors import HypervisorError
from hypervisor.gdb.packets import PACKET_SIZE, escape
from hypervisor.gdb.registers import REGISTERS, TOTAL_BYTES, describe
from hypervisor.gdb.target import Exited, Point, Stopped, Target

OK: Final = b"OK"
UNKNOWN: Final = b""
MALFORMED: Final = b"E01"
REFUSED: Final = b"E02"
UNMAPPED: Final = b"E0e"  #: EFAULT
NO_ANNEX: Final = b"E00"
NO_ROOM: Final = b"E1c"  #: ENOSPC
THREAD: Final = b"1"
FEATURES: Final = (
    b"PacketSize=%x;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+;QStartNoAckMode+"
    % PACKET_SIZE
)
LINEAR: Final = 0xFFFF_FFFF
#: Hexadecimal text takes two bytes for each of what it says.
MOST_MEMORY: Final = PACKET_SIZE // 2
_NUMBER: Final = re.compile(rb"[0-9a-fA-F]{1,8}")
_ACTION: Final = re.compile(rb"([cs]|[CS][0-9a-fA-F]{2})(?::(?:p[-0-9a-fA-F]+\.)?([-0-9a-fA-F]+))?")


class Order(Enum):
    """What becomes of the machine."""

    CONTINUE = "continue"
    STEP = "step"
    DETACH = "detach"
    KILL = "kill"


class Answer(NamedTuple):
    """An order, and a reply that goes out at once; None: when it has been carried out, if ever."""

    order: Order
    reply: bytes | None = None


class MalformedPacket(Exception):
    """It is answered by an error."""


def number(text: bytes) -> int:
    """A hexadecimal number of 32 bits."""
    if not _NUMBER.fullmatch(text):
        raise MalformedPacket
    return int(text, 16)


def numbers(text: bytes, count: int, separator: bytes = b",") -> list[int]:
    """So many of them."""
    parts = text.split(separator)
    if len(parts) != count:
        raise MalformedPacket
    return [number(part) for part in parts]


def from_hex(text: bytes) -> bytes:
    """Bytes, two digits each."""
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise MalformedPacket from None


def to_hex(data: bytes) -> bytes:
    """The digits."""
    return data.hex().encode()


def stop_reply(state: Stopped | Exited) -> bytes:
    """What tells gdb that the machine stands still, or is no more."""
    if isinstance(state, Exited):
        return b"W%02x" % (state.status & 0xFF)
    return b"T%02x%sthread:%s;" % (state.signal, state.reason.encode(), THREAD)


class Stub:
    """Answers packets; `state` is how the machine stands."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.state: Stopped | Exited = Stopped()
        self.acknowledges = True
        self._commands: dict[bytes, Callable[[bytes], bytes | Answer]] = {
            b"?": lambda data: stop_reply(self.state),
            b"g": self._read_registers,
            b"G": self._write_registers,
            b"p": self._read_register,
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"X": self._write_binary,
            b"Z": self._insert,
            b"z": self._remove,
            b"c": lambda data: self._resume(Order.CONTINUE, data),
            b"C": lambda data: self._signalled(Order.CONTINUE, data),
            b"s": lambda data: self._resume(Order.STEP, data),
            b"S": lambda data: self._signalled(Order.STEP, data),
            b"v": self._verbose,
            b"q": self._query,
            b"Q": self._set,
            b"H": lambda data: OK,  # there is one thread
            b"T": lambda data: OK,
            b"D": lambda data: Answer(Order.DETACH, OK),
            b"k": lambda data: Answer(Order.KILL),
        }

    def answer(self, packet: bytes) -> bytes | Answer:
        """Answer a packet's data."""
        command = self._commands.get(packet[:1])
        if command is None:
            return UNKNOWN
        try:
            return command(packet[1:])
        except MalformedPacket:
            return MALFORMED
        except HypervisorError:
            return REFUSED

    # -- registers ---------------------------------------------------------------------------------

    def _read_registers(self, data: bytes) -> bytes:
        del data
        return b"".join(to_hex(self._target.read_register(n)) for n in range(len(REGISTERS)))

    def _write_registers(self, data: bytes) -> bytes:
        values = from_hex(data)
        if len(values) != TOTAL_BYTES:
            raise MalformedPacket
        at = 0
        for index, register in enumerate(REGISTERS):
            self._target.write_register(index, values[at : at + register.size])
            at += register.size
        return OK

    @staticmethod
    def _register(text: bytes) -> int:
        index = number(text)
        if index >= len(REGISTERS):
            raise MalformedPacket
        return index

    def _read_register(self, data: bytes) -> bytes:
        return to_hex(self._target.read_register(self._register(data)))

    def _write_register(self, data: bytes) -> bytes:
        name, separator, value = data.partition(b"=")
        index = self._register(name)
        values = from_hex(value)
        if not separator or len(values) != REGISTERS[index].size:
            raise MalformedPacket
        self._target.write_register(index, values)
        return OK

    # -- memory ------------------------------------------------------------------------------------

    def _read_memory(self, data: bytes) -> bytes:
        address, size = numbers(data, 2)
        found = self._target.read_memory(address, min(size, MOST_MEMORY))
        return to_hex(found) if found or not size else UNMAPPED

    def _write_memory(self, data: bytes) -> bytes:
        return self._write(data, from_hex)

    def _write_binary(self, data: bytes) -> bytes:
        return self._write(data, lambda values: values)

    def _write(self, data: bytes, decode: Callable[[bytes], bytes]) -> bytes:
        where, separator, text = data.partition(b":")
        address, size = numbers(where, 2)
        values = decode(text)
        if not separator or len(values) != size:
            raise MalformedPacket
        return OK if self._target.write_memory(address, values) else UNMAPPED

    # -- breakpoints and watchpoints ---------------------------------------------------------------

    @staticmethod
    def _point(data: bytes) -> tuple[Point, int, int] | None:
        """Kind, address and size; None for a kind that there is not."""
        digit, *rest = data.split(b";")[0].split(b",")
        kinds = {point.digit.encode(): point for point in Point}
        if digit not in kinds:
            return None
        address, size = numbers(b",".join(rest), 2)
        point = kinds[digit]
        if not point.is_breakpoint and not 0 < size <= LINEAR - address + 1:
            raise MalformedPacket
        return point, address, size

    def _insert(self, data: bytes) -> bytes:
        found = self._point(data)
        if found is None:
            return UNKNOWN
        return OK if self._target.insert(*found) else NO_ROOM

    def _remove(self, data: bytes) -> bytes:
        found = self._point(data)
        if found is None:
            return UNKNOWN
        self._target.remove(*found)
        return OK

    # -- running -----------------------------------------------------------------------------------

    def _resume(self, order: Order, where: bytes) -> Answer:
        if where:
            eip = next(n for n, register in enumerate(REGISTERS) if register.name == "eip")
            self._target.write_register(eip, number(where).to_bytes(4, "little"))
        return Answer(order)

    def _signalled(self, order: Order, data: bytes) -> Answer:
        """With a signal before the address, which a machine has no use for."""
        signal, _, where = data.partition(b";")
        number(signal)
        return self._resume(order, where)

    def _verbose(self, data: bytes) -> bytes | Answer:
        name = re.split(rb"[;?:]", data, maxsplit=1)[0]
        if data == b"Cont?":
            return b"vCont;c;C;s;S"
        if name == b"Cont":
            return self._actions(data[len(b"Cont;") :])
        if name == b"Kill":
            return Answer(Order.KILL, OK)
        return UNKNOWN

    @staticmethod
    def _actions(data: bytes) -> Answer:
        """Of several actions the first is meant that names our thread, or none."""
        found = None
        for text in data.split(b";"):
            action = _ACTION.fullmatch(text)
            if action is None:
                raise MalformedPacket
            if found is None and action[2] in (None, THREAD, b"-1", b"0"):
                found = Order.STEP if action[1][:1] in b"sS" else Order.CONTINUE
        if found is None:
            raise MalformedPacket
        return Answer(found)

    # -- queries -----------------------------------------------------------------------------------

    def _query(self, data: bytes) -> bytes:
        name, _, rest = data.partition(b":")
        if name == b"Xfer":
            return self._transfer(rest)
        if data.startswith(b"Rcmd,"):
            command = from_hex(data[len(b"Rcmd,") :]).decode(errors="replace")
            return to_hex(self._target.monitor(command).encode()) or OK
        if data.startswith(b"ThreadExtraInfo,"):
            return to_hex(b"the CPU")
        return _QUERIES.get(name, UNKNOWN)

    @staticmethod
    def _transfer(data: bytes) -> bytes:
        if not data.startswith(b"features:read:"):
            return UNKNOWN
        annex, _, where = data[len(b"features:read:") :].partition(b":")
        if annex != b"target.xml":
            return NO_ANNEX
        start, size = numbers(where, 2)
        text = describe().encode()
        piece = text[start : start + min(size, MOST_MEMORY)]
        return (b"m" if start + len(piece) < len(text) else b"l") + escape(piece)

    def _set(self, data: bytes) -> bytes:
        if data != b"StartNoAckMode":
            return UNKNOWN
        self.acknowledges = False
        return OK


_QUERIES: Final = {
    b"Supported": FEATURES,
    b"Attached": b"1",
    b"C": b"QC" + THREAD,
    b"fThreadInfo": b"m" + THREAD,
    b"sThreadInfo": b"l",
    b"Symbol": OK,
}
