"""Routers: one address for several actors, and three ways to choose among them that look at no message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from random import Random
from typing import Any, Generic, TypeVar

from sage_actor._core.actor_ref import ActorRef
from sage_actor.errors import ActorError
from sage_actor.ports import current_random
from sage_actor.routing.addressable import Addressable
from sage_actor.routing.membership import Membership

__all__ = ["LeastLoadedRouter", "RandomRouter", "RoundRobinRouter", "Router"]

A = TypeVar("A")

RESTARTING = 3
"""`Cell.state` of an actor that keeps its mail and serves none."""


class Router(Addressable[A], ABC, Generic[A]):
    """Chooses a member for each message. It is an object of the program, not an actor: sending through it costs the choice alone.

    A member that ends, or that takes no mail because it is being stopped, is taken out by itself; what it had been sent stays
    with it. A member that restarts stays in.

    Args:
        members: living actors of one class, in order; one that is given twice counts once.
        name: for messages.

    Raises:
        ActorStopped: one of the members has ended.
    """

    def __init__(self, members: Iterable[ActorRef[A]] = (), *, name: str = "router") -> None:
        self.name = name
        self._membership: Membership[A] = Membership()
        for member in members:
            self.add(member)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self)} members>"

    @property
    def members(self) -> tuple[ActorRef[A], ...]:
        """The present members, first added first."""
        return self._membership.members

    def __len__(self) -> int:
        return len(self._membership)

    def add(self, member: ActorRef[A]) -> bool:
        """Take an actor in, as the last one; False if it is a member already.

        Raises:
            ActorStopped: it has ended, or ends.
        """
        return self._membership.add(member)

    def remove(self, member: ActorRef[A]) -> bool:
        """Send it nothing more; it lives on. False if it is no member."""
        return self._membership.remove(member)

    def choose(self, message: Any, arguments: tuple[object, ...], options: dict[str, object]) -> ActorRef[A]:
        membership = self._membership
        while members := membership.members:
            member = members[0] if len(members) == 1 else self._pick(members, message, arguments, options)
            if membership.takes_mail(member):
                return member
        raise ActorError(
            f"router {self.name!r} has no members, so nothing can be sent through it; add() one, or watch them to learn of ends"
        )

    @abstractmethod
    def _pick(
        self, members: tuple[ActorRef[A], ...], message: Any, arguments: tuple[object, ...], options: dict[str, object]
    ) -> ActorRef[A]:
        """One of two or more."""


class RoundRobinRouter(Router[A]):
    """The members take turns. No two messages that follow each other keep their order, unless there is one member."""

    _turn = 0

    def _pick(
        self, members: tuple[ActorRef[A], ...], message: Any, arguments: tuple[object, ...], options: dict[str, object]
    ) -> ActorRef[A]:
        turn = self._turn
        self._turn = turn + 1
        return members[turn % len(members)]


class RandomRouter(Router[A]):
    """Any member, each as likely as the others. No order is kept.

    Args:
        random: where chance comes from; default: the running loop's own (a simulation brings one), else the system's.
    """

    def __init__(self, members: Iterable[ActorRef[A]] = (), *, name: str = "router", random: Random | None = None) -> None:
        super().__init__(members, name=name)
        self._random = current_random() if random is None else random

    def _pick(
        self, members: tuple[ActorRef[A], ...], message: Any, arguments: tuple[object, ...], options: dict[str, object]
    ) -> ActorRef[A]:
        return members[self._random.randrange(len(members))]


class LeastLoadedRouter(Router[A]):
    """The member with the fewest messages queued, stashed, in hand or waiting for room; equal ones take turns. No order is kept.

    One that restarts is chosen only if all do: its mailbox is short because nobody empties it. The choice looks at every
    member, so it takes longer the more there are.
    """

    _turn = 0

    def _pick(
        self, members: tuple[ActorRef[A], ...], message: Any, arguments: tuple[object, ...], options: dict[str, object]
    ) -> ActorRef[A]:
        count = len(members)
        best = first = self._turn % count
        least = _load(members[first])
        for number in range(first + 1, first + count):
            if least == (False, 0):
                break
            load = _load(members[number % count])
            if load < least:
                best, least = number % count, load
        self._turn = best + 1
        return members[best]


def _load(member: ActorRef[Any]) -> tuple[bool, int]:
    cell = member.cell
    messages = cell.queued + cell.stashed + cell.in_hand + cell.statistics().waiting_putters
    return cell.state == RESTARTING and not cell.passive, messages
