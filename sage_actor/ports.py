"""The ports to the outside world that a simulation replaces: clock, random, off-loop work.

Product code takes time and chance from here and nowhere else, so that a test (or a seeded simulation) decides them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Clock", "SystemClock", "offload", "system_clock", "system_random"]

R = TypeVar("R")


class Clock(Protocol):
    """Time as the runtime sees it."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes backwards."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the epoch (wall clock)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long on this clock. Cancellable at any point."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    def monotonic(self) -> float:
        return time.perf_counter()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


system_clock = SystemClock()
system_random = random.Random()


async def offload(function: Callable[[], R], /) -> R:
    """Run a blocking function in a worker thread.

    Cancelling the wait abandons the thread: its result is dropped when it comes. Do not use it where losing the
    result would lose data.
    """
    import anyio.to_thread

    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)
