"""One blocking call at a time, off the loop, whose result outlives the cancellation of whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from sage_actor import ports

__all__ = ["OffLoop"]

R = TypeVar("R")


class OffLoop(Generic[R]):
    """A slot for one call. A cancelled `wait` leaves the call running and its result here, for the next `take`."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[R] | None = None

    @property
    def started(self) -> bool:
        """Whether a call was started whose result nobody has taken."""
        return self._task is not None

    @property
    def ready(self) -> bool:
        """Whether `take` would answer now."""
        return self._task is not None and self._task.done()

    def start(self, function: Callable[[], R]) -> None:
        """Begin the call. Nothing else may be under way or waiting to be taken."""
        if self._task is not None:
            raise RuntimeError("OffLoop.start: the last result was not taken")
        self._task = asyncio.ensure_future(ports.offload(function))

    async def wait(self) -> None:
        """Wait until the call, if any, has ended."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def take(self) -> R:
        """The result of a call that has ended; raises what the call raised."""
        task, self._task = self._task, None
        if task is None:
            raise RuntimeError("OffLoop.take: nothing was started")
        return task.result()

    async def finish(self, release: Callable[[], None]) -> None:
        """Wait for the call to end, drop what it brought, then run ``release``: also if this wait is cancelled."""
        task, self._task = self._task, None
        if task is None:
            release()
            return

        def done(ended: asyncio.Task[R]) -> None:
            if not ended.cancelled():
                ended.exception()  # otherwise the loop complains that nobody looked
            release()

        task.add_done_callback(done)
        await asyncio.wait((task,))
