"""How long does stopping a busy job take, and does it leave anything behind?"""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop

__all__ = ["measure"]


async def busy(backend: str, *, cancel: bool) -> float:
    """Seconds from the call until the job has ended; it runs at full speed until then."""
    before = asyncio.all_tasks()
    async with sage.Environment("busy", backend=backend, parallelism=2) as env:
        numbers = env.from_source(itertools.count())
        numbers.map(lambda x: x + 1).rebalance().map(lambda x: (x % 1000, x)).key_by(lambda r: r[0]).count().sink(
            lambda r: None, name="end"
        )
        job = await env.submit()
        deadline = time.perf_counter() + 30
        while job.metrics()["records_out"] < 100_000:
            await asyncio.sleep(0.01)
            assert not job.done, f"the job is {job.status} already"
            assert time.perf_counter() < deadline, "the job never got busy"
        begun = time.perf_counter()
        if cancel:
            job.cancel()
        else:
            job.stop()
        try:
            await job.wait()
        except sage.JobCancelled:
            assert cancel
        spent = time.perf_counter() - begun
        assert job.status == ("cancelled" if cancel else "finished")
        metrics = job.metrics()
        assert cancel or metrics["records_in"] == metrics["records_out"], "stopping lost records that had been read"
    left = asyncio.all_tasks() - before
    assert not left, f"left behind: {left}"
    return spent


def measure(options: Options) -> Result:
    """The slowest of all stops and cancels, on both loops."""
    runs = {}
    for loop in LOOPS:
        runs[f"{loop} stop"] = partial(on_loop, loop, partial(busy, options.backend, cancel=False))
        runs[f"{loop} cancel"] = partial(on_loop, loop, partial(busy, options.backend, cancel=True))
    seconds: dict[str, list[float]] = interleaved(options.rounds, runs)
    worst = max(max(taken) for taken in seconds.values())
    return Result(
        f"stop {options.backend.partition(':')[0]}",
        "s",
        worst,
        target="under 1 s, nothing left behind",
        met=None if options.short else worst < 1.0,
        note="the slowest of all rounds; a stop delivers all that was read",
        detail={name: {"median_s": median(taken), "worst_s": max(taken)} for name, taken in seconds.items()},
    )
