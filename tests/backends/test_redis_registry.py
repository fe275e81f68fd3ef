"""What agents and owners make of each other's keys: leases that cross, offers of strangers, assignments that nobody gave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest
from agent_setting import SECRET, WORKER, Client, agent_here, client, database, known

from sage_actor.actor.backend import WorkerResources
from sage_actor.backends import redis as backend
from sage_actor.backends.redis_agent import own_version, python_version
from sage_actor.backends.redis_assigned_worker import assignment
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import RedisLine
from sage_actor.backends.redis_registry import INDEX, Overtaken, lease, lease_name, offer_place, read_agents, record, told_resources, work
from sage_actor.backends.redis_rounds import RedisRounds
from sage_actor.backends.redis_trust import Note, Trust
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import system_clock
from sage_actor.testing import RedisServer
from sage_actor.testing.tcp_proxy import TcpProxy

AGENT = "0ne"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    try:
        with RedisServer() as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_SECRET", SECRET)


@asynccontextmanager
async def line_to(address: str) -> AsyncGenerator[RedisLine, None]:
    line = RedisLine(address)
    try:
        await line.connect()
        yield line
    finally:
        await line.aclose()


async def offer(other: Client, **changed: object) -> None:
    """An agent that is only a record."""
    note: Note = {
        "name": "written", "slots": 2, "label": "", "custom": {}, "host": "far", "pid": 1, "cpus": 8, "memory": None,
        "version": own_version(), "python": python_version(), **changed,
    }  # fmt: skip
    await other.sadd(INDEX, AGENT)
    await other.hset(record(AGENT), mapping={"offer": Trust(SECRET).seal(offer_place(AGENT), note), "leaving": 0})
    await other.expire(record(AGENT), 60)


def assigned(prefix: str) -> Note:
    return assignment(RedisKeys("", prefix, 1, b""), 1, group="g", entry="m:f", resources=told_resources(WorkerResources()))


@pytest.mark.asyncio
async def test_of_two_that_saw_the_same_room_one_is_overtaken_also_if_the_server_forgot_the_leases_before(server: RedisServer) -> None:
    address = database(server, 0)
    trust = Trust(SECRET)
    async with client(address) as other, line_to(address) as line:
        await offer(other)
        agents, nobody_yet = await read_agents(line, trust)
        assert await lease(line, agents, nobody_yet, trust, [assigned("sage:first:1")]) == [AGENT]
        agents, seen = await read_agents(line, trust)
        assert [agent.info.used for agent in agents] == [1]
        await other.delete(f"{INDEX}:generation")  # as when it expires
        assert await lease(line, agents, b"", trust, [assigned("sage:second:1")]) == [AGENT]
        with pytest.raises(Overtaken):
            await lease(line, agents, seen, trust, [assigned("sage:third:1")])
        agents, _ = await read_agents(line, trust)
        assert [agent.info.jobs for agent in agents] == [("first", "second")]


@pytest.mark.asyncio
async def test_an_agent_that_leaves_after_it_was_seen_is_not_leased(server: RedisServer) -> None:
    address = database(server, 1)
    trust = Trust(SECRET)
    async with client(address) as other, line_to(address) as line:
        await offer(other)
        agents, seen = await read_agents(line, trust)
        await other.hset(record(AGENT), "leaving", 1)
        with pytest.raises(Overtaken):
            await lease(line, agents, seen, trust, [assigned("sage:late:1")])


@pytest.mark.asyncio
async def test_what_strangers_write_hides_no_agent_and_reaches_no_terminal(server: RedisServer) -> None:
    address = database(server, 2)
    async with client(address) as other, line_to(address) as line:
        for sealed in (b"x" * 16 + b"[" * 100_000, Trust(SECRET).seal(offer_place(AGENT), {"name": "no more"}), b""):
            await offer(other)
            await other.hset(record(AGENT), "offer", sealed)
            assert (await read_agents(line, Trust(SECRET)))[0] == []
        await offer(other, slots=float("inf"))
        assert (await read_agents(line, Trust(SECRET)))[0] == []
        await offer(other, name="\x1b[2Jred", host="a\nb")
        [agent] = (await read_agents(line, Trust("another secret text")))[0]
        assert (agent.info.name, agent.info.host, agent.info.trusted) == ("?[2Jred", "a?b", False)
        await other.hset(work(AGENT), "sage:huge:1/1", b"x" * 16 + b'{"resources": {"num_cpus": 1' + b"0" * 400 + b"}}")
        [agent] = (await read_agents(line, Trust(SECRET)))[0]
        assert agent.info.used == 1


@pytest.mark.asyncio
async def test_a_forged_assignment_takes_no_slot_however_often_it_is_written(server: RedisServer) -> None:
    address = database(server, 3)
    async with client(address) as other, agent_here(address, "here") as lines:
        agent = (await known(address))["here"].id
        name = lease_name("sage:forged\x1b:1", 1)
        for _ in range(3):
            await other.hset(work(agent), name, b"x" * 16 + b"{}")
            async with asyncio.timeout(10):
                while await other.hexists(work(agent), name):
                    await system_clock.sleep(0.005)
        assert lines[1].startswith("refused an assignment")
        assert "\x1b" not in "".join(lines)


@pytest.mark.asyncio
async def test_a_group_that_no_process_can_be_named_after_costs_its_job_and_no_agent(server: RedisServer) -> None:
    address = database(server, 4)
    async with agent_here(address, "here"):
        before = await known(address)
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match=r"agent 'here' cannot start it"):
                await backend.create(address).start(1, group="nul\0l", entry="m:f")
        after = await known(address)
        assert [agent.id for agent in after.values()] == [before["here"].id]


@pytest.mark.asyncio
async def test_an_agent_that_was_killed_a_moment_ago_gets_no_worker(server: RedisServer) -> None:
    address = database(server, 6)
    async with client(address) as other, agent_here(address, "here", slots=1):
        await offer(other)  # nobody listens to its channel
        async with asyncio.timeout(15):
            group = await backend.create(address).start(1, group="avoids", entry=f"{WORKER}:obey")
        assert {agent.name: agent.used for agent in (await known(address)).values()} == {"here": 1, "written": 0}
        await group.aclose()


@pytest.mark.asyncio
async def test_a_bell_on_which_nothing_comes_not_even_our_own_calls_is_replaced(server: RedisServer) -> None:
    broken: list[BackendUnavailable] = []
    with TcpProxy.before(server.address) as proxy:
        through = proxy.instead_of(server.address)
        # Calls come at most once a round, so with so short a time between them the bell always seems to be deaf.
        rounds = RedisRounds(
            through, "sage:deaf", ask=lambda: [("PING",)], answer=lambda _: None, broken=broken.append, patience=10, call=0.01
        )
        async with line_to(server.address) as other, asyncio.timeout(15):
            await other.call([("SUBSCRIBE", "sage:deaf")])
            await rounds.open()
            first = proxy.accepted
            await other.receive()
            while proxy.accepted < first + 2:
                await system_clock.sleep(0.02)
        await rounds.aclose()
    assert not broken


@pytest.mark.asyncio
async def test_rounds_that_fail_by_a_fault_of_ours_are_told_and_not_just_over(server: RedisServer) -> None:
    address = database(server, 5)
    broken: asyncio.Queue[BackendUnavailable] = asyncio.Queue()
    seen: list[list[object]] = []

    def answer(replies: list[object]) -> None:
        seen.append(replies)
        if len(seen) > 1:
            raise LookupError("nobody thought of this")

    rounds = RedisRounds(address, "sage:faulty", ask=lambda: [("PING",)], answer=answer, broken=broken.put_nowait, patience=10)
    await rounds.open()
    rounds.ring()
    async with asyncio.timeout(10):
        error = await broken.get()
    assert "nobody thought of this" in str(error)
    await rounds.aclose()
