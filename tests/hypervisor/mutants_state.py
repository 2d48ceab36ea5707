"""Mutants of virtual state: what a world switch carries, shadow descriptors, segments.

The registers that only change hands have a row for each bit, each way, made from lists. Read
mutants.py for what a row is.
"""

from __future__ import annotations

from typing import Final

from emulator.core import GENERAL, SEGMENTS
from hypervisor import segments, world
from hypervisor.descriptors import Descriptors
from hypervisor.world import World
from tests.hypervisor.mutants import Change, Mutant, edit, lost, value

WAYS: Final = {"enter": "to the real CPU", "leave": "back"}
FLAGS: Final = {
    "CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "DF": 10, "OF": 11, "NT": 14, "RF": 16,
    "AC": 18, "ID": 21,
}  # fmt: skip
CR0_BITS: Final = {"MP": 1, "EM": 2, "TS": 3, "NE": 5, "AM": 18}
CR4_BITS: Final = {"TSD": 2, "DE": 3}
#: Fields of CpuState that the switch copies as they are.
COPIED: Final = (
    *(f"gpr {number}" for number in range(len(GENERAL))),
    *(f"dr {number}" for number in (0, 1, 2, 3, 6, 7)),
    "eip", "tick", "tsc_offset", "interrupt_shadow", "debug_shadow",
    "debug_hits", "cpl",
    *(f"seg {number} {part}" for number in range(len(SEGMENTS))
      for part in ("selector", "attributes", "base", "limit")),
)  # fmt: skip

#: The other fields, and why no row takes them away as a whole.
NOT_CARRIED: Final = {
    "version": "never changes",
    "size": "never changes",
    "eflags": "has rows by the bit",
    "cr0": "has rows by the bit",
    "cr4": "has rows by the bit",
    "cr2": "is never read on the real CPU; the vm's rows have it",
    "cr3": "is the shadows'; their rows have it",
    "ldtr": "is the monitor's; the descriptors' rows have it",
    "gdtr": "is the monitor's; the descriptors' rows have it",
    "tr": "is the monitor's; the gates' rows have it",
    "idtr": "is the monitor's; the gates' rows have it",
    "cycle": "is machine time, of each CPU by itself",
    "retired_cpl0": "is a counter of each CPU",
    "interrupt_line": "is looked at by the run loop; its rows have it",
    "replay_count": "no instruction is handed over half done",
    "replay_next": "no instruction is handed over half done",
    "replay": "no instruction is handed over half done",
    "space": "is the TLB's of each CPU",
    "large_pages": "is the TLB's of each CPU",
    "intercepts": "are the real CPU's alone",
    "trace": "is nothing that a guest can see",
    "timer_due": "comes along with the local APIC where that is lent; test_apic.py",
    "apic": "comes along where it is lent; test_apic.py",
}

#: Rows that nobody notices, by name.
_NEEDLESS: Final[dict[str, str]] = {}


def _spoken(place: str) -> str:
    """A field's name, for people."""
    kind, _, rest = place.partition(" ")
    if kind == "gpr":
        return GENERAL[int(rest)].upper()
    if kind == "seg":
        number, part = rest.split()
        return f"{SEGMENTS[int(number)].upper()} {part}"
    return place.replace("dr ", "DR")


def _carried() -> list[Mutant]:
    changes: dict[str, Change] = {}
    for way, words in WAYS.items():
        for place in COPIED:
            changes[f"world: {_spoken(place)} is not carried {words}"] = lost(way, place)
        for flag, bit in FLAGS.items():
            changes[f"world: {flag} is not carried {words}"] = lost(way, "eflags", 1 << bit)
    for name, bit in CR0_BITS.items():
        other = value(world, "GUEST_CR0", world.GUEST_CR0 & ~(1 << bit))
        changes[f"world: CR0.{name} is not carried"] = other
    for name, bit in CR4_BITS.items():
        other = value(world, "GUEST_CR4", world.GUEST_CR4 & ~(1 << bit))
        changes[f"world: CR4.{name} is not carried"] = other
    for name, mask in (("IF", world.EFLAGS_IF), ("IOPL", world.EFLAGS_IOPL)):
        other = value(world, "VIRTUAL_FLAGS", world.VIRTUAL_FLAGS & ~mask)
        changes[f"world: {name} is the real one"] = other
    return [Mutant(name, change, _NEEDLESS.get(name, "")) for name, change in changes.items()]


def _world(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"world: {name}", change, survives)


_WORLD: Final = [
    _world("the guest's CR0.WP is the real one",
           value(world, "GUEST_CR0", world.GUEST_CR0 | 1 << 16),
           "the real CR0 has WP=1 beside it"),
    _world("the real CR0.WP is 0", value(world, "REAL_CR0", world.REAL_CR0 & ~(1 << 16))),
    _world("CR3 is not loaded",
           edit(World._enter_controls, "real.cr3 = self._paging.root()", "pass")),
    _world("control registers are not looked at",
           edit(World.enter, "controls != self._controls", "False")),
    _world("segment registers are not looked at",
           edit(World.enter, "wanted != self._virtual_segments", "False")),
    _world("nobody hears of control registers",
           edit(World._enter_controls, "check()", "pass")),
    _world("the real TLB is not refreshed",
           edit(World.enter, "if self._paging.stale:", "if False:")),
    _world("a refresh keeps the TLB", edit(World.refresh, "self._host.cpu.flush_tlb()", "pass")),
    _world("a refresh keeps CR3",
           edit(World.refresh, "self._real.cr3 = self._paging.root()", "pass")),
    _world("the vCPU area is not entered", edit(World.enter, "self.area is not None", "False")),
    _world("the vCPU area is not left", edit(World.leave, "self.area is not None", "False")),
    _world("an STI seen at its end has no shadow",
           edit(World.leave, "self._virtual.tick == self.sti_shadow_at", "False")),
    _world("null selectors are segments",
           edit(World._real_segment, "if segment.attributes & segments.UNUSABLE:", "if False:")),
    _world("CS and SS keep their RPL",
           edit(World._real_segment, "index in (CS, SS)", "False")),
    _world("segments are not cut",
           edit(World._real_segment,
                "(self._descriptors.shadow(segment) or segments.nothing(segment))", "segment")),
    _world("a segment that cannot be cut is loaded as it is",
           edit(World._real_segment, "segments.nothing(segment)", "segment")),
    _world("loaded segments are not taken",
           edit(World.leave, "self._take_segments(now)", "pass")),
    _world("loaded CS and SS show ring 1", edit(World._take_segments, "selector &= ~3", "pass")),
    _world("loaded null selectors are not taken",
           edit(World._take_segments, "if attributes & segments.UNUSABLE:", "if False:")),
    _world("loaded segments are the shadows",
           edit(World._take_segments, "= source", "= fields[1:]")),
    _world("loaded selectors are not taken",
           edit(World._take_segments, "register.selector = selector", "pass")),
]  # fmt: skip


def _descriptor(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"descriptors: {name}", change, survives)


_D: Final = Descriptors
_DESCRIPTORS: Final = [
    *(_descriptor(f"{part} is not checked", edit(_D._table_registers, f"state.{part},", ""))
      for part in ("gdtr.base", "gdtr.limit", "ldtr.base", "ldtr.limit", "ldtr.attributes")),
    _descriptor("tables are never checked", edit(_D.check, "!= self._tables", "is None")),
    _descriptor("tables may move in memory", edit(_D.check, "self._page_of(linear) != page",
                                                  "False")),
    _descriptor("changed ones are kept",
                edit(_D.forget_page, "self._write(key, (0, 0))", "pass")),
    _descriptor("all of a page go",
                edit(_D.forget_page, "self._read(key) != self._originals.get(key)", "True"),
                "performance only: they are filled again"),
    _descriptor("cleared ones are kept", edit(_D.clear, "self._write(key, (0, 0))", "pass")),
    _descriptor("filled though not accessed",
                edit(_D.fill, "HIGH_ACCESSED | HIGH_MEMORY", "HIGH_MEMORY")),
    _descriptor("filled though not of memory",
                edit(_D.fill, "HIGH_ACCESSED | HIGH_MEMORY", "HIGH_ACCESSED")),
    _descriptor("filled though not present",
                edit(_D.fill, " | HIGH_PRESENT", "")),
    _descriptor("filled over the monitor's own", edit(_D.fill, "or key in self._own", "")),
    _descriptor("pages are not traced", edit(_D.fill, "self._trace(page)", "pass")),
    _descriptor("accessed bits of the table's pages are not set",
                edit(_D.fill, "self._cpu.walk(place, READ)", "pass")),
    _descriptor("places are not kept", edit(_D.fill, "self._places[place] = page", "pass")),
    _descriptor("pages are not kept", edit(_D.fill, "self._pages[page].add(key)", "pass")),
    _descriptor("table limits are not checked", edit(_D._linear, "offset + 7 > table.limit",
                                                     "False")),
    _descriptor("an LDT that is none is read",
                edit(_D._linear, "table.attributes & segments.UNUSABLE", "False")),
    _descriptor("the LDT is the GDT", edit(_D._linear, "key & TABLE_INDICATOR", "False")),
    _descriptor("code is cut where data is",
                edit(_D.shadow, "segments.cut(source, self.code_end)",
                     "segments.cut(source, self.data_end)")),
    _descriptor("segments with a base reach the vCPU area",
                edit(_D.shadow, "MONITOR if source.base else self.data_end", "self.data_end")),
    _descriptor("RPL tells descriptors apart",
                edit(_D.source, "key_of(selector)", "selector")),
]  # fmt: skip


def _segment(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"segments: {name}", change, survives)


_SEGMENTS: Final = [
    _segment("DPL 0 stays", edit(segments.cut, "not dpl(segment)", "False")),
    _segment("nothing is cut", edit(segments.cut, "base + limit < end", "True")),
    _segment("cut a byte late", edit(segments.cut, "room - 1)", "room)")),
    _segment("expand-down segments are not looked at",
             edit(segments.cut, "if base + top < end else None", "")),
    _segment("expand-down segments are cut like others",
             edit(segments.cut, "attributes & EXPAND_DOWN", "False")),
    _segment("beginning behind the end", edit(segments.cut, "room <= 0", "False")),
    _segment("cut ones keep their granularity",
             edit(segments.cut, "attributes &= ~GRANULARITY", "pass")),
    _segment("cut ones keep bytes", edit(segments.cut, "attributes |= GRANULARITY", "pass")),
    _segment("what cannot be cut is all", edit(segments.nothing, "WRITABLE | EXPAND_DOWN",
                                               "WRITABLE")),
]  # fmt: skip

STATE_MUTANTS: Final = (*_carried(), *_WORLD, *_DESCRIPTORS, *_SEGMENTS)
