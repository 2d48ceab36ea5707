"""The experiment on one row: is it privileged, is it sensitive, and to what?

`DISTINCTIONS` are the pairs of conditions that a guest must not be able to tell apart: what it
believes, and what is real. Mode pairs put the guest's kernel into ring 1 or 3, its segments'
descriptors with it. Location pairs move page frames, descriptor tables, or descriptors within
them. Configuration pairs hold IF, IOPL, control or debug registers otherwise; then there are time
and devices. In the real state everything traps that can be made to: IOPL is 0, the I/O bitmap
closed, CR4.TSD set. Where the real state traps, the hypervisor has its chance; where it does not
and the outcome differs, the instruction is behaviour-sensitive.

Faults of memory are kept out, as Popek and Goldberg keep out memory traps: every page is there for
every ring, alignment is not checked. Read witness.py next.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from hypervisor.experiments.classify.cases import Choice, case_of, choices
from hypervisor.experiments.classify.differences import Pair, differing, reconfigured
from hypervisor.experiments.classify.states import CR0_TS, CR4_DE, OPERAND, Bench, Case, Conditions
from isa.row import Row

#: Cases a row gets. More, if by the first number some faulted at CPL 0, and the rings made a
#: difference to some: then good operands are rare, and matter.
FEW, MANY = 36, 160
#: The rings as P&G's supervisor and user mode: the kernel's own, the kernel's put down, a user's.
KERNEL: Final = Conditions()
LOWERED: Final = {1: Conditions(cpl=1, kernel=1), 3: Conditions(cpl=3, kernel=3)}
USER: Final = Conditions(cpl=3)
#: What trapping may depend on, and how the hypervisor sets it.
SWITCHES: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "IOPL": ({"iopl": 0}, {"iopl": 3}),
    "the I/O bitmap": ({"open_ports": False}, {"open_ports": True}),
    "CR4.TSD": ({"tsd": True}, {"tsd": False}),
}
SWITCHED: Final = 12  #: cases tried under all settings of them


@dataclass(frozen=True, slots=True)
class Distinction:
    """Two conditions that a guest must not be able to tell apart."""

    name: str  #: what differs
    kind: str  #: mode | location | configuration | time | device
    believed: Conditions
    real: Conditions


#: What is real and not believed: name -> kind, and the fields as they are.
MOVES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "tables": ("location", {"tables": True}),
    "frames": ("location", {"frames": True}),
    "slots": ("location", {"slots": True}),
    "CR0": ("configuration", {"cr0": CR0_TS}),
    "CR4": ("configuration", {"cr4": CR4_DE}),
    "DR": ("configuration", {"debug": OPERAND}),
    "time": ("time", {"late": True}),
    "device": ("device", {"device": 0xA5}),
}
#: What is believed and not real: the hypervisor keeps IF = 1 and IOPL = 0.
BELIEFS: Final[dict[str, dict[str, Any]]] = {"IF": {"masked": True}, "IOPL": {"iopl": 3}}
MODES: Final = tuple(Distinction("CPL", "mode", KERNEL, lowered) for lowered in LOWERED.values())
BASES: Final = (LOWERED[1], USER, KERNEL)


def moves_at(base: Conditions) -> tuple[Distinction, ...]:
    """The pairs that keep the ring, and have another state in place of `base`."""
    return tuple(
        Distinction(name, kind, base, base._replace(**real)) for name, (kind, real) in MOVES.items()
    )


def beliefs_at(base: Conditions) -> tuple[Distinction, ...]:
    """The pairs in which `base` is real and something else believed. IOPL is nothing to ring 0."""
    return tuple(
        Distinction(name, "configuration", base._replace(**believed), base)
        for name, believed in BELIEFS.items()
        if base.cpl or name != "IOPL"
    )


def moved(base: Conditions) -> Conditions:
    """Every move together: where this shows nothing, none of them would."""
    for _, real in MOVES.values():
        base = base._replace(**real)
    return base


MOVED: Final = {base: moves_at(base) for base in BASES}
BELIEVED: Final = {base: beliefs_at(base) for base in BASES}
TOGETHER: Final = {base: moved(base) for base in BASES}
#: In the order in which a witness is looked for.
DISTINCTIONS: Final = (
    *MODES, *(pair for base in BASES for pair in (*MOVED[base], *BELIEVED[base])),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Telling:
    """A pair of conditions that a row tells apart, the real one without a trap."""

    pair: Distinction
    silent: bool  #: no trap in the believed one either
    choice: Choice  #: the case that showed it first


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the experiment says of a row."""

    row: Row
    cases: int  #: how many cases were run
    privileged: bool
    depends: tuple[str, ...]  #: of a privileged row: settings without which it does not trap
    control: tuple[str, ...]  #: what of the configuration it was seen to change
    behaviour: tuple[str, ...]  #: by what its result was seen to differ
    user: tuple[str, ...]  #: of all that, what was seen in a user's ring
    #: Pairs above CPL 0 that it tells apart without a trap; the best for a witness first.
    telling: tuple[Telling, ...]
    repaired: bool = False  #: `--virtualizable` made it trap

    @property
    def sensitive(self) -> str:
        """ "" | control | behaviour | both."""
        if self.control and self.behaviour:
            return "both"
        return "control" if self.control else "behaviour" if self.behaviour else ""

    @property
    def unsafe(self) -> bool:
        return bool(self.sensitive) and not self.privileged

    @property
    def name(self) -> str:
        """safe | privileged | sensitive (and privileged) | unsafe."""
        if self.unsafe:
            return "unsafe"
        if self.sensitive:
            return "sensitive"
        return "privileged" if self.privileged else "safe"


def tells(believed: Pair, real: Pair) -> list[str]:
    """What shows the difference of two runs, of which the real one did not trap."""
    if not real[1].went_through or believed[1].stopped:
        return []
    return differing(believed, real)


class Experiment:
    """One row on the bench. `verdict` is the result of `run`."""

    def __init__(self, bench: Bench, row: Row) -> None:
        self._bench, self._row = bench, row
        self._control: dict[str, None] = {}
        self._user: dict[str, None] = {}
        self._telling: dict[Distinction, Telling] = {}
        self._choice: Choice
        self._allowed: list[Case] = []
        self._escaped = False  #: a lowered kernel went through where it would have at CPL 0
        self._faults = self._uneven = False

    def run(self, repaired: bool = False) -> Verdict:
        """Try cases until enough have been tried."""
        done = 0
        for done, choice in enumerate(choices(self._row, MANY), 1):
            self._try(choice)
            if done == FEW and not (self._faults and self._uneven):
                break
        privileged = bool(self._allowed) and not self._escaped
        depends = self._switches() if privileged else ()
        names = dict.fromkeys(pair.name for pair in DISTINCTIONS if pair in self._telling)
        return Verdict(
            self._row, done, privileged, depends, tuple(self._control), tuple(names),
            tuple(self._user), self._best(), repaired,
        )  # fmt: skip

    def _best(self) -> tuple[Telling, ...]:
        """What it tells apart above CPL 0: silently, before by a trap that does not come."""
        found = [self._telling[pair] for pair in DISTINCTIONS if pair in self._telling]
        return tuple(sorted((t for t in found if t.pair.real.cpl), key=lambda t: not t.silent))

    def _try(self, choice: Choice) -> None:
        self._choice = choice
        case, _ = case_of(self._row, choice)
        bench = self._bench
        kernel = bench.run(case, KERNEL, watch_tlb=True)
        lowered = {ring: bench.run(case, now) for ring, now in LOWERED.items()}
        runs = {KERNEL: kernel, LOWERED[1]: lowered[1], USER: bench.run(case, USER)}
        for pair in (*runs.values(), lowered[3]):
            self._note(pair, user=pair is runs[USER])
        for mode, ring in zip(MODES, LOWERED, strict=True):
            if tells(kernel, lowered[ring]):
                self._tell(mode, KERNEL, silent=kernel[1].went_through)
        self._faults |= not kernel[1].went_through
        self._uneven |= any(kernel[1].trap != pair[1].trap for pair in lowered.values())
        self._escaped |= any(pair[1].went_through for pair in lowered.values())
        if kernel[1].went_through:
            self._allowed.append(case)
        for base, pair in runs.items():
            if pair[1].went_through:
                self._move(case, base, pair)

    def _note(self, pair: Pair, *, user: bool = False) -> None:
        before, after = pair
        if not after.went_through:
            return
        for name in reconfigured(before, after):
            self._control[name] = None
            if user:
                self._user[name] = None

    def _move(self, case: Case, base: Conditions, run: Pair) -> None:
        """Hold the run under `base` against those with other things in other places."""
        together = self._bench.run(case, TOGETHER[base])
        self._note(together)
        if tells(run, together):
            for move in MOVED[base]:
                if move not in self._telling and tells(run, self._bench.run(case, move.real)):
                    self._tell(move, base)
        for belief in BELIEVED[base]:
            if belief in self._telling:
                continue
            believed = self._bench.run(case, belief.believed)
            self._note(believed)
            if tells(believed, run):
                self._tell(belief, base)

    def _tell(self, pair: Distinction, base: Conditions, *, silent: bool = True) -> None:
        known = self._telling.get(pair)
        if known is None or silent > known.silent:
            self._telling[pair] = Telling(pair, silent, self._choice)
        if base is USER:
            self._user[pair.name] = None

    def _switches(self) -> tuple[str, ...]:
        """The settings on which the trap above CPL 0 depends, whatever the operands."""
        step = max(1, len(self._allowed) // SWITCHED)
        matter: dict[str, None] = {}
        for case, base in product(self._allowed[::step], LOWERED.values()):
            traps = {}
            for setting in product((0, 1), repeat=len(SWITCHES)):
                now = base
                for values, which in zip(SWITCHES.values(), setting, strict=True):
                    now = now._replace(**values[which])
                pair = self._bench.run(case, now)
                self._note(pair)
                traps[setting] = pair[1].trap is not None
            for number, name in enumerate(SWITCHES):
                flipped = lambda s, n=number: (*s[:n], 1 - s[n], *s[n + 1 :])  # noqa: E731
                if any(traps[setting] != traps[flipped(setting)] for setting in traps):
                    matter[name] = None
        return tuple(name for name in SWITCHES if name in matter)


def examine(bench: Bench, row: Row, *, repaired: bool = False) -> Verdict:
    """The verdict on a row."""
    return Experiment(bench, row).run(repaired)
