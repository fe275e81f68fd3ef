"""Does memory stay flat while the sink stands still and a source offers ten million records?"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sage_actor as sage
from benchmarks.memory import tree_mib
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, on_loop

__all__ = ["measure"]

LIMIT = 32.0
"""MiB. Three hops of two channels of 16,384 records of about 120 bytes are 12 MiB; unbounded it would be more than 1 GiB."""


class HeldSink(sage.Sink[tuple[int, int]]):
    """Takes nothing until a file appears; works alike in this process and in a worker."""

    def __init__(self, gate: str) -> None:
        self.gate = Path(gate)
        self.held = True

    async def write(self, batch: Sequence[tuple[int, int]]) -> None:
        while self.held:
            if self.gate.exists():
                self.held = False
            else:
                await asyncio.sleep(0.01)


def offered(n: int) -> Iterator[tuple[int, int]]:
    """Fresh objects, so that every record held costs memory."""
    return ((i, i + 1) for i in range(1_000_000, n + 1_000_000))


async def hold(n: int, backend: str, seconds: float) -> tuple[float, float, float, int]:
    """Hold the sink until the source stands still, and then some; then let everything flow out.

    Returns:
        MiB at the moment the source stood still, the peak while held, the peak until the end, records taken when held.
    """
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "open"
        async with sage.Environment("backpressure", backend=backend, parallelism=2) as env:
            stream = env.from_source(offered(n)).map(lambda r: (r[1], r[0])).rebalance().filter(lambda r: r[0] > 0)
            stream.sink(HeldSink, gate=str(gate), name="held")
            job = await env.submit()
            taken, still = -1, 0
            deadline = time.perf_counter() + 60
            while still < 10:
                await asyncio.sleep(0.05)
                now = int(job.metrics()["records_in"])
                still = still + 1 if now == taken and now > 0 else 0
                taken = now
                assert not job.done, f"the job is {job.status} already"
                assert tree_mib() < 2000, "memory grows without bound"
                assert time.perf_counter() < deadline, "the source never stood still"
            settled = peak = tree_mib()
            ends = time.perf_counter() + seconds
            while time.perf_counter() < ends:
                await asyncio.sleep(0.02)
                peak = max(peak, tree_mib())
            assert int(job.metrics()["records_in"]) == taken, "the source went on under a stopped sink"
            gate.touch()
            drained = peak
            while not job.done:
                await asyncio.sleep(0.02)
                drained = max(drained, tree_mib())
            await job.wait()
            metrics = job.metrics()
            assert metrics["records_in"] == metrics["records_out"] == n, f"{metrics['records_out']} of {n} records came out"
    return settled, peak, drained, taken


def measure(options: Options) -> Result:
    """Peak growth of resident memory, all processes together, against the same job offered a thousand records."""
    n = 300_000 if options.short else 10_000_000
    seconds = 0.3 if options.short else 3.0
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"
    on_loop(loop, lambda: hold(1000, options.backend, 0.1))  # imports and pools once
    control = on_loop(loop, lambda: hold(1000, options.backend, 0.3))
    settled, peak, drained, taken = on_loop(loop, lambda: hold(n, options.backend, seconds))
    growth = peak - control[1]
    return Result(
        f"backpressure {options.backend.partition(':')[0]}",
        "MiB",
        growth,
        target=f"peak under {LIMIT:.0f} MiB and flat (1 MiB) under a stopped sink, {n:,} records offered",
        met=None if options.short else growth < LIMIT and peak - settled < 1.0,
        note=f"growth against the same job with 1,000 records ({control[1]:.0f} MiB); all {n:,} arrived once the sink went on",
        detail={
            "records_taken_when_held": taken,
            "growth_while_held_mib": peak - settled,
            "peak_growth_until_the_end_mib": drained - control[1],
            "loop": loop,
        },
    )
