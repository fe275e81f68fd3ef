"""Whom a router stands for, at this moment: members come by hand and go by hand, or because they end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage_actor._core.actor_ref import ActorRef
from sage_actor.errors import ActorStopped

if TYPE_CHECKING:
    from sage_actor.actor.watching import Terminated

__all__ = ["Membership"]

A = TypeVar("A")


class Membership(Generic[A]):
    """An ordered set of living actors. One that ends leaves by itself, before its watchers go on; one that takes no mail any
    more leaves as soon as it is met by `takes_mail`. The actors do not keep the membership alive.

    """

    __slots__ = ("__weakref__", "_members", "_watches")

    def __init__(self) -> None:
        self._members: tuple[ActorRef[A], ...] = ()
        self._watches: dict[ActorRef[A], Callable[[], None]] = {}
        weakref.finalize(self, _take_back, self._watches).atexit = False

    @property
    def members(self) -> tuple[ActorRef[A], ...]:
        """The present ones, first added first; the same tuple until they change."""
        return self._members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[ActorRef[A]]:
        return iter(self._members)

    def add(self, member: ActorRef[A]) -> bool:
        """Take an actor in; False if it is a member already.

        Raises:
            ActorStopped: it has ended, or ends.
        """
        if member in self._watches:
            return False
        if not self._is_open(member):
            raise ActorStopped(member.path, "it cannot become a member")
        me = weakref.ref(self)

        def gone(ended: Terminated) -> None:
            membership = me()
            if membership is not None:
                membership.remove(member)

        self._watches[member] = member.cell.lifecycle.deathwatch.call(gone)
        self._members = (*self._members, member)
        return True

    def remove(self, member: ActorRef[Any]) -> bool:
        """Let an actor go, which lives on; False if it is no member. What it has been sent stays with it."""
        take_back = self._watches.pop(member, None)
        if take_back is None:
            return False
        take_back()
        self._members = tuple(other for other in self._members if other is not member)
        return True

    def clear(self) -> tuple[ActorRef[A], ...]:
        """Let all of them go; answers who they were."""
        members = self._members
        for member in members:
            self._watches.pop(member)()
        self._members = ()
        return members

    def takes_mail(self, member: ActorRef[A]) -> bool:
        """Whether a member can still be sent something; one that cannot is let go."""
        if self._is_open(member):
            return True
        self.remove(member)
        return False

    @staticmethod
    def _is_open(member: ActorRef[Any]) -> bool:
        return member.alive and not member.cell.closed  # while it drains its mailbox it lives, and takes nothing


def _take_back(watches: dict[Any, Callable[[], None]]) -> None:
    for take_back in watches.values():
        take_back()
