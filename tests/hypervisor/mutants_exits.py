"""Mutants of what serves an exit: handlers, emulation, the run loop, techniques, the vCPU area.

Read mutants.py for what a row is. Each entry of EXITS, EVENTS and EMULATED has rows of its own,
made from the tables, so that a new entry is not forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from emulator.core import Cpu, ExitReason
from emulator.memory import Memory
from hypervisor import emulate, exits
from hypervisor.emulate import EFLAGS_TF, EMULATED, Trapped
from hypervisor.exits import EVENTS, EXITS
from hypervisor.outcome import Outcome
from hypervisor.scratch import Scratch
from hypervisor.techniques.base import Technique
from hypervisor.techniques.interpret import Interpret
from hypervisor.techniques.paravirt import Paravirt
from hypervisor.vcpu_area import VcpuArea
from hypervisor.vm import VirtualMachine
from hypervisor.world import EFLAGS_IOPL
from tests.hypervisor.mutants import Change, Mutant, edit, entry, value, without

FASTER: Final = "performance only: the virtual CPU does the same"
_VM: Final = VirtualMachine


def _do_nothing(vm: VirtualMachine) -> Outcome:
    del vm
    return Outcome.RESUME


def _only_retire(vm: VirtualMachine, trapped: Trapped) -> bool:
    vm.retire(trapped.end)
    return True


#: Entries whose removal nobody notices.
_NEEDLESS_EVENTS: Final[dict[int, str]] = {}
_A_DEBUGGER: Final = "only a debugger has any: test_gdb_machine.py"
_DEBUGGERS: Final[dict[int, str]] = {
    ExitReason.BREAKPOINT: _A_DEBUGGER,
    ExitReason.WATCHPOINT: _A_DEBUGGER,
}


def _handlers() -> list[Mutant]:
    rows = []
    for reason in EXITS:
        name = ExitReason(reason).name
        survives = _DEBUGGERS.get(reason, "")
        rows.append(Mutant(f"exits: no handler of {name}", without(EXITS, reason), survives))
        if EXITS[reason] is not exits._resume:
            idle = entry(EXITS, reason, _do_nothing)
            rows.append(Mutant(f"exits: {name} does nothing", idle, survives))
    for vector in EVENTS:
        survives = _NEEDLESS_EVENTS.get(vector, "")
        rows.append(
            Mutant(f"exits: event {vector} is reflected", without(EVENTS, vector), survives)
        )
    for mnemonic in EMULATED:
        removed = without(EMULATED, mnemonic)
        rows.append(Mutant(f"emulate: {mnemonic} is interpreted", removed, FASTER))
        idle = entry(EMULATED, mnemonic, _only_retire)
        rows.append(Mutant(f"emulate: {mnemonic} has no effect", idle))
    return rows


def _exits(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"exits: {name}", change, survives)


_EXITS: Final = [
    _exits("techniques are not asked", edit(exits._event, "outcome is not None", "False")),
    _exits("INT n is an exception",
           edit(exits._event, "record.kind == SOFTWARE", "False")),
    _exits("error codes are lost",
           edit(exits._exception, "record.error if record.has_error else None", "None")),
    _exits("error codes are always pushed",
           edit(exits._exception, "record.error if record.has_error else None", "record.error")),
    _exits("INT n opens gates of kernels", edit(exits._software_interrupt, "not vm.in_kernel",
                                                "True"),
           "an open gate is one for ring 3 too, and the frame in ring 1 shows"),
    _exits("no gate is ever opened", edit(exits._software_interrupt, "vm.passes_gates", "False"),
           FASTER),
    _exits("gates are opened under every technique",
           edit(exits._software_interrupt, "vm.passes_gates", "True")),
    _exits("the virtual CPU is old when a gate is opened",
           edit(exits._software_interrupt, "vm.world.leave()", "pass")),
    _exits("page faults are not refreshed",
           edit(exits._page_fault, "vm.refresh_paging()", "pass")),
    _exits("traced stores are dropped",
           edit(exits._page_fault, 'vm.interpret("traced store")', "RESUME")),
    _exits("the error code is the real fault's",
           edit(exits._page_fault, "Event(record.vector, error,",
                "Event(record.vector, record.error,")),
    _exits("a page fault has no address",
           edit(exits._page_fault, "error, record.linear)", "error)")),
    _exits("descriptors are not filled",
           edit(exits._protection, "vm.descriptors.fill(selector)", "False"),
           "performance only: the virtual CPU loads the segment"),
    _exits("a filled descriptor's page stays in the TLB",
           edit(exits._protection, "vm.refresh_paging()", "pass")),
    _exits("selectors of gates fill descriptors",
           edit(exits._protection, "not error & ERROR_IDT", "True"),
           "a descriptor may be filled at any time; the instruction is tried again"),
    _exits("user code is emulated", edit(exits._protection, "and vm.in_kernel", "")),
    _exits("what is not emulated is skipped",
           edit(exits._protection, "return vm.interpret(mnemonic)",
                "vm.retire(eip + length)\n    return RESUME")),
]  # fmt: skip


def _emulation(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"emulate: {name}", change, survives)


_EMULATION: Final = [
    _emulation("TF and RF are no reason to interpret",
               edit(emulate._is_plain, "not vm.flags[0] & (EFLAGS_TF | EFLAGS_RF)", "True")),
    _emulation("TF is no reason to interpret",
               edit(emulate._is_plain, "(EFLAGS_TF | EFLAGS_RF)", "EFLAGS_RF")),
    _emulation("RF is no reason to interpret",
               edit(emulate._is_plain, "(EFLAGS_TF | EFLAGS_RF)", "EFLAGS_TF")),
    _emulation("breakpoints are no reason to interpret",
               edit(emulate._is_plain, "and not vm.dr[7] & DR7_ENABLED", "")),
    _emulation("a port has 8 bits", edit(emulate._port_access,
               "return vm.gpr[EDX] & 0xFFFF, size", "return vm.gpr[EDX] & 0xFF, size")),
    _emulation("EDX is a port", edit(emulate._port_access,
               "return vm.gpr[EDX] & 0xFFFF, size", "return vm.gpr[EDX], size")),
    _emulation("operand sizes are ignored",
               edit(emulate._port_access, "size = min(size, 2)", "pass")),
    _emulation("prefixes are ignored",
               edit(emulate._port_access, "if code[0] != OPERAND_SIZE:", "if False:")),
    _emulation("the port is the opcode",
               edit(emulate._port_access, "else code[-1], size", "else code[0], size")),
    _emulation("OUT writes all of EAX", edit(emulate.emulate_out,
               "vm.gpr[EAX] & ACCUMULATOR_MASK[size]", "vm.gpr[EAX]")),
    _emulation("OUT has the clock of before",
               edit(emulate.emulate_out, "vm.board.clock.now = vm.real_tick[0]", "pass")),
    _emulation("OUT does not switch off", edit(emulate.emulate_out, "vm.check_power()", "pass")),
    _emulation("IN has the clock of before",
               edit(emulate.emulate_in, "vm.board.clock.now = vm.real_tick[0]", "pass")),
    _emulation("IN clears the rest of EAX", edit(emulate.emulate_in,
               "vm.gpr[EAX] & ~mask & 0xFFFF_FFFF | value", "value")),
    _emulation("IN of AL only", edit(emulate.emulate_in, "ACCUMULATOR_MASK[size]",
                                     "ACCUMULATOR_MASK[1]")),
    _emulation("CLI of the virtual CPU in a paravirtual kernel",
               edit(emulate.emulate_cli, "or vm.world.area is not None", ""),
               "CLI of a paravirtual kernel is a store: it never traps but with a prefix"),
    _emulation("STI of the virtual CPU in a paravirtual kernel",
               edit(emulate.emulate_sti, "or vm.world.area is not None", ""),
               "STI of a paravirtual kernel is a store: it never traps but with a prefix"),
    _emulation("STI has no shadow",
               edit(emulate.emulate_sti, "vm.real.interrupt_shadow = int(was_off)", "pass")),
    _emulation("STI always has a shadow", edit(emulate.emulate_sti, "int(was_off)", "1")),
    _emulation("INVLPG of any operand",
               edit(emulate.emulate_invlpg, "code[2] & MOD_AND_REG != INVLPG_BY_REGISTER",
                    "False")),
    _emulation("INVLPG of a SIB byte or displacement",
               edit(emulate.emulate_invlpg, "or code[2] & 7 in NO_BASE", "")),
    _emulation("INVLPG through a null selector",
               edit(emulate.emulate_invlpg, "segments.UNUSABLE | segments.EXPAND_DOWN",
                    "segments.EXPAND_DOWN")),
    _emulation("INVLPG through an expand-down segment",
               edit(emulate.emulate_invlpg, "segments.UNUSABLE | segments.EXPAND_DOWN",
                    "segments.UNUSABLE")),
    _emulation("INVLPG without the segment's base",
               edit(emulate.emulate_invlpg, "segment.base + vm.gpr", "vm.gpr")),
]  # fmt: skip


def _loop(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"vm: {name}", change, survives)


def _retired(retire: Callable[[VirtualMachine, int], None]) -> Change:
    """Another way to retire an instruction, in machines that are built from now on."""
    build = VirtualMachine._build

    def built(vm: VirtualMachine, ram: int) -> tuple[Memory, Cpu]:
        found = build(vm, ram)
        vm.retire = partial(retire, vm)
        return found

    return value(VirtualMachine, "_build", built)


def _without_tick(vm: VirtualMachine, end: int) -> None:
    vm.host.cpu.retire(end)
    vm.real.tick -= 1


def _tick_alone(vm: VirtualMachine, end: int) -> None:
    del end
    vm.real.tick += 1


def _but(field: str) -> Callable[[VirtualMachine, int], None]:
    """All that retiring does, but for a field of the state."""

    def retire(vm: VirtualMachine, end: int) -> None:
        held = getattr(vm.real, field)
        vm.host.cpu.retire(end)
        setattr(vm.real, field, held)

    return retire


_LOOP: Final = [
    _loop("a retired instruction takes no tick", _retired(_without_tick)),
    _loop("a retired instruction stays", _retired(_tick_alone)),
    _loop("a retired instruction leaves the STI shadow", _retired(_but("interrupt_shadow"))),
    _loop("a retired instruction leaves the debug shadow", _retired(_but("debug_shadow"))),
    _loop("everybody is in the kernel", edit(_VM.in_kernel.fget, "cpl[0] != 3", "True")),
    _loop("nobody is in the kernel", edit(_VM.in_kernel.fget, "cpl[0] != 3", "False")),
    _loop("interrupts wait for ever", edit(_VM._run_to_exit, "if self._interrupt_line[0] and",
                                           "if False and")),
    _loop("interrupts come whatever the virtual IF",
          edit(_VM._run_to_exit, "if state.eflags & EFLAGS_IF:", "if True:")),
    _loop("the virtual IF of a paravirtual kernel is old",
          edit(_VM._run_to_exit, "if world.area is not None:", "if False:")),
    _loop("interrupts come within the STI shadow",
          edit(_VM._run_to_exit, "not state.interrupt_shadow", "True")),
    _loop("interrupts come long after the STI shadow",
          edit(_VM._run_to_exit, "until = min(until, state.tick + 1)", "pass")),
    _loop("the virtual CPU is old when an interrupt comes",
          edit(_VM._run_to_exit, "if state.eflags & EFLAGS_IF:\n            world.leave()",
               "if state.eflags & EFLAGS_IF:\n            pass")),
    _loop("the real CPU runs all", edit(_VM._run_to_exit, "not self._may_enter()", "False")),
    _loop("techniques cannot limit",
          edit(_VM._run_to_exit, "until = self.technique.limit(self, until)", "pass")),
    _loop("events are not reflected", edit(_VM._run_to_exit, "self._reflect()", "pass")),
    _loop("ticks of the real CPU are not seen",
          edit(_VM._run_to_exit, "self._tick[0] = self.real_tick[0]", "pass")),
    _loop("devices cannot ask for earlier ticks",
          edit(_VM._run_virtual, "or clock.next_tick < until", "")),
    _loop("CR2 is lost", edit(_VM._reflect, "self.cpu.state.cr2 = event.address", "pass")),
    _loop("a fault keeps the STI shadow",
          edit(_VM._reflect, "self.cpu.state.interrupt_shadow = self.cpu.state.debug_shadow = 0",
               "self.cpu.state.debug_shadow = 0")),
    _loop("a fault keeps the debug shadow",
          edit(_VM._reflect, "self.cpu.state.interrupt_shadow = self.cpu.state.debug_shadow = 0",
               "self.cpu.state.interrupt_shadow = 0")),
    _loop("reflected events have no error code",
          edit(_VM._reflect, "event.error)", "None)")),
    _loop("triple faults are ignored", edit(_VM._reflect, "if again:", "if False:")),
    _loop("interpreted instructions have the clock of before",
          edit(Scratch._execute, "vm.board.clock.now = state.tick", "pass")),
    _loop("interpretation takes one exit",
          edit(Scratch._execute, "if why == DEADLINE:", "if True:")),
    _loop("interpretation does not leave the real CPU",
          edit(Scratch.interpret, "vm.world.leave()", "pass")),
    _loop("code is read without the base of CS",
          edit(_VM.code_at, "self.real.seg[CS].base + eip", "eip")),
    _loop("a written page drops no shadow",
          edit(_VM._written, "self.paging.written(page)", "pass")),
    _loop("a written page forgets no descriptor",
          edit(_VM._written, "self.descriptors.forget_page(page)", "pass")),
    _loop("a written page has no tables checked",
          edit(_VM._written, "self.descriptors.check()", "pass")),
    _loop("a written page closes no gate",
          edit(_VM._written, "self.gates.written(page)", "pass")),
    _loop("the virtual CPU's stores are not watched", edit(_VM._watched, "self._written(", "id(")),
    _loop("users' flags close no gate",
          edit(_VM._may_enter, "self.gates.check_flags()", "pass")),
    _loop("control registers close no gate",
          edit(_VM._build, "self.world.on_change.append(self.gates.check)", "pass")),
]  # fmt: skip


def _technique(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"technique: {name}", change, survives)


def _yes(self: Technique, vm: VirtualMachine) -> bool:
    del self, vm
    return True


def _no(self: Technique, vm: VirtualMachine) -> bool:
    del self, vm
    return False


_P: Final = Paravirt
_TECHNIQUES: Final = [
    _technique("interpret runs kernels directly", value(Interpret, "runs_directly", _yes)),
    _technique("interpret interprets users", value(Interpret, "runs_directly", _no), FASTER),
    _technique("trap refuses no kernel", edit(Technique.refusal, "cpl in (1, 2)", "False")),
    _technique("interpret refuses kernels in rings 1 and 2",
               value(Interpret, "refusal", Technique.refusal)),
    _technique("paravirt has no hook for events", value(_P, "event", Technique.event)),
    _technique("paravirt has no limit", value(_P, "limit", Technique.limit)),
    _technique("paravirt does not restart sites",
               edit(_P.runs_directly, "site is not None and state.cpl == 0", "False")),
    _technique("paravirt restarts no sites in a segment with a base",
               edit(_P.runs_directly, " or self._restarts.get(eip + base & LINEAR)", "")),
    _technique("paravirt restarts users' sites",
               edit(_P.runs_directly, "and state.cpl == 0", ""),
               "users have no sites, and do not jump into a kernel's"),
    _technique("paravirt knows no sites", edit(_P.load, "for s in site.steps", "for s in ()")),
    _technique("paravirt knows no sites in a segment with a base",
               edit(_P._find, "self._steps.get(eip + base & LINEAR)", "None")),
    _technique("paravirt takes what is at an EIP for the site of that label",
               edit(_P._find, "and _is_whole(vm, eip, found)", "")),
    _technique("paravirt takes what is at a linear address for the site of that label",
               edit(_P._find, "or not _is_whole(vm, eip, linear)", ""),
               "only the INT that asks is not looked at again, and the bare machine has none"),
    _technique("paravirt segments end before the vCPU area",
               edit(_P.attach, "VCPU_PAGE + VCPU_AREA_BYTES", "VCPU_PAGE"),
               "performance only: each site faults, and its original is executed"),
    _technique("paravirt STI has no shadow",
               edit(_P.limit, "vm.real.tick + 1 if is_sti", "-1 if is_sti")),
    _technique("paravirt STI always has a shadow",
               edit(_P.limit, "and not self._area.interrupts_on", "")),
    _technique("paravirt stops one tick too late",
               edit(_P.limit, "vm.real_tick[0] + 1 < until", "False")),
    _technique("paravirt takes any INT for a hypercall",
               edit(_P.event, "vector != HYPERCALL_VECTOR", "False")),
    _technique("paravirt does not emulate at sites",
               edit(_P._called, "emulate is not None", "False"), FASTER),
    _technique("paravirt emulates in the middle of sites",
               edit(_P._called, "and not step.offset", ""),
               "what is emulated has sites of one step"),
    _technique("paravirt fills no descriptors at sites",
               edit(_P._faulted, "vm.descriptors.fill(record.error)", "False"),
               "performance only: the original is executed"),
    _technique("paravirt does not refresh after a descriptor",
               edit(_P._faulted, "vm.refresh_paging()", "pass")),
    _technique("paravirt passes debug traps within sites on",
               edit(_P._faulted, "and not found.step.offset", "")),
    _technique("paravirt drops debug traps at sites",
               edit(_P._faulted, "record.vector == DEBUG and not found.step.offset", "False")),
    _technique("paravirt reflects faults at sites",
               edit(_P._faulted, "return self._original(vm, found)", "return None")),
    _technique("paravirt fills pages of the vCPU area",
               edit(_P._page_fault, "not self._area.holds(record.linear)", "True")),
    _technique("paravirt fills no pages at sites",
               edit(_P._page_fault, "verdict is Verdict.HIDDEN", "False"),
               "performance only: the original is executed"),
    _technique("paravirt does not refresh after filling",
               edit(_P._page_fault, "vm.refresh_paging()", "pass")),
    _technique("paravirt originals are not at their place",
               edit(_P._original, "state.eip = site.restart & LINEAR", "pass")),
    _technique("paravirt originals are as long as their sites",
               edit(_P._original, "site.end - site.restart", "len(site.original)")),
    _technique("paravirt sites are not undone",
               edit(_P._original, "values.items()", "()")),
    _technique("paravirt sites lose EFLAGS",
               edit(_P._original, "state.eflags = value", "pass")),
    _technique("paravirt sites lose IF",
               edit(_P._original, 'name == "if_word"', 'name == "if_word" and False or '
                    'name == "if_word" and state.eip == -1')),
    _technique("paravirt sites lose registers",
               edit(_P._original, "state.gpr[GENERAL.index(name)] = value", "pass")),
]  # fmt: skip


def _area(name: str, change: Change, survives: str = "") -> Mutant:
    return Mutant(f"vcpu_area: {name}", change, survives)


_A: Final = VcpuArea
_AREA: Final = [
    _area("does not show IF", edit(_A.enter, "if flags & EFLAGS_IF else", "if False else")),
    _area("always shows IF", edit(_A.enter, "if flags & EFLAGS_IF else", "if True else")),
    _area("does not show IOPL", edit(_A.enter, "(flags & EFLAGS_IOPL) - EFLAGS_IF", "-EFLAGS_IF")),
    _area("does not take IF off", edit(_A.leave, "virtual.eflags |= EFLAGS_IF", "pass")),
    _area("does not take IF on", edit(_A.leave, "virtual.eflags &= ~EFLAGS_IF", "pass")),
    _area("is writable while an interrupt waits",
          edit(_A.enter, "virtual.interrupt_line or flags", "flags")),
    _area("is writable while IOPL is not 0",
          value(_A, "watched_flags", EFLAGS_TF)),
    _area("is writable while TF is 1",
          value(_A, "watched_flags", EFLAGS_IOPL)),
    _area("rights are not flushed",
          edit(_A.enter, "self._vm.host.cpu.invalidate_page(self.base)", "pass")),
    _area("interrupts are always off", edit(_A.interrupts_on.fget, "!= 0", "< 0")),
]  # fmt: skip

EXIT_MUTANTS: Final = (*_handlers(), *_EXITS, *_EMULATION, *_LOOP, *_TECHNIQUES, *_AREA)
