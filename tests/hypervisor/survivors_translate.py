"""Mutants of the translator that no check can notice, and why.

test_translate_sensitivity.py holds that they do survive.
"""

from __future__ import annotations

from typing import Final

from isa.table import ROWS

_FASTER: Final = "performance only: "
_INTERPRETED: Final = _FASTER + "the virtual CPU does the same"
_TRAPS: Final = "it traps in ring 1, and is served then"
_PUSHED: Final = "nothing faults any more once the stack pointer has moved"
_NO_STOP: Final = "the exchange of GS has one exit, its INT"

#: Of instructions that trap by themselves, and flush nothing.
_PRIVILEGED: Final = sorted(
    {row.body for row in ROWS if row.privilege in ("cpl0", "iopl", "io")} - {"invlpg", "mov_to_cr"}
)

#: By the mutant's name.
SURVIVORS: Final[dict[str, str]] = {
    "translate: no gate leads to a translation": _FASTER + "system calls exit",
    "translate: stores to tables are not counted": _FASTER + "none becomes adaptive",
    "translate: ring 3's code has STI's shadow":
        "an STI of ring 3 is the virtual CPU's to execute, which has the shadow itself",
    "translate: a successor does not wait for its link": _FASTER + "it asks again",
    "translate: targets are not remembered": _FASTER + "each lookup exits",
    "translate: sites are emulated though registers are lost":
        "what is emulated has no form that loses any",
    "translate: nothing is emulated": _INTERPRETED,
    "translate: descriptors are not filled": _INTERPRETED,
    "translate: shadows are not filled": _INTERPRETED,
    "area: ESP is not put back": _PUSHED,
    "area: what was popped stays so": _PUSHED,
    "area: the CS of gates is always the same":
        "gates are closed when it changes, and the kernel is entered by the virtual CPU then",
    "area: null selectors are loaded as they stand": _FASTER + "the load calls out",
    "area: GS's descriptor is not filled": _FASTER + "the load calls out",
    "area: the translator's half stays": _NO_STOP,
    "area: GS is exchanged from the start": _NO_STOP,
    "coherence: units of a page that mixes stay": _FASTER + "the page stays traced",
    "coherence: a page that mixes is not known to": _FASTER + "the page is traced again",
    "coherence: CS has no base":
        _FASTER + "what is compared then differs, and the unit is made anew",
    "translate: a check compares through any stack":
        "with a stack that has a base, no unit that checks itself is entered",
    "coherence: the second page is not compared":
        _FASTER + "what lies in two pages is made anew",
    "adaptive: pages of code have aliases":
        "a table with units is traced for them, and gets none, or they check themselves",
    "adaptive: the monitor's own table has an alias":
        "segments end below it, so that no store there is a page fault",
    "adaptive: pages are unreported for good":
        _FASTER + "tables are read again where entries are made",
    "adaptive: another guest has these aliases":
        "the shadows have gone by then, and every alias with the first of them",
    "cache: sleepers are known by their EIP":
        _FASTER + "one that wakes must have the pages, else the unit is made anew",
    "cache: links of sleepers lead on": "no unit that sleeps is run",
    "engine: another guest has these adaptive stores":
        _FASTER + "its stores look for aliases from the start",
    "engine: another context has these regions":
        _FASTER + "what is safe in place is so under every flat CS, and no other is led there",
    "engine: a link of a unit that has gone":
        "what has gone is not active, so that none of its links is chained, and the regions have"
        " been asked before",
    "engine: a link waits for another EIP": "the guest goes on where it has left the cache for",
    "engine: code is translated while RF is set":
        "RF matters to breakpoints alone, and a guest that has any is not translated",
    "linkback: branches of 16 bits run in place":
        _FASTER + "the processor cuts their targets, and so does the decoder",
    "stores: 16-bit addresses can be adaptive": "LEA works such an offset out as the store does",
    "stores: flags of what computes are restored":
        _FASTER + "the store sets all of them",
    "stores: a store's EIP is behind it": "no step before the store can fault",
    "builder: CS does not end before an EIP":
        "an EIP is one byte behind the end at most, and then no byte is left to translate",
    "builder: units go on": _FASTER + "nothing comes to what is translated behind a jump",
    **{f"forms: {body} as it stands": _TRAPS for body in _PRIVILEGED},
    "forms: SS is loaded":
        _FASTER + "ring 1 can load no SS of RPL 0 or 3, and the others call out",
    "forms: the area's selector is loaded in ring 1":
        "its upper byte stays beside the RPL where that is looked at: it calls out",
    **{f"forms: {name} with a prefix is the bare one": _FASTER + "no prefix changes what it does"
       for name in ("cli", "sti")},
    "transfers: none is the one that is wanted": _FASTER + "each lookup exits",
    "transfers: a call by ESP finds what it pushed":
        _FASTER + "whom it finds by other bits is not what is wanted, and says so",
    "transfers: a return releases nothing": _PUSHED,
    "transfers: a call's ESP is not lost": _PUSHED,
    "transfers: an indirect call's ESP is not lost": _PUSHED,
    "site forms: IRET's NT is not looked at":
        "the real IRET loads it as the guest's does; ring 3 can set it itself, and what comes from"
        " there clears it",
    "site forms: IRET's IF is not looked at": _FASTER + "every IRET to ring 3 calls out",
    "site forms: IRET's flags are lost": "a translation's IRET goes on to a callout of its own",
}  # fmt: skip
