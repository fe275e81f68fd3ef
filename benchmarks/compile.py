"""How long does a job of 1,000 operators take from the first line of its description to its first record?"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop
from benchmarks.sinks import Keeping

__all__ = ["measure"]

OPERATORS = 1000


def maps(env: sage.Environment, sink: Keeping) -> None:
    """One chain of maps."""
    stream = env.from_collection([0])
    for _ in range(OPERATORS - 2):
        stream = stream.map(lambda x: x + 1)
    stream.sink(sink)


def mixed(env: sage.Environment, sink: Keeping) -> None:
    """map, filter and flat_map in turn: as deeply nested as a loop over records gets."""
    stream = env.from_collection([0])
    for i in range(OPERATORS - 2):
        if i % 3 == 0:
            stream = stream.map(lambda x: x + 3)
        elif i % 3 == 1:
            stream = stream.filter(lambda x: x > 0)
        else:
            stream = stream.flat_map(lambda x: [x])
    stream.sink(sink)


def exchanges(env: sage.Environment, sink: Keeping) -> None:
    """An exchange to two tasks at every tenth operator."""
    stream = env.from_collection([0])
    for i in range(OPERATORS - 2):
        if i % 10 == 9:
            stream = stream.key_by(lambda x: x).reduce(lambda a, b: a + b, parallelism=1 + i // 10 % 2)
        else:
            stream = stream.map(lambda x: x + 1)
    stream.sink(sink, parallelism=1)


def branches(env: sage.Environment, sink: Keeping) -> None:
    """249 branches of four operators, united again."""
    source = env.from_collection([0])
    ends = [source.map(lambda x: x + 1).filter(lambda x: x > 0).map(lambda x: x).map(lambda x: x) for _ in range((OPERATORS - 2) // 4)]
    ends[0].union(*ends[1:]).sink(sink)


SHAPES: dict[str, tuple[Callable[[sage.Environment, Keeping], None], list[object]]] = {
    "maps": (maps, [OPERATORS - 2]),
    "mixed": (mixed, [3 * ((OPERATORS - 2 + 2) // 3)]),
    "exchanges": (exchanges, [OPERATORS - 2 - (OPERATORS - 2) // 10]),
    "branches": (branches, [1] * ((OPERATORS - 2) // 4)),
}


async def start(shape: str) -> float:
    """Describe, compile, run one record through it and leave."""
    build, expected = SHAPES[shape]
    sink = Keeping()
    begun = time.perf_counter()
    async with sage.Environment(shape) as env:
        build(env, sink)
        await env.execute()
    spent = time.perf_counter() - begun
    assert sink.all() == expected, f"{shape}: {sink.all()[:3]} instead of {expected[:3]}"
    return spent


def fresh(loop: str, shape: str) -> float:
    """One start. The generated loop of a shape is compiled once a process, so the first round is the one that counts."""
    return on_loop(loop, lambda: start(shape))


def measure(options: Options) -> Result:
    """Seconds of the slowest shape, at its first start in this process, when nothing is cached."""
    loop = "asyncio"
    runs = {shape: partial(fresh, loop, shape) for shape in SHAPES}
    first = {shape: run() for shape, run in runs.items()}
    again = interleaved(1 if options.short else options.rounds, runs)
    worst = max(first, key=lambda shape: first[shape])
    return Result(
        "compile",
        "s",
        first[worst],
        target="under 1 s for 1,000 operators",
        met=None if options.short else first[worst] < 1.0,
        note=f"from the first line of the description until the job has ended, first start in a process; slowest shape: {worst}; {loop}"
        + (f" of {', '.join(LOOPS)}" if len(LOOPS) > 1 else ""),
        detail={shape: {"first_s": first[shape], "again_s": median(again[shape])} for shape in SHAPES},
    )
