"""The registry over borders: what is registered in one process is offered in all of them, a moment later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sage_actor.actor.registry import ServiceKey
from sage_actor.remote.frames import Offer

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.remote.node import Node

__all__ = ["Offers"]


class Offers:
    """Tells the others of this process's registrations, and takes theirs.

    A registration travels over the same links as messages: whoever is sent something after it finds the actor. The end of an actor
    takes it off everywhere, by what every process knows of the end itself.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def tell(self, key: ServiceKey[Any], ref: ActorRef[Any], offered: bool) -> None:
        """Somebody here has registered an actor, or taken it off."""
        node = self._node
        form, payload = node.wire.encode(ref, f"the ref of {ref.path!r}")
        for peer in node.links:
            node.send(peer, Offer(key.name, offered, form), payload)

    def take(self, key: str, ref: ActorRef[Any], offered: bool) -> None:
        """Somebody elsewhere has."""
        self._node.system.registry.take(ServiceKey(key), ref, offered)
