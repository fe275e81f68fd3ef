"""What becomes of a record whose function raises: its address, its policy, its counters. No record vanishes."""

from __future__ import annotations

import asyncio
import linecache
import re
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import sage_actor as sage


def picky(value: int) -> int:
    """Raises for multiples of five."""
    if value % 5 == 0:
        raise ValueError(f"no {value}")
    return value


def picky_list(value: int) -> list[int]:
    return [picky(value)]


def picky_late(value: int) -> Iterator[int]:
    yield value
    picky(value)


def picky_batch(values: list[int]) -> list[int]:
    return [picky(value) for value in values]


async def picky_async(value: int) -> int:
    await asyncio.sleep(0)
    return picky(value)


def picky_step(value: int) -> int:
    return picky(value) + 1000


DATA = list(range(1, 21))
BAD = [5, 10, 15, 20]
GOOD = [x for x in DATA if x % 5]

KINDS: dict[str, tuple[Any, list[int]]] = {
    "map": (lambda s, e: s.map(picky, on_error=e, name="step"), GOOD),
    "filter": (lambda s, e: s.filter(picky, on_error=e, name="step"), GOOD),
    "flat_map": (lambda s, e: s.flat_map(picky_list, on_error=e, name="step"), GOOD),
    "flat_map lazy": (lambda s, e: s.flat_map(picky_late, on_error=e, name="step"), GOOD),
    "process": (lambda s, e: s.process(picky_list, on_error=e, name="step"), GOOD),
    "process lazy": (lambda s, e: s.process(picky_late, on_error=e, name="step"), GOOD),
    "map_batch": (lambda s, e: s.map_batch(picky_batch, on_error=e, name="step"), GOOD),
    "map_async": (lambda s, e: s.map_async(picky_async, on_error=e, name="step", concurrency=3), GOOD),
    "iterate": (lambda s, e: s.iterate(picky_step, until=lambda x: x > 1000, on_error=e, name="step").map(lambda x: x - 1000), GOOD),
    "reduce": (
        lambda s, e: (
            s.key_by(lambda x: x)
            .reduce(lambda a, b: a, on_error=e, name="other")
            .key_by(lambda x: 0)
            .fold(0, lambda a, x: picky(x), on_error=e, name="step")
            .map(lambda r: r[1])
        ),
        GOOD,
    ),
    "sum": (lambda s, e: s.key_by(lambda x: x).sum(picky, on_error=e, name="step").map(lambda r: r[1]), GOOD),
}
PER_RECORD = [kind for kind in KINDS if kind != "map_batch"]

FAST = sage.Retry(attempts=3, delay="1ms", max_delay="2ms", then="skip")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("policy", ["skip", "dead_letter", FAST, sage.Retry(attempts=2, delay=0, then="dead_letter")], ids=str)
@pytest.mark.parametrize("alone", [False, True])
async def test_bad_records_go_by_policy_and_the_rest_flows(kind: str, policy: Any, alone: bool) -> None:
    describe, expected = KINDS[kind]
    async with asyncio.timeout(20), sage.Environment("policies", config={"batch.records": 7}) as env:
        stream = env.from_collection(DATA)
        out_stream = describe(stream, policy)
        step = next(op for op in env.graph.operators if op.name == "step")
        if alone:
            step.chaining = False
        letters = None
        if "dead_letter" in (policy, getattr(policy, "then", "")):
            from sage_actor.dataflow.graph import Edge
            from sage_actor.stream.datastream import DataStream

            letters = DataStream(env, [Edge(step.id)]).dead_letters().collect()
        out = out_stream.collect()
        job = await env.execute()
    assert list(out) == expected
    row = job.metrics()["operators"]["step"]
    tries = getattr(policy, "attempts", 1) if kind not in ("reduce", "sum") else 1
    # map_batch calls halves of a failing batch again; its count is of records, not of calls
    assert row["errors"] == len(BAD) * tries
    assert row["retried"] == len(BAD) * (tries - 1)
    assert row["records_in"] == 20
    assert row["records_in"] == row["records_out"] + row["skipped"] + row["dead_letters"]
    if letters is None:
        assert (row["skipped"], row["dead_letters"]) == (4, 0)
    else:
        assert (row["skipped"], row["dead_letters"]) == (0, 4)
        assert [letter.value for letter in letters] == BAD
        assert [letter.position for letter in letters] == [4, 9, 14, 19]
        assert {letter.operator for letter in letters} == {"step"}
        assert [str(letter.error) for letter in letters] == [f"no {x}" for x in BAD]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", PER_RECORD)
@pytest.mark.parametrize("policy", [None, "fail", sage.Retry(attempts=2, delay=0)], ids=str)
async def test_fail_names_the_place(kind: str, policy: Any) -> None:
    describe, _ = KINDS[kind]
    async with asyncio.timeout(20), sage.Environment("failing") as env:
        describe(env.from_collection(DATA), policy).collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError) as caught:
            await job.wait()
    error = caught.value
    assert (error.job, error.operator, error.position, error.value, error.task) == ("failing", "step", 4, "5", 0)
    if kind in ("reduce", "sum"):
        assert error.key == (0 if kind == "reduce" else 5)
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "no 5"
    for part in ("failing", "step", "source position 4", "ValueError: no 5"):
        assert part in str(error)
    assert job.status == "failed"
    assert job.error is error
    metrics = job.metrics()
    assert metrics["errors"] == (getattr(policy, "attempts", 1) if kind not in ("reduce", "sum") else 1)
    row = metrics["operators"]["step"]
    assert row["records_in"] >= row["records_out"] + 1


@pytest.mark.asyncio
async def test_the_address_survives_exchanges_and_retries() -> None:
    """Positions count in the source, behind a task of its own and behind a pause too."""
    failed: set[int] = set()

    def flaky(value: int) -> int:
        if value == 3 and 3 not in failed:
            failed.add(3)
            raise ConnectionError
        return value

    async with sage.Environment("address") as env:
        (
            env.from_collection(range(20))
            .map(flaky, on_error=sage.Retry(attempts=2, delay="1ms"))
            .disable_chaining()
            .map(lambda x: 1 // (x - 12), name="divide")
            .collect()
        )
        with pytest.raises(sage.OperatorError) as caught:
            await env.execute()
    assert (caught.value.operator, caught.value.position) in (("divide", 12), ("divide", None))
    assert caught.value.value == "12"


@pytest.mark.asyncio
async def test_the_traceback_shows_the_generated_loop_and_the_users_function() -> None:
    async with sage.Environment("traced") as env:
        env.from_collection([1]).map(lambda x: x).filter(bool).map(lambda x: x / 0, name="zero").collect()
        with pytest.raises(sage.OperatorError) as caught:
            await env.execute()
    cause = caught.value.__cause__
    assert cause is not None
    frames = traceback.extract_tb(cause.__traceback__)
    generated = [frame for frame in frames if frame.filename.startswith("<sage chain")]
    assert generated
    assert "f2(v)" in (generated[0].line or "")
    assert linecache.getline(generated[0].filename, 1).startswith("def chain(")
    assert frames[-1].filename == __file__
    assert "x / 0" in (frames[-1].line or "")


@pytest.mark.asyncio
async def test_a_retry_keeps_the_order_and_holds_what_follows() -> None:
    calls: list[int] = []

    def flaky(value: int) -> int:
        calls.append(value)
        if value % 7 == 0 and calls.count(value) < 3:
            raise ConnectionError("not yet")
        return value

    async with sage.Environment("retry", config={"batch.records": 5}) as env:
        out = env.from_collection(range(1, 30)).map(flaky, on_error=sage.Retry(attempts=4, delay="1ms", max_delay="1ms")).collect()
        job = await env.execute()
    assert list(out) == list(range(1, 30))
    expected: list[int] = []
    for x in range(1, 30):
        expected += [x] * (3 if x % 7 == 0 else 1)
    assert calls == expected
    metrics = job.metrics()
    assert (metrics["errors"], metrics["retried"], metrics["skipped"]) == (8, 8, 0)


def test_retry_pauses_double_up_to_the_cap_with_jitter() -> None:
    import random

    retry = sage.Retry(attempts=6, delay="100ms", max_delay="500ms", multiplier=2, jitter=0)
    rng = random.Random(1)
    assert [retry.pause(n, rng) for n in range(1, 7)] == [0.1, 0.2, 0.4, 0.5, 0.5, None]
    spread = sage.Retry(attempts=99, delay=1, max_delay=1, jitter=0.5)
    pauses = [spread.pause(1, rng) for _ in range(200)]
    assert all(p is not None and 1 <= p < 1.5 for p in pauses)
    assert len(set(pauses)) > 100


@pytest.mark.asyncio
async def test_the_loop_runs_on_while_a_record_waits_for_its_next_try() -> None:
    """A pause suspends the chain, not the event loop: another flow goes through meanwhile."""
    second = asyncio.Event()
    tries: list[int] = []

    def flaky(value: int) -> int:
        tries.append(value)
        if not second.is_set():
            raise ConnectionError
        return value

    async with asyncio.timeout(20), sage.Environment("pauses") as env:
        slow = env.from_collection([1]).map(flaky, on_error=sage.Retry(attempts=1000, delay="1ms", max_delay="1ms")).collect()
        job = await env.submit()
        other = env.from_collection([2]).map(lambda x: second.set() or x).collect()
        await env.execute()
        await job.wait()
    assert (list(slow), list(other)) == ([1], [2])
    assert len(tries) >= 1


@pytest.mark.asyncio
@pytest.mark.parametrize("policy", ["skip", "dead_letter", FAST], ids=str)
async def test_inner_records_of_a_flat_map_fail_alone(policy: Any) -> None:
    """A policy behind a flat_map drops the one inner record, not its siblings, nor the outer one."""
    async with sage.Environment("inner") as env:
        out = (
            env.from_collection([[1, 5, 2], [10], [3, 4]])
            .flat_map(lambda row: row)
            .map(picky, on_error=policy, name="step")
            .map(lambda x: x)
            .filter(lambda x: x != 4, name="four")
            .collect()
        )
        job = await env.execute()
    assert list(out) == [1, 2, 3]
    rows = job.metrics()["operators"]
    assert (rows["step"]["records_in"], rows["step"]["records_out"]) == (6, 4)
    assert (rows["four"]["records_in"], rows["four"]["records_out"]) == (4, 3)


@pytest.mark.asyncio
@pytest.mark.parametrize("policy", ["skip", FAST], ids=str)
@pytest.mark.parametrize("kind", ["flat_map", "process"])
async def test_a_record_that_fails_halfway_gives_nothing(kind: str, policy: Any) -> None:
    def halfway(value: int) -> Iterator[int]:
        yield value
        yield picky(value)

    async with sage.Environment("halfway") as env:
        out = getattr(env.from_collection([1, 5, 2]), kind)(halfway, on_error=policy).collect()
        await env.execute()
    assert list(out) == [1, 1, 2, 2]


@pytest.mark.asyncio
async def test_a_process_that_recovers_gives_its_results() -> None:
    tries: list[int] = []

    def late(value: int) -> Any:
        tries.append(value)
        if tries.count(value) == 1:
            return (x for x in [value, 1 // 0])
        if tries.count(value) == 2:
            raise ConnectionError
        return None if value == 2 else [value]

    async with sage.Environment("recovers") as env:
        out = env.from_collection([1, 2]).process(late, on_error=sage.Retry(attempts=3, delay=0)).collect()
        await env.execute()
    assert list(out) == [1]
    assert tries == [1, 1, 1, 2, 2, 2]


@pytest.mark.asyncio
@pytest.mark.parametrize("policy", [None, "skip"])
async def test_stop_iteration_in_a_function_is_an_error_like_any_other(policy: Any) -> None:
    async with sage.Environment("stop") as env:
        out = (
            env.from_collection([1, 2, 3])
            .map(lambda x: x)
            .map(lambda x: next(iter([x] if x != 2 else [])), name="first", on_error=policy)
            .collect()
        )
        job = await env.submit()
        if policy == "skip":
            await job.wait()
            assert list(out) == [1, 3]
            return
        with pytest.raises(sage.OperatorError) as caught:
            await job.wait()
    assert (caught.value.operator, caught.value.position) == ("first", 1)
    assert isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.asyncio
async def test_an_aggregate_that_fails_at_the_end_is_named() -> None:
    class Bad(sage.AggregateFunction[int, int, int]):
        def create(self) -> int:
            return 0

        def add(self, accumulator: int, value: int, /) -> int:
            return accumulator + value

        def result(self, accumulator: int, /) -> int:
            raise RuntimeError("no result")

    for emit in ("update", "final"):
        async with asyncio.timeout(10), sage.Environment("late") as env:
            env.from_collection([1]).map(lambda x: x).key_by(lambda x: x).aggregate(Bad, emit=emit, name="bad").collect()  # type: ignore[arg-type]
            with pytest.raises(sage.OperatorError, match="no result") as caught:
                await env.execute()
        assert caught.value.operator == "bad"


@pytest.mark.asyncio
async def test_iterate_bounds_are_errors_of_their_record() -> None:
    def more(value: int) -> Iterator[int]:
        yield from [value, value]

    async with asyncio.timeout(20), sage.Environment("bounds") as env:
        source = env.from_collection([1, 2, 100])
        rounds = source.iterate(lambda x: x, until=lambda x: x > 50, max_rounds=10, on_error="skip", name="rounds").collect()
        limits = source.iterate(more, until=lambda x: x > 50, limit=50, on_error="dead_letter", name="limit")
        letters = limits.dead_letters().collect()
        rest = limits.collect()
        await env.execute()
    assert list(rounds) == [100]
    assert list(rest) == [100]
    assert [(d.value, "limit=50" in str(d.error)) for d in letters] == [(1, True), (2, True)]


@pytest.mark.asyncio
async def test_a_record_whose_repr_raises_does_not_hide_the_error() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    async with sage.Environment("shy") as env:
        env.from_collection([Shy(), "x" * 5000]).map(lambda r: r.missing, name="look").collect()
        with pytest.raises(sage.OperatorError, match="missing") as caught:
            await env.execute()
    assert re.search("Shy.*RuntimeError", caught.value.value or "")
