"""Must check cleanly: both checkers carry the record type through chains. Never run; the checkers read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import sage_actor as sage


class Scale(sage.MapFunction[int, float]):
    """A function class with types of its own."""

    def __init__(self, by: float) -> None:
        self.by = by

    def map(self, value: int, /) -> float:
        return value * self.by


class Words(sage.FlatMapFunction[str, str]):
    """One line in, its words out."""

    def flat_map(self, value: str, /) -> Iterator[str]:
        yield from value.split()


def even(value: int) -> bool:
    return value % 2 == 0


def digits(value: int) -> list[str]:
    return list(str(value))


async def look_up(value: int) -> str:
    return str(value)


def lengths(words: list[str]) -> list[int]:
    return [len(word) for word in words]


def earlier(left: tuple[str, int], right: tuple[str, int]) -> tuple[str, int]:
    return min(left, right)


async def chains(env: sage.Environment) -> None:
    numbers = env.from_collection([1, 2, 3])
    assert_type(numbers, sage.DataStream[int])
    assert_type(numbers.map(lambda x: x + 1), sage.DataStream[int])
    assert_type(numbers.map(lambda x: x + 1).map(str).map(len), sage.DataStream[int])
    assert_type(numbers.filter(even), sage.DataStream[int])
    assert_type(numbers.filter(lambda x: x > 1).map(lambda x: x / 2), sage.DataStream[float])
    assert_type(numbers.flat_map(digits), sage.DataStream[str])
    assert_type(numbers.map(look_up), sage.DataStream[str])
    assert_type(numbers.map(look_up, concurrency=8, timeout="1s").map(str.upper), sage.DataStream[str])
    assert_type(numbers.map(Scale(2.0)), sage.DataStream[float])
    assert_type(numbers.map(Scale, {"by": 2.0}), sage.DataStream[float])
    assert_type(numbers.map(str).flat_map(Words()), sage.DataStream[str])
    assert_type(numbers.map(str).map_batch(lengths), sage.DataStream[int])
    assert_type(numbers.union(numbers.map(lambda x: -x)), sage.DataStream[int])
    assert_type(numbers.rebalance(), sage.DataStream[int])
    assert_type(numbers.dead_letters(), sage.DataStream[sage.DeadLetter[Any]])

    pairs = env.from_collection([("a", 1), ("b", 2)])
    assert_type(pairs, sage.DataStream[tuple[str, int]])
    keyed = pairs.key_by(lambda pair: pair[0])
    assert_type(keyed, sage.KeyedStream[str, tuple[str, int]])
    assert_type(keyed.reduce(earlier), sage.DataStream[tuple[str, int]])
    assert_type(keyed.count(), sage.DataStream[tuple[str, int]])
    assert_type(keyed.sum(lambda pair: pair[1]), sage.DataStream[tuple[str, int]])

    collected = numbers.map(str).collect()
    assert_type(collected[0], str)
    assert_type(list(collected), list[str])
    async for text in numbers.map(str):
        assert_type(text, str)
