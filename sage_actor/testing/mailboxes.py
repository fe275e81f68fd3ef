"""Looking into an actor's mailbox from a test, without disturbing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sage_actor._core.reply import Call, Reply
from sage_actor.actor.inspection import shortened
from sage_actor.actor.statistics import ActorStatistics, statistics_of

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef

__all__ = ["MailboxView", "Waiting", "mailbox_of"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message that an actor was sent and has not begun to handle.

    Attributes:
        message: what was sent; for a call of a method the tuple of its arguments, as in a dead letter.
        method: name of the method that is called, "" for a message to `receive`.
        options: keyword arguments of the call.
        asked: whether it asks for an answer.
        given_up: whether the one who asked does not wait any more: it will not be handled.
    """

    message: object
    method: str = ""
    options: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    asked: bool = False
    given_up: bool = False

    @classmethod
    def of(cls, item: object) -> Waiting:
        """What stands in a mailbox, as a value."""
        if not isinstance(item, Call):
            return cls(item)
        method = "" if item.handler is None else item.handler.name
        given_up = isinstance(item, Reply) and item.done()
        return cls(item.message, method, dict(item.options or {}), isinstance(item, Reply), given_up)

    @property
    def arguments(self) -> tuple[object, ...]:
        """Positional arguments of a call; for any other message the message alone."""
        return cast("tuple[object, ...]", self.message) if self.method else (self.message,)

    def __str__(self) -> str:
        given = [shortened(argument) for argument in self.arguments]
        given += [f"{name}={shortened(value)}" for name, value in self.options.items()]
        text = f"{self.method}({', '.join(given)})" if self.method else given[0]
        return ("ask " if self.asked else "") + text + (", given up" if self.given_up else "")


@dataclass(frozen=True, slots=True)
class MailboxView:
    """A mailbox as of one moment.

    Attributes:
        path: of the actor.
        waiting: the messages that wait, the next one first. Those that were unstashed come first; those still in the stash are
            only counted, as ``statistics.stashed``; signals (timers, death watch) are no messages.
        statistics: all counts of the actor: ``accepted = handled + dead_lettered + queued + stashed + in_hand``.
    """

    path: str
    waiting: tuple[Waiting, ...]
    statistics: ActorStatistics

    def __len__(self) -> int:
        return len(self.waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self.waiting)

    def __str__(self) -> str:
        counts = self.statistics
        head = f"mailbox of {self.path!r} ({counts.state}): {len(self)} wait, {counts.in_hand} in hand, {counts.stashed} stashed"
        return head + "".join(f"\n  {waiting}" for waiting in self.waiting)


def mailbox_of(ref: ActorRef[Any]) -> MailboxView:
    """What waits for an actor now. For the actor's own thread; looking changes nothing, and the view does not change later on.

    The mailbox of an actor that has ended is empty; its counts remain.
    """
    cell = ref.cell
    return MailboxView(ref.path, tuple(map(Waiting.of, cell.pending_messages())), statistics_of(cell.lifecycle))
