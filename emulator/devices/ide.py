"""Two IDE channels with two drives each: ATA disks that move their sectors by programmed I/O.

A command is written to a channel's registers; the drive is busy for a while (`BSY`), then moves a
block of sectors through the data port (`DRQ`) or is done, and says so by interrupt: line 14 for the
first channel, 15 for the second. The legal order is: BSY, then DRQ or the end together with the
interrupt; reading the status takes the interrupt back. The first block of a write is asked for at
once and without interrupt (ATA/ATAPI-6, 9.6). Addresses are LBA28, LBA48, or cylinder, head and
sector. Registers are written to both drives of a channel; the selected one answers. A drive that is
not there reads as status 0: probes then find nobody. But beside a second drive an absent first one
reads as ready, as in QEMU: there are kernels that wait for it before they select the second (xv6).

Sectors are in disk.py, and are written there when the last word of a block comes, before the guest
is told. Each drive's own state is in drive.py, what it says of itself in identify.py. Left out: DMA
(READ DMA is aborted, as by a drive without it), packet devices, SMART, power management but for the
answers to its commands, the floppy's half of port 0x3F7. Source: ATA/ATAPI-6 (T13 1410D). Read
keyboard.py next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from emulator.bus import Claim
from emulator.clock import TICKS_PER_SECOND
from emulator.devices.device import Device, Platform, State
from emulator.devices.drive import (
    ABRT,
    BSY,
    COMMAND,
    COUNT,
    DATA,
    DEVICE,
    DEVICE_HEAD,
    DEVICE_ONES,
    DEVICE_SECOND,
    DIAGNOSED,
    DRQ,
    DSC,
    ERR,
    ERROR,
    FEATURES,
    IDNF,
    READY,
    STATUS,
    TRANSFERS,
    UNC,
    Drive,
    Transfer,
)
from emulator.devices.identify import MOST_BLOCK, identify
from emulator.disk import SECTOR, Disk
from emulator.errors import DiskError

#: How long a drive is busy before each block and at the end: 50 us, as if all were in its cache.
#: More than a page of bytes: a string instruction moves no more at once, so what it causes is
#: never due before it ends, wherever it is cut.
BUSY_TICKS: Final = TICKS_PER_SECOND // 20_000
#: What a look at a busy drive counts as. On a PC's bus it takes a microsecond, here a tick: without
#: this, a driver that polls would look thousands of times, each an exit, where it used to look 50.
#: (The one case in which it shows where a repeat is cut: REP INSB from the status port itself.)
LOOK_TICKS: Final = TICKS_PER_SECOND // 1_000_000

CONTROL_HOB, CONTROL_RESET, CONTROL_NO_INTERRUPT = 0x80, 0x04, 0x02
DIAGNOSE: Final = 0x90
#: Subcommands of SET FEATURES that change nothing here: write cache on and off, look-ahead off
#: and on, defaults after reset kept and not.
FEATURES_TAKEN: Final = (0x02, 0x82, 0x55, 0xAA, 0x66, 0xCC)
FEATURE_MODE: Final = 0x03
ACTIVE: Final = 0xFF  #: the power mode


class ChannelState(State):
    def __init__(self) -> None:
        self.drives = (Drive(), Drive())
        self.control = 0
        self.active = 0  #: the drive that has the command
        self.interrupt = False  #: a drive asks for one
        self.awaited = ""  #: the wake-up that ends a busy time; empty: none does
        self.due = 0  #: its tick

    def save(self) -> dict[str, Any]:
        saved = super().save()
        saved["drives"] = [drive.save() for drive in self.drives]
        return saved

    def load(self, saved: dict[str, Any]) -> None:
        for drive, plain in zip(self.drives, saved["drives"], strict=True):
            drive.load(plain)
        super().load({name: value for name, value in saved.items() if name != "drives"})


class Channel(Device):
    """One channel: its registers, and the drives that have `disks`."""

    first: ClassVar[int]  #: the data port, the other registers behind it
    control: ClassVar[int]  #: device control; reads as the alternate status
    line: ClassVar[int]

    def __init__(self, platform: Platform, disks: Sequence[Disk | None] = ()) -> None:
        super().__init__(platform)
        self.state = ChannelState()
        self.disks = [*disks, None, None][:2]

    def claims(self) -> list[Claim]:
        data = Claim(
            *(self.name, self.first, 1, self.read, self.write, 4),
            *(self.read_block, self.write_block),
        )
        others = ((self.first + 1, 7), (self.control, 1))
        return [data, *(Claim(self.name, *ports, self.read, self.write) for ports in others)]

    @property
    def selected(self) -> int:
        """The drive that answers."""
        device: int = self.state.drives[0].current[DEVICE]
        return int(device & DEVICE_SECOND != 0)

    def save(self) -> dict[str, Any]:
        """With what was written to disks that are in memory."""
        return {**super().save(), "disks": [disk and disk.save() for disk in self.disks]}

    def load(self, saved: dict[str, Any]) -> None:
        for disk, written in zip(self.disks, saved["disks"], strict=True):
            if disk is not None:
                disk.load(written)
        super().load({name: value for name, value in saved.items() if name != "disks"})

    # -- registers ----------------------------------------------------------------------------

    def read(self, port: int, size: int = 1) -> int:
        state, number = self.state, self.selected
        drive, present = state.drives[number], self.disks[number] is not None
        if port == self.first:
            return self._read_data(drive, size)
        register = port - self.first
        if register == STATUS or port == self.control:
            if register == STATUS:
                self._interrupt(False)
            if drive.status & BSY:
                self._be_busy(state.awaited, max(state.due - LOOK_TICKS, self.platform.now + 1))
            return drive.status if present or (number == 0 and any(self.disks)) else 0
        if self.disks == [None, None]:
            return 0
        if register == ERROR:
            return drive.error if present else 0
        if register == DEVICE:
            return drive.current[DEVICE] | DEVICE_ONES
        value: int = (drive.previous if state.control & CONTROL_HOB else drive.current)[register]
        return value

    def write(self, port: int, size: int, value: int) -> None:
        state, number = self.state, self.selected
        drive, register = state.drives[number], port - self.first
        if register == DATA:
            self._write_data(drive, value.to_bytes(size, "little"))
        elif port == self.control:
            self._control(value)
        elif drive.status & (BSY | DRQ):
            return  # as the drive is at work: but for a reset it hears nothing
        elif register == COMMAND:
            self._command(number, value)
        else:
            state.control &= ~CONTROL_HOB
            for either in state.drives:
                either.previous[register] = either.current[register]
                either.current[register] = value

    def _control(self, value: int) -> None:
        """Device control. A reset lasts as long as its bit is set, and a while after."""
        state = self.state
        risen, fallen = value & ~state.control, state.control & ~value
        state.control = value
        if risen & CONTROL_RESET:
            self.platform.cancel(self.name, state.awaited)
            state.awaited = ""
            self._reset(BSY | DSC)
            self._interrupt(False)
        elif fallen & CONTROL_RESET:
            self._be_busy("reset", self.platform.now + BUSY_TICKS)
        self._drive_line()

    def _reset(self, status: int) -> None:
        for drive, disk in zip(self.state.drives, self.disks, strict=True):
            drive.reset()
            drive.status = READY if disk is None else status

    def _interrupt(self, asked: bool) -> None:
        self.state.interrupt = asked
        self._drive_line()

    def _drive_line(self) -> None:
        state = self.state
        masked = state.control & CONTROL_NO_INTERRUPT
        self.platform.set_irq(self.line, state.interrupt and not masked)

    # -- commands -----------------------------------------------------------------------------

    def _command(self, number: int, command: int) -> None:
        state = self.state
        self._interrupt(False)
        if command == DIAGNOSE and self.disks != [None, None]:
            self._reset(BSY | DSC)  # both drives, whichever is selected
            number = 0 if self.disks[0] is not None else 1
        elif self.disks[number] is None:
            return
        state.active, drive = number, state.drives[number]
        drive.command, drive.error, drive.failed = command, 0, 0
        drive.buffer, drive.position, drive.wanted = b"", 0, 0
        drive.status = BSY | DSC
        transfer = TRANSFERS.get(command)
        if transfer is not None:
            self._begin(drive, transfer)
            if transfer.writes and not drive.failed:
                self._ask_for_block(drive, transfer)
                return
        self._work()

    def _be_busy(self, tag: str, due: int) -> None:
        """Be woken at a tick with what ends the busy time; nothing does while a reset is held."""
        state = self.state
        state.awaited, state.due = tag, due
        if tag:
            self.platform.schedule(self.name, tag, due)

    def _work(self) -> None:
        self._be_busy("done", self.platform.now + BUSY_TICKS)

    def wake(self, tag: str) -> None:
        self.state.awaited = ""
        if tag == "reset":
            for drive in self.state.drives:
                drive.status = READY
        elif tag == "done":
            self._done(self.state.drives[self.state.active])
        else:
            super().wake(tag)

    def _done(self, drive: Drive) -> None:
        """The busy time is over: tell what came of it."""
        transfer = TRANSFERS.get(drive.command)
        if transfer is None:
            carry_out = COMMANDS.get(drive.command)
            drive.failed = ABRT if carry_out is None else carry_out(self, drive)
        elif not drive.failed and not transfer.writes:
            self._fetch_block(drive, transfer)
        if drive.failed:
            drive.status, drive.error, drive.buffer = READY | ERR, drive.failed, b""
        elif transfer is not None and transfer.writes and drive.left:
            self._ask_for_block(drive, transfer)
        else:
            drive.status = READY | (DRQ if drive.buffer else 0)
        self._interrupt(True)

    def _disk(self) -> Disk:
        disk = self.disks[self.state.active]
        assert disk is not None  # an absent drive takes no command
        return disk

    # -- sectors ------------------------------------------------------------------------------

    def _begin(self, drive: Drive, transfer: Transfer) -> None:
        """Take the address from the registers."""
        first = drive.address(transfer.wide)
        drive.left = drive.count(transfer.wide)
        if transfer.many and not drive.multiple:
            drive.failed = ABRT
        elif first is None:
            drive.failed = IDNF
        else:
            drive.next = first
            self._check(drive, transfer)

    def _block(self, drive: Drive, transfer: Transfer) -> int:
        """Sectors of the block that comes next."""
        return min(drive.left, drive.multiple if transfer.many else 1)

    def _check(self, drive: Drive, transfer: Transfer) -> None:
        """Is the next block on the disk? If not, the registers show its first missing sector."""
        end = self._disk().sectors
        if drive.next + self._block(drive, transfer) > end:
            self._fail(drive, transfer, IDNF, max(drive.next, end))

    def _fail(self, drive: Drive, transfer: Transfer, error: int, sector: int) -> None:
        drive.failed = error
        drive.show(sector, transfer.wide)
        drive.current[COUNT] = drive.left & 0xFF
        drive.previous[COUNT] = drive.left >> 8 & 0xFF

    def _fetch_block(self, drive: Drive, transfer: Transfer) -> None:
        self._check(drive, transfer)
        if drive.failed:
            return
        count = self._block(drive, transfer)
        try:
            drive.buffer = self._disk().read(drive.next, count)
        except DiskError:
            self._fail(drive, transfer, UNC, drive.next)
            return
        drive.position = 0
        drive.next += count
        drive.left -= count

    def _ask_for_block(self, drive: Drive, transfer: Transfer) -> None:
        drive.buffer, drive.wanted = b"", self._block(drive, transfer) * SECTOR
        drive.status = READY | DRQ

    def _store_block(self, drive: Drive) -> None:
        """All of a block has come."""
        transfer, count = TRANSFERS[drive.command], drive.wanted // SECTOR
        try:
            self._disk().write(drive.next, drive.buffer)
        except DiskError:
            self._fail(drive, transfer, ABRT, drive.next)
        else:
            drive.next += count
            drive.left -= count
            if drive.left:
                self._check(drive, transfer)
        drive.buffer, drive.wanted = b"", 0
        drive.status = BSY | DSC
        self._work()

    # -- the data port ------------------------------------------------------------------------

    def _read_data(self, drive: Drive, size: int) -> int:
        if not drive.status & DRQ or drive.wanted:
            return 0
        piece = drive.buffer[drive.position : drive.position + size]
        drive.position += size
        if drive.position >= len(drive.buffer):
            drive.buffer, drive.position = b"", 0
            if drive.command in TRANSFERS and drive.left:
                drive.status = BSY | DSC
                self._work()
            else:
                drive.status = READY
        return int.from_bytes(piece, "little")

    def _write_data(self, drive: Drive, data: bytes) -> None:
        if drive.status & DRQ and drive.wanted:
            drive.buffer += data[: drive.wanted - len(drive.buffer)]
            if len(drive.buffer) == drive.wanted:
                self._store_block(drive)

    def read_block(self, port: int, size: int, count: int) -> bytes:
        """Words of a sector but for its last, which ends the block."""
        drive = self.state.drives[self.selected]
        if not drive.status & DRQ or drive.wanted:
            return b""
        start = drive.position
        end = start + size * min(count, (len(drive.buffer) - start - 1) // size)
        drive.position = end
        piece: bytes = drive.buffer[start:end]
        return piece

    def write_block(self, port: int, size: int, data: memoryview) -> int:
        """The same the other way."""
        drive = self.state.drives[self.selected]
        if not drive.status & DRQ or not drive.wanted:
            return 0
        count = min(len(data), drive.wanted - len(drive.buffer) - 1) // size
        drive.buffer += data[: count * size]
        return count

    # -- commands that move no sectors: each returns error bits -------------------------------

    def identify(self, drive: Drive) -> int:
        """IDENTIFY DEVICE: a block that is no sector's."""
        serial = f"17-{self.line - 14}{self.state.active}"
        drive.buffer = identify(drive, serial, self._disk().sectors)
        drive.position = drive.left = 0
        return 0

    def succeed(self, drive: Drive) -> int:
        """What a drive without moving parts has done as soon as it is asked."""
        del drive
        return 0

    def diagnose(self, drive: Drive) -> int:
        """EXECUTE DEVICE DIAGNOSTIC: both are well."""
        for either in self.state.drives:
            either.status, either.error = READY, DIAGNOSED
        del drive
        return 0

    def verify(self, drive: Drive) -> int:
        """READ VERIFY SECTORS, SEEK: is the address on the disk?"""
        wide = drive.command == 0x42
        first = drive.address(wide)
        count = 1 if drive.command >> 4 == 7 else drive.count(wide)
        return 0 if first is not None and first + count <= self._disk().sectors else IDNF

    def flush(self, drive: Drive) -> int:
        """FLUSH CACHE."""
        del drive
        try:
            self._disk().flush()
        except DiskError:
            return ABRT
        return 0

    def set_geometry(self, drive: Drive) -> int:
        """INITIALIZE DEVICE PARAMETERS: sectors of a track, and the last head."""
        if drive.current[COUNT] == 0:
            return ABRT
        drive.track = drive.current[COUNT]
        drive.heads = (drive.current[DEVICE] & DEVICE_HEAD) + 1
        return 0

    def set_multiple(self, drive: Drive) -> int:
        """SET MULTIPLE MODE: a power of two; 0 turns it off."""
        count = drive.current[COUNT]
        if count > MOST_BLOCK or count & (count - 1):
            return ABRT
        drive.multiple = count
        return 0

    def set_features(self, drive: Drive) -> int:
        """SET FEATURES: what is always so, and a PIO mode."""
        feature, mode = drive.current[FEATURES], drive.current[COUNT]
        if feature == FEATURE_MODE:
            return 0 if mode in (0, 1) or 8 <= mode <= 12 else ABRT
        return 0 if feature in FEATURES_TAKEN else ABRT

    def check_power(self, drive: Drive) -> int:
        """CHECK POWER MODE: it never sleeps."""
        drive.current[COUNT] = ACTIVE
        return 0


#: What carries out a command, by its code; all others are aborted, as NOP is by definition.
COMMANDS: Final[dict[int, Callable[[Channel, Drive], int]]] = {
    **{0x10 | n: Channel.succeed for n in range(16)},  # RECALIBRATE
    **{0x70 | n: Channel.verify for n in range(16)},  # SEEK
    0x40: Channel.verify,
    0x41: Channel.verify,
    0x42: Channel.verify,
    DIAGNOSE: Channel.diagnose,
    0x91: Channel.set_geometry,
    0xC6: Channel.set_multiple,
    # STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE, SLEEP; their old codes
    **dict.fromkeys((0xE0, 0xE1, 0xE2, 0xE3, 0xE6), Channel.succeed),
    **dict.fromkeys((0x94, 0x95, 0x96, 0x97, 0x99), Channel.succeed),
    0xE5: Channel.check_power,
    0x98: Channel.check_power,
    0xE7: Channel.flush,
    0xEA: Channel.flush,
    0xEC: Channel.identify,
    0xEF: Channel.set_features,
}


class PrimaryIde(Channel):
    """Drives 0 and 1."""

    name = "ide0"
    ports = ((0x1F0, 8), (0x3F6, 1))
    first, control, line = 0x1F0, 0x3F6, 14


class SecondaryIde(Channel):
    """Drives 2 and 3."""

    name = "ide1"
    ports = ((0x170, 8), (0x376, 1))
    first, control, line = 0x170, 0x376, 15
