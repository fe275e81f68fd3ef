"""Death watch: how the end of an actor reaches those who asked to be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Call
from sage_actor.actor.handlers import handler_of
from sage_actor.errors import ActorError

if TYPE_CHECKING:
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["DeathWatch", "Terminated"]


@dataclass(frozen=True, slots=True)
class Terminated:
    """An actor has ended; its name is free again.

    Attributes:
        ref: which.
        reason: the error that ended it, None for an orderly stop.
    """

    ref: ActorRef[object]
    reason: BaseException | None


class DeathWatch:
    """Whom one actor watches, and who watches it. The runtime's own."""

    __slots__ = ("_lifecycle", "_outside", "_watched", "_watchers")

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._watchers: dict[Lifecycle, bool] = {}  # with whether they care for failures only
        self._watched: dict[Lifecycle, Call | None] = {}  # with the signal that is on its way
        self._outside: dict[Callable[[Terminated], object], None] = {}

    @property
    def watchers(self) -> tuple[Lifecycle, ...]:
        """The actors that watch this one."""
        return tuple(self._watchers)

    def watch(self, other: Lifecycle, *, only_failures: bool = False) -> None:
        """Have `on_terminated` called once when `other` has ended, at once if it has."""
        if other is self._lifecycle:
            raise ActorError(f"actor {other.path!r} cannot watch itself; its end is told by on_stop")
        self._watched.setdefault(other, None)
        if other.cell.state_name == "stopped":
            self._told(other, only_failures)
        else:
            watchers = other.deathwatch._watchers
            watchers[self._lifecycle] = only_failures and watchers.get(self._lifecycle, True)

    def unwatch(self, other: Lifecycle) -> None:
        """From here on nothing is told, not even what is on its way."""
        other.deathwatch._watchers.pop(self._lifecycle, None)
        signal = self._watched.pop(other, None)
        if signal is not None:
            signal.revoke()

    def unlink(self, other: Lifecycle) -> None:
        """Undo a link, from both sides: what `other` watches in full, by a `watch` of its own, it goes on watching."""
        self.unwatch(other)
        if self._watchers.get(other):
            other.deathwatch.unwatch(self._lifecycle)

    def call(self, callback: Callable[[Terminated], object]) -> Callable[[], None]:
        """Call back when this actor has ended; answers a function that takes that back."""
        self._outside[callback] = None
        return lambda: self._outside.pop(callback, None)

    def announce(self) -> None:
        """This actor has ended: it watches nobody any more, and everybody who watches it is told."""
        for other in list(self._watched):
            self.unwatch(other)
        watchers, self._watchers = self._watchers, {}
        for watcher, only_failures in watchers.items():
            watcher.deathwatch._told(self._lifecycle, only_failures)
        outside, self._outside = self._outside, {}
        ended = Terminated(self._lifecycle.ref, self._lifecycle.reason)
        for callback in outside:
            callback(ended)

    def _told(self, other: Lifecycle, only_failures: bool) -> None:
        if only_failures and other.reason is None:
            self._watched.pop(other, None)
        elif self._watched.get(other) is None:  # else the news is on its way already
            self._watched[other] = self._lifecycle.cell.signal(_TELL, (Terminated(other.ref, other.reason), self))

    def delivered(self, ended: Terminated) -> None:
        """The news is being told. From here on it is forgotten: else a watcher would keep alive whatever it has ever watched."""
        self._watched.pop(ended.ref.cell.lifecycle, None)


def _tell(actor: Actor, ended: Terminated, deathwatch: DeathWatch) -> object:
    deathwatch.delivered(ended)
    return actor.on_terminated(ended)


_TELL = handler_of(_tell, "on_terminated")
