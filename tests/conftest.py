"""Hypothesis for all tests: the fast tier draws the same examples always, the deep tier new ones.

No deadline: a busy machine is no failure. ``make deep`` sets SEVENTEEN_DEEP.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fast", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.load_profile("deep" if os.environ.get("SEVENTEEN_DEEP") else "fast")
