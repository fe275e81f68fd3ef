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
