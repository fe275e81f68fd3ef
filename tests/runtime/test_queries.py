"""Reading the state of a running job: every kind of state, wherever its key lives; what is not there; and what is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction
from sage_actor.errors import JobError, StateError, UnstableKey
from sage_actor.runtime.job import Job
from sage_actor.testing import Simulation

WORDS = [f"w{n % 7}" for n in range(70)]


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


class Everything(KeyedProcessFunction[str, str]):
    """One state of every kind."""

    def open(self, context: FunctionContext) -> None:
        assert isinstance(context, KeyedContext)
        state = context.state
        self.last = state.value("last", default="none yet")
        self.all = state.list("all")
        self.lengths = state.map("lengths")
        self.longest = state.reducing("longest", max)
        self.mean = state.aggregating("mean", Mean())
        self.brief = state.value("brief", ttl="10s")
        self.never = state.value("never", default=17)

    def process(self, value: str, context: KeyedContext) -> list[str]:
        self.last.set(value)
        self.all.append(value)
        self.lengths[value] = len(value)
        self.longest.add(value)
        self.mean.add(len(value))
        self.brief.set(value)
        return [value]


def environment(name: str, backend: str = "local", parallelism: int = 2, **config: Any) -> sage.Environment:
    settings = {"batch.records": 8, **config}
    return sage.Environment(name, backend=backend, parallelism=parallelism, config=settings)


async def reaches(job: Job, operator: str, state: str, key: Any, expected: Any) -> None:
    """Ask until the answer is the expected one: then all records have been handled."""
    while (found := await job.query(operator, state, key)) != expected:
        assert not job.done, found
        await asyncio.sleep(0)


async def ended(job: Job) -> None:
    job.cancel()
    with pytest.raises(JobError):
        await job.wait()


@pytest.mark.parametrize("backend", ["local", "process"])
@pytest.mark.asyncio
async def test_every_kind_of_state_can_be_read_wherever_its_key_lives(backend: str) -> None:
    records = [(key, word) for word in ("a", "ccc", "bb") for key in range(10)]
    async with asyncio.timeout(50), environment("kinds", backend, 3) as env:
        stream = env.from_source(Endless, records).key_by(lambda record: record[0])
        stream.map(lambda record: record).process(Everything) if False else None
        stream.process(Pairs, name="kinds").uid("kinds-uid").print_nothing() if False else None
        out = stream.process(Pairs, name="kinds").uid("kinds-uid")
        out.sink(drop)
        job = await env.submit()
        for key in range(10):
            await reaches(job, "kinds", "last", key, "bb")
            assert await job.query("kinds-uid", "all", key) == ["a", "ccc", "bb"]
            assert await job.query("kinds", "lengths", key) == {"a": 1, "ccc": 3, "bb": 2}
            assert await job.query("kinds", "longest", key) == "ccc"
            assert await job.query("kinds", "mean", key) == 2.0
            assert await job.query("kinds", "never", key) is None
            assert await job.query("kinds", "never", key, default="x") == "x"
        assert await job.query("kinds", "last", 99) is None
        assert await job.query("kinds", "lengths", 99, default={}) == {}
        await ended(job)
