"""`--disk` and `--snapshot`: which image files are a machine's disks, and when they are let go.

The words are QEMU's: a file alone takes the lowest index that is free, `index=` chooses one, and
what else -drive says of a raw image on IDE may stand there as well. However a run ends - by itself,
by Ctrl-A X, by SIGTERM, SIGHUP or SIGINT - the disks are flushed and closed; but for SIGKILL, which
nobody can help: what was written is in the file then, too. emulator/disk.py has the images,
emulator/devices/ide.py the drives.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from hypervisor.cli.ending import before_ending
from hypervisor.cli.status import Stop, StopError

if TYPE_CHECKING:
    from emulator.disk import Disk

MOST: Final = 4  # emulator.disk.MOST_DISKS; a test compares
#: What else may stand behind a file, and with which values.
KEYS: Final = {
    "file": None,
    "index": tuple(map(str, range(MOST))),
    "snapshot": ("on", "off"),
    "format": ("raw",),
    "media": ("disk",),
    "if": ("ide",),
}


class Given(NamedTuple):
    """A --disk, as given."""

    file: str
    drive: int | None = None
    snapshot: bool = False


def parse_disk(text: str) -> Given:
    """``FILE[,index=N][,snapshot=on]``, a comma of the file's name doubled; UsageError."""
    values: dict[str, str] = {}
    for number, piece in enumerate(text.replace(",,", "\0").split(",")):
        piece = piece.replace("\0", ",")
        key, equals, value = piece.partition("=")
        if number == 0 and not (equals and key in KEYS):
            key, value = "file", piece
        elif key not in KEYS:
            raise click.UsageError(
                f"--disk {text}: expected some of {', '.join(f'{key}=' for key in KEYS)} behind "
                f"the file, found {piece!r} (a comma of its name is written twice)"
            )
        allowed = KEYS[key]
        if allowed is not None and value not in allowed:
            raise click.UsageError(
                f"--disk {text}: expected {key}={'|'.join(allowed)}, found {value!r}"
            )
        values[key] = value
    if not values.get("file"):
        raise click.UsageError(f"--disk {text}: expected the name of an image file")
    index = int(values["index"]) if "index" in values else None
    return Given(values["file"], index, values.get("snapshot") == "on")


def arrange(words: Sequence[str]) -> list[Given | None]:
    """All --disk options as drives, first to last; None: no such drive. UsageError."""
    drives: list[Given | None] = [None] * MOST
    given = [parse_disk(word) for word in words]
    if len(given) > MOST:
        raise click.UsageError(f"--disk: expected at most {MOST} disks, found {len(given)}")
    for disk in sorted(given, key=lambda disk: disk.drive is None):  # those with an index first
        index = drives.index(None) if disk.drive is None else disk.drive
        taken = drives[index]
        if taken is not None:
            raise click.UsageError(f"--disk: {taken.file} and {disk.file} both have index={index}")
        drives[index] = disk
    while drives and drives[-1] is None:
        drives.pop()
    return drives


@contextlib.contextmanager
def opened_disks(words: Sequence[str], snapshot: bool) -> Iterator[list[Disk | None]]:
    """The disks that --disk options name, until the block ends. StopError, or DiskError."""
    from emulator.disk import Disk

    drives = arrange(words)
    for named in filter(None, drives):
        if not os.path.exists(named.file):
            raise StopError(Stop.MISSING, f"{named.file}: No such file or directory")
    disks: list[Disk | None] = []

    def close() -> None:
        for disk in filter(None, disks):
            disk.close()

    try:
        for given in drives:
            disks.append(given and Disk(given.file, snapshot=snapshot or given.snapshot))
        with before_ending(close):
            yield disks
    finally:
        close()
