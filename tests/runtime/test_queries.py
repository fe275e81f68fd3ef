"""Reading the state of a running job: every kind of state, wherever its key lives; what is not there; and what is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction
from sage_actor.errors import JobError, StateError, UnstableKey
from sage_actor.runtime.job import Job
from sage_actor.stream.environment import Environment
from sage_actor.testing import Simulation

Pair = tuple[int, str]
LIFETIME = 10.0


class Endless(sage.Source[Any]):
    """The given records, and then nothing: the job goes on until it is cancelled."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.records = records
        self.place = 0

    async def read(self, limit: int) -> Sequence[Any] | None:
        if self.place >= len(self.records):
            await asyncio.Event().wait()
        batch = self.records[self.place : self.place + limit]
        self.place += len(batch)
        return batch

    def position(self) -> object:
        return self.place

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.place = position


class Mean(sage.AggregateFunction[int, list[int], float]):
    """A mutable accumulator."""

    def create(self) -> list[int]:
        return [0, 0]

    def add(self, accumulator: list[int], value: int, /) -> list[int]:
        accumulator[0] += value
        accumulator[1] += 1
        return accumulator

    def result(self, accumulator: list[int], /) -> float:
        return accumulator[0] / accumulator[1]


class Everything(KeyedProcessFunction[Pair, Pair]):
    """One state of every kind."""

    def open(self, context: FunctionContext) -> None:
        assert isinstance(context, KeyedContext)
        state = context.state
        self.last = state.value("last", default="none yet")
        self.all = state.list("all")
        self.lengths = state.map("lengths")
        self.longest = state.reducing("longest", max)
        self.mean = state.aggregating("mean", Mean())
        self.brief = state.value("brief", ttl=LIFETIME)
        self.briefs = state.map("briefs", ttl=LIFETIME)
        self.never = state.value("never", default=17)

    def process(self, value: Pair, context: KeyedContext) -> list[Pair]:
        _, word = value
        self.all.append(word)
        self.lengths[word] = len(word)
        self.longest.add(word)
        self.mean.add(len(word))
        self.brief.set(word)
        self.briefs[word] = len(word)
        self.last.set(word)
        return [value]


def first(record: Pair) -> int:
    return record[0]


def word_length(record: Pair) -> int:
    return len(record[1])


def drop(record: object) -> None:
    """Reads a stream."""


def environment(name: str, backend: str = "local", parallelism: int = 2, **config: Any) -> Environment:
    settings = {"batch.records": 8, **{key.replace("_", "."): value for key, value in config.items()}}
    return Environment(name, backend=backend, parallelism=parallelism, config=settings)


async def reaches(job: Job, operator: str, state: str, key: Any, expected: Any) -> None:
    """Ask until the answer is the expected one: then all records of the key have been handled."""
    while (found := await job.query(operator, state, key)) != expected:
        assert not job.done, found
        await asyncio.sleep(0)


async def cancelled(job: Job) -> None:
    job.cancel()
    with pytest.raises(JobError):
        await job.wait()


RECORDS: list[Pair] = [(key, word) for word in ("a", "ccc", "bb") for key in range(10)]


@pytest.mark.parametrize("state_backend", ["memory", "rocksdb"])
@pytest.mark.parametrize("backend", ["local", "process"])
@pytest.mark.asyncio
async def test_every_kind_of_state_can_be_read_wherever_its_key_lives(backend: str, state_backend: str) -> None:
    async with asyncio.timeout(50), environment("kinds", backend, 3, state_backend=state_backend) as env:
        env.from_source(Endless, RECORDS).key_by(first).process(Everything, name="kinds").uid("the kinds").sink(drop)
        job = await env.submit()
        for key in range(10):
            await reaches(job, "kinds", "last", key, "bb")
            assert await job.query("the kinds", "all", key) == ["a", "ccc", "bb"]
            assert await job.query("kinds", "lengths", key) == {"a": 1, "ccc": 3, "bb": 2}
            assert await job.query("kinds", "longest", key) == "ccc"
            assert await job.query("kinds", "mean", key) == 2.0
            assert await job.query("kinds", "brief", key) == "bb"
            assert await job.query("kinds", "never", key) is None
            assert await job.query("kinds", "never", key, default="x") == "x"
        assert await job.query("kinds", "last", 99) is None
        assert await job.query("kinds", "lengths", 99, default={}) == {}
        await cancelled(job)


@pytest.mark.parametrize(
    ("backend", "config"),
    [
        ("local", {}),
        ("local", {"checkpoint_interval": "1h"}),
        ("process", {"checkpoint_interval": "1h"}),
        ("local", {"checkpoint_every": 7, "state_backend": "rocksdb"}),
    ],
)
@pytest.mark.asyncio
async def test_folds_are_read_under_the_name_fold(backend: str, config: dict[str, Any]) -> None:
    async with asyncio.timeout(50), environment("folds", backend, 3, **config) as env:
        stream = env.from_source(Endless, RECORDS).key_by(first)
        stream.count(name="count").sink(drop)
        stream.sum(word_length, name="sum").sink(drop)
        stream.reduce(max, name="reduce").sink(drop)
        stream.map(lambda record: len(record[1])).key_by(lambda n: 0).aggregate(Mean, name="aggregate").sink(drop)
        job = await env.submit()
        for key in range(10):
            await reaches(job, "count", "fold", key, 3)
            await reaches(job, "sum", "fold", key, 6)
            await reaches(job, "reduce", "fold", key, (key, "ccc"))
        await reaches(job, "aggregate", "fold", 0, 2.0)
        assert await job.query("count", "fold", 10) is None
        assert await job.query("aggregate", "fold", "elsewhere", default=-1) == -1
        with pytest.raises(StateError, match=r"operator 'count', state 'last': .* has 'fold'"):
            await job.query("count", "last", 1)
        await cancelled(job)


@pytest.mark.asyncio
async def test_an_answer_is_a_copy() -> None:
    async with asyncio.timeout(20), environment("copy") as env:
        env.from_source(Endless, RECORDS).key_by(first).process(Everything, name="kinds").sink(drop)
        job = await env.submit()
        await reaches(job, "kinds", "last", 1, "bb")
        for state in ("all", "lengths"):
            found = await job.query("kinds", state, 1)
            before = found.copy()
            found.clear()
            assert await job.query("kinds", state, 1) == before
        await cancelled(job)


@pytest.mark.rule("F39")
def test_what_has_expired_is_not_returned() -> None:
    async def main() -> None:
        async with environment("expired") as env:
            env.from_source(Endless, RECORDS).key_by(first).process(Everything, name="kinds").sink(drop)
            job = await env.submit()
            await reaches(job, "kinds", "last", 1, "bb")
            assert await job.query("kinds", "briefs", 1) == {"a": 1, "ccc": 3, "bb": 2}
            await asyncio.sleep(LIFETIME - 1)  # of virtual time
            assert await job.query("kinds", "brief", 1) == "bb"
            await asyncio.sleep(LIFETIME)
            assert await job.query("kinds", "brief", 1, default="gone") == "gone"
            assert await job.query("kinds", "briefs", 1) is None
            assert await job.query("kinds", "last", 1) == "bb"
            await cancelled(job)

    Simulation(0).run(main)


@pytest.mark.asyncio
async def test_what_is_not_there_is_named_with_what_is() -> None:
    async with asyncio.timeout(20), environment("missing") as env:
        env.from_source(Endless, RECORDS, name="numbers").key_by(first).process(Everything, name="kinds").sink(drop, name="end")
        job = await env.submit()
        with pytest.raises(StateError, match="no operator of that name or uid; it has 'numbers', 'kinds', 'end'"):
            await job.query("kind", "last", 1)
        with pytest.raises(
            StateError, match="operator 'kinds', state 'lost': there is no state of that name; the operator has 'all', 'brief'"
        ):
            await job.query("kinds", "lost", 1)
        with pytest.raises(StateError, match="state 'last': a source operator has no state that can be queried"):
            await job.query("numbers", "last", 1)
        with pytest.raises(UnstableKey):
            await job.query("kinds", "last", [1])
        await cancelled(job)
        with pytest.raises(StateError, match="does not run"):
            await job.query("kinds", "last", 1)


class Stubborn:
    """A value that cannot leave its process."""

    def __reduce__(self) -> str:
        raise TypeError("not outside")


class Keeps(KeyedProcessFunction[Pair, Pair]):
    """Keeps what cannot be sent."""

    def open(self, context: FunctionContext) -> None:
        assert isinstance(context, KeyedContext)
        self.kept = context.state.value("kept")

    def process(self, value: Pair, context: KeyedContext) -> list[Pair]:
        self.kept.set(Stubborn())
        return [value]


@pytest.mark.asyncio
async def test_a_value_that_cannot_be_sent_is_an_answer_not_a_failure() -> None:
    async with asyncio.timeout(20), environment("stubborn") as env:
        env.from_source(Endless, RECORDS).key_by(first).process(Keeps, name="keeps").sink(drop)
        job = await env.submit()
        with pytest.raises(StateError, match="operator 'keeps', state 'kept': the value cannot be read: TypeError: not outside"):
            await reaches(job, "keeps", "kept", 1, Stubborn)
        assert job.status == "running"
        await cancelled(job)


class Opens(KeyedProcessFunction[Pair, Pair]):
    """Fails to open."""

    def open(self, context: FunctionContext) -> None:
        assert isinstance(context, KeyedContext)
        context.state.value("last")
        raise ValueError("cannot open")

    def process(self, value: Pair, context: KeyedContext) -> list[Pair]:
        return [value]


@pytest.mark.asyncio
async def test_a_question_of_an_attempt_that_fails_is_refused() -> None:
    async with asyncio.timeout(20), environment("unopened") as env:
        env.from_source(Endless, RECORDS).key_by(first).process(Opens, name="opens").sink(drop)
        job = await env.submit()
        with pytest.raises(StateError, match="ended before the query was answered"):
            await job.query("opens", "last", 1)
        with pytest.raises(JobError, match="cannot open"):
            await job.wait()


@pytest.mark.asyncio
async def test_a_thread_may_ask_and_the_loop_of_the_job_may_not(tmp_path: Path) -> None:
    async with asyncio.timeout(20), environment("threads", checkpoint_interval="1h") as env:
        env.from_source(Endless, RECORDS).key_by(first).process(Everything, name="kinds").sink(drop)
        job = await env.submit()
        await reaches(job, "kinds", "last", 1, "bb")
        assert await asyncio.to_thread(job.query_in_thread, "kinds", "all", 1) == ["a", "ccc", "bb"]
        with pytest.raises(StateError, match="no operator of that name"):
            await asyncio.to_thread(job.query_in_thread, "nobody", "all", 1)
        with pytest.raises(JobError, match="would wait for its own event loop"):
            job.query_in_thread("kinds", "all", 1)
        place = await asyncio.to_thread(lambda: job.savepoint_in_thread(str(tmp_path / "kept"), stop=True))
        assert place
        await job.wait()
        with pytest.raises(StateError, match="does not run"):
            await asyncio.to_thread(job.query_in_thread, "kinds", "all", 1)


def test_a_job_whose_loop_is_gone_answers_nobody() -> None:
    async def main() -> Job:
        async with environment("gone") as env:
            env.from_collection(RECORDS).key_by(first).count(name="count").sink(drop)
            return await env.execute()

    job = asyncio.run(main())
    with pytest.raises(JobError, match="has ended"):
        job.query_in_thread("count", "fold", 1)
