"""The host: one real machine, which virtual machines share.

It owns the machine's memory, frame by frame, and its one real CPU. A virtual machine takes frames
for its guest's memory, for its monitor area and for its shadow tables; nothing promises that they
lie side by side. `run` lets several machines take turns by machine time. Read vm.py next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from emulator.clock import NEVER
from emulator.core import Cpu
from emulator.memory import Memory, parse_size
from emulator.result import Result, Stop
from hypervisor.errors import HypervisorError
from isa.cost import DEFAULT_MODEL, find_model, without_bus

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

PAGE: Final = 4096
#: What a virtual machine needs beside its guest's memory: monitor area and shadow tables, in bytes.
OVERHEAD: Final = 6 << 20
#: Cycles of machine time that a virtual machine runs before it is another one's turn.
TURN_CYCLES: Final = 5_000_000
TURN_TICKS: Final = 100_000  #: its time is looked at so often
#: What a turn is charged for a cycle of the virtual CPU: to interpret is some hundred times slower.
INTERPRETED_CHARGE: Final = 100
ZEROS: Final = bytes(PAGE)


class Host:
    """A machine with `ram` bytes for its guests, and one CPU."""

    def __init__(
        self, ram: str | int = "64M", guests: int = 1, *, cost_model: str = DEFAULT_MODEL
    ) -> None:
        """cost_model: the processor whose cycles machine time counts, by name (isa/cost.py)."""
        self.cost_model = find_model(cost_model)
        self.prices = self.cost_model.instruction_cycles  #: of instructions, by the `cost` column
        self.memory = Memory(parse_size(ram) + guests * OVERHEAD)
        self.memory.set_costs(without_bus(self.cost_model))
        self.cpu = Cpu(self.memory.machine)
        # The shadows keep it from pages that are watched; whoever it is let to is let by us.
        self.cpu.set_watching(False)
        # Taken from the end: so a guest's frames run against its addresses, and code that took
        # one for the other would not get far.
        self._free = list(range(self.memory.size // PAGE))
        self.machines: list[VirtualMachine] = []
        #: Whose state the real CPU holds. Only world.py sets it.
        self.running: Any = None

    @property
    def free_frames(self) -> int:
        """How many frames nobody has."""
        return len(self._free)

    def allocate(self) -> int:
        """A machine page that holds nothing of anybody's; HypervisorError if there is none."""
        if not self._free:
            raise HypervisorError("the machine has no memory left for its virtual machines")
        return self._free.pop()

    def take(self, frames: range) -> None:
        """Take these machine pages, all or none; HypervisorError if one is not to be had."""
        missing = set(frames).difference(self._free)
        if missing:
            raise HypervisorError(
                f"--mmu shared: expected the machine page {min(missing):#x} to be free for the"
                " guest's page of the same number, found another virtual machine's"
            )
        self._free = [frame for frame in self._free if frame not in frames]

    def allocate_zeroed(self) -> int:
        """A machine page of zeros."""
        frame = self.allocate()
        self.memory.write(frame << 12, ZEROS)
        return frame

    def free(self, frame: int) -> None:
        """Give a machine page back; whoever gets it next finds nothing of what it held."""
        self.memory.write(frame << 12, ZEROS)
        self._free.append(frame)

    def run(self, machines: Sequence[VirtualMachine], max_ticks: int | None = None) -> list[Result]:
        """Run machines in turns of machine time until each has stopped; their results."""
        waiting = list(machines)
        while waiting:
            waiting = [vm for vm in waiting if not run_turn(vm, TURN_CYCLES, max_ticks)]
        return [vm.result() for vm in machines]


def charged(vm: VirtualMachine) -> int:
    """Machine time as far as turns go."""
    interpreted: int = vm.cpu.state.cycle
    return vm.world.cycles + interpreted * INTERPRETED_CHARGE


def run_turn(vm: VirtualMachine, cycles: int, max_ticks: int | None) -> bool:
    """Run a machine for some cycles of machine time; True once it has stopped for good.

    A guest that halts gives up the rest: its time passes, but nobody's cycles.
    """
    end = charged(vm) + cycles
    limit = NEVER if max_ticks is None else max_ticks
    vm.turn_ended = False
    while charged(vm) < end and not vm.turn_ended:
        stop = vm.run(min(limit, vm.ticks + TURN_TICKS)).stop
        if stop is not Stop.OUT_OF_TICKS or vm.ticks >= limit:
            return True
        if vm.halted:
            break
    return False
