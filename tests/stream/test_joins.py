"""Joins in whole dataflows: the same pairs at every parallelism, late records, what is refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.watermarks import BoundedDisorder, Monotonic
from sage_actor.dataflow.windows import Count, Session, Sliding, Tumbling
from sage_actor.errors import GraphError

Record = tuple[str, int, int]
"""(key, time, number)"""
Describe = Callable[[Any, Any], Any]


def key_of(record: Record) -> str:
    return record[0]


def time_of(record: Record) -> int:
    return record[1]


def pairs_of(describe: Describe, left: Sequence[Record], right: Sequence[Record], parallelism: int, disorder: int = 5) -> Counter[Any]:
    async def job() -> Counter[Any]:
        async with sage.Environment("joins", parallelism=parallelism) as env:
            sides = [
                env.from_collection(rows).assign_timestamps(time_of, BoundedDisorder(disorder)).key_by(key_of) for rows in (left, right)
            ]
            result = describe(*sides).collect()
            await env.execute()
        return Counter(result)

    return asyncio.run(job())


def same_key(left: Sequence[Record], right: Sequence[Record]) -> list[tuple[Record, Record]]:
    return [(a, b) for a in left for b in right if a[0] == b[0]]


def interval(left: Sequence[Record], right: Sequence[Record]) -> Counter[Any]:
    return Counter((a, b) for a, b in same_key(left, right) if -3 <= b[1] - a[1] <= 4)


def tumbling(left: Sequence[Record], right: Sequence[Record]) -> Counter[Any]:
    return Counter((a, b) for a, b in same_key(left, right) if a[1] // 7 == b[1] // 7)


def outer(left: Sequence[Record], right: Sequence[Record]) -> Counter[Any]:
    pairs = tumbling(left, right)
    for a in left:
        if not any(a[0] == b[0] and a[1] // 7 == b[1] // 7 for b in right):
            pairs[(a, None)] += 1
    for b in right:
        if not any(a[0] == b[0] and a[1] // 7 == b[1] // 7 for a in left):
            pairs[(None, b)] += 1
    return pairs


def sliding(left: Sequence[Record], right: Sequence[Record]) -> Counter[Any]:
    return Counter(
        (a, b) for a, b in same_key(left, right) for start in range(-60, 80, 4) if all(start <= r[1] < start + 8 for r in (a, b))
    )


def as_of(left: Sequence[Record], right: Sequence[Record]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for a in left:
        known = [b for b in right if b[0] == a[0] and 0 <= a[1] - b[1] <= 6]
        found[(a, max(known, key=lambda b: (b[1], b[2]), default=None))] += 1
    return found


JOINS: dict[str, tuple[Describe, Callable[[Sequence[Record], Sequence[Record]], Counter[Any]]]] = {
    "interval": (lambda a, b: a.interval_join(b, lower=-3, upper="4ms"), interval),
    "tumbling": (lambda a, b: a.join(b, window=Tumbling(7)), tumbling),
    "outer": (lambda a, b: a.join(b, window=Tumbling("7ms"), how="outer"), outer),
    "sliding": (lambda a, b: a.join(b, window=Sliding(8, every=4)), sliding),
    "as of": (lambda a, b: a.as_of_join(b, within="6ms", how="left"), as_of),
}


@st.composite
def rows(draw: st.DrawFn, first_number: int) -> list[Record]:
    """Disorder of at most 5 ms, so that nothing is late."""
    clock = draw(st.integers(-40, 0))
    result: list[Record] = []
    for number in range(draw(st.integers(0, 25))):
        clock += draw(st.integers(0, 5))
        result.append((draw(st.sampled_from("abcde")), clock - draw(st.integers(0, 5)), first_number + number))
    return result


@pytest.mark.rule("F18", "F22")
@pytest.mark.parametrize("name", JOINS)
@settings(max_examples=12, deadline=None)
@given(rows(0), rows(1000))
def test_equal_to_nested_loops_at_every_parallelism(name: str, left: list[Record], right: list[Record]) -> None:
    describe, oracle = JOINS[name]
    expected = oracle(left, right)
    assert pairs_of(describe, left, right, 1) == expected
    assert pairs_of(describe, left, right, 4) == expected


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)])
def test_few_records(name: str, left: int, right: int) -> None:
    describe, oracle = JOINS[name]
    sides: list[list[Record]] = [[("a", t, t) for t in range(left)], [("a", t, 10 + t) for t in range(right)]]
    assert pairs_of(describe, *sides, 1) == oracle(*sides)


def test_sessions_span_both_inputs() -> None:
    left: list[Record] = [("a", 0, 0), ("a", 8, 1), ("a", 30, 2)]
    right: list[Record] = [("a", 4, 10), ("a", 13, 11), ("a", 40, 12)]
    pairs = pairs_of(lambda a, b: a.join(b, window=Session(gap=5), how="outer"), left, right, 2)
    assert pairs == Counter([
        (("a", 0, 0), ("a", 4, 10)), (("a", 8, 1), ("a", 4, 10)),
        (None, ("a", 13, 11)),  # exactly the gap after the last: a session of its own
        (("a", 30, 2), None), (None, ("a", 40, 12)),
    ])  # fmt: skip


def test_results_carry_event_time() -> None:
    """Pairs are records with a time, not late for a window behind the join."""

    async def job() -> list[Any]:
        async with sage.Environment("two windows") as env:
            sides = [
                env.from_collection([("a", t, t) for t in range(0, 100, step)]).assign_timestamps(time_of, Monotonic()).key_by(key_of)
                for step in (2, 3)
            ]
            near = sides[0].interval_join(sides[1], lower=0, upper=0).key_by(lambda pair: pair[0][0])
            counts = near.window(Tumbling(30)).count().collect()
            await env.execute()
        return [(r.start, r.end, r.value) for r in counts]

    assert asyncio.run(job()) == [(0, 30, 5), (30, 60, 5), (60, 90, 5), (90, 120, 2)]


def test_late_records_reach_the_late_output() -> None:
    late: OutputTag[Record] = OutputTag("late")
    left: list[Record] = [("a", 0, 0), ("a", 100, 1), ("a", 5, 2)]
    right: list[Record] = [("a", 1, 10), ("a", 100, 11)]

    async def job() -> tuple[list[Any], list[Any]]:
        async with sage.Environment("late") as env:
            streams = [env.from_collection(rows).assign_timestamps(time_of, Monotonic()).key_by(key_of) for rows in (left, right)]
            # one left record is far behind its own input; whether it is late depends on how far the other input is
            joined = streams[0].interval_join(streams[1], lower=-5, upper=5).late_output(late)
            pairs, lost = joined.collect(), joined.side_output(late).collect()
            await env.execute()
        return list(pairs), list(lost)

    pairs, lost = asyncio.run(job())
    assert lost in ([], [("a", 5, 2)])
    assert Counter(pairs) == Counter(
        (a, b) for a in left for b in right if a not in lost and abs(a[1] - b[1]) <= 5
    ), "each record is either joined as it must be, or late"  # fmt: skip


class Falling(sage.Source[Record]):
    """Gives its records, then falls silent without an end."""

    def __init__(self, rows: list[Record]) -> None:
        self.rows = rows

    async def read(self, limit: int) -> Sequence[Record] | None:
        if not self.rows:
            await asyncio.Event().wait()
        rows, self.rows = self.rows[:limit], self.rows[limit:]
        return rows


@pytest.mark.simulate(seeds=5)
@pytest.mark.rule("F17")
async def test_a_silent_input_holds_nobody_up() -> None:
    """The other one goes on, and so does the join."""
    pairs: list[Any] = []
    async with sage.Environment("silent") as env:
        left = env.from_source(Falling([("a", t, t) for t in range(50)])).assign_timestamps(time_of, Monotonic())
        right = env.from_source(Falling([("a", 3, 0)])).assign_timestamps(time_of, Monotonic(idle_after="1s"))
        async for pair in left.key_by(key_of).join(right.key_by(key_of), window=Tumbling(10), how="left"):
            pairs.append(pair)
            if len(pairs) == 40:
                break
    assert pairs == [(("a", t, t), ("a", 3, 0) if t < 10 else None) for t in range(40)]


class FailsOnce:
    """Raises at its 500th record, in the first attempt only: then the file is there."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark
        self.seen = 0

    def map(self, value: Any) -> Any:
        self.seen += 1
        if self.seen == 500 and not self.mark.exists():
            self.mark.touch()
            raise ValueError("a crash")
        return value


@pytest.mark.parametrize("backend", ["local", "process"])
@pytest.mark.parametrize("name", ["interval", "outer", "as of"])
def test_a_crash_loses_and_doubles_nothing(name: str, backend: str, tmp_path: Path) -> None:
    describe, oracle = JOINS[name]
    rows = [("abcdefg"[i % 7], i, i) for i in range(1400)]
    checkpoints = {"checkpoint.dir": str(tmp_path / "checkpoints"), "checkpointing": "exactly_once", "restart.strategy": "fixed-delay"}

    async def job() -> list[Any]:
        settings = checkpoints | {"restart.delay": "1ms"}
        async with sage.Environment("crashing", backend=backend, parallelism=2, config=settings) as env:
            sides = [env.from_collection(rows).assign_timestamps(time_of, Monotonic()).key_by(key_of) for _ in range(2)]
            result = describe(*sides).map(FailsOnce(tmp_path / "failed")).checkpoint_every(100).collect()
            await env.execute()
        return list(result)

    result = asyncio.run(job())
    assert (tmp_path / "failed").exists(), "nothing crashed"
    assert Counter(result) == oracle(rows, rows)


REFUSED: list[tuple[Describe, str]] = [
    (lambda a, b: a.interval_join(b, lower="5s", upper="1s"), "above upper"),
    (lambda a, b: a.interval_join(b, lower=0.5, upper=1), "whole number of milliseconds"),
    (lambda a, b: a.interval_join(b, lower=0, upper=2**61), "at most"),
    (lambda a, b: a.join(b, window=Count(3)), "window of time"),
    (lambda a, b: a.join(b, window=Tumbling("1s", time="processing")), "event time"),
    (lambda a, b: a.join(b, window=Tumbling("1s"), how="full"), "how is"),
    (lambda a, b: a.as_of_join(b, how="right"), "how is"),
    (lambda a, b: a.as_of_join(b, within="-1s"), "within"),
    (lambda a, b: a.join(b.map(str), window=Tumbling("1s")), "key_by"),
    (lambda a, b: a.interval_join(b.map(str), lower=0, upper=1, name="near"), "'near'"),
]


@pytest.mark.parametrize(("describe", "text"), REFUSED)
def test_refused(describe: Describe, text: str) -> None:
    env = sage.LocalEnvironment("refused")
    stream = env.from_collection([("a", 1, 1)]).assign_timestamps(time_of).key_by(key_of)
    with pytest.raises(GraphError, match=text):
        describe(stream, stream)
    stream.print()  # whatever was described so far has an end


def test_without_timestamps_it_says_what_to_do() -> None:
    async def job() -> None:
        async with sage.Environment("untimed") as env:
            left, right = (env.from_collection([("a", 1, 1)]).key_by(key_of) for _ in range(2))
            left.interval_join(right, lower=0, upper=1).collect()
            await env.execute()

    with pytest.raises(sage.SageError, match="assign_timestamps"):
        asyncio.run(job())
