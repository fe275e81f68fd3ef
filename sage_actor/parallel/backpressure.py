"""BackpressureController: how much may be under way, and who waits until there is room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from sage_actor.errors import PoolError

__all__ = ["BackpressureController"]


class BackpressureController:
    """Counts what is under way and holds up whoever would exceed the threshold, in the order of arrival.

    With a `resume_at` below the threshold it is a pair of water marks: once the threshold is reached, nobody gets in until the
    count has fallen to `resume_at`, so that producers run in bursts instead of being woken for each item. Used on one event loop.

    Args:
        threshold: the most that may be under way (the high water mark).
        resume_at: where admission begins again (the low water mark); default: as soon as there is room.

    Raises:
        PoolError: `threshold` is below 1, or `resume_at` is not below it.
    """

    def __init__(self, threshold: int, *, resume_at: int | None = None) -> None:
        self._in_use = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._full = False
        self._threshold, self._resume_at = _marks(threshold, resume_at)

    def __repr__(self) -> str:
        return f"<BackpressureController {self._in_use} of {self._threshold}, {len(self._waiting)} waiting>"

    @property
    def threshold(self) -> int:
        """The most that may be under way."""
        return self._threshold

    @property
    def in_use(self) -> int:
        """What is under way."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """How many callers wait for room."""
        return len(self._waiting)

    def set_threshold(self, threshold: int, *, resume_at: int | None = None) -> None:
        """Change the marks; takes effect at once, and lets in whom they now let in. What is under way stays.

        Raises:
            PoolError: as for the constructor.
        """
        self._threshold, self._resume_at = _marks(threshold, resume_at)
        self._full = self._in_use >= self._threshold or (self._full and self._in_use > self._resume_at)
        self._admit()

    def try_acquire(self, amount: int = 1) -> bool:
        """Take room now, or answer False. An amount larger than the threshold passes when nothing is under way."""
        if self._waiting or not self._fits(amount):
            return False
        self._take(amount)
        return True

    async def acquire(self, amount: int = 1) -> None:
        """Take room, waiting for it behind those who came before. A cancelled wait takes nothing."""
        if self.try_acquire(amount):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (waiter, amount)
        self._waiting.append(entry)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(amount)  # let in and cancelled in one turn: the room goes to the next
            else:
                with contextlib.suppress(ValueError):  # whoever lets others in may have passed over it by now
                    self._waiting.remove(entry)
                self._admit()  # it may have held up smaller ones behind it
            raise

    def release(self, amount: int = 1) -> None:
        """Give room back.

        Raises:
            PoolError: more is given back than was taken.
        """
        if amount > self._in_use:
            raise PoolError(f"backpressure: {amount} given back, but only {self._in_use} under way; release once for each acquire")
        self._in_use -= amount
        if self._in_use <= self._resume_at:
            self._full = False
        self._admit()

    def _fits(self, amount: int) -> bool:
        if not self._in_use:
            return True
        return not self._full and self._in_use + amount <= self._threshold

    def _take(self, amount: int) -> None:
        self._in_use += amount
        if self._in_use >= self._threshold:
            self._full = True

    def _admit(self) -> None:
        waiting = self._waiting
        while waiting and self._fits(waiting[0][1]):
            waiter, amount = waiting.popleft()
            if not waiter.done():
                self._take(amount)
                waiter.set_result(None)


def _marks(threshold: int, resume_at: int | None) -> tuple[int, int]:
    if threshold < 1:
        raise PoolError(f"backpressure: threshold={threshold} must be at least 1")
    low = threshold - 1 if resume_at is None else resume_at
    if not 0 <= low < threshold:
        raise PoolError(f"backpressure: resume_at={low} must be at least 0 and below the threshold of {threshold}")
    return threshold, low
