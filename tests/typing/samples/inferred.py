"""Must check cleanly: both checkers carry the record type through chains. Never run; the checkers read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
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
    assert_type(numbers.map(str, resources={"num_cpus": 0.5, "memory": "2gb"}).place("heavy"), sage.DataStream[str])
    assert_type(numbers.key_by(even).count(resources=sage.WorkerResources(num_cpus=1)).place("heavy"), sage.DataStream[tuple[bool, int]])
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


class Counter(sage.Actor):
    """Plain, async, with a default, and in parts."""

    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    def grow(self, by: int = 1) -> int:
        return self.add(by)

    async def describe(self, prefix: str, suffix: str = "") -> str:
        return f"{prefix}{self.n}{suffix}"

    async def parts(self, count: int) -> AsyncIterator[str]:
        for number in range(count):
            yield str(number)


class Twice(Counter):
    """Methods of the base name the override."""

    def add(self, by: int) -> int:
        return super().add(2 * by)


COUNTERS = sage.ServiceKey[Counter]("counters")


async def actors(system: sage.ActorSystem) -> None:
    counter = await system.spawn(Counter, 5, name="counter", restart=sage.ExponentialDelay(delay="1s", max_delay="1m"))
    assert_type(counter, sage.ActorRef[Counter])
    assert_type(await system.spawn(Counter), sage.ActorRef[Counter])
    assert_type(await counter.ask(Counter.add, 1), int)
    assert_type(await counter.ask(Counter.add, by=1), int)
    assert_type(await counter.ask(Counter.grow), int)
    assert_type(await counter.ask(Counter.describe, "n = "), str)
    assert_type(await counter.ask(Counter.describe, "n = ", ".", timeout=2), str)
    assert_type(await counter.tell(Counter.add, 1), bool)
    assert_type(counter.tell_nowait("hello"), bool)
    async for part in counter.stream(Counter.parts, 3):
        assert_type(part, str)
    twice = await system.spawn(Twice)
    base: sage.ActorRef[Counter] = twice
    assert_type(await base.ask(Counter.add, 1), int)
    assert_type(await twice.ask(Counter.add, 1), int)
    system.registry.register(COUNTERS, twice)
    assert_type(system.registry.find(COUNTERS), tuple[sage.ActorRef[Counter], ...])
    assert_type(await system.watch(counter), sage.Terminated)
