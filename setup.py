"""Build the C core with headers rendered from the instruction table; all else is in pyproject.toml.

The headers are no sources: they are written below the build directory, and only when their text
changes, so that a second build compiles nothing. `emulator/build_core.py` says what is compiled.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # the table is needed to build the core, before anything is installed


class BuildCore(build_ext):
    """cffi calls `pre_run` just before it writes the module's C source."""

    def pre_run(self, ext: Any, ffi: Any) -> None:
        from emulator.build_core import write_headers

        folder = Path(self.build_temp) / "generated"
        ext.depends += write_headers(folder)
        ext.include_dirs.append(str(folder))


setup(cffi_modules=["emulator/build_core.py:ffibuilder"], cmdclass={"build_ext": BuildCore})
