"""What does a shuffle between two processes reach, of small tuples and of arrays of 1 MB, against pickles over a pipe?"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from multiprocessing.connection import Connection

from benchmarks.array_shuffle import measure_arrays
from benchmarks.result import Result
from benchmarks.rounds import Options
from benchmarks.shuffle_case import BATCH, count_keys, measure_shuffle, small_tuples

__all__ = ["measure"]

TUPLES, ARRAYS = 0.8, 3.0


def receive(pipe: Connection) -> None:
    """The other process of the floor: unpickle, count by key."""
    counts: dict[int, int] = {}
    pipe.send(b"ready")
    while batch := pickle.loads(pipe.recv_bytes()):
        count_keys(counts, batch)
    pipe.send(sum(counts.values()))


def floor(n: int) -> float:
    """One process makes batches and pickles them into a pipe, another counts."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(there,))
    process.start()
    here.recv()
    begun = time.perf_counter()
    for start in range(0, n, BATCH):
        here.send_bytes(pickle.dumps(small_tuples(start, min(start + BATCH, n)), protocol=5))
    here.send_bytes(pickle.dumps([], protocol=5))
    counted = here.recv()
    spent = time.perf_counter() - begun
    process.join()
    assert counted == n
    return spent


def measure(options: Options) -> Result:
    """Tuples a second, and in the detail arrays of 1 MB a second; both have to meet their target."""
    result = measure_shuffle(options, "process", floor, TUPLES, "pickle-5 batches of 1,000 over a pipe to one other process, which counts")
    arrays = measure_arrays(options)
    ratio = arrays["ratio"]
    assert isinstance(ratio, float)
    result.detail["arrays of 1 MB"] = arrays
    result.target = f"at least {TUPLES} of the pipe for tuples, and {ARRAYS} times it for arrays of 1 MB"
    result.note += f"; arrays of 1 MB: {ratio:.2f} times multiprocessing.Pipe"
    if result.met is not None:
        result.met = result.met and ratio >= ARRAYS
    return result
