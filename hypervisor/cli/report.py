"""How a run ended: a line and its explanation on stderr, a table on request, JSON for scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from hypervisor.cli.files import write_file
from hypervisor.cli.status import Stop

if TYPE_CHECKING:
    from emulator.machine import Machine
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


def print_end(result: Result, name: str, *, always: bool = False) -> None:
    """Say why the run ended; unless the guest ended it itself, or always."""
    if result.status < Stop.USAGE and not always:
        return
    print(f"seventeen: {name}: {result.reason}", file=sys.stderr)
    for line in result.details:
        print(f"  {line}", file=sys.stderr)


def facts_of(machine: Machine) -> dict[str, Any]:
    """What a virtual machine can tell beyond a bare one's result; nothing of a bare one."""
    module = sys.modules.get("hypervisor.vm")
    if module is None or not isinstance(machine, module.VirtualMachine):
        return {}
    vm: Any = machine
    statistics = dict(vm.technique.statistics())
    return {
        **({"translation": statistics} if statistics else {}),
        "mmu": vm.mmu,
        "interpreted": dict(sorted(vm.interpreted.items())),
        "shadow_fills": vm.paging.fills,
        "shadow_drops": vm.paging.drops,
    }


class Outcome(NamedTuple):
    """How a program ended."""

    name: str
    technique: str
    result: Result
    facts: dict[str, Any]


def print_stats(outcome: Outcome, seconds: float) -> None:
    """The run in figures."""
    from hypervisor.cli.tables import print_table

    result, facts = outcome.result, outcome.facts
    rows = [
        ("technique", outcome.technique),
        *(
            (name.replace("_", " "), str(fact))
            for name, fact in facts.items()
            if not isinstance(fact, dict)
        ),
        ("ticks", f"{result.ticks:,}"),
        ("cycles", f"{result.cycles:,}"),
        ("wall seconds", f"{seconds:.3f}"),
        ("instructions a second", f"{result.ticks / seconds:,.0f}" if seconds else ""),
        *((f"exits: {reason}", f"{count:,}") for reason, count in result.exits.most_common()),
        *_interpreted_rows(facts.get("interpreted", {})),
        *_translation_rows(facts.get("translation", {})),
        ("exit status", str(result.status)),
    ]
    print_table(("what", "count"), rows, right=frozenset({"count"}), stream=sys.stderr)


def _interpreted_rows(counts: dict[str, int]) -> list[tuple[str, str]]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [(f"interpreted: {reason}", f"{count:,}") for reason, count in ordered]


def _translation_rows(counts: dict[str, int]) -> list[tuple[str, str]]:
    return [(f"translation: {name.replace('_', ' ')}", f"{n:,}") for name, n in counts.items()]


def as_json(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """A run as plain data; what the wall clock measured stands apart, it never repeats."""
    name, technique, result, facts = outcome
    rate = result.ticks / seconds if seconds else None
    wall = {"seconds": seconds, "instructions_per_second": rate}
    return {"program": name, "technique": technique, **facts, **result.to_json(), "wall": wall}


def write_json(path: str, data: Any) -> None:
    """Write plain data to a file."""
    import json

    write_file(path, json.dumps(data, indent=2).encode() + b"\n")
