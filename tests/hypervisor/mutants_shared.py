"""Mutants of shared page tables: each rule of validation, and each veil, disabled.

Read mutants.py for what a row is, table_attacks.py for who notices.
"""

from __future__ import annotations

from typing import Final

from hypervisor.memory import shared
from hypervisor.memory.shared import SharedPaging
from tests.hypervisor.mutants import Change, Mutant, edit, value

_SLOWER: Final = "performance only"
_INTERPRETED: Final = "performance only: what the hardware may do is interpreted"


def _shared(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"shared: {name}", change, survives)


_S: Final = SharedPaging
_TYPES: Final = [
    _shared("directories are not traced",
            edit(_S._pin, "self._protect(page)", "pass")),
    _shared("tables are not traced", edit(_S._make_table, "self._protect(page)", "pass")),
    _shared("tables may become directories", edit(_S._pin, "self._drop_users(table)", "pass")),
    _shared("directories may be tables",
            edit(_S._admit_table, "page in self._directories", "False")),
    _shared("tables are not validated", edit(_S._make_table, "if entry & PRESENT", "if False")),
    _shared("directories are not validated", edit(_S._pin, "if entry & PRESENT", "if False")),
    _shared("directories depend on nothing but CR3",
            edit(_S._check_extensions, "extensions != self._extensions", "False")),
    _shared("paging is always on", edit(_S.root, "not state.cr0 & CR0_PG", "False")),
    _shared("a directory may lie nowhere",
            edit(_S.root, "not self._memory.is_memory(frame)", "False")),
    _shared("tables keep their types", edit(_S._retract, "self._drop_table(child)", "pass")),
    _shared("tables in use lose their types", edit(_S._retract, "if not child.users:", "if True:")),
    _shared("untraced pages are watched",
            edit(_S._unprotect, "self._memory.watch(page, False)", "pass"), _SLOWER),
    _shared("pages stay traced", edit(_S._unprotect, "self._traced.discard(page)", "pass")),
    _shared("typed pages may be untraced",
            edit(_S._unprotect, "or self._typed(page) is not None", ""),
            "nobody stops tracing a page under paravirt, but with its type"),
    _shared("pages may be untraced for whom they are traced",
            edit(_S._unprotect, "or self._others.get(page)", "")),
    _shared("traced pages are not watched",
            edit(_S._protect, "self._memory.watch(page, True)", "pass")),
    _shared("entries that map what is traced now stay",
            edit(_S._protect, "table.veils[index] = Veil.READ_ONLY", "pass")),
    _shared("the TLB keeps what is traced now", edit(_S._protect, "self.stale = True", "pass")),
    _shared("tables of ours keep what is traced now",
            edit(_S._protect, "self._mend_spans(page)", "pass")),
    _shared("tables of ours keep what is not traced any more",
            edit(_S._unprotect, "self._mend_spans(page)", "pass"), _INTERPRETED),
]  # fmt: skip

_ENTRIES: Final = [
    _shared("traced pages are writable",
            edit(_S._admit_page, "Veil.READ_ONLY if page in self._traced else None", "None")),
    _shared("writers are not known",
            edit(_S._admit_page, "self._writers[page].add((table, index))", "pass")),
    _shared("strange pages are mapped", edit(_S._admit_page, "else Veil.NOWHERE", "else None")),
    _shared("strange pages are tables",
            edit(_S._admit_table, "Veil.ABSENT if self._extensions else Veil.NOWHERE", "None")),
    _shared("tables that lie nowhere have no reserved bits",
            edit(_S._admit_table, "Veil.ABSENT if self._extensions else Veil.NOWHERE",
                 "Veil.NOWHERE")),
    _shared("tables have no reserved bits",
            edit(_S._admit_page, "self._extensions and entry & LARGE", "False")),
    _shared("large pages have no reserved bits",
            edit(_S._admit_table, "Veil.ABSENT if entry & LARGE_RESERVED else Veil.SPLIT",
                 "Veil.SPLIT")),
    _shared("large pages are tables",
            edit(_S._admit_table, "self._extensions and entry & LARGE", "False")),
    _shared("all entries with the bit are large pages",
            edit(_S._admit_table, "self._extensions and entry & LARGE", "entry & LARGE")),
    _shared("changed entries stay", edit(_S._compare, "self._admit(typed, index, entry)", "pass")),
    _shared("old entries keep their veils", edit(_S._compare, "self._retract(typed, index)",
                                                 "pass")),
    _shared("changes of rights are marks",
            edit(_S._compare, "~USED", "~(USED | WRITABLE)")),
    _shared("changed entries stay in the TLB",
            edit(_S._compare, "self.stale |= not known", "pass")),
    _shared("all marks are known", edit(_S._compare, "known = known and not old & PRESENT",
                                        "known = True")),
    _shared("no marks are known", edit(_S._compare, "self._fresh == typed.page", "False"), _SLOWER),
    _shared("a marked table is as it was",
            edit(_S.fault, "typed.copy = self._read(page)", "pass")),
    _shared("directories not in use are not dropped", edit(_S.written, "self._drop(typed)",
                                                           "pass")),
    _shared("directories of tables not in use are not dropped",
            edit(_S.written, "self._drop_users(typed)", "pass")),
]  # fmt: skip

_VEIL: Final = [
    _shared("the monitor's entry is the guest's",
            edit(_S._pin, "directory.veils[DIRECTORY_INDEX] = Veil.MONITOR", "pass")),
    _shared("read-only entries are not veiled",
            edit(_S.veil, "words[place] &= ~WRITABLE & 0xFFFF_FFFF", "pass")),
    _shared("read-only entries stay so", edit(_S.unveil, "words[place] |= WRITABLE", "pass")),
    _shared("other entries are not put back",
            edit(_S.unveil, "words[place] = entry | words[place] & marks", "pass")),
    _shared("marks of the monitor's entry are the guest's",
            edit(_S.veil, "USED if veil is Veil.NOWHERE and new else 0", "USED")),
    _shared("clean large pages are writable",
            edit(_S._instead, "entry & WRITABLE and entry & DIRTY", "entry & WRITABLE")),
    _shared("large pages are writable", edit(_S._instead, "entry & WRITABLE and entry & DIRTY",
                                             "entry & DIRTY")),
    _shared("large pages are accessed",
            edit(_S._instead, "veil is Veil.SPLIT and entry & ACCESSED", "veil is Veil.SPLIT")),
    _shared("large pages are never there",
            edit(_S._instead, "veil is Veil.SPLIT and entry & ACCESSED", "False"), _INTERPRETED),
    _shared("traced pages of large ones are writable",
            edit(_S._span_entry, "rights &= ~WRITABLE", "pass")),
    _shared("there are no tables of ours", value(shared, "MOST_SPANS", 0), _INTERPRETED),
    _shared("only one directory stays valid", value(shared, "MOST_DIRECTORIES", 1), _SLOWER),
]  # fmt: skip

_FAULTS: Final = [
    _shared("no fault is the guest's own",
            edit(_S.fault, "return Verdict.TRUE, self._cpu.walk_error",
                 "return Verdict.BARRED, 0")),
    _shared("users' accesses are the kernel's", edit(_S.fault, "(WRITE | AS_USER)", "WRITE")),
    _shared("stores are loads", edit(_S.fault, "(WRITE | AS_USER)", "AS_USER")),
    _shared("nothing is mapped one to one",
            edit(_S._fill_flat, "self._put(self._flat, upper, entry)", "pass")),
    _shared("traced pages are writable with paging off",
            edit(_S._span_entry, "if page in self._traced:", "if rights != 6:")),
    _shared("what is barred is hidden",
            edit(_S.fault, "Verdict.HIDDEN if marked else Verdict.BARRED", "Verdict.HIDDEN")),
]  # fmt: skip

SHARED_MUTANTS: Final = (*_TYPES, *_ENTRIES, *_VEIL, *_FAULTS)
