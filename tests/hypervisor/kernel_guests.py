"""Generated kernels: real programs that do all that a kernel can, for every technique to repeat.

A `KernelGuest` is a list of (feature, seed). Under Hypothesis a failing guest therefore shrinks to
the few steps that matter; `random_guest` makes one from a number, without Hypothesis. Its `program`
is loaded as any assembled program is; `source` is all of its code, for an assembler that replaces
instructions: give what it makes to `program_of`.

    guest = random_guest(17)
    observe_native(guest.program, ram=RAM, max_ticks=MAX_TICKS)

kernel_world.py has the fixed part of the program; test_kernel_guests.py holds that every feature
really comes about.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import Final

from hypothesis import strategies as st

from isa import Program, assemble
from isa.sites import Site
from tests.hypervisor import kernel_memory, kernel_rings, kernel_steps
from tests.hypervisor.kernel_steps import Step
from tests.hypervisor.kernel_world import (
    CODE,
    DONE,
    IDT,
    IDT_POINTER,
    LEFT,
    PROLOGUE,
    RAM,
    RECOVER,
    STEPS,
    tables,
)  # fmt: skip

__all__ = ["FEATURES", "MAX_TICKS", "RAM", "TERMINAL", "KernelGuest", "kernel_guests",
           "random_guest"]  # fmt: skip

#: Guest ticks; what takes longer is cut there, in every technique alike.
MAX_TICKS: Final = 20_000
LONGEST: Final = 14  #: steps
SEEDS: Final = 1 << 16

_S, _R, _M = kernel_steps, kernel_rings, kernel_memory
#: What a guest is made of, by name.
FEATURES: Final[dict[str, Step]] = {
    step.__name__: step
    for step in (
        _S.arithmetic, _S.strings, _S.self_modifying, _S.segment_loads, _S.descriptor_edits,
        _S.descriptor_questions, _S.table_questions, _S.table_loads, _S.far_transfers,
        _R.software_interrupts, _R.gates, _R.ring_3, _R.ring_3_far, _R.ring_3_unsafe, _R.call_gates,
        _R.flags, _R.timer, _R.halt, _R.ports, _R.time_stamps, _M.paging_switch, _M.spaces,
        _M.page_edits, _M.page_grants, _M.dirty_bits, _M.directory_edits, _M.write_protection,
        _M.user_memory, _M.large_pages, _M.top_of_memory, _M.control_bits, _M.single_steps,
        _M.breakpoints, _M.alignment, _M.double_faults, _R.system_calls,
    )
}  # fmt: skip
#: What may come last: the guest does not go on, or not for long.
TERMINAL: Final[dict[str, Step]] = {
    step.__name__: step
    for step in (_M.bad_ring_0_stack, _M.bad_stack, _M.no_idt, _M.idle, _M.endless)
}
ALL: Final = FEATURES | TERMINAL
#: Came when guests had their numbers: added behind them, so that the rest of each stays as it was.
DRAWN_LAST: Final = (_R.system_calls.__name__,)
NUMBERS: Final = {name: number for number, name in enumerate(ALL)}

#: What the next step has to mend first, whether or not the step ran to its end.
_MEND: Final = {
    "double_faults": f"or byte [{IDT + 13 * 8 + 5}], 0x80\nlidt [{IDT_POINTER}]\n",
    "no_idt": f"lidt [{IDT_POINTER}]\n",
}  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A stretch of memory that a loader fills."""

    address: int
    data: bytes

    @property
    def memory_size(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class GuestProgram:
    """What emulator.loader takes for an assembled program."""

    segments: Sequence[Segment]
    entry: int
    names: tuple[Program, ...]  #: those whose labels say where an address is

    @property
    def paravirt(self) -> str | None:
        """Which variant of a paravirtual image it is, if it is one."""
        return self.names[0].paravirt

    @property
    def sites(self) -> Sequence[Site]:
        """The sites of a paravirtual image."""
        return self.names[0].sites

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        program = self.names[-1 if address >= STEPS else 0]
        return program.symbol_at(address)

    def source_line(self, address: int) -> tuple[str, int] | None:
        program = self.names[-1 if address >= STEPS else 0]
        return program.source_line(address)


@cache
def _prologue() -> Program:
    return assemble(PROLOGUE, name="prologue")


@cache
def _tables(stubs: int, gate_entry: int) -> tuple[Segment, ...]:
    found = tables({"stubs": stubs, "gate_entry": gate_entry})
    return tuple(Segment(address, data) for address, data in found.items())


def _tables_for(program: Program) -> tuple[Segment, ...]:
    return _tables(*(program.symbols[name].value for name in ("stubs", "gate_entry")))


@dataclass(frozen=True)
class KernelGuest:
    """One guest: its steps by feature and seed."""

    steps: tuple[tuple[str, int], ...]

    @cached_property
    def steps_source(self) -> str:
        """The steps' code; it begins at STEPS."""
        text, mend = "", ""
        for number, (name, seed) in enumerate(self.steps):
            count = DONE + 4 * NUMBERS[name]
            body = ALL[name](Random(f"{name} {seed}"))
            text += f"step_{number}:\n{mend}mov dword [{RECOVER}], step_{number + 1}\n"
            text += f"mov dword [{LEFT}], .finished\n{body}\n.finished: inc dword [{count}]\n"
            mend = _MEND.get(name, "")
        # The machine may have no such port; then the guest halts.
        return text + f"step_{len(self.steps)}:\n{mend}mov al, 1\nout 0xF4, al\ncli\nhlt\n"

    @property
    def source(self) -> str:
        """All the code there is, as one source. Assembled as it stands it is `program`'s."""
        return PROLOGUE + self.steps_source

    @cached_property
    def program(self) -> GuestProgram:
        """Assembled, with its tables."""
        start, steps = _prologue(), assemble(self.steps_source, name="steps", origin=STEPS)
        code = Segment(CODE, start.flat()), Segment(STEPS, steps.flat())
        return GuestProgram((*code, *_tables_for(start)), CODE, (start, steps))

    @staticmethod
    def program_of(assembled: Program) -> GuestProgram:
        """`source` as somebody assembled it, with the tables that belong to it."""
        code = tuple(Segment(segment.address, segment.data) for segment in assembled.segments)
        return GuestProgram((*code, *_tables_for(assembled)), assembled.entry, (assembled,))

    def __str__(self) -> str:
        return " ".join(f"{name}:{seed}" for name, seed in self.steps)


def _choose(without: Collection[str], table: dict[str, Step]) -> list[str]:
    return [name for name in table if name not in without]


def random_guest(seed: int, *, without: Collection[str] = ()) -> KernelGuest:
    """The guest of that number. without: features that it shall not have."""
    rng = Random(f"kernel guest {seed}")
    names = _choose({*without, *DRAWN_LAST}, FEATURES)
    steps = [(rng.choice(names), rng.randrange(SEEDS)) for _ in range(rng.randrange(1, LONGEST))]
    ends = _choose(without, TERMINAL)
    if ends and rng.randrange(8) == 0:
        steps.append((rng.choice(ends), rng.randrange(SEEDS)))
    elif rng.randrange(4) == 0:
        steps += [(name, rng.randrange(SEEDS)) for name in DRAWN_LAST if name not in without]
    return KernelGuest(tuple(steps))


def kernel_guests(*, without: Collection[str] = ()) -> st.SearchStrategy[KernelGuest]:
    """Guests of up to LONGEST steps; they shrink by steps. without: features to leave out."""
    seeds = st.integers(0, SEEDS - 1)
    step = st.tuples(st.sampled_from(_choose(without, FEATURES)), seeds)
    body = st.lists(step, min_size=1, max_size=LONGEST)
    ends = _choose(without, TERMINAL)
    if not ends:
        return body.map(lambda steps: KernelGuest(tuple(steps)))
    last = st.one_of(st.none(), st.none(), st.none(), st.tuples(st.sampled_from(ends), seeds))
    return st.builds(lambda steps, end: KernelGuest((*steps, *([end] if end else []))), body, last)
