"""Arrays of 1 MB from one worker to another: the second half of the shuffle between processes, against objects through a pipe."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import sage_actor as sage
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop, pairs

__all__ = ["measure_arrays"]

NUMBERS = 131_072
"""Doubles in one array of 1 MiB."""

KINDS = 8
"""Arrays that a sender has; it sends them again and again, so that making them is not measured."""

Array = np.ndarray[Any, np.dtype[np.float64]]


def some_arrays() -> list[Array]:
    """Each full of its own number."""
    return [np.full(NUMBERS, float(kind)) for kind in range(KINDS)]


def expected(count: int) -> float:
    """The sum of so many arrays."""
    return float(sum(NUMBERS * (number % KINDS) for number in range(count)))


def receive(pipe: Connection, count: int) -> None:
    """The other process of the floor: take every array, and read all of it."""
    pipe.send("ready")
    pipe.send(sum(float(pipe.recv().sum()) for _ in range(count)))


def floor(count: int) -> float:
    """Seconds of one process that sends arrays through ``multiprocessing.Pipe`` to another."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(there, count))
    process.start()
    here.recv()
    arrays = some_arrays()
    begun = time.perf_counter()
    for number in range(count):
        here.send(arrays[number % KINDS])
    total = here.recv()
    spent = time.perf_counter() - begun
    process.join()
    assert total == expected(count)
    return spent


class ArraySource(sage.Source[Array]):
    """Has its arrays in a worker; notes in a file when it began, and where."""

    def __init__(self, count: int, note: str) -> None:
        self.count = count
        self.note = Path(note)
        self.next = 0

    async def open(self, context: sage.FunctionContext) -> None:
        self.arrays = some_arrays()

    async def read(self, limit: int) -> Sequence[Array] | None:
        if self.next == 0:
            self.note.write_text(f"{time.perf_counter_ns()} {os.getpid()}")
        if self.next == self.count:
            return None
        # Some megabytes a read, as a source of large records should: a batch is cut by records, not by bytes.
        start, self.next = self.next, min(self.next + min(limit, KINDS), self.count)
        # An object of its own each: one that comes twice in a batch would travel once.
        return [self.arrays[number % KINDS][:] for number in range(start, self.next)]


def summed(array: Array) -> tuple[float, int, int]:
    """Its sum, where it was taken, and when."""
    return float(array.sum()), os.getpid(), time.perf_counter_ns()


async def job(count: int, note: str) -> list[tuple[float, int, int]]:
    """One source in the first worker, every array to the second."""
    async with sage.Environment("arrays", backend="process", parallelism=2) as env:
        sums = (
            env.from_source(ArraySource, count=count, note=note, parallelism=1)
            .partition_custom(lambda key, n: 1, lambda array: 0)
            .map(summed)
            .collect()
        )
        await env.execute()
    return list(sums)


def ours(loop: str, count: int) -> float:
    """Seconds of one job, from the first read to the last sum."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "begun"
        sums = on_loop(loop, lambda: job(count, str(note)))
        begun, pid = map(int, note.read_text().split())
    assert sum(total for total, _, _ in sums) == expected(count)
    assert pid not in {where for _, where, _ in sums}, "the arrays have not left their process"
    return (max(ended for _, _, ended in sums) - begun) / 1e9


def measure_arrays(options: Options) -> dict[str, object]:
    """Arrays a second of the floor and of ours, and the ratio: median, and round by round."""
    count = 50 if options.short else 1_000
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"
    seconds = interleaved(options.rounds, {"floor": partial(floor, count), "ours": partial(ours, loop, count)})
    return {
        "floor": count / median(seconds["floor"]),
        "ours": count / median(seconds["ours"]),
        "ratio": pairs(seconds["ours"], seconds["floor"]),
        "ratio_by_round": [b / a for a, b in zip(seconds["ours"], seconds["floor"], strict=True)],
    }
