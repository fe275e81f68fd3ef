"""Sources and sinks that fail, and functions that raise what the event loop uses for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import sage_actor as sage


def picky(value: int) -> int:
    """Raises for multiples of five."""
    if value % 5 == 0:
        raise ValueError(f"no {value}")
    return value


DATA = list(range(1, 21))
GOOD = [x for x in DATA if x % 5]
FAST = sage.Retry(attempts=3, delay="1ms", max_delay="2ms", then="skip")


# -- a function that raises what the event loop uses for itself -------------------------------------------------------


def cancelled(value: Any) -> Any:
    raise asyncio.CancelledError("from the user")


async def cancelled_async(value: Any) -> Any:
    raise asyncio.CancelledError("from the user")


class CancelledOpen(sage.MapFunction[int, int]):
    async def open(self, context: sage.FunctionContext) -> None:
        raise asyncio.CancelledError("from the user")

    def map(self, value: int, /) -> int:
        return value


class CancelledSink(sage.Sink[int]):
    async def write(self, batch: Any) -> None:
        raise asyncio.CancelledError("from the user")


class CancelledSource(sage.Source[int]):
    async def read(self, limit: int) -> list[int] | None:
        raise asyncio.CancelledError("from the user")


async def cancelled_generator() -> AsyncIterator[int]:
    yield 1
    raise asyncio.CancelledError("from the user")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("describe", "operator"),
    [
        (lambda e: e.from_collection([1]).map(cancelled).collect(), "cancelled"),
        (lambda e: e.from_collection([1]).map(cancelled_async).collect(), "cancelled_async"),
        (lambda e: e.from_collection([1]).map(cancelled_async, ordered=False).collect(), "cancelled_async"),
        (lambda e: e.from_collection([1]).map_batch(cancelled_async).collect(), "cancelled_async"),
        (lambda e: e.from_collection([1]).map(CancelledOpen).collect(), "CancelledOpen"),
        (lambda e: e.from_collection([1]).sink(CancelledSink()), "CancelledSink"),
        (lambda e: e.from_collection([1]).sink(cancelled_async), "cancelled_async"),
        (lambda e: e.from_source(CancelledSource()).collect(), "CancelledSource"),
        (lambda e: e.from_source(cancelled_generator(), bounded=True).collect(), "async-iterable"),
    ],
)
async def test_a_cancelled_error_from_a_users_function_fails_the_job(describe: Any, operator: str) -> None:
    """It must neither hang the job nor end it as if all were well."""
    async with asyncio.timeout(10), sage.Environment("cancelled") as env:
        describe(env)
        job = await env.submit()
        with pytest.raises(sage.OperatorError, match="CancelledError"):
            await job.wait()
    assert job.status == "failed"


# -- sources ----------------------------------------------------------------------------------------------------------


def dies() -> Iterator[int]:
    yield from range(100)
    raise OSError("disk gone")


async def dies_async() -> AsyncIterator[int]:
    for i in range(100):
        yield i
    raise OSError("disk gone")


class Dies(sage.Source[int]):
    closed = 0

    def __init__(self, where: str = "read") -> None:
        self.where = where
        self.given = 0

    async def open(self, context: sage.FunctionContext) -> None:
        if self.where == "open":
            raise OSError("disk gone")

    async def read(self, limit: int) -> list[int] | None:
        if self.given == 100:
            if self.where == "read":
                raise OSError("disk gone")
            return None
        self.given += 1
        return [self.given - 1]

    def address(self, index: int) -> str:
        return f"line {index + 1}"

    async def close(self) -> None:
        Dies.closed += 1
        if self.where == "close":
            raise OSError("disk gone")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("source", "position"),
    [(dies, 100), (dies_async, 100), (lambda: Dies("read"), 100), (lambda: Dies("open"), 0), (lambda: Dies("close"), None)],
)
async def test_a_source_that_dies_fails_the_job_behind_its_records(source: Any, position: int | None) -> None:
    seen: list[int] = []
    Dies.closed = 0
    async with asyncio.timeout(10), sage.Environment("dies") as env:
        given = source()
        env.from_source(given, name="disk", bounded=True).map(seen.append).collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError, match="disk gone") as caught:
            await job.wait()
    assert caught.value.operator == "disk"
    assert isinstance(caught.value.__cause__, OSError)
    if position is not None:
        assert caught.value.position == position
        assert seen == list(range(position))
    if isinstance(given, Dies):
        assert Dies.closed == 1
        assert job.metrics()["errors"] >= (1 if given.where == "read" else 0)
    if position == 100 and isinstance(given, Dies):
        assert "line 101" in str(caught.value)


@pytest.mark.asyncio
async def test_a_source_that_gives_no_sequence_is_named() -> None:
    class Wrong(sage.Source[int]):
        async def read(self, limit: int) -> Any:
            return 5

    async with asyncio.timeout(10), sage.Environment("wrong") as env:
        env.from_source(Wrong()).collect()
        with pytest.raises(sage.OperatorError, match="Wrong"):
            await env.execute()


@pytest.mark.asyncio
async def test_a_source_that_gives_nothing_at_all_is_not_the_end() -> None:
    """An empty read is tried again, without stopping the loop."""

    class Slow(sage.Source[int]):
        turns = 0

        async def read(self, limit: int) -> list[int] | None:
            self.turns += 1
            return [] if self.turns < 5 else [7] if self.turns == 5 else None

    async with asyncio.timeout(10), sage.Environment("empty") as env:
        out = env.from_source(Slow()).collect()
        await env.execute()
    assert list(out) == [7]


# -- sinks ------------------------------------------------------------------------------------------------------------


class Store(sage.Sink[int]):
    """Fails where it is told to, as often as it is told to."""

    def __init__(self, where: str = "", times: int = 10**9) -> None:
        self.where = where
        self.times = times
        self.rows: list[int] = []
        self.events: list[str] = []

    def note(self, what: str) -> None:
        self.events.append(what)
        if what == self.where and self.times > 0:
            self.times -= 1
            raise OSError(f"{what} refused")

    async def open(self, context: sage.FunctionContext) -> None:
        self.note("open")

    async def write(self, batch: Any) -> None:
        self.note("write")
        self.rows.extend(batch)

    async def flush(self) -> None:
        self.note("flush")

    async def close(self) -> None:
        self.note("close")


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["open", "write", "flush", "close"])
async def test_a_sink_that_fails_fails_the_job_and_is_closed(where: str) -> None:
    store = Store(where)
    async with asyncio.timeout(10), sage.Environment("sinks") as env:
        env.from_collection([1]).sink(store, name="store")
        job = await env.submit()
        with pytest.raises(sage.OperatorError, match=f"{where} refused") as caught:
            await job.wait()
    assert caught.value.operator == "store"
    assert isinstance(caught.value.__cause__, OSError)
    assert store.events.count("close") == 1
    if where == "write":
        assert (caught.value.position, caught.value.value) == (0, "1")


@pytest.mark.asyncio
async def test_a_sink_is_retried_with_the_same_batch() -> None:
    store = Store("write", 2)
    async with sage.Environment("sinks") as env:
        env.from_collection(range(10)).sink(store, on_error=sage.Retry(attempts=3, delay="1ms"), name="store")
        job = await env.execute()
    assert store.rows == list(range(10))
    assert job.metrics()["operators"]["store"]["retried"] == 2
    assert job.metrics()["records_out"] == 10


@pytest.mark.parametrize("policy", ["skip", "dead_letter", sage.Retry(then="skip")], ids=str)
def test_a_sink_of_batches_cannot_skip_records_and_says_so_when_described(policy: Any) -> None:
    with pytest.raises(sage.GraphError, match=r"'Store'.*batches"):
        sage.Environment("sinks").from_collection([1]).sink(Store(), on_error=policy)


class Write(sage.SinkFunction[int]):
    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __deepcopy__(self, memo: object) -> Write:
        return self

    def write(self, value: int, /) -> None:
        self.rows.append(picky(value))


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["function", "class", "async"])
@pytest.mark.parametrize("policy", ["skip", "dead_letter", FAST], ids=str)
async def test_sink_functions_go_by_policy_per_record(form: str, policy: Any) -> None:
    rows: list[int] = []

    async def write_async(value: int) -> None:
        await asyncio.sleep(0)
        rows.append(picky(value))

    given: Any = {"function": lambda x: rows.append(picky(x)), "class": Write(rows), "async": write_async}[form]
    async with asyncio.timeout(10), sage.Environment("sinks") as env:
        env.from_collection(DATA).sink(given, on_error=policy, name="store")
        job = await env.execute()
    assert rows == GOOD
    row = job.metrics()["operators"]["store"]
    assert row["records_in"] == 20
    assert row["records_out"] == 16
    assert row["skipped"] + row["dead_letters"] == 4
    assert job.metrics()["records_out"] == 16


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["function", "async"])
async def test_a_failing_sink_function_names_the_record(form: str) -> None:
    async def write_async(value: int) -> None:
        picky(value)

    async with asyncio.timeout(10), sage.Environment("sinks") as env:
        env.from_collection(DATA).sink(picky if form == "function" else write_async, name="store")
        with pytest.raises(sage.OperatorError) as caught:
            await env.execute()
    assert (caught.value.operator, caught.value.position, caught.value.value) == ("store", 4, "5")
