"""Workers that agents run: where they are, what their owner hears, and that nothing is left."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from agent_setting import SECRET, WORKER, Owner, agent_here, client, database, known, lives, parent_of, running, until

import sage_actor as sage
from sage_actor.actor.worker_agents import AgentOffer
from sage_actor.backends import redis as backend
from sage_actor.cli.main import main
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import offload, system_clock
from sage_actor.testing import AgentProcess, RedisServer, agent_processes
from sage_actor.testing.conformance import BackendCase, Rule, backend_rules, rule_name


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server whose agents are ours alone."""
    try:
        with RedisServer() as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def agents(server: RedisServer) -> Iterator[list[AgentProcess]]:
    """Two agents with two slots each, in the server's first database. Tests that end an agent use another database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGE_ACTOR_SECRET", SECRET)
        with agent_processes(server.address) as started:
            yield started


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_SECRET", SECRET)


# -- where workers are ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_workers_are_spread_over_agents_which_show_it(server: RedisServer, agents: list[AgentProcess]) -> None:
    assert await backend.create(server.address).slots() == 4
    async with Owner(server.address, 3, "spread") as owner:
        assert sorted(parent_of(worker.pid) in (agent.pid for agent in agents) for worker in owner.group.workers) == [True] * 3
        assert len({parent_of(worker.pid) for worker in owner.group.workers}) == 2
        there = await known(server.address)
        assert sorted(agent.used for agent in there.values()) == [1, 2]
        assert {job.rpartition("-")[0] or job for agent in there.values() for job in agent.jobs} == {"spread"}
        assert there["left"].pid == agents[0].pid
        assert there["left"].trusted
        assert there["left"].heard < 5
        for worker in (1, 2, 3):
            await owner.echo(worker, f"hello {worker}")
    there = await known(server.address)
    assert [agent.used for agent in there.values()] == [0, 0]


@pytest.mark.asyncio
async def test_a_dataflow_runs_there_and_two_jobs_of_one_name_do_not_mix(server: RedisServer, agents: list[AgentProcess]) -> None:
    async def count(last: int) -> tuple[dict[int, int], set[int]]:
        async with sage.Environment("twice", backend=server.address, parallelism=2) as env:
            rows = env.from_collection(range(last)).rebalance().map(lambda n: (n % 7, os.getpid()))
            counts = rows.key_by(lambda row: row[0]).count(emit="final").collect()
            pids = rows.map(lambda row: row[1]).collect()
            await env.execute()
        return dict(counts), set(pids)

    async with asyncio.timeout(40):
        (first, one), (second, two) = await asyncio.gather(count(700), count(1400))
    assert first == dict.fromkeys(range(7), 100)
    assert second == dict.fromkeys(range(7), 200)
    assert len(one) == len(two) == 2
    assert not one & two
    assert os.getpid() not in one | two


@pytest.mark.asyncio
async def test_workers_import_from_the_folder_of_their_agent(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_there.py").write_text("from sage_actor.testing.conformance_worker import obey\n", encoding="utf-8")
    with pytest.raises(ImportError):
        __import__("only_there")
    monkeypatch.chdir(tmp_path)
    address = database(server, 1)
    async with agent_here(address, "elsewhere"):
        group = await backend.create(address).start(1, group="imports", entry="only_there:obey")
        await group.aclose()


# Those of the backend suite in which agents have a part; the table of `make conformance` runs them all.
SUITE = [
    rule
    for rule in backend_rules()
    if rule_name(rule)
    in {
        "a_cancelled_start_leaves_nothing",
        "a_killed_owner_leaves_no_orphan",
        "a_killed_worker_is_told",
        "a_loss_before_start_is_told_at_start",
        "a_start_that_fails_leaves_nothing",
        "a_worker_that_exits_is_told",
        "an_entry_that_returns_is_no_loss",
        "closing_leaves_nothing",
        "resources_that_nobody_has_are_refused",
    }
]


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", SUITE, ids=rule_name)
async def test_the_suite(rule: Rule, server: RedisServer, agents: list[AgentProcess]) -> None:
    async def keys() -> Collection[str]:
        async with client(server.address) as other:
            return [key.decode() for key in await other.keys("sage:conformance*")]

    await rule(BackendCase(server.address, leftovers=keys))


def test_the_list_is_readable(server: RedisServer, agents: list[AgentProcess], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["worker", "--list", "--backend", server.address]
    assert main(command) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["name", "host", "process", "slots", "used", "group", "jobs", "version", "heard"]
    assert [line.split()[0] for line in shown[1:]] == ["left", "right"]
    assert all(str(agent.pid) in line for agent, line in zip(agents, shown[1:], strict=True))
    assert main([*command, "--json"]) == 0
    assert [agent["slots"] for agent in json.loads(capsys.readouterr().out)] == [2, 2]
    assert main([*command[:-1], database(server, 11)]) == 0
    assert capsys.readouterr().out == "no agents\n"
    assert main(["worker", "--backend", "process"]) == 1
    assert "not started by agents" in capsys.readouterr().err
    assert main(["worker", "--backend", server.address, "--json"]) == 2
    assert main(["worker", "--backend", server.address, "--resource", "licence"]) == 2
    assert "such as licence=2" in " ".join(capsys.readouterr().err.split())


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_killed_agent_takes_its_workers_along_and_is_named(server: RedisServer) -> None:
    address = database(server, 2)
    async with running(address, ["left"]) as [left], agent_here(address, "right"), Owner(address, 2) as owner:
        mine = next(worker for worker in owner.group.workers if parent_of(worker.pid) == left.pid)
        other = next(worker for worker in owner.group.workers if worker != mine)
        await owner.echo(mine.worker, "before")
        await offload(left.kill)
        error = await owner.loss()
        assert (error.worker, error.pid, error.exit_code) == (mine.worker, mine.pid, None)
        assert "agent 'left'" in error.last_words
        await until(lambda: not lives(mine.pid), "the worker of a killed agent lives on")
        await owner.echo(other.worker, "the other goes on")
        assert owner.lost.empty()
    assert not lives(other.pid)


@pytest.mark.asyncio
async def test_an_agent_that_is_told_to_stop_ends_its_workers_tells_their_owners_and_signs_off(server: RedisServer) -> None:
    address = database(server, 3)
    async with running(address, ["left"]) as [left], agent_here(address, "right"), Owner(address, 2, "drained") as owner:
        mine = next(worker for worker in owner.group.workers if parent_of(worker.pid) == left.pid)
        assert await offload(left.stop) == 0
        error = await owner.loss()
        assert (error.worker, error.exit_code) == (mine.worker, 0)
        assert "agent 'left'" in error.last_words
        assert "told to stop" in error.last_words
        assert not lives(mine.pid)
        assert list(await known(address)) == ["right"]
        lines = left.output.splitlines()
        assert [line for line in lines if f"worker {mine.worker} started, process {mine.pid}" in line]
        assert lines[-3:][0] == "stopping: ends 1 worker"
        assert lines[-1] == "signed off"
    async with client(address) as other:
        left_over = [key for key in await other.keys("*") if await other.ttl(key) < 0]
        assert not left_over, "keys without an end"


OWNER = """
import asyncio, json, sys
sys.path[:] = {path!r}
from sage_actor.backends.redis import create

async def main():
    group = await create({address!r}).start(2, group="orphans", entry={entry!r})
    print(json.dumps([worker.pid for worker in group.workers]), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_an_agent_that_is_cancelled_kills_its_workers_and_signs_off_all_the_same(server: RedisServer) -> None:
    address = database(server, 4)
    lines: list[str] = []
    offer = AgentOffer(name="hasty", slots=1)
    serving = asyncio.ensure_future(backend.create(address).run_agent(offer, stopping=asyncio.Event(), note=lines.append))
    await until(lambda: bool(lines), "the agent does not come up")
    async with Owner(address, 1) as owner:
        owner.group.endpoint.send(1, [json.dumps(["block"]).encode()])
        async with asyncio.timeout(10):
            await owner.frames.get()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert lines[-1] == "signed off"
        error = await owner.loss()
        assert error.exit_code == -9
        assert "agent 'hasty'" in error.last_words
        assert not lives(owner.group.workers[0].pid)
        assert await known(address) == {}
    async with client(address) as other:
        assert not await other.keys("sage:agents:*:work"), "the lease was given back"


async def all_free(address: str) -> None:
    async with asyncio.timeout(10):
        while any(agent.used for agent in (await known(address)).values()):
            await system_clock.sleep(0.02)


@pytest.mark.asyncio
async def test_a_killed_owner_frees_its_slots(server: RedisServer, agents: list[AgentProcess]) -> None:
    await all_free(server.address)  # another test may have killed its owner moments ago
    program = OWNER.format(path=sys.path, address=server.address, entry=f"{WORKER}:echo")
    owner = await offload(functools.partial(subprocess.Popen[bytes], [sys.executable, "-c", program], stdout=subprocess.PIPE))
    try:
        assert owner.stdout is not None
        pids: list[int] = json.loads(await offload(owner.stdout.readline))
        assert sum(agent.used for agent in (await known(server.address)).values()) == 2
    finally:
        owner.kill()
        await offload(owner.wait)
        if owner.stdout is not None:
            owner.stdout.close()
    await until(lambda: not any(map(lives, pids)), "workers of a killed owner live on")
    await all_free(server.address)
    async with Owner(server.address, 4) as all_of_them:
        await all_of_them.echo(4, "the slots are free")
    assert "its owner is gone" in agents[0].output + agents[1].output


@pytest.mark.asyncio
@pytest.mark.blocks_loop("a server ends with the thread that has started it, so that must be this one")
async def test_a_server_that_was_killed_and_comes_back_empty_costs_no_worker(server: RedisServer) -> None:
    with RedisServer() as mine:
        async with agent_here(mine.address, "only") as lines, Owner(mine.address, 2) as owner:
            await owner.echo(1, "before")
            mine.kill()
            await until(lambda: any("lost the server" in line for line in lines), "nothing was noted")
            mine.restart()
            await owner.echo(2, "after")
            await until(lambda: "the server is back" in lines, "nothing was noted")
            async with asyncio.timeout(10):
                while [agent.used for agent in (await known(mine.address)).values()] != [2]:
                    await system_clock.sleep(0.02)
            assert owner.lost.empty()
            os.kill(owner.group.workers[0].pid, 9)
            error = await owner.loss()
            assert (error.worker, error.exit_code) == (1, -9)
        assert sum("ended with -9" in line for line in lines) == 1


@pytest.mark.asyncio
async def test_a_running_job_moves_onto_agents_that_join(server: RedisServer) -> None:
    address = database(server, 13)
    config = {"checkpoint.interval": "100ms", "buffer.records": 100, "batch.records": 20}
    grows = sage.Environment("grows", backend=address, parallelism=1, config=config)
    async with agent_here(address, "first", slots=1) as first, asyncio.timeout(50), grows as env:
        numbers = env.from_collection(range(4000)).rebalance().map(lambda n: (n % 20, sum(range(10_000))))
        counts = numbers.key_by(lambda row: row[0]).count(emit="final").collect()
        job = await env.submit()
        await until(lambda: job.metrics()["checkpoints"]["completed"] > 0, "no checkpoint")
        async with agent_here(address, "second") as second:
            assert await backend.create(address).slots() == 3
            await job.rescale(3)
            await job.wait()
    assert dict(counts) == dict.fromkeys(range(20), 200)
    assert [sum("started" in line for line in lines) for lines in (first, second)] == [2, 2]
