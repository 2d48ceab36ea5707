"""Mutants of the patcher: what keeps patches true and unseen, disabled one at a time.

mutants.py says what a mutant is. What kills these are runs under `patch --strict`, named here
beside each: ``kernel 17`` is a generated kernel (test_differential.py), ``changes 17`` one that
changes its code (test_code_changes.py), ``unruly 17`` arbitrary bytes (test_fuzz.py), and a bare
name one of patched_sources.py, of written_kernels.py or of the manifest; after ``by default`` it is
run without --strict. One that no run can notice has a reason instead. test_patch_sensitivity.py
runs them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from hypervisor.memory.shadow import ShadowPaging
from hypervisor.patcher.area import PatchArea
from hypervisor.patcher.coherence import Coherence
from hypervisor.patcher.memory import PatchMemory
from hypervisor.patcher.patches import Patches
from hypervisor.patcher.scanner import Scanner
from hypervisor.techniques.base import Technique
from hypervisor.techniques.patch import Patch
from hypervisor.vcpu_area import VcpuArea
from tests.hypervisor.mutants import Change, edit, value


class PatcherMutant(NamedTuple):
    """What is disabled, and which run shows it, or why none can."""

    name: str
    change: Change
    killer: str = ""
    survives: str = ""


def _nothing(*given: Any) -> None:
    del given


def _no(*given: Any) -> bool:
    del given
    return False


def _none(*given: Any) -> tuple[int, ...]:
    del given
    return ()


MUTANTS: Final = [
    PatcherMutant(
        "coherence: stores are not looked at", value(Coherence, "_changed", _nothing), "changes 2"
    ),
    PatcherMutant(
        "coherence: mappings are not looked at", value(Coherence, "_check", _no), "changes 68"
    ),
    PatcherMutant(
        "coherence: nor after a store",
        value(Coherence, "check", _nothing),
        survives="a page that moves loses its shadow, and is looked at when that is filled again",
    ),
    PatcherMutant(
        "coherence: nor when a shadow is filled",
        value(Coherence, "check_near", _no),
        survives="only for tables that have no shadow, and so are not traced",
    ),
    PatcherMutant(
        "coherence: a store finds patches", value(Coherence, "before_store", _nothing), "unruly 462"
    ),
    PatcherMutant(
        "coherence: a store finds patches in the page after",
        edit(
            Patch.traced, "(record.linear, record.linear + NEAR & 0xFFFF_FFFF)", "(record.linear,)"
        ),
        "written across pages",
    ),
    PatcherMutant(
        "coherence: patches that made way do not come back",
        edit(Coherence.scan, " | (self._lost & self._scanner.sites)", ""),
        "data beside",
    ),
    PatcherMutant(
        "coherence: nobody asks whether any are missing",
        edit(Patch.runs_directly, "elif self.coherence.incomplete:", "elif False:"),
        survives="what was lost comes back when the store has been done",
    ),
    PatcherMutant(
        "patches: a page with two addresses has jumps",
        value(Patches, "_is_shared", _no),
        "changes 83",
    ),
    PatcherMutant(
        "patches: a jump stays when it is led into",
        value(Patches, "_is_entered", _no),
        "led into later",
    ),
    PatcherMutant(
        "patches: a jump may be led into", value(Patches, "_entered", lambda *_: ""), "led into"
    ),
    PatcherMutant(
        "patches: a jump may overwrite another's",
        value(Patches, "_overlapped", lambda *_: ""),
        "what is moved, read otherwise",
    ),
    PatcherMutant(
        "patches: what the guest has written is put back",
        edit(Patches.remove, "number not in keep and ", ""),
        "changes 185",
    ),
    PatcherMutant(
        "patches: a byte is given back while another needs it",
        edit(Patches.remove, " and patch.physical + number not in others", ""),
        "mapped at two places, then at one",
    ),
    PatcherMutant(
        "patches: our jumps take ticks", value(Patches, "_set_weights", _nothing), "changes 2"
    ),
    PatcherMutant(
        "veil: all see patches", value(ShadowPaging, "_shows", lambda *_: True), "ring 3 reads"
    ),
    PatcherMutant(
        "veil: what was mapped stays so",
        value(ShadowPaging, "_hide", _nothing),
        "read through another page, before",
    ),
    PatcherMutant(
        "veil: one table serves two places",
        edit(ShadowPaging._key_below, "upper if self.veils else 0", "0"),
        "read through the same table",
    ),
    PatcherMutant(
        "veil: pages that follow are mapped along",
        edit(ShadowPaging._prefetch, "entry >> 12 in self._veiled", "False"),
        "read after the page before",
    ),
    PatcherMutant(
        "veil: ring 3 executes nothing that is patched",
        value(ShadowPaging, "share", _no),
        survives="performance only: the virtual CPU does the same",
    ),
    PatcherMutant(
        "coherence: originals are not put back for a read",
        value(Coherence, "put_back", _no),
        "ring 3 reads",
    ),
    PatcherMutant(
        "patch: ring 3 goes on without patches",
        edit(Patch.runs_directly, "self.coherence.scan()  # it may", "pass  # it may"),
        "a gate that is open, after a read",
    ),
    PatcherMutant(
        "scanner: what overlaps a site is none", value(Scanner, "_covering", _none), "unruly 282"
    ),
    PatcherMutant(
        "scanner: nor what is found after it",
        value(Scanner, "_is_overwritten", _no),
        "found after what it overlaps",
    ),
    PatcherMutant(
        "scanner: bytes have one address",
        value(Scanner, "aliases", lambda self, eip: [eip]),
        "changes 83",
    ),
    PatcherMutant(
        "scanner: what is no instruction is not known",
        edit(Scanner._run, "self._break(eip, source, eip - start)", "pass"),
        "unruly 282",
    ),
    PatcherMutant(
        "scanner: a page is not entered from the one before",
        value(Scanner, "_runs_into", lambda *_: set()),
        "into the next page",
    ),
    PatcherMutant(
        "scanner: unsafe instructions are no sites",
        edit(Scanner._is_site, "is_site(instruction) or ", ""),
        "by default rings",
    ),
    PatcherMutant(
        "scanner: indirect transfers are no sites",
        edit(Scanner._is_site, "(self._strict and instruction.row.body in INDIRECT)", "False"),
        "rings",
    ),
    PatcherMutant(
        "patch: code runs in place while TF is set",
        edit(Patch.runs_directly, "(EFLAGS_TF | EFLAGS_RF)", "EFLAGS_RF"),
        "kernel 7",
    ),
    PatcherMutant(
        "patch: code runs in place while it is watched",
        edit(Patch.runs_directly, " or state.dr[7] & DR7_ENABLED", ""),
        "watched",
    ),
    PatcherMutant(
        "patch: another code segment changes nothing",
        edit(Patch.runs_directly, "context != self.scanner.context", "not self.scanner.pages"),
        "another code segment",
    ),
    PatcherMutant(
        "patch: control registers are not looked at",
        value(Patch, "_check_controls", _nothing),
        "executed in another space",
    ),
    PatcherMutant(
        "patch: ring 3 runs into patches",
        edit(Patch.runs_directly, "return not self._shares(vm)", "return True"),
        "by default many events",
    ),
    PatcherMutant(
        "patch: the virtual CPU executes patches",
        value(Patch, "original", lambda *_: b""),
        "kernel 7",
    ),
    PatcherMutant(
        "patch: handlers of gates are not scanned",
        value(Patch, "gate", Technique.gate),
        "gate",
    ),
    PatcherMutant(
        "patch: an interrupt comes right after STI",
        edit(Patch.limit, "site.name == STI", "False"),
        "STI at every tick",
    ),
    PatcherMutant(
        "patch: INT3 is the guest's",
        edit(Patch._breakpoint, "vm.in_kernel and patch is not None", "False"),
        "led into later",
    ),
    PatcherMutant(
        "patch: faults in patch memory are the guest's",
        edit(Patch._faulted, "if place.site is None:", "if True:"),
        survives="exits.py does the same: what ring 1's segments forbid is interpreted, and what "
        "is reflected is put back when the guest's world is left",
    ),
    PatcherMutant(
        "patch: shadows are not filled for patch memory",
        edit(Patch._faulted, "if vm.fill_shadow(record):", "if False:"),
        survives="then the virtual CPU executes the original, and fills nothing either way",
    ),
    PatcherMutant(
        "area: the guest is left in patch memory",
        value(PatchMemory, "place", lambda *_: None),
        "led into later",
    ),
    PatcherMutant(
        "area: the guest is let in behind a jump",
        value(PatchArea, "enter", VcpuArea.enter),
        "read in two ways",
    ),
    PatcherMutant(
        "memory: room is not taken back",
        value(PatchMemory, "free", _nothing),
        survives="only room is lost: test_patch.py counts it",
    ),
]
