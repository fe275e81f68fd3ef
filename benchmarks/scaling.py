"""What do two workers reach with a CPU-bound map, against two bare processes?"""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop, pairs

__all__ = ["measure"]

TARGET = 0.93
STEPS = 5_000
"""Turns of a plain Python loop for one record: about a quarter of a millisecond."""

Span = tuple[int, int]
"""When the work on a record began and ended, on the clock that all processes of a machine share."""


def work(record: int) -> Span:
    """Something that holds the interpreter."""
    begun = time.perf_counter_ns()
    value = record
    for step in range(STEPS):
        value = (value * 31 + step) % 1_000_003
    return begun, time.perf_counter_ns()


def bare(pipe: Connection, start: int, stop: int) -> None:
    """One of the two processes of the floor: half of the records, in a loop, once it is told to begin."""
    pipe.send("ready")
    pipe.recv()
    spans = [work(record) for record in range(start, stop)]
    pipe.send((spans[0][0], spans[-1][1]))


def floor(count: int) -> float:
    """Seconds of two bare processes, from the first record begun to the last one done."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[SpawnProcess] = []
    for start in (0, count // 2):
        here, there = multiprocessing.Pipe()
        process = context.Process(target=bare, args=(there, start, start + count // 2))
        process.start()
        here.recv()
        pipes.append(here)
        processes.append(process)
    for pipe in pipes:
        pipe.send("begin")
    ends: list[Span] = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return (max(ended for _, ended in ends) - min(begun for begun, _ in ends)) / 1e9


async def job(count: int) -> list[Span]:
    """The same records from the submitting process, dealt to two workers, and the results back."""
    async with sage.Environment("scaling", backend="process", parallelism=2) as env:
        spans = env.from_collection(range(count)).rebalance().map(work).collect()
        await env.execute()
    return list(spans)


def ours(loop: str, count: int) -> float:
    """Seconds of one job, from the first record begun to the last one done."""
    spans = on_loop(loop, lambda: job(count))
    assert len(spans) == count
    return (max(ended for _, ended in spans) - min(begun for begun, _ in spans)) / 1e9


def measure(options: Options) -> Result:
    """Records a second; the workers' start is left out on both sides."""
    count = 200 if options.short else 8_000
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"
    seconds = interleaved(options.rounds, {"floor": partial(floor, count), "ours": partial(ours, loop, count)})
    ratio = pairs(seconds["ours"], seconds["floor"])
    return Result(
        "scaling process",
        "rec/s",
        count / median(seconds["ours"]),
        count / median(seconds["floor"]),
        ratio_floor=ratio,
        target=f"at least {TARGET} of two bare processes",
        met=None if options.short else ratio >= TARGET,
        note=f"a map of {STEPS} loop turns a record; floor: two processes with half of the records each; ours: dealt to two workers by a "
        "third process, which also takes the results",
        detail={"seconds": seconds, "ratio_by_round": [b / a for a, b in zip(seconds["ours"], seconds["floor"], strict=True)]},
    )
