"""Window join: all pairs of records of one key that lie in the same window."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import product
from typing import Any

from sage_actor._core.join_buffer import JoinBuffer, Slot
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.operators.timed_join import NEVER, ROOM, TimedJoinStage
from sage_actor.state.store import DELETED

__all__ = ["WindowJoinStage", "emit_pairs"]


def key_of_window_entry(entry: tuple[tuple[Any, int], int]) -> Any:
    """The record's key in the key of an entry, whose slot is named by key and start of window."""
    return entry[0][0]


def emit_pairs(stage: TimedJoinStage, how: str, left: list[Any], right: list[Any], time: int) -> Iterator[None]:
    """Add the results of one window of one key, with a pause now and then; the side that `how` keeps comes with None for the other."""
    if left and right:
        for pair in product(left, right):
            stage.add(pair, time)
            if len(stage.values) >= ROOM:
                yield
    elif left and how in ("left", "outer"):
        for value in left:
            stage.add((value, None), time)
    elif right and how in ("right", "outer"):
        for value in right:
            stage.add((None, value), time)
    if len(stage.values) >= ROOM:
        yield


class WindowJoinStage(TimedJoinStage):
    """Tumbling and sliding windows: a key's window is complete, and joined, when event time reaches its last millisecond.

    Results carry that millisecond as their time (F22). A record is late when all its windows are complete.
    """

    async def open(self) -> None:
        operator = self.operators[0]
        options = operator.options
        self.how: str = options["how"]
        self.size: int = options["size"]
        self.every: int = options["every"]
        self.offset: int = options["offset"]
        self.buffer = JoinBuffer(DELETED)
        self.state = await self.setting.open_state(operator)
        self.state.attach("windows", self.buffer, key=key_of_window_entry)
        self.windows: dict[int, list[Slot]] = {}
        for slot in sorted(self.buffer.slots(), key=lambda slot: min(slot.numbers(0) + slot.numbers(1))):
            self.windows.setdefault(self._last(slot.key[1]), []).append(slot)
        self.order = list(self.windows)
        heapify(self.order)
        self._look()

    def _look(self) -> None:
        self.next_due = self.order[0] if self.order else NEVER

    def _last(self, start: int) -> int:
        return min(start + self.size - 1, MAX_WATERMARK)

    def put(self, side: int, key: Any, time: int, value: Any) -> bool:
        if key.__class__ is not str:
            key = self.buffer.plain_key(key)
        start = time - (time - self.offset) % self.every
        taken = False
        while start > time - self.size:
            last = self._last(start)
            if last <= self.now:
                break
            taken = True
            slot = self.buffer.add((key, start), side, time, value)
            if slot.count(side) == 1 and slot.count(1 - side) == 0:
                self._await(last, slot)
            start -= self.every
        return taken

    def _await(self, last: int, slot: Slot) -> None:
        slots = self.windows.get(last)
        if slots is not None:
            slots.append(slot)
            return
        self.windows[last] = [slot]
        heappush(self.order, last)
        self._look()

    def fire(self, watermark: int) -> Iterator[None]:
        while self.order and self.order[0] <= watermark:
            last = heappop(self.order)
            for slot in self.windows.pop(last):
                yield from emit_pairs(self, self.how, slot.records(0), slot.records(1), last)
                self.buffer.remove(slot)
        self._look()
