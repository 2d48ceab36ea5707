"""What gcc makes of freestanding C runs as it does on QEMU: the bench workloads, paging off and on.

The programs are those of tests/bench, with few iterations. Where QEMU is missing, what the same
source prints as a program of the host is the reference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import build
from tests.bench.machines import Qemu, Seventeen, Silicon

ITERATIONS = 3
SEVENTEEN, QEMU, SILICON = Seventeen(), Qemu(), Silicon()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels are built; skips, with the reason, where they cannot be."""
    if reason := build.kernels_missing():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.parametrize("paging", [0, 1], ids=["unpaged", "paged"])
@pytest.mark.parametrize("workload", build.WORKLOADS, ids=lambda workload: workload.name)
def test_prints_what_qemu_prints(workload: build.Workload, paging: int, folder: Path) -> None:
    kernel = build.build_kernel(workload, folder)
    options = f"iterations={ITERATIONS} paging={paging}"
    if QEMU.missing() is None:
        expected = QEMU.run_kernel(kernel, options).output
    elif SILICON.missing() is None:
        expected = SILICON.run_workload(workload, folder, ITERATIONS).output
    else:
        pytest.skip(f"no reference: {QEMU.missing()}; {SILICON.missing()}")
    assert expected.startswith("checksum=")
    assert SEVENTEEN.run_kernel(kernel, options).output == expected


@pytest.mark.parametrize("cost", build.SYSTEM_COSTS)
def test_system_calls_faults_and_cr3_loads_are_counted_as_on_qemu(cost: str, folder: Path) -> None:
    if reason := QEMU.missing():
        pytest.skip(reason)
    kernel = build.build_system(folder)
    options = f"cost={cost} iterations=1000"
    expected = QEMU.run_kernel(kernel, options).output
    assert expected == f"count={1000:08x}"
    assert SEVENTEEN.run_kernel(kernel, options).output == expected
