"""A router by key: what has the same key goes to the same actor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, TypeVar

from sage_actor._core.actor_ref import ActorRef
from sage_actor.errors import ActorError
from sage_actor.routing.hash_ring import HashRing
from sage_actor.routing.router import Router

__all__ = ["HashRingRouter"]

A = TypeVar("A")


def first_argument(*arguments: object, **options: object) -> object:
    """The key of a message that says nothing else about it."""
    if not arguments:
        raise ActorError("hash ring: a call without positional arguments has no first one to be its key; give the router a `key`")
    return arguments[0]


class HashRingRouter(Router[A]):
    """Messages with equal keys go to the same member, in every process, as long as the members are the same.

    So the order of what one sender sends is kept for each key. When a member comes or goes, the fewest possible keys change
    hands (see `HashRing`); what a member had been sent of such a key stays with it, so around that moment the order between old and new
    messages of the key is open.

    Args:
        members: living actors, each with a path of its own, which decides its keys.
        key: called with what the handler will get: the message, or the arguments of the method. What it answers must have a
            stable hash (texts, numbers, tuples of them, ...). Default: the message, or the first positional argument.
        points: places of each member on the ring.
        name: for messages.

    Raises:
        ActorStopped: one of the members has ended.
        ActorError: two members have the same path.
        UnstableKey: from `tell` and `ask`, at the call: the key has no stable hash.
    """

    def __init__(
        self, members: Iterable[ActorRef[A]] = (), *, key: Callable[..., object] = first_argument, points: int = 128, name: str = "router"
    ) -> None:
        self._key = key
        self._ring = HashRing(points=points)
        self._on_ring: tuple[ActorRef[A], ...] = ()
        self._by_path: dict[str, ActorRef[A]] = {}
        super().__init__(members, name=name)

    def add(self, member: ActorRef[A]) -> bool:
        """Take an actor in; False if it is a member already.

        Raises:
            ActorStopped: it has ended, or ends.
            ActorError: another member has its path.
        """
        if any(other.path == member.path and other is not member for other in self.members):
            raise ActorError(f"router {self.name!r}: another member has the path {member.path!r}, by which keys are dealt; rename one")
        return super().add(member)

    def _pick(
        self, members: tuple[ActorRef[A], ...], message: Any, arguments: tuple[object, ...], options: dict[str, object]
    ) -> ActorRef[A]:
        if members is not self._on_ring:
            self._put_on_ring(members)
        if arguments or options or (isinstance(message, FunctionType) and message in members[0].cell.handlers):
            key = self._key(*arguments, **options)
        else:
            key = self._key(message)
        return self._by_path[self._ring.owner(key)]

    def _put_on_ring(self, members: tuple[ActorRef[A], ...]) -> None:
        self._on_ring = members
        self._by_path = {member.path: member for member in members}
        for gone in self._ring.owners - self._by_path.keys():
            self._ring.remove(gone)
        for path in self._by_path:
            self._ring.add(path)
