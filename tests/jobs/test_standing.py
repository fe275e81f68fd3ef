"""How a dataflow stands while it restarts and reads its state, in values and in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar

import pytest

import sage_actor as sage
from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import JobError
from sage_actor.jobs.standing import in_words, size_in_words, standing
from sage_actor.ports import current_clock
from sage_actor.runtime.job import Job
from sage_actor.stream.environment import Environment
from sage_actor.testing import Simulation
from sage_actor.testing.simulated_disk import SimulatedDisk


class Numbers(sage.Source[int]):
    """0, 1, 2, ... for ever, a few at a time. It opens when it is let."""

    let: ClassVar[asyncio.Event]
    step: ClassVar[float] = 0.01  # of virtual time

    def __init__(self) -> None:
        self.place = 0

    async def open(self, context: FunctionContext) -> None:
        await self.let.wait()

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.step)
        self.place += 10
        return range(self.place - 10, self.place)

    def position(self) -> object:
        return self.place

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.place = position


class FailsOnce:
    """Raises at 500, once in its life, which is longer than an attempt."""

    failed: ClassVar[bool]

    def __call__(self, n: int) -> int:
        if n == 500 and not self.failed:
            type(self).failed = True
            Numbers.let.clear()
            raise ValueError("at 500")
        return n


async def until(true: Callable[[], object]) -> None:
    while True:
        if true():
            return
        await asyncio.sleep(Numbers.step)


async def main() -> None:
    Numbers.let, FailsOnce.failed = asyncio.Event(), False
    asyncio.get_running_loop().sage_disk = SimulatedDisk(Random(0), current_clock())  # type: ignore[attr-defined]
    config = {"checkpoint.dir": "/checkpoints", "checkpoint.interval": "100ms", "restart.delay": "5s", "restart.jitter": 0}
    async with Environment("stands", config=config) as env:
        env.from_source(Numbers, bounded=False, name="numbers").map(FailsOnce(), name="fails").key_by(
            lambda n: n % 3
        ).count().set_parallelism(2).sink(lambda pair: None)
        job = await env.submit()
        await until(lambda: job.restoring is not None)
        assert in_words(job).startswith("starting: ")
        Numbers.let.set()
        await until(lambda: job.status == "running" and job.restoring is None)
        assert in_words(job) == "running"
        await until(lambda: job.status == "restarting")
        assert in_words(job) == f"restarting after {job.latest_error} (attempt 2)"
        assert "operator 'fails', source position 500: ValueError: at 500" in in_words(job)
        assert standing(job)["restoring"] is None
        await until(lambda: job.restoring is not None and job.restoring.opened == 2)
        told = standing(job)
        assert told["restoring"] is not None
        assert told["restoring"]["tasks"] == 3
        assert told["restoring"]["checkpoint"] == told["restored_from"] == job.checkpoint_counters.newest
        assert told["restoring"]["bytes"] > 0
        assert in_words(job) == f"restoring state: 2 of 3 tasks, {size_in_words(told['restoring']['bytes'])}"
        assert "at 500" in told["latest_error"]
        assert json.loads(json.dumps(told))["attempts"] == 2
        completed = job.checkpoint_counters.completed
        Numbers.let.set()
        await until(lambda: job.checkpoint_counters.completed > completed)
        await ends(job)


async def ends(job: Job) -> None:
    job.cancel()
    with pytest.raises(JobError):
        await job.wait()
    assert job.restoring is None
    assert in_words(job) == "cancelled"


def test_a_job_that_restarts_says_why_and_how_far_it_is() -> None:
    Simulation(0).run(main)


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1234, "1.2 kB"),
        (9_960, "10 kB"),
        (999_400, "999 kB"),
        (999_600, "1.0 MB"),
        (120_000_000, "120 MB"),
        (5e15, "5,000 TB"),
    ],
)
def test_sizes(nbytes: float, words: str) -> None:
    assert size_in_words(nbytes) == words
