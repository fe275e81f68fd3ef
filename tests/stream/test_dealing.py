"""Who gets which record: branches, unions and exchanges."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

import sage_actor as sage


class Where(sage.MapFunction[Any, tuple[int, Any]]):
    """Tags a record with the task that saw it."""

    def open(self, context: sage.FunctionContext) -> None:
        self.index = context.subtask_index

    def map(self, value: Any, /) -> tuple[int, Any]:
        return self.index, value


@pytest.mark.asyncio
async def test_union_keeps_the_order_within_each_stream() -> None:
    async with sage.Environment("union", config={"batch.records": 3, "buffer.records": 2}) as env:
        one = env.from_collection([("a", i) for i in range(20)])
        two = env.from_collection([("b", i) for i in range(30)]).map(lambda r: r)
        three = env.from_collection([("c", i) for i in range(10)])
        out = one.union(two, three).map(lambda r: r).collect()
        direct = one.union(two).collect()
        await env.execute()
    for name, count in (("a", 20), ("b", 30), ("c", 10)):
        assert [i for who, i in out if who == name] == list(range(count))
    assert len(out) == 60
    assert len(direct) == 50


@pytest.mark.asyncio
async def test_a_stream_united_with_itself_gives_each_record_twice() -> None:
    async with sage.Environment("twice") as env:
        one = env.from_collection(range(5))
        out = one.union(one).collect()
        await env.execute()
    assert Counter(out) == Counter(dict.fromkeys(range(5), 2))


@pytest.mark.asyncio
async def test_exchanges_deal_as_they_say() -> None:
    data = list(range(400))
    async with sage.Environment("deal", parallelism=4, config={"batch.records": 16}) as env:
        source = env.from_collection(data)
        custom = source.partition_custom(lambda key, n: key % n, lambda v: v // 10).map(Where).collect()
        rebalanced = source.rebalance().map(Where).collect()
        shuffled = source.shuffle().map(Where).collect()
        everywhere = source.broadcast().map(Where).collect()
        two = source.partition(2).map(Where).collect()
        own = source.rebalance().map(Where, parallelism=3).collect()
        await env.execute()
    assert sorted(custom) == sorted(((v // 10) % 4, v) for v in data)
    for out, tasks in ((rebalanced, 4), (shuffled, 4), (two, 2), (own, 3)):
        assert sorted(v for _, v in out) == data
        shares = Counter(task for task, _ in out)
        assert set(shares) == set(range(tasks))
        assert min(shares.values()) > 400 / tasks / 3
    assert Counter(everywhere) == Counter((task, v) for task in range(4) for v in data)


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [-1, 2, "0", None])
async def test_a_partitioner_that_answers_nonsense_fails_by_name(answer: Any) -> None:
    async with sage.Environment("custom", parallelism=2) as env:
        env.from_collection([7]).partition_custom(lambda key, n: answer, lambda v: v).map(str, name="text").collect()
        with pytest.raises(sage.OperatorError, match=r"partition_custom of text.*record: 7"):
            await env.execute()


def ruin(record: dict[str, Any]) -> dict[str, Any]:
    record["n"] = -1
    record["inner"].append("ruined")
    return record


def rows() -> list[dict[str, Any]]:
    return [{"n": i, "inner": [i]} for i in range(50)]


@pytest.mark.asyncio
async def test_one_branch_never_sees_anothers_mutation() -> None:
    async with sage.Environment("branches") as env:
        source = env.from_collection(rows())
        first = source.map(ruin).collect()
        plain = source.collect()
        last = source.map(ruin).collect()
        await env.execute()
    assert list(plain) == rows()
    expected = [{"n": -1, "inner": [i, "ruined"]} for i in range(50)]
    assert list(first) == expected
    assert list(last) == expected


@pytest.mark.asyncio
async def test_broadcast_copies_too() -> None:
    async with sage.Environment("branches") as env:
        out = env.from_collection(rows()).broadcast().map(ruin, parallelism=3).collect()
        await env.execute()
    assert Counter(r["inner"][0] for r in out) == Counter(dict.fromkeys(range(50), 3))
    assert all(len(r["inner"]) == 2 for r in out)


@pytest.mark.asyncio
async def test_object_reuse_shares() -> None:
    async with sage.Environment("branches", config={"object": {"reuse": True}}) as env:
        source = env.from_collection([threading.Lock(), {}])  # a lock could not be copied
        one, two = source.map(lambda r: r).collect(), source.collect()
        await env.execute()
    assert one[0] is two[0]
    assert one[1] is two[1]


@pytest.mark.asyncio
async def test_a_record_that_cannot_be_copied_is_said_with_the_setting() -> None:
    async with sage.Environment("branches") as env:
        source = env.from_collection([threading.Lock()])
        source.map(str).collect()
        source.map(repr).collect()
        with pytest.raises(sage.OperatorError, match=r"'lock'.*object\.reuse"):
            await env.execute()


@pytest.mark.asyncio
async def test_two_readers_of_dead_letters_get_each_once() -> None:
    async with sage.Environment("letters", config={"batch.records": 2}) as env:
        good = env.from_collection(range(-20, 20)).map(lambda x: 10 // (x % 4), on_error="dead_letter", name="divide")
        one, two = good.dead_letters().collect(), good.dead_letters().map(lambda d: d.value, parallelism=2).collect()
        out = good.collect()
        job = await env.execute()
    bad = [x for x in range(-20, 20) if x % 4 == 0]
    assert [d.value for d in one] == bad
    assert sorted(two) == bad
    assert len(out) == 30
    assert job.metrics()["dead_letters"] == 10


@pytest.mark.asyncio
async def test_aliases_and_names() -> None:
    async with sage.Environment("names") as env:
        stream = env.from_batch([1, 2]).flatmap(lambda x: [x, x]).name("doubled").uid("u1").set_parallelism(1)
        counts = stream.keyby(lambda x: x).count(emit="final").collect(name="counts")
        assert "doubled" in repr(stream)
        end = stream.sink(lambda x: None)
        assert end.env is env
        assert (end.name, end.uid) == ("sink", None)
        await env.execute()
    assert sorted(counts) == [(1, 2), (2, 2)]
