"""The module `time` in a simulation: code that measures itself gets the same figures in every run of a seed."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sage_actor.testing.simulation_loop import SimulationLoop

__all__ = ["virtual_time"]

_PACES: Final = (2e-7, 2e-6, 2e-4, 2e-3)  # how many seconds pass at most between two looks at a counter


@contextlib.contextmanager
def virtual_time(loop: SimulationLoop, seed: int) -> Generator[None, None, None]:
    """Inside, counters and clocks of the module `time` show the loop's time.

    A counter also moves a little, by a chance of its own, whenever it is looked at: the runtime bounds its turns by measuring
    them, so a seed decides where it divides its work. One seed makes it see a fast machine, another a slow one.
    """
    chance = random.Random(~seed)
    pace = chance.choice(_PACES)
    spent = 0.0

    def perf_counter() -> float:
        nonlocal spent
        spent += chance.random() * pace
        return loop.time() + spent

    def now() -> float:
        return loop.sage_clock.now_ms() / 1000

    replaced: dict[str, Callable[[], float]] = {
        "perf_counter": perf_counter,
        "perf_counter_ns": lambda: int(perf_counter() * 1e9),
        "monotonic": loop.time,
        "monotonic_ns": lambda: int(loop.time() * 1e9),
        "time": now,
        "time_ns": lambda: loop.sage_clock.now_ms() * 1_000_000,
    }
    before = {name: getattr(time, name) for name in replaced}
    for name, function in replaced.items():
        setattr(time, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(time, name, function)
