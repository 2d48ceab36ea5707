"""How a run ended: a line and its explanation on stderr, a table on request, JSON for scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hypervisor.cli.files import write_file
from hypervisor.cli.status import Stop

if TYPE_CHECKING:
    from emulator.result import Result


def statuses() -> list[tuple[str, str]]:
    """All exit statuses with their meanings: the guest's, the machine's, the command line's."""
    from emulator.result import Stop as MachineStop

    rows = {stop.value: stop.meaning for stop in Stop}
    for stop in MachineStop:
        if stop.status:
            rows.setdefault(stop.status, stop.words)
    table = [("0-63", "the guest's own, written to port 0xF4; 0 if it halts for good")]
    return table + [(str(number), rows[number]) for number in sorted(rows)]


def print_end(result: Result, name: str) -> None:
    """Say why the run ended, unless the guest ended it itself."""
    if result.status < Stop.USAGE:
        return
    print(f"seventeen: {name}: {result.reason}", file=sys.stderr)
    for line in result.details:
        print(f"  {line}", file=sys.stderr)


def print_stats(result: Result, seconds: float) -> None:
    """The run in figures."""
    from hypervisor.cli.tables import print_table

    rows = [
        ("ticks", f"{result.ticks:,}"),
        ("cycles", f"{result.cycles:,}"),
        ("wall seconds", f"{seconds:.3f}"),
        ("instructions a second", f"{result.ticks / seconds:,.0f}" if seconds else ""),
        *((f"exits: {reason}", f"{count:,}") for reason, count in result.exits.most_common()),
        ("exit status", str(result.status)),
    ]
    print_table(("what", "count"), rows, right=frozenset({"count"}), stream=sys.stderr)


def as_json(result: Result, name: str, technique: str, seconds: float) -> dict[str, Any]:
    """The result as plain data; what the wall clock measured stands apart, it never repeats."""
    rate = result.ticks / seconds if seconds else None
    wall = {"seconds": seconds, "instructions_per_second": rate}
    return {"program": name, "technique": technique, **result.to_json(), "wall": wall}


def write_json(path: str, result: Result, name: str, technique: str, seconds: float) -> None:
    """Write the result to a file."""
    import json

    text = json.dumps(as_json(result, name, technique, seconds), indent=2)
    write_file(path, text.encode() + b"\n")
