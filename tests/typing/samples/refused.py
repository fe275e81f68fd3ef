"""Every line that ends in ``# refused`` must be an error to both checkers, and no other line may be. Never run."""

from __future__ import annotations

from collections.abc import Iterator

import sage_actor as sage


class Words(sage.FlatMapFunction[str, str]):
    """One line in, its words out."""

    def flat_map(self, value: str, /) -> Iterator[str]:
        yield from value.split()


def length(text: str) -> int:
    return len(text)


def steps(env: sage.Environment) -> None:
    numbers = env.from_collection([1, 2, 3])
    texts = numbers.map(str)
    numbers.map(str.upper)  # refused
    numbers.map(length)  # refused
    numbers.filter(length)  # refused
    numbers.flat_map(Words())  # refused
    numbers.key_by(length)  # refused
    numbers.union(texts)  # refused
    texts.map(length).map(length)  # refused
    numbers.map(lambda x: x.upper())  # refused
    numbers.map(3)  # refused
    numbers.no_such_step()  # refused
    kept: sage.DataStream[str] = numbers.filter(lambda x: x > 1)  # refused
    kept.print()


class Counter(sage.Actor):
    """What a message must fit."""

    def __init__(self, start: int) -> None:
        self.n = start

    def add(self, by: int) -> int:
        self.n += by
        return self.n


class Other(sage.Actor):
    """Another kind of actor."""

    def size(self) -> int:
        return 0


async def actors(system: sage.ActorSystem) -> None:
    counter = await system.spawn(Counter, 5)
    await counter.ask(Counter.add, "x")  # refused
    await counter.ask(Counter.add, 1, 2)  # refused
    await counter.tell(Counter.add, "x")  # refused
    counter.tell_nowait(Counter.add, "x")  # refused
    text: str = await counter.ask(Counter.add, 1)  # refused
    await system.spawn(Counter, "x")  # refused
    await system.spawn(int, 3)  # refused
    other: sage.ActorRef[Other] = counter  # refused
    await other.ask(Other.size, timeout=text)
