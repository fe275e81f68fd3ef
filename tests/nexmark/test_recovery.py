"""Queries that crash again and again give the oracle's rows all the same: state, timers, windows and sessions come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb", reason="the oracle is DuckDB: pip install '.[test]'")

import sage_actor as sage
from benchmarks.nexmark.check import difference, expected_rows, oracle_of
from benchmarks.nexmark.events import Event
from benchmarks.nexmark.generator import Settings, generate
from benchmarks.nexmark.oracle import Oracle
from benchmarks.nexmark.partitioned_files import PartitionedFiles, read_partitions
from benchmarks.nexmark.queries import CONFIG, QUERIES
from sage_actor.testing import Simulation

EVENTS = generate(1500, Settings(seed=4, rate=15, group=50))
CRASHES = (400, 900, 1300, 1500)
"""Counted over all attempts; between them there are checkpoints."""


class Replayed(sage.Source[Event]):
    """Events a few at a time, from any place."""

    def __init__(self) -> None:
        self.place = 0

    async def read(self, limit: int) -> Sequence[Event] | None:
        await asyncio.sleep(0.03)  # of virtual time: checkpoints come between
        begin = self.place
        self.place = min(begin + min(limit, 16), len(EVENTS))
        return EVENTS[begin : self.place] or None

    def position(self) -> object:
        return self.place

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.place = position


class Crashing:
    """Raises at some records; it remembers over attempts."""

    def __init__(self) -> None:
        self.left = list(CRASHES)
        self.seen = 0

    def __call__(self, event: Event) -> Event:
        self.seen += 1
        if self.left and self.seen >= self.left[0]:
            self.left.pop(0)
            raise RuntimeError(f"on purpose, at record {self.seen}")
        return event

    def __deepcopy__(self, memo: object) -> Crashing:
        return self


def config(folder: Path) -> dict[str, Any]:
    return {"checkpoint.dir": str(folder), "checkpoint.every": 100, "batch.records": 16, "restart.delay": 0, "restart.jitter": 0, **CONFIG}


async def rows_over_crashes(name: str, folder: Path, parallelism: int) -> list[Any]:
    crashing = Crashing()
    async with sage.Environment(f"crashing {name}", config=config(folder / "checkpoints"), parallelism=parallelism) as env:
        answers = QUERIES[name].on(env, env.from_source(Replayed).map(crashing))
        if name == "q10":
            answers.sink(PartitionedFiles, path=str(folder / "files"))
            found = None
        else:
            found = answers.collect()
        job = await env.submit()
        await job.wait()
    assert not crashing.left
    assert job.attempts == len(CRASHES) + 1
    assert crashing.seen < len(EVENTS) + len(CRASHES) * 300, "it began from checkpoints, not anew"
    if found is not None:
        return QUERIES[name].rows(found)
    rows, unmarked = read_partitions(folder / "files")
    assert not unmarked[:-1], "whatever became of the job, a minute that is over is marked"
    return rows


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return oracle_of(EVENTS)


# One of those that keep nothing; all that keep something, but for q12, whose clock is not the simulation's.
@pytest.mark.parametrize("name", ["q1", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q13", "q15", "q18", "q19", "q20"])
def test_rows_are_right_after_crashes(name: str, tmp_path: Path, oracle: Oracle) -> None:
    found = Simulation(0).run(lambda: rows_over_crashes(name, tmp_path, 1))
    assert not difference(found, expected_rows(name, oracle))


@pytest.mark.parametrize("name", ["q4", "q5", "q8", "q11", "q20"])
def test_rows_are_right_after_crashes_of_many_tasks(name: str, tmp_path: Path, oracle: Oracle) -> None:
    found = Simulation(1).run(lambda: rows_over_crashes(name, tmp_path, 3))
    assert not difference(found, expected_rows(name, oracle))
