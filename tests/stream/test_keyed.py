"""Keyed aggregations against plain dictionaries, and the promise that parallelism never changes a result."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(-9, 9)), max_size=60)


def key_of(row: tuple[int, int]) -> int:
    return row[0]


def value_of(row: tuple[int, int]) -> int:
    return row[1]


class Mean(sage.AggregateFunction[tuple[int, int], list[int], float]):
    """Keeps a mutable accumulator on purpose."""

    def create(self) -> list[int]:
        return [0, 0]

    def add(self, accumulator: list[int], value: tuple[int, int], /) -> list[int]:
        accumulator[0] += value[1]
        accumulator[1] += 1
        return accumulator

    def result(self, accumulator: list[int], /) -> float:
        return accumulator[0] / accumulator[1]


Describe = Callable[[Any, Any], Any]
"""(keyed stream, emit) -> stream of (key, result)."""

AGGREGATIONS: dict[str, tuple[Describe, Callable[[list[int]], Any]]] = {
    "count": (lambda s, e: s.count(emit=e), len),
    "sum": (lambda s, e: s.sum(value_of, emit=e), sum),
    "min": (lambda s, e: s.min(value_of, emit=e), min),
    "max": (lambda s, e: s.max(value_of, emit=e), max),
    "reduce": (
        lambda s, e: s.reduce(lambda a, b: (a[0], a[1] * 3 + b[1]), emit=e),
        lambda v: __import__("functools").reduce(lambda a, b: a * 3 + b, v),
    ),
    "fold": (
        lambda s, e: s.fold(0, lambda a, r: a * 2 + r[1], emit=e),
        lambda v: __import__("functools").reduce(lambda a, b: a * 2 + b, v, 0),
    ),
    "fold list": (lambda s, e: s.fold(list, lambda a, r: a + [r[1]], emit=e), list),
    "fold mutable": (lambda s, e: s.fold(list, lambda a, r: a.append(r[1]) or a, emit=e), list),
    "aggregate": (lambda s, e: s.aggregate(Mean, emit=e), lambda v: sum(v) / len(v)),
}


def updates(rows: list[tuple[int, int]], result: Callable[[list[int]], Any]) -> list[tuple[int, Any]]:
    seen: dict[int, list[int]] = defaultdict(list)
    out = []
    for key, value in rows:
        seen[key].append(value)
        out.append((key, result(list(seen[key]))))
    return out


def finals(rows: list[tuple[int, int]], result: Callable[[list[int]], Any]) -> list[tuple[int, Any]]:
    return list(dict(updates(rows, result)).items())


async def fold(
    rows: list[tuple[int, int]], describe: Describe, emit: str, parallelism: int, config: dict[str, Any]
) -> tuple[list[Any], sage.Job]:
    async with asyncio.timeout(20), sage.Environment("fold", parallelism=parallelism, config=config) as env:
        out = describe(env.from_collection(rows).key_by(key_of), emit).collect()
        job = await env.execute()
    return list(out), job


@pytest.mark.rule("F14")
@pytest.mark.parametrize("which", list(AGGREGATIONS))
@settings(max_examples=25, deadline=None)
@given(rows=ROWS, final=st.booleans(), parallelism=st.integers(1, 4), batch=st.integers(1, 7), buffer=st.integers(1, 8))
def test_aggregations_equal_their_model(
    which: str, rows: list[tuple[int, int]], final: bool, parallelism: int, batch: int, buffer: int
) -> None:
    describe, result = AGGREGATIONS[which]
    model = (finals if final else updates)(rows, result)
    config = {"batch.records": batch, "buffer.records": buffer}
    out, job = asyncio.run(fold(rows, describe, "final" if final else "update", parallelism, config))
    if parallelism == 1:
        assert out == model
    for key in {row[0] for row in rows}:  # per key, in order
        assert [r for r in out if r[0] == key] == [r for r in model if r[0] == key]
    assert len(out) == len(model)
    row = next(row for name, row in job.metrics()["operators"].items() if name.startswith(which.split(maxsplit=1)[0]))
    assert (row["records_in"], row["records_out"]) == (len(rows), len(model))


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Place:
    city: str
    number: float


class Custom:
    """Equal by its number, and says so."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __stable_key__(self) -> int:
        return self.number


UTC = timezone.utc  # noqa: UP017
KEYS: dict[str, list[Any]] = {
    "str": ["", "a", "ü", "a" * 100, "\x00"],
    "bytes": [b"", b"a", b"\xff" * 20],
    "numbers": [0, False, 0.0, -0.0, 1, True, 1.0, Decimal(1), Decimal("1.0"), Decimal("0.5"), 0.5, -1, 2**70, float(2**70), 10**400],
    "uuid": [uuid.UUID(int=5), uuid.UUID(int=6)],
    "dates": [date(2024, 1, 1), date(2024, 1, 2), datetime(2024, 1, 1, 12, tzinfo=UTC)],
    "equal instants": [datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))],
    "enum": [Colour.RED, Colour.BLUE, Level.LOW, 1, Level.HIGH],
    "tuples": [(1, "a"), (True, "a"), (1.0, "a"), ((1,), 2), ()],
    "dataclasses": [Place("oslo", 1), Place("oslo", 1.0), Place("rome", 1)],
    "own": [Custom(1), Custom(1), Custom(2)],
}


@pytest.mark.rule("F14a", "F15")
@pytest.mark.parametrize("kind", list(KEYS))
@pytest.mark.parametrize("emit", ["update", "final"])
@pytest.mark.asyncio
async def test_parallelism_changes_no_result(kind: str, emit: Any) -> None:
    keys = KEYS[kind] * 7
    results: dict[int, Counter[Any]] = {}
    for parallelism in (1, 4):
        async with sage.Environment("keys", parallelism=parallelism) as env:
            out = env.from_collection(keys).rebalance().map(lambda k: k).key_by(lambda k: k).count(emit=emit).collect()
            await env.execute()
        results[parallelism] = Counter(out)
    assert results[1] == results[4]
    if emit == "final":
        assert results[4] == Counter(dict(Counter(keys)).items())


@pytest.mark.parametrize("key", [None, [1], float("nan"), float("inf"), Fraction(1, 2), object(), {1}])
@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.asyncio
async def test_keys_without_a_stable_encoding_are_refused_by_name(key: Any, parallelism: int) -> None:
    async with sage.Environment("keys", parallelism=parallelism) as env:
        env.from_collection([1]).key_by(lambda _: key).count(name="per key").collect()
        with pytest.raises((sage.OperatorError, sage.UnstableKey)) as caught:
            await env.execute()
    text = str(caught.value)
    assert "per key" in text
    assert type(key).__name__ in text


@pytest.mark.asyncio
@pytest.mark.parametrize("parallelism", [1, 2])
async def test_a_key_function_that_raises_is_named_with_its_record(parallelism: int) -> None:
    async with sage.Environment("keys", parallelism=parallelism) as env:
        env.from_collection([1, 2, "x", 4]).key_by(lambda v: v + 1).count(name="tally").collect()
        with pytest.raises(sage.OperatorError) as caught:
            await env.execute()
    error = caught.value
    assert isinstance(error.__cause__, TypeError)
    assert "tally" in error.operator
    assert error.position == 2
    assert error.value == "'x'"


@pytest.mark.asyncio
async def test_a_start_value_that_would_be_shared_is_refused() -> None:
    env = sage.Environment("shared")
    with pytest.raises(sage.GraphError, match="mutable"):
        env.from_collection([1]).key_by(lambda v: v).fold([], lambda a, v: a)


@pytest.mark.asyncio
async def test_an_aggregate_is_opened_and_closed_and_separate_per_task() -> None:
    events: list[str] = []

    class Noted(Mean):
        async def open(self, context: sage.FunctionContext) -> None:
            events.append(f"open {context.operator_name} {context.subtask_index}/{context.parallelism}")

        def close(self) -> None:
            events.append("close")

    async with sage.Environment("noted", parallelism=2) as env:
        out = env.from_collection([(k, 1) for k in range(9)]).key_by(key_of).aggregate(Noted, name="mean", emit="final").collect()
        await env.execute()
    assert sorted(out) == [(k, 1.0) for k in range(9)]
    assert sorted(events) == ["close", "close", "open mean 0/2", "open mean 1/2"]


@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(st.integers(0, 4), max_size=80),
    parallelism=st.integers(1, 3),
    batch=st.integers(1, 9),
    buffer=st.sampled_from([1, 4, 16_384]),
    final=st.booleans(),
)
def test_records_that_are_their_own_keys(keys: list[int], parallelism: int, batch: int, buffer: int, final: bool) -> None:
    """Counted, passed on and merged as any others, though keys and values are one column."""

    async def run() -> tuple[Counter[Any], Counter[Any]]:
        config = {"batch.records": batch, "buffer.records": buffer}
        async with asyncio.timeout(20), sage.Environment("own", parallelism=parallelism, config=config) as env:
            keyed = env.from_collection(keys).rebalance().map(lambda x: x, parallelism=2).key_by(lambda x: x)
            counts = keyed.count(emit="final" if final else "update").collect()
            passed = keyed.map_async(same, concurrency=3).key_by(lambda x: x).map(lambda x: x).collect()
            await env.execute()
        return Counter(dict(sorted(counts))), Counter(passed)

    assert asyncio.run(run()) == (Counter(keys), Counter(keys))


async def same(value: int) -> int:
    await asyncio.sleep(0)
    return value
