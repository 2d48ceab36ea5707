"""`seventeen fidelity`: which technique is faithful to which guest, and why not where it is not.

Every guest runs natively and under every technique, recorded; observe.py says whether the two runs
are equal. Where they are not, both are run again in lockstep down to the guest instruction after
which they part: the reason for the cross. Nothing here asks what the instruction table says of
that instruction; fidelity_check.py does, afterwards.

An instruction that depends on what the hypervisor keeps from it need not cause a cross: some fault
on a shadow structure, and the hypervisor steps in. A cell has these as rescues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from emulator.result import Stop
from guests import Guest
from hypervisor.errors import HypervisorError
from hypervisor.experiments.lockstep import Divergence, first_difference
from hypervisor.experiments.observe import NativeRun, Observation, compare
from hypervisor.experiments.patch_reasons import Case, reason
from hypervisor.experiments.subjects import Image, Subject, find_subjects, variants
from hypervisor.experiments.virtual import VirtualRun, native_run
from hypervisor.techniques import TECHNIQUES, find_technique, kind_of
from hypervisor.techniques.patch import Patch
from hypervisor.variants import sites_of

EQUAL: Final = "equal"
CROSS: Final = "cross"
REFUSED: Final = "refused"  #: the technique has said that it cannot run this guest

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Column:
    """A technique, and which unsafe instructions the CPU is repaired for."""

    technique: str
    virtualizable: bool | tuple[str, ...] = False  #: as `emulator.Machine` has it
    mmu: str | None = None  #: a memory virtualization; None for the one the technique prefers

    def __str__(self) -> str:
        words = self.technique + (f" --mmu {self.mmu}" if self.mmu else "")
        if isinstance(self.virtualizable, bool):
            return f"{words}{' --virtualizable' * self.virtualizable}"
        return f"{words} --virtualizable={','.join(self.virtualizable)}"

    @classmethod
    def parse(cls, text: str) -> Column:
        """A column as `str` prints it; whether there is such a technique is not asked."""
        mmu: str | None = None
        virtualizable: bool | tuple[str, ...] = False
        words, left = [], iter(text.split())
        for word in left:
            name, _, value = word.partition("=")
            if name == "--mmu":
                mmu = value or next(left, "")
            elif name == "--virtualizable":
                named = tuple(filter(None, value.lower().split(",")))
                virtualizable = True if named in {(), ("all",)} else named
            else:
                words.append(word)
        return cls(" ".join(words), virtualizable, mmu)


class Rescue(NamedTuple):
    """Instructions that exited because of a shadow structure, so that they could be done right."""

    mnemonic: str
    structure: str
    times: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of one guest under one technique."""

    guest: str
    column: Column
    verdict: str  #: EQUAL, CROSS or REFUSED
    ticks: int  #: of the native run
    rescues: tuple[Rescue, ...] = ()
    cross: Divergence | None = None
    reason: str = ""  #: of a refusal, or what an in-place patcher cannot hide


@dataclass(frozen=True, slots=True)
class Matrix:
    """All cells, guest by guest."""

    guests: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]

    def cell(self, guest: str, column: Column) -> Cell:
        """One cell."""
        return self.cells[self.guests.index(guest) * len(self.columns) + self.columns.index(column)]

    @property
    def crosses(self) -> tuple[Cell, ...]:
        """The cells with a cross."""
        return tuple(cell for cell in self.cells if cell.verdict == CROSS)


def default_columns() -> tuple[Column, ...]:
    """Every technique on the real ISA, and with each memory virtualization that it goes with; the
    classical one on a repaired ISA, and the translator with ring 3 in its cache."""
    columns = [
        Column(name, mmu=mmu if place else None)
        for name in TECHNIQUES
        for place, mmu in enumerate(kind_of(name).memories)
    ]
    columns.insert(columns.index(Column("trap")) + 1, Column("trap", True))
    columns.insert(columns.index(Column("translate")) + 1, Column("translate --user"))
    return tuple(columns)


def fidelity(
    guests: Sequence[str | Path | Guest | Subject] | None = None,
    techniques: Sequence[str | Column] | None = None,
    *,
    progress: Progress = lambda done, total, name: None,
) -> Matrix:
    """Run guests under techniques and natively, and say where they differ.

    guests: names, paths, or what `subjects.find_subject` takes; None for the whole manifest.
    techniques: names or columns; None for `default_columns`. progress: called before each cell.
    """
    subjects = find_subjects(guests)
    wanted = default_columns() if techniques is None else techniques
    columns = tuple(Column.parse(c) if isinstance(c, str) else c for c in wanted)
    for column in columns:
        find_technique(column.technique)  # better to hear now than in an hour
    total = len(subjects) * len(columns)
    cells: list[Cell] = []
    for subject in subjects:
        references: dict[str | None, _Reference] = {}
        for column in columns:
            progress(len(cells), total, f"{subject.name} {column}")
            cells.append(_run_cell(subject, column, references))
    progress(total, total, "")
    return Matrix(tuple(subject.name for subject in subjects), columns, tuple(cells))


class _Reference:
    """The native run of one variant of a guest."""

    def __init__(self, subject: Subject, variant: str | None) -> None:
        self._subject = subject
        self._image = subject.image(variant)
        self._symbols = subject.symbols(self._image)
        run = self.start()
        self.result = run.run(subject.ticks)
        self.seen: Observation = run.observe()

    def start(self) -> NativeRun:
        """A new run from the beginning."""
        run = native_run(self._image, **self._subject.options)
        run.machine.symbols = self._symbols
        return run


def _run_cell(subject: Subject, column: Column, references: dict[str | None, _Reference]) -> Cell:
    variant, reference_variant = variants(column.technique)
    try:
        image = subject.image(variant)
        if reference_variant not in references:
            references[reference_variant] = _Reference(subject, reference_variant)
        return _compare(subject, column, references[reference_variant], image)
    except HypervisorError as error:
        return Cell(subject.name, column, REFUSED, 0, reason=str(error))


def _compare(subject: Subject, column: Column, native: _Reference, image: Image) -> Cell:
    def start(technique: str = column.technique) -> VirtualRun:
        return VirtualRun(
            image,
            technique,
            virtualizable=column.virtualizable,
            mmu=column.mmu,
            **subject.options,
        )

    # One tick more than native is enough to see that it goes on.
    ticks = native.result.ticks
    limit = min(subject.ticks, ticks + 1)
    run, sites = start(), _masked(image)
    result = run.run(limit)
    if result.stop is Stop.UNSUPPORTED and native.result.stop is not Stop.UNSUPPORTED:
        return Cell(subject.name, column, REFUSED, ticks, reason=result.reason)
    rescues = tuple(Rescue(*key, count) for key, count in sorted(run.machine.rescued.items()))
    name = column.technique
    if compare(native.seen, run.observe(), sites=sites, name=name) is None:
        return Cell(subject.name, column, EQUAL, ticks, rescues)

    def is_faithful(technique: str) -> bool:
        other = start(technique)
        other.run(limit)
        return compare(native.seen, other.observe(), sites=sites, name=technique) is None

    why = ""
    if name.partition(" ")[0] == Patch.name:
        bare, virtual = (lambda: native.start().machine), (lambda name: start(name).machine)
        why = reason(Case(virtual, bare, is_faithful, limit), name)
    try:
        cross = first_difference(native.start, start, max_ticks=limit, sites=sites, name=name)
    except RuntimeError:
        if not why:
            raise
        cross = None  # where a patched guest is stopped, it is let in behind its patches
    return Cell(subject.name, column, CROSS, ticks, rescues, cross, why)


def _masked(image: Image) -> list[range]:
    """Where a paravirtual image has other bytes than its twin."""
    return [range(site.address, site.end) for site in sites_of(image)[1]]


def rescues_by_column(matrix: Matrix) -> Iterable[tuple[Column, Rescue, int]]:
    """Per column, mnemonic and structure: the rescues of all guests, and in how many guests."""
    for column in matrix.columns:
        found: dict[tuple[str, str], list[int]] = {}
        for cell in matrix.cells:
            if cell.column == column:
                for rescue in cell.rescues:
                    found.setdefault(rescue[:2], []).append(rescue.times)
        for key, counts in sorted(found.items()):
            yield column, Rescue(*key, sum(counts)), len(counts)
