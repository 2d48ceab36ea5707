"""`seventeen run`: a program, a machine, and what became of them.

The guest's COM1 is stdin and stdout; whatever we have to say goes to stderr. Here are the options
and the order of things; program.py finds the program, console.py connects the streams, report.py
says how it ended. The bare machine is emulator/machine.py, a virtual one hypervisor/vm.py, which is
loaded only when a technique asks for it; several.py runs more than one.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hypervisor.cli.complete import (
    complete_machines,
    complete_memories,
    complete_programs,
    complete_techniques,
)
from hypervisor.cli.options import PORT, TICKS, BareOptionCommand
from hypervisor.cli.program import Loadable, find_program
from hypervisor.cli.status import Stop, StopError
from hypervisor.techniques import NATIVE, TECHNIQUES

if TYPE_CHECKING:
    from emulator.machine import Machine
    from hypervisor.cli.console import Runner

DEFAULT_RAM = "64M"
SWITCHES = (
    "--user",
    "--no-adaptive",
    "--link-back",
    "--strict",
)  #: of a technique; a test holds that there are no others
SITES_OWNER = b"Seventeen\0"  # isa.sites.NOTE_OWNER; a test compares


class RunCommand(BareOptionCommand):
    """Its help ends with the table of exit statuses."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from hypervisor.cli.report import statuses

        with formatter.section("Exit status"):
            formatter.write_dl(statuses())


class Options(NamedTuple):
    """The options of a run, as given. (A dataclass would take a millisecond to make.)"""

    programs: tuple[str, ...]
    technique: str
    mmu: str | None
    machine: str | None
    ram: str
    kernel_args: str
    modules: tuple[str, ...]
    initrd: str | None
    include: tuple[str, ...]
    max_ticks: int | None
    virtualizable: str | None
    rtc: str | None
    trace: str
    trace_file: str | None
    json: str | None
    stats: bool
    cost_model: str
    cpu_vendor: str
    watch: bool
    timeline: str | None
    disks: tuple[str, ...]
    snapshot: bool
    screen: bool
    serial: str | None
    gdb: int | None


@click.command(cls=RunCommand, short_help="Run a guest program.")
@click.argument("programs", nargs=-1, metavar="PROGRAM...", shell_complete=complete_programs)
@click.option(
    "--technique",
    default=NATIVE,
    metavar="T",
    shell_complete=complete_techniques,
    help=f"How to run the guest: {', '.join((NATIVE, *TECHNIQUES))}.",
)
@click.option(
    "--mmu",
    metavar="M",
    shell_complete=complete_memories,
    help="How a technique virtualizes memory; the one it prefers if not given.",
)
@click.option("--user", is_flag=True, help="Under translate: ring 3's code is translated, too.")
@click.option(
    "--no-adaptive",
    is_flag=True,
    help="Under translate: stores that keep faulting are not translated anew.",
)
@click.option(
    "--link-back",
    is_flag=True,
    help="Under translate: loops that need no translation run in place.",
)
@click.option(
    "--strict", is_flag=True, help="Under patch: indirect jumps, calls, returns are patched, too."
)
@click.option(
    "--machine",
    metavar="M",
    shell_complete=complete_machines,
    help="The machine, pc or apic; the one a guest is meant for, or pc, if not given.",
)
@click.option("--ram", default=DEFAULT_RAM, metavar="SIZE", help=f"Memory ({DEFAULT_RAM}).")
@click.option("--kernel-args", default="", metavar="STR", help="The kernel's command line.")
@click.option(
    "--module", "modules", multiple=True, metavar="FILE", help="A multiboot module; repeatable."
)
@click.option(
    *("--disk", "disks"),
    multiple=True,
    metavar="FILE[,index=N]",
    help="A raw image as IDE disk N, 0 to 3: the lowest free if not given; repeatable.",
)
@click.option("--snapshot", is_flag=True, help="Keep what is written to disks in memory only.")
@click.option(
    "--screen",
    is_flag=True,
    help="Show the VGA's text screen; stdin is its keyboard. COM1 is not shown then.",
)
@click.option(
    "--serial", type=click.Path(), metavar="FILE", help="Where COM1 writes, instead of stdout."
)
@click.option(
    "--initrd", metavar="FILE", help="Linux's initial RAM disk; else the first multiboot module."
)
@click.option(
    *("-I", "include"),
    multiple=True,
    type=click.Path(),
    metavar="DIR",
    help="Where a source's %include files are looked for; repeatable.",
)
@click.option("--max-ticks", type=TICKS, metavar="N", help="Stop after N guest instructions.")
@click.option(
    "--virtualizable",
    metavar="[=LIST]",
    help="Let unsafe instructions, all or those named, raise #GP(0) above CPL 0.",
)
@click.option("--rtc", metavar="DATE", help="Date at the start, as 2000-01-01T00:00, or now.")
@click.option(
    *("-d", "trace"),
    default="",
    metavar="LIST",
    help="Trace in_asm, int, exec, as in QEMU; under a technique also exits, mmu, out_asm.",
)
@click.option(
    *("-D", "--trace-file"),
    type=click.Path(),
    metavar="FILE",
    help="Where -d writes; stderr if not given.",
)
@click.option("--json", type=click.Path(), metavar="FILE", help="Write the result as JSON.")
@click.option("--stats", is_flag=True, help="Print ticks, cycles and exits when the run ends.")
@click.option("--watch", is_flag=True, help="Show exits by reason on stderr while it runs.")
@click.option(
    "--timeline",
    type=click.Path(),
    metavar="FILE",
    help="Write a page: guest, exits and hypervisor over machine time.",
)
@click.option(
    "--gdb",
    type=PORT,
    metavar="PORT",
    help="Wait for gdb at a port of this host, any free one for 0, before the first instruction.",
)
@click.option(
    "--cost-model",
    default="",
    metavar="NAME",
    help="The processor whose cycles machine time counts: pentium4, current.",
)
@click.option(
    "--cpu-vendor",
    default="",
    metavar="NAME",
    help="What CPUID calls the CPU's maker: 12 characters, as GenuineIntel.",
)
def command(**given: Any) -> int:
    """Run PROGRAM: an .asm source, a flat .bin, a multiboot ELF, a Linux bzImage, or a
    name from `seventeen guests`.

    COM1 is stdin and stdout. On a terminal every key goes to the guest; Ctrl-A X ends the run,
    Ctrl-A H helps. Several PROGRAMs share one machine, if a technique virtualizes it; the first
    has stdin. Under paravirt a source is assembled as asm --paravirt does.
    """
    words = [given["technique"]]
    words += [switch for switch in SWITCHES if given.pop(switch.strip("-").replace("-", "_"))]
    options = Options(**(given | {"technique": " ".join(words)}))
    variant = check(options)
    programs = [find_program(word, options.include, variant) for word in options.programs]
    if len(programs) == 1:
        return run(options, programs[0])
    from hypervisor.cli.several import run_several

    return run_several(options, programs)


def check(options: Options) -> str | None:
    """What can be said before any file is read; returns the variant to assemble sources to."""
    if not options.programs:
        raise click.UsageError("expected a PROGRAM; `seventeen run hello` is one")
    if options.machine is not None:
        check_machine(options.machine)
    if options.cost_model:
        check_cost_model(options.cost_model)
    if len(options.programs) > 1 and (options.watch or options.timeline or options.screen):
        raise click.UsageError("--watch, --timeline and --screen go with one PROGRAM")
    if len(options.programs) > 1 and options.gdb is not None:
        raise click.UsageError("--gdb goes with one PROGRAM")
    if options.watch and options.screen:
        raise click.UsageError("--watch and --screen would both have the terminal")
    check_disks(options)
    if options.technique == NATIVE:
        check_native(options)
        return None
    from hypervisor.errors import HypervisorError
    from hypervisor.memory import choose_memory
    from hypervisor.techniques import find_technique, owner_of

    if options.technique.startswith(f"{NATIVE} "):
        switch = options.technique.split()[1]
        raise click.UsageError(f"{switch} goes with --technique {owner_of(switch)}")

    try:
        technique = find_technique(options.technique)
        choose_memory(options.mmu, technique)
    except HypervisorError as error:
        raise click.UsageError(str(error)) from None
    return technique.variant


def check_disks(options: Options) -> None:
    """UsageError for disks that cannot be."""
    if options.snapshot and not options.disks:
        raise click.UsageError("--snapshot goes with --disk")
    if options.disks:
        from hypervisor.cli.disks import arrange

        if len(options.programs) > 1:
            raise click.UsageError("--disk goes with one PROGRAM: several would share the disk")
        arrange(options.disks)


def check_machine(name: str) -> None:
    """UsageError for a machine that is none."""
    from emulator.machine import MACHINES

    if name not in MACHINES:
        raise click.UsageError(f"no machine {name!r}; there is {', '.join(MACHINES)}")


def check_cost_model(name: str) -> None:
    """UsageError for a cost model that is none."""
    from isa.cost import find_model
    from isa.errors import TableError

    try:
        find_model(name)
    except TableError as error:
        raise click.UsageError(str(error)) from None


def check_native(options: Options) -> None:
    """What the bare machine has no use for."""
    such_as = ", ".join(TECHNIQUES)
    if len(options.programs) > 1:
        found = " ".join(options.programs)
        raise click.UsageError(
            f"the bare machine runs one PROGRAM at a time, found {found}; several need a "
            f"--technique: {such_as}"
        )
    if options.mmu is not None:
        raise click.UsageError(f"--mmu goes with a --technique: {such_as}")
    if options.timeline is not None:
        raise click.UsageError(f"--timeline goes with a --technique: {such_as}")
    if options.trace:
        from hypervisor.trace import OWN_KINDS, techniques_for

        for word in map(str.strip, options.trace.split(",")):
            if word in OWN_KINDS:
                those = ", ".join(techniques_for(word))
                raise click.UsageError(f"-d {word} goes with a --technique: {those}")


def run(options: Options, program: Loadable) -> int:
    """Run one program on a machine of its own; returns the exit status."""
    from hypervisor.cli import report
    from hypervisor.cli.console import Console
    from hypervisor.cli.files import write_file

    for path in filter(None, (options.json, options.timeline)):
        write_file(path, b"")  # better to hear now than after the run that it cannot be
    with (
        Console(options.trace_file, serial_file(options)) as console,
        opened_disks(options) as disks,
    ):
        machine = build_machine(
            options,
            program,
            console_in=console.source,
            console_out=console.write,
            debug_out=console.write_debug,
            trace_out=console.write_trace,
            disks=disks,
            typed=options.screen,
        )
        load(machine, options, program)
        gc.freeze()  # what is loaded stays: looking through it once would cost 4 ms
        gc.enable()
        with observed(options, machine, program.name), debugged(options, machine) as runner:
            start = time.perf_counter()
            result = console.run(runner, options.max_ticks)
            seconds = time.perf_counter() - start
    outcome = report.Outcome(program.name, options.technique, result, report.facts_of(machine))
    report.print_end(result, program.name)
    if options.stats:
        report.print_stats(outcome, seconds)
    if options.json is not None:
        report.write_json(options.json, report.as_json(outcome, seconds))
    return result.status


def serial_file(options: Options) -> str | None:
    """Where COM1 writes; None for stdout, which is the screen's if there is one."""
    return options.serial or (os.devnull if options.screen else None)


def opened_disks(options: Options) -> Any:
    """A context: the machine's disks."""
    if not options.disks:
        return contextlib.nullcontext([])
    from hypervisor.cli import disks

    return disks.opened_disks(options.disks, options.snapshot)


@contextlib.contextmanager
def observed(options: Options, machine: Any, name: str) -> Iterator[None]:
    """Have exits shown, or recorded, while the machine runs."""
    with contextlib.ExitStack() as stack:
        if options.timeline is not None:
            from hypervisor.cli.files import write_file
            from hypervisor.experiments.timeline import recorded

            path = options.timeline

            def write(page: str) -> None:
                write_file(path, page.encode())

            stack.enter_context(recorded(machine, name, options.technique, write))
        if options.screen:
            from hypervisor.cli.screen import showing

            stack.enter_context(showing(machine))
        if options.watch:
            from hypervisor.cli.watch import watching

            stack.enter_context(watching(machine))
        yield


@contextlib.contextmanager
def debugged(options: Options, machine: Machine) -> Iterator[Runner]:
    """What runs the machine: itself, or gdb's session."""
    if options.gdb is None:
        yield machine
        return
    from hypervisor.gdb.server import Session, listen

    try:
        server = listen(options.gdb)
    except OSError as error:
        raise StopError(Stop.USAGE, f"--gdb {options.gdb}: {error.strerror}") from None
    session = Session(machine, server)
    print(f"waiting for gdb on {session.address}", file=sys.stderr, flush=True)
    with contextlib.closing(session):
        yield session


def build_machine(options: Options, program: Loadable, **streams: Any) -> Machine:
    """The machine that the options ask for, or else the program; `streams` are more of the
    machine's own arguments."""
    from emulator.errors import MachineError

    machine = options.machine or program.machine
    keywords: dict[str, Any] = {**streams, "ram": options.ram, "machine": machine}
    if options.cost_model:
        keywords["cost_model"] = options.cost_model
    if options.cpu_vendor:
        keywords["vendor"] = options.cpu_vendor
    if options.rtc:
        keywords["rtc"] = parse_date(options.rtc)
    if options.virtualizable:
        named = options.virtualizable.lower().split(",")
        keywords["virtualizable"] = True if named == ["all"] else [name for name in named if name]
    try:
        if options.technique == NATIVE:
            from emulator.machine import Machine

            return Machine(trace=options.trace, **keywords)
        from hypervisor.vm import VirtualMachine

        return VirtualMachine(
            technique=options.technique, mmu=options.mmu, trace=options.trace, **keywords
        )
    except MachineError as error:
        raise StopError(Stop.USAGE, str(error)) from None


def parse_date(text: str) -> Any:
    """The date for the clock chip; UsageError if it is none."""
    from datetime import datetime

    if text == "now":
        return datetime.now()
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise click.UsageError(
            f"--rtc: expected now or a date such as 2000-01-01T12:00, found {text!r}"
        ) from None


def load(machine: Machine, options: Options, program: Loadable) -> None:
    """Put program and modules into memory, and give the machine the program's names."""
    from hypervisor.cli.files import read_file
    from hypervisor.symbols import ImageSymbols

    for word in filter(None, (*options.modules, options.initrd)):
        read_file(word)  # says what is missing, with the status for it
    how: dict[str, Any] = {
        "kernel_args": options.kernel_args,
        "modules": options.modules,
        "initrd": options.initrd,
    }
    if (
        options.technique == NATIVE
        and isinstance(program.what, (str, bytes))
        and SITES_OWNER in program.image()
    ):
        from hypervisor.variants import load_natively

        load_natively(machine, program.what, **how)
    else:
        machine.load(program.what, **how)
    machine.symbols = ImageSymbols(program.image)
