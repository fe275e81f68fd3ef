"""Pools: a subtree of members under one parent, with a router in front."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import ClassVar

import pytest

import sage_actor as sage
from sage_actor.routing.pool import Pool, Routing, spawn_pool
from sage_actor.testing import ManualClock

RESTART_AT_ONCE = sage.FixedDelay(attempts=5, delay=0)


class Worker(sage.Actor):
    born: ClassVar[int] = 0

    def __init__(self, fragile: bool = False) -> None:
        if fragile:
            Worker.born += 1
            if Worker.born == 3:
                raise RuntimeError("the third cannot be made")
        self.handled = 0
        self.gate = asyncio.Event()

    def work(self, x: int) -> tuple[str, int]:
        self.handled += 1
        return self.ref.name, 100 // x

    async def work_later(self) -> str:
        await asyncio.sleep(0)
        self.handled += 1
        return self.ref.name

    async def wait(self) -> str:
        await self.gate.wait()
        return self.ref.name

    def count(self) -> int:
        return self.handled


class Owner(sage.Actor):
    async def on_start(self) -> None:
        self.pool = await spawn_pool(self.context, Worker, size=2, name="workers")

    async def work(self, x: int) -> tuple[str, int]:
        return await self.pool.ask(Worker.work, x)


@pytest.mark.asyncio
@pytest.mark.parametrize("routing", ["round_robin", "least_loaded", "random", "hash_ring"])
async def test_a_pool_is_one_subtree_with_the_face_of_a_ref(routing: Routing) -> None:
    async with sage.ActorSystem("pools") as system:
        pool: Pool[Worker] = await spawn_pool(system, Worker, size=3, routing=routing, name="crew")
        answers: list[tuple[str, int]] = [await pool.ask(Worker.work, x) for x in range(1, 61)]
        assert [answer for _, answer in answers] == [100 // x for x in range(1, 61)]
        assert {name for name, _ in answers} == {"0", "1", "2"}
        assert await pool.tell(Worker.work, 5)
        assert pool.tell_nowait(Worker.work, 5)
        assert [member.path for member in pool.members] == ["crew/0", "crew/1", "crew/2"]
        assert system.lookup("crew/1") == pool.members[1]
        assert sum(await pool.everyone.ask(Worker.count)) == 62
        counts = pool.statistics()
        assert (counts.path, counts.size, len(counts.members)) == ("crew", 3, 3)
        assert (counts.accepted, counts.handled, counts.failed, counts.queued, counts.in_hand) == (65, 65, 0, 0, 0)
        assert [child.path for child in system.statistics().actors[0].children] == ["crew/0", "crew/1", "crew/2"]
        await pool.stop()
        assert system.living == 0


@pytest.mark.asyncio
async def test_an_actor_may_have_a_pool_which_ends_with_it() -> None:
    async with sage.ActorSystem("pools") as system:
        owner = await system.spawn(Owner, name="owner")
        assert await owner.ask(Owner.work, 4) == ("0", 25)
        assert system.lookup("owner/workers/1") is not None
        await system.stop(owner)
        assert system.living == 0


@pytest.mark.asyncio
async def test_names_and_settings() -> None:
    async with sage.ActorSystem("pools") as system:
        first, second = await spawn_pool(system, Worker), await spawn_pool(system, Worker, size=1)
        assert first.ref.path.startswith("Worker-pool-")
        assert first.ref.path != second.ref.path
        assert (len(first), len(second)) == (4, 1)
        by_key = await spawn_pool(system, Worker, size=4, routing="hash_ring", key=lambda x: x % 2)
        assert len({(await by_key.ask(Worker.work, x))[0] for x in range(1, 30, 2)}) == 1
        for options, words in (({"size": 0}, "at least 1"), ({"routing": "best"}, "not one of"), ({"key": len}, "looks at no key")):
            with pytest.raises(sage.ActorError, match=words):
                await spawn_pool(system, Worker, **options)  # type: ignore[arg-type]
        with pytest.raises(sage.NameTaken):
            await spawn_pool(system, Worker, name=first.ref.path)


@pytest.mark.asyncio
async def test_a_member_that_fails_restarts_alone_and_one_that_ends_is_replaced_by_resizing() -> None:
    async with sage.ActorSystem("pools") as system:
        pool = await spawn_pool(system, Worker, size=3, restart=sage.FixedDelay(attempts=1, delay=0), name="crew")
        for member in pool.members:
            with pytest.raises(sage.ActorFailed):
                await member.ask(Worker.work, 0)
        assert Counter([(await pool.ask(Worker.work, 1))[0] for _ in range(9)]) == {"0": 3, "1": 3, "2": 3}
        assert pool.statistics().restarts == 3
        middle = pool.members[1]
        with pytest.raises(sage.ActorFailed):
            await middle.ask(Worker.work, 0)
        await system.watch(middle)
        assert [member.name for member in pool.members] == ["0", "2"]
        assert {(await pool.ask(Worker.work, 1))[0] for _ in range(9)} == {"0", "2"}
        assert pool.statistics().size == 3
        await pool.resize(3)
        assert sorted(member.name for member in pool.members) == ["0", "1", "2"]
        assert pool.everyone.members == pool.members


@pytest.mark.asyncio
async def test_resizing_up_and_down_loses_nothing() -> None:
    async with sage.ActorSystem("pools") as system:
        pool = await spawn_pool(system, Worker, size=4, name="crew")
        asks = [pool.ask(Worker.work_later) for _ in range(40)]
        await pool.resize(2)
        asks += [pool.ask(Worker.work_later) for _ in range(40)]
        first = await asyncio.gather(*asks)
        assert Counter(first) == {"0": 30, "1": 30, "2": 10, "3": 10}
        assert system.lookup("crew/2") is None
        await asyncio.gather(pool.resize(5), pool.resize(3))
        assert [member.name for member in pool.members] == ["0", "1", "2"]
        assert Counter([await pool.ask(Worker.work_later) for _ in range(9)]) == {"0": 3, "1": 3, "2": 3}
        with pytest.raises(sage.ActorError, match="at least 1"):
            await pool.resize(0)
        assert system.dead_letters.total == 0
        assert pool.ref.cell.lifecycle.restarts == 0


@pytest.mark.asyncio
async def test_a_member_that_cannot_start_leaves_nothing_behind() -> None:
    async with sage.ActorSystem("pools") as system:
        Worker.born = 0
        with pytest.raises(sage.ActorFailed) as caught:
            await spawn_pool(system, Worker, True, size=4, name="crew")
        assert isinstance(caught.value.__cause__, sage.ActorFailed)
        assert isinstance(caught.value.__cause__.__cause__, RuntimeError)
        await system.wait_idle()
        assert system.living == 0
        Worker.born = 0
        pool = await spawn_pool(system, Worker, True, size=2, name="crew")
        with pytest.raises(sage.ActorFailed, match="the third"):
            await pool.resize(4)
        assert [member.name for member in pool.members] == ["0", "1"]
        assert pool.statistics().size == 2
        await pool.resize(4)
        assert len(pool) == 4


@pytest.mark.asyncio
async def test_an_escalated_failure_brings_a_fresh_set() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("pools", clock=clock, restart=sage.FixedDelay(attempts=3, delay=1)) as system:
        supervision = sage.Supervision(intensity=1, period="5s")
        pool = await spawn_pool(system, Worker, size=2, restart=RESTART_AT_ONCE, supervision=supervision, name="crew")
        before = pool.members
        for _ in range(2):
            with pytest.raises(sage.ActorFailed):
                await before[0].ask(Worker.work, 0)
            await clock.advance(0)
        await clock.advance(1)
        await system.wait_idle()
        assert pool.ref.alive
        assert [member.path for member in pool.members] == ["crew/0", "crew/1"]
        assert not set(before) & set(pool.members)
        assert await pool.ask(Worker.work, 1) in {("0", 100), ("1", 100)}
        assert pool.everyone.members == pool.members


@pytest.mark.rule("A26")
@pytest.mark.asyncio
async def test_stopping_drains_the_members_or_not() -> None:
    async with sage.ActorSystem("pools") as system:
        pool = await spawn_pool(system, Worker, size=2, name="crew")
        asks = [pool.ask(Worker.work_later) for _ in range(20)]
        await pool.stop()
        assert Counter(await asyncio.gather(*asks)) == {"0": 10, "1": 10}
        for send in (pool.tell, pool.ask):
            with pytest.raises(sage.ActorStopped):
                send("late")
        with pytest.raises(sage.ActorStopped):
            await pool.resize(3)
        await pool.stop()
        assert system.dead_letters.total == 0

        pool = await spawn_pool(system, Worker, size=2, name="crew")
        members = pool.members
        asks = [pool.ask(Worker.wait) for _ in range(6)]
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(pool.stop(drain=False))
        await asyncio.sleep(0)
        for send in (pool.tell, pool.ask):
            with pytest.raises(sage.ActorStopped):
                send("late")
        for member in members:
            member.cell.actor.gate.set()
        await stopping
        answers = await asyncio.gather(*asks, return_exceptions=True)
        assert sorted(answer for answer in answers if isinstance(answer, str)) == ["0", "1"]
        assert sum(isinstance(answer, sage.ActorStopped) for answer in answers) == 4 == system.dead_letters.total
        with pytest.raises(sage.ActorStopped):
            pool.ask("late")


@pytest.mark.asyncio
async def test_all_members_gone_is_said() -> None:
    async with sage.ActorSystem("pools") as system:
        pool = await spawn_pool(system, Worker, size=2)
        for member in pool.members:
            await system.stop(member)
        with pytest.raises(sage.ActorError, match="no members"):
            pool.ask(Worker.count)
        await pool.resize(2)
        assert await pool.ask(Worker.count) == 0
