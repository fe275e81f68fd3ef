"""Windows through the face: whole dataflows, any parallelism and batch size, and what is refused while one is described."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.triggers import CountTrigger
from sage_actor.dataflow.watermarks import BoundedDisorder, Monotonic
from sage_actor.dataflow.windows import Count, Global, Session, Sliding, Tumbling, WindowResult
from sage_actor.errors import GraphError

Event = tuple[str, int, int]


def disordered(count: int, disorder: int) -> list[Event]:
    """Never out of order by more than `disorder`, so that nothing is late."""
    chance = random.Random(7)
    return [(f"key{chance.randrange(20)}", i * 3 - chance.randrange(disorder), i) for i in range(count)]


async def run_all(events: list[Event], *, parallelism: int, batch: int) -> dict[str, list[Any]]:
    async with sage.Environment("windows", config={"batch.records": batch}) as env:
        keyed = (
            env.from_collection(events)
            .assign_timestamps(lambda e: e[1], BoundedDisorder(50))
            .key_by(lambda e: e[0])
            .set_parallelism(parallelism)
        )
        results: dict[str, Any] = {
            "tumbling": keyed.window(Tumbling(100)).sum(lambda e: e[2]).collect(),
            "sliding": keyed.window(Sliding(100, every=30)).count().collect(),
            "session": keyed.window(Session(gap=60)).max(lambda e: e[2]).collect(),
            "apply": keyed.window(Session(gap=60)).apply(lambda key, span, records: sorted(r[2] for r in records)).collect(),
        }
        await env.execute()
    return {name: sorted(collected) for name, collected in results.items()}


@pytest.mark.asyncio
@pytest.mark.rule("F19a")
async def test_neither_parallelism_nor_batch_size_changes_a_result() -> None:
    events = disordered(1500, 50)
    expected: dict[tuple[str, int], int] = defaultdict(int)
    for key, time, value in events:
        expected[key, time // 100 * 100] += value
    first = await run_all(events, parallelism=1, batch=1000)
    assert {(r.key, r.start): r.value for r in first["tumbling"]} == expected
    assert sum(len(r.value) for r in first["apply"]) == len(events)
    assert await run_all(events, parallelism=4, batch=7) == first
    assert await run_all(events, parallelism=1, batch=1) == first


@pytest.mark.asyncio
async def test_late_records_go_aside_and_results_have_names_and_places() -> None:
    late: OutputTag[Event] = OutputTag("late")
    events = [("a", 1_000, 1), ("a", 12_000, 2), ("a", 500, 3), ("a", 25_000, 4)]
    async with sage.Environment("late") as env:
        keyed = env.from_collection(events).assign_timestamps(lambda e: e[1], Monotonic()).key_by(lambda e: e[0])
        sums = keyed.window(Tumbling("10s")).late_output(late).sum(lambda e: e[2])
        results, aside = sums.collect(), sums.side_output(late).collect()
        updated = keyed.window(Tumbling("10s")).allowed_lateness("20s").sum(lambda e: e[2]).collect()
        await env.execute()
    assert list(results) == [("a", 0, 10_000, 1), ("a", 10_000, 20_000, 2), ("a", 20_000, 30_000, 4)]
    assert list(aside) == [("a", 500, 3)]
    assert [r.value for r in updated] == [1, 4, 2, 4]
    first = results[0]
    assert isinstance(first, WindowResult)
    assert (first.key, first.start, first.end, first.value) == first == ("a", 0, 10_000, 1)


@pytest.mark.asyncio
async def test_results_are_records_of_event_time_again() -> None:
    events = [("a", time, 1) for time in range(0, 100, 5)]
    async with sage.Environment("twice") as env:
        twice = (
            env.from_collection(events)
            .assign_timestamps(lambda e: e[1])
            .key_by(lambda e: e[0])
            .window(Tumbling(10))
            .count()
            .key_by(lambda r: r.key)
            .window(Tumbling(50))
            .sum(lambda r: r.value)
            .collect()
        )
        await env.execute()
    assert list(twice) == [("a", 0, 50, 10), ("a", 50, 100, 10)]


@pytest.mark.asyncio
async def test_whole_streams_and_counts_need_no_time() -> None:
    async with sage.Environment("whole") as env:
        numbers = env.from_collection(range(10))
        pairs = numbers.window_all(Count(4, partial=True)).reduce(lambda a, b: a + b).collect()
        all_of_it = numbers.window_all(Global()).mean().collect()
        every_three = numbers.key_by(lambda x: x % 2).window(Global()).trigger(CountTrigger(3)).count().collect()
        await env.execute()
    assert list(pairs) == [(None, 0, 4, 6), (None, 4, 8, 22), (None, 8, 10, 17)]
    assert [r.value for r in all_of_it] == [4.5]
    assert sorted((r.key, r.value) for r in every_three) == [(0, 3), (1, 3)]


@pytest.mark.parametrize("events", [[], [("a", 5, 1)], [("a", 5, 1), ("a", 5, 1)]])
@pytest.mark.asyncio
async def test_no_record_one_and_two(events: list[Event]) -> None:
    async with sage.Environment("few") as env:
        keyed = env.from_collection(events).assign_timestamps(lambda e: e[1]).key_by(lambda e: e[0])
        counts = [keyed.window(w).count().collect() for w in (Tumbling(10), Sliding(10, every=5), Session(gap=5))]
        await env.execute()
    expected = [[("a", 0, 10, len(events))], [("a", 0, 10, len(events)), ("a", 5, 15, len(events))], [("a", 5, 10, len(events))]]
    assert [list(c) for c in counts] == (expected if events else [[], [], []])


def test_what_is_refused_while_it_is_described() -> None:
    keyed = sage.Environment("refused").from_collection([("a", 1)]).key_by(lambda e: e[0])
    wrong: Any = 10
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: Tumbling(0), "at least 1 ms"),
        (lambda: Tumbling("x"), "duration"),
        (lambda: Tumbling(10, time=wrong), "processing"),
        (lambda: Sliding(10, every=20), "vanish"),
        (lambda: Session(gap=-1), "at least 1 ms"),
        (lambda: Count(0), "at least 1"),
        (lambda: Count(2, every=3), "vanish"),
        (lambda: keyed.window(wrong), "takes Tumbling"),
        (lambda: keyed.window(Count(2)).trigger(CountTrigger(1)), "full"),
        (lambda: keyed.window(Count(2)).allowed_lateness("1s"), "event time"),
        (lambda: keyed.window(Tumbling(10, time="processing")).late_output(OutputTag("late")), "event time"),
        (lambda: keyed.window(Tumbling(10)).allowed_lateness(-1), "allowed_lateness"),
        (lambda: keyed.window_all(Tumbling(10)).count(parallelism=2), "one task"),
        (lambda: keyed.window(Tumbling(10)).sum(wrong), "function"),
    ]
    for describe, text in cases:
        with pytest.raises((GraphError, sage.ConfigError), match=text):
            describe()
