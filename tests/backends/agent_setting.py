"""What the tests of Redis agents share: agents in this process and in others, and an owner of workers that obey."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self, cast

import pytest

from sage_actor.actor.backend import WorkerGroup
from sage_actor.actor.worker_agents import AgentInfo, AgentOffer
from sage_actor.backends import redis as backend
from sage_actor.errors import BackendError, WorkerLost
from sage_actor.ports import offload, system_clock
from sage_actor.testing import AgentProcess, RedisServer, agent_processes

__all__ = ["SECRET", "WORKER", "Client", "Owner", "agent_here", "client", "database", "known", "lives", "parent_of", "running", "until"]

WORKER = "sage_actor.testing.conformance_worker"
SECRET = "the secret of these tests"
"""Of both sides, by the fixture `secret` of each file."""


class Client(Protocol):
    """What the tests use of redis-py, typed."""

    async def keys(self, pattern: str) -> list[bytes]: ...
    async def ttl(self, name: bytes) -> int: ...
    async def expire(self, name: str, seconds: int) -> int: ...
    async def hset(self, name: str, key: str | None = ..., value: object = ..., mapping: dict[str, object] | None = ...) -> int: ...
    async def hexists(self, name: str, key: str) -> bool: ...
    async def sadd(self, name: str, value: str) -> int: ...
    async def srem(self, name: str, value: str) -> int: ...
    async def delete(self, name: str) -> int: ...
    async def publish(self, channel: str, message: str) -> int: ...
    async def execute_command(self, *words: str) -> object: ...
    async def aclose(self) -> None: ...


@asynccontextmanager
async def client(address: str) -> AsyncGenerator[Client, None]:
    """A connection of redis-py's."""
    from redis.asyncio import Redis

    found = cast("Client", Redis.from_url(address))  # pyright: ignore[reportUnknownMemberType]
    try:
        yield found
    finally:
        await found.aclose()


def database(server: RedisServer, number: int) -> str:
    """One of its databases; agents there are seen by nobody else."""
    return server.address.removesuffix("/0") + f"/{number}"


class Owner:
    """A group of workers that obey, and what comes of it; ended with the block."""

    def __init__(self, address: str, count: int, name: str = "agents") -> None:
        self.address = address
        self.count = count
        self.name = name
        self.group: WorkerGroup
        self.frames: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.lost: asyncio.Queue[BackendError] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(20):
            self.group = await backend.create(self.address).start(self.count, group=self.name, entry=f"{WORKER}:obey")
        self.group.endpoint.start(lambda sender, frame: self.frames.put_nowait((sender, bytes(frame))), self.lost.put_nowait)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.group.aclose(0.5)

    async def echo(self, worker: int, text: str) -> None:
        self.group.endpoint.send(worker, [json.dumps(["echo", text]).encode()])
        async with asyncio.timeout(10):
            assert await self.frames.get() == (worker, text.encode())

    async def loss(self) -> WorkerLost:
        async with asyncio.timeout(15):
            error = await self.lost.get()
        assert isinstance(error, WorkerLost)
        return error


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what another process does, which tells nobody."""
    try:
        async with asyncio.timeout(15):
            while not condition():
                await system_clock.sleep(0.02)
    except TimeoutError:
        pytest.fail(what)


async def known(address: str) -> dict[str, AgentInfo]:
    """The agents there, by name."""
    return {agent.name: agent for agent in await backend.create(address).agents()}


def parent_of(pid: int) -> int:
    """The process that has started another."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@asynccontextmanager
async def agent_here(
    address: str, name: str, *, slots: int = 2, label: str = "", custom: dict[str, float] | None = None
) -> AsyncGenerator[list[str], None]:
    """An agent in this process; gives what it notes."""
    lines: list[str] = []
    stopping = asyncio.Event()
    offer = AgentOffer(name=name, slots=slots, label=label, custom=custom or {})
    serving = asyncio.ensure_future(backend.create(address).run_agent(offer, stopping=stopping, note=lines.append))
    try:
        await until(lambda: bool(lines) or serving.done(), "the agent does not come up")
        if not serving.done():
            yield lines
    finally:
        stopping.set()
        await serving


@asynccontextmanager
async def running(address: str, names: Sequence[str]) -> AsyncGenerator[list[AgentProcess], None]:
    """Agents of a test's own, as processes. They block while they come up, so they do it in a thread."""
    made: list[AgentProcess] = []
    begin, end = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            with agent_processes(address, names) as started:
                made.extend(started)
                begin.set()
                end.wait()
        finally:
            begin.set()

    keeper = asyncio.ensure_future(offload(keep))
    try:
        await offload(begin.wait)
        if keeper.done():
            await keeper
        yield made
    finally:
        end.set()
        await keeper
