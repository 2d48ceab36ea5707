"""Attempts to notice a mutant, in a process of their own that is ended when one takes too long.

A mutant may make the hypervisor, or the core beneath it, go round for ever: no exception of ours
gets out of that. The process is a copy of this one, so it has all that has been prepared here, and
what a mutant leaves behind in caches ends with it. After an attempt that hangs, a new process goes
on with the next one.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tests.hypervisor.mutants import Change

SECONDS: Final = 10.0  #: what an attempt may take; a hundred times what most take
MOST_WORDS: Final = 2048  #: bytes of what was noticed
_NONE: Final = b"\0"  #: an attempt has noticed nothing

Notice = Callable[[], str]


def first_to_notice(
    change: Change, notices: Sequence[Notice], seconds: float = SECONDS
) -> tuple[int, str] | None:
    """Which notices a change first, and what. None does if they all return nothing, or hang."""
    with pytest.MonkeyPatch.context() as patch:
        change(patch)  # one that cannot be made must not pass for one that was noticed
    at = 0
    while at < len(notices):
        hung, found = _run_until(change, notices[at:], seconds)
        if found is not None:
            return at + found[0], found[1]
        at += hung + 1
    return None


def _run_until(
    change: Change, notices: Sequence[Notice], seconds: float
) -> tuple[int, tuple[int, str] | None]:
    """Run them in one process, to the first that notices or hangs: which, and what it found."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _notice_and_exit(change, notices, writable)
    os.close(writable)
    done = 0
    try:
        while done < len(notices):
            if not select.select([readable], [], [], seconds)[0]:
                return done, None
            said = os.read(readable, MOST_WORDS)
            if not said:
                return done, (done, "the process ends")
            quiet = len(said) - len(said.lstrip(_NONE))
            done += quiet
            if said[quiet:]:
                return done, (done, said[quiet:].decode(errors="replace"))
        return done, None
    finally:
        os.close(readable)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _notice_and_exit(change: Change, notices: Sequence[Notice], writable: int) -> None:
    try:
        change(pytest.MonkeyPatch())
        for notice in notices:
            os.write(writable, notice().encode()[:MOST_WORDS] or _NONE)
    finally:
        os._exit(1)
