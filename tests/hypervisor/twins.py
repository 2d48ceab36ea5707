"""The same unruly program on the bare machine and on a virtual one, for comparing the two.

A `Setup` (tests/core/world.py) is what a run starts from: code, registers, tables with anything in
them. `put` lays it into any machine, `picture` is what a guest can tell of where it ended. The
timer interrupts while the program runs, if it lets it. Read test_fuzz.py next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from emulator import Machine
from emulator.core import SEGMENTS
from emulator.result import Result, Stop
from hypervisor.techniques.base import Technique
from hypervisor.techniques.hardware import Hardware
from hypervisor.vm import VirtualMachine
from isa import assemble
from isa.paravirt import HYPERVISOR
from tests.core.world import (
    CODE_OF,
    DATA_OF,
    DIRECTORY,
    GDT,
    GDT_ENTRIES,
    IDT,
    LDT,
    LDT_SELECTOR,
    TSS_SELECTOR,
    Setup,
    World,
)

RAM: Final = 2 << 20
CODE_SEGMENT: Final = SEGMENTS.index("cs")
CR0_PG: Final = 1 << 31
#: To the PICs and the PIT: vectors from 0x20 on, the timer alone, every 119 ticks or so.
TIMER_PORTS: Final = (
    *((0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01), (0x21, 0xFE)),
    *((0xA0, 0x11), (0xA1, 0x28), (0xA1, 0x02), (0xA1, 0x01), (0xA1, 0xFF)),
    *((0x43, 0x34), (0x40, 2), (0x40, 0)),
)


#: In an access byte: a segment's descriptor, and that it has been loaded.
SEGMENT: Final = 0x10
ACCESSED: Final = 0x01
#: They run ring 3 as it is. What is unsafe there shows it a few facts, which only a CPU hides.
RUN_USERS: Final = frozenset({"interpret", "translate", "patch"})


class OnShadows(Hardware):
    """Guest mode as the first processors had it."""

    memories = ("shadow",)


PARAVIRTUAL: Final = assemble("nop", paravirt=HYPERVISOR)

_world = World()


def put(machine: Machine, setup: Setup, *, timer: bool = False) -> None:
    """Make a machine begin as `setup` says."""
    image = bytearray(_world._image)
    image[setup.entry : setup.entry + len(setup.code)] = setup.code
    for address, data in setup.memory:
        image[address : address + len(data)] = data
    # What it is loaded with is overwritten; but `paravirt` takes no plain program.
    asks = isinstance(machine, VirtualMachine) and machine.technique.name == "paravirt"
    machine.load(PARAVIRTUAL if asks else b"\x90")
    machine.memory.write(0, bytes(image))
    state = machine.cpu.state
    for number, value in enumerate(setup.registers):
        state.gpr[number] = value
    state.eip, state.eflags, state.cpl = setup.entry, setup.flags | 2, setup.ring
    state.gdtr.base, state.gdtr.limit = GDT, GDT_ENTRIES * 8 - 1
    state.idtr.base, state.idtr.limit = IDT, 0x7FF
    state.cr0 |= setup.cr0 | (CR0_PG if setup.paging else 0)
    state.cr3, state.cr4 = DIRECTORY, setup.cr4
    for number, value in setup.debug:
        state.dr[number] = value
    chosen = dict.fromkeys(range(len(SEGMENTS)), DATA_OF[setup.ring] | setup.ring)
    chosen[CODE_SEGMENT] = CODE_OF[setup.ring] | setup.ring
    for number, selector in (chosen | dict(setup.segments)).items():
        _load_hidden(state.seg[number], selector, image)
    _load_hidden(state.tr, TSS_SELECTOR, image)
    _load_hidden(state.ldtr, LDT_SELECTOR, image)
    for port, value in TIMER_PORTS if timer else ():
        machine.board.bus.port_write(port, 1, value)


def _load_hidden(register: Any, selector: int, image: bytearray) -> None:
    """Load a segment register with what the table says, without checks."""
    at = (LDT if selector & 4 else GDT) + (selector & ~7)
    value = int.from_bytes(image[at : at + 8], "little")
    limit = value & 0xFFFF | (value >> 48 & 15) << 16
    attributes = value >> 40 & 0xF0FF
    register.selector = selector
    register.attributes = attributes | (ACCESSED if attributes & SEGMENT else 0)
    register.base = value >> 16 & 0xFFFFFF | value >> 56 << 24
    register.limit = limit << 12 | 0xFFF if value >> 55 & 1 else limit


def is_refused(result: Result) -> bool:
    """The technique has no ring for what the guest does."""
    return result.stop is Stop.UNSUPPORTED and "ring" in result.reason


def picture(machine: Machine, result: Result) -> dict[str, Any]:
    """All that a guest could know of itself, and all of its memory."""
    state = machine.cpu.state
    seen: dict[str, Any] = {
        "stop": result.stop.name,
        "status": result.status,
        "ticks": result.ticks,
        "faults": result.faults,
        "output": result.output,
        "cpl": state.cpl,
        "eflags": hex(state.eflags),
        "dr": [hex(value) for value in state.dr],
        "gdtr": (state.gdtr.base, state.gdtr.limit),
        "idtr": (state.idtr.base, state.idtr.limit),
        "tsc": state.tsc_offset,
        "shadow": (state.interrupt_shadow, state.debug_shadow, state.debug_hits),
        "halted": machine.halted,
    }
    seen |= {name: hex(value) for name, value in result.registers._asdict().items()}
    for name, segment in zip(
        ("ldtr", "tr", *SEGMENTS), (state.ldtr, state.tr, *state.seg), strict=True
    ):
        parts = segment.selector, segment.attributes, segment.base, segment.limit
        seen[f"{name} hidden"] = tuple(hex(part) for part in parts)
    for address, data in machine.memory.pages():
        seen[f"page {address:#x}"] = hashlib.sha256(data).hexdigest()
    return seen


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two pictures have not in common."""
    return {
        name: (one.get(name), other.get(name))
        for name in {*one, *other}
        if one.get(name) != other.get(name)
    }


def run_twins(
    setup: Setup, technique: str | Callable[[], Technique], ticks: int, *, timer: bool = False
) -> dict[str, Any] | None:
    """Differences between native and a faithful technique; None if it refuses this guest.

    Where they differ, both run again without any TLB entry older than an instruction: a program
    that depends on stale ones is nobody's guest. And a fault takes no tick, so whether one that is
    due at the last tick has been delivered means nothing: it has to differ a tick later too.
    """
    for end, step in ((ticks, ticks), (ticks, 1), (ticks + 1, 1)):
        found = run_once(setup, technique, end, step, timer=timer)
        if not found:
            break
    return found


def run_once(
    setup: Setup,
    technique: str | Callable[[], Technique],
    ticks: int,
    step: int,
    *,
    timer: bool = False,
) -> dict[str, Any] | None:
    """The same, once: with an empty TLB after so many ticks each."""
    machine = Machine(RAM)
    put(machine, setup, timer=timer)
    native = picture(machine, _run(machine, ticks, step))
    chosen = technique if isinstance(technique, str) else technique()
    traps = _needs_traps(chosen, visits_ring_3(machine))
    twin = VirtualMachine(technique=chosen, ram=RAM, virtualizable=traps)
    put(twin, setup, timer=timer)
    result = _run(twin, ticks, step)
    if is_refused(result):
        return None
    found = differences(native, picture(twin, result))
    if isinstance(chosen, OnShadows):  # delivered anew, an event in flight begins the chain
        found.pop("faults", None)
    return found


def visits_ring_3(machine: Machine) -> bool:
    """Has a bare machine run anything there?"""
    in_ring_0: int = machine.cpu.state.retired_cpl0
    return in_ring_0 < machine.ticks


def _needs_traps(technique: str | Technique, runs_users: bool) -> bool:
    """Has what is unsafe to trap, for this technique to be faithful?"""
    if not isinstance(technique, str):
        return False  # one that runs no user as it is
    name, *_ = technique.split()
    return name == "trap" or (runs_users and name in RUN_USERS)


def _run(machine: Machine, ticks: int, step: int) -> Result:
    """Run to a tick in steps, each with an empty TLB."""
    result = machine.run(0)
    while result.stop is Stop.OUT_OF_TICKS and result.ticks < ticks:
        machine.cpu.flush_tlb()
        if isinstance(machine, VirtualMachine):
            machine.paging.stale = True  # the real CPU's, for that is where a guest may be
        result = machine.run(result.ticks + step)
    return result
