"""Pass-through gates: vectors that the real CPU delivers straight to the guest kernel's handler.

A system call is the most frequent event of a guest, and needs nothing from ring 0: the shadow IDT
can have the guest's own gate, with a code segment of ring 1. That is right only if what the
hardware does and pushes is what the guest should see:

    the gate     is a 32-bit trap gate for ring 3, to a kernel segment: an interrupt gate would
                 have to clear the virtual IF, which no hardware knows of
    the frame    has EFLAGS as they really are, so virtual IF must be 1 and IOPL 0 in ring 3
    the stack    is the one that the real TSS names, so the guest's TSS is traced

A gate is tried the first time its vector is used from ring 3, and taken back when the guest changes
it, or loads another table. Source: SDM vol. 3, 6.12. Read exits.py for the other way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from emulator.core import EFLAGS_IF, Access
from hypervisor import segments
from hypervisor.monitor import IDT, TSS
from hypervisor.world import EFLAGS_IOPL, USER

if TYPE_CHECKING:
    from hypervisor.vm import VirtualMachine

PAIR: Final = struct.Struct("<II")
TRAP_GATE_FOR_USERS: Final = 0xEF00  #: present, DPL 3, 32-bit trap gate
TYPE_AND_RIGHTS: Final = 0xFF00
TSS_KERNEL_STACK: Final = 4  #: ESP0, then SS0: where a guest's TSS has its ring 0 stack
REAL_KERNEL_STACK: Final = TSS + 12  #: ESP1, then SS1
TSS_LEAST: Final = TSS_KERNEL_STACK + 6
SYSTEM_TYPE: Final = 0x1F
TSS32: Final = (0x9, 0xB)
READ: Final = int(Access.READ)
FIRST_FREE_VECTOR: Final = 32  #: those below are the processor's exceptions


class Gates:
    """The pass-through gates of one virtual machine."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._open: dict[int, tuple[int, int]] = {}  #: vector -> the guest's gate
        self._refused: set[int] = set()
        self._idt_pages: set[int] = set()
        self._tss_pages: set[int] = set()
        self.stack = 0  #: the guest's selector that SS is loaded with
        #: Virtual IDTR and TR when the gates were made, and which guest pages they lead to.
        self._tables: tuple[int | None, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._open)

    def open(self, vector: int) -> bool:
        """Let the real CPU deliver a vector from ring 3, if that is right; True if it now does."""
        state = self._vm.cpu.state
        technique = self._vm.technique
        if vector in (*self._refused, technique.own_vector) or vector < FIRST_FREE_VECTOR:
            return False
        if not self.allowed(state):
            return False
        self._tables = self._registers()
        gate = self._guest_gate(vector)
        if gate is None or not self._load_stack():
            self._refused.add(vector)
            return False
        shadow = technique.gate(self._vm, *gate)
        if shadow is None:
            return False
        for place in (self._place(vector), state.tr.base + TSS_KERNEL_STACK & 0xFFFF_FFFF):
            self._vm.cpu.walk(place, READ)  # the guest's INT would have set the accessed bits
        self._vm.monitor.write(IDT + vector * 8, PAIR.pack(*shadow))
        self._open[vector] = gate
        self._intercept(vector, on=False)
        return True

    @staticmethod
    def allowed(state: Any) -> bool:
        """May the real EFLAGS be pushed for the virtual ones?"""
        return state.eflags & (EFLAGS_IF | EFLAGS_IOPL) == EFLAGS_IF

    def _registers(self) -> tuple[int | None, ...]:
        state = self._vm.cpu.state
        idtr, tr, page_of = state.idtr, state.tr, self._vm.page_of
        return (
            idtr.base, idtr.limit, tr.base, tr.limit, tr.attributes,
            page_of(idtr.base), page_of(tr.base),
        )  # fmt: skip

    def _guest_gate(self, vector: int) -> tuple[int, int] | None:
        """The guest's gate as the shadow IDT may have it."""
        vm = self._vm
        gate = self._read_gate(vector)
        page = vm.page_of(self._place(vector))
        if gate is None or page is None or page in vm.descriptors.busy:
            return None
        low, high = gate
        selector = low >> 16
        if high & TYPE_AND_RIGHTS != TRAP_GATE_FOR_USERS:
            return None
        vm.descriptors.fill(selector)
        code = vm.descriptors.source(selector)
        if (
            code is None
            or code.attributes >> segments.DPL_SHIFT & 3
            or (code.attributes & (segments.CODE | segments.CONFORMING) != segments.CODE)
        ):
            return None
        self._idt_pages.add(page)
        vm.paging.trace(page)
        return low, high

    def _place(self, vector: int) -> int:
        base: int = self._vm.cpu.state.idtr.base
        return (base + vector * 8) & 0xFFFF_FFFF

    def _read_gate(self, vector: int) -> tuple[int, int] | None:
        """A gate of the guest's IDT; None if it is not in one page, or not there."""
        place = self._place(vector)
        if vector * 8 + 7 > self._vm.cpu.state.idtr.limit or place % 8:
            return None
        data = self._vm.cpu.read_linear(place, 8)
        if len(data) < 8:
            return None
        low, high = PAIR.unpack(data)
        return low, high

    def _load_stack(self) -> bool:
        """Put the guest kernel's stack into the real TSS, and have changes to it reported."""
        vm, tr = self._vm, self._vm.cpu.state.tr
        if tr.attributes & SYSTEM_TYPE not in TSS32 or tr.limit < TSS_LEAST:
            return False
        place = (tr.base + TSS_KERNEL_STACK) & 0xFFFF_FFFF
        data = vm.cpu.read_linear(place, 6)
        pages = {vm.page_of(place), vm.page_of(place + 5)}
        if len(data) < 6 or not vm.descriptors.busy.isdisjoint(pages):
            return False
        pointer, selector = struct.unpack("<IH", data)
        if selector & 3:
            return False  # #TS, but not in ring 1
        self.stack = selector
        stack = selector | segments.KERNEL_RING if selector else 0
        vm.monitor.write(REAL_KERNEL_STACK, struct.pack("<II", pointer, stack))
        for page in filter(None, pages):
            self._tss_pages.add(page)
            vm.paging.trace(page)
        return True

    def _intercept(self, vector: int, *, on: bool) -> None:
        bits = self._vm.world.intercepts.vectors
        if on:
            bits[vector >> 3] |= 1 << (vector & 7)
        else:
            bits[vector >> 3] &= ~(1 << (vector & 7))
        self._vm.world.load_intercepts()

    # -- what the guest has changed ----------------------------------------------------------------

    def check(self) -> None:
        """Table registers or the meaning of addresses may have changed."""
        if self._open and self._registers() != self._tables:
            self.close()

    def check_flags(self) -> None:
        """The guest is about to go on, perhaps in ring 3 with flags that no gate can show."""
        state = self._vm.cpu.state
        if self._open and state.cpl == USER and not self.allowed(state):
            self.close()

    def written(self, page: int) -> None:
        """The guest has changed a traced page."""
        if page in self._idt_pages and any(
            self._read_gate(vector) != gate for vector, gate in self._open.items()
        ):
            self.close()
        if page in self._tss_pages and self._open and not self._load_stack():
            self.close()
        if page in self._idt_pages:
            self._refused.clear()

    def abandon(self, page: int) -> None:
        """A page is written to all the time: no gate may depend on it, for it is traced no more."""
        if page in self._idt_pages | self._tss_pages:
            self.close()

    def close(self) -> None:
        """Take all gates back; those that are still right come back with their next use."""
        for vector in self._open:
            self._intercept(vector, on=True)
        self._open.clear()
        self._refused.clear()
        self._idt_pages.clear()
        self._tss_pages.clear()
