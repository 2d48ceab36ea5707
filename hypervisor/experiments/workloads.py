"""What `compare` runs: programs whole, and operations as the difference of two runs.

An operation is measured by a program that does it often, run twice: what the two runs differ in -
cycles, exits, wall time - belongs to the operations that one has more. The nanobenchmarks are
those of K. Adams and O. Agesen (ASPLOS 2006); process switch and system calls after P. Barham et
al., "Xen and the Art of Virtualization" (SOSP 2003). Read compare.py next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from guests import Guest, find
from hypervisor.experiments.subjects import Subject, find_subject, of_guest

#: Kinds of workloads, in the order in which they are shown.
NANO, SYSTEM, COMPUTE, WHOLE = "operation", "system", "computation", "program"
#: QEMU takes longer to start than our counts take to run: for it they are so many times as high.
QEMU_TIMES: Final = 40


@dataclass(frozen=True)
class Workload:
    """A subject that is run; with another to take away, and what it does more than that one."""

    name: str
    about: str
    kind: str
    subject: Subject
    less: Subject | None = None  #: what is subtracted
    operations: int = 1  #: that `subject` does more than `less`
    unit: str = "run"  #: what one operation is


@dataclass(frozen=True)
class Counted:
    """A program that is told how often to do something, on its command line or by what is typed."""

    name: str
    about: str
    kind: str
    guest: str
    words: str  #: for the kernel's command line, or for the shell; {} is the count
    low: int  #: as many digits as `high`, for to read them takes time
    high: int

    def subject(self, count: int) -> Subject:
        """The program, with a count."""
        chosen = of_guest(find(self.guest))
        text = self.words.format(count)
        if self.guest == "os":
            chosen = replace(chosen, input=f"{text}\nexit 0\n".encode())
        else:
            chosen = replace(chosen, kernel_args=text)
        return replace(chosen, name=self.name)

    def workload(self, times: int = 1) -> Workload:
        """The difference between the high count, times as high, and the low one."""
        high = self.high * times
        return Workload(
            self.name,
            self.about,
            self.kind,
            self.subject(high),
            self.subject(self.low),
            high - self.low,
            "operation",
        )


def _nano(name: str, about: str, low: int, high: int) -> Counted:
    return Counted(name, about, NANO, f"nano_{name}", "count={}", low, high)


def _program(name: str, about: str, low: int, high: int) -> Counted:
    return Counted(name, about, SYSTEM, "os", name + " {}", low, high)


COUNTED: Final = {
    counted.name: counted
    for counted in (
        _nano("syscall", "INT n from ring 3, and IRET", 1000, 3000),
        _nano("in", "IN from a port", 1000, 3000),
        _nano("cr8wr", "MOV to CR2, which has no side effect", 1000, 3000),
        _nano("callret", "CALL and RET", 10000, 60000),
        _nano("pgfault", "a page fault of the kernel's own", 1000, 3000),
        _nano("divzero", "a division by zero", 1000, 3000),
        _nano("ptemod", "a store to a page table entry", 1000, 6000),
        _program("forkwait", "FORK, EXIT and WAIT on the small OS", 10, 30),
        _program("switch", "a process gives way to another", 100, 500),
        _program("calls", "a system call of the small OS", 1000, 3000),
        Counted(
            "collatz", "111 steps of arithmetic", COMPUTE, "nano_collatz", "count={}", 100, 600
        ),
        Counted(
            "recursion", "177 calls that nest", COMPUTE, "nano_recursion", "count={}", 100, 300
        ),
    )
}
#: Guests that are run whole: they compute, and print what came of it.
COMPUTATIONS: Final = ("sha256", "matrix")
DEFAULT: Final = (*COUNTED, *COMPUTATIONS)


def of_subject(subject: Subject) -> Workload:
    """A program, run whole."""
    kind = COMPUTE if subject.name in COMPUTATIONS else WHOLE
    return Workload(subject.name, "the whole run", kind, subject)


def find_workload(what: str | Path | Guest | Subject | Workload) -> Workload:
    """A workload from its name, or what `find_subject` takes; GuestError, OSError."""
    if isinstance(what, Workload):
        return what
    if isinstance(what, str) and what in COUNTED:
        return COUNTED[what].workload()
    return of_subject(find_subject(what))


def find_workloads(
    wanted: Sequence[str | Path | Guest | Subject | Workload] | None,
) -> list[Workload]:
    """Those wanted; None for the default set."""
    return [find_workload(what) for what in (DEFAULT if wanted is None else wanted)]
