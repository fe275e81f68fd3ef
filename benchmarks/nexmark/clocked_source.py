"""A source that owns the clock: processing time goes on with the events it gives, and with nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import sage_actor as sage
from benchmarks.nexmark.events import Event
from sage_actor.testing import ManualClock

__all__ = ["CHUNK", "ClockedEvents", "time_of_seq"]

CHUNK, STEP_MS, START_MS = 50, 700, 1_000_000
"""So many events come at one moment; so much later come the next ones; the first ones come then."""


def time_of_seq() -> str:
    """The processing time of event number `seq`, for the oracle."""
    return f"{START_MS} + (seq // {CHUNK}) * {STEP_MS}"


class ClockedEvents(sage.Source[Event]):
    """Events, some at a time; before the next ones the clock moves on."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.clock = ManualClock(START_MS / 1000)
        self.place = 0

    @contextlib.contextmanager
    def clock_in_force(self) -> Iterator[None]:
        """What runs on the present loop goes by our clock."""
        loop = asyncio.get_running_loop()
        loop.sage_clock = self.clock  # type: ignore[attr-defined]
        try:
            yield
        finally:
            del loop.sage_clock  # type: ignore[attr-defined]

    async def read(self, limit: int) -> Sequence[Event] | None:
        """Up to `limit` events of one moment; past the last one the clock goes on until every window is over."""
        begin = self.place
        if begin >= len(self.events):
            await self.clock.advance("1m")
            return None
        if begin and begin % CHUNK == 0:
            await self.clock.advance(STEP_MS / 1000)
        self.place = min(begin + limit, begin // CHUNK * CHUNK + CHUNK, len(self.events))
        return self.events[begin : self.place]
