"""What the redis backend promises beyond the rules for every backend: signed entries, short streams, a server that may go."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Protocol, Self, cast

import pytest

from sage_actor.backends import redis as backend
from sage_actor.backends.redis_line import RedisLine
from sage_actor.errors import BackendError, BackendUnavailable, FrameError, WorkerLost
from sage_actor.testing import RedisServer

WORKER = "sage_actor.testing.conformance_worker"


class Client(Protocol):
    """What the tests use of redis-py, typed."""

    async def keys(self, pattern: str) -> list[bytes]: ...
    async def xadd(self, name: str, fields: dict[str, bytes]) -> bytes: ...
    async def xlen(self, name: bytes) -> int: ...
    async def ttl(self, name: bytes) -> int: ...
    async def aclose(self) -> None: ...


@asynccontextmanager
async def client(address: str) -> AsyncGenerator[Client, None]:
    from redis.asyncio import Redis

    found = cast("Client", Redis.from_url(address))  # pyright: ignore[reportUnknownMemberType]
    try:
        yield found
    finally:
        await found.aclose()


class Owner:
    """A group of two that echo, and what comes of it; ended with the block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost: asyncio.Queue[BackendError] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.group.kill()

    async def start(self, address: str) -> backend.RedisGroup:
        self.group = await backend.create(address).start(2, group=self.name, entry=f"{WORKER}:echo")
        self.group.endpoint.start(lambda sender, frame: self.frames.put_nowait(bytes(frame)), self.lost.put_nowait)
        return self.group

    async def echo(self, worker: int, frame: bytes) -> None:
        self.group.endpoint.send(worker, [frame])
        async with asyncio.timeout(10):
            assert await self.frames.get() == frame

    async def loss(self, seconds: float = 10.0) -> BackendError:
        async with asyncio.timeout(seconds):
            return await self.lost.get()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of this test's own, which it may end."""
    try:
        with RedisServer() as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.asyncio
async def test_no_server_is_said_with_the_next_step_and_without_the_password() -> None:
    with pytest.raises(BackendUnavailable, match=r"redis://\*\*\*@127\.0\.0\.1:1/0.*redis-server --port 1") as caught:
        await backend.create("redis://user:secret@127.0.0.1:1/0").start(1, group="nobody", entry=f"{WORKER}:echo")
    assert "secret" not in str(caught.value)


@pytest.mark.asyncio
async def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(BackendUnavailable, match="not available"):
        await backend.create("redis://localhost:no-port/0").start(1, group="nobody", entry=f"{WORKER}:echo")


@pytest.mark.asyncio
async def test_a_forged_entry_for_the_owner_fails_the_group(redis_address: str) -> None:
    async with Owner("forged-for-owner") as owner:
        group = await owner.start(redis_address)
        async with client(redis_address) as other:
            await owner.echo(1, b"before")
            [stream] = [key for key in await other.keys("sage:forged-for-owner:*") if key.endswith(b":1>0")]
            await other.xadd(stream.decode(), {"f": bytes(100), "s": bytes(16)})
            error = await owner.loss()
            assert isinstance(error, FrameError)
            assert "from worker 1 to worker 0" in str(error)
            await group.aclose()
            assert owner.lost.empty()
            assert not await other.keys("sage:forged-for-owner:*")


@pytest.mark.asyncio
async def test_a_forged_entry_for_a_worker_fails_the_group(redis_address: str) -> None:
    async with Owner("forged-for-worker") as owner:
        group = await owner.start(redis_address)
        async with client(redis_address) as other:
            await owner.echo(1, b"before")
            [stream] = [key for key in await other.keys("sage:forged-for-worker:*") if key.endswith(b":0>1")]
            await other.xadd(stream.decode(), {"f": bytes(100), "g": b""})
            error = await owner.loss()
            assert isinstance(error, FrameError)
            assert "worker 1 (process" in str(error)
            assert "not ours" in str(error)
            await group.aclose()
            assert owner.lost.empty()


@pytest.mark.asyncio
async def test_a_killed_server_is_told_once_and_leaves_no_process(server: RedisServer) -> None:
    async with Owner("server-dies") as owner:
        group = await owner.start(f"{server.address}?patience=1")
        await owner.echo(1, b"before")
        server.kill()
        error = await owner.loss()
        assert isinstance(error, BackendUnavailable)
        assert server.address in str(error)
        assert "away for 1.0 s" in str(error)
        group.endpoint.send(1, [b"dropped"])
        await group.endpoint.flush()
        await group.aclose()
        assert owner.lost.empty()
        for worker in group.workers:
            with pytest.raises(ProcessLookupError):
                os.kill(worker.pid, 0)


@pytest.mark.asyncio
async def test_a_server_that_hangs_is_told(server: RedisServer) -> None:
    async with Owner("server-hangs") as owner:
        group = await owner.start(f"{server.address}?patience=1")
        await owner.echo(1, b"before")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            error = await owner.loss()
            assert isinstance(error, BackendUnavailable)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await group.aclose()


@pytest.mark.asyncio
async def test_a_worker_that_falls_silent_is_told(redis_address: str) -> None:
    async with Owner("silent") as owner:
        group = await owner.start(redis_address)
        await owner.echo(2, b"before")
        os.kill(group.workers[1].pid, signal.SIGSTOP)
        error = await owner.loss(10.0)
        assert isinstance(error, WorkerLost)
        assert (error.worker, error.exit_code) == (2, None)
        await group.kill()


@pytest.mark.asyncio
async def test_streams_hold_only_what_is_in_flight_and_expire(redis_address: str) -> None:
    async with Owner("short") as owner:
        group = await owner.start(redis_address)
        async with client(redis_address) as other:
            for turn in range(200):
                await owner.echo(1 + turn % 2, bytes(2000))
            streams = [key for key in await other.keys("sage:short:*") if b">" in key]
            assert streams
            async with asyncio.timeout(5):
                while any([await other.xlen(stream) for stream in streams]):  # noqa: ASYNC110  the server does not tell
                    await asyncio.sleep(0)
            async with asyncio.timeout(10):  # a killed group's keys end by themselves
                while not all([0 < await other.ttl(key) <= 60 for key in await other.keys("sage:short:*")]):  # noqa: ASYNC110  the server does not tell
                    await asyncio.sleep(0)
        await group.aclose()


@pytest.mark.asyncio
async def test_a_cancelled_call_takes_its_connection_along(redis_address: str) -> None:
    line = RedisLine(redis_address)
    await line.connect()
    assert await line.call([("ECHO", "one"), ("ECHO", "two")]) == [b"one", b"two"]
    waiting = asyncio.ensure_future(line.call([("BLPOP", "sage:no-such-list", 0)]))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(BackendUnavailable, match="closed"):
        await line.call([("ECHO", "three")])  # and not the answer to something else
    await line.aclose()
    await line.aclose()


@pytest.mark.asyncio
async def test_a_refused_command_is_said(redis_address: str) -> None:
    line = RedisLine(redis_address)
    await line.connect()
    with pytest.raises(BackendUnavailable, match=r"NO-SUCH-COMMAND: unknown command.*6\.2 or later"):
        await line.call([("NO-SUCH-COMMAND",), ("ECHO", "x")])
    assert await line.call([("ECHO", "and its replies are all read")]) == [b"and its replies are all read"]
    await line.aclose()
