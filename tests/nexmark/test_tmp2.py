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
from benchmarks.nexmark.partitioned_files import PartitionedFiles, read_partitions
from benchmarks.nexmark.queries import CONFIG, QUERIES
from sage_actor.testing import Simulation

EVENTS = generate(1500, Settings(seed=4, rate=25, group=50))
CRASHES = (400, 900, 1300, 1500)
"""Counted over all attempts; between them there are checkpoints."""


class Replayed(sage.Source[Event]):
    """Events a few at a time, from any place."""

    def __init__(self) -> None:
        self.place = 0

    async def read(self, limit: int) -> Sequence[Event] | None:
        await asyncio.sleep(0.01)  # of virtual time: checkpoints come between
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
    if found is not None:
        return QUERIES[name].rows(found)
    rows, unmarked = read_partitions(folder / "files")
    assert not unmarked
    return rows


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("name", [name for name in QUERIES if name != "q12"])
def test_rows_are_right_after_crashes(name: str, parallelism: int, tmp_path: Path) -> None:
    if name == "q10" and parallelism > 1:
        pytest.skip("its marker is for one task")
    found = Simulation(0).run(lambda: rows_over_crashes(name, tmp_path, parallelism))
    assert not difference(found, expected_rows(name, oracle_of(EVENTS)))
