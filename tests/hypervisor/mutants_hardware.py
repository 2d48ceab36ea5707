"""Mutants of guest mode: what its hypervisor sees to, disabled one at a time.

mutants.py says what a mutant is. What kills these are runs under `hardware`: ``nested: 17`` and
``shadow: 17`` are generated kernels (test_differential.py), ``shadow: STI at every tick`` is a
written one (written_kernels.py), ``nested fuzz: 17`` an unruly setup (test_fuzz.py).
test_hardware_sensitivity.py runs them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hypervisor import exits
from hypervisor.guest_mode import EXTERNAL, GuestMode
from hypervisor.memory.nested import NestedPaging
from hypervisor.memory.shadow import ShadowPaging
from hypervisor.vm import VirtualMachine
from tests.hypervisor.mutants import Change, edit, value


class HardwareMutant(NamedTuple):
    """What is disabled, and which run shows it; or why none can."""

    name: str
    change: Change
    killer: str
    survives: str = ""


_G, _V = GuestMode, VirtualMachine


def _without_event(guest: GuestMode) -> int:
    guest.drop()
    return 0


def _put_off(vm: VirtualMachine) -> None:
    vm.guest_mode.deliver(vm.board.pic.acknowledge(), EXTERNAL)


MUTANTS: Final = [
    HardwareMutant(
        "switch: control registers are not looked at",
        edit(_G.run, "controls != self._controls or ", ""),
        "shadow: 0",
    ),
    HardwareMutant(
        "switch: tables that have changed are not",
        edit(_G.run, " or self._paging.stale", ""),
        "shadow: 32",
    ),
    HardwareMutant(
        "switch: the TLB is never flushed",
        edit(_G.refresh, "control.flush = 1", "pass"),
        "shadow: 32",
    ),
    HardwareMutant(
        "switch: the root stays",
        edit(_G.refresh, "control.root = root", "control.root = control.root or root"),
        "shadow: 0",
    ),
    HardwareMutant(
        "block: WP is the guest's",
        edit(
            _G._own_paging,
            "control.cr0_mask, control.cr0 = CR0_OWN, CR0_OWN",
            "control.cr0_mask, control.cr0 = 1 << 31, CR0_OWN",
        ),
        "shadow: 0",
    ),
    HardwareMutant(
        "block: PSE is the guest's",
        edit(
            _G._own_paging,
            "control.cr4_mask, control.cr4 = CR4_PSE, 0",
            "control.cr4_mask, control.cr4 = 0, 0",
        ),
        "shadow: extensions",
    ),
    HardwareMutant(
        "block: page faults are the guest's",
        edit(_G._own_paging, "1 << (PAGE_FAULT & 7)", "0"),
        "shadow: 0",
    ),
    HardwareMutant(
        "block: CR3 may be loaded",
        edit(
            _G._own_paging,
            "self.intercepts.cr_reads = self.intercepts.cr_writes = CR3",
            "self.intercepts.cr_reads = CR3",
        ),
        "shadow: 0",
    ),
    HardwareMutant(
        "block: CR3 may be read",
        edit(
            _G._own_paging,
            "self.intercepts.cr_reads = self.intercepts.cr_writes = CR3",
            "self.intercepts.cr_writes = CR3",
        ),
        "shadow: 6",
    ),
    HardwareMutant(
        "events: error codes are lost",
        edit(_G.deliver, "error is not None", "False"),
        "shadow: 0",
    ),
    HardwareMutant(
        "events: exceptions are interrupts",
        edit(_G.deliver, "vector, kind,", "vector, EXTERNAL,"),
        "shadow: 0",
    ),
    HardwareMutant(
        "events: what was in flight is lost",
        value(_G, "deliver_here", _without_event),
        "shadow: 6",
    ),
    HardwareMutant(
        "exits: a fault in a delivery is an instruction's",
        edit(exits._guest_event, "if vm.guest_mode.delivering:", "if False:"),
        "shadow: 6",
    ),
    HardwareMutant(
        "exits: a traced store is a fault",
        edit(exits._guest_event, "if verdict is not Verdict.TRUE:", "if False:"),
        "shadow: 0",
    ),
    HardwareMutant(
        "exits: the guest's page faults have the real error code",
        edit(
            exits._guest_event, "Event(record.vector, error,", "Event(record.vector, record.error,"
        ),
        "shadow: 1",
    ),
    HardwareMutant(
        "exits: CR2 stays",
        edit(_V._run_guest_to_exit, "self.cpu.state.cr2 = self.event.address", "pass"),
        "shadow: 0",
    ),
    HardwareMutant(
        "vm: an instruction's own fault is delivered again",
        edit(_V.deliver_here, "if self.guest_mode.control.event.again:", "if False:"),
        "",
        "the event is the same: only the chain that a triple fault prints is shorter",
    ),
    HardwareMutant(
        "vm: interrupts come at once behind STI",
        edit(_V._run_guest_to_exit, " and not state.interrupt_shadow", ""),
        "nested: STI at every tick",
    ),
    HardwareMutant(
        "vm: interrupts come whatever IF",
        edit(_V._run_guest_to_exit, "state.eflags & EFLAGS_IF", "True"),
        "shadow fuzz: 0",
    ),
    HardwareMutant(
        "vm: an interrupt is delivered once the guest goes on",
        value(_V, "_interrupt", _put_off),
        "",
        "the loop enters the guest again, at the same tick, before anybody looks",
    ),
    HardwareMutant(
        "nested: pages are not writable",
        edit(
            NestedPaging.violated,
            "self._memory.frame(page) << 12 | RIGHTS",
            "self._memory.frame(page) << 12 | 5",
        ),
        "nested fuzz: 0",
    ),
    HardwareMutant(
        "nested: the next frame",
        edit(NestedPaging.violated, "frame(page) <<", "frame(page + 1) <<"),
        "nested: STI at every tick",
    ),
    HardwareMutant(
        "shadow: the top of linear space is the monitor's",
        edit(ShadowPaging._is_monitors, "and self._monitor_table is not None", "and True"),
        "shadow: 0",
    ),
]
