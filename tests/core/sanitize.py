"""Run tests with a core built under the address and undefined-behaviour sanitizers.

`python -m tests.core.sanitize [pytest arguments]`, or `make sanitized`. The sources are copied to
build/sanitized and the core is built there, so the tree's own core stays as it is. The sanitizers'
runtime has to be there before Python is: it is preloaded. A finding ends the process: no test
passes over it.

Python itself leaves memory to the end of the process, so the leak detector is off for the tests.
A second, short run has it on, with Python's allocator replaced by malloc, through which the
detector can follow pointers; it counts only what csrc/ has allocated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
COPY: Final = ROOT / "build" / "sanitized"
FOLDERS: Final = ("csrc", "emulator", "guests", "hypervisor", "isa", "tests")
FILES: Final = ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in", "LICENSE")
DEFAULT_TESTS: Final = ("tests/core", "tests/emulator", "tests/hypervisor")
#: Random bytes as code and random accesses to devices, more of them; whoever names tests gets
#: those alone.
DEEP_TESTS: Final = ("-m", "deep", "tests/core/test_fuzz.py", "tests/emulator/test_device_fuzz.py")
#: What tests the tests: the same guests as elsewhere, five hundred times.
LEFT_OUT: Final = (
    "--ignore=tests/hypervisor/test_sensitivity.py",
    "--ignore=tests/hypervisor/test_translate_sensitivity.py",
)
RUNTIMES: Final = ("libasan.so", "libubsan.so")
#: Machines and CPUs made and dropped in many ways.
LEAK_TEST: Final = "tests.core.churn"
#: A frame of the core in a report: "#1 0x7f... in cpu_new csrc/api.c:163".
OUR_FRAME: Final = re.compile(r"^\s+#[0-9]+ .* in (\w+) .*\bcsrc/", re.MULTILINE)


def copy_sources() -> None:
    """Bring the copy up to date; what has not changed keeps its time, so a build is short."""
    COPY.mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        wanted = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if _is_source(path)}
        for stale in (COPY / folder).rglob("*"):
            if _is_source(stale) and stale.relative_to(COPY) not in wanted:
                stale.unlink()
        for path in wanted:
            _copy(path)
    for name in FILES:
        _copy(Path(name))


def _is_source(path: Path) -> bool:
    generated = path.name.startswith("_core") and path.suffix in (".so", ".c", ".o")
    return path.is_file() and "__pycache__" not in path.parts and not generated


def _copy(path: Path) -> None:
    target = COPY / path
    if target.exists() and target.stat().st_mtime == (ROOT / path).stat().st_mtime:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / path, target)


def build() -> None:
    environment = {**os.environ, "SEVENTEEN_SANITIZE": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=COPY, env=environment, check=True)


def runtimes() -> str:
    """The sanitizers' libraries, for LD_PRELOAD; an explanation where the compiler has none."""
    paths = []
    for name in RUNTIMES:
        command = ["gcc", f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            raise SystemExit(f"gcc has no {name}: install libgcc's sanitizers to run these tests")
        paths.append(path)
    return " ".join(paths)


def environment(**options: str) -> dict[str, str]:
    joined = ":".join(f"{key}={value}" for key, value in options.items())
    return {
        **os.environ,
        "LD_PRELOAD": runtimes(),
        "ASAN_OPTIONS": joined,
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "SEVENTEEN_SANITIZED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_tests(arguments: list[str]) -> int:
    if any(a.startswith("tests") for a in arguments):
        return _pytest(*arguments)
    return _pytest(*arguments, *DEFAULT_TESTS) or _pytest(*arguments, *DEEP_TESTS)


def _pytest(*arguments: str) -> int:
    surroundings = environment(detect_leaks="0", handle_segv="1", allocator_may_return_null="1")
    spread = [] if "-n" in arguments else ["-n", "auto"]  # a worker that dies fails its test
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *spread, *LEFT_OUT]
    return subprocess.run([*command, *arguments], cwd=COPY, env=surroundings).returncode


def find_leaks() -> int:
    """Make and drop machines; what csrc/ allocated must be gone."""
    surroundings = environment(detect_leaks="1", malloc_context_size="4", exitcode="0")
    surroundings |= {"PYTHONMALLOC": "malloc"}
    command = [sys.executable, "-m", LEAK_TEST]
    done = subprocess.run(command, cwd=COPY, env=surroundings, capture_output=True, text=True)
    leaks = sorted(set(OUR_FRAME.findall(done.stderr)))
    print(done.stdout, end="")
    if done.returncode or leaks:
        print(done.stderr, file=sys.stderr)
        print(f"leaked, allocated in: {', '.join(leaks)}", file=sys.stderr)
    return done.returncode or bool(leaks)


def main(arguments: list[str]) -> int:
    copy_sources()
    build()
    return run_tests(arguments) or find_leaks()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
