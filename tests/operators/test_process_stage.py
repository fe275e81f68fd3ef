"""The stage of keyed process functions: state, side outputs, failures, and that neither batches nor snapshots ever show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.policies import Retry
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction, is_keyed_process
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.errors import GraphError, OperatorError
from sage_actor.operators.process_stage import ProcessStage

Harness = Any  # the class of tests/operators/conftest.py
ODD: OutputTag[Any] = OutputTag("odd")


class Silence(KeyedProcessFunction[tuple[str, int], Any]):
    """Says when a key has been silent for 10 ms, and puts odd records aside."""

    def open(self, context: FunctionContext) -> None:
        assert isinstance(context, KeyedContext)
        self.last = context.state.value("last", default=-1)
        self.seen = context.state.map("seen")

    def process(self, value: tuple[str, int], context: KeyedContext) -> None:
        assert context.timestamp is not None
        self.last.set(max(self.last.get(), context.timestamp))
        self.seen[value[1]] = self.seen.get(value[1], 0) + 1
        context.timers.event_time(context.timestamp + 10)
        if value[1] % 2:
            context.output(ODD, value)

    def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[Any]:
        if timestamp == self.last.get() + 10:
            yield (context.key, self.last.get(), dict(self.seen))


def columns(records: list[tuple[str, int, int]], disorder: int) -> tuple[list[int], list[int]]:
    """Timestamps, and the watermarks of bounded disorder."""
    stamps = [time for _, _, time in records]
    highest = [-100, *stamps]
    return stamps, [max(highest[: i + 1]) - disorder - 1 for i in range(len(records))]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(-50, 50)), max_size=16), st.integers(0, 40), st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.rule("F19a")
@pytest.mark.asyncio
async def test_batches_and_snapshots_never_show(
    harness: Harness, events: list[tuple[str, int, int]], disorder: int, data: st.DataObject
) -> None:
    records = [(key, value) for key, value, _ in events]
    stamps, marks = columns(events, disorder)
    whole = await harness(ProcessStage, function=Silence()).open()
    await whole.feed(records, stamps, marks)
    await whole.advance(MAX_WATERMARK)
    await whole.close()
    parts = await harness(ProcessStage, function=Silence()).open()
    start = 0
    while start < len(records):
        stop = start + data.draw(st.integers(1, len(records) - start))
        await parts.feed(records[start:stop], stamps[start:stop], marks[start:stop])
        reached = max([-100, *stamps[:stop]]) - disorder - 1
        if reached > marks[stop - 1]:
            await parts.advance(reached)
        if data.draw(st.booleans()):
            parts = await parts.restored()
            parts.stage.watermark = max(reached, marks[stop - 1])  # is not restored (F19); the next record brings it back
        start = stop
    await parts.advance(MAX_WATERMARK)
    await parts.close()
    assert [row[:2] for row in parts.out] == [row[:2] for row in whole.out]
    assert parts.aside == whole.aside


class Touchy(KeyedProcessFunction[Any, Any]):
    """Fails for negative numbers, after having given and put aside something; fails in timers of such times too."""

    def __init__(self) -> None:
        self.tries = 0

    def process(self, value: tuple[str, int], context: KeyedContext) -> Iterator[Any]:
        yield value[1]
        context.output(ODD, value)
        if value[1] < 0:
            self.tries += 1
            if self.tries <= -value[1]:
                raise ValueError("negative")
        if value[1] > 100:
            context.timers.event_time(value[1])

    def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[Any]:
        yield timestamp
        raise LookupError("in the timer")


RECORDS = [("a", 1), ("b", -3), ("a", 2), ("a", 200), ("c", 3)]
FIVE = ([0] * 5, [-1] * 5)


@pytest.mark.asyncio
async def test_a_failure_names_operator_key_and_record(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Touchy()).open()
    with pytest.raises(OperatorError, match=r"operator 'judge', key 'b': ValueError: negative; record: \('b', -3\)") as caught:
        await stage.feed(RECORDS, *FIVE)
    assert isinstance(caught.value.__cause__, ValueError)
    assert [value for value, _, _ in stage.out] == [1]  # what came before goes on, what it had given does not
    assert [value for value, _, _ in stage.aside["odd"]] == [("a", 1)]
    assert stage.counters.errors == 1
    assert stage.counters.records_in == 2
    await stage.close()


@pytest.mark.asyncio
async def test_a_failing_timer_is_named(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Touchy()).open()
    await stage.feed([("a", 200)], [0], [-1])
    with pytest.raises(OperatorError, match=r"operator 'judge', key 'a': LookupError: in the timer; record: <event-time timer at 200>"):
        await stage.advance(300)
    await stage.close()


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
@pytest.mark.asyncio
async def test_what_fails_is_dropped_whole_and_the_rest_goes_on(harness: Harness, policy: str) -> None:
    stage = await harness(ProcessStage, function=Touchy(), on_error=policy).open()
    await stage.feed(RECORDS, *FIVE)
    await stage.advance(300)
    assert [value for value, _, _ in stage.out] == [1, 2, 200, 3]
    assert [value for value, _, _ in stage.aside["odd"]] == [("a", 1), ("a", 2), ("a", 200), ("c", 3)]
    assert stage.counters.errors == 2
    assert (stage.counters.records_in, stage.counters.records_out) == (5, 4)
    if policy == "dead_letter":
        letters = [value for value, _, _ in stage.aside["dead"]]
        assert [(letter.key, str(letter.error)) for letter in letters] == [("b", "negative"), ("a", "in the timer")]
        assert letters[0].value == ("b", -3)
        assert letters[1].value == ("a", 200, "", "event")
    await stage.close()


@pytest.mark.asyncio
async def test_retry_calls_again_with_the_same_key(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Touchy(), on_error=Retry(attempts=5, delay=0)).open()
    await stage.feed(RECORDS, *FIVE)
    assert [value for value, _, _ in stage.out] == [1, -3, 2, 200, 3]
    assert len(stage.aside["odd"]) == 5
    assert stage.counters.retried == 3
    await stage.close()


@pytest.mark.asyncio
async def test_long_results_come_in_slices_and_in_order(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=lambda record, context: (i for i in range(record[1])), kind="process").open()
    await stage.feed([("a", 5000), ("b", 1024), ("c", 3)], [1, 2, 3], [-1, 0, 1])
    assert [value for value, _, _ in stage.out] == [*range(5000), *range(1024), *range(3)]
    assert [stamp for _, stamp, _ in stage.out] == [1] * 5000 + [2] * 1024 + [3] * 3
    assert stage.counters.records_out == 6027
    await stage.close()


@pytest.mark.asyncio
async def test_timers_need_a_function_with_on_timer(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=lambda record, context: context.timers.event_time(5), kind="process").open()
    await stage.feed([("a", 1)], [0], [-1])
    with pytest.raises(OperatorError, match="has no on_timer"):
        await stage.advance(10)
    await stage.close()


@pytest.mark.asyncio
async def test_an_async_function_is_refused(harness: Harness) -> None:
    async def later(record: Any, context: KeyedContext) -> None: ...

    with pytest.raises(GraphError, match="not an async one"):
        await harness(ProcessStage, function=later, kind="process").open()


@pytest.mark.asyncio
async def test_a_key_function_that_raises_is_named(harness: Harness) -> None:
    stage = await harness(ProcessStage, function=Silence(), key=lambda record: record[5]).open()
    with pytest.raises(OperatorError, match=r"IndexError: tuple index out of range; record: \('a', 1\)"):
        await stage.feed([("a", 1)], [0], [-1])
    await stage.close()


def test_what_counts_as_a_keyed_process_function() -> None:
    class Timed:
        def process(self, value: object) -> None: ...

        def on_timer(self, timestamp: int, context: KeyedContext) -> None: ...

    assert is_keyed_process(Silence)
    assert is_keyed_process(Silence())
    assert is_keyed_process(Timed())
    assert is_keyed_process(lambda value, context: None)
    assert not is_keyed_process(lambda value: None)
    assert not is_keyed_process(lambda value, scale=2: None)
    assert not is_keyed_process(int)
