"""What do checkpoints cost a job with a million keys of which one in a hundred is touched each second: throughput, pauses, bytes?"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop
from sage_actor.telemetry.histogram import LogHistogram

__all__ = ["HotKeys", "measure"]

STATES = ("memory", "rocksdb")
LOSS, PAUSE = 3.0, 10.0
BATCH = 4096


class HotKeys(sage.Source[int]):
    """Every key once; then, for some seconds, as fast as they are taken, keys of a hundredth that moves on each second."""

    def __init__(self, keys: int, seconds: float) -> None:
        self.keys = keys
        self.hot = max(1, keys // 100)
        self.seconds = seconds
        self.next = 0
        self.begun: float | None = None
        self.part = -1
        self.slices: list[list[int]] = []
        self.turn = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        return self.read_nowait(limit)

    def read_nowait(self, limit: int) -> Sequence[int] | None:
        if self.next < self.keys:
            first = self.next
            self.next = min(self.keys, first + limit)
            return list(range(first, self.next))
        now = time.perf_counter()
        if self.begun is None:
            self.begun = now
        if now - self.begun >= self.seconds:
            return None
        part = int(now - self.begun)
        if part != self.part:
            self.part = part
            first = part % 100 * self.hot
            hot = list(range(first, first + self.hot))
            self.slices = [hot[at : at + BATCH] for at in range(0, self.hot, BATCH)]
        self.turn += 1
        return self.slices[self.turn % len(self.slices)]

    def position(self) -> object:
        return self.next


class Gaps(sage.Sink[object]):
    """Counts what comes `settled` seconds after the first `skipped` records, and notes the times between two batches.

    By then the first checkpoint, the one of all keys, is behind us.
    """

    def __init__(self, skipped: int, settled: float) -> None:
        self.skipped = skipped
        self.settled = settled
        self.records = 0
        self.begun = self.latest = 0.0
        self.gaps: list[float] = []

    async def write(self, batch: Sequence[object]) -> None:
        now = time.perf_counter()
        if self.skipped > 0:
            self.skipped -= len(batch)
            self.begun = now + self.settled
        if now < self.begun:
            self.latest = now
            return
        self.records += len(batch)
        self.gaps.append(now - self.latest)
        self.latest = now

    @property
    def rate(self) -> float:
        """Records a second, once everything is loaded."""
        return self.records / (self.latest - self.begun)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One run: records a second, the longest pause between two batches at the sink, what the checkpoints say."""

    rate: float
    pause: float
    frozen: float = 0.0
    checkpoints: int = 0
    seconds: float = 0.0
    first_bytes: int = 0
    bytes_each: float = 0.0


def longest_freeze(job: sage.Job) -> float:
    """Milliseconds for which a task stood still at a barrier, at most, as its histogram has it."""
    tasks = cast("Sequence[Mapping[str, Mapping[str, Any]]]", job.metrics()["tasks"])
    return max(LogHistogram.from_dict(task["snapshot_pause"]).percentile(1.0) for task in tasks) / 1e6


async def run(keys: int, seconds: float, state: str, interval: float | None) -> Stretch:
    """The same job with checkpoints or without."""
    with tempfile.TemporaryDirectory(prefix="sage-checkpoint-") as folder:
        config: dict[str, object] = {"state.backend": state}
        if interval is not None:
            config |= {"checkpoint.interval": interval, "checkpoint.dir": folder, "checkpoint.retained": 1}
        sink = Gaps(keys, seconds / 3)
        async with sage.Environment("hot-keys", config=config) as env:
            env.from_source(HotKeys(keys, seconds)).key_by(lambda key: key).count().sink(sink)
            job = await env.execute()
        done = list(job.checkpoints)
        frozen = longest_freeze(job)
        sizes = [checkpoint.nbytes for checkpoint in done]
        changes = [after - before for before, after in itertools.pairwise(sizes) if after > before]
        return Stretch(
            sink.rate,
            max(sink.gaps) * 1e3,
            frozen,
            len(done),
            median([checkpoint.seconds for checkpoint in done]) if done else 0.0,
            sizes[0] if sizes else 0,
            median([float(change) for change in changes]) if changes else 0.0,
        )


def loss(on: Sequence[Stretch], off: Sequence[Stretch]) -> float:
    """Per cent of throughput, the median over rounds."""
    return median([100 * (1 - with_.rate / without.rate) for with_, without in zip(on, off, strict=True)])


def measure(options: Options) -> Result:
    """Throughput lost, pauses above those of the same job without checkpoints, bytes a checkpoint; both state backends."""
    keys, seconds, interval = (20_000, 1.0, 0.2) if options.short else (1_000_000, 12.0, 1.0)
    loop = "uvloop" if "uvloop" in LOOPS else "asyncio"
    runs = {}
    for state in STATES:
        runs[state] = partial(on_loop, loop, partial(run, keys, seconds, state, interval))
        runs[f"{state} without"] = partial(on_loop, loop, partial(run, keys, seconds, state, None))
    taken = interleaved(options.rounds, runs)
    detail: dict[str, object] = {"loop": loop}
    met = True
    losses: dict[str, float] = {}
    for state in STATES:
        on, off = taken[state], taken[f"{state} without"]
        losses[state] = loss(on, off)
        pause = median([with_.pause - without.pause for with_, without in zip(on, off, strict=True)])
        hot = keys // 100
        met = met and losses[state] < LOSS and pause < PAUSE
        detail[state] = {
            "records_a_second": median([stretch.rate for stretch in on]),
            "loss_percent": losses[state],
            "pause_above_probe_ms": pause,
            "probe_pause_ms": median([stretch.pause for stretch in off]),
            "frozen_ms_at_most": median([stretch.frozen for stretch in on]),
            "checkpoints": median([float(stretch.checkpoints) for stretch in on]),
            "seconds_each": median([stretch.seconds for stretch in on]),
            "first_bytes_per_key": median([stretch.first_bytes / keys for stretch in on]),
            "bytes_per_changed_key": median([stretch.bytes_each / hot for stretch in on]),
        }
    worst = max(losses, key=lambda state: losses[state])
    return Result(
        "checkpoint",
        "rec/s",
        median([stretch.rate for stretch in taken[worst]]),
        median([stretch.rate for stretch in taken[f"{worst} without"]]),
        ratio_floor=1 - losses[worst] / 100,
        target=f"loss under {LOSS:g} %, longest pause under {PAUSE:g} ms above the probe's own, bytes in proportion to what changed",
        met=None if options.short else met,
        note=f"shown: {worst}; floor and probe: the same job without checkpoints; a pause is the time between two batches at the sink",
        detail=detail,
    )
