"""The progression test: disjoint arithmetic progressions through everything that keeps state, under crashes, into a store that
checks that nothing is lost, duplicated or out of order.

    python -m sage_actor.testing.progression --seeds 5000
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import sage_actor as sage
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction
from sage_actor.dataflow.source import Source
from sage_actor.ports import current_clock, current_random
from sage_actor.testing.simulated_faults import FaultRates, PlannedFault, draw_faults
from sage_actor.testing.simulated_hooks import hooked
from sage_actor.testing.simulated_lives import Life, live
from sage_actor.testing.simulated_site import Site
from sage_actor.testing.simulated_store import STORE, SimulatedStore, StoreSink
from sage_actor.testing.simulation import Simulation

__all__ = ["ProgressionReport", "ProgressionSource", "run_progression"]

SPLITS: Final = 4
LENGTH: Final = 40  # records of each split
KEYS: Final = 5
STEP_MS: Final = 100
WINDOW_MS: Final = 1000
SLOW: Final = 8  # records at the end of each split that are held back while faults are outstanding
LIMIT: Final = 20.0  # virtual seconds after which nothing is held back any more
LADDERS: Final = ((1,), (2,), (4,), (2, 3, 1), (2, 3, 1), (1, 2, 4), (4, 1, 2))

SITE: Final[ContextVar[Site]] = ContextVar("SITE")


class ProgressionSource(Source[int]):
    """Split s gives s, s + SPLITS, s + 2 SPLITS, ...; of several splits it always reads the one that is furthest behind."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}

    async def open(self, context: FunctionContext) -> None:
        self.left = {split: 0 for split in range(SPLITS) if split % context.parallelism == context.subtask_index}

    async def assign(self, splits: Sequence[object]) -> None:
        self.left = dict(splits)  # type: ignore[call-overload]

    def splits(self) -> Sequence[object]:
        return list(self.left.items())

    async def read(self, limit: int) -> Sequence[int] | None:
        if not self.left:
            return None
        chance = current_random()
        if chance.random() < 0.3:
            await current_clock().sleep(chance.random() * 0.2)
        if min(self.left.values()) >= LENGTH - SLOW and _is_holding():
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


def _is_holding() -> bool:
    site = SITE.get()
    return site.kills_left > 0 and site.loop.time() < LIMIT


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


class Buckets(KeyedProcessFunction):
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
        self.counted: dict[int, tuple[int, int]] = {}
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
                before = self.counted.get(key, (0, 0))[0]
                if number != before + 1:
                    word = "lost" if number > before + 1 else "duplicated"
                    self.problems.append(f"{word}: count {number} of key {key} was committed behind {before}")
                self.counted[key] = (number, total)

    def finish(self, collected: Sequence[Any]) -> None:
        """The job has finished, and has collected these.

        Raises:
            AssertionError: something was lost, duplicated, out of order, or left open.
        """
        missing = {row for row in self.expected if not self.rows[*row, self.expected[row]]}
        if missing:
            self.problems.append(f"lost: {len(missing)} results, such as {sorted(missing)[:3]}")
        if self.counted != self.totals:
            self.problems.append(f"final counts {self.counted}, expected {self.totals}")
        timers = Counter({row: count for row, count in self.rows.items() if row[0] == "timer"})
        if Counter(collected) != timers:
            self.problems.append(f"collected {len(collected)} rows, which are not the {sum(timers.values())} of the table")
        open_ones = [t.name for t in self.store.transactions.values() if t.state == "prepared"]
        if open_ones:
            self.problems.append(f"left behind, neither committed nor aborted: {open_ones[:5]}")
        problems = self.store.violations + self.problems
        assert not problems, "; ".join(problems[:8]) + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")


@dataclass(frozen=True, slots=True)
class ProgressionReport:
    """What one seed went through.

    Attributes:
        lives: how often the job was started.
        counts: crashes, checkpoints, restores.
        kills: how often something was killed at each point.
        happened: the faults that struck, in words.
        log_hash: of the run.
    """

    lives: int
    counts: Counter[str]
    kills: Counter[str]
    happened: list[str]
    log_hash: str


class Course:
    """How one seed runs: on which backends, how parallel, with which buffers."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(f"course {seed}")
        backend = chance.choice(("local", "simulated", "simulated", "mixed"))
        self.lives = [
            Life(chance.choice(("local", "simulated")) if backend == "mixed" else backend, parallelism)
            for parallelism in chance.choice(LADDERS)
        ]
        self.shuffled = chance.random() < 0.5
        self.busy = chance.choice((0.0, 0.0, 1e-4, 2e-3))
        self.collected: list[Any] = []
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

    async def run(self, life: Life) -> None:
        """The job, in one life."""
        async with sage.Environment(
            "progression", backend=life.backend, parallelism=life.parallelism, resume=True, config=self.settings
        ) as env:
            collected = self.describe(env, life)
            await env.execute()
        self.collected = list(collected)

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


def run_progression(seed: int, faults: Sequence[PlannedFault] | None = None, *, max_steps: int = 1_000_000) -> ProgressionReport:
    """One seed, from nothing to the end of the job.

    Args:
        seed: decides everything.
        faults: in place of those that follow from the seed.
        max_steps: callbacks after which the run counts as endless.

    Raises:
        AssertionError: something was lost, duplicated or out of order.
    """
    planned = draw_faults(seed, FaultRates()) if faults is None else faults
    found: list[tuple[int, Site]] = []
    course = Course(seed)

    async def main() -> None:
        site = Site(seed, planned)
        store = SimulatedStore(random.Random(f"store {seed}"))
        STORE.set(store)
        SITE.set(site)
        oracle = Oracle(store)
        found.append((0, site))
        with site.open(), hooked(site):
            lives = await live(site, course.lives, course.run)
        found[0] = (lives, site)
        oracle.finish(course.collected)

    simulation = Simulation(seed, max_steps=max_steps, busy=course.busy)
    try:
        simulation.run(main)
    except BaseException as error:
        for line in found[0][1].happened if found else ():
            error.add_note(line)
        raise
    lives, site = found[0]
    return ProgressionReport(lives, site.counts, site.kills, site.happened, simulation.log_hash)
