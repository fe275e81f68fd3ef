"""Timers of one actor: messages to itself, later or again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError
from sage_actor.ports import Cancellable, Clock

if TYPE_CHECKING:
    from sage_actor._core.actor_cell import Cell, Handler
    from sage_actor._core.reply import Call

__all__ = ["Timers"]


class _Timer:
    """One named timer. Its tick travels on the control lane: it needs no room, and waits behind no other message."""

    __slots__ = ("alarm", "arguments", "due", "every", "handler", "key", "tick")

    def __init__(self, key: str, handler: Handler, arguments: tuple[object, ...], every: float | None) -> None:
        self.key = key
        self.handler = handler
        self.arguments = arguments
        self.every = every
        self.due = 0.0
        self.alarm: Cancellable | None = None
        self.tick: Call | None = None

    @property
    def is_over(self) -> bool:
        return self.alarm is None and self.tick is not None and self.tick.finished


class Timers:
    """Named timers of one actor. They end with the instance: a restart or stop cancels them all.

    A tick calls a method of the actor between two messages. A periodic timer keeps its rhythm (the n-th tick is due n periods
    after the start); while a tick waits to be handled no second one is added, so a slow actor skips ticks and never owes any.
    After `cancel` or a new start under the same key, a tick that waits already is not handled any more.
    """

    def __init__(self, cell: Cell, clock: Clock, handler_for: Callable[[Callable[..., object]], Handler]) -> None:
        self._cell = cell
        self._clock = clock
        self._handler_for = handler_for
        self._timers: dict[str, _Timer] = {}
        self._rung: dict[str, _Timer] = {}  # one-shot timers that are over but for a tick that may still wait

    def once(self, key: str, after: float | str, method: Callable[..., object], *arguments: object) -> None:
        """Call a method of this actor once, when that much time has passed. A timer of the same key is replaced.

        Args:
            key: name of the timer.
            after: seconds, or a text such as "10s".
            method: a bound method (``self.flush``) or one of the class (``Writer.flush``).
            arguments: what to call it with.
        """
        self._start(key, method, arguments, parse_duration(after, key=f"timer {key!r}"), None)

    def every(self, key: str, period: float | str, method: Callable[..., object], *arguments: object) -> None:
        """Call a method again and again, for the first time when one period has passed. A timer of the same key is replaced.

        Raises:
            ActorError: the period is 0.
        """
        seconds = parse_duration(period, key=f"timer {key!r}")
        if seconds <= 0:
            raise ActorError(f"actor {self._cell.path!r}: timer {key!r} needs a period above 0; use a tell to itself to go on at once")
        self._start(key, method, arguments, seconds, seconds)

    def cancel(self, key: str) -> bool:
        """End a timer, its waiting tick included; says whether there was one."""
        timer = self._timers.pop(key, None) or self._rung.pop(key, None)
        if timer is None or timer.is_over:
            return False
        self._end(timer)
        return True

    def cancel_all(self) -> None:
        """End all of them."""
        timers = [*self._timers.values(), *self._rung.values()]
        self._timers.clear()
        self._rung.clear()
        for timer in timers:
            self._end(timer)

    @property
    def active(self) -> tuple[str, ...]:
        """Keys of the timers that will still tick, oldest first; a tick that waits already does not count."""
        return tuple(self._timers)

    def _start(self, key: str, method: Callable[..., object], arguments: tuple[object, ...], after: float, every: float | None) -> None:
        timer = _Timer(key, self._handler_for(method), arguments, every)
        self.cancel(key)
        self._timers[key] = timer
        timer.due = self._clock.monotonic() + after
        self._arm(timer)

    def _arm(self, timer: _Timer) -> None:
        timer.alarm = self._clock.call_later(max(0.0, timer.due - self._clock.monotonic()), lambda: self._ring(timer))

    def _ring(self, timer: _Timer) -> None:
        timer.alarm = None
        if timer.tick is None or timer.tick.finished:
            timer.tick = self._cell.signal(timer.handler, timer.arguments)
        if timer.every is None:
            del self._timers[timer.key]
            self._rung = {key: rung for key, rung in self._rung.items() if not rung.is_over}
            self._rung[timer.key] = timer
            return
        now = self._clock.monotonic()
        timer.due += timer.every
        if timer.due <= now:  # the loop was held up for periods: skip them, keep the rhythm
            timer.due += timer.every * int((now - timer.due) / timer.every + 1)
        self._arm(timer)

    @staticmethod
    def _end(timer: _Timer) -> None:
        if timer.alarm is not None:
            timer.alarm.cancel()
        if timer.tick is not None:
            timer.tick.revoke()
