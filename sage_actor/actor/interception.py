"""What may stand between the mail of a system's actors and their handlers: the faults of a test."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sage_actor._core.actor_cell import Handler
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["Interceptor"]


class Interceptor(Protocol):
    """Asked when an instance takes over and when it changes its behaviour, never for a message: without one nothing is slower.

    What it answers is called in place of what it was given, also for messages that come to an actor with an old instance and
    wait for a new one. A message that has been sent keeps the handler that its method had then.
    """

    def handlers(self, lifecycle: Lifecycle, actor: Actor, handlers: dict[FunctionType, Handler]) -> dict[FunctionType, Handler]:
        """The table for a new instance, made from the one of its class, which is shared and must not be changed.

        Raises:
            Exception: the start is to fail with it, as if the class had raised it.
        """
        ...

    def behaviour(self, lifecycle: Lifecycle, actor: Actor, receive: Callable[[Any], object]) -> Callable[[Any], object]:
        """What handles messages for `receive`: of a new instance, and from now on after `become`."""
        ...
