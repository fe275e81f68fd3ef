"""Whole jobs with room for one record in each channel, checkpoints all the time, failures: no deadlock, nothing lost (F43, F40, F35)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock
from sage_actor.testing import Simulation
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk


class Numbers(sage.Source[int]):
    """0 .. count-1, dealt over the tasks, a few at a time."""

    def __init__(self, count: int, step: int = 3, pause: float = 0.01) -> None:
        self.count = count
        self.step = step
        self.pause = pause
        self.ranges: list[tuple[int, int]] = []

    async def open(self, context: sage.FunctionContext) -> None:
        share = -(-self.count // context.parallelism)
        begin = context.subtask_index * share
        self.ranges = [(begin, min(self.count, begin + share))]

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.pause)
        while self.ranges and self.ranges[0][0] >= self.ranges[0][1]:
            self.ranges.pop(0)
        if not self.ranges:
            return None
        begin, end = self.ranges[0]
        stop = min(end, begin + min(limit, self.step))
        self.ranges[0] = (stop, end)
        return list(range(begin, stop))

    def splits(self) -> Sequence[object]:
        return [part for part in self.ranges if part[0] < part[1]]

    async def assign(self, splits: Sequence[object]) -> None:
        self.ranges = [part for part in splits if isinstance(part, tuple)]


class Failing:
    """Raises once for each of the given numbers of calls; it remembers over attempts."""

    def __init__(self, *at: int) -> None:
        self.at = sorted(at)
        self.seen = 0

    def __call__(self, value: Any) -> Any:
        self.seen += 1
        if self.at and self.seen >= self.at[0]:
            self.at.pop(0)
            raise RuntimeError(f"on purpose, at record {self.seen}")
        return value

    def __deepcopy__(self, memo: object) -> Failing:
        return self


COUNT = 120


@pytest.mark.rule("F43")
@pytest.mark.rule("F40")
@pytest.mark.rule("F34")
@pytest.mark.parametrize("seed", range(40))
def test_no_deadlock_and_nothing_lost(seed: int) -> None:
    """Branches that meet again, joins of slow and fast ways, side outputs and dead letters; buffers of 1 to 3 records."""
    chance = Random(seed)
    parallelism = chance.choice((1, 2, 3))
    tag: sage.OutputTag[int] = sage.OutputTag("odd")

    async def slow(n: int) -> int:
        await asyncio.sleep((n * 7919 % 13) / 1000)
        return n

    def refuse(n: int) -> int:
        if n % 10 == 0:
            raise ValueError("not ten")
        return n

    def aside(n: int, context: sage.ProcessContext) -> Any:
        if n % 2:
            context.output(tag, n)
        else:
            yield n

    async def main() -> dict[str, list[Any]]:
        asyncio.get_running_loop().sage_disk = SimulatedDisk(  # type: ignore[attr-defined]
            Random(seed), current_clock(), DiskFaults(slow=0.2, slow_seconds=0.05)
        )
        config = {
            "checkpoint.dir": "c",
            "checkpoint.every": chance.choice((5, 20, 50)),
            "checkpointing": "exactly_once",
            "restart.delay": 0.01,
            "restart.jitter": 0,
            "buffer.records": chance.choice((1, 1, 2, 3)),
            "batch.records": chance.choice((1, 2, 8)),
        }
        failing = Failing(*(chance.randrange(1, 4 * COUNT) for _ in range(chance.randrange(3))))
        async with sage.Environment("small", parallelism=parallelism, config=config) as env:
            numbers = env.from_source(Numbers, count=COUNT)
            left = numbers.rebalance().map(failing, name="left")
            right = numbers.rebalance().map_async(slow, concurrency=3, ordered=chance.random() < 0.5)
            out: dict[str, Any] = {}
            out["both"] = left.union(right).rebalance().map(lambda n: n, name="met").collect(name="both-out")
            split = numbers.key_by(lambda n: n % 7).map(refuse, name="refuse", on_error="dead_letter")
            out["letters"] = split.dead_letters().map(lambda letter: letter.value, name="value").collect(name="letters-out")
            sides = split.process(aside)
            out["odd"] = sides.side_output(tag).collect(name="odd-out")
            out["even"] = sides.key_by(lambda n: n % 3).count().collect(name="even-out")
            job = await env.submit()
            await job.wait()
        return {name: list(results) for name, results in out.items()}

    out = Simulation(seed, max_steps=3_000_000).run(main)
    assert Counter(out["both"]) == Counter(dict.fromkeys(range(COUNT), 2))
    assert sorted(out["letters"]) == list(range(0, COUNT, 10))
    assert sorted(out["odd"]) == list(range(1, COUNT, 2))
    even = Counter(n % 3 for n in range(COUNT) if n % 2 == 0 and n % 10)
    assert Counter(out["even"]) == Counter((key, n + 1) for key, total in even.items() for n in range(total))


@pytest.mark.rule("F35")
@pytest.mark.rule("F36")
@pytest.mark.rule("F40")
@pytest.mark.parametrize("seed", range(15))
def test_timers_through_restarts_fire_once_in_order_and_before_time_goes_on(seed: int) -> None:
    chance = Random(seed)

    class Alarms(sage.KeyedProcessFunction[int, Any]):
        def process(self, value: int, context: sage.KeyedContext) -> Any:
            context.timers.event_time(value // 10 * 10 + 10)  # ten records set the same timer
            yield ("record", context.key, value)

        def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Any:
            if timestamp % 10 == 0:
                context.timers.event_time(timestamp - 3)  # due already: fires in the same pass
            yield ("timer", context.key, timestamp)

    async def main() -> list[Any]:
        asyncio.get_running_loop().sage_disk = SimulatedDisk(Random(seed), current_clock())  # type: ignore[attr-defined]
        config = {"checkpoint.dir": "c", "checkpoint.every": 30, "restart.delay": 0.01, "restart.jitter": 0, "buffer.records": 2}
        failing = Failing(*(chance.randrange(1, 400) for _ in range(2)))
        async with sage.Environment("timers", config=config) as env:
            stream = env.from_source(Numbers, count=300, step=5).assign_timestamps(lambda n: n).map(failing)
            out = stream.key_by(lambda n: n % 2).process(Alarms()).set_parallelism(2).map(lambda result: result).collect()
            await env.execute()
        return list(out)

    out = Simulation(seed).run(main)
    for key in range(2):
        own = [item for item in out if item[1] == key]
        timers = [item[2] for item in own if item[0] == "timer"]
        assert Counter(timers) == Counter([*range(10, 310, 10), *range(7, 307, 10)]), "once each"
        bases = [time for time in timers if time % 10 == 0]
        assert bases == sorted(bases)
        for base in bases:
            assert timers.index(base - 3) == timers.index(base) + 1
        for position, item in enumerate(own):
            if item[0] == "timer":
                assert all(other[2] >= item[2] for other in own[position + 1 :] if other[0] == "record"), "event time had come so far"
