"""Packets: what gdb's remote protocol puts around its commands.

A packet is `$`, data, `#` and two hexadecimal digits: the sum of the data's bytes, modulo 256. In
the data `}` escapes the byte after it, which is changed by 0x20. Each side acknowledges packets
with `+`, or `-` to have one again, until the other asks it not to. Between packets a byte 0x03
means Ctrl-C. Read protocol.py next for what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final

#: Bytes of data in a packet at most, either way.
PACKET_SIZE: Final = 0x4000
_ESCAPE: Final = 0x7D
_FLIP: Final = 0x20
_END: Final = re.compile(rb"#([0-9a-fA-F]{2})")
#: Bytes of data that stand for something else.
_SPECIAL: Final = re.compile(rb"[#$}*]")
_DIGITS: Final = 2


class Signal(Enum):
    """What comes between packets."""

    INTERRUPT = b"\x03"
    ACKNOWLEDGED = b"+"
    AGAIN = b"-"
    BROKEN = b""  #: a packet whose sum is wrong, or that has no end


_SIGNALS: Final = {signal.value: signal for signal in Signal if signal.value}


def checksum(data: bytes) -> bytes:
    """Two digits."""
    return b"%02x" % (sum(data) & 0xFF)


def encode(data: bytes) -> bytes:
    """A packet with this data, which is text already or escaped."""
    return b"$" + data + b"#" + checksum(data)


def escape(data: bytes) -> bytes:
    """Any bytes, as data of a packet."""
    return _SPECIAL.sub(lambda found: bytes((_ESCAPE, found[0][0] ^ _FLIP)), data)


def unescape(data: bytes) -> bytes:
    """The bytes that a packet's data stands for."""
    if _ESCAPE not in data:
        return data
    found, flip = bytearray(), 0
    for byte in data:
        if byte == _ESCAPE and not flip:
            flip = _FLIP
        else:
            found.append(byte ^ flip)
            flip = 0
    return bytes(found)


class Decoder:
    """Takes bytes as they come, and yields packets' data and signals."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> Iterator[bytes | Signal]:
        """What some more bytes have completed. Bytes that belong to nothing are dropped."""
        self._bytes += data
        while self._bytes:
            first = self._bytes[:1]
            if first != b"$":
                self._bytes = self._bytes[1:]
                if first in _SIGNALS:
                    yield _SIGNALS[first]
                continue
            end = self._bytes.find(b"#")
            if end < 0 or len(self._bytes) <= end + _DIGITS:
                if len(self._bytes) > 2 * PACKET_SIZE:
                    self._bytes = b""
                    yield Signal.BROKEN
                return
            packet = self._bytes[1:end]
            found = _END.match(self._bytes, end)
            self._bytes = self._bytes[end + 1 + _DIGITS :]
            if found is None or found[1].lower() != checksum(packet):
                yield Signal.BROKEN
            else:
                yield unescape(packet)
