"""What does each switch of the memory optimiser change? The same jobs with and without it; reported, not judged."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop
from sage_actor.ports import system_clock

__all__ = ["measure"]

ELEMENTS = 125_000
"""Of one array: a megabyte."""
HELD = 1_000_000
"""Objects that the function of the second job has in memory, as a loaded model or a table would be."""


class Arrays(sage.Source[object]):
    """Arrays of a megabyte, made in a worker."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def read(self, limit: int) -> Sequence[object] | None:
        if not self.count:
            return None
        taken = min(8, limit, self.count)
        self.count -= taken
        return [np.full(ELEMENTS, float(self.count)) for _ in range(taken)]


class Enrich(sage.MapFunction[int, int]):
    """Makes objects for every record, beside many that stay."""

    def __init__(self, held: int, folder: str) -> None:
        self.held = held
        self.folder = folder

    async def open(self, context: sage.FunctionContext) -> None:
        self.table = {number: [number] for number in range(self.held)}
        self.begun = 0.0

    def map(self, value: int) -> int:
        if not self.begun:
            self.begun = system_clock.monotonic()
        parts = [(value, [part]) for part in range(20)]
        return len(parts)

    def close(self) -> None:
        Path(self.folder, "seconds").write_text(str(system_clock.monotonic() - self.begun))


async def arrays(count: int, config: dict[str, object]) -> float:
    """Seconds from the first array's arrival to the last one's in the other worker."""
    async with sage.Environment("arrays", backend="process", config={"workers": 2, **config}) as env:
        stream = env.from_source(Arrays, count=count, parallelism=1)
        times = stream.rebalance().map(lambda array: (float(array[0]), system_clock.monotonic())).set_parallelism(2).collect()
        await env.execute()
    seen = sorted(time for _, time in times)
    assert len(seen) == count
    return seen[-1] - seen[0]


async def objects(records: int, held: int, folder: str, config: dict[str, object]) -> None:
    """The function that makes objects notes the seconds from its first record to its end."""
    async with sage.Environment("objects", backend="process", config={"workers": 1, **config}) as env:
        env.from_collection(range(records)).rebalance().map(Enrich(held, folder)).sink(Drop())
        await env.execute()


class Drop(sage.Sink[object]):
    """Drops."""

    async def write(self, batch: Sequence[object]) -> None:
        pass


def measure(options: Options) -> Result:
    """Seconds of the jobs with everything on, and how many times as long they take without each switch."""
    count, records, held = (40, 5_000, 10_000) if options.short else (1_000, 300_000, HELD)
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"

    def array_run(**config: object) -> float:
        return on_loop(loop, partial(arrays, count, {key.replace("__", "."): value for key, value in config.items()}))

    def object_run(**config: object) -> float:
        with tempfile.TemporaryDirectory(prefix="sage-memory-") as folder:
            on_loop(loop, partial(objects, records, held, folder, {key.replace("__", "."): value for key, value in config.items()}))
            return float(Path(folder, "seconds").read_text())

    seconds = interleaved(
        options.rounds,
        {
            "arrays": array_run,
            "arrays without zero_copy": partial(array_run, memory__zero_copy=False),
            "arrays without object_pooling": partial(array_run, memory__object_pooling=False),
            "objects": object_run,
            "objects without gc_optimization": partial(object_run, memory__gc_optimization=False),
        },
    )
    times = {
        name: median([b / a for a, b in zip(seconds[name.partition(" ")[0]], found, strict=True)])
        for name, found in seconds.items()
        if " " in name
    }
    return Result(
        "memory optimization",
        "MB/s",
        count * ELEMENTS * 8 / 1e6 / median(seconds["arrays"]),
        note="times as long without: " + ", ".join(f"{name.rpartition(' ')[2]} {factor:.2f}" for name, factor in times.items()),
        detail={"seconds": {name: median(found) for name, found in seconds.items()}, "times_as_long": times},
    )
