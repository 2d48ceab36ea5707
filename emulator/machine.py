"""The bare machine: a CPU, memory and a PC board, and the loop that keeps them going.

`run` lets the core execute until it needs something, and answers through one table from exit reason
to handler, `_handlers`. A handler serves the exit and returns; whether the machine goes on is in
`_stop` alone. Between two calls of the core every wake-up that is due has run, so a device acts at
the same tick in every run. A halted CPU costs nothing: time jumps to the next wake-up. Read core.py
for the CPU, board.py for the rest; hypervisor/ drives the same parts in its own way.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from emulator import diagnostics, firmware
from emulator.board import Board
from emulator.clock import NEVER, TICKS_PER_SECOND
from emulator.console import ConsoleIn, ConsoleOut, as_sink, as_source
from emulator.core import EFLAGS_IF, Cpu, ExitReason, PageFlag
from emulator.devices.rtc import DEFAULT_DATE
from emulator.disk import DiskSource, close_opened, open_disks
from emulator.errors import MachineError
from emulator.loader import ModuleSource, Program, plan
from emulator.local_apic import LocalApic
from emulator.memory import ROM, Memory, parse_size
from emulator.result import Result, Stop
from emulator.screen import clear_screen, read_screen
from emulator.strings import read_elements, write_elements
from emulator.symbols import Symbols
from emulator.virtualizable import unsafe_rows

VENDOR: Final = "SeventeenCPU"
MACHINES: Final = ("pc", "apic")
#: The core is left at least so often, that a signal's handler may run: about a tenth of a second.
SLICE_TICKS: Final = 10_000_000
#: A live source of input is looked at so often.
POLL_TICKS: Final = 1_000_000
SNAPSHOT_VERSION: Final = 1
#: Stops after which the machine may go on: nothing has happened to the guest.
PAUSES: Final = (Stop.OUT_OF_TICKS, Stop.REQUESTED, Stop.BREAKPOINT)


class TraceSink(Protocol):
    """Where the core's trace records go: `emulator.trace.Tracer`, or whoever listens."""

    def render(self, records: Iterable[Any]) -> None: ...


class Machine:
    """A PC with one CPU.

    machine: ``pc``, or ``apic``, which has a local and an I/O APIC besides, and MP tables. ram:
    bytes, or a string such as ``64M``. virtualizable: True for every unsafe instruction, or
    mnemonics: those raise #GP(0) above CPL 0. rtc: the date at tick 0. console_in: bytes, a file
    or descriptor, or an `InputSource`. console_out, debug_out: a function of bytes, or a binary
    file; without one, `Result.output` has what came on COM1, and nobody what came on port 0xE9.
    trace: a list of -d words, printed through trace_out. disks: up to four (`emulator.disk.Disk`,
    the name of an image file, or bytes), None where there is none; `close` closes those it opened.
    vendor: what CPUID calls the CPU's maker, for kernels that know but some. typed: what comes from
    console_in is typed on the keyboard instead of being sent to COM1.
    """

    def __init__(
        self,
        ram: str | int = "16M",
        machine: str = "pc",
        *,
        virtualizable: bool | Iterable[str] = False,
        rtc: datetime = DEFAULT_DATE,
        console_in: ConsoleIn = None,
        console_out: ConsoleOut = None,
        debug_out: ConsoleOut = None,
        trace: str = "",
        trace_out: Callable[[str], object] = sys.stderr.write,
        cost_model: str = "",
        vendor: str = VENDOR,
        disks: Sequence[DiskSource] = (),
        typed: bool = False,
    ) -> None:
        if machine not in MACHINES:
            raise MachineError(f"machine {machine!r}: expected {' or '.join(MACHINES)}")
        self._cost_model = cost_model
        self.memory, self.cpu = self._build(parse_size(ram))
        self._disk_sources = disks
        self.disks = open_disks(disks)
        self._output = bytearray()
        self.board = Board(
            ram=self.memory.size,
            date=rtc,
            console_in=as_source(console_in),
            console_out=as_sink(console_out) or self._output.extend,
            debug_out=as_sink(debug_out) or (lambda data: None),
            disks=self.disks,
            typed=typed,
            apic=machine == "apic",
        )
        self.local_apic = self._connect()
        self.set_vendor(vendor)
        #: Names for addresses; a program that brings its own sets them when it is loaded.
        self.symbols: Symbols = Symbols()
        self.exits = [0] * (max(ExitReason) + 1)  #: how many, by reason
        self.halted = False
        self._loaded = False
        self._limit = NEVER
        self._stop: Stop | None = None
        self._status: int | None = None
        self._details: tuple[str, ...] = ()
        self._tracer: TraceSink | None = None
        #: Does the run stop at a breakpoint, or at the watchpoint that an exit record has?
        self.debugger: Callable[[Any], bool] | None = None
        self.resumed = -1, -1  #: linear EIP and tick at which it has let the guest go on
        self._handlers = self._exit_table()
        self._virtualizable = unsafe_rows(virtualizable)
        self._trace_kinds = 0
        if trace:
            self._start_trace(trace, trace_out)
        self._reset()
        clear_screen(self.memory)

    def _build(self, ram: int) -> tuple[Memory, Cpu]:
        """Memory of `ram` bytes and a CPU; a virtual machine has its own idea of them."""
        memory = Memory(ram)
        memory.leave_hole()
        if self._cost_model:
            from isa.cost import find_model

            memory.set_costs(find_model(self._cost_model))
        return memory, Cpu(memory.machine)

    def _connect(self) -> LocalApic | None:
        """Connect CPU and board, the local APIC if there is one, and the pages of devices."""
        self.board.on_interrupt = self.cpu.set_interrupt
        local = None if self.board.ioapic is None else self._make_apic()
        for page in self.board.bus.pages:
            self.memory.leave_device(page)
        return local

    def set_vendor(self, vendor: str) -> None:
        """What CPUID calls the processor's maker; MachineError unless it is 12 ASCII characters."""
        if len(vendor) != len(VENDOR) or not vendor.isascii():
            raise MachineError(f"vendor {vendor!r}: expected 12 characters, as in GenuineIntel")
        self.cpu.set_vendor(vendor.encode())

    def _make_apic(self) -> LocalApic:
        return LocalApic(self.cpu, self.board)

    def _exit_table(self) -> list[Callable[[], None]]:
        """What serves each exit reason, by its number. The rest stop the machine."""
        table = [self._unhandled] * (max(ExitReason) + 1)
        for reason, handler in {
            ExitReason.DEADLINE: self._nothing,  # the loop itself runs what is due
            ExitReason.HALT: self._halt,
            ExitReason.PORT_READ: self._port_read,
            ExitReason.PORT_WRITE: self._port_write,
            ExitReason.MMIO_READ: self._mmio_read,
            ExitReason.MMIO_WRITE: self._mmio_write,
            ExitReason.INTERRUPT: self._interrupt,
            ExitReason.TRACE: self.drain_trace,
            ExitReason.SHUTDOWN: self._shutdown,
            ExitReason.UNSUPPORTED: self._unsupported,
            ExitReason.REQUEST: self._requested,
            ExitReason.BREAKPOINT: self.meet,
            ExitReason.WATCHPOINT: lambda: self.meet(self.cpu.record),
        }.items():
            table[reason] = handler
        return table

    def _reset(self) -> None:
        """Reset the CPU; what the machine was built with, traces and traps, stays."""
        self.cpu.reset()
        self.cpu.state.trace = self._trace_kinds
        for row in self._virtualizable:
            self.cpu.state.intercepts.gp_rows[row >> 3] |= 1 << (row & 7)

    # -- loading ----------------------------------------------------------------------------------

    def load(
        self,
        program: Program | bytes | str | os.PathLike[str],
        *,
        kernel_args: str = "",
        modules: Sequence[ModuleSource] = (),
        initrd: ModuleSource | None = None,
    ) -> None:
        """Load a program, its arguments, modules or initial RAM disk (loader.py, `plan`), and set
        the entry state; LoadError."""
        image = plan(
            program,
            ram=self.memory.size,
            kernel_args=kernel_args,
            modules=modules,
            initrd=initrd,
        )
        self._reset()
        if self._loaded:  # what the image leaves out is zero, as on a new machine
            self.memory.restore({})
            self.memory.forget_weights()
            clear_screen(self.memory)
        self._loaded = True
        self.halted, self._stop, self._status = False, None, None
        self._load_firmware()
        for segment in image.segments:
            self.memory.write(segment.address, segment.data)
        for name, value in image.registers.items():
            self.cpu[name] = value
        if image.table is not None:
            self.cpu.set_flat_table(*image.table)
        self.symbols = image.symbols

    def _load_firmware(self) -> None:
        """Leave in memory what a PC's firmware does."""
        self.memory.set_flags(ROM, clear=PageFlag.ROM)
        for segment in firmware.segments(apic=self.board.ioapic is not None):
            self.memory.write(segment.address, segment.data)
        self.memory.set_flags(ROM, set_=PageFlag.ROM)

    # -- running ----------------------------------------------------------------------------------

    @property
    def ticks(self) -> int:
        """Guest time."""
        ticks: int = self.cpu.state.tick
        return ticks

    def run(self, max_ticks: int | None = None) -> Result:
        """Run until the guest stops, or guest time reaches `max_ticks`; then `run` may go on."""
        self._limit = NEVER if max_ticks is None else max_ticks
        if self._stop in PAUSES:
            self._stop = None
        clock, state, exits, handlers = self.board.clock, self.cpu.state, self.exits, self._handlers
        run = self._runner()
        clock.now = state.tick
        if self.halted and self._stop is None:
            self._sleep()
        slice_end = 0
        # A port exit costs some two microseconds, most of them here: no detours.
        while self._stop is None:
            if clock.next_tick <= clock.now:
                self.board.run_due()
            if clock.now >= slice_end:
                slice_end = self._begin_slice()
                continue
            due = clock.next_tick
            reason = run(due if due < slice_end else slice_end)
            clock.now = state.tick
            exits[reason] += 1
            handlers[reason]()
        return self._result()

    def _runner(self) -> Callable[[int], int]:
        """What runs the CPU until a tick, or an earlier exit whose reason it returns."""
        return self.cpu.run if self._tracer is None else self._run_traced

    def _begin_slice(self) -> int:
        """The tick until which nothing but exits and wake-ups needs a thought."""
        now, live = self.board.clock.now, self.board.source.live
        if live:
            self.board.poll()
        if now >= self._limit:
            self._end(Stop.OUT_OF_TICKS)
        return min(self._limit, now + (POLL_TICKS if live else SLICE_TICKS))

    def _end(self, stop: Stop, reason: str = "", details: tuple[str, ...] = ()) -> None:
        self._stop, self._reason, self._details = stop, reason or stop.words, details

    def _result(self) -> Result:
        assert self._stop is not None
        state = self.cpu.state
        return Result(
            stop=self._stop,
            status=self._stop.status if self._status is None else self._status,
            reason=self._reason,
            details=self._details,
            registers=self.cpu.registers,
            ticks=state.tick,
            cycles=state.cycle,
            exits=Counter({r.name.lower(): self.exits[r] for r in ExitReason if self.exits[r]}),
            output=bytes(self._output),
            faults=tuple(self.cpu.faults) if self._stop is Stop.TRIPLE_FAULT else (),
        )

    # -- exits ------------------------------------------------------------------------------------

    def _port_read(self) -> None:
        port, size, count, _ = self.cpu.port_access()
        if count == 1:
            self.cpu.complete(self.board.bus.port_read(port, size))
            return
        self.cpu.complete_bytes(read_elements(self.board, port, size, count, self._ends()))

    def _port_write(self) -> None:
        port, size, count, value = self.cpu.port_access()
        if count == 1:
            self.board.bus.port_write(port, size, value)
        else:
            data = self.cpu.exit_data[: count * size]
            self.cpu.cut_short(write_elements(self.board, port, size, data, self._ends()))
        self.cpu.complete(0)
        if self.board.status is not None:
            self._power_off()

    def _ends(self) -> Callable[[], object]:
        """Has something happened that the elements of a string behind this one must not precede?"""
        state, board = self.cpu.state, self.board
        if state.interrupt_line:  # it waits, for interrupts are off
            return lambda: board.status is not None
        return lambda: state.interrupt_line or board.status is not None

    def _mmio_read(self) -> None:
        record = self.cpu.exit
        self.cpu.complete(self.board.bus.memory_read(record.address, record.size))

    def _mmio_write(self) -> None:
        for address, size, value in self.cpu.posted:
            self.board.bus.memory_write(address, size, value)

    def _acknowledge(self) -> int:
        """Take the interrupt that waits: its vector."""
        vector = self.cpu.acknowledge()
        return self.board.pic.acknowledge() if vector < 0 else vector

    def _interrupt(self) -> None:
        if not self.cpu.state.interrupt_line:
            return  # it was up when somebody looked, but a local APIC's can fall
        again = self.cpu.interrupt(self._acknowledge())
        if again:  # its delivery failed
            self.exits[again] += 1
            self._handlers[again]()

    def _shutdown(self) -> None:
        self._end(Stop.TRIPLE_FAULT, *diagnostics.triple_fault(self.cpu, self.symbols))

    def _unsupported(self) -> None:
        self._end(Stop.UNSUPPORTED, *diagnostics.unsupported(self.cpu, self.symbols))

    def _unhandled(self) -> None:
        self._end(Stop.UNHANDLED, *diagnostics.unhandled(self.cpu, self.symbols))

    def _requested(self) -> None:
        self._end(Stop.REQUESTED)

    def meet(self, hit: Any = None) -> None:
        """The CPU is at a breakpoint, or has met a watchpoint: an exit record has it."""
        if self.debugger is None or self.debugger(hit):
            self._end(Stop.BREAKPOINT)

    def _nothing(self) -> None:
        pass

    def _power_off(self) -> None:
        """The instruction that did it still retires, so that the end is between instructions."""
        self._status = self.board.status
        self.cpu.run(self.ticks + 1)
        self.board.clock.now = self.ticks
        self._end(Stop.POWERED_OFF, f"powered off with status {self._status}")

    # -- halting ----------------------------------------------------------------------------------

    def _halt(self) -> None:
        self.halted = True
        self._sleep()

    def _sleep(self) -> None:
        """Let a halted CPU's time pass until an interrupt comes for it, or the machine stops."""
        board, clock, state = self.board, self.board.clock, self.cpu.state
        if not state.eflags & EFLAGS_IF:
            self._end(Stop.HALTED)
            return
        while not state.interrupt_line:
            next_tick = min(clock.next_tick, state.timer_due)
            if not self._can_wake(next_tick):
                self._end(Stop.IDLE)
                return
            if clock.now >= self._limit:
                self._end(Stop.OUT_OF_TICKS)
                return
            self._pass_time(min(next_tick, self._limit))
            board.run_due()
            self.cpu.advance_apic()
        self.halted = False

    def _can_wake(self, next_tick: int) -> bool:
        """May an interrupt come for a halted CPU? next_tick: of the wake-ups ahead, or NEVER."""
        if self.cpu.state.timer_due != NEVER:
            return True
        return self.board.can_interrupt() and (next_tick != NEVER or self.board.source.live)

    def _pass_time(self, until: int) -> None:
        """Jump to a tick; with live input no faster than the wall clock, or until input comes."""
        board, clock = self.board, self.board.clock
        if board.source.live:
            seconds = None if until == NEVER else (until - clock.now) / TICKS_PER_SECOND
            start = time.monotonic()
            board.source.wait(seconds)
            waited = time.monotonic() - start
            until = min(until, clock.now + max(1, round(waited * TICKS_PER_SECOND)))
        self.cpu.state.tick = clock.now = until
        board.poll()

    def request_exit(self) -> None:
        """Make `run` return soon; may be called from a signal handler or another thread."""
        self.cpu.request_exit()

    def screen(self) -> list[str]:
        """The lines of text on the screen, without blanks at their ends."""
        return read_screen(self.memory, self.board.vga).lines

    def close(self) -> None:
        """Flush and close the disks that this machine opened."""
        close_opened(self._disk_sources, self.disks)

    # -- tracing ----------------------------------------------------------------------------------

    def _start_trace(self, kinds: str, out: Callable[[str], object]) -> None:
        from emulator.trace import Tracer, parse_kinds  # with the disassembler: not for every run

        self.set_tracer(parse_kinds(kinds), Tracer(out, self.memory.read, lambda: self.symbols))

    def set_tracer(self, kinds: int, tracer: TraceSink) -> None:
        """Hand the core's records of `kinds` (bits of `TraceKind`) to `tracer`, in -d's place."""
        self._trace_kinds = self.cpu.state.trace = int(kinds)
        self._tracer = tracer

    def watch_apic(self) -> None:
        """Have all accesses to the local APIC go over the bus; needs a tracer."""
        if self.local_apic is not None:
            self.local_apic.watch()

    def _run_traced(self, until_tick: int) -> int:
        self.cpu.advance_apic()  # if the core does not do it
        reason = self.cpu.run(min(until_tick, self.cpu.state.timer_due))
        self.drain_trace()
        return reason

    def drain_trace(self) -> None:
        """Hand over what the core has recorded until now."""
        while records := self.cpu.take_trace():
            if self._tracer is not None:
                self._tracer.render(records)

    # -- snapshots --------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """The whole machine as plain data: numbers, strings, bytes, lists, dicts.

        Of its disks only what was written in memory: an image file is what it is.
        """
        return {
            "version": SNAPSHOT_VERSION,
            "cpu": self.cpu.save(),
            "ram": self.memory.size,
            "memory": dict(self.memory.pages()),
            "board": self.board.save(),
            "halted": self.halted,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take back what `save` returned, here or in another machine of the same size."""
        if saved["version"] != SNAPSHOT_VERSION or saved["ram"] != self.memory.size:
            raise MachineError(
                f"snapshot: expected version {SNAPSHOT_VERSION}, {self.memory.size} bytes of RAM, "
                f"found version {saved['version']}, {saved['ram']} bytes"
            )
        self.memory.restore(saved["memory"])
        self.cpu.load(saved["cpu"])
        self.board.load(saved["board"])
        self.board.clock.now = self.ticks
        self.halted = saved["halted"]
        self._stop = self._status = None
