"""Dead letters: messages that no handler will see, each kept with the reason."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from sage_actor._core.actor_ref import ActorRef
from sage_actor.ports import Cancellable

__all__ = ["DeadLetters", "UndeliveredMessage"]


@dataclass(frozen=True, slots=True)
class UndeliveredMessage:
    """One message that was not handled.

    Attributes:
        message: what was sent; for a call of a method the tuple of its arguments.
        ref: to whom.
        reason: why not, in words.
        method: name of the method that was called, "" for a message to `receive`.
        asked: whether somebody waited for an answer (and has been told).
        at_ms: when, in milliseconds since the epoch.
    """

    message: object
    ref: ActorRef[object]
    reason: str
    method: str
    asked: bool
    at_ms: int


class _Subscription:
    def __init__(
        self, subscribers: list[Callable[[UndeliveredMessage], object]], subscriber: Callable[[UndeliveredMessage], object]
    ) -> None:
        self._subscribers = subscribers
        self._subscriber = subscriber

    def cancel(self) -> None:
        if self._subscriber in self._subscribers:
            self._subscribers.remove(self._subscriber)


class DeadLetters(Sequence[UndeliveredMessage]):
    """The last dead letters of a system, oldest first, and a count of all.

    Each undelivered message comes here exactly once.
    """

    def __init__(self, keep: int = 1000) -> None:
        self.keep = keep
        self._kept: deque[UndeliveredMessage] = deque(maxlen=keep)
        self._subscribers: list[Callable[[UndeliveredMessage], object]] = []
        self._total = 0

    @property
    def total(self) -> int:
        """How many there have been, those included that are not kept any more."""
        return self._total

    def subscribe(self, subscriber: Callable[[UndeliveredMessage], object]) -> Cancellable:
        """Call `subscriber` with each further one, at once, where it arises. It must not wait; what it raises is logged."""
        self._subscribers.append(subscriber)
        return _Subscription(self._subscribers, subscriber)

    def add(self, letter: UndeliveredMessage) -> None:
        """Keep one and tell the subscribers; called by the runtime.

        Raises:
            Exception: what a subscriber raised, after all have been told.
        """
        self._total += 1
        self._kept.append(letter)
        first: Exception | None = None
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(letter)
            except Exception as error:  # noqa: BLE001 - a subscriber is user code; the others are told all the same
                first = first or error
        if first is not None:
            raise first

    @overload
    def __getitem__(self, index: int) -> UndeliveredMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[UndeliveredMessage]: ...
    def __getitem__(self, index: int | slice) -> UndeliveredMessage | list[UndeliveredMessage]:
        return list(self._kept)[index] if isinstance(index, slice) else self._kept[index]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[UndeliveredMessage]:
        return iter(tuple(self._kept))

    def __repr__(self) -> str:
        return f"<{len(self._kept)} dead letters of {self._total}>"
