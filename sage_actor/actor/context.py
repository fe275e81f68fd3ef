"""What an actor can ask of the runtime, as `self.context`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from sage_actor._core.actor_cell import current_request
from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.supervision import RestartStrategy
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.actor.timers import Timers

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

    from sage_actor.actor.actor import Actor
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["ActorContext"]

A = TypeVar("A", bound="Actor")
Ts = TypeVarTuple("Ts")


class ActorContext:
    """One actor's view of its system; lives as long as the actor, across restarts. For use on the actor's own loop."""

    __slots__ = ("_lifecycle", "_timers")

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._timers: Timers | None = None

    @property
    def ref(self) -> ActorRef[Any]:
        """This actor's own ref."""
        return self._lifecycle.ref

    @property
    def system(self) -> ActorSystem:
        """The system this actor lives in."""
        return self._lifecycle.system

    @property
    def parent(self) -> ActorRef[Any] | None:
        """The actor that spawned this one; None for one that the system spawned."""
        parent = self._lifecycle.parent
        return None if parent is None else parent.ref

    @property
    def children(self) -> tuple[ActorRef[Any], ...]:
        """The living children, first started first."""
        return tuple(child.ref for child in self._lifecycle.children)

    @property
    def timers(self) -> Timers:
        """Named timers of this actor."""
        if self._timers is None:
            lifecycle = self._lifecycle
            self._timers = Timers(lifecycle.cell, lifecycle.system.clock, lifecycle.handler_for)
        return self._timers

    def cancel_timers(self) -> None:
        """End every timer, for a restart or the end; called by the runtime."""
        if self._timers is not None:
            self._timers.cancel_all()

    @property
    def log(self) -> BoundLogger:
        """A logger with the actor's path bound."""
        from sage_actor.telemetry.logs import get_logger

        return get_logger(actor=self._lifecycle.path)

    @property
    def deadline(self) -> float | None:
        """Seconds left to answer the ask that is being handled (0 if past); None if it has no deadline, or was told.

        Asks made while handling it inherit the deadline: they end when it does, whatever `timeout` they name.
        """
        request = current_request()
        if request is None or request.deadline == 0.0:
            return None
        return max(0.0, request.deadline - self._lifecycle.system.clock.monotonic())

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more for what is being handled: its caller, or one further up, gave up."""
        request = current_request()
        return request is not None and request.abandoned

    async def spawn(
        self,
        cls: Callable[[*Ts], A],
        /,
        *args: *Ts,
        name: str | None = None,
        restart: RestartStrategy | None = None,
        supervision: Supervision | None = None,
        mailbox: MailboxSettings | None = None,
        concurrency: int = 1,
        reentrant: bool = False,
        retry_start: bool = False,
        passivate_after: float | str | None = None,
    ) -> ActorRef[A]:
        """Spawn a child: it is supervised by this actor, stops before it, and restarts or stops with it.

        Arguments and errors are those of `ActorSystem.spawn`; the name is unique among the siblings.
        """
        return await self._lifecycle.system.spawn_under(
            self._lifecycle,
            cls,
            args,
            name=name,
            restart=restart,
            supervision=supervision,
            mailbox=mailbox,
            concurrency=concurrency,
            reentrant=reentrant,
            retry_start=retry_start,
            passivate_after=passivate_after,
        )

    def stop(self) -> None:
        """End this actor when the running handler returns. What is still queued goes to the dead letters."""
        self._lifecycle.stop_soon(None)

    def watch(self, ref: ActorRef[Any]) -> None:
        """Have `on_terminated` called once when that actor has ended, at once if it has already. Watching twice is watching once."""
        self._lifecycle.deathwatch.watch(ref.cell.lifecycle)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Undo `watch`, and `link` for both sides: from here on nothing is told, not even an end that was on its way."""
        self._lifecycle.deathwatch.unlink(ref.cell.lifecycle)

    def link(self, ref: ActorRef[Any]) -> None:
        """Watch that actor, and let it watch this one: each fails when the other has failed for good, unless its
        `on_terminated` handles it. An orderly stop of one does not fail the other."""
        other = ref.cell.lifecycle
        self._lifecycle.deathwatch.watch(other, only_failures=True)
        if other.cell.state_name != "stopped":
            other.deathwatch.watch(self._lifecycle, only_failures=True)

    def become(self, behaviour: Callable[[Any], object], *, keep: bool = False) -> None:
        """Handle messages for `receive` with another function from the next one on.

        Args:
            behaviour: takes the message; a bound method as a rule. Plain or async.
            keep: remember the present one for `unbecome`. A restart forgets all of them.
        """
        self._lifecycle.become(behaviour, keep=keep)

    def unbecome(self) -> bool:
        """Go back to the behaviour that the last ``become(..., keep=True)`` replaced; False if there is none."""
        return self._lifecycle.cell.unbecome()

    def stash(self) -> None:
        """Put the message that is being handled aside, in order, unanswered; what its handler returns does not count.

        Raises:
            MailboxFull: the stash is full.
            BadCall: no message is being handled.
        """
        self._lifecycle.cell.stash_current()

    def unstash(self) -> int:
        """Handle what was stashed next, in the order it came, before all other messages; how many there are.

        A restart unstashes by itself.
        """
        return self._lifecycle.cell.unstash()
