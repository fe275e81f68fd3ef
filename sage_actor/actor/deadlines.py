"""Deadlines of asks: one coarse wheel for all of a system's."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage_actor._core.actor_ref import expire
from sage_actor.ports import Cancellable, Clock

if TYPE_CHECKING:
    from sage_actor._core.reply import Reply

__all__ = ["DeadlineWheel"]

SLOT = 0.01
"""Seconds. A deadline passes at the end of its slot: never early, at most this much late."""


class DeadlineWheel:
    """Expires asks whose time is up. Adding and settling cost a set operation; one timer runs, for the nearest slot."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, dict[Reply[Any], None]] = {}
        self._order: list[int] = []
        self._timer: Cancellable | None = None
        self._timer_slot = 0

    def add(self, reply: Reply[Any], deadline: float) -> None:
        """Expire the ask at `deadline` (on the clock's monotonic time) unless it is settled before."""
        if deadline == math.inf:
            return
        number = int(deadline / SLOT) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heapq.heappush(self._order, number)
            if self._timer is None or number < self._timer_slot:
                self._arm()
        reply.in_bucket(slot)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order:
            self._timer_slot = self._order[0]
            wait = max(0.0, self._timer_slot * SLOT - self._clock.monotonic())
            callback: Callable[[], object] = self._turn
            self._timer = self._clock.call_later(wait, callback)

    def _turn(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        # A timer may fire a hair early; then the same slot is armed again.
        while self._order and self._order[0] * SLOT <= now + 1e-9:
            for reply in tuple(self._slots.pop(heapq.heappop(self._order))):
                expire(reply, now)
        # Slots whose asks were all answered in time need no turn of their own.
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heapq.heappop(self._order)]
        self._arm()

    def close(self) -> None:
        """Stop the timer; nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._order.clear()
