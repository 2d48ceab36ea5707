"""A disk's sectors: a raw image file, or bytes in memory. What a drive has instead of platters.

A sector that is written goes to the file at once, so that it outlives this process however that
ends; `flush` makes it outlive the host. With `snapshot` writes stay in memory, over a file that
is only read, and are gone in the end; a disk of bytes is always so. While a file is open it is
locked: against everybody if it is written to, against writers if it is read. What the host cannot
do while the guest runs is a `DiskError` for the drive to tell its guest, and a line on stderr.
Left out: image formats other than raw. Read devices/ide.py next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from emulator.errors import DiskError, MachineError

SECTOR: Final = 512  #: bytes
MOST_DISKS: Final = 4
#: Sectors that 48 bits of address reach; nobody's file is larger.
MOST_SECTORS: Final = 1 << 48


class Disk:
    """Sectors 0 to `sectors` - 1.

    source: the name of an image file, or the contents themselves. snapshot: keep what is written in
    memory. DiskError, in one line, if the file is missing, in use, empty, no whole number of
    sectors, or may not be written to.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        *,
        snapshot: bool = False,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        """warn: takes the line about an error of the host's; stderr if not given."""
        self._warn = _print if warn is None else warn
        self._warned: set[str] = set()
        self._descriptor = -1
        self._base = b""
        #: Written sectors that are not in the file; None: all that is written goes to the file.
        self._written: dict[int, bytes] | None = None
        if isinstance(source, (bytes, bytearray)):
            self.name = f"{len(source)} bytes"
            self._base, self._written = bytes(source), {}
            self.sectors = _count(self.name, len(source))
            return
        self.name = os.fspath(source)
        if snapshot:
            self._written = {}
        self._descriptor = _open(self.name, snapshot)
        try:
            _lock(self._descriptor, self.name, snapshot)
            self.sectors = _count(self.name, os.lseek(self._descriptor, 0, os.SEEK_END))
        except BaseException:
            os.close(self._descriptor)
            self._descriptor = -1
            raise

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def read(self, first: int, count: int) -> bytes:
        """`count` sectors from `first` on; DiskError if the host cannot read them."""
        data = self._read_base(first * SECTOR, count * SECTOR)
        if not self._written:
            return data
        written = self._written
        return b"".join(
            written.get(first + n, data[n * SECTOR : (n + 1) * SECTOR]) for n in range(count)
        )

    def write(self, first: int, data: bytes) -> None:
        """Write whole sectors from `first` on; DiskError if the host cannot write them."""
        if self._written is not None:
            for at in range(0, len(data), SECTOR):
                self._written[first + at // SECTOR] = bytes(data[at : at + SECTOR])
            return
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], first * SECTOR + done)
        except OSError as error:
            raise self._failed("write", first + done // SECTOR, error.strerror) from None

    def flush(self) -> None:
        """Return when all that was written would survive the host's loss of power; DiskError."""
        if self._written is not None or self._descriptor < 0:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a device that has nothing to flush
                raise self._failed("flush", None, error.strerror) from None

    def close(self) -> None:
        """Flush, and let others have the file. Harmless if it is closed already."""
        if self._descriptor < 0:
            return
        try:
            self.flush()
        except DiskError:
            pass  # the line about it has been printed
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def save(self) -> dict[int, bytes] | None:
        """What was written, by sector, if it is in memory alone; None if it is in the file."""
        return None if self._written is None else dict(self._written)

    def load(self, written: Mapping[int, bytes] | None) -> None:
        """Take back what `save` returned; a file that is written to stays as it is."""
        if self._written is not None:
            self._written = dict(written or {})

    def _read_base(self, offset: int, size: int) -> bytes:
        if self._base:
            return self._base[offset : offset + size]
        data = b""
        try:
            while len(data) < size:
                piece = os.pread(self._descriptor, size - len(data), offset + len(data))
                if not piece:
                    what = "the file has become shorter"
                    raise self._failed("read", (offset + len(data)) // SECTOR, what)
                data += piece
        except OSError as error:
            sector = (offset + len(data)) // SECTOR
            raise self._failed("read", sector, error.strerror) from None
        return data

    def _failed(self, action: str, sector: int | None, reason: str | None) -> DiskError:
        """The error of one access. A guest tries again and again: each reason is printed once."""
        where = "" if sector is None else f" sector {sector}"
        message = f"{self.name}: cannot {action}{where}: {reason}"
        kind = f"{action} {reason}"
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(message)
        return DiskError(message)


DiskSource = Disk | str | os.PathLike[str] | bytes | None


def open_disks(sources: Sequence[DiskSource]) -> list[Disk | None]:
    """The disks of a machine, first to last; None: no such drive. DiskError; MachineError."""
    if len(sources) > MOST_DISKS:
        raise MachineError(f"expected at most {MOST_DISKS} disks, found {len(sources)}")
    disks: list[Disk | None] = []
    try:
        for source in sources:
            disks.append(source if source is None or isinstance(source, Disk) else Disk(source))
    except BaseException:
        close_opened(sources, disks)
        raise
    return disks


def close_opened(sources: Sequence[Any], disks: Sequence[Disk | None]) -> None:
    """Close those disks that `open_disks` opened itself."""
    for source, disk in zip(sources, disks, strict=False):
        if disk is not None and disk is not source:
            disk.close()


def _print(line: str) -> None:
    print(f"seventeen: {line}", file=sys.stderr, flush=True)


def _open(name: str, snapshot: bool) -> int:
    """A descriptor of the file, for reading and, without `snapshot`, for writing."""
    how = os.O_RDONLY if snapshot else os.O_RDWR
    try:
        descriptor = os.open(name, how | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and not snapshot:
            hint = "a snapshot keeps what the guest writes in memory"
            raise DiskError(f"{name}: not writable: {error.strerror}; {hint}") from None
        raise DiskError(f"{name}: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the name
        raise DiskError(f"{name!r}: {error}") from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return descriptor
    os.close(descriptor)
    what = "a directory" if stat.S_ISDIR(mode) else "neither"
    raise DiskError(f"{name}: expected a file or a block device, found {what}")


def _lock(descriptor: int, name: str, snapshot: bool) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if snapshot else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DiskError(f"{name}: in use: another machine has it open") from None
    except OSError:
        pass  # a file system without locks


def _count(name: str, size: int) -> int:
    """How many sectors so many bytes are."""
    if size == 0:
        raise DiskError(f"{name}: expected a disk image, found an empty file")
    if size % SECTOR or size // SECTOR > MOST_SECTORS:
        raise DiskError(f"{name}: expected a multiple of {SECTOR} bytes, found {size}")
    return size // SECTOR
