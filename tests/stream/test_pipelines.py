"""Any pipeline gives what the same steps give over plain lists, whatever its batches, buffers, chains and parallelism."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage


class Step(NamedTuple):
    """One step: how it is described on a stream, and what it does to a list."""

    text: str
    apply: Callable[[Any, dict[str, Any]], Any]
    model: Callable[[list[int]], list[int]]


def upto(n: int) -> Iterator[int]:
    yield from range(n)


def countdown(value: int) -> int:
    return value - 3


def split(value: int) -> Iterator[int]:
    yield value // 2
    yield value // 3


def split_model(value: int) -> list[int]:
    work, out = [value], []
    while work:
        current = work.pop(0)
        if current < 5:
            out.append(current)
        else:
            work.extend(split(current))
    return out


class Odd(sage.ProcessFunction[int, int]):
    """Answers None, one or two results."""

    def process(self, value: int, context: sage.FunctionContext, /) -> list[int] | None:
        assert context.parallelism >= 1
        return None if value % 3 == 0 else [value] * (value % 3)


def steps_of(k: int) -> list[Step]:
    return [
        Step(f"map +{k}", lambda s, o: s.map(lambda x: x + k, **o), lambda v: [x + k for x in v]),
        Step("map str", lambda s, o: s.map(lambda x: abs(x) % 50, **o), lambda v: [abs(x) % 50 for x in v]),
        Step(f"filter %{k}", lambda s, o: s.filter(lambda x: x % (k + 2), **o), lambda v: [x for x in v if x % (k + 2)]),
        Step(
            "flat_map list", lambda s, o: s.flat_map(lambda x: [x] * (abs(x) % 3), **o), lambda v: [x for x in v for _ in range(abs(x) % 3)]
        ),
        Step(
            "flat_map lazy", lambda s, o: s.flat_map(lambda x: upto(abs(x) % 4), **o), lambda v: [i for x in v for i in range(abs(x) % 4)]
        ),
        Step("flat_map str", lambda s, o: s.flat_map(lambda x: str(x), **o).map(ord), lambda v: [ord(c) for x in v for c in str(x)]),
        Step("map_batch", lambda s, o: s.map_batch(lambda b: [x - k for x in b], max_batch=k + 1, **o), lambda v: [x - k for x in v]),
        Step("process", lambda s, o: s.process(Odd, **o), lambda v: [x for x in v for _ in range(x % 3)]),
        Step("map_async", lambda s, o: s.map_async(twice, concurrency=k + 1, **o), lambda v: [2 * x for x in v]),
        Step(
            "iterate",
            lambda s, o: s.iterate(countdown, until=lambda x: x < k, **o),
            lambda v: [x if x < k else (x - k) % 3 + k - 3 for x in v],
        ),
        Step("iterate split", lambda s, o: s.iterate(split, until=lambda x: x < 5, **o), lambda v: [y for x in v for y in split_model(x)]),
    ]


async def twice(x: int) -> int:
    if x % 2:
        await asyncio.sleep(0)
    return 2 * x


DEALT: list[Step] = [
    Step("rebalance", lambda s, o: s.rebalance(), lambda v: v),
    Step("shuffle", lambda s, o: s.shuffle(), lambda v: v),
    Step("partition", lambda s, o: s.partition(2), lambda v: v),
    Step("key_by", lambda s, o: s.key_by(lambda x: x % 5), lambda v: v),
    Step("partition_custom", lambda s, o: s.partition_custom(lambda key, n: key % n, lambda x: x), lambda v: v),
]

ANY_STEP = st.builds(lambda k, i: steps_of(k)[i], st.integers(0, 6), st.integers(0, 10))


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[list[tuple[Step, dict[str, Any], bool]], int]:
    """Steps with their options; now and then an exchange before one."""
    widest = draw(st.sampled_from([1, 1, 2, 3]))
    steps: list[tuple[Step, dict[str, Any], bool]] = []
    for _ in range(draw(st.integers(0, 6))):
        if widest > 1 and draw(st.booleans()):
            steps.append((draw(st.sampled_from(DEALT)), {}, False))
        own = draw(st.sampled_from([None, widest]))
        steps.append((draw(ANY_STEP), {} if own is None else {"parallelism": own}, draw(st.booleans())))
    return steps, widest


@pytest.mark.rule("F43")
@settings(max_examples=120, deadline=None)
@given(
    data=st.lists(st.integers(-40, 200), max_size=60),
    pipeline=pipelines(),
    batch=st.integers(1, 7),
    buffer=st.integers(1, 8),
    as_list=st.booleans(),
)
def test_any_pipeline_equals_its_model(
    data: list[int], pipeline: tuple[list[tuple[Step, dict[str, Any], bool]], int], batch: int, buffer: int, as_list: bool
) -> None:
    steps, parallelism = pipeline
    expected = data
    for step, _, _ in steps:
        expected = step.model(expected)
        if len(expected) > 2000:
            return

    async def run() -> list[int]:
        config = {"batch.records": batch, "buffer.records": buffer}
        async with asyncio.timeout(20), sage.Environment("any", parallelism=parallelism, config=config) as env:
            stream: Any = env.from_collection(data if as_list else iter(data))
            for step, options, alone in steps:
                stream = step.apply(stream, options)
                if alone:
                    stream.disable_chaining()
            out = stream.collect()
            job = await env.execute()
        for name, row in job.metrics()["operators"].items():
            assert row["errors"] == 0, name
        return list(out)

    result = asyncio.run(run())
    if parallelism == 1:
        assert result == expected
    else:
        assert sorted(result) == sorted(expected)


@settings(max_examples=30, deadline=None)
@given(data=st.lists(st.integers(0, 100), min_size=1, max_size=40), pipeline=pipelines())
def test_chains_change_nothing(data: list[int], pipeline: tuple[list[tuple[Step, dict[str, Any], bool]], int]) -> None:
    """`disable_chaining` on every operator against none of them: same output, same order, same counts."""
    steps = [step for step, _, _ in pipeline[0] if step not in DEALT][:4]

    async def run(alone: bool) -> tuple[list[int], dict[str, tuple[int, int]]]:
        async with sage.Environment("any") as env:
            stream: Any = env.from_collection(data)
            for step in steps:
                stream = step.apply(stream, {})
                if alone:
                    stream.disable_chaining()
            out = stream.collect()
            job = await env.execute()
        counts = {name: (row["records_in"], row["records_out"]) for name, row in job.metrics()["operators"].items()}
        return list(out), counts

    assert asyncio.run(run(True)) == asyncio.run(run(False))


@pytest.mark.asyncio
@pytest.mark.parametrize("depth", [5, 8, 20])
async def test_many_nested_flat_maps(depth: int) -> None:
    """More loops than one code block may nest are split, and still one result."""
    async with sage.Environment("deep") as env:
        stream: sage.DataStream[int] = env.from_collection([1, 2])
        for _ in range(depth):
            stream = stream.flat_map(lambda x: [x])
        out = stream.flat_map(lambda x: [x, -x]).collect()
        await env.execute()
    assert list(out) == [1, -1, 2, -2]


@pytest.mark.asyncio
async def test_an_endless_flat_map_flows_and_ends() -> None:
    """A flat_map that yields for ever hands on its results, also when nearly all are filtered out behind it."""

    def naturals(_: int) -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    seen: list[int] = []
    async with asyncio.timeout(10), sage.Environment("endless") as env:
        async for value in env.from_collection([0]).flat_map(naturals).filter(lambda x: x % 1000 == 999):
            seen.append(value)
            if len(seen) == 3:
                break
    assert seen == [999, 1999, 2999]


@pytest.mark.asyncio
async def test_an_endless_flat_map_without_any_output_does_not_stop_the_loop() -> None:
    def for_ever(_: int) -> Iterator[int]:
        while True:
            yield 0

    async with asyncio.timeout(10), sage.Environment("silent") as env:
        env.from_collection([0]).flat_map(for_ever).filter(bool).collect()
        job = await env.submit()
        for _ in range(20):
            await asyncio.sleep(0)
        assert job.status == "running"
        job.cancel()
        with pytest.raises(sage.JobCancelled):
            await job.wait()


@pytest.mark.asyncio
async def test_none_is_an_ordinary_value() -> None:
    async with sage.Environment("none", config={"batch.records": 2}) as env:
        out = env.from_collection([None, 1, None]).map(lambda x: x).filter(lambda x: True).flat_map(lambda x: [x, None]).collect()
        await env.execute()
    assert list(out) == [None, None, 1, None, None, None]


@pytest.mark.asyncio
async def test_a_source_that_gives_the_same_list_again_and_again_is_not_written_to() -> None:
    """A user's own lists stay the user's: nothing is appended to them while batches are merged."""
    rows = [1, 2, 3]

    class Same(sage.Source[int]):
        def __init__(self) -> None:
            self.left = 5

        async def read(self, limit: int) -> list[int] | None:
            return self.read_nowait(limit)

        def read_nowait(self, limit: int) -> list[int] | None:
            self.left -= 1
            return rows if self.left >= 0 else None

    async with sage.Environment("same") as env:
        out = env.from_source(Same()).map(lambda x: x, parallelism=2).collect()
        more = env.from_source(Same()).disable_chaining().collect()
        await env.execute()
    assert rows == [1, 2, 3]
    assert sorted(out) == sorted(rows * 5)
    assert list(more) == rows * 5


@pytest.mark.asyncio
async def test_a_batch_function_that_gives_its_own_list_is_not_written_to() -> None:
    constant = ["x"]
    async with sage.Environment("constant") as env:
        out = env.from_collection(range(6)).map_batch(lambda batch: constant, max_batch=1).map(str).disable_chaining().collect()
        raw = env.from_collection(range(6)).map_batch(lambda batch: constant, max_batch=1).disable_chaining().collect()
        await env.execute()
    assert constant == ["x"]
    assert list(out) == ["x"] * 6
    assert list(raw) == ["x"] * 6


# -- nothing waits without need ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_results_of_a_slow_function_flow_while_it_works() -> None:
    """What a function has done goes on at the end of the turn, not of the batch that happened to wait."""
    order: list[str] = []

    def slow(value: int) -> int:
        order.append("slow")
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        return value

    async with asyncio.timeout(20), sage.Environment("slow") as env:
        env.from_collection(range(300)).map(lambda x: x).disable_chaining().map(slow).sink(lambda x: order.append("sink"), parallelism=2)
        await env.execute()
    assert order.index("sink") < 150


@pytest.mark.asyncio
async def test_results_of_calls_flow_while_later_calls_wait() -> None:
    """With every call slot taken, what is complete must not wait in the task for what is not."""
    seen = asyncio.Event()

    async def call(value: int) -> int:
        if value:
            await seen.wait()  # only when the first result has arrived
        return value

    async with asyncio.timeout(20), sage.Environment("calls") as env:
        stream = env.from_collection(range(5)).map_async(call, concurrency=1)
        stream.sink(lambda x: seen.set(), parallelism=2)
        await env.execute()


@pytest.mark.asyncio
async def test_results_flow_while_a_later_record_waits_for_its_next_try() -> None:
    seen = asyncio.Event()
    tries = 0

    def flaky(value: int) -> int:
        nonlocal tries
        if value and not seen.is_set():
            tries += 1
            raise ConnectionError
        return value

    async with asyncio.timeout(20), sage.Environment("retries") as env:
        retry = sage.Retry(attempts=200, delay="1ms", max_delay="1ms")
        env.from_collection(range(5)).map(flaky, on_error=retry).sink(lambda x: seen.set(), parallelism=2)
        await env.execute()
    assert tries >= 1
