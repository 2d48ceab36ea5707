"""A virtual machine: a machine whose CPU is virtual.

It is the bare machine (emulator/machine.py) - same board, devices, clock and loader - but its
memory is frames of a host's, and its CPU's code runs on the host's real CPU wherever the technique
allows. The bare machine's loop asks `_run_virtual` to run the CPU; that enters the guest's world,
runs the real CPU to an exit and serves it through one table (exits.py). What the virtual CPU
executes itself, step by step, leaves by the bare machine's own exits, so devices, halts and
interrupts need no second code.

Read world.py for the switch, exits.py for exits, techniques/ and memory/ for the two choices.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from emulator import diagnostics
from emulator.core import EFLAGS_IF, Cpu, ExitReason
from emulator.loader import ModuleSource, Program
from emulator.local_apic import LocalApic
from emulator.machine import Machine, TraceSink
from emulator.memory import Memory
from emulator.result import Result, Stop
from hypervisor.descriptors import Descriptors
from hypervisor.emulate import Trapped
from hypervisor.exits import EXITS, GUEST_EXITS
from hypervisor.gates import Gates
from hypervisor.guest_memory import GuestMemory
from hypervisor.guest_mode import EXCEPTION, EXTERNAL, GuestMode
from hypervisor.host import Host
from hypervisor.lent_apic import LentApic
from hypervisor.memory import choose_memory, find_memory
from hypervisor.memory.shadow import Verdict
from hypervisor.monitor import Monitor
from hypervisor.outcome import REFLECT, RESUME, STOP, Counts, Event, Outcome
from hypervisor.scratch import Scratch
from hypervisor.segments import CS
from hypervisor.stops import at_own_breakpoint, run_debugged
from hypervisor.switch import Switch
from hypervisor.techniques import find_technique
from hypervisor.techniques.base import Technique
from hypervisor.variants import set_weights, sites_of
from hypervisor.world import World
from isa.cost import DEFAULT_MODEL
from isa.table import ROWS

DEFAULT_RAM: Final = "16M"
ALL_VECTORS: Final = bytes([0xFF] * 32)
DEADLINE: Final = int(ExitReason.DEADLINE)
INTERRUPT: Final = int(ExitReason.INTERRUPT)
#: What is counted for an exit from guest mode that has no other name.
EXIT_NAMES: Final = {int(reason): reason.name.lower().replace("_", " ") for reason in ExitReason}
TRACE_RING: Final = 4096  #: records that a CPU of the core keeps


class VirtualMachine(Machine):
    """A PC with a virtual CPU, on a host of its own or on one that it shares.

    program: loaded at once if given. gates: whether pass-through gates are used. virtualizable:
    makes the unsafe instructions, all or those named, trap on the real CPU. mmu: a memory
    virtualization, the technique's first if not given. The other options are those of `Machine`;
    traces are hypervisor/trace.py's. cost_model: of the host, if it is this machine's own.
    """

    def __init__(
        self,
        program: Program | bytes | str | os.PathLike[str] | None = None,
        technique: str | Technique = "trap",
        mmu: str | None = None,
        *,
        ram: str | int = DEFAULT_RAM,
        host: Host | None = None,
        gates: bool = True,
        **options: Any,
    ) -> None:
        self.technique = find_technique(technique) if isinstance(technique, str) else technique
        self.mmu = choose_memory(mmu, self.technique)
        wanted = options.pop("cost_model", "") or DEFAULT_MODEL
        self.host = Host(ram, cost_model=wanted) if host is None else host
        self.prices = self.host.prices  #: of the instructions that emulate.py does
        #: System calls may go to the guest's handler without an exit.
        self.passes_gates = gates and self.technique.kernel_in_ring_1
        self.turn_ended = False
        self.scratch = Scratch(self)
        self.interpret = self.scratch.interpret
        self.event = Event(0)  #: what a handler wants reflected
        self.counts = Counts()  #: exits of the real CPU, by reason
        self.interpreted: Counter[str] = Counter()  #: instructions the virtual CPU took, by reason
        #: What would not have exited but for a structure of ours: (mnemonic, structure).
        self.rescued: Counter[tuple[str, str]] = Counter()
        self.reflected = 0  #: exceptions of the real CPU that were the guest's own
        self.trapped: dict[tuple[int, int, int], Trapped] = {}  #: by place; emulate.py's
        self.emulated_cycles = 0  #: machine time of instructions that emulate.py has done
        self.steps = 0  #: instructions, or iterations of a repeat, that the virtual CPU took
        super().__init__(ram, **options)
        self.host.machines.append(self)
        if program is not None:
            self.load(program)

    def _show(self, cpu: Cpu) -> None:
        """Let handlers see the guest where it is while they are called: on the real CPU, or, after
        an exit from guest mode, on the virtual one."""
        self._executing = cpu
        self.real = cpu.state
        # Fields of it that every exit needs.
        self.gpr, self.dr, self.flags, self.real_tick, self._real_cpl = map(
            cpu.field, ("gpr", "dr", "eflags", "tick", "cpl")
        )
        self.record = cpu.record  #: of the last exit
        self.read_fault = cpu.fault  #: what it says of an exception
        #: The instruction that the real CPU could not execute is done; the next one's EIP, which
        #: must be below 2**32.
        self.retire = cpu.retire

    def _build(self, ram: int) -> tuple[Memory, Cpu]:
        guest_mode = self.technique.guest_mode
        kind = find_memory(self.mmu)
        memory = GuestMemory(self.host, ram, direct=kind.direct)
        cpu = self.cpu = Cpu(self.host.memory.machine)
        cpu.set_frames(memory.frames, memory.count)
        self._tick, self._timer_due, self._interrupt_line, self._cpl = map(
            cpu.field, ("tick", "timer_due", "interrupt_line", "cpl")
        )
        #: Not zero within an instruction that has been answered by a device: it goes on first.
        self._pending_answers = cpu.field("replay_count")
        self.guest_page = memory.guest_page
        self.guest_memory = memory
        self._show(cpu if guest_mode else self.host.cpu)
        self.monitor = Monitor(self.host)
        #: A GuestPaging; which one, the technique has a say in.
        self.paging: Any = kind(
            self.host, memory, cpu, None if guest_mode else self.monitor.page_table
        )
        self._run_real = self.paging.runner(self.host.cpu.run)
        if kind.direct:  # the real CPU could walk the tables only while it runs
            self._executing = cpu
        self.descriptors = Descriptors(cpu, self.monitor, memory.guest_page, self.paging.trace)
        self.world: Switch
        if guest_mode:
            self.world = self.guest_mode = GuestMode(self.host, cpu, self.paging)
        else:
            self.world = World(self.host, cpu, self.descriptors, self.paging)
        self._run_once = self._run_guest_to_exit if guest_mode else self._run_to_exit
        self.technique.attach(self)
        self.gates = Gates(self)
        self.descriptors.on_busy = self._leave_busy
        self.world.on_change.append(self.gates.check)
        return memory, cpu

    def set_vendor(self, vendor: str) -> None:
        super().set_vendor(vendor)
        self.world.set_vendor(vendor.encode())

    def _make_apic(self) -> LocalApic:
        return LentApic(self)

    def load(
        self,
        program: Program | bytes | str | os.PathLike[str],
        *,
        kernel_args: str = "",
        modules: Sequence[ModuleSource] = (),
        initrd: ModuleSource | None = None,
    ) -> None:
        """Load as the bare machine does; HypervisorError if the technique cannot run it."""
        variant, sites = sites_of(program)
        self.technique.load(self, variant, sites)
        super().load(program, kernel_args=kernel_args, modules=modules, initrd=initrd)
        set_weights(self.memory, sites)

    def _reset(self) -> None:
        self.cpu.reset()
        self.cpu.state.trace = self._trace_kinds
        self._forget()
        intercepts = self.world.intercepts
        if self.technique.guest_mode:
            return  # no instruction is unsafe there
        intercepts.vectors = ALL_VECTORS
        for row in self._virtualizable:
            intercepts.gp_rows[row >> 3] |= 1 << (row & 7)

    def _forget(self) -> None:
        """The guest is another one now, or elsewhere: nothing made for it holds."""
        self.world.forget()
        self.paging.clear()
        self.descriptors.clear()
        self.gates.close()
        self.technique.forget(self)

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self._forget()

    def _exit_table(self) -> list[Callable[[], None]]:
        table = super()._exit_table()
        table[ExitReason.WATCH] = self._watched
        table[ExitReason.TRACE] = self.drain_trace
        table[ExitReason.BREAKPOINT] = partial(at_own_breakpoint, self)
        return table

    # -- the run loop ------------------------------------------------------------------------------

    def _runner(self) -> Callable[[int], int]:
        return self._run_virtual

    def _run_virtual(self, until: int) -> int:
        """Run until a tick, or to what the bare machine's loop shall serve, and return that."""
        tick, clock, timer_due = self._tick, self.board.clock, self._timer_due
        run_to_exit = self._run_once if self._tracer is None else self._run_traced_to_exit
        if self.debugger is not None:
            run_to_exit = partial(run_debugged, self, run_to_exit)
        while True:
            if timer_due[0] <= tick[0]:
                self.world.leave()  # the guest may have set it anew since
                self.cpu.advance_apic()
            reason = run_to_exit(min(until, timer_due[0]))
            if reason != DEADLINE or self._stop is not None:
                return reason
            now = tick[0]
            # A device may want to be woken earlier than anyone knew when `until` was chosen.
            if now >= until or clock.next_tick < until:
                return reason

    def _run_to_exit(self, until: int) -> int:
        """Run to the next exit of either CPU, and serve it if it is the real one's."""
        state, world = self.cpu.state, self.world
        if self._interrupt_line[0] and not self._pending_answers[0]:
            if world.area is not None:
                world.leave()  # the virtual IF is the guest's to change
            if state.eflags & EFLAGS_IF:
                world.leave()
                if not state.interrupt_shadow:
                    return INTERRUPT
                until = min(until, state.tick + 1)
        if not world.entered and not self._may_enter():
            return self.technique.step(self, until) if self._stop is None else DEADLINE
        self.scratch.until = until
        until = self.technique.limit(self, until)
        if not world.entered:
            world.enter()
        outcome = EXITS[self._run_real(until)](self)
        if outcome is REFLECT:
            self._reflect()
        if world.entered:
            self._tick[0] = self.real_tick[0]
        return DEADLINE

    def _run_guest_to_exit(self, until: int) -> int:
        """The same in guest mode, whose exits may be the bare machine's to serve."""
        if self._interrupt_line[0] and not (self._pending_answers[0] or self.guest_mode.delivering):
            state = self.cpu.state
            if state.eflags & EFLAGS_IF and not state.interrupt_shadow:
                return INTERRUPT
        reason = self.guest_mode.run(until)
        handler = GUEST_EXITS.get(reason)
        if handler is None:
            self.count_served(reason)
            return reason
        if handler(self) is REFLECT:
            self.reflected += 1
            self.cpu.state.cr2 = self.event.address
            self.guest_mode.deliver(self.event.vector, EXCEPTION, self.event.error)
        return DEADLINE

    def _interrupt(self) -> None:
        """An external interrupt; into guest mode the processor itself delivers it, now."""
        if not self.technique.guest_mode:
            super()._interrupt()
            return
        if not self.cpu.state.interrupt_line:
            return
        self.guest_mode.deliver(self._acknowledge(), EXTERNAL)
        while self.guest_mode.delivering and self._stop is None:
            again = self._run_once(self.ticks)
            if again != DEADLINE:
                self.exits[again] += 1
                self._handlers[again]()

    def deliver_here(self) -> Outcome:
        """Have the virtual CPU deliver what the real one was about to, and could not."""
        if self.guest_mode.control.event.again:
            self.guest_mode.drop()
            return self.interpret("delivery")  # of the instruction's own fault
        again = self.guest_mode.deliver_here()
        if again:
            self._handlers[again]()
        return RESUME if self._stop is None else STOP

    def _may_enter(self) -> bool:
        refusal = self.technique.refusal(self)
        if refusal:
            self._end(Stop.UNSUPPORTED, refusal)
        self.gates.check_flags()
        return not refusal and self.technique.runs_directly(self)

    def _reflect(self) -> None:
        """Deliver an exception through the guest's own IDT."""
        self.reflected += 1
        self.world.leave()
        event = self.event
        if event.address is not None:
            self.cpu.state.cr2 = event.address
        self.cpu.state.interrupt_shadow = self.cpu.state.debug_shadow = 0  # the fault ends them
        again = self.cpu.inject(event.vector, event.error)
        if again:
            self._handlers[again]()

    # -- what exit handlers use --------------------------------------------------------------------

    @property
    def in_kernel(self) -> bool:
        """Is the guest at virtual CPL 0?"""
        cpl = self._real_cpl if self.world.entered else self._cpl
        return cpl[0] != 3

    def page_of(self, linear: int) -> int | None:
        """The guest page at a linear address of the guest's; None if there is none."""
        address = self.cpu.translate(linear)
        return None if address is None else self.guest_page.get(address >> 12)

    def count_served(self, reason: int) -> None:
        """Count an exit from guest mode that is served as the bare machine's."""
        named = reason in (ExitReason.PORT_READ, ExitReason.PORT_WRITE)
        self.count(ROWS[self.record.row].mnemonic if named else EXIT_NAMES[reason])

    def count(self, reason: str) -> None:
        """Count an exit."""
        self.counts[reason] += 1

    def serve(self, reason: int) -> None:
        """Serve an exit of the virtual CPU, as the bare machine does."""
        self._handlers[reason]()

    def code_at(self, eip: int, length: int) -> bytes:
        """The bytes of an instruction of the guest; fewer where they are not mapped."""
        return self._executing.read_linear(self.real.seg[CS].base + eip, length)

    def fill_shadow(self, record: Any) -> bool:
        """Repair a page fault of the real CPU, if the shadows were behind; False if not."""
        if self.paging.fault(record.linear, record.error)[0] is not Verdict.HIDDEN:
            return False
        self.count("hidden page fault")
        self.refresh_paging()
        return True

    def fill_descriptor(self, selector: int) -> bool:
        """Give the shadow tables a descriptor that they lack; False if that is not what they do."""
        if not self.descriptors.fill(selector):
            return False
        self.count("descriptor load")
        self.refresh_paging()  # its page is traced now
        return True

    def refresh_paging(self) -> None:
        """After a fault has changed the shadows, while the guest is on the real CPU."""
        if self.paging.stale:
            self.world.refresh()

    def write_physical(self, address: int, data: bytes) -> None:
        """Write to guest-physical memory on the guest's behalf, within a page, and say so."""
        self.memory.write(address, data)
        self._written(address >> 12)

    @property
    def view_page(self) -> Callable[[int, bytes], bytes]:
        """Address and bytes of a guest page -> as the guest wrote them."""
        return self.guest_memory.view_page

    @view_page.setter
    def view_page(self, view: Callable[[int, bytes], bytes]) -> None:
        self.guest_memory.view_page = view

    @property
    def stopped(self) -> bool:
        """Has the machine stopped?"""
        return self._stop is not None

    def check_power(self) -> None:
        """Stop if the guest has just switched the machine off."""
        if self.board.status is not None:
            self._status = self.board.status
            self._end(Stop.POWERED_OFF, f"powered off with status {self._status}")

    def stop_unsupported(self) -> None:
        """The real CPU met something outside the slice."""
        self.world.leave()
        self._end(Stop.UNSUPPORTED, *diagnostics.unsupported(self.host.cpu, self.symbols))

    def stop_requested(self) -> None:
        """Somebody called request_exit."""
        self._end(Stop.REQUESTED)

    def request_exit(self) -> None:
        self.cpu.request_exit()
        self.host.cpu.request_exit()

    # -- exits of the virtual CPU that are not the bare machine's ---------------------------------

    def _power_off(self) -> None:
        """As on the bare machine, but the instruction may be another than stands at EIP."""
        self._status = self.board.status
        instead, end = self.scratch.instead, self.ticks + 1
        if instead is not None or not self.technique.guest_mode:
            self.cpu.step(*instead or (b"", 0))
        else:  # the CPU whose exit it was has made the instruction's other accesses
            while self.ticks < end and self._run_once(end) == DEADLINE:
                pass
        self.board.clock.now = self.ticks
        self._end(Stop.POWERED_OFF, f"powered off with status {self._status}")

    def _watched(self) -> None:
        """A store to a page that shadows depend on."""
        record = self.cpu.record
        for page in record.watched[0 : record.watched_count]:
            self._written(self.guest_page[page])

    def _written(self, page: int) -> None:
        if not self.paging.is_traced(page):
            return
        self.paging.written(page)
        self.descriptors.forget_page(page)
        self.descriptors.check()
        self.gates.written(page)
        self.technique.written(self, page)

    def _leave_busy(self, page: int) -> None:
        """A page with descriptors is written to all the time: they are not shadowed any more."""
        self.gates.abandon(page)
        self.paging.untrace(page)

    # -- tracing -----------------------------------------------------------------------------------

    def _start_trace(self, kinds: str, out: Callable[[str], object]) -> None:
        from hypervisor.trace import VirtualTracer

        tracer = VirtualTracer(self, kinds, out)
        self.set_tracer(tracer.core_kinds, tracer)

    def set_tracer(self, kinds: int, tracer: TraceSink) -> None:
        """As on the bare machine; the real CPU records what the guest does on it."""
        super().set_tracer(kinds, tracer)
        self.world.load_trace()

    def _run_traced_to_exit(self, until: int) -> int:
        """The same, with the records of both CPUs in the order in which things happened."""
        self.drain_trace()  # what was delivered since the last exit, by the virtual CPU
        reason = self._run_once(until)
        self.drain_trace()
        return reason

    def drain_trace(self) -> None:
        """Hand on what the core has recorded on either CPU, in the order of guest time."""
        assert self._tracer is not None
        records = [*self.host.cpu.take_trace(TRACE_RING), *self.cpu.take_trace(TRACE_RING)]
        if records:
            self._tracer.render(sorted(records, key=lambda record: int(record.tick)))

    # -- taking turns with other machines ----------------------------------------------------------

    def end_turn(self) -> None:
        """Let others run, if there are any."""
        self.turn_ended = True

    @property
    def cycles(self) -> int:
        """Machine time: what both CPUs have executed for this guest, and what was emulated."""
        interpreted: int = self.cpu.state.cycle
        return self.world.cycles + interpreted + self.emulated_cycles

    # -- results -----------------------------------------------------------------------------------

    def result(self) -> Result:
        """What the run has left behind."""
        return self._result()

    def _result(self) -> Result:
        self.world.leave()
        return super()._result()._replace(exits=Counter(self.counts), cycles=self.cycles)
