"""Uneven load, three ways out: tasks that pull from their sender, key groups that move, and a parallelism that changes while it runs.

1. Some records cost twenty times as much as others. Dealt in turns, a task with many of them works while others are idle; with
   ``work_stealing`` tasks take a little at a time, and whoever is done takes more.
2. Some keys come far more often than others, and by chance they belong to the same task. With ``key_group`` whole groups of keys move
   to other tasks, with their counts, and the order of each key stays.
3. `job.rescale` changes the number of tasks of a job that runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

import sage_actor as sage
from sage_actor import FunctionContext, LoadBalancer, MapFunction, Source

TASKS = 4
RECORDS = 2_000
LARGE = (8, 12, 33)
"""Customers with many orders. Their keys belong to the same task of four, which nobody could know."""


class Numbers(Source[int]):
    """0 .. count-1; it knows where it stands, so the job can stop and go on there."""

    def __init__(self, count: int, pause: float = 0.0) -> None:
        self.count = count
        self.pause = pause
        self.next = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.pause)
        begin, self.next = self.next, min(self.count, self.next + min(limit, 100))
        return range(begin, self.next) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


class Calls(sage.Sink[int]):
    """Something outside that takes its time over a record, twenty times as long over some."""

    finished: ClassVar[Counter[int]] = Counter()

    async def open(self, context: FunctionContext) -> None:
        self.task = context.subtask_index

    async def write(self, batch: Sequence[int]) -> None:
        for number in batch:
            await asyncio.sleep(0.004 if number % 100 < 5 else 0.0002)
            Calls.finished[self.task] += 1


async def call(strategy: str) -> float:
    """Seconds that all records take."""
    Calls.finished.clear()
    begun = asyncio.get_running_loop().time()
    async with sage.Environment(f"calls {strategy}", parallelism=TASKS) as env:
        env.set_load_balancer(LoadBalancer, {"strategy": strategy})
        env.from_source(Numbers, count=RECORDS).rebalance().sink(Calls, parallelism=TASKS)
        await env.execute()
    assert Calls.finished.total() == RECORDS
    return asyncio.get_running_loop().time() - begun


class Seen(MapFunction[tuple[str, int], tuple[str, int, int]]):
    """Adds which task has counted."""

    def open(self, context: FunctionContext) -> None:
        self.task = context.subtask_index

    def map(self, value: tuple[str, int]) -> tuple[str, int, int]:
        return (*value, self.task)


def heaviest(rows: Iterable[tuple[str, int, int]]) -> float:
    """The share of the task that had most to do."""
    seen = Counter(task for _, _, task in rows)
    return max(seen.values()) / seen.total()


def customer_of(order: int) -> str:
    """Nine of ten orders come from the large customers."""
    return f"customer {LARGE[order % len(LARGE)] if order % 10 else order % 400}"


async def count() -> list[tuple[str, int, int]]:
    """Counts orders by customer."""
    async with sage.Environment("orders", parallelism=TASKS) as env:
        env.set_load_balancer(LoadBalancer, {"strategy": "key_group", "rebalance_interval": "50ms"})
        orders = env.from_source(Numbers, count=30_000, pause=0.001).map(customer_of)
        counted = orders.key_by(lambda customer: customer).count(name="count").map(Seen()).collect()
        job = await env.execute()
        print(f"key groups have moved {job.rescales} time(s)")
        assert job.rescales >= 1
    seen: Counter[str] = Counter()
    for customer, number, _ in counted:
        seen[customer] += 1
        assert number == seen[customer], "the order of each key stays"
    return list(counted)


async def grow() -> None:
    """From one task to four and down to two, in the middle of the input."""
    async with sage.Environment("growing", config={"checkpointing": "on_demand"}) as env:
        totals = env.from_source(Numbers, count=20_000, pause=0.001).key_by(lambda n: n % 7).count(name="count").collect()
        job = await env.submit()
        for parallelism in (4, 2):
            await job.rescale(parallelism)
            print(f"now {job.metrics().operators['count']['parallelism']} tasks")
        await job.wait()
    seen: Counter[int] = Counter()
    for key, number in totals:
        seen[key] += 1
        assert number == seen[key], "no record lost, none twice, each key in order"
    assert seen.total() == 20_000


async def main() -> None:
    turns, pulled = await call("round_robin"), await call("work_stealing")
    print(f"{RECORDS:,} calls over {TASKS} tasks: in turns {turns:.2f} s, pulled {pulled:.2f} s")
    assert pulled < turns

    orders = await count()
    first, last = heaviest(orders[:1000]), heaviest(orders[-5000:])
    print(f"the busiest task had {first:.0%} of the orders at first, and {last:.0%} at last")
    assert last < first
    await grow()


if __name__ == "__main__":
    asyncio.run(main())
