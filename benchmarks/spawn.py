"""How many actors can be spawned a second, and stopped, beside bare tasks?"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks.per_loop import Goal, judge, rates_of
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, on_loop

__all__ = ["measure"]

PER_SECOND = 100_000


class Idle(sage.Actor):
    """An actor with one attribute."""

    def __init__(self, n: int) -> None:
        self.n = n

    def get(self) -> int:
        return self.n


async def ours(name: str, count: int) -> dict[str, float]:
    """Rates of spawning, of stopping one by one, and of the end of a system that has as many."""
    async with sage.ActorSystem("spawn") as system:
        gc.collect()
        begun = time.perf_counter()
        refs = [await system.spawn(Idle, i) for i in range(count)]
        spawned = time.perf_counter() - begun
        assert await refs[-1].ask(Idle.get) == count - 1
        assert system.statistics().living == count
        begun = time.perf_counter()
        for ref in refs:
            await system.stop(ref)
        stopped = time.perf_counter() - begun
        assert system.statistics().living == 0
        refs = [await system.spawn(Idle, i) for i in range(count)]
        begun = time.perf_counter()
    ended = time.perf_counter() - begun
    assert not any(ref.alive for ref in refs)
    return {f"{name} spawn": count / spawned, f"{name} stop": count / stopped, f"{name} end of the system": count / ended}


async def floor(name: str, count: int) -> dict[str, float]:
    """Tasks, each created and run until it waits for a future of its own; then cancelled and gathered."""
    loop = asyncio.get_running_loop()
    running = 0

    async def idle() -> None:
        nonlocal running
        running += 1
        try:
            await loop.create_future()
        finally:
            running -= 1

    gc.collect()
    begun = time.perf_counter()
    tasks = [asyncio.create_task(idle()) for _ in range(count)]
    await asyncio.sleep(0)
    created = time.perf_counter() - begun
    assert running == count
    begun = time.perf_counter()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = time.perf_counter() - begun
    assert running == 0
    return {f"{name} task": count / created, f"{name} task cancelled": count / cancelled}


def measure(options: Options) -> Result:
    """Actors spawned a second; each is running when its spawn returns."""
    count = 1_000 if options.short else 20_000
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for loop in LOOPS:
        runs[f"{loop} floor"] = partial(on_loop, loop, partial(floor, loop, count))
        runs[loop] = partial(on_loop, loop, partial(ours, loop, count))
    return judge(
        "spawn",
        "actor/s",
        options,
        rates_of(options, runs),
        (Goal("spawn", "task", rate=PER_SECOND), Goal("stop", "task cancelled"), Goal("end of the system", "task cancelled")),
        target="at least 100,000 actors/s",
        notes=[
            f"{count:,} actors with one attribute, all of them living; floor: a task that waits for a future of its own",
            "stopping one by one, and the end of a system, beside it, without a target",
        ],
    )
