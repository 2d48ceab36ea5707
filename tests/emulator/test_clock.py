"""The clock: what is due comes out in order, replaced and cancelled wake-ups do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emulator.clock import NEVER, TICKS_PER_SECOND, Clock, Input, InputQueue, tick_of, units_at

NAMES = st.sampled_from(["pit", "rtc", "uart"])
EVENTS = st.lists(st.tuples(NAMES, st.sampled_from("ab"), st.integers(0, 50)))


@given(EVENTS, st.lists(st.tuples(NAMES, st.sampled_from("ab"))))
def test_wake_ups_come_in_order_and_the_last_word_counts(events, cancelled):
    clock = Clock()
    expected = {}
    for device, tag, tick in events:
        clock.schedule(device, tag, tick)
        expected[device, tag] = tick
    for key in cancelled:
        clock.cancel(*key)
        expected.pop(key, None)
    assert clock.next_tick == min(expected.values(), default=NEVER)
    clock.now = 30
    taken = list(clock.take_due())
    due = sorted((tick, *key) for key, tick in expected.items() if tick <= 30)
    assert taken == [(device, tag) for _, device, tag in due]
    assert clock.next_tick == min((t for t in expected.values() if t > 30), default=NEVER)


@given(EVENTS)
def test_a_saved_clock_goes_on_alike(events):
    clock, other = Clock(), Clock()
    for event in events:
        clock.schedule(*event)
    other.schedule("other", "x", 1)
    other.load(clock.save())
    clock.now = other.now = 100
    assert list(clock.take_due()) == list(other.take_due())


def test_a_wake_up_scheduled_while_others_are_taken_is_taken_too():
    clock = Clock()
    clock.schedule("pit", "a", 5)
    clock.now = 10
    taken = []
    for key in clock.take_due():
        taken.append(key)
        if len(taken) == 1:
            clock.schedule("rtc", "b", 10)
    assert taken == [("pit", "a"), ("rtc", "b")]


@given(st.integers(0, 10**15), st.sampled_from([1, 1_193_182, 32_768, 18]))
def test_units_and_ticks_are_exact_inverses(unit, hertz):
    tick = tick_of(unit, hertz)
    assert units_at(tick, hertz) == unit
    assert tick == 0 or units_at(tick - 1, hertz) == unit - 1


def test_a_second_is_a_second():
    assert tick_of(1_193_182 * 3600, 1_193_182) == 3600 * TICKS_PER_SECOND


def test_inputs_wait_for_their_tick_and_are_logged():
    queue = InputQueue()
    first, second = Input(5, "com1", b"a"), Input(9, "com1", b"b")
    queue.push(first)
    queue.push(second)
    assert list(queue.take_due(4)) == []
    assert list(queue.take_due(5)) == [first]
    assert list(queue.take_due(100)) == [second]
    assert queue.log == [first, second]
