"""Passivation: an actor that nobody needs lets its instance go, and gets a new one with the next message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_actor.ports import Cancellable

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["Passivation"]


class Passivation:
    """Looks once a period whether anything was handled since; so an actor is let go after one to two periods of idleness.

    An actor with children, timers, stashed mail or a kept behaviour is in use and stays.
    """

    __slots__ = ("_alarm", "_lifecycle", "_period", "_seen")

    def __init__(self, lifecycle: Lifecycle, period: float) -> None:
        self._lifecycle = lifecycle
        self._period = period
        self._seen = -1
        self._alarm: Cancellable | None = None

    def begin(self) -> None:
        """The actor runs: watch its idleness."""
        self.cancel()
        self._seen = self._lifecycle.cell.statistics().accepted
        self._alarm = self._lifecycle.system.clock.call_later(self._period, self._look)

    def cancel(self) -> None:
        """Stop watching."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        lifecycle = self._lifecycle
        accepted = lifecycle.cell.statistics().accepted
        if accepted == self._seen and lifecycle.may_passivate():
            lifecycle.system.start_soon(lifecycle.passivate(), f"passivation of {lifecycle.path}")
        else:
            self.begin()
