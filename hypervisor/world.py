"""The world switch: from the virtual CPU's state to the real CPU's, and back.

A virtual machine has a virtual CPU: a CPU of the core whose state is what the guest believes - CPL
0 for its kernel, its own control registers, segments and tables. The guest's code runs on the
host's one real CPU, in ring 1 or 3, with the monitor's tables and the shadows' CR3. `enter` makes
the real state from the virtual one; `leave` takes back what the guest may have changed by itself:
general registers, EIP, most flags, segment registers, and the ring, for it can return to ring 3 on
its own. Between the two the virtual CPU's copy of these is old.

Entering and leaving are most of what an exit costs, so the core carries over what needs no thought
(cpu_hand_over), and the rest is worked out only when it has changed. Read descriptors.py for
segments, memory/ for CR3.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from emulator.core import EFLAGS_IF, SEGMENTS, Cpu, ffi, lib
from hypervisor import segments
from hypervisor.descriptors import Descriptors
from hypervisor.monitor import (
    GDT,
    IDT,
    LDT,
    LDT_SELECTOR,
    PAGE,
    TABLE_BYTES,
    TSS,
    TSS_BYTES,
    TSS_SELECTOR,
)
from hypervisor.segments import CS, SS, Segment
from hypervisor.switch import Switch

if TYPE_CHECKING:
    from hypervisor.host import Host
    from hypervisor.memory.shadow import ShadowPaging

EFLAGS_IOPL: Final = 0x3000
#: Bits of EFLAGS that the real CPU's say nothing about.
VIRTUAL_FLAGS: Final = EFLAGS_IF | EFLAGS_IOPL
#: CR0 bits that act in a guest as it has set them: MP, EM, TS, NE, AM.
GUEST_CR0: Final = 0x2 | 0x4 | 0x8 | 0x20 | 0x40000
REAL_CR0: Final = 0x80010011  #: PG, WP, ET, PE
#: CR4 bits that act in a guest as it has set them: TSD, DE.
GUEST_CR4: Final = 0x4 | 0x8
BUSY_TSS: Final = 0x8B
LDT_TYPE: Final = 0x82
MOST_REMEMBERED: Final = 512
#: CPL, then selector, attributes, base and limit of each segment register.
REGISTERS: Final = struct.Struct("=I" + "4I" * len(SEGMENTS))
USER: Final = 3


def _slice(first: str, after: str) -> slice:
    """The bytes of CpuState from one field to before another."""
    return slice(ffi.offsetof("CpuState", first), ffi.offsetof("CpuState", after))


RING_AND_SEGMENTS: Final = _slice("cpl", "ldtr")
TABLES_AND_CONTROLS: Final = _slice("ldtr", "dr")


class World(Switch):
    """What switches between one virtual CPU and the real one."""

    def __init__(
        self, host: Host, cpu: Cpu, descriptors: Descriptors, paging: ShadowPaging
    ) -> None:
        super().__init__(host, ffi.new("Intercepts *"))
        self._virtual, self._real = cpu.state, host.cpu.state
        self._virtual_bytes, self._real_bytes = ffi.buffer(cpu.state), ffi.buffer(host.cpu.state)
        self._to_real = partial(lib.cpu_hand_over, host.cpu.pointer, cpu.pointer, VIRTUAL_FLAGS)
        self._to_virtual = partial(lib.cpu_hand_over, cpu.pointer, host.cpu.pointer, VIRTUAL_FLAGS)
        self._descriptors = descriptors
        self._paging = paging
        self._cycles = 0  #: of the real CPU, in the times it was ours
        self._known: dict[bytes, bytes] = {}  #: virtual ring and segments -> real ones
        self._virtual_segments = b""  #: as they were entered
        self._real_segments = b""
        self._controls = b""  #: virtual table and control registers, as last seen
        self.on_change.append(descriptors.check)

    # -- to the real CPU ---------------------------------------------------------------------------

    def enter(self) -> None:
        if self.entered:
            return
        if self._host.running is not self:
            self._take_over()
        self._to_real()
        controls = self._virtual_bytes[TABLES_AND_CONTROLS]
        if controls != self._controls:
            self._controls = controls
            self._enter_controls()
        wanted = self._virtual_bytes[RING_AND_SEGMENTS]
        if wanted != self._virtual_segments:
            self._virtual_segments = wanted
            found = self._known.get(wanted)
            self._real_segments = self._remember(wanted) if found is None else found
            self._real_bytes[RING_AND_SEGMENTS] = self._real_segments
        if self.area is not None:
            self.area.enter(self._virtual)
        if self._paging.stale:
            self.refresh()
        self.entered = True

    def _enter_controls(self) -> None:
        virtual, real = self._virtual, self._real
        for check in self.on_change:
            check()
        real.cr0 = virtual.cr0 & GUEST_CR0 | REAL_CR0
        real.cr4 = virtual.cr4 & GUEST_CR4
        real.cr3 = self._paging.root()

    def load_intercepts(self) -> None:
        if self._host.running is self:
            self._real.intercepts = self.intercepts[0]

    def load_trace(self) -> None:
        if self._host.running is self:
            self._real.trace = self._virtual.trace

    def refresh(self) -> None:
        self._paging.stale = False
        self._real.cr3 = self._paging.root()
        self._host.cpu.flush_tlb()

    def _take_over(self) -> None:
        super()._take_over()
        real = self._real
        self._cycles -= real.cycle
        real.trace = self._virtual.trace
        real.gdtr.base, real.gdtr.limit = GDT, TABLE_BYTES - 1
        real.idtr.base, real.idtr.limit = IDT, PAGE - 1
        for register, selector, kind, base, size in (
            (real.tr, TSS_SELECTOR, BUSY_TSS, TSS, TSS_BYTES),
            (real.ldtr, LDT_SELECTOR, LDT_TYPE, LDT, TABLE_BYTES),
        ):
            register.selector, register.attributes = selector, kind
            register.base, register.limit = base, size - 1
        real.intercepts = self.intercepts[0]
        real.eflags = EFLAGS_IF
        real.interrupt_line = 0
        self._controls = self._virtual_segments = b""
        self._paging.stale = True

    def give_up(self) -> None:
        self._cycles += self._real.cycle

    @property
    def cycles(self) -> int:
        used: int = self._cycles + (self._real.cycle if self._host.running is self else 0)
        return used

    def _remember(self, virtual: bytes) -> bytes:
        """Work out the real ring and segment registers for virtual ones."""
        cpl, *fields = REGISTERS.unpack(virtual)
        ring = USER if cpl == USER else segments.KERNEL_RING
        real: list[int] = [ring]
        own = self.own_segments.get(ring, {})
        for index in range(len(SEGMENTS)):
            if index in own:
                real += own[index]
                continue
            selector, *rest = fields[4 * index : 4 * index + 4]
            real += self._real_segment(index, selector, Segment(*rest), ring)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        result = self._known[virtual] = REGISTERS.pack(*real)
        return result

    def _real_segment(self, index: int, selector: int, segment: Segment, ring: int) -> list[int]:
        if segment.attributes & segments.UNUSABLE:
            return [selector, *segment]
        if index in (CS, SS):
            selector = selector & ~3 | ring
        return [selector, *(self._descriptors.shadow(segment) or segments.nothing(segment))]

    # -- and back ----------------------------------------------------------------------------------

    def leave(self) -> None:
        if not self.entered:
            return
        self.entered = False
        self._to_virtual()
        now = self._real_bytes[RING_AND_SEGMENTS]
        if now != self._real_segments:
            self._take_segments(now)
            self._virtual.cpl = USER if self._real.cpl == USER else 0
            self._virtual_segments = b""
        if self.area is not None:
            self.area.leave(self._virtual)
            if self._virtual.tick == self.sti_shadow_at:
                self._virtual.interrupt_shadow = 1

    def _take_segments(self, now: bytes) -> None:
        """Segment registers that the guest has loaded by itself hold shadows: take the sources."""
        before = REGISTERS.unpack(self._real_segments)[1:]
        ring, *after = REGISTERS.unpack(now)
        own = self.own_segments.get(ring, {})
        for index in range(len(SEGMENTS)):
            fields = after[4 * index : 4 * index + 4]
            if tuple(fields) == before[4 * index : 4 * index + 4]:
                continue
            if index in own and fields[0] == own[index][0]:
                continue  # the area says what the guest has there
            selector, attributes = fields[0], fields[1]
            if index in (CS, SS) and ring == segments.KERNEL_RING:
                selector &= ~3
            register = self._virtual.seg[index]
            register.selector = selector
            if attributes & segments.UNUSABLE:
                register.attributes, register.base, register.limit = fields[1:]
                continue
            source = self._descriptors.source(selector)
            assert source is not None, f"selector {selector:#x} was loaded from nowhere"
            register.attributes, register.base, register.limit = source
