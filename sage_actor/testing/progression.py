"""The progression test: disjoint arithmetic progressions through everything that keeps state, under crashes, into a store that
checks that nothing is lost, duplicated or out of order."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final, cast

import sage_actor as sage
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.load_balancer import STRATEGIES
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction
from sage_actor.dataflow.source import Source
from sage_actor.errors import SageError
from sage_actor.ports import current_clock, current_random
from sage_actor.testing.simulated_faults import FaultRates, PlannedFault, draw_faults
from sage_actor.testing.simulated_findings import Finding, examine
from sage_actor.testing.simulated_lives import Life
from sage_actor.testing.simulated_run import SimulatedReport, run_course
from sage_actor.testing.simulated_site import Site
from sage_actor.testing.simulated_store import STORE, SimulatedStore, StoreSink

__all__ = ["ProgressionSource", "examine_progression", "run_progression"]

SPLITS: Final = 4
LENGTH: Final = 40  # records of each split
KEYS: Final = 5
STEP_MS: Final = 100
WINDOW_MS: Final = 1000
SLOW: Final = 8  # records at the end of each split that are held back while faults are outstanding
LADDERS: Final = ((1,), (2,), (4,), (2, 3, 1), (2, 3, 1), (1, 2, 4), (4, 1, 2))

SITE: Final[ContextVar[Site]] = ContextVar("SITE")


class ProgressionSource(Source[int]):
    """Split s gives s, s + SPLITS, s + 2 SPLITS, ...; of several splits it always reads the one that is furthest behind."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}

    async def open(self, context: FunctionContext) -> None:
        self.left = {split: 0 for split in range(SPLITS) if split % context.parallelism == context.subtask_index}

    async def assign(self, splits: Sequence[object]) -> None:
        self.left = dict(cast("Sequence[tuple[int, int]]", splits))

    def splits(self) -> Sequence[object]:
        return list(self.left.items())

    async def read(self, limit: int) -> Sequence[int] | None:
        if not self.left:
            return None
        chance = current_random()
        if chance.random() < 0.3:
            await current_clock().sleep(chance.random() * 0.2)
        if min(self.left.values()) >= LENGTH - SLOW and SITE.get().is_holding:
            await current_clock().sleep(chance.random())
            limit = 1
        return self._take(min(limit, chance.choice((1, 2, 5))))

    def _take(self, number: int) -> list[int]:
        taken: list[int] = []
        while self.left and len(taken) < number:
            split = min(self.left, key=lambda split: (self.left[split], split))
            taken.append(self.left[split] * SPLITS + split)
            self.left[split] += 1
            if self.left[split] == LENGTH:
                del self.left[split]
        return taken


def time_of(value: int) -> int:
    """The event time of a number: that of its place in its split."""
    return value // SPLITS * STEP_MS


def key_of(value: int) -> int:
    """The key of a number; each gets some of every split."""
    return value % KEYS


def failing(value: int) -> int:
    """Hands numbers on, and raises where the faults of the run say so."""
    if SITE.get().occurs("function"):
        raise ArithmeticError(f"a planned failure at {value}")
    return value


def add(state: tuple[int, int], value: int) -> tuple[int, int]:
    """How many, and their sum."""
    return state[0] + 1, state[1] + value


class Buckets(KeyedProcessFunction[int, Any]):
    """Counts the records of each key and second, in state, and tells them when a timer says that the second is over."""

    def open(self, context: Any) -> None:
        self.counts = context.state.map("counts")

    def process(self, value: int, context: KeyedContext) -> Iterator[Any]:
        bucket = time_of(value) // WINDOW_MS
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        context.timers.event_time((bucket + 1) * WINDOW_MS - 1)
        return iter(())

    def on_timer(self, timestamp: int, context: KeyedContext) -> Iterator[Any]:
        bucket = timestamp // WINDOW_MS
        yield ("timer", context.key, bucket, self.counts.pop(bucket))


def window_row(result: Any) -> tuple[str, int, int, int]:
    """A window's result as a row of the table."""
    return ("window", result.key, result.start // WINDOW_MS, result.value)


class Oracle:
    """Knows what the tables must hold, and judges every commit as it becomes visible."""

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.counted: dict[int, dict[int, int]] = {key: {} for key in range(KEYS)}
        self.rows: Counter[Any] = Counter()
        self.problems: list[str] = []
        store.on_commit = self.judge
        values = range(SPLITS * LENGTH)
        self.totals = {key: (len(range(key, len(values), KEYS)), sum(range(key, len(values), KEYS))) for key in range(KEYS)}
        self.expected: Counter[Any] = Counter()
        for value in values:
            self.expected["window", key_of(value), time_of(value) // WINDOW_MS] += value
            self.expected["timer", key_of(value), time_of(value) // WINDOW_MS] += 1

    def judge(self, table: str, records: Sequence[Any]) -> None:
        """Rows have become visible."""
        for record in records:
            if table == "results":
                self.rows[record] += 1
                kind, key, bucket, value = record
                if self.rows[record] > 1:
                    self.problems.append(f"duplicated: {record}")
                elif self.expected.get((kind, key, bucket)) != value:
                    self.problems.append(f"wrong: {record}, expected {self.expected.get((kind, key, bucket))}")
            else:
                key, (number, total) = record
                counted = self.counted[key]
                before = next(reversed(counted), 0)
                if number != before + 1:
                    word = "duplicated" if number in counted else "disordered"
                    self.problems.append(f"{word}: count {number} of key {key} was committed behind {before}")
                counted[number] = total

    def finish(self, collected: Sequence[Any]) -> None:
        """The job has finished, and has collected these.

        Raises:
            AssertionError: something was lost, duplicated, out of order, or left open.
        """
        missing = {row for row in self.expected if not self.rows[*row, self.expected[row]]}
        if missing:
            self.problems.append(f"lost: {len(missing)} results, such as {sorted(missing)[:3]}")
        for key, (number, total) in self.totals.items():
            counted = self.counted[key]
            if len(counted) != number:
                self.problems.append(f"lost: {number - len(counted)} counts of key {key}")
            elif counted[number] != total:
                self.problems.append(f"wrong: the sum of key {key} is {counted[number]}, expected {total}")
        timers = Counter({row: count for row, count in self.rows.items() if row[0] == "timer"})
        if Counter(collected) != timers:
            self.problems.append(f"collected {len(collected)} rows, which are not the {sum(timers.values())} of the table")
        open_ones = [t.name for t in self.store.transactions.values() if t.state == "prepared"]
        if open_ones:
            self.problems.append(f"left behind, neither committed nor aborted: {open_ones[:5]}")
        problems = self.store.violations + self.problems
        assert not problems, "; ".join(problems[:8]) + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")


class Course:
    """How one seed runs: on which backends, how parallel, with which buffers; and whether it is divided anew while it runs."""

    def __init__(self, seed: int, *, rescaled: bool = False) -> None:
        chance = random.Random(f"course {seed}")
        backend = chance.choice(("local", "simulated", "simulated", "mixed"))
        self.lives = [
            Life(chance.choice(("local", "simulated")) if backend == "mixed" else backend, parallelism)
            for parallelism in chance.choice(LADDERS)
        ]
        self.shuffled = chance.random() < 0.5
        self.busy = chance.choice((0.0, 0.0, 1e-4, 2e-3))
        self.collected: list[Any] = []
        self.seed = seed
        self.oracle: Oracle | None = None
        self.settings = {
            "checkpoint.dir": "checkpoints",
            "checkpoint.interval": chance.choice((0.1, 0.3)),
            "checkpoint.timeout": 2.0 + 20_000 * self.busy,
            "checkpoint.tolerated": 3,
            "checkpoint.retained": chance.choice((1, 3)),
            "restart.strategy": "fixed-delay",
            "restart.attempts": 0,
            "restart.delay": 0.1,
            "max_parallelism": 32,
            "buffer.records": chance.choice((1, 1, 2, 16, 4096)),
            "batch.records": chance.choice((1, 3, 64, 4096)),
        }
        self.moves = random.Random(f"moves {seed}") if rescaled else None
        self.moved = 0
        if self.moves is not None:
            self.shuffled = True
            self.settings["load_balancer.strategy"] = self.moves.choice(STRATEGIES)
            self.settings["load_balancer.rebalance_interval"] = self.moves.choice((200, 1000))

    def begin(self, site: Site) -> None:
        """Open a store, with somebody who watches it."""
        store = SimulatedStore(random.Random(f"store {self.seed}"))
        STORE.set(store)
        SITE.set(site)
        self.oracle = Oracle(store)

    def finish(self) -> None:
        """Look at what has come into the store."""
        assert self.oracle is not None
        self.oracle.finish(self.collected)

    async def run(self, life: Life) -> None:
        """The job, in one life."""
        async with sage.Environment(
            "progression", backend=life.backend, parallelism=life.parallelism, resume=True, config=self.settings
        ) as env:
            collected = self.describe(env, life)
            job = await env.submit()
            moving = None if self.moves is None else asyncio.ensure_future(self.move(job, self.moves))
            try:
                await job.wait()
            finally:
                if moving is not None:
                    moving.cancel()
                    await asyncio.wait((moving,))
        self.collected = list(collected)

    async def move(self, job: sage.Job, chance: random.Random) -> None:
        """Ask for another parallelism now and then. What is refused, or fails together with the job, is asked for again."""
        while True:
            await current_clock().sleep(chance.random())
            named = {chance.choice(("numbers", "failing", "sums", "buckets")): chance.randint(1, 4)}
            try:
                await job.rescale(chance.choice((named, chance.randint(1, 4))))
                self.moved += 1
            except SageError:
                continue

    def describe(self, env: Any, life: Life) -> Sequence[Any]:
        """The dataflow; answers what it collects in the job's own process."""
        numbers = env.from_source(ProgressionSource, name="numbers", parallelism=life.parallelism)
        stamped = numbers.assign_timestamps(time_of, sage.Monotonic())
        if self.shuffled:
            stamped = stamped.rebalance()
        keyed = stamped.map(failing, name="failing").key_by(key_of)
        sums = keyed.fold((0, 0), add, name="sums")
        sums.sink(StoreSink, table="sums", name="sums sink")
        windows = keyed.window(sage.Tumbling("1s")).sum().map(window_row, name="rows")
        timers = keyed.process(Buckets, name="buckets")
        windows.union(timers).sink(StoreSink, table="results", name="results sink")
        return timers.collect()  # type: ignore[no-any-return]


def run_progression(
    seed: int, faults: Sequence[PlannedFault] | None = None, *, rescaled: bool = False, max_steps: int = 1_000_000
) -> SimulatedReport:
    """One seed, from nothing to the end of the job.

    Args:
        seed: decides everything.
        faults: in place of those that follow from the seed.
        rescaled: change the parallelism all the time, under any load balancer.
        max_steps: callbacks after which the run counts as endless.

    Raises:
        AssertionError: something was lost, duplicated or out of order.
    """
    planned = draw_faults(seed, FaultRates()) if faults is None else faults
    course = Course(seed, rescaled=rescaled)
    report = run_course(seed, planned, course, max_steps=max_steps)
    report.counts["moves"] += course.moved
    return report


def examine_progression(seed: int, *, rescaled: bool = False) -> SimulatedReport | Finding:
    """The same, and again with a kill more if nothing has crashed; what is wrong comes back, with the faults that led to it."""
    return examine(seed, FaultRates(), functools.partial(run_progression, rescaled=rescaled))
