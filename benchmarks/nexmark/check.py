"""One query on our engine and by the oracle, over the same events: are the rows the same?"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sage_actor as sage
from benchmarks.nexmark.clocked_source import ClockedEvents, time_of_seq
from benchmarks.nexmark.events import Event
from benchmarks.nexmark.joins import SIDE
from benchmarks.nexmark.oracle import Oracle
from benchmarks.nexmark.partitioned_files import PartitionedFiles, read_partitions
from benchmarks.nexmark.queries import CONFIG, QUERIES
from benchmarks.sinks import Keeping
from sage_actor.ports import offload

__all__ = ["difference", "expected_rows", "oracle_of", "our_rows", "standing"]

Row = tuple[Any, ...]


def oracle_of(events: Sequence[Event]) -> Oracle:
    """The events in DuckDB, with q13's side table."""
    return Oracle(events, SIDE)


async def our_rows(name: str, events: Sequence[Event], *, parallelism: int = 1) -> list[Row]:
    """What the query comes to on our engine, as the oracle's rows."""
    query = QUERIES[name]
    sink = Keeping()
    if name == "q12":
        return query.rows(await with_our_clock(events))
    if name == "q10":
        return await rows_in_files(events)
    async with sage.Environment(f"nexmark {name}", parallelism=parallelism, config=CONFIG) as env:
        query.on(env, env.from_collection(events)).sink(sink, parallelism=1)
        await env.execute()
    return query.rows(sink.all())


async def rows_in_files(events: Sequence[Event]) -> list[Row]:
    """What q10 has made visible; every folder must be marked as complete."""
    folder = tempfile.mkdtemp()
    try:
        async with sage.Environment("nexmark q10", config=CONFIG) as env:
            QUERIES["q10"].on(env, env.from_collection(events)).sink(PartitionedFiles, path=folder)
            await env.execute()
        rows, unmarked = await offload(partial(read_partitions, Path(folder)))
        assert not unmarked, f"q10: no marker in {unmarked}"
        return rows
    finally:
        await offload(partial(shutil.rmtree, folder))


async def with_our_clock(events: Sequence[Event]) -> list[Any]:
    """q12 with a clock that goes on with the events."""
    source = ClockedEvents(events)
    sink = Keeping()
    with source.clock_in_force():
        async with sage.Environment("nexmark q12", config=CONFIG) as env:
            QUERIES["q12"].on(env, env.from_source(source)).sink(sink)
            await env.execute()
    return sink.all()


def expected_rows(name: str, oracle: Oracle) -> list[Row]:
    """What the oracle says."""
    return oracle.answer(name, time_of_seq() if name == "q12" else "")


def standing(name: str, rows: Sequence[Row]) -> list[Row]:
    """What stands at the end of rows in the oracle's form: all, or of an updating query the last one of each key."""
    columns = QUERIES[name].key_columns
    return list({row[:columns]: row for row in rows}.values()) if columns else list(rows)


def difference(ours: Sequence[Row], expected: Sequence[Row]) -> str:
    """What is missing and what is too much; empty if the rows are the same, each as often."""
    have, want = Counter(ours), Counter(expected)
    if have == want:
        return ""
    missing, extra = want - have, have - want
    return (
        f"{len(ours)} rows for {len(expected)}: {missing.total()} missing, as {sorted(missing)[:3]}; "
        f"{extra.total()} too many, as {sorted(extra)[:3]}"
    )
