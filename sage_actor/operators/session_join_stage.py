"""Session join: all pairs of records of one key that lie in the same session of both inputs."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

from sage_actor._core.join_buffer import JoinBuffer, Slot
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.operators.join_stage import emit_pairs
from sage_actor.operators.timed_join import NEVER, TimedJoinStage, key_of_entry
from sage_actor.state.store import DELETED

__all__ = ["SessionJoinStage"]


class SessionJoinStage(TimedJoinStage):
    """A session goes on while records of either side follow each other by less than the gap; it ends `gap` after the last one.

    Sessions are not stored: they follow from the times of what is kept. They merge before a record is judged late (F22): one is
    late when it is as old as that and no session still open takes it in. A record exactly `gap` after the last begins a new session.
    """

    async def open(self) -> None:
        operator = self.operators[0]
        self.how: str = operator.options["how"]
        self.gap: int = operator.options["gap"]
        self.buffer = JoinBuffer(DELETED)
        self.state = await self.setting.open_state(operator)
        self.state.attach("records", self.buffer, key=key_of_entry)
        self.number = 0
        self.order: list[tuple[int, int, Slot]] = []
        self.awaited: dict[Any, tuple[int, int]] = {}
        for slot in self.buffer.slots():
            self._await(slot, self._first_session(slot))

    def _await(self, slot: Slot, last: int) -> None:
        """Look at the slot when event time reaches `last`."""
        if last < self.awaited.get(slot.key, (NEVER, 0))[0]:
            self.number += 1
            self.awaited[slot.key] = (last, self.number)
            heappush(self.order, (last, self.number, slot))
            if last < self.next_due:
                self.next_due = last

    def _first_session(self, slot: Slot) -> int:
        """The last millisecond of the oldest session."""
        times = sorted(slot.times(0) + slot.times(1))
        end = times[0]
        for time in times:
            if time - end >= self.gap:
                break
            end = time
        return min(end + self.gap - 1, MAX_WATERMARK)

    def put(self, side: int, key: Any, time: int, value: Any) -> bool:
        last = min(time + self.gap - 1, MAX_WATERMARK)
        if last <= self.now and not self._is_taken_in(key, time):
            return False
        slot = self.buffer.add(key, side, time, value)
        self._await(slot, last)
        return True

    def _is_taken_in(self, key: Any, time: int) -> bool:
        """Whether an open session has a record less than the gap away."""
        slot = self.buffer.find(key)
        if slot is None:
            return False
        return any(slot.count_until(side, time + self.gap - 1) > slot.count_until(side, time - self.gap) for side in (0, 1))

    def fire(self, watermark: int) -> Iterator[None]:
        while self.order and self.order[0][0] <= watermark:
            awaited, number, slot = heappop(self.order)
            if self.awaited.get(slot.key) != (awaited, number):
                continue  # there is an earlier look, or there was one
            del self.awaited[slot.key]
            last = self._first_session(slot)
            if last > awaited:
                self._await(slot, last)
                continue
            counts = [slot.count_until(side, last) for side in (0, 1)]
            left, right = (slot.records(side)[: counts[side]] for side in (0, 1))
            yield from emit_pairs(self, self.how, left, right, last)
            for side in (0, 1):
                self.buffer.drop(slot, side, counts[side])
            if slot.count(0) + slot.count(1):
                self._await(slot, self._first_session(slot))
        self.next_due = self.order[0][0] if self.order else NEVER
