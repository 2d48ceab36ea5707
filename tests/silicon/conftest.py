"""The silicon oracle, started once for all tests of this folder; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.silicon.oracle import Silicon, missing


@pytest.fixture(scope="session")
def silicon() -> Iterator[Silicon]:
    """The host's CPU."""
    reason = missing()
    if reason:
        pytest.skip(f"no silicon oracle: {reason}")
    with Silicon() as oracle:
        yield oracle
