"""A clock that stands still until the test moves it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import math
from collections.abc import Callable, Sized
from typing import Final

from sage_actor.durations import parse_duration
from sage_actor.ports import Cancellable

__all__ = ["ManualClock"]

_SECOND: Final = 1_000_000_000
_BLIND_TURNS: Final = 100  # turns granted on a loop that does not show what is ready (uvloop)
_MOST_TURNS: Final = 10_000  # after which something that yields for ever no longer keeps time from moving
_MANY: Final = 64  # cancelled timers worth sweeping out


class ManualClock:
    """A `Clock` on which time passes only in `advance`.

        clock = ManualClock()
        async with sage.ActorSystem("test", clock=clock) as system:
            ...
            await clock.advance("1m")  # a minute of restarts, timers and timeouts, in a millisecond

    Its time is counted in whole nanoseconds: ten steps of 0.1 s make one second. It knows what waits on it, and nothing else:
    `asyncio.sleep` and `asyncio.timeout` go by the loop's own clock. It serves one event loop, on that loop's thread.

    Args:
        start: what `monotonic` and, in milliseconds, `now_ms` say at first.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = round(start * _SECOND)
        self._timers: list[_Timer] = []  # a heap; cancelled ones stay until they come up or there are many
        self._cancelled = 0
        self._scheduled = 0
        self._turn = asyncio.Lock()

    def monotonic(self) -> float:
        return self._now / _SECOND

    def now_ms(self) -> int:
        return self._now // 1_000_000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, functools.partial(_wake, waiter))
        try:
            await waiter
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        loop = asyncio.get_running_loop()
        if seconds <= 0:
            return loop.call_soon(callback)
        due = math.inf if seconds == math.inf else self._now + max(1, round(seconds * _SECOND))
        self._scheduled += 1
        timer = _Timer(self, due, self._scheduled, callback)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def pending(self) -> int:
        """How many timers and sleepers wait for time to pass."""
        return len(self._timers) - self._cancelled

    async def advance(self, seconds: float | str) -> None:
        """Let that much time pass: ``0.5``, ``"1s"``, ``"1h 30m"``.

        Time goes from one due instant to the next, in order; at each, everything due is started in the order in which it was
        scheduled, and the loop then runs until nothing is ready any more, so that whatever is scheduled meanwhile and falls
        into the span happens too. The loop settles before the first step and after the last one as well: `advance(0)` is a
        way to let everything run that can.

        Settled means that no callback or task is ready to run. Threads, processes, files and sockets are not waited for, and
        a task that yields for ever is waited for 10,000 turns of the loop. uvloop does not show what is ready: there each
        settling is 100 turns.

        Cancelled, it leaves time where it has got to. Calls from several tasks take turns.

        Raises:
            ConfigError: not a duration.
        """
        span = round(parse_duration(seconds, key="seconds") * _SECOND)
        async with self._turn:
            target = self._now + span
            await _settle()
            while (due := self._next_due()) <= target:
                self._now = int(due)
                self._start_due()
                await _settle()
            self._now = target
            await _settle()

    def _next_due(self) -> float:
        while self._timers and self._timers[0].is_cancelled:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0].due if self._timers else math.inf

    def _start_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._next_due() <= self._now:
            heapq.heappop(self._timers).start(loop)

    def _timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > _MANY and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer.is_cancelled]
            heapq.heapify(self._timers)
            self._cancelled = 0


class _Timer:
    """A callback that waits for its instant, in the context of who scheduled it, as the loop's own timers do."""

    __slots__ = ("_callback", "_clock", "_context", "_handle", "_order", "due", "is_cancelled")

    def __init__(self, clock: ManualClock, due: float, order: int, callback: Callable[[], object]) -> None:
        self.due = due
        self.is_cancelled = False
        self._clock = clock
        self._order = order
        self._callback = callback
        self._context = contextvars.copy_context()
        self._handle: asyncio.Handle | None = None

    def __lt__(self, other: _Timer) -> bool:
        return (self.due, self._order) < (other.due, other._order)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Its instant has come, and it has left the heap."""
        self._handle = loop.call_soon(self._callback, context=self._context)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        elif not self.is_cancelled:
            self.is_cancelled = True
            self._clock._timer_cancelled()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _settle() -> None:
    """Yield until we are the only ones who are ready.

    Twice in a row, since the loop takes up its own due timers and what other threads handed in between two turns.
    """
    ready: Sized | None = getattr(asyncio.get_running_loop(), "_ready", None)
    if ready is None:
        for _ in range(_BLIND_TURNS):
            await asyncio.sleep(0)
        return
    quiet = 0
    for _ in range(_MOST_TURNS):
        await asyncio.sleep(0)
        quiet = 0 if len(ready) else quiet + 1
        if quiet == 2:
            return
