"""Work pulling: one bounded queue, and workers that take the next item only when they can begin it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, overload

from sage_actor._core.actor_cell import Handler
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Reply
from sage_actor.actor.handlers import handler_of
from sage_actor.actor.instance import factory_name
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.statistics import ActorStatistics, statistics_of
from sage_actor.actor.supervision import RestartStrategy
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.actor.system import ActorSystem
from sage_actor.errors import BadCall
from sage_actor.routing.pool_parent import MemberRecipe, check_size
from sage_actor.routing.pulling_front import PullingFront, SubmittedCall

if TYPE_CHECKING:
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.context import ActorContext

__all__ = ["WorkPullingPool", "WorkPullingStatistics", "spawn_work_pulling_pool"]

A = TypeVar("A", bound="Actor")
R = TypeVar("R")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPullingStatistics:
    """A work-pulling pool as of one moment. ``accepted = handled + dead_lettered + queued + in_hand``, always (rule A41).

    Attributes:
        path: of the front, which is the parent of the workers.
        accepted: items that entered the queue (or were dropped by its overflow policy).
        handled: items that a worker has been given and is done with, however that ended, and those that were given up while
            they were on their way to one.
        dead_lettered: items that left the queue, or its head, otherwise.
        queued: items that wait in the queue.
        in_hand: items that a worker has, and those at the head that wait for one while workers are missing or restart.
        waiting_senders: submits and asks that wait for room.
        workers: the counts of those that live.
    """

    path: str
    accepted: int
    handled: int
    dead_lettered: int
    queued: int
    in_hand: int
    waiting_senders: int
    workers: tuple[ActorStatistics, ...]


async def spawn_work_pulling_pool(
    spawner: ActorSystem | ActorContext,
    cls: Callable[[*Ts], A],
    /,
    *args: *Ts,
    size: int = 4,
    name: str | None = None,
    restart: RestartStrategy | None = None,
    supervision: Supervision | None = None,
    mailbox: MailboxSettings | None = None,
    concurrency: int = 1,
) -> WorkPullingPool[A]:
    """Spawn a front, whose mailbox is the queue, with `size` workers as its children, named from "0" on; returns when all have started.

    Args:
        spawner: the system, or the context of the actor whose child the front becomes.
        cls: the class of the workers; for keyword arguments a partial of it.
        args: what each is made with.
        size: how many workers.
        name: of the front; default: the class's name, "pool" and a number.
        restart: what happens when a worker fails.
        supervision: how the front supervises the workers.
        mailbox: bounds of the queue, its overflow policy and priorities; default: the system's.
        concurrency: items that one worker takes at a time.

    Raises:
        ActorFailed: a worker could not start (its own `ActorFailed` is the ``__cause__``); nothing is left of the pool.
        NameTaken: a living sibling has that name.
        ActorError: a setting makes no sense.
    """
    check_size(size)
    system = spawner if isinstance(spawner, ActorSystem) else spawner.system
    if mailbox is not None and mailbox.priority is not None:
        mailbox = replace(mailbox, priority=partial(_priority_of, mailbox.priority))
    # A worker's own mailbox holds what it has pulled and is about to begin, and the front's questions whether it is free.
    room = MailboxSettings(capacity=max(16, 4 * concurrency))
    recipe = MemberRecipe(make=cls, arguments=args, restart=restart, mailbox=room, concurrency=concurrency, reentrant=False)
    front = await spawner.spawn(
        PullingFront,
        recipe,
        size,
        name=f"{factory_name(cls)}-pool-{system.spawned + 1}" if name is None else name,
        mailbox=mailbox,
        supervision=supervision,
        concurrency=size * concurrency,
    )
    return WorkPullingPool(front)


class WorkPullingPool(Generic[A]):
    """A queue of work and the workers that empty it; made by `spawn_work_pulling_pool`.

    * Items are taken from the queue in the order in which they were submitted (or by priority), each by whichever worker is free,
      and begun by it at once: a slow worker, or one that restarts, holds up only what it has in hand.
    * Each item is handled at most once. A worker that fails takes the item in hand with it (its ask fails with the cause),
      and takes no other until it has restarted. What no worker has taken is never lost with a worker.
    * Bounds and overflow are those of the queue's `MailboxSettings`; a full one holds the senders, by default.
    * Cancelling an ask (or its timeout) gives the item up: while it is queued it will not be begun and becomes a dead letter; in
      a worker's hand it is treated like any ask of that worker. That worker is free again when its handler has ended.
    * When the last worker has ended for good, the pool ends with its reason, and what is queued becomes dead letters.

    An item that waits for another item of the same pool occupies a worker while it waits; enough of them wait for ever. With one
    worker that is found out (`AskCycle`). For use on the loop of the system.
    """

    __slots__ = ("_front", "_handlers")

    def __init__(self, front: ActorRef[PullingFront]) -> None:
        self._front = front
        self._handlers: dict[Callable[..., Any], Handler] = {}

    def __repr__(self) -> str:
        return f"<WorkPullingPool {self._front.path!r}, {len(self.workers)} workers>"

    @property
    def ref(self) -> ActorRef[Actor]:
        """The front: to be watched or stopped, and seen in statistics."""
        return self._front

    @property
    def workers(self) -> tuple[ActorRef[A], ...]:
        """Those that live. What is sent to one of them directly is handled by it, between the items it takes."""
        return tuple(child.ref for child in self._front.cell.lifecycle.children)

    @overload
    def submit(self, method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]: ...
    @overload
    def submit(self, message: object, /) -> Awaitable[bool]: ...
    def submit(self, message: Any, /, *args: Any, **kwargs: Any) -> Awaitable[bool]:
        """Queue an item whose answer nobody needs, as `ActorRef.tell` would: at the call, if there is room.

        Awaiting it waits for room, and answers whether it was accepted. What its handling raises is logged.

        Raises:
            MailboxFull: the queue is full and its policy is "fail".
            BadCall: it is no method of the workers.
        """
        handler = self._handler_for(message, args, kwargs)
        return self._front.tell(message if handler is None else SubmittedCall(message, args, kwargs))

    @overload
    def submit_nowait(self, method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload
    def submit_nowait(self, message: object, /) -> bool: ...
    def submit_nowait(self, message: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Like `submit`, never waiting: a full queue raises `MailboxFull` (policies "wait" and "fail")."""
        handler = self._handler_for(message, args, kwargs)
        return self._front.tell_nowait(message if handler is None else SubmittedCall(message, args, kwargs))

    @overload
    def ask(self, method: Callable[[A, *Ts], Coroutine[Any, Any, R]], /, *args: *Ts, timeout: float | str | None = None) -> Reply[R]: ...
    @overload
    def ask(self, method: Callable[[A, *Ts], R], /, *args: *Ts, timeout: float | str | None = None) -> Reply[R]: ...
    @overload
    def ask(self, method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Reply[R]: ...
    @overload
    def ask(self, method: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Reply[R]: ...
    @overload
    def ask(self, message: object, /, *, timeout: float | str | None = None) -> Reply[Any]: ...
    def ask(self, message: Any, /, *args: object, **kwargs: Any) -> Reply[Any]:
        """Queue an item and await what its worker answers, as `ActorRef.ask` would.

        An error of the worker comes as it would from the worker's own ref: `ActorFailed` names the worker.

        Args:
            timeout: for waiting in the queue and being handled together.

        Raises:
            BadCall: it is no method of the workers.
        """
        timeout: Any = kwargs.pop("timeout", None)
        handler = self._handler_for(message, args, kwargs)
        if handler is None:
            return self._front.ask(message, timeout=timeout)
        if kwargs:
            handler = _handler_of(message, kwargs)
        return self._front.ask_handler(handler, args, timeout)

    async def stop(self, *, drain: bool = True, timeout: float | str = 5.0) -> None:
        """End the pool; returns when all have ended. From then on nothing new is taken. Idempotent.

        Args:
            drain: let the workers empty the queue first; otherwise only the items in hand are finished.
            timeout: for each step, as for `ActorSystem.stop`.
        """
        await self._front.cell.lifecycle.system.stop(self._front, drain=drain, timeout=timeout)

    def statistics(self) -> WorkPullingStatistics:
        """Counts of the pool as of now."""
        front = statistics_of(self._front.cell.lifecycle)
        return WorkPullingStatistics(
            path=front.path,
            accepted=front.accepted,
            handled=front.handled,
            dead_lettered=front.dead_lettered,
            queued=front.queued,
            in_hand=front.in_hand,
            waiting_senders=front.waiting_senders,
            workers=front.children,
        )

    def _handler_for(self, message: Any, arguments: tuple[object, ...], options: dict[str, object]) -> Handler | None:
        """The front's handler for a method of the workers; None for a message to their `receive`."""
        if isinstance(message, FunctionType):
            known = self._handlers.get(message)
            if known is not None:
                return known
            handler = self._workers_handler(message)
            if handler is not None:
                if handler.streaming:
                    raise BadCall(self._front.path, f"{handler.name} yields its answer in parts, which no pool passes on; ask a worker")
                known = self._handlers[message] = _handler_of(message, {})
                return known
        if arguments or options:
            name = getattr(message, "__qualname__", repr(message))
            raise BadCall(self._front.path, f"{name} is no method of its workers, so no arguments can go with it")
        return None

    def _workers_handler(self, method: FunctionType) -> Handler | None:
        for worker in self.workers:
            return worker.cell.handlers.get(method)
        return handler_of(method)  # the pool has ended, as the answer will say


def _handler_of(method: Callable[..., Any], options: dict[str, object]) -> Handler:
    def perform(front: PullingFront, *arguments: object) -> Awaitable[object]:
        return front.perform(method, arguments, options)

    perform.method = method  # type: ignore[attr-defined]
    return Handler(perform, getattr(method, "__name__", "method"), plain=False, interruptible=True)


def _priority_of(priority: Callable[[object], int], item: object) -> int:
    """The user's function knows the workers' methods, not those of the front."""
    if isinstance(item, SubmittedCall):
        return priority(item.method)
    return priority(getattr(item, "method", item) if isinstance(item, FunctionType) else item)
