"""A server that is away: how long one waits for it, and when another try is worth it."""

from __future__ import annotations

from typing import Final

from sage_actor.backends.redis_refusals import may_pass
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import Clock, system_clock

__all__ = ["Outage"]

_FIRST: Final = 0.02
_LONGEST: Final = 1.0


class Outage:
    """What one connection knows of its server's absence. Decides only; whoever uses it waits.

    Pauses double from 20 ms to 1 s, whole: a group has few connections, and all wish to be back soon.
    """

    __slots__ = ("_began", "_clock", "_next", "_patience")

    def __init__(self, patience: float, clock: Clock = system_clock) -> None:
        self._patience = patience
        self._clock = clock
        self._began: float | None = None
        self._next = _FIRST

    @property
    def lasts(self) -> bool:
        """Something failed, and nothing has succeeded since."""
        return self._began is not None

    def over(self) -> None:
        """Take note of a success. Connecting is none: a server that is being replaced lets one connect, and refuses everything."""
        self._began = None
        self._next = _FIRST

    def pause(self, error: BackendUnavailable) -> float:
        """Seconds to wait before the next try.

        Raises:
            BackendUnavailable: waiting does not help, or has lasted as long as the patience; `error` itself, or it with how long.
        """
        if not may_pass(error):
            raise error
        now = self._clock.monotonic()
        if self._began is None:
            self._began = now
        away = now - self._began
        if away >= self._patience:
            raise BackendUnavailable(error.backend, f"away for {away:.1f} s: {error.reason}", error.hint) from error
        pause, self._next = self._next, min(self._next * 2, _LONGEST)
        return min(pause, self._patience - away)
