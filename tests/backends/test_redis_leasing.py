"""Which agents a job may use: room and waiting for it, groups and resources, versions, secrets, rights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from agent_setting import SECRET, WORKER, Owner, agent_here, client, database, known, until

from sage_actor.actor.backend import WorkerResources
from sage_actor.backends import redis as backend
from sage_actor.backends.redis_assigned_worker import assignment
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_refusals import RIGHTS
from sage_actor.backends.redis_registry import INDEX, lease_name, offer_place, record, work, work_place
from sage_actor.backends.redis_trust import Trust
from sage_actor.errors import BackendUnavailable
from sage_actor.testing import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server whose agents are ours alone."""
    try:
        with RedisServer() as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_SECRET", SECRET)


@pytest.mark.asyncio
async def test_too_few_slots_are_counted_for_the_user(server: RedisServer) -> None:
    address = database(server, 14)
    shortage = r"4 workers need as many slots, and 2 agents have 3 free of 3; start more with `sage worker"
    async with agent_here(address, "left", slots=2), agent_here(address, "right", slots=1):
        with pytest.raises(BackendUnavailable, match=shortage):
            await backend.create(f"{address}?wait=0").start(4, group="many", entry=f"{WORKER}:obey")
        assert [agent.used for agent in (await known(address)).values()] == [0, 0], "all or none"


@pytest.mark.asyncio
async def test_a_job_waits_for_room_and_says_so_once(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    address = database(server, 5)
    async with agent_here(address, "first", slots=1) as first:
        starting = asyncio.ensure_future(backend.create(address).start(2, group="waits", entry=f"{WORKER}:obey"))
        await until(lambda: bool(caplog.messages), "nothing was said")
        assert caplog.messages == ["2 workers need as many slots, and 1 agent has 1 free of 1; waiting up to 30 s for more"]
        assert not any("started" in line for line in first), "all or none"
        async with agent_here(address, "second", slots=1) as second:
            async with asyncio.timeout(20):
                group = await starting
            assert [sum("started" in line for line in lines) for lines in (first, second)] == [1, 1]
            assert await backend.create(address).slots() == 2
            await group.aclose()
        assert len(caplog.messages) == 1


@pytest.mark.asyncio
async def test_of_jobs_that_want_the_same_slots_one_has_them_all_and_the_others_come_after_it(server: RedisServer) -> None:
    address = database(server, 12)
    async with agent_here(address, "only", slots=2) as lines:
        waiting = {asyncio.ensure_future(backend.create(address).start(2, group=f"rival-{n}", entry=f"{WORKER}:obey")) for n in range(3)}
        for turn in range(1, 4):
            async with asyncio.timeout(20):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1, "two groups have the same slots"
            assert sum("started" in line for line in lines) == 2 * turn
            await done.pop().result().aclose()


@pytest.mark.asyncio
async def test_a_backend_that_used_agents_starts_no_workers_of_its_own_later(server: RedisServer) -> None:
    address = database(server, 6)
    used = backend.create(f"{address}?wait=0")
    async with agent_here(address, "only") as lines:
        group = await used.start(1, group="kept", entry=f"{WORKER}:obey")
        await group.aclose()
        assert any("started" in line for line in lines)
    with pytest.raises(BackendUnavailable, match=r"1 worker need.* 0 agents have 0 free of 0"):
        await used.start(1, group="kept", entry=f"{WORKER}:obey")
    group = await backend.create(address).start(1, group="new", entry=f"{WORKER}:obey")
    assert [worker.host for worker in group.workers] == ["localhost"]
    await group.aclose()


@pytest.mark.asyncio
async def test_labels_and_resources_decide_where(server: RedisServer) -> None:
    address = database(server, 7)
    licence = [WorkerResources(custom={"licence": 1.0})]
    async with agent_here(address, "special", label="gpu", custom={"licence": 1.0}) as lines:
        assert await backend.create(address).slots() == 0
        own = await backend.create(address).start(1, group="plain", entry=f"{WORKER}:obey")
        assert not any("started" in line for line in lines), "an agent with a label takes only what names it"
        await own.aclose()
        labelled = f"{address}?group=gpu&wait=0"
        assert await backend.create(labelled).slots() == 2
        group = await backend.create(labelled).start(1, group="named", entry=f"{WORKER}:obey", resources=licence)
        assert any("started" in line for line in lines)
        with pytest.raises(BackendUnavailable, match=r"1 worker with the resources that they ask for do not fit in the 1 free of 2 slots"):
            await backend.create(labelled).start(1, group="named", entry=f"{WORKER}:obey", resources=licence)
        await group.aclose()
        with pytest.raises(BackendUnavailable, match=r"num_gpus"):
            await backend.create(labelled).start(1, group="named", entry=f"{WORKER}:obey", resources=[WorkerResources(num_gpus=1)])


@pytest.mark.asyncio
async def test_an_agent_of_another_version_is_named_with_both(server: RedisServer) -> None:
    address = database(server, 8)
    offer: dict[str, object] = {
        "name": "old", "slots": 8, "label": "", "custom": {}, "host": "far", "pid": 1, "cpus": 8, "memory": None, "version": "0.0.1",
        "python": "3.9",
    }  # fmt: skip
    async with client(address) as other:
        await other.sadd(INDEX, "0ld")
        await other.hset(record("0ld"), mapping={"offer": Trust(SECRET).seal(offer_place("0ld"), offer), "leaving": 0})
        await other.expire(record("0ld"), 60)
        with pytest.raises(
            BackendUnavailable, match=r"agent 'old' on far runs sage_actor 0\.0\.1 on Python 3\.9, this job .* install the same"
        ):
            await backend.create(address).start(1, group="new", entry=f"{WORKER}:obey")
        assert await backend.create(address).slots() == 0
        await other.hset(record("0ld"), "offer", b"not a note")
        assert await known(address) == {}
        await other.delete(record("0ld"))
        await other.srem(INDEX, "0ld")


@pytest.mark.asyncio
async def test_another_secret_is_refused_on_both_sides(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = database(server, 9)
    async with agent_here(address, "wary") as lines:
        monkeypatch.setenv("SAGE_ACTOR_SECRET", "some other secret text")
        with pytest.raises(BackendUnavailable, match=r"agent 'wary' .* has another secret: copy `redis\.secret`.*SAGE_ACTOR_SECRET"):
            await backend.create(address).start(1, group="theirs", entry=f"{WORKER}:obey")
        there = (await known(address))["wary"]
        assert not there.trusted
        keys = RedisKeys(address, "sage:forged:1", 1, b"")
        note = assignment(keys, 1, group="forged", entry=f"{WORKER}:obey", resources={})
        lease = lease_name(keys.prefix, 1)
        async with client(address) as other:
            await other.hset(work(there.id), lease, Trust("some other secret text").seal(work_place(there.id, lease), note))
            await other.publish(record(there.id), "")
            await until(lambda: any("another secret" in line for line in lines), "nothing was noted")
        assert sum(f"refused an assignment ({lease})" in line for line in lines) == 1
        assert not any("started" in line for line in lines)


@pytest.mark.asyncio
async def test_the_rights_that_a_refusal_names_are_enough_for_agents(server: RedisServer) -> None:
    async with client(server.address) as other:
        await other.execute_command("ACL", "SETUSER", "agents", "on", ">password", *RIGHTS.split())
    address = database(server, 10).replace("redis://", "redis://agents:password@")
    async with agent_here(address, "only"), Owner(address, 1) as owner:
        await owner.echo(1, "allowed")
        assert await backend.create(address).slots() == 2
