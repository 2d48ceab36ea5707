"""Wall time of single operations under every technique, and their cycles beside it.

    python -m tests.bench.operations [--quick] [--cost-model NAME] [OPERATION...]

What `seventeen compare` measures, with more runs of each: see hypervisor/experiments/workloads.py.
"""

from __future__ import annotations

import argparse

from hypervisor.experiments.compare import compare
from hypervisor.experiments.compare_report import COLUMNS, rows
from hypervisor.experiments.workloads import COUNTED
from isa.cost import DEFAULT_MODEL, MODELS

REPEATS, QUICK_REPEATS = 9, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="operations", description=__doc__.split("\n")[0])
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=", ".join(COUNTED))
    parser.add_argument("--quick", action="store_true", help="few runs of each")
    names = [model.name for model in MODELS]
    parser.add_argument("--cost-model", default=DEFAULT_MODEL, choices=names)
    options = parser.parse_args()
    unknown = sorted(set(options.operations) - set(COUNTED))
    if unknown:
        parser.error(f"no operation {', '.join(unknown)}; there are {', '.join(COUNTED)}")
    comparison = compare(
        options.operations or list(COUNTED),
        repeat=QUICK_REPEATS if options.quick else REPEATS,
        cost_model=options.cost_model,
    )
    for line in (COLUMNS, *rows(comparison)):
        print("  ".join(f"{cell:>20}" for cell in line[:-1]))


if __name__ == "__main__":
    main()
