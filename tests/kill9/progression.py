"""The job that is killed: arithmetic progressions through two exchanges, a fold, windows and timers into transactional sinks.

    python progression.py SETTINGS

SETTINGS is the JSON of `Settings`. Every progression 0, 1, 2 ... must come out whole, once and in order, with the running count and sum
that an unbroken run has; so must every window over it, and every timer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import sage_actor as sage

__all__ = ["JOB", "TIMER_EVERY", "WINDOW", "Settings", "timers_of", "windows_of"]

JOB = "progressions"
WINDOW = 100
TIMER_EVERY = 70


@dataclass(slots=True)
class Settings:
    """One run.

    Attributes:
        folder: everything is below it: checkpoints/, out/, windows.sqlite, and the events and the ledger of each run.
        run: its number.
        progressions, length: so many of so many records each.
        rate: records a second, all sources together.
        look: seconds between two looks at the job for what is to be written down.
    """

    folder: str
    run: int
    backend: str = "local"
    state: str = "memory"
    parallelism: int = 1
    progressions: int = 12
    length: int = 600
    rate: int = 4000
    interval: str = "100ms"
    look: float = 0.005
    config: dict[str, object] = field(default_factory=lambda: dict[str, object]())

    def event(self, name: str, **more: object) -> None:
        """Write down that something has happened; survives whatever comes next."""
        line = json.dumps({"event": name, "at": time.monotonic(), "pid": os.getpid(), **more})
        append(f"{self.folder}/events-{self.run}", line + "\n")


def append(path: str, line: str) -> None:
    """One write at the end of a file that several processes share."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


class Progressions(sage.Source[tuple[int, int]]):
    """Each progression is a split, [number, next]. Of its splits a reader goes on with the one that is furthest behind.

    So event time only grows in a reader, also when splits of several readers have come together.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.share: list[list[int]] = []
        self.rate = float(settings.rate)

    async def open(self, context: sage.FunctionContext) -> None:
        self.rate = self.settings.rate / context.parallelism
        mine = range(context.subtask_index, self.settings.progressions, context.parallelism)
        self.share = [[number, 0] for number in mine]

    async def read(self, limit: int) -> Sequence[tuple[int, int]] | None:
        if not self.share:
            return None
        count = min(limit, 20, len(self.share) * 4)
        await asyncio.sleep(count / self.rate)
        batch: list[tuple[int, int]] = []
        while len(batch) < count and self.share:
            split = min(self.share, key=lambda each: each[1])
            batch.append((split[0], split[1]))
            split[1] += 1
            if split[1] == self.settings.length:
                self.share.remove(split)
        append(f"{self.settings.folder}/ledger-{self.settings.run}", f"{len(batch)}\n")
        return batch

    def splits(self) -> Sequence[object]:
        return [list(split) for split in self.share]

    async def assign(self, splits: Sequence[object]) -> None:
        self.share = [list(split) for split in splits if isinstance(split, list)]


class Alarms(sage.KeyedProcessFunction):
    """A timer every so often, set by the record before; says how many records of its key there were until then."""

    def open(self, context: sage.FunctionContext) -> None:
        self.seen = context.state.value("seen", default=0)

    def process(self, value: tuple[int, int], context: sage.KeyedContext) -> Iterator[object]:
        self.seen.set(self.seen.get() + 1)
        if value[1] % TIMER_EVERY == 0:
            context.timers.event_time(value[1] + TIMER_EVERY - 1)
        return iter(())

    def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Iterator[object]:
        yield {"progression": context.key, "at": timestamp, "seen": self.seen.get()}


def timers_of(length: int) -> list[int]:
    """When timers of a progression are due. A timer sees itself and what is before; behind the end it sees everything."""
    return [first + TIMER_EVERY - 1 for first in range(0, length, TIMER_EVERY)]


def windows_of(length: int) -> dict[int, int]:
    """Beginning and sum of each window over a progression."""
    return {first: sum(range(first, min(first + WINDOW, length))) for first in range(0, length, WINDOW)}


def describe(env: sage.Environment, settings: Settings) -> None:
    """Source, then three branches, each into a sink of its own."""
    said: list[bool] = []

    def note(record: tuple[int, tuple[int, int, int]]) -> list[int]:
        if not said:
            said.append(True)
            settings.event("output")
        return [record[0], *record[1]]

    keyed = (
        env.from_source(Progressions, name="source", parallelism=settings.parallelism, settings=settings)
        .assign_timestamps(lambda record: record[1], sage.Monotonic())
        .key_by(lambda record: record[0])
    )
    (
        keyed.fold((-1, 0, 0), lambda so_far, record: (record[1], so_far[1] + 1, so_far[2] + record[1]), name="running")
        .key_by(lambda record: record[0])
        .map(note, name="note")
        .sink(sage.TransactionalFileSink, path=f"{settings.folder}/out", format="jsonl", roll_size="8KB", name="files")
    )
    (
        keyed.window(sage.Tumbling(f"{WINDOW}ms"))
        .sum(lambda record: record[1], name="windows")
        .map(lambda result: {"progression": result.key, "start": result.start, "sum": result.value})
        .sink(
            sage.SqliteSink,
            path=f"{settings.folder}/rows.sqlite",
            table="windows",
            columns=["progression", "start", "sum"],
            name="window rows",
        )
    )
    (
        keyed.process(Alarms, name="alarms").sink(
            sage.SqliteSink, path=f"{settings.folder}/rows.sqlite", table="timers", columns=["progression", "at", "seen"], name="timer rows"
        )
    )


def kinds_of(error: BaseException | None) -> Iterator[str]:
    """The classes of an error and of what it came from."""
    while error is not None:
        yield type(error).__name__
        error = error.__cause__


async def follow(job: sage.Job, settings: Settings) -> None:
    """Write down each attempt and each complete checkpoint."""
    attempts = checkpoints = 0
    while not job.done:
        if job.attempts != attempts:
            attempts, checkpoints = job.attempts, 0
            settings.event("attempt", number=attempts, restored=job.restored_from, error=str(job.latest_error or ""))
        for done in job.checkpoints[checkpoints:]:
            checkpoints += 1
            settings.event("complete", checkpoint=done.number, seconds=done.seconds)
        await asyncio.sleep(settings.look)


async def main(settings: Settings) -> None:
    """One run, to its end or to ours."""
    settings.event("begin")
    config: dict[str, object] = {
        "checkpoint.interval": settings.interval,
        "checkpoint.dir": f"{settings.folder}/checkpoints",
        "checkpointing": "exactly_once",
        "state.backend": settings.state,
        "restart.delay": "100ms",
        **settings.config,
    }
    async with sage.Environment(JOB, backend=settings.backend, parallelism=settings.parallelism, resume=True, config=config) as env:
        describe(env, settings)
        job = await env.submit()
        following = asyncio.create_task(follow(job, settings))
        try:
            await job.wait()
        finally:
            settings.event("end", status=job.status, error=str(job.error or ""), kinds=list(kinds_of(job.error)))
            await following


if __name__ == "__main__":
    logging.lastResort = None if os.environ.get("SAGE_KILL9_QUIET") else logging.lastResort
    asyncio.run(main(Settings(**json.loads(sys.argv[1]))))
