"""The MC146818 real-time clock with its CMOS memory: ports 0x70 (index) and 0x71 (data).

The date at tick 0 is given to the machine, never taken from the host, so a run is the same on any
day. Nothing ticks here: the time of day follows from guest time when somebody looks, and a wake-up
is asked for only when an enabled interrupt lies ahead. Seconds change at whole guest seconds.
Implemented: BCD and binary, 12 and 24 hours, SET, the update, alarm and periodic interrupts on line
8, the UIP bit. The NMI bit of port 0x70 is kept; there is no NMI source. Daylight saving and the
square wave are left out. Source: Motorola MC146818A data sheet. Read uart.py next.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Final

from emulator.clock import TICKS_PER_SECOND, tick_of, units_at
from emulator.devices.device import Device, Platform, State

INDEX: Final = 0x70
DATA: Final = 0x71
LINE: Final = 8
#: A round date, a Saturday.
DEFAULT_DATE: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)
CRYSTAL_HERTZ: Final = 32_768

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM = 1, 3, 5
A, B, C, D = 10, 11, 12, 13
CENTURY: Final = 0x32
TIME_REGISTERS: Final = (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY)
B_SET, B_PERIODIC, B_ALARM, B_UPDATE, B_BINARY, B_24_HOURS = 0x80, 0x40, 0x20, 0x10, 4, 2
PERIODIC, ALARM, UPDATE = 0x40, 0x20, 0x10  #: flags of C, at the bits of their enables in B
IRQF: Final = 0x80
A_UIP: Final = 0x80
A_RUNNING: Final = 0x20  #: bits 6-4 = 010: the divider runs on the 32,768 Hz crystal
D_VALID: Final = 0x80  #: the battery is fine
ANY: Final = 0xC0  #: an alarm field with these bits matches everything
PM: Final = 0x80
UIP_TICKS: Final = TICKS_PER_SECOND * 244 // 1_000_000  #: UIP rises 244 us before an update
DAY_SECONDS: Final = 86_400


def days_from_date(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of any date, however impossible: 31 February is 3 March."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    shifted = year - (month <= 2)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719_468


def date_from_days(days: int) -> tuple[int, int, int]:
    """Year, month, day of a day since 1970-01-01."""
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


class RtcState(State):
    def __init__(self, offset: int) -> None:
        self.index = 0
        self.cmos = [0] * 128
        self.offset = offset  #: seconds since 1970 at tick 0, by this clock
        self.weekday_shift = 0  #: the guest may call any day Sunday
        self.seen = 0  #: the tick up to which events are in register C


class Rtc(Device):
    """The clock and 114 bytes of CMOS, of which the firmware's usual ones tell the memory size."""

    name = "rtc"
    ports = ((INDEX, 2),)

    def __init__(self, platform: Platform, date: datetime = DEFAULT_DATE, ram: int = 0) -> None:
        super().__init__(platform)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        self.state = RtcState(offset=int(date.timestamp()))
        cmos = self.state.cmos
        cmos[A], cmos[B], cmos[D] = A_RUNNING | 6, B_24_HOURS, D_VALID
        extended = min(max(ram - (1 << 20), 0) >> 10, 0xFFFF)
        above_16m = min(max(ram - (16 << 20), 0) >> 16, 0xFFFF)
        for register, value in ((0x15, 640), (0x17, extended), (0x30, extended), (0x34, above_16m)):
            cmos[register], cmos[register + 1] = value & 0xFF, value >> 8
        self._show_time()

    @property
    def running(self) -> bool:
        """The time advances: SET is clear and the divider runs."""
        cmos = self.state.cmos
        return not cmos[B] & B_SET and cmos[A] & 0x70 == A_RUNNING

    def read(self, port: int, size: int = 1) -> int:
        if port == INDEX:
            return 0xFF  # write-only
        state = self.state
        index = state.index & 0x7F
        if index in TIME_REGISTERS:
            self._show_time()
        elif index == A:
            left = TICKS_PER_SECOND - self.platform.now % TICKS_PER_SECOND
            return state.cmos[A] | (A_UIP if self.running and left <= UIP_TICKS else 0)
        elif index == C:
            self._collect()
            value, state.cmos[C] = state.cmos[C], 0
            self._update()
            return value
        return state.cmos[index]

    def write(self, port: int, size: int, value: int) -> None:
        state = self.state
        if port == INDEX:
            state.index = value
            return
        index = state.index & 0x7F
        if index in (C, D):
            return
        self._collect()
        if index in TIME_REGISTERS:
            self._show_time()
            state.cmos[index] = value
            if self.running:
                self._take_time(index)
        elif index in (A, B):
            self._control(index, value)
        else:
            state.cmos[index] = value
        self._update()

    def _control(self, index: int, value: int) -> None:
        """Registers A and B may stop and start the time, or change how it is written."""
        cmos = self.state.cmos
        self._show_time()
        was_running = self.running
        if index == A:
            cmos[A] = value & 0x7F
        else:
            # SET forbids the update interrupt (data sheet, register B).
            cmos[B] = value & ~B_UPDATE if value & B_SET else value
        if self.running and not was_running:
            self._take_time(None)

    def wake(self, tag: str) -> None:
        self._collect()
        self._update()

    # -- the time of day ----------------------------------------------------------------------

    def _encode(self, value: int) -> int:
        return value if self.state.cmos[B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self.state.cmos[B] & B_BINARY else (value >> 4) * 10 + (value & 15)

    def _encode_hour(self, hour: int) -> int:
        if self.state.cmos[B] & B_24_HOURS:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (PM if hour >= 12 else 0)

    def _decode_hour(self, value: int) -> int:
        if self.state.cmos[B] & B_24_HOURS:
            return self._decode(value)
        return self._decode(value & ~PM) % 12 + (12 if value & PM else 0)

    def _show_time(self) -> None:
        """Bring the time registers up to date, if the time advances."""
        if not self.running:
            return
        state, cmos = self.state, self.state.cmos
        days, second = divmod(state.offset + units_at(self.platform.now, 1), DAY_SECONDS)
        year, month, day = date_from_days(days)
        cmos[SECONDS] = self._encode(second % 60)
        cmos[MINUTES] = self._encode(second // 60 % 60)
        cmos[HOURS] = self._encode_hour(second // 3600)
        cmos[WEEKDAY] = self._encode((days + 4 + state.weekday_shift) % 7 + 1)
        cmos[DAY] = self._encode(day)
        cmos[MONTH] = self._encode(month)
        cmos[YEAR] = self._encode(year % 100)
        # The century is the firmware's convention, not the chip's: BCD in any mode.
        century = year // 100 % 100
        cmos[CENTURY] = century // 10 << 4 | century % 10

    def _take_time(self, written: int | None) -> None:
        """Go on from the time registers, of which `written` (None: perhaps all) has changed."""
        state, cmos = self.state, self.state.cmos
        century = (cmos[CENTURY] >> 4) * 10 + (cmos[CENTURY] & 15)
        year = century * 100 + self._decode(cmos[YEAR])
        days = days_from_date(year, self._decode(cmos[MONTH]), self._decode(cmos[DAY]))
        second = (
            self._decode_hour(cmos[HOURS]) * 3600
            + self._decode(cmos[MINUTES]) * 60
            + self._decode(cmos[SECONDS])
        )
        state.offset = days * DAY_SECONDS + second - units_at(self.platform.now, 1)
        if written in (None, WEEKDAY):
            state.weekday_shift = (self._decode(cmos[WEEKDAY]) - 1 - (days + 4)) % 7

    # -- interrupts ---------------------------------------------------------------------------

    def _collect(self) -> None:
        """Set the flags of register C for all that happened since last time."""
        state = self.state
        for flag in (PERIODIC, ALARM, UPDATE):
            tick = self._next(flag, state.seen)
            if tick is not None and tick <= self.platform.now:
                state.cmos[C] |= flag
        state.seen = self.platform.now

    def _next(self, flag: int, tick: int) -> int | None:
        """The first tick after `tick` at which `flag` is raised; None: never."""
        cmos = self.state.cmos
        if flag == PERIODIC:
            rate = cmos[A] & 15
            if rate == 0 or cmos[A] & 0x70 != A_RUNNING:
                return None
            # Rates 1 and 2 repeat 8 and 9 (data sheet, table 5).
            period = 1 << (rate + 7 if rate <= 2 else rate) - 1
            return tick_of((units_at(tick, CRYSTAL_HERTZ) // period + 1) * period, CRYSTAL_HERTZ)
        if not self.running:
            return None
        second = units_at(tick, 1)
        if flag == UPDATE:
            return tick_of(second + 1, 1)
        time_of_day = (self.state.offset + second) % DAY_SECONDS
        distance = self._next_alarm(time_of_day)
        return None if distance is None else tick_of(second + distance, 1)

    def _next_alarm(self, time_of_day: int) -> int | None:
        """Seconds from `time_of_day` to the next alarm, 1 to 86,400."""
        cmos = self.state.cmos

        def matching(register: int, count: int) -> list[int]:
            field_ = cmos[register]
            if field_ & ANY == ANY:
                return list(range(count))
            decode = self._decode_hour if register == HOURS_ALARM else self._decode
            return [decode(field_)] if decode(field_) < count else []

        hours, minutes = matching(HOURS_ALARM, 24), matching(MINUTES_ALARM, 60)
        seconds = matching(SECONDS_ALARM, 60)
        if not (hours and minutes and seconds):
            return None

        def alarms() -> Iterator[int]:
            for hour in hours:
                if (hour + 1) * 3600 > time_of_day:
                    for minute in minutes:
                        if hour * 3600 + (minute + 1) * 60 > time_of_day:
                            yield from (hour * 3600 + minute * 60 + s for s in seconds)

        earliest = hours[0] * 3600 + minutes[0] * 60 + seconds[0]
        later = (alarm for alarm in alarms() if alarm > time_of_day)
        return next(later, earliest + DAY_SECONDS) - time_of_day

    def _update(self) -> None:
        """Drive line 8, and ask to be woken for the next interrupt that is enabled and not up."""
        cmos = self.state.cmos
        enabled = cmos[B] & (PERIODIC | ALARM | UPDATE)
        raised = bool(cmos[C] & enabled)
        cmos[C] = cmos[C] & ~IRQF | (IRQF if raised else 0)
        self.platform.set_irq(LINE, raised)
        ahead = [
            tick
            for flag in (PERIODIC, ALARM, UPDATE)
            if enabled & flag and not cmos[C] & flag
            if (tick := self._next(flag, self.platform.now)) is not None
        ]
        if ahead:
            self.platform.schedule(self.name, "event", min(ahead))
        else:
            self.platform.cancel(self.name, "event")
