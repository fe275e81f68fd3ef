"""The switches for memory change how a job runs, never what it gives."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sage_actor import Environment, MapFunction, MemoryOptimizer, Source
from sage_actor.dataflow.context import FunctionContext

COUNT = 12


class Arrays(Source[Any]):
    """Arrays large enough for shared memory, made in a worker."""

    def __init__(self) -> None:
        self.next = 0

    async def read(self, limit: int) -> Sequence[Any] | None:
        if self.next == COUNT:
            return None
        self.next += 1
        return [np.full(50_000, float(self.next))]


class Frozen(MapFunction[Any, tuple[float, bool]]):
    """Answers the sum, and whether the worker has set apart what it had when it began."""

    def open(self, context: FunctionContext) -> None:
        self.before = gc.get_freeze_count()
        self.held = [[number] for number in range(10_000)]

    def map(self, value: Any) -> tuple[float, bool]:
        value += 1.0  # what arrives may be changed, however it travelled
        return float(value.sum()), gc.get_freeze_count() > self.before + len(self.held)


async def run(**switches: object) -> tuple[list[float], set[bool]]:
    async with Environment("memory", backend="process", config={"workers": 2}) as env:
        env.set_memory_optimization(MemoryOptimizer, switches)
        results = env.from_source(Arrays, parallelism=1).rebalance().map(Frozen).set_parallelism(2).collect()
        await env.execute()
    return sorted(total for total, _ in results), {frozen for _, frozen in results}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "switches",
    [{}, {"zero_copy": False}, {"object_pooling": False}, {"gc_optimization": False}, {"memory_pool_size": "1MB"}],
    ids=lambda switches: next(iter(switches), "default"),
)
async def test_every_switch_gives_the_same_results(switches: dict[str, object]) -> None:
    totals, frozen = await run(**switches)
    assert totals == [(number + 1) * 50_000.0 for number in range(1, COUNT + 1)]
    assert frozen == {switches.get("gc_optimization", True)}


def test_the_switches_are_settings() -> None:
    env = Environment("memory").set_memory_optimization(MemoryOptimizer, {"zero_copy": False, "memory_pool_size": "1GB"})
    assert (env.settings.memory_zero_copy, env.settings.memory_pool_size) == (False, 1 << 30)
    other = Environment("memory", config={"memory": {"zero_copy": False, "pool_size": "1GB"}})
    assert other.settings == env.settings
