"""Whatever a guest does, it neither reads nor writes what is another's, or the hypervisor's.

Two arenas, alike but for a secret that lies wherever a guest has no business: in another machine's
memory, in free frames, in the unused parts of the monitor area and its tables. A hostile guest runs
in both. It must end the same in both - or it has seen something of the secret - and must have left
every canary as it was. What the shadows and shadow descriptors allow is checked by itself as well:
no entry leads to a frame that is not the guest's, no segment reaches the monitor area.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings

from hypervisor import segments
from hypervisor.host import Host
from hypervisor.monitor import (
    DIRECTORY_INDEX,
    GDT,
    IDT,
    LDT,
    LDT_SELECTOR,
    MONITOR,
    PRESENT,
    TABLE_BYTES,
    TSS,
    TSS_BYTES,
    TSS_SELECTOR,
    WRITABLE,
)
from hypervisor.techniques.translate import Translate
from hypervisor.translator import layout
from hypervisor.translator.cache import LEAST_BYTES
from hypervisor.vm import VirtualMachine
from tests.core.world import GDT as GUEST_GDT
from tests.core.world import SPARE, Setup
from tests.hypervisor.hostile import STACK, le32, setups, store32
from tests.hypervisor.twins import RAM, OnShadows, differences, picture, put

PAGE: Final = 4096
TICKS: Final = 300
FAST, DEEP = 25, 3000
TABLE_PAGES: Final = [table + at for table in (GDT, LDT) for at in range(0, TABLE_BYTES, PAGE)]
SECRETS: Final = (b"\x5e\xc2\xe7\x1a", b"\xa1\x3d\x18\xe5")
WAYS: Final = [
    (technique, virtualizable)
    for technique in ("trap", "interpret")
    for virtualizable in (True, False)
] + [
    ("paravirt", False),
    ("translate", False),
    ("translate --user", False),
    ("patch", False),
    ("patch --strict", False),
    ("hardware", False),
    ("hardware on shadows", False),
]
each_way = pytest.mark.parametrize(("technique", "virtualizable"), WAYS)
entries = struct.Struct("<1024I")
TRANSLATORS: Final = {
    "translate": lambda: Translate(cache_bytes=LEAST_BYTES),
    "translate --user": lambda: Translate(user=True, cache_bytes=LEAST_BYTES),
}
OWN_KINDS: Final = {**TRANSLATORS, "hardware on shadows": OnShadows}
#: Who has pages of code in the monitor area: beside them the patcher, whose guests' CS reaches it.
MAKES_CODE: Final = {*TRANSLATORS, "patch", "patch --strict"}
#: Selectors of the translator's own, and what it maps in the monitor area while it runs.
TRANSLATORS_OWN: Final = frozenset({layout.AREA_SELECTOR, *layout.CODE_SELECTORS.values()})
TRANSLATORS_PAGES: Final = range(
    (layout.CODE - MONITOR) // PAGE, (layout.AREA_END - MONITOR) // PAGE
)


class Arena:
    """A host with a secret, a machine that keeps it, and one that attacks."""

    def __init__(self, technique: str, virtualizable: bool, secret: bytes) -> None:
        self.way = technique, virtualizable, secret
        self.page = secret * (PAGE // len(secret))
        self.host = Host(2 * RAM, guests=2)
        self.victim = VirtualMachine(technique="trap", ram=RAM, host=self.host)
        self.hostile = VirtualMachine(
            technique=OWN_KINDS[technique]() if technique in OWN_KINDS else technique,
            ram=RAM,
            host=self.host,
            virtualizable=virtualizable,
        )
        for guest_page in range(self.victim.memory.size // PAGE):
            self.victim.memory.write(guest_page * PAGE, self.page)
        for frame in self.host._free:
            self.host.memory.write(frame * PAGE, self.page)
        for vm in self.host.machines:
            self._plant(vm)
        self.canary = self._canary()
        self.tables = {start: self.hostile.monitor.read(start, PAGE) for start in TABLE_PAGES}
        #: Held to what they were by the canary below.
        self.reserved = TRANSLATORS_OWN if technique in TRANSLATORS else frozenset()
        self.beginning = self.hostile.save()
        self.host_registers = self.host.cpu.registers

    def _plant(self, vm: VirtualMachine) -> None:
        """The secret, wherever nothing of the monitor's own lies."""
        monitor = vm.monitor
        monitor.write(TSS + TSS_BYTES, self.page[TSS_BYTES:])
        monitor.write(IDT + 0x800, self.page[0x800:])
        # No present descriptor, but with a base and a limit; and the null selector stays null.
        hidden = self.page[:4] + bytes(4)
        for start in TABLE_PAGES:
            data = monitor.read(start, PAGE)
            pairs = [data[at : at + 8] for at in range(0, PAGE, 8)]
            planted = [hidden if pair == bytes(8) else pair for pair in pairs]
            monitor.write(start, b"".join([pairs[0], *planted[1:]]))

    def _canary(self) -> tuple[Any, ...]:
        """All that no run of the hostile machine may change."""
        read, victim, own = self.host.memory.read, self.victim, self.hostile.monitor
        frames = [*victim.memory.guest_page, *victim.monitor._frames.values()]
        return (
            [read(frame * PAGE, PAGE) for frame in (*frames, victim.monitor.page_table)],
            # The first page of the vCPU area may be made read-only, and writable again.
            [
                entry | WRITABLE
                for number, entry in enumerate(entries.unpack(read(own.page_table * PAGE, PAGE)))
                if self.way[0] not in MAKES_CODE or number not in TRANSLATORS_PAGES
            ],
            own.read(TSS + TSS_BYTES, PAGE - TSS_BYTES),
            own.read(IDT + 0x800, PAGE - 0x800),
            [
                own.read(GDT + s, 8)
                for s in (LDT_SELECTOR, TSS_SELECTOR, *sorted(TRANSLATORS_OWN))
                if s not in TRANSLATORS_OWN or self.way[0] in TRANSLATORS
            ],
        )

    def run(self, setup: Setup) -> dict[str, Any]:
        """The hostile machine's end, as its guest can see it."""
        self.hostile.restore(self.beginning)
        put(self.hostile, setup, timer=True)
        return picture(self.hostile, self.hostile.run(TICKS))

    def check(self) -> None:
        """Nothing has changed that must not, and nothing could be reached."""
        assert self._canary() == self.canary
        if self.hostile.technique.guest_mode:
            self.check_guest_mode()
            return
        self.check_descriptors()
        self.check_shadows()
        self.check_registers()

    def check_guest_mode(self) -> None:
        """The tables that the hardware uses lead to the guest's frames; the host is as it was."""
        assert self.host.cpu.registers == self.host_registers
        paging, read = self.hostile.paging, self.host.memory.read
        own = {*self.hostile.memory.guest_page, 0xFFFFF}
        if not paging.nested:
            self.check_shadows()
            return
        tables = set()
        for entry in entries.unpack(read(paging.root(), PAGE)):
            tables |= {entry >> 12} if entry & PRESENT else set()
        assert tables == {*paging._tables.values()}
        for table in tables:
            found = entries.unpack(read(table * PAGE, PAGE))
            assert {entry >> 12 for entry in found if entry & PRESENT} <= own

    def check_descriptors(self) -> None:
        """Each shadow descriptor is one that was filled, or what it was at the beginning."""
        vm, empty = self.hostile, (self.page[:4] + bytes(4), bytes(8))
        for start in TABLE_PAGES:
            data = vm.monitor.read(start, PAGE)
            if data == self.tables[start]:
                continue
            for offset in range(0, PAGE, 8):
                pair = data[offset : offset + 8]
                key = start + offset - LDT | 4 if start >= LDT else start + offset - GDT
                if pair in empty or key in (TSS_SELECTOR, LDT_SELECTOR, *self.reserved):
                    continue
                assert vm.descriptors.source(key) is not None, f"{key:#x}: {pair.hex()}"
                self.check_reach(segments.parse(*struct.unpack("<II", pair)))

    def check_shadows(self) -> None:
        """Shadow tables lead to the guest's own frames, and to the monitor's one table."""
        vm, read = self.hostile, self.host.memory.read
        own = {*vm.memory.guest_page}
        for key, table in vm.paging._tables.items():
            for index, entry in enumerate(entries.unpack(read(table.frame * PAGE, PAGE))):
                if not entry & PRESENT:
                    continue
                frame = entry >> 12
                if key.kind != "directory":
                    assert frame in own or frame == 0xFFFFF, f"{key} {index}: {entry:#x}"
                elif index == DIRECTORY_INDEX and not vm.technique.guest_mode:
                    rights = 4 if self.way[0] == "translate --user" else 0
                    assert (frame, entry & 4) == (vm.monitor.page_table, rights)
                else:
                    assert frame in {other.frame for other in vm.paging._tables.values()}

    def check_registers(self) -> None:
        """What the real CPU still holds of the guest reaches nothing."""
        if self.host.running is not self.hostile.world:
            return
        for segment in self.hostile.real.seg:
            if segment.selector & ~3 in self.reserved:
                continue  # translated code is what has these
            if not segment.attributes & segments.UNUSABLE:
                self.check_reach(segments.Segment(segment.attributes, segment.base, segment.limit))
        assert self.hostile.real.cpl in (1, 3)
        assert self.hostile.real.retired_cpl0 == 0

    def check_reach(self, segment: segments.Segment) -> None:
        """No valid offset of a segment leads to the monitor area, but to what is shared of it.

        From that ring 3 is kept by its pages, which are the supervisor's (check_shadows).
        """
        attributes, base, limit = segment
        shares = not attributes & segments.CODE and not base
        end = self.hostile.descriptors.data_end if shares else MONITOR
        if not attributes & segments.CODE and attributes & segments.EXPAND_DOWN:
            top = 0xFFFF_FFFF if attributes & segments.BIG else 0xFFFF
            assert limit >= top or base + top < end
        elif base + limit >= end:
            # Patch memory: code, and nothing of it is read through CS.
            assert attributes & segments.CODE
            assert not attributes & segments.READABLE
            assert base + limit < self.hostile.descriptors.code_end

    def check_free(self) -> None:
        """Frames that are free hold the secret or nothing: no guest's store went there."""
        for frame in self.host._free:
            assert self.host.memory.read(frame * PAGE, PAGE) in (self.page, bytes(PAGE))


@pytest.fixture(scope="module")
def arenas() -> dict[tuple[str, bool], list[Arena]]:
    return {way: [Arena(*way, secret) for secret in SECRETS] for way in WAYS}


def attack(pair: list[Arena], setup: Setup) -> None:
    try:
        first, second = (arena.run(setup) for arena in pair)
        assert differences(first, second) == {}
        for arena in pair:
            arena.check()
    except Exception:
        pair[:] = [Arena(*arena.way) for arena in pair]  # what is broken would fail for ever
        raise


def attack_all(pair: list[Arena], examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(setup=setups())
    def one(setup: Setup) -> None:
        attack(pair, setup)

    one()
    for arena in pair:
        arena.check_free()


@each_way
def test_nothing_is_reached(
    technique: str, virtualizable: bool, arenas: dict[tuple[str, bool], list[Arena]]
) -> None:
    attack_all(arenas[technique, virtualizable], FAST)


@pytest.mark.deep
@each_way
def test_nothing_is_reached_deep(
    technique: str, virtualizable: bool, arenas: dict[tuple[str, bool], list[Arena]]
) -> None:
    attack_all(arenas[technique, virtualizable], DEEP)


@each_way
def test_an_expand_down_segment_reaches_nothing(
    technique: str, virtualizable: bool, arenas: dict[tuple[str, bool], list[Arena]]
) -> None:
    """All offsets above its limit are valid, so it cannot be cut."""
    place = GUEST_GDT + SPARE
    code = store32(place, 0) + store32(place + 4, 0x00C0_9700)
    code += b"\x66\xb8" + struct.pack("<H", SPARE) + b"\x8e\xe0"  # mov fs, ax
    code += b"\x64\xa1" + le32(TSS + 0x200) + b"\xeb\xfe"  # mov eax, [fs:TSS + 0x200]
    attack(arenas[technique, virtualizable], Setup(code, (0,) * 4 + (STACK,) + (0,) * 3))


@pytest.mark.parametrize("place", [GDT, LDT, IDT, TSS + 0x200])
@each_way
def test_no_table_of_ours_is_executed(
    technique: str, virtualizable: bool, place: int, arenas: dict[tuple[str, bool], list[Arena]]
) -> None:
    """The patcher's guests could jump to what lay below its patch memory."""
    code = b"\xb8" + le32(place + 0x100) + b"\xff\xe0"  # mov eax, place; jmp eax
    attack(arenas[technique, virtualizable], Setup(code, (0,) * 4 + (STACK,) + (0,) * 3))
