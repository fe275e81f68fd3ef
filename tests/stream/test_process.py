"""process on keyed streams, end to end: state and timers of each key, side outputs, failures, backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

import sage_actor as sage
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.pattern import Pattern
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction, ProcessContext
from sage_actor.dataflow.watermarks import BoundedDisorder, Monotonic

Click = tuple[str, int]
BURST: OutputTag[tuple[str, int]] = OutputTag("burst")


class Visits(KeyedProcessFunction[Click, tuple[str, int, int]]):
    """(user, end, clicks) of each visit: a visit is over when a user has been silent for `silence` ms."""

    def __init__(self, silence: int = 10) -> None:
        self.silence = silence

    def open(self, context: sage.FunctionContext) -> None:
        assert isinstance(context, KeyedContext)
        self.clicks = context.state.value("clicks", default=0)
        self.end = context.state.value("end", default=None)

    def process(self, value: Click, context: KeyedContext) -> None:
        assert context.timestamp is not None
        before = self.end.get()
        end = context.timestamp + self.silence
        if before is None or end > before:
            if before is not None:
                context.timers.delete_event_time(before)
            self.end.set(end)
            context.timers.event_time(end)
        self.clicks.set(self.clicks.get() + 1)
        if self.clicks.get() == 3:
            context.output(BURST, (context.key, context.timestamp))

    def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[tuple[str, int, int]]:
        yield (context.key, timestamp, self.clicks.get())
        self.clicks.clear()
        self.end.clear()


USERS = ("ann", "bob", "eve", "joe")
CLICKS: list[Click] = [
    click
    for start in range(0, 600, 60)
    for click in [*((user, start + step) for step in (0, 4, 2, 9) for user in USERS), ("clock", start + 40)]  # time passes for all
]
VISITS = sorted(visit for start in range(0, 600, 60) for visit in [*((user, start + 19, 4) for user in USERS), ("clock", start + 50, 1)])


@pytest.mark.rule("F36")
@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.asyncio
async def test_timers_end_visits(parallelism: int) -> None:
    async with sage.Environment("visits") as env:
        visits = (
            env.from_collection(CLICKS)
            .assign_timestamps(lambda click: click[1], BoundedDisorder(5))
            .key_by(lambda click: click[0])
            .process(Visits(), parallelism=parallelism)
        )
        found, bursts = visits.collect(), visits.side_output(BURST).collect()
        await env.execute()
    assert sorted(found) == VISITS
    assert len(list(bursts)) == 40


@pytest.mark.asyncio
async def test_a_class_with_configuration_on_every_backend(backend: str) -> None:
    async with sage.Environment("visits", backend=backend, parallelism=2) as env:
        found = (
            env.from_collection(CLICKS)
            .assign_timestamps(lambda click: click[1], BoundedDisorder(5))
            .key_by(lambda click: click[0])
            .process(Visits, silence=10)
            .collect()
        )
        await env.execute()
    assert sorted(found) == VISITS


@pytest.mark.asyncio
async def test_results_of_a_timer_are_in_time_for_what_comes_behind() -> None:
    """A second operator with timers sees nothing late: results precede the watermark that caused them."""

    class Late(KeyedProcessFunction[tuple[str, int, int], bool]):
        def process(self, value: tuple[str, int, int], context: KeyedContext) -> Iterable[bool]:
            assert context.timestamp is not None
            return [context.timestamp <= context.watermark]

    async with sage.Environment("late") as env:
        late = (
            env.from_collection(CLICKS)
            .assign_timestamps(lambda click: click[1], BoundedDisorder(5))
            .key_by(lambda click: click[0])
            .process(Visits())
            .key_by(lambda visit: visit[0])
            .process(Late())
            .collect()
        )
        await env.execute()
    assert list(late) == [False] * 50


@pytest.mark.asyncio
async def test_a_plain_function_of_value_and_context() -> None:
    async with sage.Environment("plain") as env:
        found = (
            env.from_collection(["a", "bb", "cc"])
            .key_by(len)
            .process(lambda word, context: [(context.key, word, context.timestamp)])
            .collect()
        )
        await env.execute()
    assert list(found) == [(1, "a", None), (2, "bb", None), (2, "cc", None)]


@pytest.mark.asyncio
async def test_a_failing_timer_ends_the_job_with_its_address() -> None:
    class Failing(Visits):
        def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[tuple[str, int, int]]:
            raise ValueError("no visit")

    with pytest.raises(sage.OperatorError, match=r"operator 'Failing', key 'ann': ValueError: no visit; record: <event-time timer at 19>"):
        async with sage.Environment("failing") as env:
            env.from_collection(CLICKS[:16:4]).assign_timestamps(lambda click: click[1], Monotonic()).key_by(
                lambda click: click[0]
            ).process(Failing()).collect()
            await env.execute()


@pytest.mark.rule("F37")
@pytest.mark.parametrize("state", ["memory", "rocksdb"])
@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.asyncio
async def test_state_timers_and_matches_survive_crashes(state: str, parallelism: int) -> None:
    """Two crashes, each after a checkpoint: every visit and every match once."""
    if state == "rocksdb":
        pytest.importorskip("rocksdict")
    taken: list[Click] = []
    crashes = [70, 180]

    def fragile(click: Click) -> Click:
        taken.append(click)
        if crashes and len(taken) == crashes[0]:
            crashes.pop(0)
            raise RuntimeError("crash")
        return click

    settings = {"checkpointing": "exactly_once", "checkpoint.interval": "1h", "restart.delay": "1ms", "state.backend": state}
    pair: Pattern[Click] = Pattern.begin("in").where(lambda c: c[1] % 60 == 0).then("out").where(lambda c: c[1] % 60 == 9).within(30)
    async with sage.Environment("fragile", parallelism=parallelism, config=settings) as env:
        clicks = env.from_collection(CLICKS).checkpoint_every(50).map(fragile)
        keyed = clicks.assign_timestamps(lambda click: click[1], BoundedDisorder(5)).key_by(lambda click: click[0])
        visits, pairs = keyed.process(Visits()).collect(), keyed.pattern(pair).collect()
        await env.execute()
    assert crashes == []
    assert len(taken) > len(CLICKS)  # something was read again
    assert sorted(visits) == VISITS
    assert sorted((user, match["in"][0][1]) for user, match in pairs) == sorted(
        (user, start) for start in range(0, 600, 60) for user in USERS
    )


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.asyncio
async def test_side_outputs_of_a_process_function_without_keys(stamped: bool) -> None:
    odd: OutputTag[tuple[int, int | None]] = OutputTag("odd")

    def sort(number: int, context: ProcessContext) -> Iterable[int]:
        if number % 2:
            context.output(odd, (number, context.timestamp))
            return ()
        return (number,)

    async with sage.Environment("sort") as env:
        numbers = env.from_collection(range(10))
        if stamped:
            numbers = numbers.assign_timestamps(lambda n: n * 10)
        sorted_out = numbers.flat_map(lambda n: [n, n]).process(sort)
        evens, odds = sorted_out.collect(), sorted_out.side_output(odd).collect()
        await env.execute()
    assert list(evens) == [n for n in range(0, 10, 2) for _ in range(2)]
    assert list(odds) == [(n, n * 10 if stamped else None) for n in range(1, 10, 2) for _ in range(2)]
