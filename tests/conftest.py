"""For all tests: what Hypothesis draws, and --accept.

The fast tier draws the same examples always, the deep tier new ones. Tests marked deep run only
when asked for: ``-m deep``, or ``make deep``, which also sets SEVENTEEN_DEEP.

No deadline: a busy machine is no failure. With ``--accept`` what
a golden file is compared with becomes its content; look at the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fast", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.load_profile("deep" if os.environ.get("SEVENTEEN_DEEP") else "fast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="Rewrite golden files.")


class Golden:
    """Compares text with what is recorded in a file, or records it."""

    def __init__(self, accept: bool) -> None:
        self._accept = accept

    def check(self, path: Path, text: str) -> None:
        if self._accept:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no {path.name}: record it with --accept"
        assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The way to golden files."""
    return Golden(request.config.getoption("--accept"))
