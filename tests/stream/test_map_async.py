"""Many calls in flight: their bound, their order, their ends."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage


class Calls:
    """A function whose calls wait until the test lets them go."""

    def __init__(self) -> None:
        self.waiting: dict[Any, asyncio.Future[None]] = {}
        self.started: list[Any] = []
        self.cancelled: list[Any] = []
        self.most = 0

    async def __call__(self, value: Any) -> Any:
        self.started.append(value)
        future = self.waiting[value] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.waiting))
        try:
            await future
        except asyncio.CancelledError:
            self.cancelled.append(value)
            raise
        finally:
            del self.waiting[value]
        return value * 10

    def __deepcopy__(self, memo: object) -> Calls:
        return self

    async def until_started(self, number: int) -> None:
        async with asyncio.timeout(10):
            while len(self.started) < number:  # noqa: ASYNC110
                await asyncio.sleep(0)

    def release(self, *values: Any) -> None:
        for value in values:
            self.waiting[value].set_result(None)


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.rule("F31")
@pytest.mark.asyncio
async def test_no_more_than_concurrency_in_flight_or_unemitted() -> None:
    calls, out = Calls(), []
    async with asyncio.timeout(20), sage.Environment("bound") as env:
        env.from_collection(range(10)).map_async(calls, concurrency=3).sink(out.append)
        job = await env.submit()
        await calls.until_started(3)
        await settle()
        assert calls.started == [0, 1, 2]
        calls.release(1, 2)  # complete, but not emitted: 0 goes first
        await settle()
        assert calls.started == [0, 1, 2]
        assert out == []
        calls.release(0)
        await calls.until_started(6)
        await settle()
        assert out == [0, 10, 20]
        assert calls.started == [0, 1, 2, 3, 4, 5]
        for start in (3, 6, 9):
            await calls.until_started(min(start + 3, 10))
            calls.release(*list(calls.waiting))
        await job.wait()
    assert out == [10 * x for x in range(10)]
    assert calls.most == 3


@pytest.mark.rule("F32")
@pytest.mark.asyncio
async def test_unordered_results_come_as_they_complete() -> None:
    calls, out = Calls(), []
    async with asyncio.timeout(20), sage.Environment("unordered") as env:
        env.from_collection(range(6)).map_async(calls, concurrency=3, ordered=False).sink(out.append)
        job = await env.submit()
        await calls.until_started(3)
        calls.release(2)
        await calls.until_started(4)
        await settle()
        assert out == [20]
        calls.release(3)
        await calls.until_started(5)
        calls.release(0)
        await calls.until_started(6)
        await settle()
        assert out == [20, 30, 0]
        calls.release(*list(calls.waiting))
        await job.wait()
    assert sorted(out) == [10 * x for x in range(6)]


@pytest.mark.rule("F33a")
@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.asyncio
async def test_calls_of_one_key_run_one_at_a_time_in_order(parallelism: int) -> None:
    running: dict[str, int] = defaultdict(int)
    order: dict[str, list[int]] = defaultdict(list)
    together = 0
    rng = random.Random(7)

    async def call(record: tuple[str, int]) -> tuple[str, int]:
        nonlocal together
        key, number = record
        running[key] += 1
        assert running[key] == 1
        together = max(together, sum(running.values()))
        order[key].append(number)
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        running[key] -= 1
        return record

    data = [(rng.choice("abcd"), i) for i in range(200)]
    async with asyncio.timeout(20), sage.Environment("keyed", parallelism=parallelism) as env:
        out = env.from_collection(data).key_by(lambda r: r[0]).map_async(call, concurrency=20, ordered=False).collect()
        await env.execute()
    assert sorted(out) == sorted(data)
    assert together > 1
    for key in "abcd":
        assert order[key] == [i for k, i in data if k == key]
        assert [r for r in out if r[0] == key] == [r for r in data if r[0] == key]


@settings(max_examples=40, deadline=None)
@given(
    data=st.lists(st.integers(0, 9), max_size=40),
    concurrency=st.integers(1, 6),
    ordered=st.booleans(),
    batch=st.integers(1, 5),
    policy=st.sampled_from(["skip", "dead_letter"]),
)
@pytest.mark.rule("F34")
def test_any_schedule_answers_each_record_once(data: list[int], concurrency: int, ordered: bool, batch: int, policy: Any) -> None:
    async def call(value: int) -> int:
        for _ in range(value % 4):
            await asyncio.sleep(0)
        if value == 7:
            raise ValueError(value)
        return value

    async def run() -> list[int]:
        async with asyncio.timeout(20), sage.Environment("any", config={"batch.records": batch, "buffer.records": 1}) as env:
            out = env.from_collection(data).map_async(call, concurrency=concurrency, ordered=ordered, on_error=policy).collect()
            await env.execute()
        return list(out)

    out = asyncio.run(run())
    expected = [x for x in data if x != 7]
    assert (out if ordered else sorted(out)) == (expected if ordered else sorted(expected))


@pytest.mark.rule("F34")
@pytest.mark.asyncio
@pytest.mark.parametrize("timeout", [0.01, "10ms"])
async def test_a_call_past_its_timeout_fails_by_policy(timeout: Any) -> None:
    async def call(value: int) -> int:
        if value == 2:
            await asyncio.Event().wait()
        return value

    async with asyncio.timeout(20), sage.Environment("late") as env:
        good = env.from_collection([1, 2, 3]).map(call, timeout=timeout, on_error="dead_letter", name="call")
        letters, out = good.dead_letters().collect(), good.collect()
        await env.execute()
    assert list(out) == [1, 3]
    assert [(d.value, type(d.error), str(d.error)) for d in letters] == [(2, TimeoutError, "no result within 0.01 s")]


@pytest.mark.asyncio
async def test_plain_functions_run_on_threads_side_by_side() -> None:
    meeting = threading.Barrier(4, timeout=10)
    names: set[str] = set()

    def call(value: int) -> int:
        names.add(threading.current_thread().name)
        meeting.wait()  # only passes when four run at once
        return value

    async with asyncio.timeout(20), sage.Environment("threads") as env:
        out = env.from_collection(range(8)).map(call, concurrency=4).collect()
        await env.execute()
    assert list(out) == list(range(8))
    assert threading.current_thread().name not in names


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["cancel", "failure"])
async def test_the_end_of_the_job_cancels_what_is_in_flight(how: str) -> None:
    calls = Calls()

    async def call(value: int) -> int:
        if how == "failure" and value == 2:
            raise ValueError("two")
        return int(await calls(value))

    async with asyncio.timeout(20), sage.Environment("ends") as env:
        env.from_collection([2, 0, 1] if how == "failure" else [0, 1]).map_async(call, concurrency=3, ordered=True).collect()
        job = await env.submit()
        if how == "cancel":
            await calls.until_started(2)
            job.cancel()
        with pytest.raises(sage.JobCancelled if how == "cancel" else sage.OperatorError):
            await job.wait()
        assert calls.waiting == {}
        assert sorted(calls.cancelled) == sorted(calls.started)


@pytest.mark.asyncio
async def test_a_class_is_opened_called_and_closed() -> None:
    events: list[str] = []

    class Client(sage.MapFunction[int, int]):
        async def open(self, context: sage.FunctionContext) -> None:
            events.append("open")

        async def map(self, value: int, /) -> int:  # type: ignore[override]
            await asyncio.sleep(0)
            return value + 1

        async def close(self) -> None:
            events.append("close")

    async with asyncio.timeout(20), sage.Environment("client") as env:
        out = env.from_collection(range(5)).map(Client).map_async(Client).collect()
        await env.execute()
    assert list(out) == [2, 3, 4, 5, 6]
    assert sorted(events) == ["close", "close", "open", "open"]


@pytest.mark.asyncio
async def test_stop_waits_for_what_is_in_flight() -> None:
    calls, out = Calls(), []

    async def numbers() -> Any:
        for i in range(2):
            yield i
        await asyncio.Event().wait()

    async with asyncio.timeout(20), sage.Environment("drained") as env:
        env.from_source(numbers()).map_async(calls).sink(out.append)
        job = await env.submit()
        await calls.until_started(2)
        job.stop()
        await settle()
        assert job.status == "stopping"
        calls.release(0, 1)
        await job.wait()
    assert out == [0, 10]
    assert job.status == "finished"


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "3"])
def test_a_concurrency_that_is_none_is_refused(concurrency: Any) -> None:
    with pytest.raises(sage.GraphError, match="concurrency"):
        sage.Environment("bad").from_collection([1]).map_async(abs, concurrency=concurrency)
