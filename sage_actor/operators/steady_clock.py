"""The wall clock as windows of processing time see it: it never goes back."""

from __future__ import annotations

from sage_actor.ports import Clock

__all__ = ["SteadyClock"]


class SteadyClock:
    """Follows a clock; when that is set back, it goes on from where it was.

    Standing still until the clock has caught up would keep windows open for as long as it was set back.
    """

    __slots__ = ("_ahead", "_clock", "_last")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._ahead = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never less than before."""
        now = self._clock.now_ms() + self._ahead
        if now < self._last:
            self._ahead += self._last - now
            now = self._last
        self._last = now
        return now
