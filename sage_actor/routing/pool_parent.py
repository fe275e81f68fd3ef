"""The actor above the members of a pool: it spawns and supervises them, so that they are one subtree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.actor import Actor
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.supervision import RestartStrategy
from sage_actor.errors import ActorError

__all__ = ["MemberRecipe", "PoolParent", "PoolSize", "check_size", "spawn_members"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecipe:
    """How the members of a pool are spawned: what `spawn` is given for each of them, but for the name."""

    make: Callable[..., Actor]
    arguments: tuple[object, ...]
    restart: RestartStrategy | None
    mailbox: MailboxSettings | None
    concurrency: int
    reentrant: bool


@dataclass(slots=True)
class PoolSize:
    """How many members a pool is to have; outlives restarts of the parent."""

    wanted: int

    def __post_init__(self) -> None:
        check_size(self.wanted)


def check_size(size: int) -> None:
    """Refuse what is no size of a pool.

    Raises:
        ActorError: it is below 1.
    """
    if size < 1:
        raise ActorError(f"pool: size={size} must be at least 1; stop the pool to have no members")


async def spawn_members(parent: Actor, recipe: MemberRecipe, numbers: Iterable[int]) -> list[ActorRef[Any]]:
    """Spawn children with these numbers for names, in order: all of them, or none.

    Raises:
        ActorFailed: one could not start; those before it have been stopped again.
    """
    spawned: list[ActorRef[Any]] = []
    try:
        for number in numbers:
            member = await parent.context.spawn(
                recipe.make,
                *recipe.arguments,
                name=str(number),
                restart=recipe.restart,
                mailbox=recipe.mailbox,
                concurrency=recipe.concurrency,
                reentrant=recipe.reentrant,
            )
            spawned.append(member)
    except BaseException:
        for member in reversed(spawned):
            await parent.context.system.stop(member, drain=False)
        raise
    return spawned


class PoolParent(Actor):
    """Holds the members numbered from 0 to the wanted size; after a restart of its own it holds fresh ones.

    Args:
        recipe: how they are spawned.
        size: how many there are to be.
        joined: called with each that has started.
        left: called with each that is about to be stopped, so that it gets no new mail.
    """

    expected_errors = (ActorError,)  # a member that cannot be spawned is the answer to `resize`, and no failure of the others

    def __init__(
        self, recipe: MemberRecipe, size: PoolSize, joined: Callable[[ActorRef[Any]], object], left: Callable[[ActorRef[Any]], object]
    ) -> None:
        self._recipe = recipe
        self._size = size
        self._joined = joined
        self._left = left

    async def on_start(self) -> None:
        await self._spawn_missing()

    async def resize(self, size: int, timeout: float | str) -> None:
        """Have this many members; returns when those that are too many have finished their mailboxes and ended.

        Raises:
            ActorError: the size makes no sense; `ActorFailed` if a member could not start, then the pool is as large as before.
        """
        check_size(size)
        before, self._size.wanted = self._size.wanted, size
        try:
            await self._spawn_missing()
        except BaseException:
            self._size.wanted = before
            raise
        too_many = [child for child in self.context.children if int(child.name) >= size]
        for child in too_many:
            self._left(child)
        await asyncio.gather(*(self.context.system.stop(child, timeout=timeout) for child in reversed(too_many)))

    async def _spawn_missing(self) -> None:
        there = {child.name for child in self.context.children}
        missing = [number for number in range(self._size.wanted) if str(number) not in there]
        for member in await spawn_members(self, self._recipe, missing):
            self._joined(member)
