"""Who may wait for whose end, ends with mailboxes of one message, and the ends of whole trees and systems."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.testing import ManualClock

MakeSystem = Callable[..., sage.ActorSystem]

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)
TINY = sage.MailboxSettings(capacity=1)


class Boom(Exception):
    """What the actors here fail with."""


class Worker(sage.Actor):
    """Writes down what happens to it."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log: list[Any] = [] if log is None else log

    def receive(self, message: object) -> object:
        self.log.append(message)
        if message == "boom":
            raise Boom("on purpose")
        return message

    async def work(self, gate: asyncio.Event) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.log.append("interrupted")
            raise
        self.log.append("worked")
        return "done"

    async def tidy_up_slowly(self, gate: asyncio.Event) -> None:
        try:
            await gate.wait()
        finally:
            await self.context.system.clock.sleep(1)
            self.log.append("tidy")

    async def on_stop(self) -> None:
        self.log.append("on_stop")


# -- who may stop whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["itself", "its parent", "who asks it"])
async def test_waiting_for_ones_own_end_is_refused_at_once(make_system: MakeSystem, whom: str) -> None:
    class Stopper(sage.Actor):
        async def on_start(self) -> None:
            if "/" not in self.ref.path:
                self.child = await self.context.spawn(Stopper, name="child")

        async def stop(self, ref: sage.ActorRef[Any]) -> None:
            await self.context.system.stop(ref)

        async def ask_child(self, ref: sage.ActorRef[Any]) -> None:
            await self.child.ask(Stopper.stop, ref)

    async with make_system() as system:
        actor = await system.spawn(Stopper, name="p", restart=AT_ONCE)
        child = system.lookup("p/child")
        assert child is not None
        with pytest.raises(sage.ActorFailed, match=r"would wait for its own end; use self\.context\.stop"):
            if whom == "who asks it":
                await actor.ask(Stopper.ask_child, actor)
            else:
                await (actor if whom == "itself" else child).ask(Stopper.stop, actor)
        assert system.clock.monotonic() < 5


async def test_an_actor_stops_itself_after_the_message_in_hand(make_system: MakeSystem) -> None:
    log: list[Any] = []

    class Ending(Worker):
        async def finish(self) -> str:
            self.context.stop()
            await self.context.system.clock.sleep(1)
            return "finished"

    async with make_system() as system:
        worker = await system.spawn(Ending, log)
        ended = system.watch(worker)
        finishing, queued = worker.ask(Ending.finish), worker.ask("queued")
        assert await finishing == "finished"
        with pytest.raises(sage.ActorStopped):
            await queued
        assert (await ended).reason is None
        assert log == ["on_stop"]


async def test_a_task_that_an_actor_has_left_may_stop_it(make_system: MakeSystem) -> None:
    class Delegating(Worker):
        def delegate(self) -> None:
            self.task = asyncio.ensure_future(self.context.system.stop(self.ref))

    log: list[Any] = []
    gate = asyncio.Event()
    async with make_system() as system:
        worker = await system.spawn(Delegating, log)
        ended = system.watch(worker)
        await worker.tell(Delegating.delegate)
        working = worker.ask(Worker.work, gate)  # another message: the task does not wait for itself
        await system.clock.sleep(1)
        gate.set()
        await ended
        assert await working == "done"


# -- tiny mailboxes ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("A27")
@pytest.mark.parametrize("where", ["on_start", "handler", "child's on_start"])
async def test_a_full_tell_to_oneself_fails_at_once(make_system: MakeSystem, where: str) -> None:
    """Also by way of a child whose start one waits for: it would wait for room that nobody can make."""
    refused: list[str] = []

    class Talking(sage.Actor):
        def __init__(self, to: sage.ActorRef[Any] | None = None) -> None:
            self.to = to

        async def on_start(self) -> None:
            if where != "handler":
                await self.talk()

        async def talk(self) -> None:
            if where == "child's on_start" and self.to is None:
                await self.context.spawn(Talking, self.ref)
                return
            to = self.ref if self.to is None else self.to
            await to.tell("fits")
            try:
                await to.tell("does not fit")
            except sage.MailboxFull as full:
                refused.append(full.name)

        def receive(self, message: object) -> None:
            pass

    async with make_system() as system:
        talking = await system.spawn(Talking, name="t", mailbox=TINY)
        if where == "handler":
            await talking.ask(Talking.talk)
        assert refused == ["t"]


@pytest.mark.rule("A27")
async def test_signals_need_no_room(make_system: MakeSystem) -> None:
    """Children end, and are heard of, and timers tick, while the parent's mailbox is full and its handler runs."""
    log: list[Any] = []
    gate = asyncio.Event()

    class House(Worker):
        async def on_start(self) -> None:
            for name in ("a", "b"):
                self.context.watch(await self.context.spawn(Chatty, self.ref, name=name, mailbox=TINY))
            self.context.timers.once("tick", 1, self.tick)

        def tick(self) -> None:
            self.log.append("tick")

        async def on_terminated(self, ended: sage.Terminated) -> None:
            self.log.append(f"{ended.ref.name} ended")

    class Chatty(sage.Actor):
        def __init__(self, house: sage.ActorRef[Any]) -> None:
            self.house = house

        async def on_stop(self) -> None:
            with pytest.raises(sage.MailboxFull):
                self.house.tell_nowait("goodbye")

    async with make_system() as system:
        house = await system.spawn(House, log, name="h", mailbox=TINY)
        working = house.ask(Worker.work, gate)
        await system.clock.sleep(2)
        await house.tell("fills it")
        for name in ("a", "b"):
            child = system.lookup(f"h/{name}")
            assert child is not None
            await system.stop(child)
        gate.set()
        await working
        await system.wait_idle()
        assert log == ["worked", "tick", "a ended", "b ended", "fills it"]


@pytest.mark.rule("A27")
async def test_a_parent_with_a_full_mailbox_restarts_and_stops(make_system: MakeSystem) -> None:
    log: list[Any] = []

    class House(Worker):
        async def on_start(self) -> None:
            await self.context.spawn(Worker, self.log, name="child", mailbox=TINY)

    async with make_system() as system:
        house = await system.spawn(House, log, restart=AT_ONCE, mailbox=TINY)
        await house.tell("boom")
        senders = [asyncio.ensure_future(house.tell(number)) for number in range(4)]
        await asyncio.gather(*senders)
        await system.stop(house)
        assert [entry for entry in log if not isinstance(entry, int)] == ["boom", "on_stop", "on_stop", "on_stop"]
        assert sorted(log[2:6]) == [0, 1, 2, 3]


# -- trees and systems ------------------------------------------------------------------------------------------------


class Node(sage.Actor):
    """One of a chain of actors."""

    def __init__(self, log: list[int], depth: int, below: int) -> None:
        self.log, self.depth, self.below = log, depth, below

    async def on_start(self) -> None:
        if self.below:
            await self.context.spawn(Node, self.log, self.depth + 1, self.below - 1, name="n", mailbox=TINY)

    async def on_stop(self) -> None:
        self.log.append(self.depth)

    async def hang(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["stop", "kill", "aclose"])
async def test_a_deep_tree_ends_from_below(make_system: MakeSystem, how: str) -> None:
    log: list[int] = []
    system = await make_system().__aenter__()
    levels = 50 if isinstance(system.clock, ManualClock) else 12  # under many seeds a smaller tree will do
    top = await system.spawn(Node, log, 0, levels - 1, name="n", mailbox=TINY)
    assert system.statistics().living == levels
    deepest = system.lookup("/".join(["n"] * levels))
    assert deepest is not None
    if how == "kill":
        await deepest.tell(Node.hang)
        await system.clock.sleep(1)
    begun = system.clock.monotonic()
    if how != "aclose":
        await (system.stop if how == "stop" else system.kill)(top)
    await system.aclose()
    assert log == [*range(levels - 1, -1, -1)]
    assert system.clock.monotonic() == begun
    assert system.statistics().living == 0
    with pytest.raises(sage.ActorError, match="is not running"):
        await system.spawn(Worker)


@pytest.mark.rule("A2")
@pytest.mark.parametrize(
    "state", ["starting", "on_start again", "on_restart", "delay", "handler", "draining", "retry", "passive", "on_passivate"]
)
async def test_the_system_ends_whatever_its_actors_are_about(make_system: MakeSystem, state: str) -> None:
    lives: list[int] = []
    hang = asyncio.Event()

    class Any_(Worker):
        def __init__(self) -> None:
            super().__init__()
            lives.append(1)
            if state == "retry":
                raise Boom("no")

        async def on_start(self) -> None:
            if state == "starting" or (state == "on_start again" and len(lives) > 1):
                await hang.wait()

        async def on_restart(self, error: BaseException) -> None:
            if state == "on_restart":
                await hang.wait()

        async def on_passivate(self) -> None:
            if state == "on_passivate":
                await hang.wait()

    system = await make_system(stop_timeout=20).__aenter__()
    delay = "1h" if state in ("delay", "retry") else 0
    passivate_after = 5 if "passiv" in state else None
    restart = sage.FixedDelay(delay=delay)
    spawning = asyncio.ensure_future(
        system.spawn(Any_, name="a", restart=restart, retry_start=state == "retry", passivate_after=passivate_after)
    )
    await system.clock.sleep(15)
    actor = system.lookup("a")
    assert actor is not None
    left: list[Any] = []
    if state in ("on_start again", "on_restart", "delay"):
        await actor.tell("boom")
        await system.clock.sleep(1)
    if state in ("handler", "draining"):
        left.append(actor.ask(Worker.work, hang))
        await system.clock.sleep(1)
    if state == "draining":
        left.append(asyncio.ensure_future(system.stop(actor, timeout="1h")))
        await system.clock.sleep(1)
    begun = system.clock.monotonic()
    await asyncio.gather(system.aclose(), system.aclose())
    assert system.clock.monotonic() - begun <= 3601 * 2
    await system.aclose()
    assert system.statistics().living == 0
    outcome = (await asyncio.gather(spawning, *left, return_exceptions=True))[0]
    expected = {"starting": sage.ActorStopped, "retry": sage.ActorFailed}.get(state, sage.ActorRef)
    assert isinstance(outcome, expected)


async def test_after_an_exception_in_the_body_nothing_is_drained(make_system: MakeSystem) -> None:
    log: list[Any] = []
    with pytest.raises(Boom):
        async with make_system() as system:
            worker = await system.spawn(Worker, log)
            gate = asyncio.Event()
            await worker.tell(Worker.work, gate)
            await worker.tell("queued")
            await system.clock.sleep(1)
            system.clock.call_later(1, gate.set)
            raise Boom("in the body")
    assert log == ["worked", "on_stop"]
    assert [letter.message for letter in system.dead_letters] == ["queued"]


async def test_an_actor_whose_task_is_cancelled_from_outside_takes_its_children_along(make_system: MakeSystem) -> None:
    log: list[Any] = []

    class House(Worker):
        async def on_start(self) -> None:
            child = await self.context.spawn(Worker, self.log, name="child")
            await child.tell(Worker.work, asyncio.Event())

        async def work(self, gate: asyncio.Event) -> str:
            await gate.wait()
            return ""

    async with make_system() as system:
        house = await system.spawn(House, log, name="h")
        working = house.ask(Worker.work, asyncio.Event())
        await system.clock.sleep(1)
        ended = asyncio.gather(system.watch(house), system.watch(system.lookup("h/child") or house))
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "actor h")
        task.cancel()
        with pytest.raises(sage.ActorStopped):
            await working
        assert all("cancelled from outside" in str(one.reason) for one in await ended)
        assert system.statistics().living == 0
        await system.clock.sleep(1)
        assert log == ["interrupted"]


async def test_nothing_is_spawned_below_what_ends(make_system: MakeSystem) -> None:
    refused: list[str] = []

    class House(sage.Actor):
        async def on_stop(self) -> None:
            with pytest.raises(sage.ActorError, match="is not running") as caught:
                await self.context.spawn(partial(Worker, []))
            refused.append(str(caught.value))

    async with make_system() as system:
        await system.spawn(House, name="h")
    assert len(refused) == 1
    assert "'h'" in refused[0]
