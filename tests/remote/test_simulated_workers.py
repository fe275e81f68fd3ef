"""Actors over simulated workers: hundreds of schedules each, frames under way for any time, workers that crash at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from random import Random
from typing import Any, cast

import pytest

import sage_actor as sage
from sage_actor.errors import ActorLost
from sage_actor.ports import current_random
from sage_actor.testing.simulated_backend import SimulatedBackend
from sage_actor.testing.simulated_processes import Processes
from sage_actor.testing.simulation_loop import SimulationLoop


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def simulated() -> SimulatedBackend:
    """Workers of the simulation that runs."""
    chance = current_random()
    delay = chance.choice((0.0001, 0.01, 0.2))
    return SimulatedBackend(Processes(cast("SimulationLoop", asyncio.get_running_loop())), chance, delay)


class Member(sage.Actor):
    """Sends to others, hands refs on, asks in circles."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[tuple[str, int]] = []

    async def send(self, to: sage.ActorRef[Member], first: int, count: int) -> None:
        for n in range(first, first + count):
            if n % 3:
                await to.tell((self.name, n))
            else:
                await to.ask(Member.take, self.name, n, timeout=50)

    def receive(self, message: tuple[str, int]) -> None:
        self.got.append(message)

    def take(self, name: str, n: int) -> int:
        self.got.append((name, n))
        return n

    async def until(self, count: int) -> list[tuple[str, int]]:
        while len(self.got) < count:
            await self.context.system.clock.sleep(0.1)
        return self.got

    def all_got(self) -> list[tuple[str, int]]:
        return self.got

    async def circle(self, refs: list[sage.ActorRef[Member]]) -> str:
        if refs:
            return await refs[0].ask(Member.circle, refs[1:])
        return self.name


async def members(system: sage.ActorSystem, chance: Random, count: int) -> list[sage.ActorRef[Member]]:
    """So many, anywhere."""
    made: list[sage.ActorRef[Member]] = []
    for n in range(count):
        mailbox = sage.MailboxSettings(capacity=chance.choice((1, 2, 1000)))
        place = chance.choice((None, *range(len(system.workers))))
        made.append(await system.spawn(Member, f"m{n}", worker=place, mailbox=mailbox, concurrency=4))
    return made


@pytest.mark.simulate(seeds=80, twice=2)
async def test_order_holds_over_links_of_any_delay() -> None:
    chance = current_random()
    async with sage.ActorSystem("simulated", backend=simulated(), workers=2) as system:
        refs = await members(system, chance, 4)
        model: dict[tuple[int, int], int] = {}
        for _ in range(3):
            runs: list[Any] = []
            for n, ref in enumerate(refs):
                other, count = chance.choice([m for m in range(4) if m != n]), chance.randrange(20)
                first = model.get((n, other), 0)
                model[n, other] = first + count
                runs.append(ref.ask(Member.send, refs[other], first, count))
            await asyncio.gather(*runs)
        for n, ref in enumerate(refs):
            got = await ref.ask(Member.until, sum(count for (_, to), count in model.items() if to == n))
            for m in range(4):
                assert [number for who, number in got if who == f"m{m}"] == list(range(model.get((m, n), 0)))


@pytest.mark.simulate(seeds=80, twice=2)
async def test_circles_are_found_wherever_they_go() -> None:
    chance = current_random()
    async with sage.ActorSystem("simulated", backend=simulated(), workers=2) as system:
        made = [await system.spawn(Member, f"m{n}", name=f"m{n}", worker=chance.choice((None, 0, 1))) for n in range(4)]
        order = chance.sample(range(4), 3)
        way = [made[n] for n in order]
        assert await way[0].ask(Member.circle, way[1:]) == f"m{order[-1]}"
        with pytest.raises(sage.ActorFailed) as failed:
            await way[0].ask(Member.circle, [*way[1:], way[0]], timeout=60)
        error: BaseException | None = failed.value
        while error is not None and not isinstance(error, sage.AskCycle):
            assert "ask cycle" in str(error)
            error = error.__cause__


@pytest.mark.simulate(seeds=120, twice=2)
async def test_whatever_crashes_when_everybody_is_told_and_nothing_waits_forever() -> None:
    chance = current_random()
    backend = simulated()
    async with sage.ActorSystem("simulated", backend=backend, workers=3) as system:
        refs = await members(system, chance, 6)
        watches = [system.watch(ref) for ref in refs]
        runs = [
            asyncio.ensure_future(_settled(ref.ask(Member.send, chance.choice(refs), 1000 * n, chance.randrange(60))))
            for n, ref in enumerate(refs)
        ]
        loop = asyncio.get_running_loop()
        crashed = chance.randrange(3)
        loop.call_later(chance.random() * 2, backend.processes.crash, backend.groups[0].processes[crashed])
        outcomes = await asyncio.gather(*runs)
        for outcome in outcomes:
            assert outcome is None or isinstance(outcome, sage.ActorStopped | sage.ActorFailed | sage.AskTimeout), outcome
        while system.workers[crashed].alive:
            await system.clock.sleep(0.1)
        for ref, watch in zip(refs, watches, strict=True):
            if ref.path.endswith(f"@{crashed}"):
                reason = (await watch).reason
                assert isinstance(reason, ActorLost)
                assert isinstance(await _settled(ref.ask(Member.all_got)), sage.ActorStopped)
            else:
                assert not watch.done()
                numbers: dict[str, list[int]] = {}
                for who, n in await ref.ask(Member.all_got):
                    numbers.setdefault(who, []).append(n)
                for sent in numbers.values():  # in order, without a gap: what is missing is missing at the end
                    assert sent == list(range(sent[0], sent[0] + len(sent)))
        anew = await system.spawn(Member, "new", worker="least_loaded")
        assert await anew.ask(Member.take, "x", 1) == 1


class Relay(sage.Actor):
    """Sends on what it gets."""

    def __init__(self, to: sage.ActorRef[Any] | None = None) -> None:
        self.to = to
        self.got: list[Any] = []

    async def receive(self, message: Any) -> None:
        self.got.append(message)
        if self.to is not None:
            await self.to.tell(message)

    async def until(self, count: int) -> list[Any]:
        while len(self.got) < count:
            await self.context.system.clock.sleep(0.1)
        return self.got


@pytest.mark.simulate(seeds=80, twice=2)
async def test_a_class_whose_definition_is_under_way_on_another_link_is_waited_for() -> None:
    class Note:
        def __init__(self, n: int) -> None:
            self.n = n

    async with sage.ActorSystem("simulated", backend=simulated(), workers=2) as system:
        end = await system.spawn(Relay, worker=1, concurrency=2)
        relay = await system.spawn(Relay, end, worker=0)
        for n in range(20):
            await relay.tell(n if n % 3 else Note(n))  # the owner defines the class to both, over its own links
        got = await end.ask(Relay.until, 20)
        assert [n.n if isinstance(n, Note) else n for n in got] == list(range(20))


async def _settled(awaitable: Any) -> Any:
    try:
        return await awaitable
    except sage.SageError as error:
        return error


@pytest.mark.simulate(seeds=30, twice=2)
async def test_leaving_is_not_held_up_by_a_worker_that_stands_still() -> None:
    backend = simulated()
    async with sage.ActorSystem("simulated", backend=backend, workers=2, stop_timeout=1.0) as system:
        stuck, moving = [await system.spawn(Member, f"m{n}", worker=n) for n in range(2)]
        backend.processes.stall(backend.groups[0].processes[0], None)
        asked = stuck.ask(Member.all_got)
        with pytest.raises(sage.AskTimeout):
            await stuck.ask(Member.all_got, timeout=0.5)
        assert await moving.ask(Member.all_got) == []
        started = system.clock.monotonic()
    assert system.clock.monotonic() - started < 30
    assert isinstance(await _settled(asked), sage.ActorStopped)
