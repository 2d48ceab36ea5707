"""gdb's `monitor` commands: what gdb itself has no words for.

They only look. A command is a function of the machine that returns what gdb prints; its docstring
is its line of `monitor help`. Read machine.py for who calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from emulator.core import SEGMENTS, ExitReason
from hypervisor.gdb.breakpoints import as_virtual

if TYPE_CHECKING:
    from emulator.machine import Machine


def ticks(machine: Machine) -> str:
    """guest time: instructions retired"""
    return f"{machine.ticks:,}"


def info(machine: Machine) -> str:
    """the technique, guest time, and exits by reason"""
    vm = as_virtual(machine)
    counts: Mapping[str, int]
    if vm is None:
        lines = ["technique: native"]
        counts = {r.name.lower(): machine.exits[r] for r in ExitReason if machine.exits[r]}
    else:
        lines = [f"technique: {vm.technique.name}, mmu: {vm.mmu}"]
        counts = vm.counts
    lines.append(f"ticks: {machine.ticks:,}" + (", halted" if machine.halted else ""))
    lines += _table("exits", counts)
    if vm is not None:
        lines += _table("interpreted", vm.interpreted)
        lines += _table("translation", vm.technique.statistics())
    return "\n".join(lines)


def segments(machine: Machine) -> str:
    """segment registers with their descriptors, as loaded; descriptor tables"""
    state = machine.cpu.state
    named = [*zip(SEGMENTS, state.seg, strict=True), ("ldtr", state.ldtr), ("tr", state.tr)]
    lines = [
        f"{name:4} {s.selector:04x} base {s.base:08x} limit {s.limit:08x} rights {s.attributes:05x}"
        for name, s in named
    ]
    for name in ("gdtr", "idtr"):
        table = getattr(state, name)
        lines.append(f"{name}      base {table.base:08x} limit {table.limit:08x}")
    return "\n".join((*lines, f"cpl  {state.cpl}"))


def debug(machine: Machine) -> str:
    """the guest's debug registers, which gdb leaves alone"""
    values = machine.cpu.state.dr
    return "\n".join(f"dr{number} {values[number]:08x}" for number in (0, 1, 2, 3, 6, 7))


def help_(machine: Machine) -> str:
    """this list"""
    del machine
    return "\n".join(f"{name:10}{command.__doc__}" for name, command in COMMANDS.items())


COMMANDS: Final[dict[str, Callable[[Machine], str]]] = {
    "help": help_,
    "info": info,
    "ticks": ticks,
    "segments": segments,
    "debug": debug,
}


def answer(machine: Machine, line: str) -> str:
    """What a command prints."""
    words = line.split()
    command = COMMANDS.get(words[0]) if len(words) == 1 else None
    if command is None:
        return f"no command {line!r}; there are {', '.join(COMMANDS)}\n"
    return command(machine) + "\n"


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{title}: {name} {count:,}" for name, count in ordered if count]
