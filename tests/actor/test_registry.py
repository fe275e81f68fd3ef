"""The registry: who offers what, and who is told when that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef


class Printer(sage.Actor):
    def receive(self, message: object) -> object:
        if message == "fail":
            raise ValueError(message)
        return message


PRINTERS = sage.ServiceKey[Printer]("printers")
SCANNERS = sage.ServiceKey[Printer]("scanners")

Offers = tuple[ActorRef[Printer], ...]


async def following(states: AsyncIterator[Offers]) -> Offers:
    async with asyncio.timeout(5):
        return await anext(states)


def closing(states: AsyncIterator[Offers]) -> contextlib.AbstractAsyncContextManager[Any]:
    return contextlib.aclosing(states)  # type: ignore[type-var]


@pytest.mark.asyncio
async def test_who_offers_something_is_found_first_registered_first() -> None:
    async with sage.ActorSystem() as system:
        registry = system.registry
        first, second = await system.spawn(Printer), await system.spawn(Printer)
        assert registry.find(PRINTERS) == ()
        registry.register(PRINTERS, second)
        registry.register(PRINTERS, first)
        registry.register(PRINTERS, second)
        registry.register(SCANNERS, first)
        assert registry.find(PRINTERS) == (second, first)
        assert registry.find(sage.ServiceKey[Printer]("printers")) == (second, first)
        assert registry.find(SCANNERS) == (first,)
        assert registry.unregister(PRINTERS, second) is True
        assert registry.unregister(PRINTERS, second) is False
        assert registry.unregister(sage.ServiceKey[Printer]("unknown"), second) is False
        assert registry.find(PRINTERS) == (first,)


@pytest.mark.rule("A21")
@pytest.mark.parametrize("how", ["stop", "kill", "fails for good"])
@pytest.mark.asyncio
async def test_an_actor_that_ends_is_off_before_its_watchers_are_told(how: str) -> None:
    seen: list[Offers] = []
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        ref = await system.spawn(Printer, name="printer")
        system.registry.register(PRINTERS, ref)
        system.registry.register(SCANNERS, ref)

        class Watcher(sage.Actor):
            def on_start(self) -> None:  # type: ignore[override]
                self.context.watch(ref)

            def on_terminated(self, ended: sage.Terminated) -> None:  # type: ignore[override]
                seen.append(system.registry.find(PRINTERS))

        await system.spawn(Watcher)
        ended = system.watch(ref)
        ended.add_done_callback(lambda _: seen.append(system.registry.find(SCANNERS)))
        if how == "fails for good":
            await ref.tell("fail")
        else:
            await (system.stop(ref) if how == "stop" else system.kill(ref))
        await ended
        await system.wait_idle()
        assert seen == [(), ()]
        with pytest.raises(sage.ActorStopped):
            system.registry.register(PRINTERS, ref)


@pytest.mark.asyncio
async def test_a_restart_changes_nothing() -> None:
    async with sage.ActorSystem(restart=sage.FixedDelay(delay=0)) as system:
        ref = await system.spawn(Printer)
        system.registry.register(PRINTERS, ref)
        await ref.tell("fail")
        assert await ref.ask("again") == "again"
        assert system.registry.find(PRINTERS) == (ref,)


@pytest.mark.asyncio
async def test_a_subscriber_sees_the_present_and_then_every_change() -> None:
    async with sage.ActorSystem() as system:
        registry = system.registry
        first, second = await system.spawn(Printer), await system.spawn(Printer)
        async with closing(registry.subscribe(PRINTERS)) as states:
            assert await following(states) == ()
            registry.register(PRINTERS, first)
            assert await following(states) == (first,)
            registry.register(SCANNERS, second)
            registry.register(PRINTERS, second)
            assert await following(states) == (first, second)
            await system.stop(first)
            assert await following(states) == (second,)


@pytest.mark.asyncio
async def test_a_slow_subscriber_sees_the_latest_state_and_none_twice() -> None:
    async with sage.ActorSystem() as system:
        registry = system.registry
        refs = [await system.spawn(Printer) for _ in range(5)]
        async with closing(registry.subscribe(PRINTERS)) as states:
            assert await following(states) == ()
            for ref in refs:
                registry.register(PRINTERS, ref)
            assert await following(states) == tuple(refs)
            waiting = asyncio.ensure_future(anext(states))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            registry.register(PRINTERS, refs[0])  # no change
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            registry.unregister(PRINTERS, refs[0])
            assert await waiting == tuple(refs[1:])


@pytest.mark.asyncio
async def test_subscribers_that_leave_or_are_cancelled_leave_nothing_behind() -> None:
    async with sage.ActorSystem() as system:
        registry = system.registry
        ref = await system.spawn(Printer)

        async def follow() -> None:
            async with closing(registry.subscribe(PRINTERS)) as states:
                async for _ in states:
                    pass

        tasks = [asyncio.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(0)
        async with closing(registry.subscribe(PRINTERS)) as states:
            assert await following(states) == ()
            tasks[1].cancel()
            await asyncio.wait([tasks[1]])
            registry.register(PRINTERS, ref)
            assert await following(states) == (ref,)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        registry.unregister(PRINTERS, ref)
        assert registry._changes == {}
        assert registry._offers == {}


@pytest.mark.simulate(seeds=50)
async def test_many_subscribers_all_end_with_the_same_picture_in_every_schedule() -> None:
    async with sage.ActorSystem() as system:
        refs = [await system.spawn(Printer) for _ in range(4)]
        last: list[Offers] = [()] * 3

        async def follow(number: int) -> None:
            async with closing(system.registry.subscribe(PRINTERS)) as states:
                async for state in states:
                    last[number] = state
                    if len(state) == 4:
                        return

        async def offer(ref: ActorRef[Printer]) -> None:
            system.registry.register(PRINTERS, ref)
            await asyncio.sleep(0)
            system.registry.unregister(PRINTERS, ref)
            await asyncio.sleep(0)
            system.registry.register(PRINTERS, ref)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(follow(number))
            for ref in refs:
                group.create_task(offer(ref))
        assert all(set(state) == set(refs) for state in last)


def test_keys_are_equal_by_name() -> None:
    assert sage.ServiceKey[Printer]("printers") == PRINTERS
    assert hash(PRINTERS) == hash(sage.ServiceKey[Printer]("printers"))
    assert PRINTERS != SCANNERS
    assert PRINTERS != "printers"
    assert "printers" in repr(PRINTERS)
