"""Event time of a task: the least of its input channels' (rules F16 to F18)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_actor._core.batch import Batch
from sage_actor._core.event_time import combined_watermarks
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK

__all__ = ["Valve"]


@dataclass(slots=True)
class ChannelTime:
    """What is known of one input channel.

    Attributes:
        watermark: its highest so far.
        active: neither idle nor ended.
        aligned: it counts: since it came back from idleness it has caught up with what was passed on already.
        timed: whether it ever carries event time; one without holds nobody up and says nothing.
    """

    watermark: int = MIN_WATERMARK
    active: bool = True
    aligned: bool = True
    timed: bool = True


class Valve:
    """Combines the watermarks of channels into one that never falls. Pure.

    A channel that only just came back from idleness does not hold the task back until it has caught up; what it brings
    meanwhile may be late.
    """

    def __init__(self, timed: Sequence[bool]) -> None:
        self.channels = [ChannelTime(active=carries, timed=carries) for carries in timed]
        self.watermark = MIN_WATERMARK
        self.idle = False

    def enter(self, channel: int, batch: Batch) -> None:
        """Records have come: bring their column of watermarks to what is certain over all channels."""
        state = self.channels[channel]
        if not state.timed:
            return
        if not state.active:
            self._wake(state)
        column = batch.watermarks
        if not column:
            return
        if column[-1] == MAX_WATERMARK:  # what only its end has brought; the end of one is not the end of time
            batch.watermarks = column = [state.watermark if mark == MAX_WATERMARK else mark for mark in column]
        others = MAX_WATERMARK
        for other in self.channels:
            if other is not state and other.active and other.aligned and other.watermark < others:
                others = other.watermark
        batch.watermarks = combined = combined_watermarks(column, others, self.watermark)
        self._raise(state, column[-1])
        self._rise(combined[-1])

    def advance(self, channel: int, watermark: int) -> int:
        """A watermark has come; answers the combined one, which is never the end of time: that is the task's to tell."""
        state = self.channels[channel]
        if not state.timed:
            return self.watermark
        if watermark == MAX_WATERMARK:
            return self._leave(state)  # as its end, which follows: while others are silent, their time has not come to its end
        if not state.active:
            self._wake(state)
        self._raise(state, watermark)
        return self._combine()

    def fall_idle(self, channel: int) -> int:
        """Nothing comes from there for a while; answers the combined watermark. See `idle` afterwards."""
        return self._leave(self.channels[channel])

    def end(self, channel: int) -> int:
        """A channel has ended; answers the combined watermark of the others. The end of all is the task's to tell."""
        return self._leave(self.channels[channel])

    def _leave(self, state: ChannelTime) -> int:
        state.active = False
        if any(other.active for other in self.channels):
            return self._combine()
        self.idle = any(other.timed for other in self.channels)
        # All are silent: what any of them has made certain is certain (F17).
        return self._rise(max(other.watermark for other in self.channels))

    def _wake(self, state: ChannelTime) -> None:
        state.active = True
        state.aligned = state.watermark >= self.watermark
        self.idle = False

    def _raise(self, state: ChannelTime, watermark: int) -> None:
        if watermark > state.watermark:
            state.watermark = watermark
        if not state.aligned and state.watermark >= self.watermark:
            state.aligned = True

    def _combine(self) -> int:
        counted = [state.watermark for state in self.channels if state.active and state.aligned]
        return self._rise(min(counted)) if counted else self.watermark

    def _rise(self, watermark: int) -> int:
        if watermark > self.watermark:
            self.watermark = watermark
        return self.watermark
