"""Dealing records without keys by what their receivers have to do: least loaded, and work stealing."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, NamedTuple

from sage_actor._core.batch import Batch
from sage_actor.runtime.channels import Channel
from sage_actor.runtime.piece_size import PieceSize
from sage_actor.runtime.routing import ENOUGH, Router, cut

if TYPE_CHECKING:
    from sage_actor.dataflow.plan import OutputSpec
    from sage_actor.operators.setting import TaskSetting

__all__ = ["LeastLoadedRouter", "WorkStealingRouter", "make_router"]


def make_router(output: OutputSpec, channels: list[Channel], setting: TaskSetting) -> Router:
    """The router of one output: what the records ask for comes first, then the job's load balancer."""
    free = output.partition.kind in ("rebalance", "forward") and len(channels) > 1
    if free and setting.settings.balancing == "least_loaded":
        return LeastLoadedRouter(output, channels, setting)
    if free and setting.settings.balancing == "work_stealing":
        return WorkStealingRouter(output, channels, setting)
    return Router(output, channels, setting)


class Piece(NamedTuple):
    """Records that wait at a receiver, or are in its hand, since when (nanoseconds)."""

    since: int
    records: int


class LeastLoadedRouter(Router):
    """Gathers records, and gives them whole to the receiver that has the most room; among equals in turns.

    Room is the credit of this sender: what others have sent to the same receiver is seen by how fast it is given back.
    """

    def __init__(self, output: OutputSpec, channels: list[Channel], setting: TaskSetting) -> None:
        super().__init__(output, channels, setting)
        self.gathered: Batch | None = None
        self.came_back = asyncio.Event()
        for target, channel in enumerate(channels):
            channel.on_room(functools.partial(self._taken, target))

    @property
    def piece(self) -> int:
        """Records that are given at once."""
        return self.enough

    async def add(self, batch: Batch) -> None:
        gathered = self.gathered
        if gathered is not None:
            self.gathered = None
            if gathered.extend(batch):
                batch = gathered
            else:
                await self._give_out(gathered)
        start, total = 0, len(batch)
        while total - start >= (size := self.piece):
            await self._give_out(batch if size == total else cut(batch, start, start + size))
            start += size
        if start < total:
            self.gathered = cut(batch, start, total) if start else batch

    async def flush(self) -> None:
        """Give out what was gathered: records behind it, and markers, come later (F1)."""
        gathered, self.gathered = self.gathered, None
        if gathered is not None:
            await self._give_out(gathered)

    async def _give_out(self, batch: Batch) -> None:
        start, total = 0, len(batch)
        while start < total:
            size = min(self.piece, total - start)
            part = batch if size == total else cut(batch, start, start + size)
            await self._place(part)
            start += size

    async def _place(self, part: Batch) -> None:
        begun = 0
        while True:
            target = self._choose(len(part))
            if target is not None and self.channels[target].offer(part):
                break
            begun = begun or time.perf_counter_ns()
            self.came_back.clear()
            await self.came_back.wait()
        self._placed(target, len(part))
        if begun:
            self.blocked_ns += time.perf_counter_ns() - begun

    def _choose(self, records: int) -> int | None:
        """The receiver with the most room, beginning where the last one was behind; None if it has none for so many records."""
        number, limit = len(self.channels), self.most
        best, most = 0, -1
        for step in range(number):
            target = (self.next + step) % number
            room = self.channels[target].room
            if room == limit:  # nothing waits there: nobody has more
                return target
            if room > most:
                best, most = target, room
        return best if most >= records else None

    def _placed(self, target: int, records: int) -> None:
        """A piece has been given to a receiver."""
        self.next = (target + 1) % len(self.channels)

    def _taken(self, target: int) -> None:
        """A receiver has taken what waited there."""
        self.came_back.set()


class WorkStealingRouter(LeastLoadedRouter):
    """Receivers pull: each has one piece in hand and at most one that waits, and the next goes to whoever has taken that one.

    So none is idle while another has more than one piece to do, whatever its records cost. Taking a piece is the asking: the credit that
    comes back says it, on every backend. `PieceSize` learns how large pieces should be. What is gathered lies before
    a marker, so it is given out first: a barrier waits for it here, and for the pieces in flight at their receivers.
    """

    def __init__(self, output: OutputSpec, channels: list[Channel], setting: TaskSetting) -> None:
        super().__init__(output, channels, setting)
        self.pieces = PieceSize(min(ENOUGH, max(1, self.most // 2)))
        self.waits: list[Piece | None] = [None] * len(channels)
        self.in_hand: list[Piece | None] = [None] * len(channels)

    @property
    def piece(self) -> int:
        return self.pieces.size

    def _choose(self, records: int) -> int | None:
        """A receiver at which nothing waits."""
        number, limit = len(self.channels), self.most
        for step in range(number):
            target = (self.next + step) % number
            if self.channels[target].room == limit:
                return target
        return None

    def _placed(self, target: int, records: int) -> None:
        super()._placed(target, records)
        self.waits[target] = Piece(time.perf_counter_ns(), records)

    def _taken(self, target: int) -> None:
        """It is done with the piece before. Where this one had to wait for it, that says how long it took."""
        now = time.perf_counter_ns()
        waited, done = self.waits[target], self.in_hand[target]
        if waited is not None:
            if done is not None and (now - waited.since) * 2 > now - done.since:
                self.pieces.took(done.records, now - done.since)
            self.waits[target], self.in_hand[target] = None, Piece(now, waited.records)
        super()._taken(target)
