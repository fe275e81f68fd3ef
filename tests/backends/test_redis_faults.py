"""Two endpoints, a real server, and a network that fails: every frame arrives once and in order, or the end is told in time."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
import redis.asyncio  # noqa: F401  now, and not on the loop of the first test

from sage_actor.backends.frame_reader import HEADER
from sage_actor.backends.redis_endpoint import RedisEndpoint
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import RedisLine
from sage_actor.backends.redis_outbound import Outbound
from sage_actor.backends.redis_pulse import RedisPulse
from sage_actor.errors import BackendError, BackendUnavailable
from sage_actor.testing import RedisServer, TcpProxy

PERSISTENT = ("--appendonly", "yes", "--appendfsync", "always")


def numbered(number: int) -> bytes:
    return b"%d:" % number + bytes([number % 251]) * (number * 37 % 4000)


class End:
    """One endpoint of a pair: what came, what was lost."""

    def __init__(self, worker: int, keys: RedisKeys, address: str) -> None:
        self.came: list[bytes] = []
        self.lost: list[BackendError] = []
        self.silent: list[int] = []
        self.endpoint = RedisEndpoint(worker, replace(keys, address=address), silent=self.silent.append)
        self.sent = 0

    async def open(self) -> None:
        await self.endpoint.open()
        self.endpoint.start(lambda sender, frame: self.came.append(bytes(frame)), self.lost.append)

    def send(self, count: int) -> None:
        for _ in range(count):
            self.endpoint.send(1 - self.endpoint.worker, [numbered(self.sent)])
            self.sent += 1


class Pair:
    """An owner and one worker in this process; the worker alone behind the proxy, if there is one."""

    def __init__(self, owner: End, worker: End) -> None:
        self.owner, self.worker = owner, worker

    async def until_came(self) -> None:
        """Everything sent has arrived, once and in order."""
        await until(lambda: len(self.owner.came) >= self.worker.sent and len(self.worker.came) >= self.owner.sent)
        for end, other in ((self.owner, self.worker), (self.worker, self.owner)):
            assert end.came == [numbered(number) for number in range(other.sent)]
            assert not end.lost
            assert not end.silent

    async def trade(self, rounds: int, disturb: Callable[[int], Awaitable[None] | None] | None = None) -> None:
        """Send both ways, with something between the rounds."""
        for turn in range(rounds):
            self.owner.send(20)
            self.worker.send(20)
            if disturb is not None and (waiting := disturb(turn)) is not None:
                await waiting
            for _ in range(20):
                await asyncio.sleep(0)
        await self.until_came()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  neither servers nor sockets tell
            await asyncio.sleep(0)


@asynccontextmanager
async def pair(server: RedisServer, proxy: TcpProxy | None = None, options: str = "") -> AsyncGenerator[Pair, None]:
    keys = RedisKeys(server.address, f"sage:pair:{secrets.token_hex(4)}", 1, secrets.token_bytes(32))
    address = (proxy.instead_of(server.address) if proxy else server.address) + options
    owner, worker = End(0, keys, server.address + options), End(1, keys, address)
    try:
        await owner.open()
        await worker.open()
        yield Pair(owner, worker)
    finally:
        await asyncio.gather(owner.endpoint.abort(), worker.endpoint.abort())


@asynccontextmanager
async def client(server: RedisServer) -> AsyncGenerator[Any, None]:
    from redis.asyncio import Redis

    found = cast("Any", Redis).from_url(server.address)
    try:
        yield found
    finally:
        await found.aclose()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of this test's own, which it may end."""
    try:
        with RedisServer(arguments=("--repl-diskless-sync-delay", "0")) as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def second_server(server: RedisServer) -> Iterator[RedisServer]:
    """Another one."""
    with RedisServer() as started:
        yield started


@pytest.fixture
def saving_server() -> Iterator[RedisServer]:
    """A server that has on disk what it has acknowledged."""
    try:
        with RedisServer(arguments=PERSISTENT) as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy.before(server.address) as entered:
        yield entered


@pytest.mark.asyncio
@pytest.mark.rule("F41")
async def test_connections_that_are_cut_in_mid_reply_lose_and_repeat_nothing(server: RedisServer, proxy: TcpProxy) -> None:
    async with pair(server, proxy) as both:

        async def cut(turn: int) -> None:
            before = proxy.accepted
            proxy.cut_after(turn * 97 % 3000, "to_client" if turn % 2 else "to_server")
            await until(lambda: proxy.accepted > before)

        await both.trade(30, cut)


@pytest.mark.asyncio
async def test_a_network_that_is_down_for_a_while_is_waited_for(server: RedisServer, proxy: TcpProxy) -> None:
    async with pair(server, proxy) as both:
        await both.trade(2)
        proxy.refuse()
        assert proxy.cut() == 3  # writing, reading, heartbeat
        both.worker.send(50)
        both.owner.send(50)
        flushed = asyncio.ensure_future(both.worker.endpoint.flush())
        before = proxy.accepted
        for _ in range(200):
            await asyncio.sleep(0)
        assert not flushed.done()
        proxy.accept()
        await flushed
        await both.until_came()
        assert proxy.accepted > before


@pytest.mark.asyncio
async def test_a_connection_that_hangs_is_replaced(server: RedisServer, proxy: TcpProxy) -> None:
    async with pair(server, proxy, "?patience=2") as both:
        await both.trade(2)
        before = proxy.accepted
        proxy.stall()
        both.worker.send(50)
        await until(lambda: proxy.accepted > before)
        proxy.resume()
        await both.trade(2)


@pytest.mark.asyncio
async def test_a_delay_both_ways_only_delays(server: RedisServer, proxy: TcpProxy) -> None:
    proxy.delay(0.02)
    async with pair(server, proxy) as both:
        await both.trade(5)
        assert proxy.accepted == 3  # nothing was replaced


@pytest.mark.asyncio
async def test_a_slow_way_is_used_to_its_limit_and_in_small_steps(server: RedisServer, proxy: TcpProxy) -> None:
    async with pair(server, proxy, "?patience=2") as both:
        await both.trade(1)
        proxy.limit(4_000_000)
        big = bytes(1_000_000)
        for _ in range(4):
            both.worker.endpoint.send(0, [big])
            both.owner.endpoint.send(1, [big])
        before = len(both.owner.came), len(both.worker.came)
        await until(lambda: len(both.owner.came) == before[0] + 4 and len(both.worker.came) == before[1] + 4)
        assert not both.worker.lost
        await both.worker.endpoint.flush()


@pytest.mark.asyncio
@pytest.mark.rule("F41")
async def test_a_server_that_restarts_empty_loses_nothing(server: RedisServer) -> None:
    async with pair(server) as both:

        def restart(turn: int) -> None:
            if turn % 3 == 1:
                server.kill()
                server.restart()

        await both.trade(10, restart)


@pytest.mark.asyncio
async def test_a_server_that_restarts_with_what_it_saved_repeats_nothing(saving_server: RedisServer) -> None:
    async with pair(saving_server) as both:

        def restart(turn: int) -> None:
            if turn % 3 == 1:
                saving_server.kill()
                saving_server.restart()

        await both.trade(10, restart)


@pytest.mark.asyncio
async def test_a_failover_to_a_replica_without_the_last_writes_loses_nothing(
    server: RedisServer, second_server: RedisServer, proxy: TcpProxy
) -> None:
    keys = RedisKeys(proxy.instead_of(server.address), f"sage:failover:{secrets.token_hex(4)}", 1, secrets.token_bytes(32))
    both = Pair(End(0, keys, keys.address), End(1, keys, keys.address))
    await both.owner.open()
    await both.worker.open()
    try:
        async with client(second_server) as other:
            await other.replicaof("127.0.0.1", port_of(server))
            await until_async(lambda: up_to_date(other))
            await both.trade(3)
            await other.replicaof("NO", "ONE")  # from here on it misses what is written
            await both.trade(3)
            both.owner.send(20)
            both.worker.send(20)
            await asyncio.gather(both.owner.endpoint.flush(), both.worker.endpoint.flush())
            proxy.redirect(second_server.address)
            proxy.cut()
            await both.trade(3)
            await until_async(lambda: streams_are_empty(other, keys))
    finally:
        await asyncio.gather(both.owner.endpoint.abort(), both.worker.endpoint.abort())


def port_of(server: RedisServer) -> int:
    return int(server.address.rpartition(":")[2].partition("/")[0])


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  the server does not tell
            await asyncio.sleep(0)


async def up_to_date(replica: Any) -> bool:
    return bool((await replica.info("replication")).get("master_link_status") == "up")


async def streams_are_empty(other: Any, keys: RedisKeys) -> bool:
    return not any([await other.xlen(keys.stream(*way)) for way in ((0, 1), (1, 0))])


@pytest.mark.asyncio
async def test_a_server_whose_keys_are_all_deleted_gets_them_again(server: RedisServer) -> None:
    async with pair(server) as both, client(server) as other:
        await both.trade(2)

        async def delete(turn: int) -> None:
            await other.flushall()

        # The deletion may fall between a read and its acknowledgement, a write and its read: all that matters is the end.
        await both.trade(10, delete)


@pytest.mark.asyncio
async def test_the_last_frame_of_a_worker_is_behind_all_that_waits_in_its_stream(server: RedisServer) -> None:
    keys = RedisKeys(server.address, "sage:last", 1, b"k" * 32)
    outbound = Outbound(keys, 1, 0)
    owner = End(0, keys, server.address)
    async with client(server) as other:
        for number in range(500):  # each in an entry of its own, as a worker sends whose frames come one by one
            outbound.add([HEADER.pack(len(numbered(number))), numbered(number)])
            entry, commands, _ = outbound.next_entry()
            pipe = other.pipeline()
            for command in commands:
                if command[0] in {"XADD", "EXPIRE"}:
                    pipe.execute_command(*command)
            outbound.written(entry, (await pipe.execute())[0])
        told: list[int] = []
        try:
            owner.endpoint.after_last_frame(1, lambda: told.append(len(owner.came)))
            await owner.open()
            await until(lambda: bool(told))
        finally:
            await owner.endpoint.abort()
    assert told == [500]


@pytest.mark.asyncio
async def test_a_server_without_memory_is_waited_for(server: RedisServer) -> None:
    async with pair(server) as both, client(server) as other:
        await both.trade(2)
        await other.config_set("maxmemory", 1)
        both.owner.send(100)
        both.worker.send(100)
        flushed = asyncio.ensure_future(both.owner.endpoint.flush())
        await until_async(lambda: has_refused(other, "OOM"))
        assert not flushed.done()
        await other.config_set("maxmemory", 0)
        await flushed
        await both.until_came()


@pytest.mark.asyncio
async def test_a_server_that_is_a_replica_for_a_while_is_waited_for(server: RedisServer, second_server: RedisServer) -> None:
    async with pair(server) as both, client(server) as other:
        await both.trade(2)
        await other.replicaof("127.0.0.1", port_of(second_server))
        both.owner.send(100)
        both.worker.send(100)
        await until_async(lambda: has_refused(other, "READONLY"))
        await other.replicaof("NO", "ONE")
        await both.until_came()


async def has_refused(other: Any, code: str) -> bool:
    stats = await other.info("errorstats")
    return f"errorstat_{code}" in stats


@pytest.mark.asyncio
async def test_patience_that_runs_out_is_told_with_the_reason(server: RedisServer) -> None:
    async with pair(server, options="?patience=0.5") as both:
        await both.trade(1)
        server.kill()
        both.worker.send(1)
        await until(lambda: bool(both.owner.lost and both.worker.lost))
        for end in (both.owner, both.worker):
            [error] = end.lost
            assert isinstance(error, BackendUnavailable)
            assert "away for 0.5 s" in str(error)
            assert "redis-server --port" in str(error)
            await end.endpoint.flush()  # returns, since nothing can leave any more


@pytest.mark.asyncio
async def test_a_call_that_is_cancelled_behind_a_delay_answers_nobody_else(server: RedisServer, proxy: TcpProxy) -> None:
    proxy.delay(0.05)
    line = RedisLine(proxy.instead_of(server.address))
    await line.connect()
    before = proxy.passed("to_server")
    call = asyncio.ensure_future(line.call([("ECHO", "the first")]))
    await until(lambda: proxy.passed("to_server") > before)  # the server has it, its answer is on the way
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(BackendUnavailable, match="closed"):
        await line.call([("ECHO", "the second")])
    await line.aclose()
    await until(lambda: proxy.connections == 0)


@pytest.mark.asyncio
async def test_a_call_without_an_answer_ends_in_time_and_closes_the_line(server: RedisServer, proxy: TcpProxy) -> None:
    line = RedisLine(proxy.instead_of(server.address))
    await line.connect()
    proxy.stall("to_client")
    with pytest.raises(BackendUnavailable, match=r"no answer to ECHO within 0\.2 s.*patience"):
        await line.call([("ECHO", "x")], limit=0.2)
    with pytest.raises(BackendUnavailable, match="closed"):
        await line.call([("ECHO", "y")])
    await line.aclose()
    proxy.resume()
    await until(lambda: proxy.connections == 0)


@pytest.mark.asyncio
async def test_what_a_server_does_not_read_is_not_kept_by_a_closed_line(server: RedisServer, proxy: TcpProxy) -> None:
    line = RedisLine(proxy.instead_of(server.address))
    await line.connect()
    proxy.stall()
    with pytest.raises(BackendUnavailable, match="no answer to SET"):
        await line.call([("SET", "sage:big", bytes(30_000_000), "EX", 10)], limit=0.2)
    proxy.resume()
    await until(lambda: proxy.connections == 0)
    async with client(server) as other:
        assert await other.get("sage:big") is None
    await line.aclose()


@pytest.mark.asyncio
async def test_nobody_is_silent_while_the_server_is_away(server: RedisServer) -> None:
    keys = RedisKeys(f"{server.address}?patience=30", "sage:pulse", 1, bytes(32))
    silent: list[int] = []
    gone: list[BackendError] = []
    pulses = [
        RedisPulse(keys, worker, (1 - worker,), silent=silent.append, gone=gone.append, period=0.02, silence=2.0) for worker in (0, 1)
    ]
    async with client(server) as other:
        for pulse in pulses:
            pulse.start()
            pulse.expect()
        try:
            await until_async(lambda: beats(other, keys, 5))
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await asyncio.get_running_loop().run_in_executor(None, hangs_for, server, 1.0)
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await until_async(lambda: beats(other, keys, 20))
            server.kill()
            server.restart()
            await until_async(lambda: beats(other, keys, 40))
            assert not silent
            assert not gone
            await pulses[1].aclose()
            await until(lambda: silent == [1])
        finally:
            for pulse in pulses:
                await pulse.aclose()


def hangs_for(server: RedisServer, seconds: float) -> None:
    """Block while a stopped server gives no answer for so long."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=seconds) as connection:
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


async def beats(other: Any, keys: RedisKeys, count: int) -> bool:
    from redis.exceptions import ConnectionError as Closed

    try:
        return all(int(beat or 0) >= count for beat in await other.mget(keys.beat(0), keys.beat(1)))
    except Closed:
        return False
