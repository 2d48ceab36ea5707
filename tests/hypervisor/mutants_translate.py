"""Mutants of the translator at work: its handlers, state words, and what keeps units true.

mutants.py says what a mutant is; mutants_translation.py has those of what is written into a unit.
killers_translate.py has what is to kill them.
"""

from __future__ import annotations

from typing import Any, Final

from hypervisor.outcome import Outcome
from hypervisor.techniques.translate import Translate
from hypervisor.translator import adaptive, area, layout
from hypervisor.translator.adaptive import Adaptive
from hypervisor.translator.area import TranslatorArea
from hypervisor.translator.cache import Cache
from hypervisor.translator.codepages import CodePages
from hypervisor.translator.coherence import Coherence
from hypervisor.translator.engine import Translator
from hypervisor.translator.linkback import Regions
from hypervisor.vcpu_area import VcpuArea
from isa import sites
from isa.paravirt import Field
from tests.hypervisor.mutants import Change, Mutant, edit, value

_FASTER: Final = "performance only: "


def _nothing(*given: Any) -> None:
    del given


def _resumed(*given: Any) -> Outcome:
    del given
    return Outcome.RESUME


def _never(*given: Any) -> bool:
    del given
    return False


def _rows(name: str, *rows: tuple[str, Change] | tuple[str, Change, str]) -> list[Mutant]:
    return [Mutant(f"{name}: {what}", *rest) for what, *rest in rows]  # type: ignore[arg-type]


_T: Final = Translate
#: Exits from the cache, by what serves them.
HANDLERS: Final = (
    "_follow", "_left_region", "_look_up", "_exchange", "_changed", "_check_faulted", "_revert",
    "_call_out", "_faulted", "_page_fault", "_original",
)  # fmt: skip
_TECHNIQUE: Final = [
    *_rows("translate", *((f"{name} does nothing",
     value(_T, name, _resumed)) for name in HANDLERS)),
    *_rows(
        "translate",
        ("ring 3 runs as it is under --user", edit(_T.runs_directly, " and not self.user", "")),
        ("stores to traced pages are not told", value(_T, "written", _nothing)),
        ("another guest is not told", value(_T, "forget", _nothing)),
        ("no gate leads to a translation", value(_T, "gate", _nothing)),
        ("gates lead to the guest's handler",
         value(_T, "gate", lambda self, vm, low, high: (low, high))),
        ("stores to tables are not counted", value(_T, "traced", _nothing)),
        ("the last tick is not looked at",
         edit(_T.limit, "vm.real.tick + 1 < until", "False")),
        ("STI has no shadow", edit(_T.limit, "is_sti =", "is_sti = False and")),
        ("STI has a shadow where interrupts are on",
         edit(_T.limit, "not self._area.interrupts_on and ", "")),
        ("ring 3's code has STI's shadow", edit(_T.limit, "vm.in_kernel and ", "")),
        ("the shadow is of the tick before",
         edit(_T.limit, "vm.real.tick + 1 if is_sti", "vm.real.tick if is_sti")),
        ("breakpoints of a guest are edges",
         edit(_T.event, "self.translator.regions.edges and ", "")),
        ("INT 1 is an edge", edit(_T.event, " and record.kind != SOFTWARE", "")),
        ("events of ring 3 are the cache's",
         edit(_T.event, "not (vm.in_kernel or self.user)", "False")),
        ("all events are the cache's",
         edit(_T.event, "not self._cache.holds(record.eip)", "False")),
        ("faults ask as INT does", edit(_T.event, "record.kind == SOFTWARE", "True")),
        ("a fault within a check is the site's",
         edit(_T.event, "if place.check:\n        return self._check_faulted",
              "if False:\n        return self._check_faulted")),
        ("a fault of no site is looked at", edit(_T.event, "place.site is None", "False")),
        ("a stub's link is not followed where it runs in place",
         edit(_T._follow, "entry is None or entry == link.eip", "entry is None")),
        ("a successor does not wait for its link",
         edit(_T._follow, "link if entry is None else None", "None")),
        ("steps of the guest's own are edges",
         edit(_T._left_region, "vm.dr[6] & SINGLE_STEP", "False")),
        ("edges stop ring 3", edit(_T._left_region, "vm.real.eflags |= EFLAGS_RF", "pass")),
        ("ring 3 leaves regions, too", edit(_T._left_region, "not vm.in_kernel", "False")),
        ("targets are found among sleepers",
         edit(_T._look_up, "self.translator.space.active.get(eip)",
              "next((u for u in self._cache if u.eip == eip and not u.is_gate), None)")),
        ("targets are not remembered",
         edit(_T._look_up, "self._cache.make_target(target)", "pass")),
        ("ECX is not restored at a new target",
         edit(_T._look_up, "self._area.restore_saved(vm.real)", "pass")),
        ("a check compares through any stack", edit(_T._changed, "vm.real.seg[SS].base", "False")),
        ("a unit that has changed stays",
         edit(_T._changed, "self._cache.drop(self._cache.unit_at(record.eip))", "pass")),
        ("a check's page is not filled",
         edit(_T._check_faulted, "record.vector == PAGE_FAULT and vm.fill_shadow(record)",
          "False")),
        ("CR3 loads and INVLPG leave aliases",
         edit(_T._call_out, "self.translator.flushed()", "pass")),
        ("a sleeper goes on",
         edit(_T._call_out, "not self._cache.unit_at(vm.record.eip).active", "False")),
        ("sites are emulated though registers are lost",
         edit(_T._call_out, "not place.lost and ", "")),
        ("ring 3's sites are emulated", edit(_T._call_out, " and vm.in_kernel", "")),
        ("nothing is emulated", edit(_T._call_out, "emulate is not None", "False")),
        ("emulation is done twice", edit(_T._call_out, "if emulate(vm, trapped):",
                                         "if emulate(vm, trapped) and False:")),
        ("descriptors are not filled",
         edit(_T._faulted, "record.vector in SELECTOR_FAULTS and ", "False and ")),
        ("shadows are not filled", edit(_T._page_fault, "vm.fill_shadow(record)", "False")),
        ("faults in the area are hidden ones",
         edit(_T._page_fault, "not self._area.holds(record.linear)", "True")),
    ),
]  # fmt: skip

_A: Final = TranslatorArea


def _unwritten(field: Field) -> Change:
    """A word of the area that the hypervisor does not write."""
    put = TranslatorArea.put

    def forgetful(self: TranslatorArea, to: Field, what: int) -> None:
        if to is not field:
            put(self, to, what)

    return value(TranslatorArea, "put", forgetful)


_LOST: Final = {
    "EAX": 'values["eax"]', "ECX": 'values["ecx"]', "EDX": 'values["edx"]',
    "ESP": 'values["esp"]', "flags": 'values["eflags"]', "IF": 'values["if_word"]',
}  # fmt: skip
_AREA: Final = [
    *_rows("area", *((f"{field.name} is not written", _unwritten(field))
                     for field in layout.OWN_FIELDS
                      if field not in (layout.PATIENCE, layout.WANTED))),
    *_rows("area", *((f"{name} is not put back", edit(sites.put_back, f"{place} =", "_ ="))
                     for name, place in _LOST.items())),
    *_rows(
        "area",
        ("registers are not put back",
         edit(area.put_registers_back, "if not place.lost and not place.released:", "if True:")),
        ("what was popped stays so", edit(sites.put_back, " or step.released", "")),
        ("flags of the virtual IF are not put back",
         edit(area.put_registers_back, "EFLAGS_IF if value else 0", "state.eflags & EFLAGS_IF")),
        ("control registers are not shown", edit(_A._show, "show_controls(self, virtual)", "pass")),
        ("GS is looked at before the tables are", edit(_A._show, 'self._seen = b""', "pass")),
        ("selectors are not shown", edit(_A._show, "self._show_selectors(virtual)", "pass")),
        ("descriptors are not forgotten", value(_A, "forget", _nothing)),
        ("regions stay though the guest debugs",
         edit(_A._guard, "virtual.dr[7] & DR7_ENABLED", "False")),
        ("edges are not guarded", edit(_A._guard, "regions.load(self._vm.real)", "pass")),
        ("the guest's debug registers are lost",
         edit(_A._end_guard, "virtual.dr[0:8] = debug", "pass")),
        ("ring 3's steps are lost", edit(_A._end_guard, "virtual.dr[6] |= stepped", "pass")),
        ("GS is never loaded already", value(_A, "_is_loaded", _never),
         _FASTER + "to load it again changes nothing"),
        ("CS is never the same", value(_A, "_same_code", lambda self, virtual: layout.NO_SELECTOR),
         _FASTER + "IRET within the kernel calls out"),
        ("CS is always the same",
         value(_A, "_same_code", lambda self, virtual: virtual.seg[1].selector)),
        ("CS is ring 3's while that runs", edit(_A._same_code, "virtual.cpl != USER", "True")),
        ("the CS of gates is always the same",
         edit(_A._same_code, "self._vm.descriptors.source(selector) == loaded", "True")),
        ("NT is not watched", value(_A, "watched_flags", VcpuArea.watched_flags)),
        ("GS is always loaded already", value(_A, "_is_loaded", lambda self, register: True)),
        ("null selectors are loaded as they stand",
         edit(_A._is_loaded, "register.selector < NULL_SELECTORS", "False")),
        ("GS's descriptor is not filled",
         edit(_A._is_loaded, "descriptors.fill(register.selector)", "pass")),
        ("the kernel's CS is the gate's", edit(_A._leave_cache,
         "code.selector & USER == USER", "False")),
        ("an exchange is not ended", edit(_A._leave_cache, "place.gate", "False")),
        ("scratch of an exchange stays", edit(_A._end_exchange, "in (gate.GS_HALF, gate.OWN_HALF)",
                                              "in ()")),
        ("GS's half stays", edit(_A._end_exchange, "(gate.GS_HALF, gate.OWN_HALF)",
                                 "(gate.OWN_HALF,)")),
        ("the translator's half stays", edit(_A._end_exchange, "(gate.GS_HALF, gate.OWN_HALF)",
                                             "(gate.GS_HALF,)")),
        ("GS is exchanged from the start", edit(_A._end_exchange,
         "vm.real.seg[GS].selector != layout.AREA_SELECTOR | segments.KERNEL_RING", "False")),
        ("a program's GS is not found out",
         edit(_A._end_exchange, "selector != register.selector", "False")),
        ("a program's GS is a selector only",
         edit(_A._end_exchange,
         "register.attributes, register.base, register.limit = loaded", "pass")),
        ("a wanted EIP is the unit's own", edit(_A.take_back, "place.target", "False")),
        ("ECX is not restored in a head", edit(_A.take_back, "self.restore_saved(state)", "pass")),
    ),
]  # fmt: skip

_C: Final = Coherence
_COHERENCE: Final = _rows(
    "coherence",
    ("pages of code are not traced", edit(_C.watch, "self._vm.paging.trace(page, CODE)", "pass")),
    ("the second page is not traced", edit(_C.watch, "in unit.pages:", "in unit.pages[:1]:")),
    ("where code lies is not kept",
     edit(_C.watch, "(self._of_users if user else self._mapped)[linear] = page", "pass")),
    ("rings are not told apart", edit(_C.watch, "user = unit.space.context.user", "user = False")),
    ("units that check themselves are traced",
     edit(_C.watch, "not unit.checked", "True"), _FASTER + "stores are interpreted"),
    ("units whose source has changed are kept",
     edit(_C.written, "mixes or self._source(unit) != unit.source", "mixes")),
    ("all units of a page go",
     edit(_C.written, "mixes or self._source(unit) != unit.source", "True"),
     _FASTER + "they are made again"),
    ("pages never mix", edit(_C.written, "self._stores[page] >= MOST_STORES", "False"),
     _FASTER + "stores are interpreted"),
    ("units of a page that mixes stay",
     edit(_C.written, "mixes or self._source(unit) != unit.source",
          "self._source(unit) != unit.source")),
    ("a page that mixes is not known to", edit(_C.written, "self.mixed.add(page)", "pass")),
    ("pages stay traced", edit(_C.written, "self._vm.paging.untrace(page, CODE)", "pass"),
     _FASTER + "stores are interpreted"),
    ("the second page is not compared", edit(_C._source, "len(first) == size", "True")),
    ("CS has no base", edit(_C._source, "unit.eip + self._base", "unit.eip")),
    ("code that has moved stays", value(_C, "check", _nothing)),
    ("code moves with its first page only",
     edit(_C.check, "moved_pages(vm, self._mapped)", "()")),
    ("nothing is forgotten", value(_C, "forget", _nothing)),
)  # fmt: skip

_D: Final = Adaptive
_ADAPTIVE: Final = _rows(
    "adaptive",
    ("stores are never adaptive", value(_D, "faulted", _nothing), _FASTER + "stores fault"),
    ("every store is adaptive", value(_D, "_can_adapt", lambda self, eip: True)),
    ("a unit is not made anew", edit(_D.faulted, "self._outdated = unit", "pass"),
     _FASTER + "its store goes on to fault"),
    ("aliases are never made", value(_D, "_alias", _nothing), _FASTER + "stores fault"),
    ("pages of code have aliases", edit(_D._alias, "self._cache.of_page.get(page)", "False")),
    ("tables of several uses have aliases", edit(_D._alias, "shadow is None", "False")),
    ("the monitor's own table has an alias",
     edit(_D._alias, "linear >= layout.CODE & 0xFFC0_0000", "False")),
    ("windows are not looked up anew", value(_D, "_invalidate", _nothing)),
    ("a window leads elsewhere",
     edit(_D._alias, "for to in (window, own)", "for to in (own, own)")),
    ("a page of no table is not told", edit(_D._alias, "paging.unreported.add(page)", "pass")),
    ("a segment of any kind is flat",
     edit(adaptive._is_flat, "kind == segments.WRITABLE and ", "")),
    ("a segment with a base is flat", edit(adaptive._is_flat, "not register.base and ", "")),
    ("a segment that ends is flat",
     edit(adaptive._is_flat, " and register.limit == FLAT_LIMIT", "")),
    ("nobody knows of a flat selector",
     edit(_D._selector, "not vm.descriptors.agrees(register)", "False")),
    ("segments are not looked at again", value(_D, "_hold", lambda self: True)),
    ("a descriptor that comes leaves aliases",
     edit(Translator.__init__, "vm.descriptors.on_filled = ", "")),
    ("SS has the guest's RPL",
     edit(_D._selector, "if is_stack else selector", "if False else selector"),
     _FASTER + "stores through SS fault"),
    ("stores never revert", edit(_D.revert, "self.sites.discard(eip)", "pass")),
    ("a store that reverts stays", edit(_D.revert, "self._cache.drop(unit)", "pass")),
    ("aliases are never lost", value(_D, "clear", _never)),
    ("an alias stays when all are lost",
     edit(_D.clear, "self._vm.monitor.write(stores.alias_address(number), NO_ALIAS)", "pass")),
    ("pages are unreported for good",
     edit(_D.clear, "self._vm.paging.refresh_unreported()", "pass")),
    ("another guest has these aliases", edit(_D.forget, "self.clear()", "pass")),
)  # fmt: skip

_H: Final = Cache
_CACHE: Final = _rows(
    "cache",
    ("all instructions count", value(CodePages, "set_weights", _nothing)),
    ("a context's targets serve another", edit(_H.space, "self._forget_target(unit)", "pass")),
    ("what was there is not evicted", value(_H, "_evict", _nothing)),
    ("units cross pages",
     edit(_H._reserve, "self._next % PAGE + size > PAGE >= size", "False"),
     _FASTER + "the core does not chain them"),
    ("nothing is chained",
     value(_H, "chain", lambda self, link: (found := link.unit.space.find_jumped(
        link.eip)) and found[0].start + found[1]), _FASTER + "links ask each time"),
    ("links of sleepers lead on", edit(_H.chain, " and link.unit.active", "")),
    ("incoming links are not kept", edit(_H.chain, "target.incoming.append(link)", "pass")),
    ("what leads to a sleeping unit still does", value(_H, "_unchain",
     lambda self, link: setattr(link, "target", None))),
    ("ways into a sleeper stay", edit(_H.sleep, "for link in unit.incoming:", "for link in ():")),
    ("ways out of a sleeper stay", edit(_H.sleep, "link.target is not None", "False")),
    ("a sleeper is found", edit(_H.sleep, "space.active.get(unit.eip) is unit", "False")),
    ("a sleeper is entered in the middle",
     edit(_H.sleep, "space.inside.get(eip, (None,))[0] is unit", "False")),
    ("a sleeper is a target", edit(_H.sleep, "unit.is_target", "False")),
    ("sleepers are lost", edit(_H.sleep, "not unit.is_gate", "False"),
     _FASTER + "they are made again"),
    ("targets outlive their unit", value(_H, "_forget_target", _nothing)),
    ("two units are one target", edit(_H.make_target, "before.is_target = False", "pass")),
    ("who checks itself is entered in the middle", edit(_H._activate, "not unit.checked", "True")),
    ("sleepers wake whatever the pages",
     edit(_H.wake, "unit is None or unit.pages != pages[: len(unit.pages)]", "unit is None")),
    ("sleepers are known by their EIP",
     edit(_H.wake, "space.asleep.get((eip, pages[0]))",
          "next((u for (at, _), u in space.asleep.items() if at == eip), None)")),
    ("a unit that is dropped may wake",
     edit(_H.drop, "asleep.get((unit.eip, unit.pages[0])) is unit",
                                             "False")),
    ("gates stay when their unit goes", edit(_H.drop, "self.on_lost_gate()", "pass")),
    ("a page keeps its units", edit(_H.drop, "self.of_page[page].discard(unit)", "pass")),
    ("nothing is cleared", value(_H, "clear", _nothing)),
    ("a jump goes into a unit that was cut", edit(_H.chain, "find_jumped", "find"),
     _FASTER + "a loop lies in several units"),
)  # fmt: skip

_E: Final = Translator
_ENGINE: Final = _rows(
    "engine",
    ("a store leaves regions", edit(_E.written, "self.regions.written(page)", "pass")),
    ("a store leaves units", edit(_E.written, "self.coherence.written(page)", "pass")),
    ("a store to a table leaves code", edit(_E.written, "self._check_mapping()", "pass")),
    ("a store to a table of descriptors leaves GS", edit(_E.written, "self.area.forget()", "pass")),
    ("a flush leaves code", edit(_E.flushed, "self._check_mapping()", "pass")),
    ("a flush leaves aliases", edit(_E.flushed, "self.adaptive.clear()", "pass")),
    ("a change of tables leaves aliases",
     edit(_E.__init__, "vm.paging.on_tables = ", "")),
    ("a change of mapping leaves units", edit(_E._check_mapping, "self.coherence.check()", "pass")),
    ("a change of mapping leaves regions", edit(_E._check_mapping, "self.regions.check()", "pass")),
    ("control registers are not looked at", value(_E, "_check_controls", _nothing)),
    ("CR0 is not looked at", edit(_E._check_controls, "now = cr0, cr3, cr4", "now = 0, cr3, cr4")),
    ("CR3 is not looked at", edit(_E._check_controls, "now = cr0, cr3, cr4", "now = cr0, 0, cr4")),
    ("CR4 is not looked at", edit(_E._check_controls, "now = cr0, cr3, cr4", "now = cr0, cr3, 0")),
    ("control registers leave aliases", edit(_E._check_controls, "self.adaptive.clear()", "pass")),
    ("another guest has these units", edit(_E.forget, "self.cache.clear()", "pass")),
    ("another guest has these pages", edit(_E.forget, "self.coherence.forget()", "pass")),
    ("another guest has these regions", edit(_E.forget, "self.regions.clear()", "pass")),
    ("another guest has these adaptive stores", edit(_E.forget, "self.adaptive.forget()", "pass")),
    ("another guest has this GS", edit(_E.forget, "self.area.forget()", "pass")),
    ("what is interpreted flushes nothing", edit(_E.prepare, "self._controls = ()", "pass")),
    ("what is interpreted leaves gates", edit(_E.prepare, "self._vm.gates.close()", "pass")),
    ("a gate does not look at control registers", edit(_E.gate, "self._check_controls()", "pass")),
    ("gates lead beyond CS", edit(_E.gate, "eip > code.limit", "False")),
    ("gates lead to any stack", edit(_E.gate,
     "stack is None or not stack.attributes & BIG or not reaches_all(stack)", "False")),
    ("a store leaves gates", edit(_E.written, "self._check_gates()", "pass")),
    ("gates are not looked at",
     edit(_E.__init__, "vm.world.on_change.append(self._check_gates)", "pass")),
    ("contexts are one", edit(_E.prepare, "context != self.space.context", "False")),
    ("another context has these regions", edit(_E.prepare, "self.regions.clear()", "pass")),
    ("adaptive stores are not prepared", edit(_E.prepare, "self.adaptive.before_entry()", "pass"),
     _FASTER + "stores fault"),
    ("a link waits for another EIP", edit(_E.prepare, "waiting.eip == state.eip and ", "")),
    ("a link of a unit that has gone", edit(_E.prepare, " and waiting.unit.start", "")),
    ("code is translated while TF is set",
     edit(_E._can_translate, "EFLAGS_TF | EFLAGS_RF", "EFLAGS_RF")),
    ("code is translated while RF is set",
     edit(_E._can_translate, "EFLAGS_TF | EFLAGS_RF", "EFLAGS_TF")),
    ("code is translated while it is watched",
     edit(_E._can_translate, " or state.dr[7] & DR7_ENABLED", "")),
    ("small stacks serve", edit(_E._can_translate, "stack.attributes & BIG", "True")),
    ("stacks with a base serve for checks",
     edit(_E._can_translate, "not self.coherence.mixed or reaches_all(stack)", "True")),
    ("gates lead to any code", edit(_E.gate,
     "code is None or context != Context(False, selector, code.base, code.limit)", "code is None")),
    ("a gate's unit that has gone serves", edit(_E.gate, " or not unit.start", "")),
    ("CS is not known behind gates",
     edit(_E.gate, "self.area.kernel_code = selector, code", "pass")),
    ("STI is not looked for", value(_E, "next_is_sti", _never)),
    ("STI is not looked for in a head",
     edit(_E.next_is_sti, "self.area.read(layout.WANTED) if place.target else place.eip",
          "place.eip")),
    ("any instruction is STI", value(_E, "next_is_sti", lambda self: True)),
)  # fmt: skip

_R: Final = Regions
_REGIONS: Final = _rows(
    "linkback",
    ("CS with a base has regions", edit(_R.link, "context.base or ", "")),
    ("CS that ends has regions", edit(_R.link, "context.limit != FLAT_LIMIT or ", "")),
    ("ring 3 has regions", edit(_R.link, "context.user or ", "")),
    ("refusals are forgotten", edit(_R.link, " or link.eip in self._refused", ""),
     _FASTER + "a region is looked for again"),
    ("regions are not traced", edit(_R.link, "self._vm.paging.trace(page, CODE)", "pass")),
    ("all code may run in place",
     edit(_R._safe, "is_branch or form_of(instruction, context) is identical", "True")),
    ("branches of 16 bits run in place",
     edit(_R._safe, " and not instruction.prefixes.operand_size", "")),
    ("what is no loop runs in place", edit(_R._explore, "if loops else None", ""),
     _FASTER + "edges are few"),
    ("a store leaves regions", value(_R, "written", _nothing)),
    ("regions are not checked", value(_R, "check", _nothing)),
    ("regions are not cleared", value(_R, "clear", _nothing)),
    ("links lead to what was a region",
     edit(_R.clear, "self._cache.lead_to_stub(link)", "pass")),
    ("edges are not enabled", edit(_R.load, "enabled |= 2 << 2 * number", "pass")),
    ("DR6 is not cleared", edit(_R.load, "DR6_CLEAR", "state.dr[6]")),
)  # fmt: skip

MUTANTS: Final[list[Mutant]] = [
    *_TECHNIQUE, *_AREA, *_COHERENCE, *_ADAPTIVE, *_CACHE, *_ENGINE, *_REGIONS,
]  # fmt: skip
