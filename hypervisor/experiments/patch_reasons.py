"""Why a guest is not the same under `patch`: two things that an in-place patcher cannot hide.

An unscanned entry: the kernel ran code in place, in ring 1, that the scanner did not know, since an
indirect jump, call or return led there. The guest is run once more, and every instruction that the
real CPU executes is looked at. Most such entries do no harm; one is the reason if the guest is as
natively under --strict, where there are none.

Code that reads itself: what is read of patched code is the patch. All patches of the run are noted;
then two bare machines go on side by side, an instruction at a time, one of them with the patches in
its memory but for where it executes. If they part, the guest has read a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from emulator import Machine
from emulator.core import SEGMENTS, TraceKind, ffi
from emulator.result import Stop
from hypervisor.patcher.patches import JUMP, Patch
from hypervisor.patcher.scanner import Scanner
from hypervisor.techniques.patch import UNSCANNED
from hypervisor.techniques.patch import Patch as Technique
from hypervisor.vm import VirtualMachine

STRICT: Final = f"{Technique.name} --strict"
READS: Final = "reads its own patched code"
CODE_SEGMENT: Final = SEGMENTS.index("cs")
LONGEST: Final = 15  #: bytes of an instruction
MEMORY_TICKS: Final = 64  #: all of memory is compared so often


class Watcher:
    """Watches a machine under `patch`: its unscanned entries, and all bytes that it patches."""

    def __init__(self, vm: VirtualMachine) -> None:
        assert isinstance(vm.technique, Technique)
        self._vm, self._technique = vm, vm.technique
        self.entries: list[tuple[int, int]] = []  #: tick and EIP
        self.patched: dict[int, int] = {}  #: guest-physical address -> byte
        patches = vm.technique.patches
        self._overwrite = patches._overwrite
        vars(patches)["_overwrite"] = self._overwritten  # nobody else pays for it
        for name in ("forget_page", "clear"):
            self._drain_before(vm.technique.scanner, name)
        take = vm.cpu.take_trace
        vars(vm.cpu)["take_trace"] = lambda most: take(most)[:0]  # what it steps is not in place
        vm.set_tracer(TraceKind.EXEC, self)

    def _drain_before(self, scanner: Scanner, name: str) -> None:
        """What ran before the scanner forgets is judged by what it knew then."""
        forget = getattr(scanner, name)

        def forgotten(*args: Any) -> Any:
            self._vm.drain_trace()
            return forget(*args)

        vars(scanner)[name] = forgotten

    def _overwritten(self, patch: Patch, page: int) -> None:
        self._vm.drain_trace()  # what was known until now
        self._overwrite(patch, page)
        self.patched.update(enumerate(patch.bytes, patch.physical))

    def render(self, records: Iterable[Any]) -> None:
        """Take records, oldest first."""
        technique = self._technique
        for record in records:
            at = record.eip
            in_place = self._vm.in_kernel and not technique.memory.holds(at)
            if record.kind == TraceKind.EXEC and in_place and not self._expects(at):
                self.entries.append((record.tick, at))

    def _expects(self, eip: int) -> bool:
        """Is it an instruction that has been scanned, and that no jump of ours has overwritten?"""
        patch = self._technique.patches.at(eip)
        within = patch is not None and patch.kind == JUMP and patch.eip < eip < patch.end
        return self._technique.scanner.knows(eip) and not within


class Case(NamedTuple):
    """A guest. Machines are loaded and have not run, a new one each time."""

    virtual: Callable[[str], VirtualMachine]  #: under a technique
    bare: Callable[[], Machine]
    is_faithful: Callable[[str], bool]  #: whether the guest is as natively under a technique
    max_ticks: int


def reason(case: Case, technique: str) -> str:
    """Why a run under `patch`, or `patch --strict`, may differ from native; empty if for neither
    reason."""
    vm = case.virtual(technique)
    watcher = Watcher(vm)
    vm.run(case.max_ticks)
    vm.drain_trace()
    entered = UNSCANNED if vm.counts[UNSCANNED] else ""
    if watcher.entries:
        tick, eip = watcher.entries[0]
        entered = f"{UNSCANNED} at {eip:#x}, tick {tick}"
    if entered and technique != STRICT and case.is_faithful(STRICT):
        return entered
    found = first_read(case.bare(), case.bare(), watcher.patched, case.max_ticks)
    if found is not None:
        return f"{READS} at {found[1]:#x}, tick {found[0]}"
    # Both: without entries it would have read patches.
    return entered if technique == STRICT or (entered and reason(case, STRICT)) else ""


class _Executed:
    """Where a bare machine executes."""

    def __init__(self) -> None:
        self.eips: list[int] = []

    def render(self, records: Iterable[Any]) -> None:
        self.eips += [record.eip for record in records]


def first_read(
    plain: Machine, patched: Machine, bytes_: dict[int, int], max_ticks: int
) -> tuple[int, int] | None:
    """Tick and EIP where it is seen that an instruction does something else as it reads patches."""
    executed = _Executed()
    plain.set_tracer(TraceKind.EXEC, executed)
    for tick in range(max_ticks):
        executed.eips.clear()
        bases = [plain.cpu.state.seg[CODE_SEGMENT].base]
        stop = plain.run(tick + 1).stop
        plain.drain_trace()
        bases.append(plain.cpu.state.seg[CODE_SEGMENT].base)
        own = {
            plain.cpu.translate((base + eip + n) & 0xFFFF_FFFF)
            for base in bases for eip in executed.eips for n in range(LONGEST)
        }  # fmt: skip
        _run_with(patched, {at: byte for at, byte in bytes_.items() if at not in own}, tick + 1)
        last = stop is not Stop.OUT_OF_TICKS or tick + 1 == max_ticks
        if _state(plain) != _state(patched) or (
            (last or tick % MEMORY_TICKS == 0) and _memory(plain) != _memory(patched)
        ):
            return tick, executed.eips[0] if executed.eips else plain.cpu.state.eip
        if last:
            break
    return None


def _run_with(machine: Machine, bytes_: dict[int, int], tick: int) -> None:
    """Run with other bytes in memory, and put back what is still there."""
    memory = machine.memory
    before = {at: memory.read(at, 1) for at in bytes_}
    for at, byte in bytes_.items():
        memory.write(at, bytes([byte]))
    machine.run(tick)
    for at, byte in bytes_.items():
        if memory.read(at, 1)[0] == byte:
            memory.write(at, before[at])


def _state(machine: Machine) -> tuple[object, ...]:
    state = machine.cpu.state
    registers = bytes(ffi.buffer(state.gpr)) + bytes(ffi.buffer(state.seg))
    return registers, state.eip, state.eflags, state.cpl, state.cr2


def _memory(machine: Machine) -> memoryview:
    return machine.memory.view(0, machine.memory.size)
