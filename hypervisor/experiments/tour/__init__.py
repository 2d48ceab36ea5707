"""The tour: what the laboratory has to show, one screen at a time.

A stop is a row of `TOUR`: its title, the function that runs the experiment and says what came of
it, the guest's source if there is one, a question, and a command to go on with. Nothing on a screen
is written down beforehand that a machine could say: flags, bytes, exits and differences come from
runs. Runs are deterministic, so screens are. To add a stop: a function, and a row here.

`seventeen tour N` shows one (cli/tour.py). Read screen.py for how a screen is made, steps.py for
how a source is followed, popf.py for the stops that everything here is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from hypervisor.errors import ExperimentError
from hypervisor.experiments.tour.screen import Kind, Line, blank, labelled

HOME: Final = "hypervisor.experiments.tour"


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop. Its place in `TOUR` is its number."""

    title: str
    module: str  #: of this package
    function: str  #: of the module: takes nothing, returns lines
    question: str
    command: str  #: what to try next
    source: str = ""  #: the name in the module of the guest's source

    def show(self) -> list[Line]:
        """Run the experiment, and say what came of it."""
        lines: list[Line] = getattr(import_module(f"{HOME}.{self.module}"), self.function)()
        return lines


TOUR: Final = (
    Stop(
        "what the classes are",
        "classes",
        "show",
        "WBINVD traps above ring 0 and is not sensitive here. Why does a monitor not mind?",
        "seventeen classify popf smsw cli in",
    ),
    Stop(
        "POPF on the bare machine",
        "popf",
        "show_natively",
        "CF changed in both columns. Which of the bits that POPF loads may ring 3 change?",
        "seventeen isa popf",
        "RINGS",
    ),
    Stop(
        "POPF under trap-and-emulate",
        "popf",
        "show_under_trap",
        "Could the monitor notice later that the guest's IF is wrong? From what?",
        "seventeen fidelity --technique trap kprobe_popf kprobe_sgdt",
        "KERNEL",
    ),
    Stop(
        "the theorem restored",
        "popf",
        "show_restored",
        "Theorem 1 asks that all sensitive instructions are privileged. Is one repair enough?",
        "seventeen fidelity --technique trap --virtualizable kprobe_popf hello",
        "KERNEL",
    ),
    Stop(
        "interpretation",
        "interpretation",
        "show",
        "Let the program in ring 3 use POPF. Why does this monitor not help there?",
        "seventeen compare --technique interpret --repeat 1 quicksort",
        "SOURCE",
    ),
    Stop(
        "a block and its translation",
        "translation",
        "show_block",
        "For which values does POPF's translation need the hypervisor?",
        "seventeen run --technique translate -d in_asm,out_asm kprobe_popf",
        "BLOCK",
    ),
    Stop(
        "chaining",
        "translation",
        "show_chaining",
        "A return cannot be chained as the call can. Why not, and what is done instead?",
        "seventeen blocks quicksort",
        "LOOP",
    ),
    Stop(
        "self-modifying code",
        "translation",
        "show_self_modifying",
        "What would a guest see if the translation of changed code were kept?",
        "seventeen fidelity --technique translate selfmod",
        "SELF",
    ),
    Stop(
        "a patch that is a jump",
        "patching",
        "show_jump",
        "What does a kernel that reads its own code see at the first patch?",
        "seventeen patches --verbose kprobe_popf",
        "JUMPED",
    ),
    Stop(
        "a patch that is an INT3",
        "patching",
        "show_trap",
        "The guest may have an INT3 of its own. How does the hypervisor tell them apart?",
        "seventeen run --technique patch --stats kprobe_popf",
        "TRAPPED",
    ),
    Stop(
        "why a site is no jump",
        "patching",
        "show_refused",
        "A jump to the second byte of a patch may be found late. What must happen then?",
        "seventeen patches --strict rings",
        "REFUSED",
    ),
    Stop(
        "a hypercall",
        "hypercall",
        "show",
        "STI with an interrupt waiting must exit all the same. How can a store do that?",
        "seventeen run --technique paravirt hypercalls",
        "SOURCE",
    ),
    Stop(
        "shadow pages",
        "shadows",
        "show",
        "Why is the shadow entry not writable after the read, though the guest's is?",
        "seventeen run --technique trap --virtualizable -d mmu paging",
        "SOURCE",
    ),
    Stop(
        "a pass-through gate",
        "passthrough",
        "show",
        "Why must an interrupt gate, which clears IF, not be passed through?",
        "seventeen run --technique paravirt --stats rings",
        "SOURCE",
    ),
    Stop(
        "guest mode",
        "assisted",
        "show_guest_mode",
        "Nested paging empties the last column. Which programs pay for that?",
        "seventeen run --technique hardware --mmu shadow --stats paging",
        "SOURCE",
    ),
    Stop(
        "what it costs",
        "comparison",
        "show",
        "An IN that exits costs less than natively. What does native pay for?",
        "seventeen compare in callret ptemod --repeat 1 --html report.html",
    ),
)


def lines_of(number: int) -> list[Line]:
    """The screen of a stop, counted from 1; ExperimentError if there is none."""
    stop = find_stop(number)
    title = f"Tour, {number} of {len(TOUR)}: {stop.title}"
    then = labelled("Then", f"seventeen tour {number + 1}") if number < len(TOUR) else []
    return [
        Line(title, Kind.TITLE),
        blank(),
        *stop.show(),
        blank(),
        *labelled("Question", stop.question),
        *labelled("Next", stop.command),
        *then,
    ]


def source_of(number: int) -> str:
    """The guest's source at a stop; ExperimentError if it has none."""
    stop = find_stop(number)
    if not stop.source:
        raise ExperimentError(f"stop {number} has no source: it runs single instructions")
    source: str = getattr(import_module(f"{HOME}.{stop.module}"), stop.source)
    return source


def find_stop(number: int) -> Stop:
    """A stop by its number."""
    if not 1 <= number <= len(TOUR):
        raise ExperimentError(f"no stop {number}: the tour has stops 1 to {len(TOUR)}")
    return TOUR[number - 1]
