"""What does a keyed shuffle between two processes reach, against pickled batches over a pipe? Reported, not judged yet."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop

__all__ = ["measure"]

BATCH = 1000
KEYS = 1000


def small_tuples(start: int, stop: int) -> list[tuple[int, int]]:
    """(key, value) records."""
    return [(i % KEYS, i) for i in range(start, stop)]


class TupleSource(sage.Source[tuple[int, int]]):
    """Makes its records where it runs: in a worker, not in the submitting process. Notes in a file when it began."""

    def __init__(self, count: int, folder: str) -> None:
        self.count = count
        self.folder = Path(folder)
        self.next = 0

    async def open(self, context: sage.FunctionContext) -> None:
        self.note = self.folder / str(context.subtask_index)

    async def read(self, limit: int) -> Sequence[tuple[int, int]] | None:
        if self.next == 0:
            self.note.write_text(str(time.perf_counter_ns()))
        if self.next == self.count:
            return None
        start, self.next = self.next, min(self.next + limit, self.count)
        return small_tuples(start, self.next)


def receive(pipe: Connection) -> None:
    """The other process of the floor: unpickle, count by key."""
    counts: dict[int, int] = {}
    pipe.send(b"ready")
    while batch := pickle.loads(pipe.recv_bytes()):
        for key, _ in batch:
            counts[key] = counts.get(key, 0) + 1
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


def with_time(record: tuple[int, int]) -> tuple[int, int]:
    """How often a key came, and when its worker knew; one clock for all processes of a machine."""
    return record[1], time.perf_counter_ns()


async def job(n: int, backend: str, folder: str) -> float:
    """Two sources, each in a worker of its own, key by key to two counts: half the records change the process.

    Answers when the last worker knew its counts; each source has noted when it began, so the start of the workers can be left out.
    """
    async with sage.Environment("shuffle", backend=backend, parallelism=2) as env:
        counts = (
            env.from_source(TupleSource, count=n // 2, folder=folder, parallelism=2)
            .key_by(lambda r: r[0])
            .count(emit="final")
            .map(with_time)
            .collect()
        )
        await env.execute()
    assert (sum(count for count, _ in counts), len(counts)) == (n // 2 * 2, KEYS)
    return max(end for _, end in counts) / 1e9


def ours(loop: str, n: int, backend: str) -> float:
    """Seconds of one job."""
    with tempfile.TemporaryDirectory() as folder:
        ended = on_loop(loop, lambda: job(n, backend, folder))
        return ended - min(int(note.read_text()) for note in Path(folder).iterdir()) / 1e9


def measure(options: Options) -> Result:
    """Records a second; on the process backend unless the command line says redis."""
    n = 100_000 if options.short else 2_000_000
    backend = "process" if options.backend == "local" else options.backend
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"
    seconds: dict[str, list[float]] = interleaved(options.rounds, {"floor": partial(floor, n), "ours": partial(ours, loop, n, backend)})
    ratio = median([b / a for a, b in zip(seconds["ours"], seconds["floor"], strict=True)])
    return Result(
        f"shuffle {backend.partition(':')[0]}",
        "rec/s",
        n / median(seconds["ours"]),
        n / median(seconds["floor"]),
        ratio_floor=ratio,
        note="floor: pickle-5 batches of 1,000 over a pipe to one other process; ours: two workers, half the records change the process, "
        "from the first read to the last count; the issue that speeds up the exchange sets the target",
        detail={"seconds": seconds},
    )
