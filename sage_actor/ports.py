"""The ports to the outside world that a simulation replaces: clock, random, off-loop work.

Product code takes time and chance from here and nowhere else, so that a test (or a seeded simulation) decides them. A
simulation does so through its event loop, which carries the attributes ``sage_clock``, ``sage_random`` and ``sage_offload``;
what asks `current_clock`, `current_random` and `offload` from inside of it gets the simulated ones.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Cancellable", "Clock", "SystemClock", "current_clock", "current_random", "offload", "system_clock", "system_random"]

R = TypeVar("R")


class Cancellable(Protocol):
    """Something that was scheduled and may be called off."""

    def cancel(self) -> None:
        """It will not happen, if it has not happened yet. May be called at any time and more than once."""
        ...


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

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        """Call something on the running loop when that much time has passed on this clock, once, unless cancelled before.

        To be called on the loop's thread. Never calls back before it has returned, however short the time. What the callback
        returns is dropped, what it raises goes to the loop's exception handler.

        Raises:
            RuntimeError: no event loop is running in this thread.
        """
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

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        return asyncio.get_running_loop().call_later(seconds, callback)


class _Offload(Protocol):
    async def __call__(self, function: Callable[[], R], /) -> R: ...


system_clock = SystemClock()
system_random = random.Random()


def current_clock() -> Clock:
    """The clock of the running loop if it brings its own (a simulation does), else the machine's.

    To be asked once where something starts and then kept: what runs on one loop lives in one time.
    """
    clock: Clock | None = getattr(_running_loop(), "sage_clock", None)
    return system_clock if clock is None else clock


def current_random() -> random.Random:
    """The seeded chance of the running loop if it brings its own (a simulation does), else the system's."""
    chance: random.Random | None = getattr(_running_loop(), "sage_random", None)
    return system_random if chance is None else chance


async def offload(function: Callable[[], R], /) -> R:
    """Run a blocking function in a worker thread; in a simulation on the loop itself, at some later virtual instant.

    Cancelling the wait abandons the thread: its result is dropped when it comes. Do not use it where losing the
    result would lose data.
    """
    simulated: _Offload | None = getattr(_running_loop(), "sage_offload", None)
    if simulated is not None:
        return await simulated(function)
    import anyio.to_thread

    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
