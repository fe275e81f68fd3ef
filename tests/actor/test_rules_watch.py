"""Death watch held to the rules: who is told of an end, when, how often, and what comes of not listening."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import sage_actor as sage

MakeSystem = Callable[..., sage.ActorSystem]

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


class Boom(Exception):
    """What the actors here fail with."""


class Watched(sage.Actor):
    """May fail, and may talk before it ends."""

    def receive(self, message: object) -> object:
        if message == "boom":
            raise Boom("on purpose")
        return message

    async def last_words(self, to: sage.ActorRef[Any], words: int) -> None:
        for number in range(words):
            await to.tell(number)
        self.context.stop()


class Watcher(sage.Actor):
    """Writes down what it hears."""

    def __init__(self, log: list[Any], listens: bool = True) -> None:
        self.log, self.listens = log, listens

    def watch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.watch(ref)

    def unwatch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.unwatch(ref)

    def link(self, ref: sage.ActorRef[Any]) -> None:
        self.context.link(ref)

    async def on_terminated(self, ended: sage.Terminated) -> None:
        if not self.listens:
            await super().on_terminated(ended)
        self.log.append((ended.ref.name, type(ended.reason).__name__))

    def receive(self, message: object) -> object:
        if message == "boom":
            raise Boom("on purpose")
        self.log.append(message)
        return message

    async def hold(self, gate: asyncio.Event) -> None:
        await gate.wait()


@pytest.mark.rule("A17")
async def test_watching_is_told_once_with_the_reason(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log)
        orderly = await system.spawn(Watched, name="orderly")
        failing = await system.spawn(Watched, name="failing", restart=sage.NoRestart())
        for ref in (orderly, failing):
            await watcher.ask(Watcher.watch, ref)
        await system.stop(orderly)
        await failing.tell("boom")
        await system.watch(failing)
        await system.wait_idle()
        assert sorted(log) == [("failing", "Boom"), ("orderly", "NoneType")]


@pytest.mark.rule("A17")
async def test_watching_a_dead_actor_is_told_at_once(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log)
        dead = await system.spawn(Watched, name="dead")
        await system.stop(dead)
        assert system.watch(dead).done()
        await watcher.ask(Watcher.watch, dead)
        await system.wait_idle()
        assert log == [("dead", "NoneType")]
        await watcher.ask(Watcher.watch, dead)  # a new question, a new answer
        await system.wait_idle()
        assert log == [("dead", "NoneType")] * 2


@pytest.mark.rule("A18")
async def test_after_unwatch_nothing_is_told_even_if_it_waits_already(make_system: MakeSystem) -> None:
    log: list[Any] = []
    gate = asyncio.Event()

    class Changing(Watcher):
        async def let_go(self, ref: sage.ActorRef[Any], gate: asyncio.Event) -> None:
            await gate.wait()
            self.context.unwatch(ref)

    async with make_system() as system:
        watcher = await system.spawn(Changing, log)
        early, late = await system.spawn(Watched, name="early"), await system.spawn(Watched, name="late")
        await watcher.ask(Watcher.watch, early)
        await watcher.ask(Watcher.watch, late)
        await watcher.ask(Watcher.unwatch, early)
        letting_go = watcher.ask(Changing.let_go, late, gate)
        await system.clock.sleep(1)
        await system.stop(early)
        await system.stop(late)  # the news waits behind the handler
        gate.set()
        await letting_go
        await system.wait_idle()
        assert log == []


@pytest.mark.rule("A18")
async def test_a_watch_from_outside_can_be_given_up(make_system: MakeSystem) -> None:
    async with make_system() as system:
        watched = await system.spawn(Watched)
        given_up, kept = system.watch(watched), system.watch(watched)
        given_up.cancel()
        await system.stop(watched)
        assert (await kept).ref == watched
        assert given_up.cancelled()


@pytest.mark.rule("A19")
async def test_watching_twice_is_watching_once(make_system: MakeSystem) -> None:
    log: list[Any] = []
    gate = asyncio.Event()
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log)
        watched = await system.spawn(Watched, name="w")
        for _ in range(3):
            await watcher.ask(Watcher.watch, watched)
        holding = watcher.ask(Watcher.hold, gate)
        again = watcher.ask(Watcher.watch, watched)
        await system.clock.sleep(1)
        await system.stop(watched)
        gate.set()
        await asyncio.gather(holding, again)
        await system.wait_idle()
        assert log in ([("w", "NoneType")], [("w", "NoneType")] * 2)  # the last may come after the news was told
        assert log == [("w", "NoneType")] * 2, "the control lane goes first"


@pytest.mark.rule("A19")
async def test_watching_again_while_the_news_waits_adds_nothing(make_system: MakeSystem) -> None:
    log: list[Any] = []

    class Twice(Watcher):
        async def again(self, ref: sage.ActorRef[Any], gate: asyncio.Event) -> None:
            await gate.wait()
            self.context.watch(ref)

    gate = asyncio.Event()
    async with make_system() as system:
        watcher = await system.spawn(Twice, log)
        watched = await system.spawn(Watched, name="w")
        await watcher.ask(Watcher.watch, watched)
        again = watcher.ask(Twice.again, watched, gate)
        await system.clock.sleep(1)
        await system.stop(watched)
        gate.set()
        await again
        await system.wait_idle()
        assert log == [("w", "NoneType")]


@pytest.mark.rule("A20")
async def test_the_news_may_overtake_mail_and_mail_keeps_its_order(make_system: MakeSystem) -> None:
    """Ours is a signal: once it is there it is told next, before all mail that waits."""
    log: list[Any] = []
    gate = asyncio.Event()
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log)
        watched = await system.spawn(Watched, name="w")
        await watcher.ask(Watcher.watch, watched)
        holding = watcher.ask(Watcher.hold, gate)
        await system.clock.sleep(1)
        await watched.tell(Watched.last_words, watcher, 3)
        await system.watch(watched)
        gate.set()
        await holding
        await system.wait_idle()
        assert log == [("w", "NoneType"), 0, 1, 2]


@pytest.mark.rule("A21")
@pytest.mark.parametrize("how", ["stop", "kill", "failure"])
async def test_the_name_is_free_before_anybody_is_told(make_system: MakeSystem, how: str) -> None:
    answers: list[str] = []
    key = sage.ServiceKey[Watched]("watched")

    class Replacing(sage.Actor):
        async def replace(self) -> None:
            ref = await self.context.system.spawn(Watched, name="w", restart=sage.NoRestart())
            self.context.system.registry.register(key, ref)
            self.context.watch(ref)

        async def on_terminated(self, ended: sage.Terminated) -> None:
            assert self.context.system.registry.find(key) == ()
            if len(answers) < 3:
                await self.replace()
            answers.append(ended.ref.name)

    async with make_system() as system:
        replacing = await system.spawn(Replacing)
        await replacing.ask(Replacing.replace)
        for _ in range(3):
            watched = system.lookup("w")
            assert watched is not None
            ended = system.watch(watched)
            if how == "failure":
                await watched.tell("boom")
            else:
                await (system.stop if how == "stop" else system.kill)(watched)
            await ended
            await system.wait_idle()
        assert answers == ["w", "w", "w"]


# -- not listening ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("A14")
async def test_an_end_that_is_not_handled_fails_the_watcher_which_by_default_restarts(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log, False, name="watcher")
        watched = await system.spawn(Watched, name="w")
        await watcher.ask(Watcher.watch, watched)
        await system.stop(watched)
        await system.wait_idle()
        assert system.statistics().failures == 1
        assert await watcher.ask("alive") == "alive", "here a failure restarts, where Pekko's default stops"
        assert system.statistics().restarts == 1


@pytest.mark.rule("A14")
async def test_an_end_that_is_not_handled_is_the_watchers_reason(make_system: MakeSystem) -> None:
    async with make_system() as system:
        watcher = await system.spawn(Watcher, [], False, restart=sage.NoRestart())
        watched = await system.spawn(Watched, name="w", restart=sage.NoRestart())
        ended = system.watch(watcher)
        await watcher.ask(Watcher.watch, watched)
        await watched.tell("boom")
        reason = (await ended).reason
        assert isinstance(reason, sage.ActorEnded)
        assert (reason.actor, reason.reason) == ("w", "Boom: on purpose")


# -- restarts ---------------------------------------------------------------------------------------------------------


async def test_a_restart_is_no_end_and_forgets_no_watch(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log, restart=AT_ONCE)
        watched = await system.spawn(Watched, name="w", restart=AT_ONCE)
        await watcher.ask(Watcher.watch, watched)
        for ref in (watched, watcher):
            with pytest.raises(sage.ActorFailed):
                await ref.ask("boom")
        assert await watched.ask("hello") == "hello"
        assert await watcher.ask("hello") == "hello"
        await system.stop(watched)
        await system.wait_idle()
        assert log == ["hello", ("w", "NoneType")]


async def test_news_that_comes_during_a_restart_waits_for_the_fresh_instance(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log, restart=sage.FixedDelay(delay=10))
        watched = await system.spawn(Watched, name="w")
        await watcher.ask(Watcher.watch, watched)
        with pytest.raises(sage.ActorFailed):
            await watcher.ask("boom")
        await system.stop(watched)
        await system.clock.sleep(5)
        assert log == []
        assert await watcher.ask("after") == "after"
        assert log == [("w", "NoneType"), "after"]


async def test_whoever_ends_hears_no_more(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        watcher = await system.spawn(Watcher, log)
        watched = await system.spawn(Watched)
        await watcher.ask(Watcher.watch, watched)
        await system.stop(watcher)
        await system.stop(watched)
        await system.wait_idle()
        assert log == []


async def test_a_watcher_keeps_nothing_of_what_it_has_heard_of(make_system: MakeSystem) -> None:
    class Token:
        pass

    class Owner(Watched):
        def __init__(self, token: Token) -> None:
            pass

    async with make_system() as system:
        watcher = await system.spawn(Watcher, [])
        kept: list[weakref.ref[Token]] = []
        for _ in range(10):
            owner = await system.spawn(Owner, token := Token())
            kept.append(weakref.ref(token))
            await watcher.ask(Watcher.watch, owner)
            await system.stop(owner)
        await system.clock.sleep(1)
        gc.collect()
        assert sum(token() is not None for token in kept) <= 2  # the last may still lie in some frame


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who_fails", ["the one who linked", "the other"])
async def test_linked_actors_fail_together(make_system: MakeSystem, who_fails: str) -> None:
    async with make_system() as system:
        a = await system.spawn(Watcher, [], False, name="a", restart=sage.NoRestart())
        b = await system.spawn(Watcher, [], False, name="b", restart=sage.NoRestart())
        ends = asyncio.gather(system.watch(a), system.watch(b))
        await a.ask(Watcher.link, b)
        await (a if who_fails == "the one who linked" else b).tell("boom")
        reasons = {ended.ref.name: ended.reason for ended in await ends}
        first, second = ("a", "b") if who_fails == "the one who linked" else ("b", "a")
        assert isinstance(reasons[first], Boom)
        assert isinstance(reasons[second], sage.ActorEnded)


async def test_a_restart_or_an_orderly_stop_does_not_fail_the_linked(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        a = await system.spawn(Watcher, log, restart=AT_ONCE)
        b = await system.spawn(Watcher, log, restart=AT_ONCE)
        await a.ask(Watcher.link, b)
        with pytest.raises(sage.ActorFailed):
            await b.ask("boom")
        assert await b.ask("hello") == "hello"
        await system.stop(b)
        await system.wait_idle()
        assert await a.ask("hello") == "hello"
        assert log == ["hello", "hello"]


async def test_a_link_may_be_listened_to_and_undone(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        a = await system.spawn(Watcher, log, name="a")
        b, c = [await system.spawn(Watcher, log, name=name, restart=sage.NoRestart()) for name in "bc"]
        for other in (b, c):
            await a.ask(Watcher.link, other)
        await a.ask(Watcher.unwatch, c)
        for other in (b, c):
            await other.tell("boom")
            await system.watch(other)
        await system.wait_idle()
        assert log == [("b", "Boom")]


async def test_undoing_a_link_undoes_both_sides(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        a = await system.spawn(Watcher, log, name="a", restart=sage.NoRestart())
        b = await system.spawn(Watcher, log, name="b")
        await a.ask(Watcher.link, b)
        await a.ask(Watcher.unwatch, b)
        await a.tell("boom")
        await system.watch(a)
        await system.wait_idle()
        assert log == []


async def test_linking_to_a_dead_actor_is_told_at_once_if_it_failed(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        a = await system.spawn(Watcher, log)
        failed = await system.spawn(Watched, name="failed", restart=sage.NoRestart())
        stopped = await system.spawn(Watched, name="stopped")
        await failed.tell("boom")
        await system.watch(failed)
        await system.stop(stopped)
        for other in (failed, stopped):
            await a.ask(Watcher.link, other)
        await system.wait_idle()
        assert log == [("failed", "Boom")]


async def test_nobody_watches_itself(make_system: MakeSystem) -> None:
    async with make_system() as system:
        watcher = await system.spawn(Watcher, [])
        with pytest.raises(sage.ActorFailed, match="cannot watch itself"):
            await watcher.ask(Watcher.watch, watcher)
