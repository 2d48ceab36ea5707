"""Reading the files that a command line names; what goes wrong ends the command with one line.

Here and in all that `seventeen run` loads, files are opened by name: pathlib takes 3 ms to load.
"""

from __future__ import annotations

import os

from hypervisor.cli.status import Stop, StopError

LARGEST = 256 << 20  # bytes; no program of a 32-bit machine with toy memory is larger


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise StopError(Stop.MISSING, f"{path}: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the name
        raise StopError(Stop.MISSING, f"{os.fspath(path)!r}: {error}") from None
    if len(data) > LARGEST:
        raise StopError(Stop.BAD_INPUT, f"{path}: larger than {LARGEST >> 20} MiB")
    return data


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a result."""
    try:
        with open(path, "wb") as stream:
            stream.write(data)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StopError(Stop.BAD_INPUT, f"{path}: cannot write: {reason}") from None
