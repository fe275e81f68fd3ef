"""All of it at once: families in which anything may fail, be stopped or killed at any moment, seed by seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args

import pytest

import sage_actor as sage
from sage_actor.actor.supervisor_scope import Scope
from sage_actor.ports import current_random

MakeSystem = Callable[..., sage.ActorSystem]

STRATEGIES = (
    sage.FixedDelay(attempts=None, delay=0),
    sage.FixedDelay(attempts=4, delay=2),
    sage.ExponentialDelay(attempts=3, delay=0.5, max_delay=4),
    sage.NoRestart(),
)


class Boom(Exception):
    """What the actors here fail with."""


class Book:
    """What has to be true of all lives together."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.open: dict[str, int] = {}
        self.started = self.let_go = 0
        self.in_hook: Counter[str] = Counter()
        self.broken: list[str] = []

    def check(self, fine: bool, words: str) -> None:
        if not fine:
            self.broken.append(words)

    async def dawdle(self, system: sage.ActorSystem) -> None:
        if self.chance.random() < 0.5:
            await system.clock.sleep(self.chance.choice((0, 0, 0.3, 1)))


class Member(sage.Actor):
    """A member of a family, which may have children, and may fail wherever code of a user runs."""

    def __init__(self, book: Book, depth: int) -> None:
        self.book, self.depth = book, depth
        if book.chance.random() < 0.05:
            raise Boom("in the class")

    async def hook(self, name: str, *, fails: float) -> None:
        book, path = self.book, self.ref.path
        book.check(book.in_hook[path] == 0, f"{name} of {path} beside another hook or handler")
        book.in_hook[path] += 1
        try:
            await book.dawdle(self.context.system)
            if book.chance.random() < fails:
                raise Boom(f"in {name}")
        finally:
            book.in_hook[path] -= 1

    async def on_start(self) -> None:
        path = self.ref.path
        self.book.check(path not in self.book.open, f"{path} starts although an instance of it has not been let go")
        await self.hook("on_start", fails=0.05)
        for number in range(3 if self.depth else 0):
            with suppress(sage.ActorError):
                await spawn(self.context.spawn, self.book, self.depth - 1, f"c{number}")
        self.context.timers.every("beat", 0.7, self.beat)
        self.book.open[path] = id(self)
        self.book.started += 1

    async def let_go(self, name: str) -> None:
        self.book.check(self.context.children == (), f"{name} of {self.ref.path} before its children have ended")
        self.book.check(self.book.open.pop(self.ref.path, None) == id(self), f"{name} of {self.ref.path} not once for what had started")
        self.book.let_go += 1
        await self.hook(name, fails=0.1)

    async def on_restart(self, error: BaseException) -> None:
        await self.let_go("on_restart")

    async def on_stop(self) -> None:
        await self.let_go("on_stop")

    def beat(self) -> None:
        self.book.check(self.book.open.get(self.ref.path) == id(self), f"a timer of {self.ref.path} outlived its instance")
        if self.book.chance.random() < 0.02:
            raise Boom("in a timer")

    async def receive(self, message: object) -> object:
        self.book.check(self.book.open.get(self.ref.path) == id(self), f"{self.ref.path} served by an instance that is no more")
        await self.hook("receive", fails=0)
        if message == "boom":
            raise Boom("in a handler")
        return message


async def spawn(spawner: Callable[..., Any], book: Book, depth: int, name: str) -> sage.ActorRef[Member]:
    chance = book.chance
    supervision = sage.Supervision(
        scope=chance.choice(get_args(Scope)),
        intensity=chance.choice((None, None, 3)),
        decide=None if chance.random() < 0.8 else lambda error: chance.choice(("restart", "restart", "resume", "stop", "escalate")),
        when_exhausted=chance.choice(("stop", "escalate")),
    )
    mailbox = sage.MailboxSettings(capacity=chance.choice((1, 3, 100)))
    settings = {"restart": chance.choice(STRATEGIES), "supervision": supervision, "mailbox": mailbox, "retry_start": chance.random() < 0.3}
    ref: sage.ActorRef[Member] = await spawner(Member, book, depth, name=name, **settings)
    return ref


async def meddle(system: sage.ActorSystem, book: Book, asks: list[Any]) -> None:
    """Does something to somebody, again and again."""
    for _ in range(12):
        everyone = [ref for path in paths_of(system) if (ref := system.lookup(path)) is not None]
        if everyone:
            ref = book.chance.choice(everyone)
            match book.chance.choice(("boom", "boom", "ask", "ask", "ask", "stop", "drain", "kill", "cancel")):
                case "stop":
                    await system.stop(ref, drain=False, timeout=2)
                case "drain":
                    await system.stop(ref, timeout=2)
                case "kill":
                    await system.kill(ref)
                case "cancel":
                    asks.append(asking := ref.ask("hello"))
                    asking.cancel()
                case message:
                    asks.append(ref.ask("boom" if message == "boom" else "hello"))
        await book.dawdle(system)


def paths_of(system: sage.ActorSystem) -> list[str]:
    pending, found = list(system.statistics().actors), []
    while pending:
        actor = pending.pop()
        found.append(actor.path)
        pending.extend(actor.children)
    return found


@pytest.mark.rule("A2")
@pytest.mark.rule("A11")
@pytest.mark.rule("A41")
async def test_whatever_happens_lives_do_not_overlap_and_nothing_is_left(make_system: MakeSystem) -> None:
    book = Book(current_random())
    asks: list[asyncio.Future[object]] = []
    async with make_system(supervision=sage.Supervision(scope="rest_for_one")) as system:
        for number in range(2):
            with suppress(sage.ActorError):
                await spawn(system.spawn, book, 2, f"top{number}")
        await asyncio.gather(*(meddle(system, book, asks) for _ in range(3)))
        for actor in system.statistics().actors:
            parts = actor.handled + actor.dead_lettered + actor.queued + actor.stashed + actor.in_hand
            book.check(actor.accepted == parts, f"{actor.path}: {actor.accepted} accepted, {parts} accounted for")
    assert book.broken == []
    assert book.open == {}
    assert book.started == book.let_go
    assert system.statistics().living == 0
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    assert all(outcome == "hello" or isinstance(outcome, sage.ActorError | asyncio.CancelledError) for outcome in outcomes)
