"""Interval join: pairs of records of one key whose times are within bounds of each other."""

from __future__ import annotations

from collections.abc import Iterator

from sage_actor._core.batch import Batch
from sage_actor._core.interval_join import IntervalJoin
from sage_actor.errors import UnstableKey
from sage_actor.operators.stages import Emit
from sage_actor.operators.timed_join import ROOM, TimedJoinStage, key_of_entry
from sage_actor.state.store import DELETED

__all__ = ["IntervalJoinStage"]

AT_ONCE = 1000
"""Keys looked at for expired records in one go."""


class IntervalJoinStage(TimedJoinStage):
    """A pair comes as soon as its second record does, with the higher time of the two (F22); bounds are inclusive.

    A record is kept until the watermark says that no partner can come any more. One at or before the watermark is late.
    The loop over a batch runs in Cython.
    """

    async def open(self) -> None:
        operator = self.operators[0]
        self.buffer = IntervalJoin(DELETED, operator.options["lower"], operator.options["upper"])
        self.state = await self.setting.open_state(operator)
        self.state.attach("records", self.buffer, key=key_of_entry)
        self.next_due = self.buffer.next_due

    async def take(self, batch: Batch, side: int, emit: Emit) -> None:
        values, keys, times, marks = self.columns(batch, side)
        buffer = self.buffer
        start, total = 0, len(values)
        while start < total:
            try:
                start = buffer.run(side, keys, values, times, marks, start, ROOM, self.values, self.times, self.marks)
            except (UnstableKey, TypeError) as error:
                self.faults.settle(0, error, buffer.index, values[buffer.index])
                start = buffer.index + 1
            if buffer.late:
                for index in buffer.late:
                    self.now = marks[index]
                    self.put_aside_late(values[index], times[index])
                buffer.late.clear()
            await self.hand_on(emit)
            await self.turns.breathe()
        if total:
            self.counters[0].records_in += total
            await self.move(marks[-1], emit)
        await self.finish(emit)

    async def move(self, watermark: int, emit: Emit) -> None:
        self.next_due = self.buffer.next_due
        await super().move(watermark, emit)

    def fire(self, watermark: int) -> Iterator[None]:
        while self.buffer.expire(watermark, AT_ONCE):
            yield
        self.next_due = self.buffer.next_due
