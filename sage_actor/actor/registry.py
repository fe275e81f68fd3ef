"""The registry: actors that offer something, found by a key; whoever looks for it is told of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage_actor._core.actor_ref import ActorRef
from sage_actor.errors import ActorStopped

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["Registry", "ServiceKey"]

A = TypeVar("A")


class ServiceKey(Generic[A]):
    """What an actor offers, by name, with the class of actor that offers it: ``PRINTERS = ServiceKey[Printer]("printers")``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceKey) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"ServiceKey({self.name!r})"


class Registry:
    """Who offers what, at this moment. An actor that ends is taken off by itself, before its watchers are told."""

    def __init__(self) -> None:
        self._offers: dict[ServiceKey[Any], dict[ActorRef[Any], None]] = {}
        self._changes: dict[ServiceKey[Any], dict[asyncio.Event, None]] = {}  # a dict for its order
        self.tell_others: Callable[[ServiceKey[Any], ActorRef[Any], bool], None] | None = None
        """Called with what is registered here, and with what is taken off; for the runtime."""

    def register(self, key: ServiceKey[A], ref: ActorRef[A]) -> None:
        """Offer it. Registering twice is registering once.

        Raises:
            ActorStopped: the actor has ended.
        """
        if not ref.alive:
            raise ActorStopped(ref.path, "it cannot be registered")
        if self._add(key, ref) and self.tell_others is not None:
            self.tell_others(key, ref, True)

    def unregister(self, key: ServiceKey[A], ref: ActorRef[A]) -> bool:
        """Offer it no more; says whether it was offered."""
        offered = self._remove(key, ref)
        if offered and self.tell_others is not None:
            self.tell_others(key, ref, False)
        return offered

    def take(self, key: ServiceKey[Any], ref: ActorRef[Any], offered: bool) -> None:
        """What was registered, or taken off, in another process; called by the runtime."""
        if not offered:
            self._remove(key, ref)
        elif ref.alive:
            self._add(key, ref)

    def find(self, key: ServiceKey[A]) -> tuple[ActorRef[A], ...]:
        """All that offer it now, first registered first."""
        return tuple(self._offers.get(key, ()))

    async def subscribe(self, key: ServiceKey[A]) -> AsyncIterator[tuple[ActorRef[A], ...]]:
        """Yield all that offer it, at once and after every change; a slow reader sees the latest state, not each one between."""
        event = asyncio.Event()
        self._changes.setdefault(key, {})[event] = None
        try:
            while True:
                event.clear()
                yield self.find(key)
                await event.wait()
        finally:
            events = self._changes[key]
            del events[event]
            if not events:
                del self._changes[key]

    def gone(self, lifecycle: Lifecycle) -> None:
        """An actor has ended; called by the system."""
        if not self._offers:
            return
        ref = lifecycle.ref
        for key in [key for key, offers in self._offers.items() if ref in offers]:
            self._remove(key, ref)

    def _add(self, key: ServiceKey[Any], ref: ActorRef[Any]) -> bool:
        offers = self._offers.setdefault(key, {})
        if ref in offers:
            return False
        offers[ref] = None
        self._changed(key)
        return True

    def _remove(self, key: ServiceKey[Any], ref: ActorRef[Any]) -> bool:
        offers = self._offers.get(key, {})
        if ref not in offers:
            return False
        del offers[ref]
        if not offers:
            del self._offers[key]
        self._changed(key)
        return True

    def _changed(self, key: ServiceKey[Any]) -> None:
        for event in self._changes.get(key, ()):
            event.set()
