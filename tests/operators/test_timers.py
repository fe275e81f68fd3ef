"""Timers of keyed operators against a sorted list (rules F35 to F37)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.stable_hash import key_group
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.errors import OperatorError
from sage_actor.operators.process_stage import ProcessStage
from sage_actor.operators.timers import TimerService
from sage_actor.testing import ManualClock

Harness = Any  # the class of tests/operators/conftest.py
GROUPS = 16

Command = tuple[str, str, Any, int]
"""set, delete or query; and for which key, namespace and time. "now" deals in the clock instead."""


class Commands(KeyedProcessFunction[Any, Any]):
    """Does what the record says."""

    def process(self, value: tuple[str, str, Any, int], context: KeyedContext) -> None:
        _, what, namespace, time = value
        getattr(context.timers, what)(time, namespace)

    def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[Any]:
        yield (context.key, timestamp)


commands = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["event_time", "event_time", "delete_event_time"]),
        st.sampled_from([None, "n"]),
        st.integers(-20, 20),
    ),
    max_size=20,
)


class Model:
    """What is set, and what has fired."""

    def __init__(self) -> None:
        self.timers: dict[tuple[str, Any, int], int] = {}
        self.number = 0
        self.fired: list[tuple[str, int]] = []

    def record(self, record: Command, mark: int) -> None:
        self.fire(mark)
        key, what, namespace, time = record
        if what == "event_time":
            self.number += 1
            self.timers.setdefault((key, namespace, time), self.number)
        else:
            self.timers.pop((key, namespace, time), None)
        self.fire(mark)

    def fire(self, mark: int) -> None:
        due = [timer for timer in self.timers if timer[2] <= mark]
        for timer in sorted(due, key=lambda timer: (timer[2], key_group(timer[0], GROUPS), self.timers[timer])):
            del self.timers[timer]
            self.fired.append((timer[0], timer[2]))


@pytest.mark.rule("F35")
@pytest.mark.rule("F36")
@pytest.mark.rule("F37")
@given(commands, st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.asyncio
async def test_timers_fire_as_in_a_sorted_list(harness: Harness, records: list[Command], data: st.DataObject) -> None:
    """Whatever the batches, with a snapshot and a restore between any two of them, at any parallelism."""
    marks = sorted(data.draw(st.lists(st.integers(-20, 20), min_size=len(records), max_size=len(records))))
    model = Model()
    for record, mark in zip(records, marks, strict=True):
        model.record(record, mark)
    model.fire(MAX_WATERMARK)
    stage = await harness(ProcessStage, function=Commands()).open()
    start = 0
    while start < len(records):
        stop = start + data.draw(st.integers(1, len(records) - start))
        await stage.feed(records[start:stop], [0] * (stop - start), marks[start:stop])
        if data.draw(st.booleans()):
            stage = await stage.restored()
        start = stop
    await stage.advance(MAX_WATERMARK)
    await stage.close()
    assert [value for value, _, _ in stage.out] == model.fired
    assert [stamp for _, stamp, _ in stage.out] == [time for _, time in model.fired]
    assert len(stage.stage.timers) == 0


@pytest.mark.rule("F37")
@given(commands, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
@pytest.mark.asyncio
async def test_timers_follow_their_key_groups_when_parallelism_changes(
    harness: Harness, records: list[Command], before: int, after: int
) -> None:
    old = [await harness(ProcessStage, function=Commands(), index=i, parallelism=before).open() for i in range(before)]
    model = Model()
    for record in records:
        model.record(record, -100)
    parts = []
    for stage in old:
        mine = [record for record in records if stage.owns(record[0])]
        await stage.feed(mine, [0] * len(mine), [-100] * len(mine))
        parts.append(await stage.save())
        await stage.close()
    files = {name: content for stage in old for name, content in stage.storage.files.items()}
    fired = []
    model.fire(MAX_WATERMARK)
    for i in range(after):
        stage = harness(ProcessStage, function=Commands(), index=i, parallelism=after)
        stage.storage.files = files
        await stage.open(parts)
        await stage.advance(MAX_WATERMARK)
        mine = [value for value, _, _ in stage.out]
        assert mine == [timer for timer in model.fired if stage.owns(timer[0])]
        fired += mine
        await stage.close()
    assert sorted(fired) == sorted(model.fired)


class Chained(KeyedProcessFunction[Any, Any]):
    """A timer sets the next one."""

    def process(self, value: Any, context: KeyedContext) -> None:
        context.timers.event_time(10)

    def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[Any]:
        yield (timestamp, context.watermark)
        if timestamp < 30:
            context.timers.event_time(timestamp + 5)


@pytest.mark.rule("F36")
@pytest.mark.asyncio
async def test_a_timer_set_by_a_timer_and_due_already_fires_in_the_same_pass(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Chained()).open()
    await stage.feed([("a",)], [0], [-1])
    await stage.advance(20)
    assert stage.out == [((10, 20), 10, -1), ((15, 20), 15, -1), ((20, 20), 20, -1)]  # before that watermark: they are not late
    await stage.advance(100)
    assert [value for value, _, _ in stage.out[3:]] == [(25, 100), (30, 100)]
    await stage.close()


class Alarms(KeyedProcessFunction[Any, Any]):
    """Sets a timer of processing time at the instant that the record names, or calls it off."""

    def process(self, value: tuple[str, int], context: KeyedContext) -> None:
        if value[1] < 0:
            context.timers.delete_processing_time(-value[1])
        else:
            context.timers.processing_time(value[1])

    def on_timer(self, timestamp: int, context: KeyedContext) -> list[Any]:
        return [(context.key, timestamp, context.timers.now())]


async def sleep_until(stage: Any, milli: int) -> None:
    """Let the clock come to an instant, and every alarm ring that falls due on the way."""
    while stage.clock.now_ms() < milli:
        due = min((alarm.due for alarm in stage.alarms), default=float("inf"))
        step = min(due, milli / 1000) - stage.clock.monotonic()
        await stage.clock.advance(max(step, 0.001))
        await stage.ring()


@pytest.mark.rule("F36")
@pytest.mark.asyncio
async def test_timers_of_processing_time_go_by_the_clock(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Alarms()).open()
    await stage.feed([("a", 500), ("b", 200), ("a", 500), ("c", 300), ("c", -300), ("a", -7)], [0] * 6, [-1] * 6)
    await sleep_until(stage, 199)
    assert stage.out == []
    await sleep_until(stage, 600)
    assert stage.out == [(("b", 200, 200), 200, -1), (("a", 500, 500), 500, -1)]
    assert stage.alarms == []
    await stage.close()


@pytest.mark.rule("F37")
@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.asyncio
async def test_overdue_timers_of_processing_time_fire_after_a_restore(harness: Harness, stamped: bool) -> None:
    stage = await harness(ProcessStage, function=Alarms()).open()
    records = [("a", 5_000), ("b", 90_000)]
    if stamped:
        await stage.feed(records, [0, 0], [-1, -1])
    else:
        await stage.feed(records)
    part = await stage.save()
    await stage.close()
    later = await harness(ProcessStage, function=Alarms(), clock=ManualClock(60.0)).open([part], stage.storage)
    assert await later.ring()
    assert [value for value, _, _ in later.out] == [("a", 5_000, 60_000)]
    assert (later.out[0][1] is None) is not stamped  # a stream without event time stays one
    await sleep_until(later, 100_000)
    assert [value for value, _, _ in later.out[1:]] == [("b", 90_000, 90_000)]
    await later.close()


class JumpingClock(ManualClock):
    """A machine's clock that somebody sets: `monotonic` goes on evenly, `now_ms` does not."""

    offset = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.offset


@pytest.mark.parametrize("jump", [-3_600_000, 3_600_000])
@pytest.mark.asyncio
async def test_a_clock_that_is_set_delays_timers_and_loses_none(harness: Harness, jump: int) -> None:
    clock = JumpingClock()
    stage = await harness(ProcessStage, function=Alarms(), clock=clock).open()
    await stage.feed([("a", 1_000), ("b", 3_000_000)])
    clock.offset = jump
    due = 3_601_000 if jump < 0 else 60_000  # ahead: it is noticed when the clock is looked at again, within a minute
    for _ in range(400):
        await clock.advance(min((alarm.due for alarm in stage.alarms), default=clock.monotonic()) - clock.monotonic())
        await stage.ring()
        if stage.out:
            break
    assert stage.out[0][0][:2] == ("a", 1_000)
    assert clock.monotonic() * 1000 <= due
    assert stage.out[0][0][2] >= 1_000
    while len(stage.out) < 2:
        await clock.advance(min(alarm.due for alarm in stage.alarms) - clock.monotonic())
        await stage.ring()
    assert stage.out[1][0][:2] == ("b", 3_000_000)
    await stage.close()


@pytest.mark.parametrize("time", [1.5, "soon", None])
@pytest.mark.asyncio
async def test_a_time_that_is_none_is_refused(harness: Harness, time: Any) -> None:
    stage = await harness(ProcessStage, function=Commands()).open()
    with pytest.raises(OperatorError, match="whole number of milliseconds"):
        await stage.feed([("a", "event_time", None, time)], [0], [-1])
    await stage.close()


@pytest.mark.asyncio
async def test_an_event_timer_without_event_time_is_refused(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Commands()).open()
    with pytest.raises(OperatorError, match=r"no timestamps; call assign_timestamps"):
        await stage.feed([("a", "event_time", None, 5)])
    await stage.close()


@pytest.mark.asyncio
async def test_timers_called_off_are_forgotten(harness: Harness) -> None:
    """A timer moved ahead with every record must not leave a trail."""
    stage = await harness(ProcessStage, function=Commands()).open()
    for time in range(2000):
        await stage.feed([("a", "event_time", None, time), ("a", "delete_event_time", None, time - 1)], [0, 0], [-1, -1])
    service: TimerService = stage.stage.timers
    assert len(service) == 1
    assert sum(map(len, service.queues)) < 200
    await stage.close()
