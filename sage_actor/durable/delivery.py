"""At-least-once delivery between actors of one system, handled once in effect where the receiver is durable.

A sender journals what it owes together with the events that it follows from, and sends it until it is confirmed, through
restarts and deaths of the process. A durable receiver journals which deliveries it has handled together with the events
that followed; a copy of one that was handled is confirmed and not handled again.

Order, and why one number is enough to know a copy
--------------------------------------------------
A sender numbers its deliveries 1, 2, 3, ... and has at most one under way to each path: the next is sent when the one before
was confirmed. So the deliveries of one sender to one path are handled in the order of their numbers, also across
failures of either side; a receiver that refuses one keeps those behind it waiting, and nobody else. And a receiver
that has handled number n has handled all lower ones of that sender to that path, so one number per sender and path is all
it has to keep, whatever it has received. (Several under way would need a set of the gaps, and would be handled out of
order whenever one of them failed. They would gain nothing: a receiver handles one message at a time.)

The numbers of a sender belong to a *stream*, a random number that is drawn with its first delivery and journalled with it. A
sender whose journal was lost begins a new one, and is not mistaken for its old self by receivers that remember its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sage_actor._core.reply import Reply
from sage_actor.actor.supervision import RestartStrategy, remembered
from sage_actor.durable.codec import StoredMark

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.actor import Actor

__all__ = ["Courier", "Delivery", "Inbox", "Outbox"]

_WATCH: Final = 60.0  # seconds; a delivery that is under way longer is looked at again, and not sent again


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that is owed to an actor.

    Attributes:
        sender: persistence id of the actor that owes it.
        stream: tells this journal of the sender from a lost one.
        number: its place among the sender's deliveries. With the sender it names the message for ever: a key for systems outside
            that should act on it once.
        to: path of the receiver.
        message: what is delivered.
    """

    sender: str
    stream: int
    number: int
    to: str
    message: object


class Outbox:
    """What a sender owes, by receiver."""

    def __init__(self) -> None:
        self.stream = 0
        self.last_number = 0
        self.unrecorded: list[int] = []
        self._queues: dict[str, dict[int, Delivery]] = {}
        self._receivers: dict[int, str] = {}

    def add(self, delivery: Delivery) -> None:
        """One more is owed."""
        self.stream = delivery.stream
        self.last_number = max(self.last_number, delivery.number)
        self._queues.setdefault(delivery.to, {})[delivery.number] = delivery
        self._receivers[delivery.number] = delivery.to

    def confirm(self, number: int) -> None:
        """One is not owed any more. Unknown numbers are none of those that are owed, and change nothing."""
        receiver = self._receivers.pop(number, None)
        if receiver is not None:
            queue = self._queues[receiver]
            del queue[number]
            if not queue:
                del self._queues[receiver]

    def next_for(self, receiver: str) -> Delivery | None:
        """The oldest that is owed to a path."""
        return next(iter(self._queues.get(receiver, {}).values()), None)

    @property
    def receivers(self) -> tuple[str, ...]:
        """Paths to which something is owed."""
        return tuple(self._queues)

    @property
    def owed(self) -> tuple[Delivery, ...]:
        """Everything that is owed, oldest first."""
        return tuple(self._queues[self._receivers[number]][number] for number in sorted(self._receivers))


class Inbox:
    """What a receiver has handled: the highest number of each sender, by the path under which it was sent here."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str], tuple[int, int]] = {}

    def has_handled(self, delivery: Delivery) -> bool:
        """Whether it is a copy of one that was handled."""
        stream, number = self._marks.get((delivery.sender, delivery.to), (0, 0))
        return stream == delivery.stream and delivery.number <= number

    def mark(self, mark: StoredMark) -> None:
        """One was handled."""
        self._marks[mark.sender, mark.to] = (mark.stream, mark.number)

    @property
    def marks(self) -> list[StoredMark]:
        """All of it, for a snapshot."""
        return [StoredMark(sender, stream, to, number) for (sender, to), (stream, number) in self._marks.items()]


class Courier:
    """Sends what an outbox holds: one delivery at a time to each path, again after a growing delay until it is confirmed.

    While anything is owed a timer of the actor runs, so the actor is not passivated; the timers end with the instance.
    """

    def __init__(
        self,
        actor: Actor,
        outbox: Outbox,
        strategy: RestartStrategy,
        *,
        ask: Callable[[ActorRef[Any], Delivery], Reply[Any]],
        tick: Callable[[str], object],
        confirmed: Callable[[], object],
    ) -> None:
        """Args:
        actor: the sender.
        outbox: what it owes.
        strategy: the delays between tries; the failures in a row to one path are its history.
        ask: hand one to its receiver.
        tick: a method of the actor that calls `send` with the path it is given.
        confirmed: called when numbers have been added to ``outbox.unrecorded``.
        """
        self._actor = actor
        self._outbox = outbox
        self._strategy = strategy
        self._ask = ask
        self._tick = tick
        self._confirmed = confirmed
        self._under_way: set[str] = set()
        self._failures: dict[str, list[float]] = {}

    def send_all(self) -> None:
        """Send the oldest delivery of each path."""
        for receiver in self._outbox.receivers:
            self.send(receiver)

    def send(self, receiver: str) -> None:
        """Send the oldest delivery of a path, unless it is under way."""
        delivery = self._outbox.next_for(receiver)
        if delivery is None:
            return
        self._watch(receiver, _WATCH)
        if receiver in self._under_way:
            return
        ref = self._actor.context.system.lookup(receiver)
        if ref is None:
            self._failed(delivery, f"there is no actor {receiver!r}")
            return
        self._under_way.add(receiver)
        # In a context of its own: a delivery has no deadline of whoever asked for what led to it, and waits for nobody.
        context = Context()
        reply = context.run(self._ask, ref, delivery)
        reply.add_done_callback(partial(self._answered, delivery), context=context)

    def _answered(self, delivery: Delivery, reply: Reply[Any]) -> None:
        self._under_way.discard(delivery.to)
        ref = self._actor.ref
        if ref.cell.actor is not self._actor or not ref.alive:
            return  # another instance owes it now, and has sent it again
        error = "it was given up" if reply.cancelled() else reply.exception()
        if error is not None:
            self._failed(delivery, str(error))
            return
        self._failures.pop(delivery.to, None)
        self._actor.context.timers.cancel(_key(delivery.to))
        self._outbox.confirm(delivery.number)
        self._outbox.unrecorded.append(delivery.number)
        self._confirmed()
        self.send(delivery.to)

    def _failed(self, delivery: Delivery, why: str) -> None:
        system, receiver = self._actor.context.system, delivery.to
        now = system.clock.monotonic()
        again = receiver in self._failures
        self._failures[receiver] = remembered(self._strategy, [*self._failures.get(receiver, ()), now])
        delay = self._strategy.next_delay(self._failures[receiver], now, system.random)
        if delay is None:
            self._actor.context.timers.cancel(_key(receiver))
            words = "a delivery was given up until the next start of its sender; it is still owed"
            self._actor.context.log.error(words, to=receiver, number=delivery.number, error=why)
            return
        if again:  # once is no news: a receiver that is not there yet, or restarts
            words = "a delivery was not confirmed and is sent again later"
            self._actor.context.log.warning(words, to=receiver, number=delivery.number, error=why, delay=delay)
        self._watch(receiver, delay)

    def _watch(self, receiver: str, seconds: float) -> None:
        self._actor.context.timers.once(_key(receiver), seconds, self._tick, receiver)


def _key(receiver: str) -> str:
    return f"delivery to {receiver}"
