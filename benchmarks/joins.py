"""How fast is an interval join of two streams by event time, 1000 keys, against the loop one would write by hand?"""

from __future__ import annotations

import random
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.sinks import Dropping, Keeping

__all__ = ["measure"]

KEYS = 1000
REACH = 1000
"""Milliseconds; each stream has a record a millisecond, so about two partners are in reach of each record."""

Row = tuple[str, int, int]
Pair = tuple[Row, Row]


def rows_of(count: int, seed: int) -> list[Row]:
    """(key, time, number), in order of time."""
    chance = random.Random(seed)
    names = [f"key-{number}" for number in range(KEYS)]
    return [(chance.choice(names), at, at) for at in range(count)]


def by_hand(left: list[Row], right: list[Row]) -> float:
    """The same user functions and the same pairs, from a loop over both lists in order of time; old records go when their key comes."""
    key: Callable[[Row], str] = lambda row: row[0]
    at: Callable[[Row], int] = lambda row: row[1]
    table: dict[str, tuple[deque[tuple[int, Row]], deque[tuple[int, Row]]]] = {}
    out: list[Pair] = []
    made = 0
    begun = time.perf_counter()
    for a, b in zip(left, right, strict=True):
        for side, row in ((0, a), (1, b)):
            name, now = key(row), at(row)
            slot = table.get(name)
            if slot is None:
                slot = table[name] = (deque(), deque())
            others = slot[1 - side]
            while others and others[0][0] < now - REACH:
                others.popleft()
            for then, other in others:
                if then - now <= REACH:
                    out.append((row, other) if side == 0 else (other, row))
            slot[side].append((now, row))
        if len(out) >= 1000:
            made += len(out)
            out.clear()
    made += len(out)
    spent = time.perf_counter() - begun
    assert made == pairs_expected(left, right), made
    return spent


def pairs_expected(left: list[Row], right: list[Row]) -> int:
    """How many pairs there are, counted over sorted times."""
    times: dict[str, list[int]] = {}
    for name, at, _ in right:
        times.setdefault(name, []).append(at)
    return sum(bisect_right(times.get(name, []), at + REACH) - bisect_left(times.get(name, []), at - REACH) for name, at, _ in left)


async def ours(left: list[Row], right: list[Row], sink: Dropping | Keeping) -> float:
    """Describing, starting, running and leaving, all timed."""
    begun = time.perf_counter()
    async with sage.Environment("joins") as env:
        sides = [
            env.from_collection(rows).assign_timestamps(lambda row: row[1], sage.Monotonic()).key_by(lambda row: row[0])
            for rows in (left, right)
        ]
        sides[0].interval_join(sides[1], lower=-REACH, upper=REACH).sink(sink)
        await env.execute()
    return time.perf_counter() - begun


def run(loop: str, left: list[Row], right: list[Row]) -> float:
    """Ours on one loop; the number of pairs is checked each time."""
    sink = Dropping()
    spent = on_loop(loop, lambda: ours(left, right, sink))
    expected = pairs_expected(left, right)
    assert sink.records == expected, f"{sink.records} pairs instead of {expected}"
    return spent


def check(left: list[Row], right: list[Row]) -> None:
    """Every pair, once."""
    expected = Counter((a, b) for a in left for b in right if a[0] == b[0] and abs(b[1] - a[1]) <= REACH)
    for loop in LOOPS:
        sink = Keeping()
        on_loop(loop, partial(ours, left, right, sink))
        assert Counter(sink.all()) == expected


def measure(options: Options) -> Result:
    """Records of both streams a second."""
    count = 20_000 if options.short else 400_000
    left, right = rows_of(count, 1), rows_of(count, 2)
    check(left[:1500], right[:1500])
    runs = {"floor": partial(by_hand, left, right), **{loop: partial(run, loop, left, right) for loop in LOOPS}}
    return compare(
        "joins",
        options,
        2 * count,
        interleaved(options.rounds, runs),
        at_least=0.8,
        of_peer=None,
        peer_missing="Bytewax has no interval join",
        target="at least 0.8x the hand-written loop",
        note=f"{KEYS} keys, one partner or more within {REACH} ms for most records",
    )
