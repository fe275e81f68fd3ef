"""The keyed shuffle of small tuples that is measured on every backend with workers; each backend brings the floor it is held to."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop, pairs

__all__ = ["BATCH", "KEYS", "count_keys", "measure_shuffle", "small_tuples"]

BATCH = 1000
"""Records in one message of a floor."""

KEYS = 1000


def small_tuples(start: int, stop: int) -> list[tuple[int, int]]:
    """(key, value) records."""
    return [(i % KEYS, i) for i in range(start, stop)]


def count_keys(counts: dict[int, int], records: Sequence[tuple[int, int]]) -> None:
    """What the receiving end of a floor does with a batch."""
    for key, _ in records:
        counts[key] = counts.get(key, 0) + 1


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
    """Seconds of one job, from the first read to the last count."""
    with tempfile.TemporaryDirectory() as folder:
        ended = on_loop(loop, lambda: job(n, backend, folder))
        return ended - min(int(note.read_text()) for note in Path(folder).iterdir()) / 1e9


def measure_shuffle(options: Options, backend: str, floor: Callable[[int], float], target: float, note: str = "") -> Result:
    """Records a second on `backend`, whose ratio to the floor must be at least `target`.

    Args:
        backend: its address.
        floor: takes a number of records to the seconds that a hand-written program spends on them over the same transport, from the
            first record made to the last count known; the start of processes and servers left out. Batches of `BATCH` records.
        target: the least ratio of our rate to the floor's.
        note: what the floor is, in a few words.
    """
    n = 100_000 if options.short else 2_000_000
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"
    seconds: dict[str, list[float]] = interleaved(options.rounds, {"floor": partial(floor, n), "ours": partial(ours, loop, n, backend)})
    ratio = pairs(seconds["ours"], seconds["floor"])
    name = backend.partition(":")[0]
    return Result(
        f"shuffle {name}",
        "rec/s",
        n / median(seconds["ours"]),
        n / median(seconds["floor"]),
        ratio_floor=ratio,
        target=f"at least {target} of the floor",
        met=None if options.short else ratio >= target,
        note=f"floor: {note}; ours: two workers, half the records change the process, from the first read to the last count",
        detail={"seconds": seconds, "ratio_by_round": [b / a for a, b in zip(seconds["ours"], seconds["floor"], strict=True)]},
    )
