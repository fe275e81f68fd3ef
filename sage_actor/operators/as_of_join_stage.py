"""As-of join: each left record with the newest right one of its key that is not newer than itself."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any

from sage_actor._core.join_buffer import JoinBuffer, Slot
from sage_actor.operators.timed_join import NEVER, ROOM, TimedJoinStage, key_of_entry
from sage_actor.state.store import DELETED

__all__ = ["AsOfJoinStage"]

AT_ONCE = 1000
LEFT, RIGHT = 0, 1

Entry = tuple[int, int, int, Slot]
"""(time, 0 for right or 1 for left, number, slot): the order of event time; of equal times the right records come first."""


class AsOfJoinStage(TimedJoinStage):
    """Decides about a left record when event time has passed it, so in order of time whatever the order of arrival.

    Of the right side, a key keeps its newest record that event time has passed (unless `within` makes it useless) and the ones
    after it. Of equally old right records the one that came last counts. A late left record is dropped; a late right one is still
    taken where it is the newest of its key that event time has passed: left records to come must not miss it for ever.
    """

    async def open(self) -> None:
        operator = self.operators[0]
        self.within: int | None = operator.options["within"]
        self.keep_left: bool = operator.options["how"] == "left"
        self.buffer = JoinBuffer(DELETED, (None, self.within))
        self.state = await self.setting.open_state(operator)
        self.state.attach("records", self.buffer, key=key_of_entry)
        kept = [
            (time, 1 - side, number, slot)
            for slot in self.buffer.slots()
            for side in (LEFT, RIGHT)
            for time, number in zip(slot.times(side), slot.numbers(side), strict=True)
        ]
        # Numbers are unique in a key only: after rescaling, records of two keys may have the same. A sorted list is a heap.
        kept.sort(key=itemgetter(0, 1, 2))
        self.agenda: list[Entry] = [(time, kind, number, slot) for number, (time, kind, _, slot) in enumerate(kept)]
        self.number = len(self.agenda)
        self._look()

    def _look(self) -> None:
        first = self.agenda[0][0] if self.agenda else NEVER
        self.next_due = min(first, self.buffer.next_due)

    def put(self, side: int, key: Any, time: int, value: Any) -> bool:
        if time <= self.now:
            return side == RIGHT and self._put_late(key, time, value)
        slot = self.buffer.add(key, side, time, value)
        self.number += 1
        heappush(self.agenda, (time, 1 - side, self.number, slot))
        if time < self.next_due:
            self.next_due = time
        return True

    def _put_late(self, key: Any, time: int, value: Any) -> bool:
        if self.within is not None and time + self.within <= self.now:
            return False
        slot = self.buffer.find(key)
        if slot is not None:
            passed = slot.count_until(RIGHT, self.now)
            if passed and slot.time(RIGHT, passed - 1) > time:
                return False
        slot = self.buffer.add(key, RIGHT, time, value)
        self.buffer.drop(slot, RIGHT, slot.count_until(RIGHT, self.now) - 1)
        self._look()
        return True

    def fire(self, watermark: int) -> Iterator[None]:
        buffer, agenda = self.buffer, self.agenda
        handled = 0
        while agenda and agenda[0][0] <= watermark:
            time, kind, _, slot = heappop(agenda)
            known = slot.count_until(RIGHT, time)
            if kind == 1:
                self._decide(slot, time, known)
                buffer.drop(slot, LEFT, 1)
            elif known > 1:
                buffer.drop(slot, RIGHT, known - 1)
            handled += 1
            if handled % ROOM == 0:
                yield
        while buffer.expire(watermark, AT_ONCE):
            yield
        self._look()

    def _decide(self, slot: Slot, time: int, known: int) -> None:
        """The oldest left record of the slot has its turn."""
        left = slot.record(LEFT, 0)
        if known and (self.within is None or time - slot.time(RIGHT, known - 1) <= self.within):
            self.add((left, slot.record(RIGHT, known - 1)), time)
        elif self.keep_left:
            self.add((left, None), time)
