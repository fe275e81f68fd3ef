"""How close is map, filter, map over integers to the loop one would write by hand?"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import bytewax_flows
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.sinks import Dropping, Keeping

__all__ = ["measure"]

inc: Callable[[int], int] = lambda x: x + 1
odd: Callable[[int], int] = lambda x: x & 1
double: Callable[[int], int] = lambda x: x * 2


def floor(n: int) -> float:
    """The same functions called from a hand-written loop, into a list that a sink empties."""
    out: list[int] = []
    taken = 0
    begun = time.perf_counter()
    for x in range(n):
        x = inc(x)
        if odd(x):
            out.append(double(x))
            if len(out) == 1000:
                taken += len(out)
                out.clear()
    spent = time.perf_counter() - begun
    assert taken + len(out) == (n + 1) // 2
    return spent


async def ours(n: int, sink: Dropping | Keeping) -> float:
    """Describing, starting, running and leaving, all timed."""
    begun = time.perf_counter()
    async with sage.Environment("chain") as env:
        env.from_collection(range(n)).map(inc).filter(odd).map(double).sink(sink)
        await env.execute()
    return time.perf_counter() - begun


def run(loop: str, n: int) -> float:
    """Ours on one loop; the number of outputs is checked each time."""
    sink = Dropping()
    spent = on_loop(loop, lambda: ours(n, sink))
    assert sink.records == (n + 1) // 2, f"{sink.records} records instead of {(n + 1) // 2}"
    return spent


def check(n: int) -> None:
    """Every output, in order."""
    for loop in LOOPS:
        sink = Keeping()
        on_loop(loop, partial(ours, n, sink))
        assert sink.all() == [2 * (x + 1) for x in range(n) if (x + 1) & 1]


def measure(options: Options) -> Result:
    """Records a second, each going through three lambdas."""
    n = 100_000 if options.short else 2_000_000
    check(50_001)
    reason = bytewax_flows.missing()
    runs = {"floor": partial(floor, n), **{loop: partial(run, loop, n) for loop in LOOPS}}
    if not reason:
        runs["peer"] = partial(bytewax_flows.run_chain, range(n))
    return compare(
        "chain",
        options,
        n,
        interleaved(options.rounds, runs),
        at_least=0.95,
        of_peer=4.5,
        peer_missing=reason,
        target="at least 0.95x the hand-written loop, 4.5x Bytewax",
    )
