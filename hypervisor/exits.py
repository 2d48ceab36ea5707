"""Exits: what the real CPU leaves the guest for, and who serves it.

One table, from the core's exit reason to a handler; events have a second one, by vector. A handler
is called with the machine while the real CPU still holds the guest (world.py); it may interpret,
fill a shadow, or change the real CPU's registers. It returns

    RESUME   the guest goes on
    REFLECT  the event in `vm.event` is the guest's own: deliver it through the guest's IDT
    STOP     the machine has been stopped, and says why

and only the run loop (vm.py) acts on that. Exits are counted by reason; a handler that knows a
better name than the core's gives it with `vm.count`. Exits of the virtual CPU, while it interprets,
are those of a bare machine and served by emulator/machine.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from emulator.core import EventKind, ExitReason
from hypervisor.descriptors import TABLE_INDICATOR
from hypervisor.emulate import EMULATED, trapped_at
from hypervisor.memory.shadow import Verdict
from hypervisor.monitor import MONITOR
from hypervisor.outcome import REFLECT, RESUME, STOP, Event, Outcome
from hypervisor.stops import at_breakpoint, at_watchpoint
from isa.exceptions import EXCEPTIONS
from isa.table import ROWS

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

#: Error codes of #GP, #NP, #SS and #TS that name a selector of the GDT or an LDT.
ERROR_EXTERNAL: Final = 1
ERROR_IDT: Final = 2
#: Structures that make an instruction exit which would not trap by itself (`vm.rescued`).
SHADOW_IDT: Final = "the shadow IDT"
SHADOW_GDT: Final = "the shadow GDT"
SHADOW_LDT: Final = "the shadow LDT"

SOFTWARE: Final = int(EventKind.SOFTWARE)

Handler = Callable[["VirtualMachine"], Outcome]


def _resume(vm: VirtualMachine) -> Outcome:
    """Nothing happened to the guest: the run loop looks at the time."""
    del vm
    return RESUME


def _trace(vm: VirtualMachine) -> Outcome:
    """The real CPU's records want to be taken before it goes on."""
    vm.drain_trace()
    return RESUME


def _apic_rose(vm: VirtualMachine) -> Outcome:
    """The local APIC that the guest is lent has an interrupt for it: the run loop looks for it."""
    vm.count("local APIC")
    vm.world.leave()
    return RESUME


def _device_store(vm: VirtualMachine) -> Outcome:
    """Stores to the local APIC that is lent, of which an I/O APIC must hear. They have retired."""
    vm.count("device access")
    vm.world.leave()
    vm.board.clock.now = vm.ticks
    for address, size, value in vm.host.cpu.posted:
        vm.board.bus.memory_write(address, size, value)
    return RESUME


def _event(vm: VirtualMachine) -> Outcome:
    """An exception or a software interrupt."""
    record = vm.record
    outcome = vm.technique.event(vm, record)
    if outcome is not None:
        return outcome
    if record.kind == SOFTWARE:
        return _software_interrupt(vm)
    handler = EVENTS.get(record.vector, _exception)
    return handler(vm, record)


def _software_interrupt(vm: VirtualMachine) -> Outcome:
    """INT n, INT3, INTO: the guest's gate decides, so the virtual CPU executes it."""
    if not vm.in_kernel and vm.passes_gates:
        vm.world.leave()
        if vm.gates.open(vm.record.vector):
            vm.count("gate opened")
            return RESUME
    vm.count("int")
    vm.rescued["int", SHADOW_IDT] += 1
    return vm.interpret("int")


def _exception(vm: VirtualMachine, record: Any) -> Outcome:
    """One that means the same in ring 1 as in ring 0."""
    error = record.error if record.has_error else None
    vm.count(EXCEPTIONS[record.vector].mnemonic)
    vm.event = Event(record.vector, error)
    return REFLECT


def _page_fault(vm: VirtualMachine, record: Any) -> Outcome:
    """Hidden: the shadows were behind. Traced: a store that they must follow. Device: the virtual
    CPU makes the access, so that it exits as on the bare machine. Barred: what only the virtual CPU
    may do. True: the guest's.

    In the monitor area no shadow may ever be put: there the guest's own memory is for the virtual
    CPU to reach. Segments end below, but for the part that a paravirtual kernel shares.
    """
    if record.linear >= MONITOR:
        vm.count("monitor area")
        return vm.interpret("monitor area")
    verdict, error = vm.paging.fault(record.linear, record.error)
    if verdict is Verdict.HIDDEN:
        vm.count("hidden page fault")
        vm.refresh_paging()
        return RESUME
    if verdict is Verdict.TRACED:
        vm.count("traced store")
        vm.technique.traced(vm, record)
        return vm.interpret("traced store")
    if verdict is Verdict.DEVICE:
        vm.count("device access")
        return vm.interpret("device access")
    if verdict is Verdict.BARRED:
        vm.count("barred access")
        again = vm.technique.barred(vm, record)
        return RESUME if again else vm.interpret("barred access")
    vm.count("guest page fault")
    vm.event = Event(record.vector, error, record.linear)
    return REFLECT


def _protection(vm: VirtualMachine, record: Any) -> Outcome:
    """A fault that may be ours: privilege taken away, a segment cut, a descriptor not yet there.

    What the guest's own state makes of the instruction is for the virtual CPU to say; if that
    faults too, it delivers the fault.
    """
    del record
    row, length, eip, error = vm.read_fault()
    selector = error & ~(ERROR_EXTERNAL | ERROR_IDT)
    mnemonic = ROWS[row].mnemonic if length else "fetch"
    if selector and not error & ERROR_IDT:
        vm.rescued[mnemonic, SHADOW_LDT if selector & TABLE_INDICATOR else SHADOW_GDT] += 1
        if vm.descriptors.fill(selector):
            vm.count("descriptor load")
            vm.refresh_paging()  # its page is traced now
            return RESUME
    vm.count(mnemonic)
    emulate = EMULATED.get(mnemonic)
    if emulate is not None and vm.in_kernel and emulate(vm, trapped_at(vm, row, length, eip)):
        return RESUME
    return vm.interpret(mnemonic)


def _unsupported(vm: VirtualMachine) -> Outcome:
    vm.stop_unsupported()
    return STOP


def _requested(vm: VirtualMachine) -> Outcome:
    vm.stop_requested()
    return STOP


#: What serves each exit of the real CPU.
EXITS: Final[dict[int, Handler]] = {
    ExitReason.DEADLINE: _resume,
    ExitReason.TRACE: _trace,
    ExitReason.INTERRUPT: _apic_rose,
    ExitReason.MMIO_WRITE: _device_store,
    ExitReason.EVENT: _event,
    ExitReason.UNSUPPORTED: _unsupported,
    ExitReason.REQUEST: _requested,
    ExitReason.BREAKPOINT: at_breakpoint,
    ExitReason.WATCHPOINT: at_watchpoint,
}

# -- Exits from guest mode -----------------------------------------------------------------------


#: Page faults of a guest in guest mode on shadows that are not hidden, by what they are counted as.
GUEST_FAULTS: Final = {
    Verdict.TRUE: "guest page fault",
    Verdict.TRACED: "traced store",
    Verdict.DEVICE: "device access",
}


def _guest_event(vm: VirtualMachine) -> Outcome:
    """An exception that was intercepted: #PF, of a guest on shadows."""
    record = vm.record
    verdict, error = vm.paging.fault(record.linear, record.error)
    if verdict is Verdict.HIDDEN:
        vm.count("hidden page fault")
        return RESUME
    name = GUEST_FAULTS[verdict]
    vm.count(name)
    if vm.guest_mode.delivering:
        return vm.deliver_here()  # a push of its delivery: no instruction's
    if verdict is not Verdict.TRUE:
        return vm.interpret(name)
    vm.event = Event(record.vector, error, record.linear)
    return REFLECT


def _intercepted(vm: VirtualMachine) -> Outcome:
    """An instruction that the control block lists."""
    mnemonic = ROWS[vm.record.row].mnemonic
    vm.count(f"{mnemonic} cr{vm.record.operand}" if mnemonic == "mov" else mnemonic)
    return vm.interpret(mnemonic)


def _violation(vm: VirtualMachine) -> Outcome:
    """The tables below the guest's do not have a page yet."""
    vm.count("nested violation")
    vm.paging.violated(vm.record.address)
    return RESUME


#: What serves an exit from guest mode; the others are served as the bare machine's are.
GUEST_EXITS: Final[dict[int, Handler]] = {
    ExitReason.DEADLINE: _resume,
    ExitReason.TRACE: _trace,
    ExitReason.EVENT: _guest_event,
    ExitReason.INTERCEPT: _intercepted,
    ExitReason.NESTED: _violation,
    ExitReason.BREAKPOINT: at_breakpoint,
    ExitReason.WATCHPOINT: at_watchpoint,
}


#: What serves an exception, by vector; the others are reflected.
EVENTS: Final[dict[int, Callable[[VirtualMachine, Any], Outcome]]] = {
    10: _protection,  # #TS
    11: _protection,  # #NP
    12: _protection,  # #SS
    13: _protection,  # #GP
    14: _page_fault,
}
