"""A progress bar for experiments that take a while: on stderr, and only if a person looks there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], object]]:
    """A function to call with how much is done, of how much, and what comes now."""
    if not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title)
        yield lambda done, total, name: progress.update(
            task, completed=done, total=total, description=name or title
        )
