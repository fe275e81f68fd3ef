"""Whatever actors on workers do to each other, and whichever worker crashes: everything asked is settled, and nothing is left over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any, cast

import pytest

import sage_actor as sage
from sage_actor.ports import current_random
from sage_actor.testing.simulated_backend import SimulatedBackend
from sage_actor.testing.simulated_processes import Processes
from sage_actor.testing.simulation_loop import SimulationLoop

KEY = sage.ServiceKey[Any]("offered")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Anyone(sage.Actor):
    """Does what it is told to others. What may wait for ever can be given up."""

    @sage.interruptible
    async def work(self, seconds: float) -> float:
        await self.context.system.clock.sleep(seconds)
        return seconds

    async def work_to_the_end(self, seconds: float) -> None:
        await self.context.system.clock.sleep(seconds)

    async def receive(self, message: object) -> None:
        await self.context.system.clock.sleep(0.05)

    def watch(self, ref: sage.ActorRef[Any]) -> None:
        if ref is not self.context.ref:
            self.context.watch(ref)

    def link(self, ref: sage.ActorRef[Any]) -> None:
        if ref is not self.context.ref:
            self.context.link(ref)

    def unwatch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.unwatch(ref)

    def end(self) -> None:
        self.context.stop()

    def fail(self) -> None:
        raise ValueError("as told")

    def offer(self, ref: sage.ActorRef[Any]) -> None:
        self.context.system.registry.register(KEY, ref)

    def found(self) -> set[sage.ActorRef[Any]]:
        return set(self.context.system.registry.find(KEY))

    async def rows(self, count: int) -> AsyncIterator[int]:
        for row in range(count):
            await self.context.system.clock.sleep(0.01)
            yield row

    @sage.interruptible
    async def read(self, of: sage.ActorRef[Anyone], count: int, most: int) -> None:
        expected = 0
        async for row in of.stream(Anyone.rows, count, demand=3):
            assert row == expected
            expected += 1
            if expected == most:
                break

    @sage.interruptible
    async def relay(self, to: sage.ActorRef[Anyone]) -> float:
        return await to.ask(Anyone.work, 0.1, timeout=3)

    @sage.interruptible
    async def flood(self, to: sage.ActorRef[Any], count: int) -> None:
        for n in range(count):
            await to.tell(n)

    @sage.interruptible
    async def have(self, worker: int) -> sage.ActorRef[Anyone]:
        return await self.context.system.spawn(Anyone, worker=worker, concurrency=2)

    async def stop_other(self, ref: sage.ActorRef[Any], drain: bool) -> None:
        await self.context.system.stop(ref, drain=drain, timeout=1)

    def left_over(self) -> list[object]:
        return left_over(self.context.system)


def left_over(system: sage.ActorSystem) -> list[object]:
    """What a process still waits for, does for others, or holds back, although all is quiet."""
    node = cast("Any", system.remoting)._node
    homes = [*node.homes._of_number.values(), *node.homes._ended.values()]
    found: list[object] = [*node.requests._under_way, *node.homes.serving]
    found += [standin.path for standin in node.standins.values() if not 0 <= standin.messages < 64 or standin.cell.queued]
    found += [home.ref.path for home in homes for inlet in home.inlets.values() if inlet._queue]
    found += [peer for peer, link in node.links.items() if link.stalled]
    return found


async def settled(awaitable: Any) -> Any:
    try:
        return await awaitable
    except (sage.SageError, asyncio.CancelledError) as error:
        return error


async def one_of_many(system: sage.ActorSystem, chance: Random, a: sage.ActorRef[Anyone], b: sage.ActorRef[Any]) -> Any:
    """One thing that may be done to an actor, or have done by it to another."""
    timeout = chance.choice((None, 0.0, 0.05, 1, 5))
    kind = chance.randrange(16)
    if kind == 0:
        return await system.stop(a, drain=chance.random() < 0.5, timeout=1) if chance.random() < 0.3 else None
    if kind == 1:
        return await system.kill(a) if chance.random() < 0.2 else None
    if kind == 2:
        return await a.tell("told")
    asks: list[Any] = [
        lambda: a.ask(Anyone.work, chance.random(), timeout=timeout),
        lambda: a.ask(Anyone.work_to_the_end, chance.random(), timeout=timeout),
        lambda: a.ask("asked", timeout=timeout),
        lambda: a.ask(Anyone.relay, b),
        lambda: a.ask(Anyone.read, b, chance.randrange(20), chance.randrange(20), timeout=20),
        lambda: a.ask(Anyone.flood, b, chance.randrange(400), timeout=20),
        lambda: a.ask(Anyone.watch, b),
        lambda: a.ask(Anyone.link, b),
        lambda: a.ask(Anyone.unwatch, b),
        lambda: a.ask(Anyone.offer, b),
        lambda: a.ask(Anyone.have, chance.randrange(3), timeout=20),
        lambda: a.ask(Anyone.stop_other, b, chance.random() < 0.5),
        lambda: a.ask(Anyone.fail if chance.random() < 0.5 else Anyone.end),
    ]
    return await asks[kind - 3]()


@pytest.mark.filterwarnings("ignore:Exception ignored in. <coroutine")  # of crashed processes
@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.simulate(seeds=50, twice=1)
async def test_everything_is_settled_and_nothing_is_left_over(crashes: bool) -> None:
    chance = current_random()
    loop = asyncio.get_running_loop()
    backend = SimulatedBackend(Processes(cast("SimulationLoop", loop)), chance, chance.choice((0.0, 0.0001, 0.01, 0.2)))
    restart = sage.FixedDelay(delay=0.01, attempts=2)
    async with sage.ActorSystem("simulated", backend=backend, workers=3, stop_timeout=2.0, restart=restart) as system:
        beside = [await system.spawn(Anyone, worker=n) for n in range(3)]
        refs: list[sage.ActorRef[Anyone]] = []
        for _ in range(6):
            overflow = chance.choice(("wait", "wait", "drop_new", "drop_old", "fail"))
            mailbox = sage.MailboxSettings(capacity=chance.choice((1, 3, 1000)), overflow=cast("Any", overflow))
            place, at_a_time, reentrant = chance.choice((None, 0, 1, 2)), chance.choice((1, 2, 5)), chance.random() < 0.3
            refs.append(await system.spawn(Anyone, worker=place, mailbox=mailbox, concurrency=at_a_time, reentrant=reentrant))
        watches = [system.watch(ref) for ref in refs]
        crashed = chance.randrange(3) if crashes else None
        if crashed is not None:
            loop.call_later(chance.random() * 2, backend.processes.crash, backend.groups[0].processes[crashed])
        runs: list[asyncio.Task[Any]] = []
        for _ in range(40):
            runs.append(loop.create_task(settled(one_of_many(system, chance, chance.choice(refs), chance.choice(refs)))))
            if chance.random() < 0.25:
                loop.call_later(chance.choice((0.0, 0.001, 0.1, 1)), runs[-1].cancel)
            if chance.random() < 0.5:
                await system.clock.sleep(chance.random() * 0.1)
        await asyncio.wait(runs)
        await system.clock.sleep(60)

        assert [worker.alive for worker in system.workers] == [n != crashed for n in range(3)]
        living = [ref for ref in beside if ref.alive]
        assert not left_over(system)
        for ref in living:
            assert await ref.ask(Anyone.left_over) == []
            assert await ref.ask(Anyone.found) == set(system.registry.find(KEY))
        for ref, watch in zip(refs, watches, strict=True):
            assert watch.done() == (not ref.alive)
            if ref.alive:
                assert await ref.ask(Anyone.work, 0.01) == 0.01
    assert system.living == 0
    for n, process in enumerate(backend.groups[0].processes):
        assert ((await process.ended).how == "crashed") == (n == crashed)
