"""The base class of actors: what a user writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sage_actor._core.actor_ref import ActorRef
from sage_actor.errors import ActorEnded, ActorError

if TYPE_CHECKING:
    from typing import Self

    from sage_actor.actor.context import ActorContext
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.watching import Terminated

__all__ = ["Actor"]


class Actor:
    """A unit with private state that handles one message at a time.

    Messages that name a method (``ref.ask(Counter.add, 1)``) call it; any other goes to `receive`. Methods may be plain or
    ``async def``; the next message is begun only when the method has returned (unless spawned with ``concurrency=`` above 1 or
    ``reentrant=True``). A method that raises fails the actor: the message is dropped, its ask fails with the cause, and the
    supervisor usually replaces the instance by a fresh one (made with the same arguments) behind the same ref, mail kept.

    A subclass needs no ``super().__init__()``. Hooks may be plain or async and run in the actor's own context, never beside a
    handler. An actor made by calling its class is an ordinary object, good for testing its methods directly.

    Attributes:
        expected_errors: exceptions that are answers: raised by a handler that was asked, they go to the caller as they are, and
            the actor goes on. After a tell, with nobody to tell, they fail the actor like any other.
        hidden_methods: names of methods that messages may not call, beside the hooks.
    """

    __slots__ = ("__dict__", "__weakref__", "_sage_lifecycle")

    expected_errors: ClassVar[tuple[type[Exception], ...]] = ()
    hidden_methods: ClassVar[frozenset[str]] = frozenset()

    _sage_lifecycle: Lifecycle

    @property
    def context(self) -> ActorContext:
        """What the runtime offers this actor: children, timers, death watch, stash.

        Raises:
            ActorError: the actor was not spawned by a system.
        """
        try:
            return self._sage_lifecycle.actor_context
        except AttributeError:
            raise ActorError(
                f"{type(self).__name__} was not spawned, so it has no context and no ref; use `await system.spawn({type(self).__name__})`"
            ) from None

    @property
    def ref(self) -> ActorRef[Self]:
        """This actor's own ref; valid across restarts."""
        return self.context.ref

    def receive(self, message: Any, /) -> object:  # Any: an override says which messages it takes
        """Handle a message that names no method; what it returns (or its awaited result) answers an ask.

        A class that does not override it takes no such messages: an ask fails with `BadCall`, a tell is a dead letter.
        """
        raise ActorError(f"{type(self).__name__} has no `receive` of its own, and its base class handles nothing")

    async def on_start(self) -> None:
        """Called before the first message of each life, after ``__init__``; `spawn` returns when it has. A failure here ends the
        spawn, or counts against the restart budget."""

    async def on_stop(self) -> None:
        """Called after the last message, when the actor ends for good; children have ended before. Not before a restart.

        Each instance whose `on_start` has returned is let go once: by `on_restart`, `on_passivate` or `on_stop`. So an actor that
        ends while it waits for its next life ends without. It has the time that was given for the stop, then it is cancelled.
        """

    async def on_restart(self, error: BaseException) -> None:
        """Called on the old instance, children stopped and timers cancelled, before a fresh one takes over: let go of resources.

        It has the `stop_timeout` of the system, then it is cancelled. What it raises is logged, and the restart goes on.
        """

    async def on_passivate(self) -> None:
        """Called on an instance that is let go because it was idle (``spawn(passivate_after=...)``); mail waits meanwhile, and then
        a new instance is made. Not before a stop or restart."""

    async def on_terminated(self, ended: Terminated) -> None:
        """A watched or linked actor has ended. Not overridden, the watcher fails with `ActorEnded`.

        It comes on the control lane, so it may overtake messages which that actor sent before it ended.
        """
        raise ActorEnded(ended.ref.path, "" if ended.reason is None else f"{type(ended.reason).__name__}: {ended.reason}")
