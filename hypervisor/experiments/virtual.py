"""A recorded run of a virtual machine, stopped at any tick, as `NativeRun` is of the bare one.

Devices are on the machine's board, whoever reaches them. Events of the guest come from two CPUs:
the virtual one delivers most, the real one what passes through a gate (hypervisor/gates.py). The
machine hands the records of both on in order. Registers and memory are the guest's own: the virtual
CPU's, and guest-physical pages. Read observe.py first, lockstep.py next.
"""

from __future__ import annotations

from typing import Any

from emulator.loader import Program
from emulator.result import Result
from hypervisor.experiments.observe import PAGE, NativeRun, Observation, Recorder
from hypervisor.variants import set_weights, sites_of
from hypervisor.vm import VirtualMachine


class VirtualRun:
    """A recorded run under a technique, to be run on from tick to tick."""

    def __init__(
        self,
        program: Program | bytes,
        technique: str,
        *,
        ram: str | int = "16M",
        console_in: bytes = b"",
        **options: Any,
    ) -> None:
        """options: further arguments of `VirtualMachine`."""
        self.machine = VirtualMachine(
            technique=technique, ram=ram, console_in=console_in, **options
        )
        self.recorder = Recorder()
        self.recorder.attach_machine(self.machine)
        self.machine.load(program)
        self.result: Result | None = None

    def run(self, max_ticks: int) -> Result:
        """Run on until a tick, or the guest's end."""
        self.result = self.machine.run(max_ticks=max_ticks)
        return self.result

    def observe(self) -> Observation:
        """What was seen until now."""
        machine, result = self.machine, self.result or self.run(0)
        machine.drain_trace()
        machine.world.leave()
        number_of, view = machine.guest_page, machine.view_page
        pages = (
            (number_of[at // PAGE] * PAGE, view(number_of[at // PAGE] * PAGE, data))
            for at, data in machine.host.memory.pages()
            if at // PAGE in number_of
        )
        return self.recorder.finish(result, machine.cpu.state, pages)


def native_run(program: Program | bytes, **options: Any) -> NativeRun:
    """A recorded run on the bare machine; of a native twin, whose padding has no weight, too.

    options: those of `NativeRun`.
    """
    run = NativeRun(program, **options)
    set_weights(run.machine.memory, sites_of(program)[1])
    return run
