"""Pools: actors of one class, spawned and supervised together, with a router in front."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, TypeVarTuple, get_args

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.instance import factory_name
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.statistics import ActorStatistics, statistics_of
from sage_actor.actor.supervision import RestartStrategy
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.actor.system import ActorSystem
from sage_actor.errors import ActorError, ActorStopped
from sage_actor.routing.addressable import Addressable
from sage_actor.routing.broadcast import BroadcastRouter
from sage_actor.routing.hash_ring_router import HashRingRouter
from sage_actor.routing.pool_parent import MemberRecipe, PoolParent, PoolSize
from sage_actor.routing.router import LeastLoadedRouter, RandomRouter, RoundRobinRouter, Router

if TYPE_CHECKING:
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.context import ActorContext

__all__ = ["Pool", "PoolStatistics", "Routing", "spawn_pool"]

A = TypeVar("A", bound="Actor")
Ts = TypeVarTuple("Ts")

Routing = Literal["round_robin", "least_loaded", "random", "hash_ring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool as of one moment. The sums are over the members that live: one that has ended takes its counts with it.

    Attributes:
        path: of the parent of the members.
        size: how many members there are to be; there are fewer when some have ended for good (`Pool.resize` replaces them).
        members: the counts of each, in order.
        accepted: messages that entered their mailboxes.
        handled: messages whose handler has ended.
        failed: failures.
        dead_lettered: accepted messages that no handler saw to its end.
        queued: messages that wait, stashed ones included.
        in_hand: messages being handled.
        restarts: instances made after the first.
    """

    path: str
    size: int
    members: tuple[ActorStatistics, ...]
    accepted: int
    handled: int
    failed: int
    dead_lettered: int
    queued: int
    in_hand: int
    restarts: int


async def spawn_pool(
    spawner: ActorSystem | ActorContext,
    cls: Callable[[*Ts], A],
    /,
    *args: *Ts,
    size: int = 4,
    routing: Routing = "round_robin",
    key: Callable[..., object] | None = None,
    name: str | None = None,
    restart: RestartStrategy | None = None,
    supervision: Supervision | None = None,
    mailbox: MailboxSettings | None = None,
    concurrency: int = 1,
    reentrant: bool = False,
) -> Pool[A]:
    """Spawn a parent actor with `size` children, named from "0" on, and a router in front of the children.

    Returns when all have started. The parent itself only supervises; the router is an object of the program, so a message takes
    no detour.

    Args:
        spawner: the system, or the context of the actor whose child the parent becomes.
        cls: the class of the members; for keyword arguments a partial of it.
        args: what each is made with.
        size: how many.
        routing: who gets a message: see `RoundRobinRouter`, `LeastLoadedRouter`, `RandomRouter`, `HashRingRouter` for the choice
            and for what order is kept. For all of them at once there is `Pool.everyone`.
        key: for "hash_ring", see `HashRingRouter`.
        name: of the parent; default: the class's name, "pool" and a number.
        restart: what happens when a member fails.
        supervision: how the parent supervises the members.
        mailbox: bounds of each member's mailbox.
        concurrency: handlers that may run at a time in each member.
        reentrant: as for `spawn`, for each member.

    Raises:
        ActorFailed: a member could not start (its own `ActorFailed` is the ``__cause__``); nothing is left of the pool.
        NameTaken: a living sibling has that name.
        ActorError: a setting makes no sense.
    """
    system = spawner if isinstance(spawner, ActorSystem) else spawner.system
    chosen = f"{factory_name(cls)}-pool-{system.spawned + 1}" if name is None else name
    router: Router[A] = _router_of(routing, key, chosen)
    everyone: BroadcastRouter[A] = BroadcastRouter(name=chosen)
    recipe = MemberRecipe(make=cls, arguments=args, restart=restart, mailbox=mailbox, concurrency=concurrency, reentrant=reentrant)
    wanted = PoolSize(size)
    parent = await spawner.spawn(
        PoolParent,
        recipe,
        wanted,
        partial(_join, router, everyone),
        partial(_leave, router, everyone),
        name=chosen,
        supervision=supervision,
    )
    return Pool(parent, router, everyone, wanted)


def _router_of(routing: str, key: Callable[..., object] | None, name: str) -> Router[Any]:
    if key is not None and routing != "hash_ring":
        raise ActorError(f"pool {name!r}: routing={routing!r} looks at no key; leave `key` out, or choose 'hash_ring'")
    match routing:
        case "round_robin":
            return RoundRobinRouter(name=name)
        case "least_loaded":
            return LeastLoadedRouter(name=name)
        case "random":
            return RandomRouter(name=name)
        case "hash_ring":
            return HashRingRouter(name=name) if key is None else HashRingRouter(name=name, key=key)
        case _:
            raise ActorError(f"pool {name!r}: routing={routing!r} is not one of {', '.join(get_args(Routing))}")


def _join(router: Router[Any], everyone: BroadcastRouter[Any], member: ActorRef[Any]) -> None:
    router.add(member)
    everyone.add(member)


def _leave(router: Router[Any], everyone: BroadcastRouter[Any], member: ActorRef[Any]) -> None:
    router.remove(member)
    everyone.remove(member)


class Pool(Addressable[A], Generic[A]):
    """Actors of one class behind one address; made by `spawn_pool`.

    A member that fails is restarted as its strategy says, and stays in; one that ends for good is taken out and not replaced by
    itself. A restart of the parent (when a failure is escalated to it) brings a fresh set of members under the same names.

    Raises:
        ActorStopped: from `tell`, `tell_nowait`, `ask` and `stream`, at the call: the pool has been stopped.
        ActorError: likewise: all members have ended for good.
    """

    __slots__ = ("_everyone", "_parent", "_router", "_size", "_stopping")

    def __init__(self, parent: ActorRef[PoolParent], router: Router[A], everyone: BroadcastRouter[A], size: PoolSize) -> None:
        self._parent = parent
        self._router = router
        self._everyone = everyone
        self._size = size
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Pool {self.ref.path!r}, {len(self)} members>"

    @property
    def ref(self) -> ActorRef[Actor]:
        """The parent of the members: to be watched, and seen in statistics. It handles no messages of yours."""
        return self._parent

    @property
    def members(self) -> tuple[ActorRef[A], ...]:
        """Those that can be chosen now."""
        return self._router.members

    def __len__(self) -> int:
        return len(self._router)

    @property
    def everyone(self) -> BroadcastRouter[A]:
        """All members at once: ``await pool.everyone.ask(Worker.count)`` has the answer of each."""
        return self._everyone

    def choose(self, message: Any, arguments: tuple[object, ...], options: dict[str, object]) -> ActorRef[A]:
        if self._stopping or (not self._router.members and self._parent.cell.closed):
            raise ActorStopped(self._parent.path, self._parent.cell.lifecycle.why_closed())
        return self._router.choose(message, arguments, options)

    async def resize(self, size: int, *, timeout: float | str = 5.0) -> None:
        """Have members with the numbers from 0 to ``size - 1``: those missing are spawned, those above get no more messages, finish
        their mailboxes and end; then this returns. So ``resize(n)`` with the same size replaces members that ended for good.

        Resizes come one after the other. Cancelling the wait does not undo one that has begun.

        Args:
            size: 1 or more.
            timeout: for each step of the end of those that are too many, as for `ActorSystem.stop`.

        Raises:
            ActorFailed: a member could not start; the pool is as large as before.
            ActorStopped: the pool has been stopped.
            ActorError: the size makes no sense.
        """
        await self._parent.ask(PoolParent.resize, size, timeout)

    async def stop(self, *, drain: bool = True, timeout: float | str = 5.0) -> None:
        """End the pool; returns when all have ended. Once it has begun nothing new is taken. Idempotent.

        Args:
            drain: let the members finish what is in their mailboxes; otherwise only the messages in hand.
            timeout: for each step, as for `ActorSystem.stop`.
        """
        system: ActorSystem = self._parent.cell.lifecycle.system
        self._stopping = True
        members = self._router.members
        for member in members:
            _leave(self._router, self._everyone, member)
        # Side by side, where the parent would end one after the other: so none begins new messages while another ends.
        await asyncio.gather(*(system.stop(member, drain=drain, timeout=timeout) for member in members))
        await system.stop(self._parent, drain=drain, timeout=timeout)

    def statistics(self) -> PoolStatistics:
        """Counts of the pool as of now."""
        lifecycle = self._parent.cell.lifecycle
        members = statistics_of(lifecycle).children
        return PoolStatistics(
            path=lifecycle.path,
            size=self._size.wanted,
            members=members,
            accepted=sum(member.accepted for member in members),
            handled=sum(member.handled for member in members),
            failed=sum(member.failed for member in members),
            dead_lettered=sum(member.dead_lettered for member in members),
            queued=sum(member.queued + member.stashed for member in members),
            in_hand=sum(member.in_hand for member in members),
            restarts=sum(member.restarts for member in members),
        )
